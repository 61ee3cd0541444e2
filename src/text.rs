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

/// As [`make_ascii_uppercase`](slice::make_ascii_uppercase), at a quarter of its instructions for
/// text as short as a line: what is left over at the end is done with the last whole block once
/// more, which changes nothing that is upper-cased already, instead of byte by byte.
#[inline]
pub fn make_ascii_uppercase(bytes: &mut [u8]) {
    if !by_blocks::<16>(bytes) && !by_blocks::<8>(bytes) {
        bytes.make_ascii_uppercase();
    }
}

/// Says whether there was a block at all.
#[inline]
fn by_blocks<const N: usize>(bytes: &mut [u8]) -> bool {
    bytes.as_chunks_mut::<N>().0.iter_mut().for_each(|block| block.make_ascii_uppercase());
    bytes.last_chunk_mut::<N>().map(|last| last.make_ascii_uppercase()).is_some()
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
    fn upper_case_is_the_standard_librarys_at_every_length() {
        let all: Vec<u8> = (0..=255).cycle().take(300).collect();
        for end in 0..all.len() {
            let mut ours = all[end / 2..end].to_vec();
            make_ascii_uppercase(&mut ours);
            assert_eq!(ours, all[end / 2..end].to_ascii_uppercase());
        }
    }

    #[test]
    fn a_command_ends_at_the_first_blank() {
        assert_eq!(command(b"SAY  hi there"), (&b"SAY"[..], &b" hi there"[..]));
        assert_eq!(command(b"WHO"), (&b"WHO"[..], &b""[..]));
        assert_eq!(command(b""), (&b""[..], &b""[..]));
    }
}
