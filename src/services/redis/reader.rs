//! RESP2, the protocol of Redis: replies, put together as their lines and blocks come. Each byte is
//! looked at once, however the input is cut: a line when it is whole, a string as its pieces come.

use super::Redis;
use super::reply::Reply;
use crate::text::printable;

/// Arrays in arrays. `XREAD` has five.
const DEEPEST: usize = 8;
/// How much room a string gets before its bytes are there.
const ROOM: usize = 64 << 10;

/// What is to be read next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// A line.
    More,
    /// A block of so many bytes: a string, and the CRLF behind it.
    Block(usize),
    /// A line, after this reply.
    Reply(Reply),
}

/// This is no RESP2, or more than is taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub String);

/// The reply under way.
#[derive(Debug)]
pub struct Reader {
    /// The arrays that are not complete, the outermost first.
    open: Vec<Open>,
    /// The string that is not complete.
    string: Vec<u8>,
    /// What there may be of a reply: its bytes, and the parts of its arrays.
    most: usize,
    /// What there is, or was announced.
    size: usize,
}

#[derive(Debug)]
struct Open {
    /// Parts that are still to come.
    left: usize,
    parts: Vec<Reply>,
}

impl Default for Reader {
    fn default() -> Reader {
        Reader { open: Vec::new(), string: Vec::new(), most: Redis::MAX_REPLY, size: 0 }
    }
}

impl Reader {
    /// Sets how large a reply may be.
    pub fn set_most(&mut self, most: usize) {
        // The CRLF behind a string comes on top.
        self.most = most.min(usize::MAX - 2);
    }

    /// Takes a line, without its CRLF.
    pub fn line(&mut self, line: &[u8]) -> Result<Step, Broken> {
        let (kind, rest) = line.split_at(line.len().min(1));
        let text = || String::from_utf8_lossy(rest).into_owned();
        let reply = match (kind, length(rest)) {
            (b"$" | b"*", _) if rest == b"-1" => Reply::Nil,
            (b"$", Some(length)) => {
                self.charge(length, 1)?;
                self.string.reserve(length.min(ROOM) + 2);
                return Ok(Step::Block(length + 2));
            }
            (b"*", Some(0)) => Reply::Array(Vec::new()),
            (b"*", Some(count)) => {
                self.charge(count, size_of::<Reply>())?;
                if self.open.len() == DEEPEST {
                    return Err(Broken(format!("a reply with arrays more than {DEEPEST} deep")));
                }
                self.open.push(Open { left: count, parts: Vec::new() });
                return Ok(Step::More);
            }
            (b"+", _) => Reply::Status(text()),
            (b"-", _) => Reply::Error(text()),
            (b":", _) if let Some(number) = crate::text::parse(rest) => Reply::Integer(number),
            _ => {
                let line: String = printable(line).chars().take(60).collect();
                return Err(Broken(format!("what it says is no reply of Redis: {line:?}")));
            }
        };
        if let Reply::Status(_) | Reply::Error(_) = reply {
            self.charge(rest.len(), 1)?;
        }
        Ok(self.complete(reply))
    }

    /// Takes a piece of a block, the last one or not.
    pub fn piece(&mut self, piece: &[u8], end: bool) -> Result<Step, Broken> {
        self.string.extend_from_slice(piece);
        if !end {
            return Ok(Step::More);
        }
        let mut string = std::mem::take(&mut self.string);
        let behind = string.split_off(string.len().saturating_sub(2));
        if behind != b"\r\n" {
            return Err(Broken("a string that is longer than announced".to_owned()));
        }
        Ok(self.complete(Reply::Bulk(string)))
    }

    /// Counts what comes before there is any room for it.
    fn charge(&mut self, count: usize, each: usize) -> Result<(), Broken> {
        let size = count.checked_mul(each).and_then(|more| more.checked_add(self.size));
        match size {
            Some(size) if size <= self.most => {
                self.size = size;
                Ok(())
            }
            _ => Err(Broken(format!("a reply of more than {} bytes", self.most))),
        }
    }

    /// A part that is complete may complete the array that it is in.
    fn complete(&mut self, mut reply: Reply) -> Step {
        while let Some(array) = self.open.last_mut() {
            array.parts.push(reply);
            array.left -= 1;
            if array.left > 0 {
                return Step::More;
            }
            reply = Reply::Array(self.open.pop().map_or_else(Vec::new, |array| array.parts));
        }
        self.size = 0;
        Step::Reply(reply)
    }
}

/// Reads a length, of digits alone.
fn length(text: &[u8]) -> Option<usize> {
    let digits = text.iter().all(u8::is_ascii_digit);
    crate::text::parse(text).filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_of_all_lengths_is_too_long_whatever_the_limit() {
        let mut reader = Reader::default();
        reader.set_most(usize::MAX);
        for kind in ['$', '*'] {
            let line = format!("{kind}{}", usize::MAX);
            assert!(reader.line(line.as_bytes()).is_err(), "{line}");
        }
    }
}
