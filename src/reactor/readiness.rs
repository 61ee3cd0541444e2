//! When a socket counts as readable and when as drained.
//!
//! Under edge triggers the selector says once that something has come. So a flag remembers it:
//! [`Flag::Readable`] is set by an event and cleared only by a read that shows that nothing is
//! left. Where no event need come, two others set it: `adopting`, since a file has none, and
//! `closing`, once a read or a write has failed. An event does no more than mark; the turn works.

use std::io::{self, ErrorKind};

use super::service::ActiveService;
use super::table::Slot;
use super::token::Token;
use crate::connection::CloseReason;
use crate::connection::connection::Stage;
use crate::connection::flags::Flag;
use crate::handler::Handler;

/// What the selector said of a socket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// See [`Flag::ReadOn`].
    pub(crate) read_on: bool,
    pub(crate) error: bool,
}

impl Readiness {
    /// Whether it says at most that there is room for output.
    fn is_of_output(self) -> bool {
        !(self.readable || self.read_on || self.error)
    }
}

impl From<&mio::event::Event> for Readiness {
    fn from(event: &mio::event::Event) -> Readiness {
        Readiness {
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_on: event.is_read_closed() || event.is_priority(),
            error: event.is_error(),
        }
    }
}

impl<H: Handler> ActiveService<H> {
    pub(super) fn mark_ready(&mut self, token: Token, what: Readiness) {
        if !token.is_connection() {
            if let Some(listener) = self.listeners.get_mut(token.slot()) {
                listener.mark_ready();
            }
            return;
        }
        let Some(slot) = self.table.get_by_token(token) else { return };
        let (id, connecting) = (slot.conn.id, slot.conn.stage == Stage::Connecting);
        if what.is_of_output() && !connecting && !slot.conn.flags.has(Flag::Blocked) {
            // Nobody waits for the room: each newcomer has an edge for it.
            return;
        }
        slot.mark_readable(what);
        let broken = what.error && slot.stream.fails_as_one();
        slot.conn.flags.set(Flag::Broken, broken || slot.conn.flags.has(Flag::Broken));
        let broken_unread = slot.conn.is_broken_unread();
        let told = broken_unread || what.error && slot.conn.flags.has(Flag::Eof);
        if told && !slot.has_unheard_input() {
            let error = slot.take_error();
            return self.table.fail(id, &error);
        }
        let flags = &mut slot.conn.flags;
        if flags.has(Flag::Blocked) && (what.writable || what.error) {
            flags.set(Flag::Blocked, false);
            self.table.mark_dirty(id.slot());
        }
        if connecting || broken_unread {
            self.table.enqueue(id);
        } else {
            self.table.enqueue_if_work(id);
        }
    }
}

impl<S> Slot<S> {
    /// An event has come: there may be input, or the end of it, or an error that a read would give.
    fn mark_readable(&mut self, what: Readiness) {
        let flags = &mut self.conn.flags;
        let read_on = what.read_on || what.error;
        flags.set(Flag::Readable, what.readable || read_on || flags.has(Flag::Readable));
        flags.set(Flag::ReadOn, read_on || flags.has(Flag::ReadOn));
    }

    /// A read of `want` bytes gave `count`. A short read has drained the socket: to ask again for
    /// WouldBlock would be a system call for nothing. But a FIN may have come along with the data,
    /// and there is no second edge for it: then reading goes on until it gives 0.
    #[inline]
    pub(super) fn mark_read(&mut self, count: usize, want: usize) {
        if count < want && !self.conn.flags.has(Flag::ReadOn) {
            self.conn.flags.set(Flag::Readable, false);
        }
    }

    /// A read gave WouldBlock: the socket is drained, but the stream over it may hold something
    /// that it has not given yet. Says whether nothing is left at all: then no FIN is left either,
    /// and a later one brings an edge of its own.
    pub(super) fn mark_would_block(&mut self) -> bool {
        let more = self.stream.has_more();
        self.conn.flags.set(Flag::Readable, more);
        if !more {
            self.conn.flags.set(Flag::ReadOn, self.stream.may_read_short());
        }
        !more
    }

    /// All of up to `want` bytes were read and thrown away, until WouldBlock, or until the end of
    /// the input if that is what `eof` says.
    pub(super) fn mark_discarded(&mut self, count: usize, want: usize, eof: bool) {
        self.conn.flags.set(Flag::Eof, eof);
        self.conn.flags.set(Flag::Readable, count >= want);
    }

    /// The end of input that a read gave is not the peer's: a socket that has told of its error
    /// gives that instead. A broken pipe is no such error: there the peer had ended before.
    pub(super) fn is_cut(&self) -> bool {
        let ended = self.conn.reason == CloseReason::Error(ErrorKind::BrokenPipe);
        self.conn.flags.has(Flag::Gone) && !ended && !self.stream.announces_end()
    }

    /// Input has come that the handler has not been offered.
    pub(super) fn has_unheard_input(&mut self) -> bool {
        let unread = !self.conn.flags.has(Flag::Eof) && self.stream.has_unread();
        self.conn.stage == Stage::Open && (self.conn.input.has_work() || unread)
    }

    /// The error that the socket has.
    pub(super) fn take_error(&self) -> io::Error {
        self.stream.noted_error().unwrap_or(ErrorKind::ConnectionReset.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::ConnId;
    use crate::connection::connection::{Connection, StreamTraits};
    use crate::net::stream::{Failed, Stream};

    /// As with an urgent byte, or the bell of a look-up under the same token.
    #[test]
    fn what_an_event_said_of_short_reads_holds_until_the_socket_is_drained() {
        for read_on in [false, true] {
            let traits = StreamTraits { read_on, descriptors: false };
            let conn = Connection::new(ConnId::new(1, 0), traits, 1);
            let mut slot = Slot { conn, stream: Stream::layer(Failed), session: () };
            slot.mark_readable(Readiness { readable: true, read_on: true, ..Readiness::default() });
            slot.mark_read(1, 2);
            assert!(slot.conn.flags.has(Flag::Readable), "there may be an end");
            assert!(slot.mark_would_block());
            slot.mark_readable(Readiness { readable: true, ..Readiness::default() });
            slot.mark_read(1, 2);
            assert!(!slot.conn.flags.has(Flag::Readable), "one more read for nothing");
        }
    }
}
