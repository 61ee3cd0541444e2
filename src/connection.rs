//! The state of one connection, apart from its socket: what it may do next.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::input::Input;
use crate::net::Stream;
use crate::output::Output;
use crate::timer::{Nanos, TimerId, nanos};
use crate::{CloseReason, ConnId, Limits};

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

/// Boxed where it is used, like the buffers: 8 bytes instead of 24.
type TimerIds = BTreeSet<TimerId>;

/// One slot of the slab: the socket, what is known of it, and the handler's session.
pub(crate) struct Connection<S> {
    pub(crate) id: ConnId,
    pub(crate) stream: Stream,
    /// What accept gave: asking later fails once the peer is gone.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) input: Input,
    pub(crate) output: Output,
    /// Unsent bytes that others caused; an upper bound, since it does not know which bytes of
    /// the output went first. See [`pushed`](Self::pushed).
    others: u32,
    /// When something last moved; what the deadline is counted from.
    pub(crate) active: Nanos,
    /// Since when the output has been above the soft limit; 0 while it is not.
    pub(crate) over_soft: Nanos,
    /// When the loop looks at it next; 0 for never.
    pub(crate) deadline: Nanos,
    /// The handler's timers, to end with it; most have none.
    pub(crate) timers: Option<Box<TimerIds>>,
    pub(crate) state: State,
    pub(crate) reason: CloseReason,
    pub(crate) flags: Flags,
    pub(crate) session: S,
}

/// The yes-or-no facts of a connection, each for its own reason to wait or to be visited.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    /// The socket may have input: set by an event, cleared by WouldBlock or a short read.
    pub(crate) readable: bool,
    /// A short read proves nothing here, so reading goes on until WouldBlock: the peer has shut
    /// its side (data and FIN can share one edge), or has sent urgent data or, over a Unix
    /// socket, a descriptor (the kernel stops a read there).
    pub(crate) read_on: bool,
    /// A read gave the end of input.
    pub(crate) eof: bool,
    /// The handler has been told of the end of input.
    pub(crate) eof_told: bool,
    /// A line above the limit came; nothing after it is interpreted.
    pub(crate) overlong: bool,
    /// The handler paused reading.
    pub(crate) paused: bool,
    /// Its own unsent replies are past the high-water mark.
    pub(crate) held: bool,
    /// The kernel takes no output until an event says so.
    pub(crate) blocked: bool,
    /// The handler wants to be told when its unsent output is down to the low-water mark.
    pub(crate) drain: bool,
    /// It stands in the ready list.
    pub(crate) queued: bool,
    /// It stands in the list of those to flush.
    pub(crate) dirty: bool,
    /// It stands in the list of those to end.
    pub(crate) ending: bool,
    /// `on_open` was called and `on_close` not yet.
    pub(crate) open: bool,
    /// It was dialled rather than accepted.
    pub(crate) outbound: bool,
    /// Its end is to be reported though it never opened: an outbound connection that failed.
    pub(crate) failed: bool,
}

impl<S> Connection<S> {
    pub(crate) fn new(id: ConnId, stream: Stream, session: S, now: Nanos) -> Self {
        let flags = Flags { read_on: matches!(stream, Stream::Unix(_)), ..Flags::default() };
        Connection {
            id,
            stream,
            peer: None,
            input: Input::default(),
            output: Output::default(),
            others: 0,
            active: now,
            over_soft: 0,
            deadline: 0,
            timers: None,
            state: State::Connecting,
            reason: CloseReason::Closed,
            flags,
            session,
        }
    }

    /// Input may be handed to the handler.
    #[inline]
    pub(crate) fn takes_input(&self) -> bool {
        self.state == State::Open && !(self.flags.paused || self.flags.held || self.flags.overlong)
    }

    /// Serving it now would do something, or find out that there is nothing to do.
    pub(crate) fn has_work(&self) -> bool {
        match self.state {
            State::Open => {
                let unread = self.flags.readable && !self.flags.eof;
                let untold = self.flags.eof && !self.flags.eof_told;
                self.takes_input() && (unread || untold || self.input.has_work())
            }
            State::Closing | State::Lingering => self.flags.readable && !self.flags.eof,
            // Only an event brings a connect on.
            State::Connecting | State::Ended => false,
        }
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
    pub(crate) fn sent(&mut self) {
        self.others = self.pushed() as u32;
    }

    /// Output of its own was appended: past the mark it is no longer read.
    #[inline]
    pub(crate) fn hold_above(&mut self, high_water: usize) {
        if self.output.len() > high_water && self.owed() > high_water {
            self.flags.held = true;
        }
    }

    /// Others appended `count` bytes. Says whether that is too much already; whether one that is
    /// not blocked keeps up shows only when the turn flushes it.
    pub(crate) fn overrun(&mut self, count: usize, limits: &Limits, now: Nanos) -> bool {
        let before = (self.others as usize).min(self.output.len() - count);
        self.others = u32::try_from(before + count).unwrap_or(u32::MAX);
        self.flags.blocked && self.too_slow(limits, now)
    }

    /// Others have queued more for it than it reads, at once or for too long.
    pub(crate) fn too_slow(&mut self, limits: &Limits, now: Nanos) -> bool {
        let pushed = self.pushed();
        if pushed <= limits.soft_output {
            self.over_soft = 0;
            return false;
        }
        if self.over_soft == 0 {
            self.over_soft = now;
        }
        let since = now - self.over_soft;
        pushed > limits.max_output || since >= nanos(limits.soft_output_for)
    }

    /// When the loop must look at it again if nothing moves until then.
    pub(crate) fn due(&self, limits: &Limits) -> Option<Nanos> {
        let wait = match self.state {
            State::Connecting => limits.connect_timeout,
            State::Open => {
                // A paused one waits for the handler, unless that waits for the client in turn.
                let idle = limits.idle_timeout.filter(|_| !self.flags.paused || self.flags.drain);
                let idle = idle.map(|wait| (self.active, wait));
                let slow =
                    (self.over_soft != 0).then_some((self.over_soft, limits.soft_output_for));
                let moments = [idle, slow].into_iter().flatten();
                return moments.map(|(since, wait)| later(since, wait)).min();
            }
            State::Closing => limits.flush_timeout,
            State::Lingering => limits.linger,
            State::Ended => return None,
        };
        Some(later(self.active, wait))
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
        assert!(size <= 144, "{size} bytes");
    }
}
