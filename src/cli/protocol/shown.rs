//! Bytes as people can read them.

/// Bytes of a line that are shown.
const MOST: usize = 200;

/// Text as it is, with `\r`, `\n`, `\u{..}` and `\xE9` for what cannot be seen or is no text; a long one is cut.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes[..bytes.len().min(MOST)].utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\'' => text.push(c),
                _ => text.extend(c.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02X}"));
        }
    }
    if bytes.len() > MOST {
        text.push_str(&format!("... ({} bytes)", bytes.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_written_out() {
        assert_eq!(shown("été \"x\"\r\n".as_bytes()), "été \"x\"\\r\\n");
        assert_eq!(shown(b"\x1b[2J \xff\\"), "\\u{1b}[2J \\xFF\\\\");
        assert_eq!(shown("\u{202e}".as_bytes()), "\\u{202e}");
        let long = shown(&[b'x'; 3000]);
        assert!(long.ends_with("xx... (3000 bytes)") && long.len() < 250, "{long}");
    }
}
