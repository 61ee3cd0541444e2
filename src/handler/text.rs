//! Small helpers for protocols of commands, for text of one client that another is shown, and for
//! clients that are telnet.

use std::str::FromStr;

pub use super::telnet::{Telnet, telnet};
pub use super::unprintable::unprintable;

/// Makes text of one client safe to show to another: no escape sequence rewrites a terminal, no
/// character turns the line around or breaks it, and nothing is there that cannot be seen. These
/// become `?`, a character each:
///
/// * control characters (Cc): C0, DEL, C1, and so every escape sequence;
/// * format characters (Cf), such as those that change the direction of writing, and tags. The joiners
///   U+200C and U+200D stay within a word, that is between two letters or marks: Persian and the
///   scripts of India are written with them;
/// * separators of lines and paragraphs (Zl, Zp), and private use (Co);
/// * whatever else is invisible by its nature (Default_Ignorable_Code_Point), such as the Hangul
///   fillers. The variation selectors U+FE0E and U+FE0F stay behind a character that can be seen: they
///   choose between text and emoji;
/// * U+2800, the braille pattern without dots.
///
/// What is not UTF-8 becomes U+FFFD. Letters that look like others, and any number of accents on one
/// letter, stay as they are.
///
/// Cut a text before this rather than after: what stays for the sake of the next character would then
/// be the last.
///
/// ```
/// use reactor::text::printable;
///
/// assert_eq!(printable(b"\x1b[2Jcaf\xc3\xa9 \xff"), "?[2Jcafé \u{fffd}");
/// assert_eq!(printable("bob\u{200b} \u{202e}ylno".as_bytes()), "bob? ?ylno");
/// ```
pub fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::new();
    let mut from = 0;
    for (at, c) in unprintable(&text) {
        shown.push_str(&text[from..at]);
        shown.push('?');
        from = at + c.len_utf8();
    }
    if from == 0 {
        return text.into_owned();
    }
    shown.push_str(&text[from..]);
    shown
}

/// Splits a line into its first word and what follows the one space or tab after it. Nothing else is
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

/// The value of a word, such as a number or an address; none if it is not UTF-8, or cannot be parsed.
/// Nothing is trimmed, and what [`FromStr`] takes is taken: a number may have a `+`.
///
/// ```
/// use reactor::text::{command, parse};
///
/// let (verb, count) = command(b"GET 12");
/// assert_eq!((verb, parse::<u32>(count)), (&b"GET"[..], Some(12)));
/// assert_eq!(parse::<u8>(b"256"), None);
/// assert_eq!(parse::<u8>(b" 1"), None);
/// ```
pub fn parse<T: FromStr>(word: &[u8]) -> Option<T> {
    str::from_utf8(word).ok()?.parse().ok()
}

/// Whether a line is the beginning of HTTP or TLS: a request line, a `Host:` header, or the first
/// record of a handshake.
///
/// A web page can make the browsers of its visitors connect to any port, those of their own machines
/// included, and send a request whose body is lines of the page's choice. If a line of your protocol
/// changes anything, close a client that begins like that: the body is then never looked at.
///
/// ```
/// use reactor::text::is_foreign;
///
/// assert!(is_foreign(b"POST / HTTP/1.1"));
/// assert!(!is_foreign(b"SAY what is HTTP/1.1 ?"));
/// ```
pub fn is_foreign(line: &[u8]) -> bool {
    // Any method: a page that has the server's name point to itself may choose it.
    let mut words = line.split(|byte| *byte == b' ');
    let request = words.next().is_some_and(|method| !method.is_empty())
        && words.next().is_some_and(|target| target.starts_with(b"/") || target == b"*")
        && words.next().is_some_and(|version| version.starts_with(b"HTTP/"))
        && words.next().is_none();
    let header = line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"Host:"));
    request || header || line.starts_with(&[0x16, 3])
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
    fn nothing_that_deceives_the_eye_passes() {
        for (text, shown) in [
            ("\u{202e}yenom eht dnes :syas ecila", "?yenom eht dnes :syas ecila"),
            ("\u{2067}abc\u{2066}def\u{2069}", "?abc?def?"),
            ("hi\u{2028}alice\u{2029}", "hi?alice?"),
            ("bob\u{200b}\u{2060}\u{e0041}", "bob???"),
            ("An\u{3164}anonymous\u{2800}user", "An?anonymous?user"),
            ("\u{f8ff}\u{10fffd}", "??"),
            ("b\u{200d}b\u{200d}", "b\u{200d}b?"),
            ("❤\u{fe0f}\u{fe0f}", "❤\u{fe0f}?"),
            ("", ""),
        ] {
            assert_eq!(printable(text.as_bytes()), shown, "{text:?}");
        }
    }

    #[test]
    fn what_browsers_begin_with_is_foreign_and_talk_is_not() {
        for line in [
            &b"GET / HTTP/1.1"[..],
            b"KILL /x HTTP/1.0",
            b"OPTIONS * HTTP/1.1",
            b"PRI * HTTP/2.0",
            b"host: 127.0.0.1:9907",
            b"\x16\x03\x01\x02\x00\x01\x00",
        ] {
            assert!(is_foreign(line), "{line:?}");
        }
        for line in [
            &b""[..],
            b"SAY HTTP/1.1",
            b"SAY see /x HTTP/1.1",
            b"SAY POST / HTTP/1.1",
            b"hostess: here",
            b"Host",
            b" / HTTP/1.1",
            b"\x16",
        ] {
            assert!(!is_foreign(line), "{line:?}");
        }
    }

    #[test]
    fn a_command_ends_at_the_first_blank() {
        assert_eq!(command(b"SAY  hi there"), (&b"SAY"[..], &b" hi there"[..]));
        assert_eq!(command(b"WHO"), (&b"WHO"[..], &b""[..]));
        assert_eq!(command(b""), (&b""[..], &b""[..]));
    }
}
