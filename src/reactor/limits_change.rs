//! What changes in a service and its connections when its limits are replaced.

use super::loop_state::LoopState;
use super::peers::Peers;
use super::service::ActiveService;
use super::table::Table;
use crate::connection::ConnId;
use crate::connection::connection::Stage;
use crate::connection::flags::Flag;
use crate::handler::Handler;
use crate::limits::Limits;

/// The limits of which copies are kept elsewhere, so that those have to follow. All others are read from the
/// limits whenever they are needed.
#[derive(Clone, Copy, Debug)]
struct Changed {
    /// Kept in the options of each socket.
    options: bool,
    /// Kept in what a connection has used of its rate.
    rate: bool,
    /// Kept in the queues of connections that wait for a rate.
    any_rate: bool,
}

impl<H: Handler> ActiveService<H> {
    /// Replaces the limits.
    pub(crate) fn change_limits(&mut self, limits: Limits, state: &LoopState) {
        let old = std::mem::replace(&mut self.table.limits, limits);
        let new = &self.table.limits;
        let changed = Changed {
            options: (old.keepalive, old.user_timeout) != (new.keepalive, new.user_timeout),
            rate: old.rate != new.rate,
            any_rate: (old.rate, old.peer_rate) != (new.rate, new.peer_rate),
        };
        if changed.options || Peers::are_limited(&old) != Peers::are_limited(new) {
            self.listeners.iter_mut().for_each(|(_, listener)| listener.set_limits(new));
        }
        self.table.change_limits(changed, state);
    }
}

impl<S> Table<S> {
    fn change_limits(&mut self, changed: Changed, state: &LoopState) {
        self.metered = Table::<S>::is_metered(&self.limits);
        let ids = self.ids();
        if changed.any_rate {
            ids.iter().for_each(|id| self.forget_rates(*id, changed.rate));
        }
        let Table { limits, connections, peers, .. } = self;
        peers.change(limits, connections.iter().map(|(_, slot)| &slot.conn));
        ids.into_iter().for_each(|id| self.follow_limits(id, changed, state));
    }

    /// Forgets what the connection has used of its rates, and takes it out of every queue.
    fn forget_rates(&mut self, id: ConnId, own: bool) {
        self.leave_line(id);
        self.connections[id.slot()].conn.forget_rates(own);
    }

    /// Applies the limits to one connection.
    fn follow_limits(&mut self, id: ConnId, changed: Changed, state: &LoopState) {
        let Table { limits, connections, .. } = self;
        let slot = &mut connections[id.slot()];
        if changed.options {
            slot.stream.set_options(limits);
        }
        if slot.conn.stage == Stage::Open {
            if changed.any_rate && slot.stop_waiting(Flag::Throttled, state.turn.now) {
                slot.conn.active = state.turn.now;
            }
            let conn = &mut slot.conn;
            conn.hold_above(limits.high_water);
            let (held, works) = (conn.flags.has(Flag::Held), conn.has_work());
            if held || conn.flags.has(Flag::Drain) || !conn.output.is_empty() {
                // The flush judges how much is unsent.
                self.mark_dirty(id.slot());
            }
            if works {
                self.enqueue(id);
            }
        }
        self.arm(id);
    }
}
