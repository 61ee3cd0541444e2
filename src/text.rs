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

/// As [`make_ascii_uppercase`](slice::make_ascii_uppercase), and says whether all of it is ASCII,
/// in one pass. For text as short as a line it takes a fraction of the instructions: what is left
/// over at the end is done with the last whole block once more, which changes nothing that is
/// upper-cased already, instead of byte by byte.
#[inline]
pub fn make_ascii_uppercase(bytes: &mut [u8]) -> bool {
    if bytes.len() >= 16 {
        by_blocks::<16>(bytes)
    } else if bytes.len() >= 8 {
        by_blocks::<8>(bytes)
    } else {
        bytes.make_ascii_uppercase();
        bytes.is_ascii()
    }
}

/// There must be a block at least.
#[inline]
fn by_blocks<const N: usize>(bytes: &mut [u8]) -> bool {
    // One for each place, so that they are combined only once, at the end.
    let mut seen = [0; N];
    for block in bytes.as_chunks_mut::<N>().0 {
        upper(block, &mut seen);
    }
    if let Some(last) = bytes.last_chunk_mut::<N>() {
        upper(last, &mut seen);
    }
    seen.is_ascii()
}

#[inline]
fn upper<const N: usize>(block: &mut [u8; N], seen: &mut [u8; N]) {
    seen.iter_mut().zip(&*block).for_each(|(seen, byte)| *seen |= *byte);
    block.make_ascii_uppercase();
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
            let ascii = make_ascii_uppercase(&mut ours);
            assert_eq!(ours, all[end / 2..end].to_ascii_uppercase());
            assert_eq!(ascii, all[end / 2..end].is_ascii());
        }
    }

    #[test]
    fn a_command_ends_at_the_first_blank() {
        assert_eq!(command(b"SAY  hi there"), (&b"SAY"[..], &b" hi there"[..]));
        assert_eq!(command(b"WHO"), (&b"WHO"[..], &b""[..]));
        assert_eq!(command(b""), (&b""[..], &b""[..]));
    }
}
