//! The lists of connections that something is due for. Each step of a turn works off one list, so
//! its cost follows what is ready and not what is connected.

use std::collections::VecDeque;

use super::table::{Slot, Table, find};
use crate::connection::ConnId;
use crate::connection::connection::{Connection, Stage};
use crate::connection::flags::Flag;

/// A connection stands in each list once at the most: a flag of its own says whether it does. An id
/// may outlive its connection in a list, so whatever takes it out looks whether it is still there.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// To be served: they may have input, or an `on_drain` due. The first one has waited longest.
    pub(super) ready: VecDeque<ConnId>,
    /// To be moved on in the handshakes of their layers; see `handshakes.rs`. They stand apart from
    /// `ready`, whose connections would else wait behind them.
    pub(super) handshakes: VecDeque<ConnId>,
    /// To be flushed at the end of the turn; in no order.
    pub(super) dirty: Vec<ConnId>,
    /// To be reported to the handler, or freed.
    pub(crate) ending: VecDeque<ConnId>,
    /// Those that linger, oldest first, which is the order of their deadlines. The oldest is there.
    pub(super) lingering: VecDeque<ConnId>,
    /// Those that have lost their peer, in that order. Most of them have been freed since.
    pub(super) gone: VecDeque<ConnId>,
}

impl Queues {
    /// Nothing is left over for the next turn.
    pub(super) fn is_empty(&self) -> bool {
        let Queues { ready, handshakes, dirty, ending, lingering: _, gone: _ } = self;
        ready.is_empty() && handshakes.is_empty() && dirty.is_empty() && ending.is_empty()
    }

    #[inline]
    pub(super) fn push_ready<S>(&mut self, slot: &mut Slot<S>) {
        if !slot.conn.flags.has(Flag::Queued) {
            slot.conn.flags.set(Flag::Queued, true);
            let shaking = slot.conn.stage == Stage::Connecting && slot.stream.has_handshake();
            if shaking { &mut self.handshakes } else { &mut self.ready }.push_back(slot.conn.id);
        }
    }

    #[inline]
    pub(super) fn push_dirty(&mut self, conn: &mut Connection) {
        if !conn.flags.has(Flag::Dirty) {
            conn.flags.set(Flag::Dirty, true);
            self.dirty.push(conn.id);
        }
    }

    fn push_ending(&mut self, conn: &mut Connection) {
        if !conn.flags.has(Flag::Ending) {
            conn.flags.set(Flag::Ending, true);
            self.ending.push_back(conn.id);
        }
    }
}

impl<S> Table<S> {
    /// Puts the connection behind those that wait to be served.
    pub(crate) fn enqueue(&mut self, id: ConnId) {
        if let Some(slot) = find(&mut self.connections, id) {
            self.queues.push_ready(slot);
        }
    }

    /// As [`enqueue`](Self::enqueue), if serving the connection would do something.
    #[inline]
    pub(crate) fn enqueue_if_work(&mut self, id: ConnId) {
        if let Some(slot) = find(&mut self.connections, id)
            && slot.conn.has_work()
        {
            self.queues.push_ready(slot);
        }
    }

    /// Lists the connection in a slot for the flush.
    pub(crate) fn mark_dirty(&mut self, key: usize) {
        self.queues.push_dirty(&mut self.connections[key].conn);
    }

    /// Lists the connection to be reported to the handler, or freed.
    pub(super) fn enqueue_ending(&mut self, id: ConnId) {
        if let Some(slot) = find(&mut self.connections, id) {
            self.queues.push_ending(&mut slot.conn);
        }
    }
}
