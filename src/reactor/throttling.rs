//! How a connection is held to its rates, its own and its peer's: what it may have, what it waits
//! for, and what it has used. With both the smaller one counts.
//!
//! One that has to wait for its peer's rate has its part set aside, and is told when that comes.
//! So of many that wait each is woken once, for a part of its own. What is set aside is good for one
//! turn: if the connection does not use it then, it is given back, lest a peer save up more than a
//! burst.

use super::loop_state::LoopState;
use super::table::Table;
use crate::connection::ConnId;
use crate::connection::rate::Share;

impl<S> Table<S> {
    /// What the connection may have now; none if that is not enough to go on. Then it is not read
    /// until it is.
    pub(super) fn allowance(&mut self, id: ConnId, state: &mut LoopState) -> Option<Share> {
        let Table { limits, connections, peers, .. } = self;
        let conn = &mut connections[id.slot()].conn;
        let (now, reads) = (state.turn.now, conn.reads());
        let allowed = limits.rate.allow(conn.paid(), now).min(peers.allow(conn, now));
        if allowed.suffices(reads) {
            return Some(allowed);
        }
        peers.release(conn);
        if conn.has_work() {
            let own = limits.rate.ready(conn.paid(), limits.rate.wanted(reads));
            let of_peer = peers.reserve(conn, reads, now, &mut state.counters);
            conn.throttle(own.max(of_peer));
            self.arm(id);
        }
        None
    }

    /// Counts what the connection has used of its allowance.
    pub(super) fn spend(&mut self, id: ConnId, used: Share, state: &mut LoopState) {
        let Table { limits, connections, peers, .. } = self;
        let conn = &mut connections[id.slot()].conn;
        if limits.rate.are_set() {
            limits.rate.spend(&mut conn.extras().paid, used, state.turn.now);
        }
        peers.release(conn);
        peers.spend(conn, used, state.turn.now, &mut state.counters);
    }

    /// Gives back what is set aside for a connection that is not going to use it.
    pub(super) fn release(&mut self, id: ConnId) {
        let Table { connections, peers, .. } = self;
        if let Some(slot) = connections.get_mut(id.slot()).filter(|slot| slot.conn.id == id) {
            peers.release(&mut slot.conn);
        }
    }
}
