//! The state of one connection, apart from its socket: what it may do next.

use std::collections::BTreeSet;
use std::io;

use super::clock::Nanos;
use super::flags::{Flag, Flags};
use super::input::Input;
use super::output::Output;
use super::peer_address::PeerAddress;
use super::{CloseReason, ConnId, TimerId};

/// The life of a connection; it only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
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
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    /// What accept gave: asking later fails once the peer is gone.
    pub(crate) peer: PeerAddress,
    pub(crate) input: Input,
    pub(crate) output: Output,
    /// Unsent bytes that others caused; an upper bound, since it does not know which bytes of
    /// the output went first. See [`pushed`](Self::pushed).
    pub(super) others: u32,
    /// When something last moved; what the deadline is counted from.
    pub(crate) active: Nanos,
    /// When the loop looks at it next; 0 for never.
    pub(crate) deadline: Nanos,
    pub(crate) extras: Option<Box<Extras>>,
    pub(crate) stage: Stage,
    pub(crate) reason: CloseReason,
    pub(crate) flags: Flags,
}

/// What few connections have, kept apart so that the others are small.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    /// The handler's timers, to end with it.
    pub(crate) timers: BTreeSet<TimerId>,
    /// Since when the output has been above the soft limit; 0 while it is not.
    pub(super) over_soft: Nanos,
    /// Until when the rate has been used up.
    pub(super) paid: Nanos,
    /// What was left of a closing connection's output when it had last taken enough; 0 before.
    pub(super) left: usize,
    /// The system's number of the error that ended it.
    pub(super) error: Option<i32>,
    /// When a write to it failed; 0 while none has.
    pub(crate) lost: Nanos,
}

impl Connection {
    pub(crate) fn new(id: ConnId, stream: Traits, now: Nanos) -> Self {
        let mut flags = Flags::default();
        flags.set(Flag::ReadOn, stream.read_on);
        flags.set(Flag::Handshaking, stream.handshake);
        flags.set(Flag::Descriptors, stream.descriptors);
        Connection {
            id,
            peer: PeerAddress::default(),
            input: Input::default(),
            output: Output::default(),
            others: 0,
            active: now,
            deadline: 0,
            extras: None,
            stage: Stage::Connecting,
            reason: CloseReason::Closed,
            flags,
        }
    }

    /// Input may be handed to the handler.
    #[inline]
    pub(crate) fn takes_input(&self) -> bool {
        self.stage == Stage::Open
            && !(self.flags.has(Flag::Paused)
                || self.flags.has(Flag::Throttled)
                || self.flags.has(Flag::Held)
                || self.flags.has(Flag::Overlong))
    }

    /// Output is taken for it.
    #[inline]
    pub(crate) fn takes_output(&self) -> bool {
        self.stage == Stage::Open && !self.flags.has(Flag::Finished)
    }

    /// Nobody waits for its output to leave, and nobody watches how fast it does.
    #[inline]
    pub(crate) fn is_at_ease(&self) -> bool {
        const WAITS: [Flag; 3] = [Flag::Finished, Flag::Held, Flag::Drain];
        let waits = WAITS.into_iter().any(|flag| self.flags.has(flag));
        self.stage == Stage::Open && self.extras.is_none() && !waits
    }

    /// Serving it now would do something, or find out that there is nothing to do.
    pub(crate) fn has_work(&self) -> bool {
        match self.stage {
            Stage::Open => {
                let unread = self.flags.has(Flag::Readable) && !self.flags.has(Flag::Eof);
                let untold = self.flags.has(Flag::Eof) && !self.flags.has(Flag::EofTold);
                self.takes_input() && (unread || untold || self.input.has_work())
            }
            Stage::Closing | Stage::Lingering => {
                let unread = self.flags.has(Flag::Readable) && !self.flags.has(Flag::Eof);
                unread && !self.flags.has(Flag::Descriptors)
            }
            // Only an event brings a connect on.
            Stage::Connecting | Stage::Ended => false,
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

    /// Nothing of its output is left, here or encrypted in its stream.
    pub(crate) fn all_sent(&self) -> bool {
        self.output.is_empty() && !self.flags.has(Flag::Blocked)
    }

    /// Notes the error that ended it.
    pub(crate) fn note(&mut self, error: &io::Error) {
        if let Some(number) = error.raw_os_error() {
            self.extras().error = Some(number);
        }
    }

    /// What the system said when it ended with an error.
    pub(crate) fn error(&self) -> Option<io::Error> {
        let CloseReason::Error(kind) = self.reason else { return None };
        let number = self.extras.as_ref().and_then(|extras| extras.error);
        Some(number.map_or(kind.into(), io::Error::from_raw_os_error))
    }

    pub(crate) fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// Changes what there is of it; gives it back once nothing is left.
    pub(crate) fn change_extras(&mut self, change: impl FnOnce(&mut Extras)) {
        if let Some(extras) = &mut self.extras {
            change(extras);
            let Extras { timers, over_soft, paid, left, lost, error } = &**extras;
            let unset = (*over_soft, *paid, *left, *lost) == (0, 0, 0, 0);
            if unset && timers.is_empty() && error.is_none() {
                self.extras = None;
            }
        }
    }
}

/// What a connection has to know of the stream that it runs over.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traits {
    /// See [`Flag::ReadOn`].
    pub(crate) read_on: bool,
    /// See [`Flag::Handshaking`].
    pub(crate) handshake: bool,
    /// See [`Flag::Descriptors`].
    pub(crate) descriptors: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_stays_small() {
        // What an idle client costs is this and nothing else. In debug builds mio adds 8 bytes
        // to a socket, to see that it is registered with one selector only.
        let size = size_of::<Connection>();
        assert!(size <= 96, "{size} bytes");
    }
}
