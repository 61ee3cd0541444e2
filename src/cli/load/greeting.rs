//! What a server says first.

/// The greeting that must come before a client counts as connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// The server says nothing: who is connected is greeted.
    None,
    /// Anything.
    Any,
    /// What the dialogue expects; its workload judges it.
    Dialogue,
    /// These bytes.
    Text(Vec<u8>),
    /// So many lines, whatever they say.
    Lines(usize),
}

/// What has come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Greeted {
    /// It is complete, in so many bytes.
    Yes(usize),
    NotYet,
    /// It is another one. This should have come.
    No(Vec<u8>),
}

impl Greeting {
    /// Reads `TEXT` or `LINES` of `--greeting`: a number is how many lines. Each line of the text may
    /// end with LF or CRLF; `\n` stands between two of them.
    pub(crate) fn parse(text: &str) -> Result<Greeting, String> {
        match text.parse() {
            Ok(0) => Err("a server without a greeting has --no-greeting".to_owned()),
            Ok(lines) => Ok(Greeting::Lines(lines)),
            Err(_) if text.is_empty() => Err("write the line, or how many lines".to_owned()),
            Err(_) => Ok(Greeting::Text((text.replace("\\n", "\n") + "\n").into_bytes())),
        }
    }

    pub(crate) fn check(&self, bytes: &[u8]) -> Greeted {
        match self {
            Greeting::None | Greeting::Any | Greeting::Dialogue => Greeted::Yes(0),
            Greeting::Text(wanted) if bytes.starts_with(wanted) => Greeted::Yes(wanted.len()),
            Greeting::Text(wanted) => text(wanted, bytes),
            Greeting::Lines(lines) => {
                let end = memchr::memchr_iter(b'\n', bytes).nth(lines - 1);
                end.map_or(Greeted::NotYet, |end| Greeted::Yes(end + 1))
            }
        }
    }
}

/// A CR before an LF is passed over, unless it is wanted.
fn text(wanted: &[u8], bytes: &[u8]) -> Greeted {
    let mut at = 0;
    for byte in wanted {
        if *byte == b'\n' && bytes.get(at) == Some(&b'\r') {
            at += 1;
        }
        match bytes.get(at) {
            None => return Greeted::NotYet,
            Some(came) if came != byte => return Greeted::No(wanted.to_vec()),
            Some(_) => at += 1,
        }
    }
    Greeted::Yes(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_or_a_number_of_lines() {
        let hello = Greeting::parse("hello\\nyou").unwrap();
        assert_eq!(hello, Greeting::Text(b"hello\nyou\n".to_vec()));
        for (came, greeted) in [
            (&b""[..], Greeted::NotYet),
            (b"hello\r", Greeted::NotYet),
            (b"hello\nyou\nPONG", Greeted::Yes(10)),
            (b"hello\r\nyou\r\n", Greeted::Yes(12)),
            (b"help", Greeted::No(b"hello\nyou\n".to_vec())),
        ] {
            assert_eq!(hello.check(came), greeted, "{came:?}");
        }
        let two = Greeting::parse("2").unwrap();
        assert_eq!((two.check(b"a\nb"), two.check(b"a\nb\nc")), (Greeted::NotYet, Greeted::Yes(4)));
        assert!(Greeting::parse("0").unwrap_err().contains("--no-greeting"));
        assert!(Greeting::parse("").is_err());
    }
}
