//! What a line is: the bytes up to an LF. One CR before the LF is not part of the line.
//!
//! Each byte is searched for LF once, however the input was cut into pieces: [`Search`] carries what
//! is known from one call of the handler to the next. The search itself is in `newlines`.

/// The line without the CR of its CRLF.
#[inline]
pub(crate) fn without_cr(line: &[u8]) -> &[u8] {
    match line {
        [line @ .., b'\r'] => line,
        line => line,
    }
}

/// Whether an unfinished line is above the limit already. A CR at its end does not count, since an
/// LF may follow.
pub(crate) fn overlong(unfinished: &[u8], limit: usize) -> bool {
    unfinished.len() > limit && without_cr(unfinished).len() > limit
}

/// What one call of `on_bytes` is offered, and how much of it is known to hold no LF.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Search {
    /// Length of the offer.
    offered: usize,
    /// How many bytes at its front hold no LF, as an earlier search found.
    known: usize,
    /// How many bytes at its end hold no LF, as this search found.
    found: usize,
}

impl Search {
    /// Before the search in an offer, of which the first `known` bytes hold no LF.
    pub(crate) fn new(offered: usize, known: usize) -> Search {
        Search { offered, known, found: 0 }
    }

    /// How many bytes at the front of `bytes`, which is the end of the offer, hold no LF.
    #[inline]
    pub(crate) fn known_of(self, bytes: &[u8]) -> usize {
        let skipped = self.offered.saturating_sub(bytes.len());
        self.known.saturating_sub(skipped).min(bytes.len())
    }

    /// Notes that the last `left` bytes of the offer hold no LF.
    pub(crate) fn failed(&mut self, left: usize) {
        self.found = left;
    }

    /// Whether the `left` bytes that the handler has not taken are known to hold no LF.
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
