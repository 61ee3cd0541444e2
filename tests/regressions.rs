//! One test for each bug that was found; each was seen to fail first.

mod util;

use std::cell::RefCell;
use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use reactor::testing::{Fault, Harness};
use reactor::{Callbacks, CloseReason, Context, Handler, Limits, Reactor, ServiceContext, TimerId};
use util::{Client, PATIENCE, Server};

/// Turns for a moment, until it is so.
fn turn_until(reactor: &mut Reactor<'_>, so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while !so() && std::time::Instant::now() < deadline {
        reactor.turn(Some(Duration::from_millis(20))).unwrap();
    }
}

/// A server that greets at once may have done so before the loop notices that the connection is
/// there: one edge for both, and no second one for the greeting.
#[test]
fn a_greeting_on_the_edge_of_the_connect_is_not_lost() {
    let lines = RefCell::new(Vec::new());
    let mut reactor = Reactor::new().unwrap();
    let dialler = Callbacks::new().on_line(|_, line| lines.borrow_mut().push(line.to_vec()));
    let service = reactor.add(dialler, Limits::default()).unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    reactor.connect(&service, listener.local_addr().unwrap()).unwrap();
    let (mut greeter, _) = listener.accept().unwrap();
    greeter.write_all(b"hello\n").unwrap();

    turn_until(&mut reactor, || !lines.borrow().is_empty());
    assert_eq!(*lines.borrow(), [b"hello"]);
}

/// The bound on a turn's output was shared by all services, so that the first one could use it
/// up in every turn, and the second one was never served.
#[test]
fn a_service_that_fills_the_turns_output_does_not_starve_the_next_one() {
    let order = RefCell::new(String::new());
    let big = vec![b'x'; 300 * 1024];
    let mut reactor = Reactor::new().unwrap();
    let limits = Limits { high_water: 1 << 30, ..Limits::default() };
    let loud = Callbacks::new().on_line(|cx, _| {
        order.borrow_mut().push('L');
        cx.send(&big);
    });
    let loud = reactor.listen_with("127.0.0.1:0", loud, limits).unwrap();
    let quiet = Callbacks::new().on_line(|_, _| order.borrow_mut().push('q'));
    let quiet = reactor.listen("127.0.0.1:0", quiet).unwrap();

    let addr = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(addr(loud.port()))).collect();
    clients.push(Client::connect(addr(quiet.port())));
    while reactor.counters().accepted < 21 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    clients.iter_mut().for_each(|client| client.send("line\n"));

    turn_until(&mut reactor, || order.borrow().len() == 21);
    let place = order.borrow().find('q').expect("the quiet one was never served");
    assert!(place <= 2, "{place} of the loud service went before: {}", order.borrow());
}

/// Tells of the end of input and of the connection, and stays open after the former.
struct HalfOpen(Sender<Option<CloseReason>>);

impl Handler for HalfOpen {
    type Session = ();
    type Message = ();

    fn on_eof(&mut self, _: &mut Context<'_, ()>) {
        self.0.send(None).unwrap();
    }

    fn on_close(&mut self, _: &mut Context<'_, ()>, reason: CloseReason) {
        self.0.send(Some(reason)).unwrap();
    }
}

/// After the end of input nothing is read any more, so nothing found out that the client was
/// gone for good: the connection stayed for ever.
#[test]
fn a_reset_after_the_end_of_input_ends_the_connection() {
    let (tell, told) = mpsc::channel();
    let server = Server::start(Limits::default(), || HalfOpen(tell));
    let client = server.connect();
    client.end();
    assert_eq!(told.recv_timeout(PATIENCE), Ok(None));
    client.reset();
    let reason = told.recv_timeout(Duration::from_secs(5));
    assert!(matches!(reason, Ok(Some(CloseReason::Error(_)))), "{reason:?}");
}

/// Lines, but for as many raw bytes as a message says.
#[derive(Default)]
struct Mixed {
    raw: usize,
    lines: Vec<String>,
    /// Looks at the lines without taking any.
    peek: bool,
}

impl Handler for Mixed {
    type Session = ();
    type Message = usize;

    fn on_message(&mut self, _: &mut ServiceContext<'_, ()>, raw: usize) {
        self.raw = raw;
    }

    fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        let raw = std::mem::take(&mut self.raw).min(bytes.len());
        let mut lines = cx.lines(&bytes[raw..]);
        let mut seen = Vec::new();
        while let Some(line) = lines.next(cx) {
            seen.push(String::from_utf8_lossy(line).into_owned());
        }
        if self.peek {
            return 0;
        }
        self.lines.append(&mut seen);
        raw + lines.taken()
    }
}

/// What an earlier search found to hold no LF was counted from the front of the rest, although
/// bytes before it had been taken: an LF in what followed was overlooked.
#[test]
fn lines_of_a_rest_are_searched_from_where_the_search_ended() {
    let mut server = Harness::new(Mixed::default());
    let client = server.connect();
    server.feed(client, "0123456789");
    server.post(4);
    server.feed(client, "ab\n");
    server.feed(client, "cd\n");
    assert_eq!(server.handler().lines, ["456789ab", "cd"]);
}

/// The end of a search was remembered even where the handler took something else than what the
/// lines had taken.
#[test]
fn a_look_at_the_lines_that_takes_none_spoils_nothing() {
    let mut server = Harness::new(Mixed { peek: true, ..Mixed::default() });
    let client = server.connect();
    server.feed(client, "a\nbcd");
    server.handler().peek = false;
    server.feed(client, "e\n");
    assert_eq!(server.handler().lines, ["a", "bcde"]);
}

/// A connection whose last reply was above the high-water mark was let go on reading when that
/// had been sent, instead of being shut: the client waited for the end until the flush timeout.
#[test]
fn a_close_after_a_reply_above_the_high_water_mark_ends_the_output() {
    let answer = Callbacks::new().on_line(|cx, _| {
        cx.send(vec![b'x'; 300 * 1024]);
        cx.close();
    });
    let mut server = Harness::new(answer);
    let client = server.connect();
    server.feed(client, "get\n");
    assert_eq!(server.sent(client).len(), 300 * 1024);
    assert!(server.is_shut(client));
    assert_eq!(server.closed(client), Some(CloseReason::Closed));
}

/// Broadcasts 64 KiB a hundred times, all due at the same moment.
struct Burst;

impl Handler for Burst {
    type Session = ();
    type Message = ();

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, (): ()) {
        for _ in 0..100 {
            cx.set_service_timer(Duration::from_secs(1));
        }
    }

    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, ()>, _: TimerId) {
        cx.broadcast(vec![b'x'; 64 * 1024]);
    }
}

/// What one turn may write to a connection was less than what the timers and messages of one turn
/// could have for it. The rest was above the limit, and a client that took all it was given was
/// closed as a slow consumer.
#[test]
fn who_takes_all_it_is_given_is_no_slow_consumer() {
    let mut server = Harness::new(Burst);
    let client = server.connect();
    // As a kernel does: not all at once, but always more.
    server.disturb(client, [], [Fault::Short(64 * 1024); 200]);
    server.post(());
    server.jump(Duration::from_secs(1));
    assert_eq!(server.closed(client), None);
    assert_eq!(server.sent(client).len(), 100 * 64 * 1024);
}
