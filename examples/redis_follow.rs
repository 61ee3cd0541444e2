//! Follows a stream of Redis and prints its entries. However often the server or the connection to it is
//! lost, every entry is printed once, in order.
//!
//! ```text
//! $ redis-server
//! $ cargo run --example redis_follow
//! $ cargo run --example redis_follow -- 127.0.0.1:6379 news 0     (where, which, and behind which ID)
//! $ redis-cli XADD news '*' greeting hello
//! $ printf 'XADD news * greeting hello\r\n' | nc 127.0.0.1 6379   (the same without redis-cli)
//! 1764343000123-0 greeting hello
//! ```

use std::cell::Cell;
use std::io::{Write as _, stdout};
use std::time::Duration;

use reactor::client::Redial;
use reactor::{
    CloseReason, Context, Error, Handler, Limits, Reactor, ServiceContext, TimerId, text,
};

/// The most bytes of an entry.
const LARGEST: usize = 16 << 20;
/// What passes by itself: the server reads its files, waits for another one, runs a script.
const PASSING: [&[u8]; 3] = [b"-LOADING ", b"-MASTERDOWN ", b"-BUSY "];

struct Follow<'a> {
    server: Redial,
    stream: Vec<u8>,
    /// The ID of the last entry that was printed: the one thing that outlives a connection.
    last: Vec<u8>,
    /// Why it cannot go on, for `main`.
    failure: &'a Cell<Option<String>>,
}

/// The reply to XREAD as far as it has come: `[[stream, [[ID, [field, value, ...]], ...]]]`.
#[derive(Default)]
struct Reply {
    /// How many elements of each array that is open are still to come, the outermost first.
    left: Vec<usize>,
    /// `ID field value field value`, as far as it goes.
    entry: Vec<u8>,
}

impl Follow<'_> {
    /// Asks for what is behind the last entry. Where there is nothing the server waits for it, but not
    /// for ever: from a server that says nothing one cannot tell that it is gone.
    fn ask(&self, cx: &mut Context<'_, Reply>) {
        let read = [&b"XREAD"[..], b"COUNT", b"100", b"BLOCK", b"5000", b"STREAMS"];
        write!(cx, "*{}\r\n", read.len() + 2);
        for word in read.into_iter().chain([&self.stream[..], &self.last]) {
            write!(cx, "${}\r\n", word.len());
            cx.send(word);
            cx.send("\r\n");
        }
    }

    /// A line begins an array or announces a text, each where it belongs.
    fn begin(&mut self, cx: &mut Context<'_, Reply>, line: &[u8]) -> Result<(), String> {
        let Reply { left, entry } = cx.session();
        let (kind, count) = line.split_at(line.len().min(1));
        match (kind, text::parse::<usize>(count), &left[..]) {
            // Streams, entries and fields, as many as there are.
            (b"*", Some(count), [] | [_, 1] | [_, _, _, 1]) => left.push(count),
            // A stream, an entry.
            (b"*", Some(2), [_] | [_, _, _]) => {
                left.push(2);
                entry.clear();
            }
            // The name of a stream, an ID, a field or a value.
            (b"$", Some(length), [_, 2] | [_, _, _, 2] | [_, _, _, _, _]) => {
                if !entry.is_empty() {
                    entry.push(b' ');
                }
                if length.saturating_add(entry.len()) > LARGEST {
                    return Err(format!("an entry of more than {LARGEST} bytes"));
                }
                cx.take_block(length + 2);
            }
            // Nothing came while the server waited.
            (b"*", _, []) if count == b"-1" => {
                self.server.reset();
                self.ask(cx);
            }
            (b"-", ..) if PASSING.iter().any(|error| line.starts_with(error)) => {
                eprintln!("{}: {}", self.server.address(), text::printable(&line[1..]));
                cx.close();
            }
            (b"-", ..) => return Err(text::printable(&line[1..])),
            _ => return Err(format!("no reply to XREAD: {}", text::printable(line))),
        }
        self.end_arrays(cx)
    }

    /// An array that is complete may complete the one that it is in.
    fn end_arrays(&mut self, cx: &mut Context<'_, Reply>) -> Result<(), String> {
        while cx.session().left.pop_if(|left| *left == 0).is_some() {
            match cx.session().left.len() {
                0 => {
                    self.server.reset();
                    self.ask(cx);
                }
                // The fields of an entry.
                4 => self.print(&cx.session().entry)?,
                _ => {}
            }
            cx.session().left.last_mut().into_iter().for_each(|left| *left -= 1);
        }
        Ok(())
    }

    /// Whoever reads the output slowly slows this down, which has nobody else to serve.
    fn print(&mut self, entry: &[u8]) -> Result<(), String> {
        let written = writeln!(stdout(), "{}", text::printable(entry));
        written.map_err(|error| format!("standard output: {error}"))?;
        self.last = text::command(entry).0.to_vec();
        Ok(())
    }

    fn go_on(&self, cx: &mut Context<'_, Reply>, outcome: Result<(), String>) {
        if let Err(why) = outcome {
            self.failure.set(Some(format!("{}: {why}", self.server.address())));
            cx.abort();
            cx.stop();
        }
    }
}

impl Handler for Follow<'_> {
    /// What came of a reply is forgotten with the connection, and asked for again on the next one.
    type Session = Reply;
    type Message = ();

    fn on_start(&mut self, cx: &mut ServiceContext<'_, Reply>) {
        self.server.start(cx);
    }
    fn on_open(&mut self, cx: &mut Context<'_, Reply>) {
        self.server.on_open(cx);
        self.ask(cx);
    }
    fn on_line(&mut self, cx: &mut Context<'_, Reply>, line: &[u8]) {
        let outcome = self.begin(cx, line);
        self.go_on(cx, outcome);
    }
    fn on_block(&mut self, cx: &mut Context<'_, Reply>, piece: &[u8], end: bool) {
        let Reply { left, entry } = cx.session();
        entry.extend_from_slice(piece);
        if end {
            let behind = entry.split_off(entry.len() - 2);
            left.last_mut().into_iter().for_each(|left| *left -= 1);
            let outcome = match &behind[..] {
                b"\r\n" => self.end_arrays(cx),
                _ => Err("no reply to XREAD: a text that is longer than announced".to_owned()),
            };
            self.go_on(cx, outcome);
        }
    }
    fn on_close(&mut self, cx: &mut Context<'_, Reply>, reason: CloseReason) {
        if let Some(delay) = self.server.on_close(cx) {
            eprintln!("{}: {reason}; dialling again in {delay:?}", self.server.address());
        }
    }
    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, Reply>, timer: TimerId) {
        self.server.on_service_timer(cx, timer);
    }
}

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let mut arg = |or: &str| args.next().unwrap_or(or.to_owned());
    let server = Redial::new(arg("127.0.0.1:6379"))?;
    let (stream, last) = (arg("news").into_bytes(), arg("0").into_bytes());
    let failure = Cell::new(None);
    let limits = Limits { idle_timeout: Some(Duration::from_secs(15)), ..Limits::default() };
    let mut reactor = Reactor::new()?;
    reactor.add(Follow { server, stream, last, failure: &failure }, limits)?;
    reactor.run()?;
    if let Some(why) = failure.take() {
        eprintln!("{why}");
        std::process::exit(1);
    }
    Ok(())
}
