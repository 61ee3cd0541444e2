//! What a Redis says to its client: any bytes in any pieces make the replies that reading all of them at
//! once makes, or end the connection; and never more than was asked for.

#![allow(unreachable_pub, reason = "the fuzzers are a crate of their own")]

use std::sync::mpsc::channel;

use reactor::services::redis::{Ask, Login, Order, Redis, Reply, State};
use reactor::testing::Harness;
use reactor::{Limits, text};

/// The largest reply.
const MOST: usize = 2000;
/// How many replies are asked for.
const ASKED: usize = 50;
/// What replies are made of, where random bytes are to come closer to some.
const LETTERS: &[u8] = b"+-:$**0123456789\r\n\n\n  ab";

/// The first four bytes say in which pieces the rest comes, and whether as it is.
pub fn replies(data: &[u8]) {
    let Some((shape, input)) = data.split_at_checked(4) else { return };
    let letter = |byte: &u8| LETTERS[usize::from(*byte) % LETTERS.len()];
    let input: Vec<u8> = match shape[0] % 2 {
        0 => input.to_vec(),
        _ => input.iter().map(letter).collect(),
    };
    let client = Redis::new("127.0.0.1:6379", Login::default()).unwrap().with_max_reply(MOST);
    let mut client = Harness::without_listener(client, Limits::default());
    let (_, server) = client.dialled()[0];
    client.answer(server);
    client.feed(server, "+PONG\r\n");
    assert!(matches!(client.handler().state(), State::Up { number: 1 }));
    let (tell, told) = channel();
    for number in 0..ASKED {
        let tell = tell.clone();
        let ask = Ask::new([["GET", "a"]], move |it| tell.send((number, it)).unwrap());
        client.post(Order::Ask(ask));
    }
    let mut rest = &input[..];
    for size in shape[1..].iter().cycle() {
        let (piece, more) = rest.split_at(rest.len().min(1 + usize::from(*size)));
        client.feed(server, piece);
        rest = more;
        if rest.is_empty() {
            break;
        }
    }
    let (mut wanted, mut broken) = all_at_once(&input);
    broken |= wanted.len() > ASKED;
    wanted.truncate(ASKED);
    assert_eq!(client.closed(server).is_some(), broken, "{:?}", client.handler().state());
    client.end(server);
    let (mut next, mut lost) = (0, 0);
    for (number, outcome) in told.try_iter() {
        assert_eq!(number, next);
        next += 1;
        match outcome {
            Ok(replies) => assert_eq!(replies, [wanted[number].clone()]),
            Err(_) => lost += 1,
        }
    }
    assert_eq!((next, lost), (ASKED, ASKED - wanted.len()), "each is answered once");
}

/// Why there is no reply.
enum End {
    /// More is to come.
    More,
    Broken,
}

struct Reading<'a> {
    rest: &'a [u8],
    size: usize,
}

/// The replies, and whether something follows that is none.
fn all_at_once(input: &[u8]) -> (Vec<Reply>, bool) {
    let (mut reading, mut replies) = (Reading { rest: input, size: 0 }, Vec::new());
    loop {
        reading.size = 0;
        match reading.reply(0) {
            Ok(reply) => replies.push(reply),
            Err(End::More) => return (replies, false),
            Err(End::Broken) => return (replies, true),
        }
    }
}

impl Reading<'_> {
    fn reply(&mut self, depth: usize) -> Result<Reply, End> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or(End::More)?;
        let (line, rest) = (&self.rest[..end], &self.rest[end + 1..]);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.rest = rest;
        let (kind, said) = line.split_first().ok_or(End::Broken)?;
        let text = String::from_utf8_lossy(said).into_owned();
        let length = || {
            let digits = !said.is_empty() && said.iter().all(u8::is_ascii_digit);
            text.parse::<usize>().ok().filter(|_| digits).ok_or(End::Broken)
        };
        Ok(match kind {
            b'+' | b'-' => {
                self.take(said.len())?;
                if *kind == b'+' { Reply::Status(text) } else { Reply::Error(text) }
            }
            b':' => Reply::Integer(text::parse(said).ok_or(End::Broken)?),
            b'$' | b'*' if said == b"-1" => Reply::Nil,
            b'$' => {
                let length = length()?;
                self.take(length)?;
                let (string, rest) = self.rest.split_at_checked(length + 2).ok_or(End::More)?;
                self.rest = rest;
                Reply::Bulk(string.strip_suffix(b"\r\n").ok_or(End::Broken)?.to_vec())
            }
            b'*' => {
                let count = length()?;
                self.take(count.saturating_mul(size_of::<Reply>()))?;
                if count > 0 && depth == 8 {
                    return Err(End::Broken);
                }
                let parts = (0..count).map(|_| self.reply(depth + 1));
                Reply::Array(parts.collect::<Result<_, _>>()?)
            }
            _ => return Err(End::Broken),
        })
    }

    fn take(&mut self, size: usize) -> Result<(), End> {
        self.size = self.size.saturating_add(size);
        if self.size > MOST { Err(End::Broken) } else { Ok(()) }
    }
}
