//! A memcached server: lines with bodies. As with `memcached -M`, what does not fit is an error. What has
//! expired takes its room until it is stored anew, and `flush_all` takes no delay.
//!
//! ```text
//! $ cargo run --example memcached
//! $ nc 127.0.0.1 11211            (or any client that speaks the text protocol)
//! set greeting 0 60 5             (flags 0, for 60 seconds, 5 bytes; then)
//! hello
//! STORED
//! ```

use std::{borrow::Cow, collections::HashMap, mem::take, time::SystemTime};

use reactor::{Context, Error, Handler, Reactor, text::parse};

const LARGEST: usize = (1 << 20) - 512; // a value
const MEMORY: usize = 64 << 20; // all items
const BAD_LINE: &str = "CLIENT_ERROR bad command line format";
const BAD_EXPIRY: &str = "CLIENT_ERROR invalid exptime argument";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta argument";
const NO_NUMBER: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";

#[derive(Default)]
struct Cache {
    items: HashMap<Vec<u8>, Item>,
    used: usize,
    changes: u64,
}

struct Item {
    flags: u32,
    expires: SystemTime,
    cas: u64, // the number of the change that made it
    value: Vec<u8>,
}

/// What a client is in the middle of: the line of a command and its block so far; or the verb of a
/// get, then the keys that are still to be answered, the last first.
type Session = Vec<Vec<u8>>;

/// What to say to a command, or nothing yet. An error ends it early.
type Answer<T = Cow<'static, str>> = Result<T, &'static str>;

/// Never, which is a far date; so many seconds from now; or above 30 days a date.
fn expiry(word: &[u8]) -> Option<SystemTime> {
    let seconds = parse::<i64>(word).map(|seconds| if seconds == 0 { 1 << 40 } else { seconds })?;
    let since = if seconds > 2_592_000 { SystemTime::UNIX_EPOCH } else { SystemTime::now() };
    since.checked_add(std::time::Duration::from_secs(seconds.max(0) as u64))
}

impl Cache {
    /// What there is at a key, if that is one.
    fn find(&mut self, key: &[u8]) -> Answer<Option<&mut Item>> {
        let item = self.items.get_mut(key).filter(|item| item.expires > SystemTime::now());
        if key.len() > 250 { Err(BAD_LINE) } else { Ok(item) }
    }

    /// Puts an item in the place of what there is at a key, or nothing.
    fn put(&mut self, key: &[u8], item: Option<Item>) -> Answer {
        // Whoever stores nothing under short keys fills the memory too.
        let size = |item: &Item| key.len() + item.value.len() + 128;
        self.used -= self.items.remove(key).as_ref().map_or(0, size);
        let Some(item) = item else { return Ok("DELETED".into()) };
        if item.value.len() > LARGEST || self.used + size(&item) > MEMORY {
            return Err("SERVER_ERROR out of memory storing object");
        }
        (self.used, self.changes) = (self.used + size(&item), self.changes + 1);
        self.items.insert(key.to_vec(), Item { cas: self.changes, ..item });
        Ok("STORED".into())
    }

    /// Handles a command. One that has a value is seen twice: by itself, and with that.
    fn run(&mut self, cx: &mut Context<'_, Session>, line: &[u8], block: &[u8]) -> Answer {
        let mut words: Vec<_> = line.split(|b| *b == b' ').filter(|w| !w.is_empty()).collect();
        let quiet = !line.starts_with(b"get") && words.pop_if(|word| *word == b"noreply").is_some();
        Ok(match words[..] {
            [b"get" | b"gets", _, ..] => {
                words[1..].iter().try_for_each(|key| self.find(key).map(drop))?;
                words[1..].reverse();
                *cx.session() = words.into_iter().map(<[u8]>::to_vec).collect();
                self.on_drain(cx);
                "".into()
            }
            [b"set" | b"add" | b"replace" | b"append" | b"prepend", key, flags, time, size]
            | [b"cas", key, flags, time, size, _] => {
                let old = self.find(key)?;
                let size = parse::<u32>(size).ok_or(BAD_LINE)? as usize;
                let (flags, expires) = parse(flags).zip(expiry(time)).ok_or(BAD_LINE)?;
                let cas = words.get(5).map_or(Some(0), |cas| parse(cas)).ok_or(BAD_LINE)?;
                if block.is_empty() {
                    cx.take_block(size + 2);
                    *cx.session() = vec![line.to_vec(), Vec::new()];
                    return Ok("".into());
                }
                let (value, end) = block.split_at(size.min(LARGEST));
                let new = Item { flags, expires, cas, value: value.to_vec() };
                let item = match (words[0], old) {
                    _ if size > LARGEST => Err("SERVER_ERROR object too large for cache")?,
                    _ if end != b"\r\n" => Err("CLIENT_ERROR bad data chunk")?,
                    (b"set", _) | (b"add", None) | (b"replace", Some(_)) => new,
                    (b"append", Some(old)) => Item { value: [&old.value, value].concat(), ..*old },
                    (b"prepend", Some(old)) => Item { value: [value, &old.value].concat(), ..*old },
                    (b"cas", Some(old)) if old.cas == cas => new,
                    (b"cas", Some(_)) => Err("EXISTS")?,
                    (b"cas", None) => Err("NOT_FOUND")?,
                    _ => Err("NOT_STORED")?,
                };
                self.put(key, Some(item))?
            }
            [b"delete", key] | [b"delete", key, b"0"] => {
                self.find(key)?.ok_or("NOT_FOUND")?;
                self.put(key, None)?
            }
            [b"delete", _, _] => format!("{BAD_LINE}.  Usage: delete <key> [noreply]").into(),
            [b"touch", key, time] => {
                let (item, expires) = (self.find(key)?, expiry(time).ok_or(BAD_EXPIRY)?);
                item.ok_or("NOT_FOUND")?.expires = expires;
                "TOUCHED".into()
            }
            [verb @ (b"incr" | b"decr"), key, by] => {
                let (item, by) = (self.find(key)?, parse(by).ok_or(BAD_DELTA)?);
                let item = item.ok_or("NOT_FOUND")?;
                let n = parse::<u64>(item.value.trim_ascii()).ok_or(NO_NUMBER)?;
                let n = if verb == b"incr" { n.wrapping_add(by) } else { n.saturating_sub(by) };
                let value = format!("{n:<width$}", width = item.value.len()).into_bytes();
                let item = Item { value, ..*item };
                self.put(key, Some(item)).map(|_| n.to_string().into())?
            }
            [b"flush_all"] | [b"flush_all", b"0"] => {
                *self = Cache { changes: self.changes, ..Cache::default() };
                "OK".into()
            }
            [b"flush_all", _] => BAD_EXPIRY.into(),
            [b"verbosity", ..] if quiet || words.len() == 2 => "OK".into(),
            [b"version"] if !quiet => concat!("VERSION ", env!("CARGO_PKG_VERSION")).into(),
            [b"stats"] if !quiet => format!("STAT curr_items {}\r\nEND", self.items.len()).into(),
            _ => "ERROR".into(),
        })
    }
}

impl Handler for Cache {
    type Session = Session;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        if line == b"quit" {
            return cx.close();
        }
        let block = take(cx.session()).pop().unwrap_or_default();
        let answer = self.run(cx, line, &block).unwrap_or_else(Cow::from);
        // What is no command at all says so even to those who want no reply.
        if !answer.is_empty() && (answer == "ERROR" || !line.ends_with(b" noreply")) {
            write!(cx, "{answer}\r\n");
        }
    }

    fn on_block(&mut self, cx: &mut Context<'_, Session>, piece: &[u8], end: bool) {
        let [line, value] = &mut cx.session()[..] else { return };
        // More of it than that is too large anyway.
        value.extend_from_slice(&piece[..piece.len().min(LARGEST + 3 - value.len())]);
        if end {
            let line = take(line);
            self.on_line(cx, &line);
        }
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Session>) {
        cx.send_pieces(|words| {
            let key = words.pop()?;
            let Some(verb) = words.first() else { return Some(b"END\r\n".to_vec()) };
            let Ok(Some(item)) = self.find(&key) else { return Some(Vec::new()) };
            let cas = if verb == b"gets" { format!(" {}", item.cas) } else { String::new() };
            let head = format!(" {} {}{cas}\r\n", item.flags, item.value.len());
            Some([b"VALUE ", &key[..], head.as_bytes(), &item.value, b"\r\n"].concat())
        });
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:11211".to_owned());
    let mut reactor = Reactor::new()?;
    println!("listening on {}", reactor.listen(address, Cache::default())?);
    reactor.run().map(drop)
}
