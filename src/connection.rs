//! The state of one connection, apart from its socket: what it may do next.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::flags::{Flag, Flags};
use crate::input::Input;
use crate::net::Stream;
use crate::output::Output;
use crate::peer::Peer;
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
}

impl<S> Connection<S> {
    pub(crate) fn new(id: ConnId, stream: Stream, session: S, now: Nanos) -> Self {
        let mut flags = Flags::default();
        flags.set(Flag::ReadOn, matches!(stream, Stream::Unix(_)));
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
                self.flags.has(Flag::Readable) && !self.flags.has(Flag::Eof)
            }
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
            self.flags.set(Flag::Held, true);
        }
    }

    /// Others appended `count` bytes. Says whether that is too much already; whether one that is
    /// not blocked keeps up shows only when the turn flushes it.
    pub(crate) fn overrun(&mut self, count: usize, limits: &Limits, now: Nanos) -> bool {
        let before = (self.others as usize).min(self.output.len() - count);
        self.others = u32::try_from(before + count).unwrap_or(u32::MAX);
        self.flags.has(Flag::Blocked) && self.too_slow(limits, now)
    }

    /// Others have queued more for it than it reads, at once or for too long.
    pub(crate) fn too_slow(&mut self, limits: &Limits, now: Nanos) -> bool {
        let pushed = self.pushed();
        if pushed <= limits.soft_output {
            self.change_rare(|rare| rare.over_soft = 0);
            return false;
        }
        if self.over_soft() == 0 {
            self.rare().over_soft = now;
        }
        let since = now - self.over_soft();
        pushed > limits.max_output || since >= nanos(limits.soft_output_for)
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Changes what there is of it; gives it back once nothing is left.
    pub(crate) fn change_rare(&mut self, change: impl FnOnce(&mut Rare)) {
        if let Some(rare) = &mut self.rare {
            change(rare);
            if rare.timers.is_empty() && rare.over_soft == 0 {
                self.rare = None;
            }
        }
    }

    /// Since when the output has been above the soft limit; 0 while it is not.
    pub(crate) fn over_soft(&self) -> Nanos {
        self.rare.as_ref().map_or(0, |rare| rare.over_soft)
    }

    /// When the loop must look at it again if nothing moves until then.
    pub(crate) fn due(&self, limits: &Limits) -> Option<Nanos> {
        let wait = match self.state {
            State::Connecting => limits.connect_timeout,
            State::Open => {
                // A paused one waits for the handler, unless that waits for the client in turn.
                let waits = self.flags.has(Flag::Paused) && !self.flags.has(Flag::Drain);
                let idle = limits.idle_timeout.filter(|_| !waits);
                let idle = idle.map(|wait| (self.active, wait));
                let slow =
                    (self.over_soft() != 0).then_some((self.over_soft(), limits.soft_output_for));
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
        assert!(size <= 112, "{size} bytes");
    }
}
