//! One test for each bug that was found, seen to fail before it was mended. Add at the end.

use std::borrow::Cow;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use reactor::testing::Harness;
use reactor::{CloseReason, Context, Error, Exit, Farewell, Handler, Limits, Reactor};

const SECOND: Duration = Duration::from_secs(1);

/// A number asks for so many bytes for oneself, `!` and a number for so many for everybody else.
/// Half-closed clients stay.
struct Bytes;

impl Handler for Bytes {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        let text = str::from_utf8(line).unwrap();
        match text.strip_prefix('!') {
            Some(count) => cx.broadcast_to_others(vec![b'x'; count.parse().unwrap()]),
            None => {
                cx.send(vec![b'o'; text.parse().unwrap()]);
            }
        }
    }

    fn on_eof(&mut self, _cx: &mut Context<'_, ()>) {}
}

fn soft_limit() -> Limits {
    Limits { max_output: 1000, soft_output: 100, soft_output_for: 10 * SECOND, ..Limits::default() }
}

/// The soft limit was looked at only when more output came.
#[test]
fn a_slow_consumer_is_closed_in_time_even_if_nobody_says_anything_more() {
    let mut server = Harness::with_limits(Bytes, soft_limit());
    let (victim, other) = (server.connect(), server.connect());
    server.take_only(victim, Some(0));
    server.feed(other, "!101\n");
    server.advance(9 * SECOND);
    assert_eq!(server.closed(victim), None);
    server.advance(2 * SECOND);
    assert_eq!(server.closed(victim), Some(CloseReason::SlowConsumer));
}

/// What others had sent was remembered after it had left, and one's own replies taken for it.
#[test]
fn ones_own_replies_are_not_taken_for_what_others_sent_long_ago() {
    let mut server = Harness::with_limits(Bytes, soft_limit());
    let (victim, other) = (server.connect(), server.connect());
    server.feed(other, "!900\n");
    assert_eq!(server.sent(victim).len(), 900);
    server.take_only(victim, Some(0));
    server.feed(victim, "900\n");
    server.advance(60 * SECOND);
    server.take_only(victim, Some(1));
    assert_eq!(server.closed(victim), None);
}

/// Nothing was read any more after the end of input, so nobody found out.
#[test]
fn a_half_closed_connection_that_is_reset_ends() {
    let mut server = Harness::new(Bytes);
    let client = server.connect();
    server.end(client);
    assert_eq!(server.closed(client), None);
    server.reset(client);
    assert_eq!(server.closed(client), Some(CloseReason::Error(ErrorKind::ConnectionReset)));
}

struct NoLastWords;

impl Handler for NoLastWords {
    type Session = ();
    type Message = ();

    fn farewell(&self, _why: Farewell, _limits: &Limits) -> Cow<'static, [u8]> {
        panic!("on purpose")
    }
}

/// It was caught, but neither logged nor counted.
#[test]
fn a_panic_in_farewell_is_counted() {
    let mut server = Harness::new(NoLastWords);
    let client = server.connect();
    server.feed(client, vec![b'x'; 100_000]);
    assert_eq!(server.closed(client), Some(CloseReason::LineTooLong));
    assert_eq!(server.counters().panics, 1);
}

/// It took newcomers, listeners too, until its next turn.
#[test]
fn after_stop_nothing_new_begins() {
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.listen("127.0.0.1:0", Bytes).unwrap();
    reactor.stop();
    let refused = |error| matches!(error, Some(Error::ShuttingDown));
    assert!(refused(reactor.listen("127.0.0.1:0", Bytes).err()));
    assert!(refused(reactor.add(Bytes, Limits::default()).err()));
    assert!(refused(reactor.bind(&service, "127.0.0.1:0").err()));
    assert!(refused(reactor.connect(&service, "127.0.0.1:1").err()));
    assert_eq!(reactor.run().unwrap(), Exit::Clean);
}

/// It waited for events that could not come any more.
#[test]
fn running_what_has_ended_ends_at_once() {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        reactor.listen("127.0.0.1:0", Bytes).unwrap();
        reactor.stop();
        for _ in 0..2 {
            tell.send(reactor.run().unwrap()).unwrap();
        }
    });
    for _ in 0..2 {
        assert_eq!(told.recv_timeout(10 * SECOND), Ok(Exit::Clean));
    }
}

/// Asks for a shutdown and takes its time over it.
struct Slow;

impl Handler for Slow {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, _line: &[u8]) {
        cx.send(vec![b'x'; 16 * 1024 * 1024]);
        cx.stop();
        std::thread::sleep(Duration::from_millis(3100));
    }
}

/// The time for it was counted from the beginning of the turn that asked for it.
#[test]
fn a_shutdown_has_all_its_time_even_after_a_long_turn() {
    let mut reactor = Reactor::new().unwrap();
    reactor.set_shutdown_timeout(Duration::from_secs(3));
    let service = reactor.listen("127.0.0.1:0", Slow).unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", service.port())).unwrap();
    client.write_all(b"stop\n").unwrap();
    while reactor.counters().lines_in == 0 {
        reactor.turn(None).unwrap();
    }
    let reading = std::thread::spawn(move || client.read_to_end(&mut Vec::new()).unwrap());
    assert_eq!(reactor.run().unwrap(), Exit::Clean);
    assert_eq!(reading.join().unwrap(), 16 * 1024 * 1024);
}

/// Replies at length and closes.
struct Lecture;

impl Handler for Lecture {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, _line: &[u8]) {
        cx.send(vec![b'x'; 500_000]);
        cx.close();
    }
}

/// Held back and closing at once, it forgot to shut its side when all went out in one go; the
/// client waited for the end until the flush timeout took it for stalled.
#[test]
fn a_closing_connection_that_was_held_back_ends_when_its_output_has_left() {
    let mut server = Harness::new(Lecture);
    let client = server.connect();
    server.take_only(client, Some(1));
    server.feed(client, "go on\n");
    assert!(!server.is_shut(client));
    server.take_only(client, None);
    assert_eq!(server.sent(client).len(), 500_000);
    assert!(server.is_shut(client));
    assert_eq!(server.closed(client), Some(CloseReason::Closed));
}
