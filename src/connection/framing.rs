//! The framing: bytes in, lines out. It knows nothing of sockets.
//!
//! A line ends with LF; one CR before it is not part of the line. Each byte is searched once,
//! however the input was cut into pieces: see [`Search`].

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
    pub(crate) offered: usize,
    /// How many bytes at its front an earlier search found to hold no LF.
    pub(crate) known: usize,
    /// How many at its end this one found to hold none.
    pub(crate) found: usize,
}

impl Search {
    pub(crate) fn new(offered: usize, known: usize) -> Search {
        Search { offered, known, found: 0 }
    }

    /// How many bytes at the front of `bytes`, which is the end of the offer, hold no LF.
    #[inline]
    pub(crate) fn known_of(self, bytes: &[u8]) -> usize {
        let skipped = self.offered.saturating_sub(bytes.len());
        self.known.saturating_sub(skipped).min(bytes.len())
    }

    /// All of what is left holds no LF.
    pub(crate) fn is_done(self, left: usize) -> bool {
        left > 0 && self.found == left
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
