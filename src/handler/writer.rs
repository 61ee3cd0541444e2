use std::fmt;

use super::context::reply_has_room;
use super::{Context, Lines, ServiceContext};

/// A reply that is written piece by piece. Made by [`Context::writer`]; what was written is sent when
/// the writer is dropped.
///
/// ```
/// # use reactor::Context;
/// # fn shout(cx: &mut Context<'_, ()>, line: &[u8]) {
/// let mut reply = cx.writer();
/// reply.put(b"> ");
/// reply.put_ascii_uppercase(line);
/// reply.put(b"\n");
/// # }
/// ```
pub struct Writer<'w, 'a, S> {
    cx: &'w mut Context<'a, S>,
    /// Length of the arena when this was begun.
    start: usize,
    /// It is part of the reply that the loop gives to the connection after the hook, so there is
    /// nothing to send.
    joined: bool,
}

impl<'w, 'a, S> Writer<'w, 'a, S> {
    #[inline]
    pub(super) fn new(cx: &'w mut Context<'a, S>) -> Self {
        let joined = cx.joins_reply();
        Writer { start: cx.service.state.turn.arena.len(), joined, cx }
    }

    /// Appends bytes.
    #[inline]
    pub fn put(&mut self, bytes: impl AsRef<[u8]>) {
        self.cx.service.state.turn.arena.put(bytes.as_ref());
    }

    /// Appends bytes with their ASCII letters in upper case, in one pass.
    #[inline]
    pub fn put_ascii_uppercase(&mut self, bytes: impl AsRef<[u8]>) {
        self.cx.service.state.turn.arena.put_ascii_uppercase(bytes.as_ref());
    }

    /// What was appended so far, to be changed in place.
    pub fn written(&mut self) -> &mut [u8] {
        self.cx.service.state.turn.arena.tail_mut(self.start)
    }

    /// As [`Lines::next`], which cannot be called while this borrows the context: so one writer can
    /// take the replies to many lines. None as well where these have filled a connection that was dialled:
    /// the next ones are refused, so they come in the next call of
    /// [`on_bytes`](crate::Handler::on_bytes).
    #[inline]
    pub fn next_line<'b>(&mut self, lines: &mut Lines<'b>) -> Option<&'b [u8]> {
        if !reply_has_room(self.cx.service.state) && self.fills() {
            return None;
        }
        lines.next(self.cx)
    }

    /// Whether what was written has filled the connection, or would have, which lets nothing more
    /// follow in this writer.
    #[cold]
    fn fills(&mut self) -> bool {
        if !self.joined && self.cx.own {
            // It is going to be refused.
            self.cx.service.state.turn.arena.truncate(self.start);
        }
        self.joined && self.cx.is_outbound()
    }

    /// Sends what was written, as dropping does, and says whether the connection takes output.
    #[inline]
    pub(super) fn finish(mut self) -> bool {
        self.send()
    }

    #[inline]
    fn send(&mut self) -> bool {
        self.joined || self.send_alone()
    }

    #[cold]
    fn send_alone(&mut self) -> bool {
        self.joined = true;
        let ServiceContext { table, state } = &mut self.cx.service;
        table.send_since(self.cx.id.slot(), self.start, self.cx.own, state)
    }

    /// Appends formatted text: what `write!(writer, "…")` calls. It cannot fail and returns nothing.
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) {
        // Writing into memory does not fail. A `Display` that fails is not our concern.
        let _ = fmt::Write::write_fmt(self, text);
    }
}

impl<S> fmt::Write for Writer<'_, '_, S> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text);
        Ok(())
    }
}

impl<S> Drop for Writer<'_, '_, S> {
    #[inline]
    fn drop(&mut self) {
        self.send();
    }
}

impl<S> fmt::Debug for Writer<'_, '_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}
