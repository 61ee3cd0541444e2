//! The framing: bytes in, lines out. It knows nothing of sockets.
//!
//! A line ends with LF; one CR before it is not part of the line. Each byte is searched once,
//! however the input was cut into pieces: see [`Search`].

use crate::Context;
use crate::ends::Ends;

/// The line without the CR of a CRLF.
#[inline]
pub(crate) fn without_cr(line: &[u8]) -> &[u8] {
    match line {
        [line @ .., b'\r'] => line,
        line => line,
    }
}

/// Whether an unfinished line is too long already. A CR at its end may still turn out to belong
/// to the line's end, so it does not count.
pub(crate) fn overlong(unfinished: &[u8], limit: usize) -> bool {
    unfinished.len() > limit && without_cr(unfinished).len() > limit
}

/// What one call of `on_bytes` is offered and what the search for LF finds out about it, so that
/// each byte is searched once however the input was cut into pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Search {
    /// Length of the offer.
    offered: usize,
    /// How many bytes at its front an earlier search found to hold no LF.
    known: usize,
    /// How many at its end this one found to hold none.
    found: usize,
}

impl Search {
    pub(crate) fn new(offered: usize, known: usize) -> Search {
        Search { offered, known, found: 0 }
    }

    /// How many bytes at the front of `bytes`, which is the end of the offer, hold no LF.
    #[inline]
    fn known_of(self, bytes: &[u8]) -> usize {
        let skipped = self.offered.saturating_sub(bytes.len());
        self.known.saturating_sub(skipped).min(bytes.len())
    }

    /// All of what is left holds no LF.
    pub(crate) fn is_done(self, left: usize) -> bool {
        left > 0 && self.found == left
    }
}

/// The lines in what a connection has received: what the default
/// [`Handler::on_bytes`](crate::Handler::on_bytes) runs on. Made by [`Context::lines`].
///
/// ```
/// # use reactor::{Context, Handler};
/// # struct Shout;
/// # impl Handler for Shout {
/// #     type Session = ();
/// #     type Message = ();
/// fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
///     let mut lines = cx.lines(bytes);
///     while let Some(line) = lines.next(cx) {
///         self.on_line(cx, line);
///     }
///     lines.taken()
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Lines<'b> {
    bytes: &'b [u8],
    taken: usize,
    ends: Ends,
}

impl<'b> Lines<'b> {
    #[inline]
    pub(crate) fn new(bytes: &'b [u8], search: Search) -> Lines<'b> {
        Lines { bytes, taken: 0, ends: Ends::after(search.known_of(bytes)) }
    }

    /// The next line without its end. None when there is no complete one, when the turn's
    /// budget of lines is used up, and once the connection is paused, held back or closing: then
    /// return [`taken`](Lines::taken), and the rest comes again when it is time. At the end of
    /// the input the last bytes count as a line.
    ///
    /// A line above [`max_line`](crate::Limits::max_line) is answered and the connection closed.
    #[inline]
    pub fn next<S>(&mut self, cx: &mut Context<'_, S>) -> Option<&'b [u8]> {
        if !cx.may_go_on() {
            return None;
        }
        let (end, taken) = match self.ends.next(self.bytes) {
            Some(end) => (end, end + 1),
            None => self.rest(cx)?,
        };
        let line = without_cr(&self.bytes[self.taken..end]);
        if line.len() > cx.limits().max_line {
            cx.line_too_long();
            return None;
        }
        self.taken = taken;
        cx.count_line();
        Some(line)
    }

    /// What has no end is a line at the end of the input; else it was searched in vain.
    #[cold]
    fn rest<S>(&self, cx: &mut Context<'_, S>) -> Option<(usize, usize)> {
        let all = self.bytes.len();
        if cx.at_eof() && self.taken < all {
            return Some((all, all));
        }
        cx.search().found = all - self.taken;
        None
    }

    /// How many bytes the lines took so far, their ends included.
    pub fn taken(&self) -> usize {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_cr_goes() {
        assert_eq!(without_cr(b"ab"), b"ab");
        assert_eq!(without_cr(b"ab\r"), b"ab");
        assert_eq!(without_cr(b"ab\r\r"), b"ab\r");
        assert_eq!(without_cr(b"\r"), b"");
        assert_eq!(without_cr(b"a\rb"), b"a\rb");
    }

    #[test]
    fn a_cr_at_the_very_limit_may_still_be_the_lines_end() {
        assert!(!overlong(b"abcd", 4));
        assert!(!overlong(b"abcd\r", 4));
        assert!(overlong(b"abcde", 4));
        assert!(overlong(b"abcd\r\r", 4));
    }
}
