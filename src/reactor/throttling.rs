//! How a connection is held to its rates, its own and its peer's: what it may have, what it waits
//! for, and what it has used. With both the smaller one counts.
//!
//! Those that wait for their peer's rate stand in a line, of which only the first has a moment to
//! resume. When that has come, so many are woken as there is enough for by then: in most cases one. Each
//! keeps its place until it has had its turn, and finds what those before it have left.

use super::loop_state::LoopState;
use super::table::{Table, find};
use crate::connection::ConnId;
use crate::connection::clock::Nanos;
use crate::connection::connection::{Connection, Stage};
use crate::connection::flags::Flag;
use crate::connection::rate::Share;

impl<S> Table<S> {
    /// What the connection may have now; none if that is not enough to go on. Then it is not read
    /// until it is.
    pub(super) fn allowance(&mut self, id: ConnId, state: &mut LoopState) -> Option<Share> {
        let Table { limits, connections, peers, .. } = self;
        let conn = &mut connections[id.slot()].conn;
        if conn.flags.has(Flag::Throttled) || conn.stage != Stage::Open {
            // It was served for the sake of its output, and `on_drain` may have closed it.
            return None;
        }
        let (now, reads) = (state.turn.now, conn.reads());
        let own = limits.rate.allow(conn.paid(), now);
        let allowed = own.min(peers.allow(conn, now));
        if allowed.suffices(reads) {
            return Some(allowed);
        }
        if conn.has_work() && own.suffices(reads) {
            let resumes = peers.wait(conn);
            conn.throttle(resumes);
            self.arm(id);
            return None;
        }
        // One that could not go on anyway holds up nobody of its peer.
        if conn.has_work() {
            let resumes = limits.rate.ready(conn.paid(), limits.rate.wanted(reads));
            conn.throttle(Some(resumes));
            self.arm(id);
        }
        self.leave_line(id);
        None
    }

    /// Counts what the connection has used of its allowance.
    pub(super) fn spend(&mut self, id: ConnId, used: Share, state: &mut LoopState) {
        let Table { limits, connections, peers, .. } = self;
        let conn = &mut connections[id.slot()].conn;
        if limits.rate.are_set() {
            limits.rate.spend(&mut conn.extras().paid, used, state.turn.now);
        }
        peers.spend(conn, used, state.turn.now, state.counters(self.service));
        self.leave_line(id);
    }

    /// The connection waits for its peer's rate no longer. Whoever is first now is told when it comes
    /// to be its turn.
    pub(super) fn leave_line(&mut self, id: ConnId) {
        let Table { connections, peers, .. } = self;
        let Some(next) = find(connections, id).and_then(|slot| peers.leave(&mut slot.conn)) else {
            return;
        };
        // One that was woken is going to be served.
        if let Some(slot) =
            find(connections, next).filter(|slot| slot.conn.flags.has(Flag::Throttled))
        {
            let resumes = peers.ready(&slot.conn);
            slot.conn.throttle(Some(resumes));
            self.arm(next);
        }
    }

    /// The connection has lost its peer: if it waits, it does so behind those that have not.
    pub(super) fn fall_back(&mut self, id: ConnId) {
        let waits = |conn: &Connection| conn.flags.has(Flag::Throttled) && conn.place() != 0;
        if !self.get(id).is_some_and(|slot| waits(&slot.conn)) {
            return;
        }
        self.leave_line(id);
        let Table { connections, peers, .. } = self;
        let conn = &mut connections[id.slot()].conn;
        let resumes = peers.wait(conn);
        conn.throttle(resumes);
        self.arm(id);
    }

    /// The moment has come for which the connection was throttled. Those go on with it that wait for
    /// the same peer, if there is enough for them.
    pub(super) fn resume(&mut self, id: ConnId, now: Nanos) {
        let Table { connections, peers, .. } = self;
        let first = &connections[id.slot()].conn;
        let others = match first.place() {
            0 => Vec::new(),
            _ => {
                let reads =
                    |id: ConnId| connections.get(id.slot()).is_some_and(|it| it.conn.reads());
                peers.for_whom_there_is(first, now, reads)
            }
        };
        self.wake(id, now);
        others.into_iter().for_each(|id| self.wake(id, now));
    }

    fn wake(&mut self, id: ConnId, now: Nanos) {
        let Some(slot) = self.get_mut(id) else { return };
        if !slot.stop_waiting(Flag::Throttled, now) {
            return;
        }
        slot.conn.active = now;
        let works = slot.conn.has_work();
        self.arm(id);
        if works {
            self.enqueue(id);
        } else {
            self.leave_line(id);
        }
    }
}
