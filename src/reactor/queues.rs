//! The lists of those that something is due for. Each step of a turn works off one list, so its cost
//! follows what is ready and not what is connected.

use super::table::{Slot, Table};
use crate::connection::ConnId;
use crate::connection::flags::Flag;

impl<S> Table<S> {
    pub(crate) fn is_idle(&self) -> bool {
        let Table { ready, handshakes, dirty, ending, .. } = self;
        ready.is_empty() && handshakes.is_empty() && dirty.is_empty() && ending.is_empty()
    }

    /// Puts the connection behind those that wait to be served, if there is anything to do.
    #[inline]
    pub(crate) fn queue(&mut self, id: ConnId) {
        self.visit_if(id, |slot| slot.conn.has_work());
    }

    /// Puts the connection behind those that wait to be served.
    pub(crate) fn visit(&mut self, id: ConnId) {
        self.visit_if(id, |_| true);
    }

    #[inline]
    pub(super) fn visit_if(&mut self, id: ConnId, so: impl FnOnce(&Slot<S>) -> bool) {
        if let Some(slot) = self.get_mut(id)
            && !slot.conn.flags.has(Flag::Queued)
            && so(slot)
        {
            slot.conn.flags.set(Flag::Queued, true);
            let shaking = slot.conn.flags.has(Flag::Handshaking);
            if shaking { &mut self.handshakes } else { &mut self.ready }.push_back(id);
        }
    }

    pub(crate) fn mark_dirty(&mut self, key: usize) {
        let slot = &mut self.connections[key];
        if !slot.conn.flags.has(Flag::Dirty) {
            slot.conn.flags.set(Flag::Dirty, true);
            self.dirty.push(slot.conn.id);
        }
    }

    pub(crate) fn list_ending(&mut self, id: ConnId) {
        if let Some(slot) = self.get_mut(id)
            && !slot.conn.flags.has(Flag::Ending)
        {
            slot.conn.flags.set(Flag::Ending, true);
            self.ending.push_back(id);
        }
    }
}
