//! What is due when: the timers of handlers and the loop's own deadlines.

use std::collections::{BTreeMap, BTreeSet};

use super::fairness::TIMERS_PER_TURN;
use super::loop_state::LoopState;
use super::service::ActiveService;
use super::table::{Slot, Table, find};
use super::token::Token;
use super::turn_trace::Happened;
use crate::connection::clock::{Nanos, earlier};
use crate::connection::connection::Stage;
use crate::connection::deadlines::Wait;
use crate::connection::flags::Flag;
use crate::connection::{CloseReason, ConnId, TimerId};
use crate::handler::{Farewell, Handler};
use crate::limits::Limits;

/// What is due next: one ordered map for what handlers ask for and one ordered set for the
/// loop's own deadlines, at most one a connection. Set, cancel and fire cost O(log n).
///
/// A deadline is lazy: the loop does not move it when a connection is active, it looks at the
/// connection when the deadline comes and arms it again. So an active connection pays nothing.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// What handlers have asked for, and who is to be told: a connection, or the service itself.
    timers: BTreeMap<TimerId, Token>,
    /// When the loop looks again at a connection, or at a listener without descriptors.
    deadlines: BTreeSet<(Nanos, Token)>,
    /// How many timers have been set: two of the same moment fire in the order they were set.
    serial: u64,
}

/// One thing that has come due, and for whom.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Timer(TimerId, Token),
    Deadline(Token),
}

impl Timers {
    pub(crate) fn set(&mut self, when: Nanos, owner: Token) -> TimerId {
        self.serial += 1;
        let id = TimerId { when, serial: self.serial };
        self.timers.insert(id, owner);
        id
    }

    /// Says whether the timer was still to come and belonged to `owner`.
    pub(crate) fn cancel(&mut self, id: TimerId, owner: Token) -> bool {
        let pending = self.timers.get(&id) == Some(&owner);
        if pending {
            self.timers.remove(&id);
        }
        pending
    }

    pub(crate) fn arm(&mut self, when: Nanos, owner: Token) {
        self.deadlines.insert((when, owner));
    }

    pub(crate) fn disarm(&mut self, when: Nanos, owner: Token) {
        self.deadlines.remove(&(when, owner));
    }

    /// Nobody is there any more whom the service's own timers would tell something.
    pub(super) fn forget_service(&mut self) {
        self.timers.retain(|_, owner| owner.is_connection());
    }

    pub(crate) fn next(&self) -> Option<Nanos> {
        let timer = self.timers.first_key_value().map(|(id, _)| id.when);
        let deadline = self.deadlines.first().map(|(when, _)| *when);
        earlier(timer, deadline)
    }

    /// Takes out the earliest thing that is due at `now`.
    pub(crate) fn pop(&mut self, now: Nanos) -> Option<Due> {
        let when = self.next().filter(|when| *when <= now)?;
        if self.deadlines.first().is_some_and(|(first, _)| *first == when) {
            return self.deadlines.pop_first().map(|(_, token)| Due::Deadline(token));
        }
        self.timers.pop_first().map(|(id, token)| Due::Timer(id, token))
    }

    /// How many are still to come: none may be left once all connections are gone.
    pub(crate) fn len(&self) -> usize {
        self.timers.len() + self.deadlines.len()
    }
}

impl<H: Handler> ActiveService<H> {
    /// Does what is due, in order.
    pub(super) fn fire_timers(&mut self, state: &mut LoopState) {
        if self.table.next_deadline().is_none_or(|when| when > state.turn.now) {
            return;
        }
        state.turn.begin_step();
        for _ in 0..TIMERS_PER_TURN {
            if state.turn.step_is_spent() {
                return;
            }
            if self.table.lingers_until().is_some_and(|when| when <= state.turn.now) {
                self.table.cut_lingering();
                continue;
            }
            if self.table.kept_open.is_some_and(|until| until <= state.turn.now) {
                self.close_all(state);
            }
            match self.table.timers.pop(state.turn.now) {
                None => return,
                Some(Due::Deadline(token)) if token.is_connection() => {
                    if let Some(slot) = self.table.get_by_token(token) {
                        slot.conn.deadline = 0;
                        let id = slot.conn.id;
                        self.check_deadline(id, state);
                    }
                }
                Some(Due::Deadline(token)) => {
                    if let Some(listener) = self.listeners.get_mut(token.slot()) {
                        listener.retry();
                    }
                }
                Some(Due::Timer(timer, token)) if token.is_connection() => {
                    let Some(slot) = self.table.get_by_token(token) else { continue };
                    let (id, open) = (slot.conn.id, slot.conn.stage <= Stage::Open);
                    self.table.drop_timer(id, timer);
                    if open {
                        self.call(id, false, state, |handler, cx| handler.on_timer(cx, timer));
                        state.trace(self.table.service, Some(id), Happened::Timer);
                    }
                }
                Some(Due::Timer(timer, _)) => {
                    self.call_service(state, |handler, cx| handler.on_service_timer(cx, timer));
                    state.trace(self.table.service, None, Happened::Timer);
                }
            }
        }
    }

    /// The loop's own deadline of a connection has come. It was set when the connection was last
    /// looked at, which may have been active since.
    fn check_deadline(&mut self, id: ConnId, state: &mut LoopState) {
        let Table { limits, connections, .. } = &mut self.table;
        let slot = &mut connections[id.slot()];
        let Some((due, wait)) = slot.due(limits) else { return };
        let (queued, dirty) = (slot.conn.flags.has(Flag::Queued), slot.conn.flags.has(Flag::Dirty));
        match wait {
            _ if due > state.turn.now => self.table.arm(id),
            // What the connection has sent, or is to be sent, is still to be worked off: no client
            // is to be judged by how long that takes us.
            Wait::Connect | Wait::Idle | Wait::Line | Wait::Gone if queued => {
                self.table.look_again(id, state.turn.now);
            }
            Wait::Idle | Wait::Line | Wait::SoftLimit | Wait::Flush if dirty => {
                self.table.look_again(id, state.turn.now);
            }
            Wait::Connect => self.table.end(id, CloseReason::ConnectTimeout),
            Wait::Attempt => self.table.enqueue(id),
            Wait::Idle => {
                self.farewell(id, Farewell::IdleTimeout, CloseReason::IdleTimeout, state);
            }
            Wait::Line => {
                self.farewell(id, Farewell::LineTimeout, CloseReason::LineTimeout, state);
            }
            Wait::SoftLimit if slot.conn.too_slow(limits, state.turn.now) => {
                self.table.end(id, CloseReason::SlowConsumer);
            }
            Wait::SoftLimit => self.table.arm(id),
            Wait::Rate => self.table.resume(id, state.turn.now),
            Wait::Flush | Wait::Gone => self.table.end(id, CloseReason::Stalled),
        }
    }
}

impl<S> Slot<S> {
    /// When the loop must look at the connection again if nothing moves until then, and what for.
    fn due(&self, limits: &Limits) -> Option<(Nanos, Wait)> {
        self.conn.due(limits, self.stream.due(), self.stream.unfinished_since())
    }

    /// As [`Connection::stop_waiting`](crate::connection::connection::Connection::stop_waiting),
    /// with what is unfinished in the stream.
    #[inline]
    pub(crate) fn stop_waiting(&mut self, reason: Flag, now: Nanos) -> bool {
        let waited = self.conn.stop_waiting(reason, now);
        if waited {
            self.stream.tell_time(now, true);
        }
        waited
    }
}

impl<S> Table<S> {
    /// Other cores have taken what the connection has said.
    pub(super) fn go_on(&mut self, id: ConnId, state: &LoopState) {
        let Some(slot) = self.get_mut(id) else { return };
        if slot.stop_waiting(Flag::Ahead, state.turn.now) && slot.conn.stage == Stage::Open {
            slot.conn.active = state.turn.now;
            self.arm(id);
            // What has arrived meanwhile was told by an edge that does not repeat.
            self.enqueue_if_work(id);
        }
    }

    /// When the next thing is due.
    pub(super) fn next_deadline(&self) -> Option<Nanos> {
        earlier(earlier(self.timers.next(), self.lingers_until()), self.kept_open)
    }

    /// Sets the loop's own deadline for the connection, if its state has one and none comes sooner.
    pub(crate) fn arm(&mut self, id: ConnId) {
        let service = self.service;
        let Some(slot) = find(&mut self.connections, id) else { return };
        let Some((due, _)) = slot.due(&self.limits) else { return };
        let token = Token::connection(service, id);
        if slot.conn.deadline != 0 {
            if slot.conn.deadline <= due {
                return;
            }
            self.timers.disarm(slot.conn.deadline, token);
        }
        slot.conn.deadline = due;
        self.timers.arm(due, token);
    }

    /// Looks at the connection again in the next turn.
    fn look_again(&mut self, id: ConnId, now: Nanos) {
        let token = Token::connection(self.service, id);
        if let Some(slot) = self.get_mut(id) {
            slot.conn.deadline = now + 1;
            self.timers.arm(now + 1, token);
        }
    }

    /// Sets a handler's timer for one connection.
    pub(crate) fn set_timer(&mut self, id: ConnId, when: Nanos) -> TimerId {
        let timer = self.timers.set(when, Token::connection(self.service, id));
        if let Some(slot) = self.get_mut(id) {
            slot.conn.extras().timers.insert(timer);
        }
        timer
    }

    /// Forgets a handler's timer for one connection, fired or cancelled.
    pub(crate) fn drop_timer(&mut self, id: ConnId, timer: TimerId) {
        if let Some(slot) = self.get_mut(id) {
            slot.conn.change_extras(|extras| {
                extras.timers.remove(&timer);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::ConnId;
    use crate::reactor::token::Token;

    fn owner(serial: u64) -> Token {
        Token::connection(0, ConnId::new(serial, 0))
    }

    #[test]
    fn comes_due_in_order_and_never_early() {
        let mut timers = Timers::default();
        let late = timers.set(30, owner(1));
        let early = timers.set(10, owner(2));
        timers.arm(20, owner(3));
        assert_eq!(timers.next(), Some(10));
        assert_eq!(timers.pop(9), None);
        assert_eq!(timers.pop(30), Some(Due::Timer(early, owner(2))));
        assert_eq!(timers.pop(30), Some(Due::Deadline(owner(3))));
        assert_eq!(timers.pop(30), Some(Due::Timer(late, owner(1))));
        assert_eq!((timers.pop(30), timers.len()), (None, 0));
    }

    #[test]
    fn only_its_owner_cancels_a_timer() {
        let mut timers = Timers::default();
        let id = timers.set(10, owner(1));
        assert!(!timers.cancel(id, owner(2)));
        assert!(timers.cancel(id, owner(1)));
        assert!(!timers.cancel(id, owner(1)));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn two_at_the_same_moment_fire_in_the_order_they_were_set() {
        let mut timers = Timers::default();
        let (first, second) = (timers.set(5, owner(1)), timers.set(5, owner(1)));
        assert_eq!(timers.pop(5), Some(Due::Timer(first, owner(1))));
        assert_eq!(timers.pop(5), Some(Due::Timer(second, owner(1))));
    }
}
