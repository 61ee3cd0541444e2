//! What is kept of one client. What a connection runs over and the handler's session lie beside it,
//! in the reactor's table.

use std::collections::BTreeSet;
use std::io;

use super::block::Block;
use super::clock::Nanos;
use super::flags::{Flag, Flags};
use super::input::Input;
use super::output::Output;
use super::peer_address::PeerAddress;
use super::rate::Paid;
use super::{CloseReason, ConnId, TimerId};

/// The state of one connection. Thousands of them are idle at a time, so what few of them need is
/// boxed: in [`Extras`], or in the input and the output themselves.
pub(crate) struct Connection {
    /// Its identity; no other connection ever has the same.
    pub(crate) id: ConnId,
    /// The peer's address as accept gave it: to ask the socket later fails once the peer is gone.
    pub(crate) peer: PeerAddress,
    /// What was received and the handler has not taken.
    pub(crate) input: Input,
    /// What was sent and the kernel has not taken.
    pub(crate) output: Output,
    /// Unsent bytes that others caused, such as a broadcast. An upper bound: which bytes of the
    /// output went out first is not known. See [`pushed`](Self::pushed).
    pub(super) others: u32,
    /// When something last moved. The deadlines count from it.
    pub(crate) active: Nanos,
    /// The deadline that is armed for it in the reactor's timers; 0 while there is none.
    pub(crate) deadline: Nanos,
    /// None while there is nothing in it.
    pub(crate) extras: Option<Box<Extras>>,
    /// How far its life has come.
    pub(crate) stage: Stage,
    /// Why it ended. Means something only once it closes, or after a read or a write has failed.
    pub(crate) reason: CloseReason,
    /// What else holds, a bit each.
    pub(crate) flags: Flags,
}

/// What few connections have.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    /// The timers that the handler has set for this connection. They are cancelled when it ends.
    pub(crate) timers: BTreeSet<TimerId>,
    /// Since when more than `soft_output` has been unsent; 0 while it is not.
    pub(super) over_soft: Nanos,
    /// Until when what it has used of its rate is paid for.
    pub(crate) paid: Paid,
    /// Its place among those that wait for their peer's rate; 0 while it does not.
    pub(crate) place: u64,
    /// When the rates let it be read again; none if others of its peer are to go on first. Means
    /// something only while it is throttled.
    pub(super) resumes: Option<Nanos>,
    /// The bytes that a closing connection had unsent when its `flush_timeout` last began anew; 0
    /// before.
    pub(super) left: usize,
    /// The error that ended it, if it says more than its kind.
    pub(super) error: Option<io::Error>,
    /// When a read or a write failed; 0 while none has.
    pub(crate) lost: Nanos,
    /// The block under way or the last one; none before the first.
    pub(super) block: Option<Block>,
}

/// The same error once more; none of one that has nothing but its kind.
fn copy(error: &io::Error) -> Option<io::Error> {
    let text = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
    let number = error.raw_os_error().map(io::Error::from_raw_os_error);
    number.or_else(|| error.get_ref().is_some().then(|| text(error)))
}

/// The life of a connection. It only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Its connect or the handshake of a layer is under way.
    Connecting,
    /// The handler works with it.
    Open,
    /// It is to be handed over to another service: it is not read, what is unsent goes out.
    Leaving,
    /// No more input is handled and no more output taken; what is unsent goes out.
    Closing,
    /// All is sent and the write side is shut; input is discarded until the peer ends too.
    Lingering,
    /// Nothing more happens with the socket; the slot is freed at the end of the turn.
    Ended,
}

/// What a connection has to know of the stream that it runs over. Each field is a flag.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StreamTraits {
    /// It may always read short; see [`Flag::ReadOn`].
    pub(crate) read_on: bool,
    /// See [`Flag::Descriptors`].
    pub(crate) descriptors: bool,
}

impl Connection {
    /// A connection that is not open yet.
    pub(crate) fn new(id: ConnId, stream: StreamTraits, now: Nanos) -> Self {
        let mut conn = Connection {
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
            flags: Flags::default(),
        };
        conn.runs_over(stream);
        conn
    }

    /// Notes what it runs over. A handshake may change that.
    pub(crate) fn runs_over(&mut self, stream: StreamTraits) {
        self.flags.set(Flag::ReadOn, stream.read_on || self.flags.has(Flag::ReadOn));
        self.flags.set(Flag::Descriptors, stream.descriptors);
    }

    /// Whether input may be handed to the handler.
    #[inline]
    pub(crate) fn takes_input(&self) -> bool {
        self.stage == Stage::Open
            && !(self.flags.has(Flag::Paused)
                || self.flags.has(Flag::Throttled)
                || self.flags.has(Flag::Held)
                || self.flags.has(Flag::Asked)
                || self.flags.has(Flag::Overlong))
    }

    /// Whether its input may be cut into lines.
    #[inline]
    pub(crate) fn takes_lines(&self) -> bool {
        self.takes_input() && !self.flags.has(Flag::InBlock)
    }

    /// Whether output is taken for it.
    #[inline]
    pub(crate) fn takes_output(&self) -> bool {
        self.stage == Stage::Open && !self.flags.has(Flag::Finished)
    }

    /// Whether nobody waits for its output to leave, or watches how fast it does.
    #[inline]
    pub(crate) fn is_at_ease(&self) -> bool {
        const WAITS: [Flag; 3] = [Flag::Finished, Flag::Held, Flag::Drain];
        let waits = WAITS.into_iter().any(|flag| self.flags.has(flag));
        self.stage == Stage::Open && self.extras.is_none() && !waits
    }

    /// Whether serving it now would do something, or find out that there is nothing to do.
    pub(crate) fn has_work(&self) -> bool {
        let eof = self.flags.has(Flag::Eof);
        let unread = self.flags.has(Flag::Readable) && !eof;
        match self.stage {
            Stage::Open => {
                let untold = eof && !self.flags.has(Flag::EofTold);
                let due = untold || self.input.has_work() || self.has_empty_block();
                self.takes_input() && (unread || due)
            }
            Stage::Closing | Stage::Lingering => unread && !self.flags.has(Flag::Descriptors),
            // Only an event brings a connect on. What a leaving one is not read is for its next service.
            Stage::Connecting | Stage::Leaving | Stage::Ended => false,
        }
    }

    /// Ends one of the reasons not to read it: `Paused`, `Throttled`, `Held` or `Asked`. An unfinished line or
    /// block is timed from now on, since until now it was the loop that did not read. Says whether it
    /// did wait for that reason.
    #[inline]
    pub(crate) fn stop_waiting(&mut self, reason: Flag, now: Nanos) -> bool {
        let waited = self.flags.take(reason);
        if waited {
            self.wait_from(now);
        }
        waited
    }

    /// Whether reading it would find out nothing now: it is not read, or its input has ended.
    pub(crate) fn is_unread(&self) -> bool {
        let waits = self.flags.has(Flag::Paused) || self.flags.has(Flag::Throttled);
        waits || self.flags.has(Flag::Eof) || self.stage == Stage::Leaving
    }

    /// Whether its socket has an error that no read is going to find.
    pub(crate) fn is_broken_unread(&self) -> bool {
        self.flags.has(Flag::Broken) && !self.flags.has(Flag::Gone) && self.is_unread()
    }

    /// Whether nothing of its output is left, neither here nor encrypted in its stream.
    pub(crate) fn all_sent(&self) -> bool {
        self.output.is_empty() && !self.flags.has(Flag::Blocked)
    }

    /// Notes the error that ended it: the first, if there are several.
    pub(crate) fn note(&mut self, error: &io::Error) {
        if let Some(error) = copy(error) {
            self.extras().error.get_or_insert(error);
        }
    }

    /// Notes a later error in place of the first, if a layer has put it into words and not the first.
    pub(crate) fn explain(&mut self, error: &io::Error) {
        let worded = |error: &io::Error| error.get_ref().is_some();
        if worded(error) && !self.error().as_ref().is_some_and(worded) {
            self.reason = CloseReason::Error(error.kind());
            self.extras().error = copy(error);
        }
    }

    /// What the system said, if an error ended it.
    pub(crate) fn error(&self) -> Option<io::Error> {
        let CloseReason::Error(kind) = self.reason else { return None };
        let noted = self.extras.as_ref().and_then(|extras| extras.error.as_ref());
        Some(noted.and_then(copy).unwrap_or(kind.into()))
    }

    /// The extras, made if there are none. To clear something in them, use
    /// [`change_extras`](Self::change_extras).
    pub(crate) fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// Changes the extras if there are any, and frees them if nothing is left in them.
    pub(crate) fn change_extras(&mut self, change: impl FnOnce(&mut Extras)) {
        if let Some(extras) = &mut self.extras {
            change(extras);
            let Extras { timers, over_soft, paid, place, resumes, left, lost, error, block } =
                &**extras;
            let unset = (*over_soft, *place, *left, *lost) == (0, 0, 0, 0) && resumes.is_none();
            let unused = *paid == Paid::default() && block.is_none();
            if unset && unused && timers.is_empty() && error.is_none() {
                self.extras = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn words_tell_more_than_a_write_that_failed_before() {
        let mut conn = Connection::new(ConnId::new(1, 0), StreamTraits::default(), 1);
        let pipe = io::Error::from_raw_os_error(libc::EPIPE);
        conn.reason = CloseReason::Error(pipe.kind());
        conn.note(&pipe);
        conn.explain(&ErrorKind::ConnectionReset.into());
        assert_eq!(conn.error().map(|error| error.kind()), Some(ErrorKind::BrokenPipe));
        conn.explain(&io::Error::new(ErrorKind::InvalidData, "refused"));
        conn.explain(&io::Error::new(ErrorKind::InvalidData, "and once more"));
        let told = conn.error().unwrap();
        assert_eq!((told.kind(), told.to_string()), (ErrorKind::InvalidData, "refused".to_owned()));
    }

    #[test]
    fn the_first_error_is_the_one_that_is_told() {
        // No ErrorKind of their own: what tells them apart is their number alone.
        let [first, second] = [libc::EPROTO, libc::ENOLINK].map(io::Error::from_raw_os_error);
        assert_eq!(first.kind(), second.kind());
        let mut conn = Connection::new(ConnId::new(1, 0), StreamTraits::default(), 1);
        conn.reason = CloseReason::Error(first.kind());
        conn.note(&first);
        conn.note(&second);
        assert_eq!(conn.error().and_then(|error| error.raw_os_error()), Some(libc::EPROTO));
    }

    #[test]
    fn an_idle_connection_stays_small() {
        // What an idle client costs is this, its stream and its session: see the table's slot.
        let size = size_of::<Connection>();
        assert!(size <= 96, "{size} bytes");
    }
}
