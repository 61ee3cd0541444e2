//! Small helpers for protocols of commands and for text that one client shows to another.

/// The text with its control characters (C0, DEL, C1, and so the escape sequences that could
/// rewrite somebody's terminal) replaced by `?`, and what is not UTF-8 by U+FFFD.
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The first word of a line and what follows the one space or tab after it. Nothing else is
/// skipped or changed: a blank at the front makes an empty word, and case is kept.
///
/// ```
/// use reactor::text::command;
///
/// assert_eq!(command(b"SAY  hi "), (&b"SAY"[..], &b" hi "[..]));
/// assert_eq!(command(b" SAY hi"), (&b""[..], &b"SAY hi"[..]));
/// ```
pub fn command(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| matches!(byte, b' ' | b'\t')) {
        Some(end) => (&line[..end], &line[end + 1..]),
        None => (line, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_passes() {
        assert_eq!(printable("a\x1b[2Jb\x07\x7f\u{9b}é".as_bytes()), "a?[2Jb???é");
        assert_eq!(printable(b"\xff\x9bx"), "\u{fffd}\u{fffd}x");
        assert_eq!(printable(b"tab\there\0"), "tab?here?");
    }

    #[test]
    fn a_command_ends_at_the_first_blank() {
        assert_eq!(command(b"SAY  hi there"), (&b"SAY"[..], &b" hi there"[..]));
        assert_eq!(command(b"WHO"), (&b"WHO"[..], &b""[..]));
        assert_eq!(command(b""), (&b""[..], &b""[..]));
    }
}
