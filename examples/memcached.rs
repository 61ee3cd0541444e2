//! A memcached server: lines with bodies. As with `memcached -M`, what does not fit is an error; what has
//! expired takes its room until it is stored anew.
//!
//! ```text
//! $ cargo run --example memcached
//! $ nc 127.0.0.1 11211            (or any client that speaks the text protocol)
//! set greeting 0 60 5             (flags 0, for 60 seconds, 5 bytes; then)
//! hello
//! STORED
//! ```

use std::{collections::HashMap, rc::Rc, str::FromStr, time::UNIX_EPOCH};

use reactor::{Context, Error, Handler, Reactor};

const LARGEST: usize = (1 << 20) - 512; // a value
const MEMORY: usize = 64 << 20; // all keys and values
const BAD_LINE: &str = "CLIENT_ERROR bad command line format";
const BAD_DELETE: &str = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";
const BAD_EXPIRY: &str = "CLIENT_ERROR invalid exptime argument";
const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta argument";
const NO_NUMBER: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value";
const TOO_LARGE: &str = "SERVER_ERROR object too large for cache";

#[derive(Default)]
struct Cache {
    items: HashMap<Vec<u8>, Item>,
    used: usize,
    changes: u64,
    flush: Option<i64>, // when all items go
}

/// Flags, when it expires, the number of the change that made it (`cas`), the value.
#[derive(Clone, Default)]
struct Item(u32, i64, u64, Rc<Vec<u8>>);

/// What a client is in the middle of.
#[derive(Default)]
struct Session {
    line: Option<Vec<u8>>, // the command of the block under way
    value: Vec<u8>,
    keys: Vec<Vec<u8>>, // that are still to be answered
    with_cas: bool,
}

type Answer<T = String> = Result<T, &'static str>;

fn number<T: FromStr>(word: &[u8]) -> Answer<T> {
    str::from_utf8(word.trim_ascii_end()).ok().and_then(|w| w.parse().ok()).ok_or(BAD_LINE)
}

/// In seconds since 1970, as dates are told.
fn now() -> i64 {
    UNIX_EPOCH.elapsed().unwrap_or_default().as_secs() as i64
}

/// Never, so many seconds from now, or above 30 days a date.
fn expiry(word: &[u8]) -> Answer<i64> {
    let seconds = number::<i64>(word)?;
    let since = if seconds > 2_592_000 { 0 } else { now() };
    Ok(if seconds == 0 { i64::MAX } else { since.saturating_add(seconds) })
}

impl Cache {
    fn get(&mut self, key: &[u8]) -> Option<Item> {
        if self.flush.is_some_and(|when| when <= now()) {
            *self = Cache { changes: self.changes, ..Cache::default() };
        }
        self.items.get(key).filter(|item| item.1 > now()).cloned()
    }

    fn remove(&mut self, key: &[u8]) {
        let old = self.items.remove(key);
        self.used -= old.map_or(0, |old| key.len() + old.3.len());
    }

    fn put(&mut self, key: &[u8], value: Vec<u8>, Item(flags, expires, ..): Item) -> &'static str {
        self.remove(key);
        let size = key.len() + value.len();
        if value.len() > LARGEST || self.used + size > MEMORY {
            return "SERVER_ERROR out of memory storing object";
        }
        (self.used, self.changes) = (self.used + size, self.changes + 1);
        self.items.insert(key.to_vec(), Item(flags, expires, self.changes, Rc::new(value)));
        "STORED"
    }

    /// What to answer to a command. One that has a value comes again with that.
    fn run(&mut self, cx: &mut Context<'_, Session>, line: &[u8], value: &[u8]) -> Answer {
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let (verb, mut args) = (words.next().unwrap_or_default(), words.collect::<Vec<_>>());
        let quiet = args.pop_if(|word| *word == b"noreply").is_some();
        let key = args.first().copied().unwrap_or_default();
        let long = args.iter().any(|word| word.len() > 250);
        let old = self.get(key).ok_or("NOT_FOUND");
        Ok(match (verb, &args[..]) {
            (b"delete", [_, word]) if word != b"0" => BAD_DELETE.to_owned(),
            (_, [_, ..]) if long => Err(BAD_LINE)?,
            (b"delete", [_] | [_, _]) => {
                old.map(|_| self.remove(key))?;
                "DELETED".to_owned()
            }
            (b"touch", [_, time]) => {
                let (expires, old) = (expiry(time).or(Err(BAD_EXPIRY))?, old?);
                self.items.insert(key.to_vec(), Item(old.0, expires, old.2, old.3));
                "TOUCHED".to_owned()
            }
            (b"incr" | b"decr", [_, delta]) => {
                let (delta, old) = (number(delta).or(Err(BAD_DELTA))?, old?);
                let count = number::<u64>(&old.3).or(Err(NO_NUMBER))?;
                let less = count.saturating_sub(delta);
                let count = if verb == b"incr" { count.wrapping_add(delta) } else { less };
                self.put(key, format!("{count:<width$}", width = old.3.len()).into_bytes(), old);
                count.to_string()
            }
            (b"get" | b"gets", [_, ..]) => {
                cx.session().keys = args.iter().rev().map(|key| key.to_vec()).collect();
                cx.session().with_cas = verb == b"gets";
                self.on_drain(cx);
                String::new()
            }
            (b"set" | b"add" | b"replace" | b"append" | b"prepend", [_, flags, time, size])
            | (b"cas", [_, flags, time, size, _]) => {
                let size = number::<u32>(size)? as usize;
                let cas = number(args.get(4).unwrap_or(&&b"0"[..]))?;
                let new = Item(number(flags)?, expiry(time)?, cas, Rc::default());
                if value.is_empty() {
                    cx.take_block(size + 2);
                    cx.session().line = (size <= LARGEST).then(|| line.to_vec());
                    return if size <= LARGEST { Ok(String::new()) } else { Err(TOO_LARGE) };
                }
                let (value, end) = value.split_at(size);
                match (verb, old) {
                    _ if end != b"\r\n" => "CLIENT_ERROR bad data chunk",
                    (b"add", Ok(_)) | (b"replace" | b"append" | b"prepend", Err(_)) => "NOT_STORED",
                    (b"cas", Ok(old)) if old.2 != cas => "EXISTS",
                    (b"cas", Err(missing)) => missing,
                    (b"append", Ok(old)) => self.put(key, [&old.3[..], value].concat(), old),
                    (b"prepend", Ok(old)) => self.put(key, [value, &old.3].concat(), old),
                    _ => self.put(key, value.to_vec(), new),
                }
                .to_owned()
            }
            (b"flush_all", [] | [_]) => {
                let wait = args.first().map_or(Ok(0), |time| number(time).or(Err(BAD_EXPIRY)))?;
                self.flush = Some(now().saturating_add(wait));
                "OK".to_owned()
            }
            (b"verbosity", [] | [_]) if quiet || !args.is_empty() => "OK".to_owned(),
            (b"version", []) if !quiet => format!("VERSION {}", env!("CARGO_PKG_VERSION")),
            (b"stats", []) if !quiet => format!("STAT curr_items {}\r\nEND", self.items.len()),
            (b"quit", []) if !quiet => {
                cx.close();
                String::new()
            }
            _ => "ERROR".to_owned(),
        })
    }
}

impl Handler for Cache {
    type Session = Session;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        let value = std::mem::take(&mut cx.session().value);
        let answer = self.run(cx, line, &value).unwrap_or_else(str::to_owned);
        // What is no command at all says so even to those who want no reply.
        if !answer.is_empty() && (answer == "ERROR" || !line.ends_with(b" noreply")) {
            write!(cx, "{answer}\r\n");
        }
    }

    fn on_block(&mut self, cx: &mut Context<'_, Session>, piece: &[u8], end: bool) {
        // Without a command the value is too large, and passes.
        let Session { line: Some(_), value, .. } = cx.session() else { return };
        value.extend_from_slice(piece);
        if let Some(line) = cx.session().line.take_if(|_| end) {
            self.on_line(cx, &line);
        }
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Session>) {
        let done = cx.send_pieces(|session| {
            let key = session.keys.pop()?;
            let Some(Item(flags, _, cas, value)) = self.get(&key) else { return Some(Vec::new()) };
            let cas = if session.with_cas { format!(" {cas}") } else { String::new() };
            let head = format!(" {flags} {}{cas}\r\n", value.len());
            Some([b"VALUE ", &key[..], head.as_bytes(), &value, b"\r\n"].concat())
        });
        if done {
            cx.send("END\r\n");
        }
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:11211".to_owned());
    let mut reactor = Reactor::new()?;
    println!("listening on {}", reactor.listen(address, Cache::default())?);
    reactor.run().map(drop)
}
