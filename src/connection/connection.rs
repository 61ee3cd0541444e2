//! The state of one connection, apart from its socket: what it may do next.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::dial::Dialling;
use crate::flags::{Flag, Flags};
use crate::input::Input;
use crate::net::Stream;
use crate::output::Output;
use crate::peer::Peer;
use crate::timer::{Nanos, TimerId, nanos};
use crate::{CloseReason, ConnId, Limits};

/// Bytes of its remaining output that a closing connection has to take in each
/// [`flush_timeout`](Limits::flush_timeout): some 500 a second.
const LEAST_TAKEN: usize = 16 * 1024;

/// The life of a connection; it only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Dialled, not there yet.
    Connecting,
    /// The handler works with it.
    Open,
    /// No more input is handled and no more output taken; what is unsent goes out.
    Closing,
    /// All is sent and the write side shut; input is thrown away until the peer ends too.
    Lingering,
    /// Nothing more happens with the socket; the slot is freed at the end of the turn.
    Ended,
}

/// One slot of the slab: the socket, what is known of it, and the handler's session.
pub(crate) struct Connection<S> {
    pub(crate) id: ConnId,
    pub(crate) stream: Stream,
    /// What accept gave: asking later fails once the peer is gone.
    pub(crate) peer: Peer,
    pub(crate) input: Input,
    pub(crate) output: Output,
    /// Unsent bytes that others caused; an upper bound, since it does not know which bytes of
    /// the output went first. See [`pushed`](Self::pushed).
    others: u32,
    /// When something last moved; what the deadline is counted from.
    pub(crate) active: Nanos,
    /// When the loop looks at it next; 0 for never.
    pub(crate) deadline: Nanos,
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) state: State,
    pub(crate) reason: CloseReason,
    pub(crate) flags: Flags,
    pub(crate) session: S,
}

/// What few connections have, kept apart so that the others are small.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    /// The handler's timers, to end with it.
    pub(crate) timers: BTreeSet<TimerId>,
    /// Since when the output has been above the soft limit; 0 while it is not.
    over_soft: Nanos,
    /// Until when the rate has been used up.
    paid: Nanos,
    /// What was left of a closing connection's output when it had last taken enough; 0 before.
    left: usize,
    /// The system's number of the error that ended it.
    error: Option<i32>,
    /// When a write to it failed; 0 while none has.
    pub(crate) lost: Nanos,
}

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
    Linger,
    /// For the handler to take what a peer has sent that is gone.
    Gone,
}

impl<S> Connection<S> {
    pub(crate) fn new(id: ConnId, stream: Stream, session: S, now: Nanos) -> Self {
        let mut flags = Flags::default();
        flags.set(Flag::ReadOn, stream.may_read_short());
        flags.set(Flag::Shaking, stream.shakes_hands());
        Connection {
            id,
            stream,
            peer: Peer::default(),
            input: Input::default(),
            output: Output::default(),
            others: 0,
            active: now,
            deadline: 0,
            rare: None,
            state: State::Connecting,
            reason: CloseReason::Closed,
            flags,
            session,
        }
    }

    /// Input may be handed to the handler.
    #[inline]
    pub(crate) fn takes_input(&self) -> bool {
        self.state == State::Open
            && !(self.flags.has(Flag::Paused)
                || self.flags.has(Flag::Throttled)
                || self.flags.has(Flag::Held)
                || self.flags.has(Flag::Overlong))
    }

    /// Output is taken for it.
    #[inline]
    pub(crate) fn takes_output(&self) -> bool {
        self.state == State::Open && !self.flags.has(Flag::Finished)
    }

    /// Serving it now would do something, or find out that there is nothing to do.
    pub(crate) fn has_work(&self) -> bool {
        match self.state {
            State::Open => {
                let unread = self.flags.has(Flag::Readable) && !self.flags.has(Flag::Eof);
                let untold = self.flags.has(Flag::Eof) && !self.flags.has(Flag::EofTold);
                self.takes_input() && (unread || untold || self.input.has_work())
            }
            State::Closing | State::Lingering => {
                let unread = self.flags.has(Flag::Readable) && !self.flags.has(Flag::Eof);
                unread && self.stream.is_socket()
            }
            // Only an event brings a connect on.
            State::Connecting | State::Ended => false,
        }
    }

    /// Nobody reads it now, or there is nothing more to read.
    pub(crate) fn is_unread(&self) -> bool {
        let waits = self.flags.has(Flag::Paused) || self.flags.has(Flag::Throttled);
        waits || self.flags.has(Flag::Eof)
    }

    /// Its socket has an error that nobody finds out by reading.
    pub(crate) fn is_broken_unread(&self) -> bool {
        self.flags.has(Flag::Broken) && !self.flags.has(Flag::Gone) && self.is_unread()
    }

    /// Input has come that the handler has not been offered.
    pub(crate) fn is_unheard(&mut self) -> bool {
        let unread = !self.flags.has(Flag::Eof) && self.stream.has_unread();
        self.state == State::Open && (self.input.has_work() || unread)
    }

    /// The end of input that a read gave is not the peer's: once a socket has told of its error it
    /// gives that instead. It tells of a broken pipe where the peer had ended before.
    pub(crate) fn is_cut(&self) -> bool {
        let ended = self.reason == CloseReason::Error(ErrorKind::BrokenPipe);
        self.flags.has(Flag::Gone) && !ended && !self.stream.shakes_hands()
    }

    /// The error that its socket has.
    pub(crate) fn take_error(&self) -> io::Error {
        self.stream.take_error().unwrap_or(ErrorKind::ConnectionReset.into())
    }

    /// Nothing of its output is left, here or encrypted in its stream.
    pub(crate) fn all_sent(&self) -> bool {
        self.output.is_empty() && !self.flags.has(Flag::Blocked)
    }

    /// Unsent bytes that others caused.
    pub(crate) fn pushed(&self) -> usize {
        (self.others as usize).min(self.output.len())
    }

    /// Unsent bytes that its own requests caused.
    pub(crate) fn owed(&self) -> usize {
        self.output.len() - self.pushed()
    }

    /// Some output went out. What others caused is taken to go last, so it can only shrink.
    pub(crate) fn sent(&mut self, now: Nanos) {
        self.others = self.pushed() as u32;
        if self.state != State::Closing || self.takes_enough() {
            self.active = now;
        }
    }

    /// Whether a closing connection has taken enough since this was so the last time: one that
    /// takes a byte now and then would never end.
    fn takes_enough(&mut self) -> bool {
        let left = self.output.len();
        if left == 0 {
            return true;
        }
        let rare = self.rare();
        let enough = rare.left == 0 || left + LEAST_TAKEN <= rare.left;
        if enough {
            rare.left = left;
        }
        enough
    }

    /// Output of its own was appended: past the mark it is no longer read.
    #[inline]
    pub(crate) fn hold_above(&mut self, high_water: usize) {
        if self.output.len() > high_water && self.owed() > high_water {
            self.flags.set(Flag::Held, true);
        }
    }

    /// Others appended `count` bytes. Says whether that is too much already; whether one that is
    /// not blocked keeps up shows only when the turn flushes it.
    #[inline]
    pub(crate) fn overrun(&mut self, count: usize, limits: &Limits, now: Nanos) -> bool {
        self.others = self.others.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.flags.has(Flag::Blocked) && self.too_slow(limits, now)
    }

    /// Others have queued more for it than it reads, at once or for too long.
    #[inline]
    pub(crate) fn too_slow(&mut self, limits: &Limits, now: Nanos) -> bool {
        let pushed = self.pushed();
        if pushed <= limits.soft_output {
            if self.rare.is_some() {
                self.change_rare(|rare| rare.over_soft = 0);
            }
            return false;
        }
        self.past_soft(pushed, limits, now)
    }

    #[cold]
    fn past_soft(&mut self, pushed: usize, limits: &Limits, now: Nanos) -> bool {
        if self.over_soft() == 0 {
            self.rare().over_soft = now;
        }
        let since = now - self.over_soft();
        pushed > limits.max_output || since >= nanos(limits.soft_output_for)
    }

    /// Notes the error that ended it.
    pub(crate) fn note(&mut self, error: &io::Error) {
        if let Some(number) = error.raw_os_error() {
            self.rare().error = Some(number);
        }
    }

    /// What the system said when it ended with an error.
    pub(crate) fn error(&self) -> Option<io::Error> {
        let CloseReason::Error(kind) = self.reason else { return None };
        let number = self.rare.as_ref().and_then(|rare| rare.error);
        Some(number.map_or(kind.into(), io::Error::from_raw_os_error))
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Changes what there is of it; gives it back once nothing is left.
    pub(crate) fn change_rare(&mut self, change: impl FnOnce(&mut Rare)) {
        if let Some(rare) = &mut self.rare {
            change(rare);
            let Rare { timers, over_soft, paid, left, lost, error } = &**rare;
            let unset = (*over_soft, *paid, *left, *lost) == (0, 0, 0, 0);
            if unset && timers.is_empty() && error.is_none() {
                self.rare = None;
            }
        }
    }

    /// Since when the output has been above the soft limit; 0 while it is not.
    pub(crate) fn over_soft(&self) -> Nanos {
        self.rare.as_ref().map_or(0, |rare| rare.over_soft)
    }

    /// Lines that it may have now.
    pub(crate) fn allowance(&self, limits: &Limits, now: Nanos) -> usize {
        let paid = self.rare.as_ref().map_or(0, |rare| rare.paid);
        limits.rate.map_or(usize::MAX, |rate| rate.allows(paid, now))
    }

    /// Counts lines against its rate.
    pub(crate) fn spend(&mut self, limits: &Limits, lines: u64, now: Nanos) {
        if let Some(rate) = limits.rate {
            let rare = self.rare();
            rare.paid = rate.spend(rare.paid, now, lines);
        }
    }

    /// When the loop must look at it again if nothing moves until then, and what for.
    pub(crate) fn due(&self, limits: &Limits) -> Option<(Nanos, Wait)> {
        let after = |wait: Duration| later(self.active, wait);
        match self.state {
            State::Connecting if self.flags.has(Flag::Shaking) => {
                Some((after(limits.handshake_timeout), Wait::Connect))
            }
            State::Connecting => {
                let end = (after(limits.connect_timeout), Wait::Connect);
                let next = self.stream.dialling().and_then(Dialling::due);
                Some(next.map_or(end, |next| end.min((next, Wait::Attempt))))
            }
            State::Open => self.due_open(limits),
            State::Closing => Some((after(limits.flush_timeout), Wait::Flush)),
            State::Lingering => Some((after(limits.linger), Wait::Linger)),
            State::Ended => None,
        }
    }

    fn due_open(&self, limits: &Limits) -> Option<(Nanos, Wait)> {
        let throttled = self.flags.has(Flag::Throttled);
        let rate = limits.rate.filter(|_| throttled).zip(self.rare.as_ref());
        let rate = rate.map(|(rate, rare)| (rate.next(rare.paid), Wait::Rate));
        // A paused one waits for the handler, unless that waits for the client in turn.
        let waits = self.flags.has(Flag::Paused) && !self.flags.has(Flag::Drain);
        let idle = limits.idle_timeout.filter(|_| !throttled && !waits);
        let idle = idle.map(|wait| (later(self.active, wait), Wait::Idle));
        let judged = self.takes_input() && !self.flags.has(Flag::Outbound);
        let line = limits.line_timeout.filter(|_| judged).zip(self.input.unfinished_since());
        let line = line.map(|(wait, since)| (later(since, wait), Wait::Line));
        let slow = Some(self.over_soft()).filter(|since| *since != 0);
        let slow = slow.map(|since| (later(since, limits.soft_output_for), Wait::SoftLimit));
        let lost = self.rare.as_ref().map(|rare| rare.lost).filter(|lost| *lost != 0);
        let gone = lost.map(|lost| (later(lost, limits.flush_timeout), Wait::Gone));
        [rate, idle, line, slow, gone].into_iter().flatten().min_by_key(|(when, _)| *when)
    }
}

fn later(since: Nanos, wait: Duration) -> Nanos {
    since.saturating_add(nanos(wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_stays_small() {
        // What an idle client costs is this and nothing else. In debug builds mio adds 8 bytes
        // to a socket, to see that it is registered with one selector only.
        let size = size_of::<Connection<()>>() - 8 * usize::from(cfg!(debug_assertions));
        assert!(size <= 112, "{size} bytes");
    }
}
