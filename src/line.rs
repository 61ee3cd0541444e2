//! The framing: bytes in, lines out. It knows nothing of sockets.
//!
//! A line ends with LF; one CR before it is not part of the line. Each byte is searched once,
//! however the input was cut into pieces: see [`Search`].

use memchr::memchr;

use crate::Context;

/// One complete line at the front of `bytes` and how many bytes it took, its end included. The
/// first `known` bytes are known to hold no LF.
#[inline]
pub(crate) fn split(bytes: &[u8], known: usize) -> Option<(&[u8], usize)> {
    let end = known + memchr(b'\n', &bytes[known..])?;
    Some((without_cr(&bytes[..end]), end + 1))
}

/// The line without the CR of a CRLF.
#[inline]
pub(crate) fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
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
    known: usize,
}

impl<'b> Lines<'b> {
    #[inline]
    pub(crate) fn new(bytes: &'b [u8], search: Search) -> Lines<'b> {
        Lines { bytes, taken: 0, known: search.known_of(bytes) }
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
        let rest = &self.bytes[self.taken..];
        let (line, took) = match split(rest, self.known) {
            Some(found) => found,
            None if cx.at_eof() && !rest.is_empty() => (without_cr(rest), rest.len()),
            None => {
                cx.search().found = rest.len();
                return None;
            }
        };
        if line.len() > cx.limits().max_line {
            cx.line_too_long();
            return None;
        }
        self.taken += took;
        self.known = 0;
        cx.count_line();
        Some(line)
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
    fn lf_and_crlf_end_a_line_and_only_one_cr_goes() {
        assert_eq!(split(b"ab\ncd", 0), Some((&b"ab"[..], 3)));
        assert_eq!(split(b"ab\r\ncd", 0), Some((&b"ab"[..], 4)));
        assert_eq!(split(b"ab\r\r\n", 0), Some((&b"ab\r"[..], 5)));
        assert_eq!(split(b"\r\n", 0), Some((&b""[..], 2)));
        assert_eq!(split(b"a\rb\n", 0), Some((&b"a\rb"[..], 4)));
        assert_eq!(split(b"abcd", 0), None);
    }

    #[test]
    fn the_search_starts_after_what_is_known() {
        // A wrong promise is seen to be believed: the first LF is not looked at.
        assert_eq!(split(b"a\nb\n", 2), Some((&b"a\nb"[..], 4)));
    }

    #[test]
    fn a_cr_at_the_very_limit_may_still_be_the_lines_end() {
        assert!(!overlong(b"abcd", 4));
        assert!(!overlong(b"abcd\r", 4));
        assert!(overlong(b"abcde", 4));
        assert!(overlong(b"abcd\r\r", 4));
    }
}
