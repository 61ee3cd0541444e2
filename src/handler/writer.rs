use std::fmt;

use super::{Context, Lines, ServiceContext};

/// A reply being written: see [`Context::writer`]. What was written is sent when it is dropped.
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
    pub(super) cx: &'w mut Context<'a, S>,
    pub(super) start: usize,
    /// It is part of the reply that the loop gives to the connection after the hook.
    pub(super) joined: bool,
}

impl<S> Writer<'_, '_, S> {
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

    /// What was put so far, to be changed in place.
    pub fn written(&mut self) -> &mut [u8] {
        self.cx.service.state.turn.arena.tail_mut(self.start)
    }

    /// As [`Lines::next`], while one reply to several lines is being written.
    #[inline]
    pub fn next_line<'b>(&mut self, lines: &mut Lines<'b>) -> Option<&'b [u8]> {
        lines.next(self.cx)
    }

    #[inline]
    pub(super) fn finish(mut self) -> bool {
        self.send()
    }

    /// Says whether the connection is open.
    #[inline]
    pub(super) fn send(&mut self) -> bool {
        self.joined || self.send_alone()
    }

    #[cold]
    pub(super) fn send_alone(&mut self) -> bool {
        self.joined = true;
        let ServiceContext { table, state } = &mut self.cx.service;
        table.send_since(self.cx.id.slot(), self.start, self.cx.own, state)
    }

    /// What `write!(writer, "…")` calls: formats into the reply.
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) {
        // Writing into memory does not fail; a `Display` that says it does is not our concern.
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
