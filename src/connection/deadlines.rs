//! What a connection waits for, and until when at most.

use std::time::Duration;

use super::clock::{Nanos, nanos};
use super::connection::{Connection, Stage};
use super::flags::Flag;
use crate::limits::Limits;

/// Bytes of its remaining output that a closing connection has to take in each
/// [`flush_timeout`](Limits::flush_timeout): some 500 a second.
const LEAST_TAKEN: usize = 16 * 1024;

/// What the loop's deadline of a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wait {
    Connect,
    /// The next address of a host.
    Attempt,
    Idle,
    Line,
    SoftLimit,
    Rate,
    Flush,
    /// For the handler to take what a peer has sent that is gone.
    Gone,
}

pub(crate) fn later(since: Nanos, wait: Duration) -> Nanos {
    since.saturating_add(nanos(wait))
}

impl Connection {
    /// Whether a closing connection has taken enough since this was so the last time: one that
    /// takes a byte now and then would never end.
    pub(super) fn makes_progress(&mut self) -> bool {
        let left = self.output.len();
        if left == 0 {
            return true;
        }
        let extras = self.extras();
        let enough = extras.left == 0 || left + LEAST_TAKEN <= extras.left;
        if enough {
            extras.left = left;
        }
        enough
    }

    /// When the loop must look at it again if nothing moves until then, and what for.
    pub(crate) fn due(&self, limits: &Limits, attempt: Option<Nanos>) -> Option<(Nanos, Wait)> {
        let after = |wait: Duration| later(self.active, wait);
        match self.stage {
            Stage::Connecting if self.flags.has(Flag::Handshaking) => {
                Some((after(limits.handshake_timeout), Wait::Connect))
            }
            Stage::Connecting => {
                let end = (after(limits.connect_timeout), Wait::Connect);
                Some(attempt.map_or(end, |next| end.min((next, Wait::Attempt))))
            }
            Stage::Open => self.due_open(limits),
            Stage::Closing => Some((after(limits.flush_timeout), Wait::Flush)),
            // Those that linger wait in a list of their own.
            Stage::Lingering | Stage::Ended => None,
        }
    }

    pub(super) fn due_open(&self, limits: &Limits) -> Option<(Nanos, Wait)> {
        let throttled = self.flags.has(Flag::Throttled);
        let rate = limits.rate.filter(|_| throttled).zip(self.extras.as_ref());
        let rate = rate.map(|(rate, extras)| (rate.next(extras.paid), Wait::Rate));
        // A paused one waits for the handler, unless that waits for the client in turn.
        let waits = self.flags.has(Flag::Paused) && !self.flags.has(Flag::Drain);
        let idle = limits.idle_timeout.filter(|_| !throttled && !waits);
        let idle = idle.map(|wait| (later(self.active, wait), Wait::Idle));
        let judged = self.takes_input() && !self.flags.has(Flag::Outbound);
        let line = limits.line_timeout.filter(|_| judged).zip(self.input.unfinished_since());
        let line = line.map(|(wait, since)| (later(since, wait), Wait::Line));
        let slow = Some(self.over_soft()).filter(|since| *since != 0);
        let slow = slow.map(|since| (later(since, limits.soft_output_for), Wait::SoftLimit));
        let lost = self.extras.as_ref().map(|extras| extras.lost).filter(|lost| *lost != 0);
        let gone = lost.map(|lost| (later(lost, limits.flush_timeout), Wait::Gone));
        [rate, idle, line, slow, gone].into_iter().flatten().min_by_key(|(when, _)| *when)
    }
}
