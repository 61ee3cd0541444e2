use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::Token;

/// Nanoseconds on the reactor's own clock, which starts at 1: 0 stands for "never armed".
pub(crate) type Nanos = u64;

/// A duration on that clock; the longest there is for one that does not fit.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// A timer that a handler has set; pass it to `cancel_timer`, compare it in `on_timer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId {
    when: Nanos,
    serial: u64,
}

impl TimerId {
    /// When it is due, on the reactor's clock.
    pub(crate) fn when(self) -> Nanos {
        self.when
    }
}

/// What is due next: one ordered map for what handlers ask for and one ordered set for the
/// loop's own deadlines, at most one a connection. Set, cancel and fire cost O(log n).
///
/// A deadline is lazy: the loop does not move it when a connection is active, it looks at the
/// connection when the deadline comes and arms it again. So an active connection pays nothing.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    timers: BTreeMap<TimerId, Token>,
    deadlines: BTreeSet<(Nanos, Token)>,
    serial: u64,
}

/// One thing that has come due.
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

    /// Says whether it was still to come and belonged to `owner`.
    pub(crate) fn cancel(&mut self, id: TimerId, owner: Token) -> bool {
        let found = self.timers.get(&id) == Some(&owner);
        if found {
            self.timers.remove(&id);
        }
        found
    }

    pub(crate) fn arm(&mut self, when: Nanos, owner: Token) {
        self.deadlines.insert((when, owner));
    }

    pub(crate) fn disarm(&mut self, when: Nanos, owner: Token) {
        self.deadlines.remove(&(when, owner));
    }

    pub(crate) fn next(&self) -> Option<Nanos> {
        let timer = self.timers.first_key_value().map(|(id, _)| id.when);
        let deadline = self.deadlines.first().map(|(when, _)| *when);
        match (timer, deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ConnId, Token};

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
