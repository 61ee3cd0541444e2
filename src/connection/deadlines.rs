//! What a connection waits for, and until when at most. There is one deadline at a time: the
//! earliest.

use std::time::Duration;

use super::clock::{Nanos, nanos};
use super::connection::{Connection, Stage};
use super::flags::Flag;
use crate::limits::Limits;

/// What the deadline of a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wait {
    /// To be connected, or to be done with the handshake.
    Connect,
    /// For one address of a host, before the next is tried as well.
    Attempt,
    /// For anything to move.
    Idle,
    /// For the rest of a line, of a block, or of a unit of a layer.
    Line,
    /// For the client to take what others sent it.
    SoftLimit,
    /// For the rates to allow another line, or more bytes.
    Rate,
    /// For a connection that closes or leaves to take the rest of its output.
    Flush,
    /// For the handler to take what has come from a peer that is gone.
    Gone,
}

/// The moment that is `wait` after `since`.
pub(crate) fn later(since: Nanos, wait: Duration) -> Nanos {
    since.saturating_add(nanos(wait))
}

impl Connection {
    /// When the loop must look at the connection again if nothing moves until then, and what for.
    /// `attempt` says when the next address of a host is due, and `unfinished` since when the peer
    /// has owed the stream the rest of a unit.
    pub(crate) fn due(
        &self,
        limits: &Limits,
        attempt: Option<Nanos>,
        unfinished: Option<Nanos>,
    ) -> Option<(Nanos, Wait)> {
        let after = |wait: Duration| later(self.active, wait);
        match self.stage {
            Stage::Connecting if self.flags.has(Flag::Handshaking) => {
                Some((after(limits.handshake_timeout), Wait::Connect))
            }
            Stage::Connecting => {
                let end = (after(limits.connect_timeout), Wait::Connect);
                Some(attempt.map_or(end, |next| end.min((next, Wait::Attempt))))
            }
            Stage::Open => self.due_open(limits, unfinished),
            Stage::Leaving | Stage::Closing => Some((after(limits.flush_timeout), Wait::Flush)),
            // Those that linger wait in a list of their own.
            Stage::Lingering | Stage::Ended => None,
        }
    }

    fn due_open(&self, limits: &Limits, unfinished: Option<Nanos>) -> Option<(Nanos, Wait)> {
        let throttled = self.flags.has(Flag::Throttled);
        let rate = self.extras.as_ref().filter(|_| throttled);
        let rate = rate.and_then(|extras| extras.resumes).map(|when| (when, Wait::Rate));
        // A paused connection waits for the handler, unless the handler waits for its client to
        // take output.
        let waits = self.flags.has(Flag::Paused) && !self.flags.has(Flag::Drain);
        let idle = limits.idle_timeout.filter(|_| !throttled && !waits);
        let idle = idle.map(|wait| (later(self.active, wait), Wait::Idle));
        // A client that is not read cannot finish its line. A server need not end its prompt.
        let judged = self.takes_input() && !self.flags.has(Flag::Outbound);
        // What follows the end of the input is not read.
        let unfinished = unfinished.filter(|_| !self.flags.has(Flag::Eof));
        let begun = self.unfinished_since().into_iter().chain(unfinished).min();
        let line = limits.line_timeout.filter(|_| judged).zip(begun);
        let line = line.map(|(wait, since)| (later(since, wait), Wait::Line));
        let slow = Some(self.over_soft()).filter(|since| *since != 0);
        let slow = slow.map(|since| (later(since, limits.soft_output_for), Wait::SoftLimit));
        let lost = self.extras.as_ref().map(|extras| extras.lost).filter(|lost| *lost != 0);
        let gone = lost.map(|lost| (later(lost, limits.flush_timeout), Wait::Gone));
        [rate, idle, line, slow, gone].into_iter().flatten().min_by_key(|(when, _)| *when)
    }
}
