//! What the selector said of a socket, noted on its connection. An event only marks; the turn works.

use super::service::ActiveService;
use super::token::Token;
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
                listener.ready();
            }
            return;
        }
        let Some(slot) = self.table.named(token) else { return };
        let (id, connecting) = (slot.conn.id, slot.conn.stage == Stage::Connecting);
        let flags = &mut slot.conn.flags;
        let read_on = what.read_on || what.error;
        if !what.readable && !read_on && !connecting && !flags.has(Flag::Blocked) {
            // Room for output that nobody waits for: each newcomer has an edge for it.
            return;
        }
        flags.set(Flag::Readable, what.readable || read_on || flags.has(Flag::Readable));
        flags.set(Flag::ReadOn, read_on || flags.has(Flag::ReadOn));
        // Where only the output of two descriptors is gone, there may be input yet.
        // One of a host's addresses that fails leaves the others.
        let broken = what.error && slot.stream.is_socket() && slot.stream.dialling().is_none();
        flags.set(Flag::Broken, broken || flags.has(Flag::Broken));
        let unread = slot.conn.is_broken_unread();
        if (unread || what.error && slot.conn.flags.has(Flag::Eof)) && !slot.is_unheard() {
            let error = slot.take_error();
            return self.table.fail(id, &error);
        }
        let flags = &mut slot.conn.flags;
        if flags.has(Flag::Blocked) && (what.writable || what.error) {
            flags.set(Flag::Blocked, false);
            self.table.mark_dirty(id.slot());
        }
        if connecting || unread {
            self.table.visit(id);
        } else {
            self.table.queue(id);
        }
    }
}
