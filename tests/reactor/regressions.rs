//! One test for each bug that was found, seen to fail before it was mended. Add at the end.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use reactor::services::Echo;
use reactor::testing::{Fault, Harness};
use reactor::{
    Callbacks, CloseReason, Context, Error, Exit, Farewell, Handler, Limits, Reactor,
    ServiceContext, TimerId,
};

use crate::util::{self, Client, PATIENCE, Server};

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
    let mut server = Harness::new(NoLastWords).catching_panics();
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
        assert_eq!(told.recv_timeout(PATIENCE), Ok(Exit::Clean));
    }
}

/// Turns until it is so, or until there is no hope.
fn turn_until(reactor: &mut Reactor<'_>, so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
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
    let reason = told.recv_timeout(PATIENCE);
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
    server.handler_mut().peek = false;
    server.feed(client, "e\n");
    assert_eq!(server.handler().lines, ["a", "bcde"]);
}

/// `reactor.run()?;`, as the documentation writes it, warned of an unused `Exit`: whoever copied
/// the first example began with a warning. The lint is the test.
#[test]
#[deny(unused_must_use)]
fn running_needs_no_more_than_a_question_mark() -> Result<(), Error> {
    let mut reactor = Reactor::new()?;
    reactor.stop();
    reactor.run()?;
    Ok(())
}

/// Pauses at every line; a message is the answer to the one before, and goes on.
struct Offload;

impl Handler for Offload {
    type Session = ();
    type Message = usize;

    fn on_line(&mut self, cx: &mut Context<'_, ()>, _line: &[u8]) {
        cx.pause();
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, bytes: usize) {
        let all: Vec<_> = cx.connections().map(|(id, _)| id).collect();
        for id in all {
            cx.reply_to(id, vec![b'x'; bytes]);
            cx.connection(id).unwrap().resume();
        }
    }
}

/// An answer from another thread counted as caused by others: whoever asked much and did not
/// read was closed as a slow consumer instead of being held back.
#[test]
fn who_does_not_read_answers_from_a_thread_is_held_back_and_not_closed() {
    let limits = Limits::default();
    let most = limits.max_output;
    let mut server = Harness::with_limits(Offload, limits);
    let client = server.connect();
    server.take_only(client, Some(0));
    server.feed(client, "one\ntwo\n");
    server.post(2 * most);
    server.post(10);
    assert_eq!(server.counters().lines_in, 1, "it is held back");
    server.take_only(client, None);
    assert_eq!(server.sent(client).len(), 2 * most + 10);
    assert_eq!((server.counters().lines_in, server.closed(client)), (2, None));
}

/// A client whose answer took longer than the idle timeout was blamed for the silence.
#[test]
fn a_paused_connection_is_not_idle() {
    let limits = Limits { idle_timeout: Some(SECOND), ..Limits::default() };
    let mut server = Harness::with_limits(Offload, limits);
    let client = server.connect();
    server.feed(client, "think\n");
    server.advance(10 * SECOND);
    assert_eq!(server.closed(client), None);
    server.post(1);
    server.advance(SECOND / 2);
    assert_eq!(server.closed(client), None);
    server.advance(SECOND);
    assert_eq!(server.closed(client), Some(CloseReason::IdleTimeout));
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
}

/// Asks for a shutdown and takes its time over it.
struct Slow;

impl Handler for Slow {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, _line: &[u8]) {
        cx.send(vec![b'x'; 8 * 1024 * 1024]);
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
    assert_eq!(reading.join().unwrap(), 8 * 1024 * 1024);
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

/// Panics when it is made for the second client, and when it is dropped for any other.
struct Touchy(bool);

thread_local! {
    static MADE: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

impl Default for Touchy {
    fn default() -> Self {
        MADE.set(MADE.get() + 1);
        assert!(MADE.get() != 2, "no second one");
        Touchy(true)
    }
}

impl Drop for Touchy {
    fn drop(&mut self) {
        assert!(!self.0, "dropped");
    }
}

/// The hooks were guarded, but not the making and dropping of a session: a panic there ended the
/// loop and everybody with it.
#[test]
fn a_panic_in_making_or_dropping_a_session_ends_that_connection_only() {
    let server = Server::start(Limits::default(), || {
        Callbacks::<Touchy>::with_session().on_line(|cx, _| {
            cx.send("ok\n");
        })
    });
    let mut first = server.connect();
    first.send("x\n");
    first.expect("ok\n");
    assert_eq!(server.connect().rest(), b"");
    let third = server.connect();
    drop(first);
    let mut fourth = server.connect();
    fourth.send("x\n");
    fourth.expect("ok\n");
    drop((third, fourth));
    let (exit, counters) = server.stop();
    assert_eq!((exit, counters.panics, counters.open), (Exit::Clean, 4, 0));
}

/// Sets a timer where it begins to listen, and dials there.
#[derive(Default)]
struct Starter(Vec<&'static str>);

impl Handler for Starter {
    type Session = ();
    type Message = ();

    fn on_listening(&mut self, cx: &mut ServiceContext<'_, ()>, _: &reactor::Address) {
        cx.set_service_timer(SECOND);
        cx.connect("127.0.0.1:1", ()).unwrap();
        self.0.push("listening");
    }

    fn on_service_timer(&mut self, _: &mut ServiceContext<'_, ()>, _: TimerId) {
        self.0.push("timer");
    }

    fn on_open(&mut self, _: &mut Context<'_, ()>) {
        self.0.push("open");
    }
}

/// The harness never called the hook that the documentation names for starting things, and could
/// not dial from outside.
#[test]
fn the_harness_starts_a_handler_as_the_reactor_does() {
    let mut server = Harness::new(Starter::default());
    let [(_, dialled)] = server.dialled()[..] else { panic!("not dialled") };
    server.answer(dialled);
    let from_outside = server.dial();
    server.refuse(from_outside, ErrorKind::ConnectionRefused);
    server.advance(SECOND);
    assert_eq!(server.handler().0, ["listening", "open", "timer"]);
    let refused = CloseReason::Error(ErrorKind::ConnectionRefused);
    assert_eq!(server.closed(from_outside), Some(refused));
}

/// Takes one byte a call; at `!`, more than there is.
#[derive(Default)]
struct ByteByByte(usize);

impl Handler for ByteByByte {
    type Session = ();
    type Message = ();

    fn on_bytes(&mut self, _: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        self.0 += 1;
        if bytes[0] == b'!' { bytes.len() + 5 } else { 1 }
    }
}

/// More than there is was taken to mean all of it, which lost the place in the stream silently.
#[test]
fn taking_more_than_there_is_counts_as_a_panic() {
    let mut server = Harness::new(ByteByByte::default()).catching_panics();
    let client = server.connect();
    server.feed(client, "a!b");
    assert_eq!(server.closed(client), Some(CloseReason::Panicked));
    assert_eq!((server.handler().0, server.counters().panics), (2, 1));
}

/// The share of a turn counted lines only: a protocol without lines had it all.
#[test]
fn calls_without_lines_have_a_share_of_the_turn_too() {
    let limits = Limits { lines_per_turn: 10, ..Limits::default() };
    let mut server = Harness::with_limits(ByteByByte::default(), limits);
    let client = server.connect();
    let turns = server.counters().turns;
    server.feed(client, vec![b'x'; 1000]);
    assert_eq!(server.handler().0, 1000);
    assert!(server.counters().turns - turns >= 100, "{}", server.counters().turns - turns);
}

/// While the reactor's value lived on, messages were taken after its end and never looked at.
#[test]
fn what_is_posted_after_the_end_comes_back() {
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.add(Callbacks::new(), Limits::default()).unwrap();
    reactor.stop();
    reactor.run().unwrap();
    assert_eq!(service.handle().post(()), Err(()));
}

/// Looks through lines for an empty one, and takes none before it is there.
struct Peek;

impl Handler for Peek {
    type Session = ();
    type Message = ();

    fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        let mut lines = cx.lines(bytes);
        while let Some(line) = lines.next(cx) {
            if line.is_empty() {
                cx.send("found\n");
                return lines.taken();
            }
        }
        0
    }
}

/// Two kilobytes of short lines used up the turn's share without any being taken; the connection
/// was put on the ready list again with nothing new to see, and the loop ran at full speed.
#[test]
fn looking_at_a_turns_share_of_lines_without_taking_any_does_not_spin() {
    let mut server = Harness::new(Peek);
    let client = server.connect();
    let turns = server.counters().turns;
    server.feed(client, "a\n".repeat(1100));
    assert!(server.counters().turns - turns < 5);
    server.feed(client, "\n".repeat(64 * 1024));
    assert_eq!(server.closed(client), Some(CloseReason::LineTooLong));
}

/// Deadlines fired before what had already come was worked off: after a pause of the machine,
/// clients whose lines were waiting in the sockets were closed for being idle.
#[test]
fn nobody_is_idle_whose_input_waits_for_us() {
    let _quiet = util::quiet();
    let limits = Limits { idle_timeout: Some(2 * SECOND), ..Limits::default() };
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.listen_with("127.0.0.1:0", Callbacks::new(), limits).unwrap();
    let addr = service.address().unwrap().as_socket().unwrap();
    // More than are served in one turn.
    let mut clients: Vec<_> = (0..400).map(|_| Client::connect(addr)).collect();
    while reactor.counters().accepted < 400 {
        reactor.turn(Some(SECOND / 100)).unwrap();
    }
    clients.iter_mut().for_each(|client| client.send("x\n"));
    std::thread::sleep(SECOND * 5 / 2); // The machine's pause, and no waiting for anything.
    for _ in 0..4 {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    let counters = reactor.counters();
    assert_eq!((counters.lines_in, counters.closed(CloseReason::IdleTimeout)), (400, 0));
}

/// As above, for a client that had just made room for the rest of its last reply.
#[test]
fn nobody_has_stalled_who_made_room_while_we_were_away() {
    let limits = Limits { flush_timeout: SECOND, ..Limits::default() };
    let big = Callbacks::new().on_line(|cx, _| {
        cx.send(vec![b'x'; 1024]);
        cx.close();
    });
    let mut server = Harness::with_limits(big, limits);
    let client = server.connect();
    server.take_only(client, Some(24));
    server.feed(client, "get\n");
    server.jump_with(2 * SECOND, |server| server.take_only(client, None));
    assert_eq!(server.sent(client).len(), 1024);
    assert_eq!(server.closed(client), Some(CloseReason::Closed));
}

/// The kernel stops a read at urgent data (telnet's interrupt sends some). The read was short and
/// taken for all there was; what followed on the same edge waited for ever. Later the urgent byte
/// itself was missing, which the kernel keeps apart unless it is told not to.
#[test]
#[cfg(target_os = "linux")]
fn urgent_data_and_what_follows_it_are_read() {
    const MSG_OOB: i32 = 1;
    let lines: RefCell<Vec<Vec<u8>>> = RefCell::default();
    let note = |line: &[u8]| lines.borrow_mut().push(line.to_vec());
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut reactor = Reactor::new().unwrap();
    let handler = Callbacks::new().on_line(|_, line| note(line));
    let service = reactor.listen("127.0.0.1:0", handler).unwrap();
    // One that is accepted, and one that is dialled.
    reactor.connect(&service, peer.local_addr().unwrap()).unwrap();
    let client = TcpStream::connect(service.address().unwrap().as_socket().unwrap()).unwrap();
    while reactor.counters().open < 2 {
        reactor.turn(Some(SECOND / 20)).unwrap();
    }
    for stream in [client, peer.accept().unwrap().0] {
        let socket = socket2::SockRef::from(&stream);
        socket.send(b"hello\nab").unwrap();
        socket.send_with_flags(b"\xf2", MSG_OOB).unwrap();
        socket.send(b"cd\n").unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        while lines.borrow().len() < 2 {
            reactor.turn(Some(SECOND / 20)).unwrap();
            assert!(std::time::Instant::now() < deadline, "the second line was not read");
        }
        assert_eq!(lines.take(), [&b"hello"[..], b"ab\xf2cd"]);
    }
}

/// A very long timeout was cut to its low 64 bits, and the client closed at once.
#[test]
fn a_timeout_of_a_billion_years_is_not_zero() {
    let forever = Duration::from_secs(1 << 55);
    let limits = Limits { idle_timeout: Some(forever), ..Limits::default() };
    let mut server = Harness::with_limits(Peek, limits);
    let client = server.connect();
    server.advance(SECOND);
    assert_eq!(server.closed(client), None);
}

/// Dials, and sets a timer before anybody has answered.
#[derive(Default)]
struct Impatient(bool);

impl Handler for Impatient {
    type Session = ();
    type Message = ();

    fn on_listening(&mut self, cx: &mut ServiceContext<'_, ()>, _: &reactor::Address) {
        let id = cx.connect("127.0.0.1:1", ()).unwrap();
        cx.connection(id).unwrap().set_timer(SECOND);
    }

    fn on_timer(&mut self, _: &mut Context<'_, ()>, _: TimerId) {
        self.0 = true;
    }
}

/// A timer that came due before the connection was there was swallowed.
#[test]
fn a_timer_of_a_connection_that_is_being_dialled_fires() {
    let mut server = Harness::new(Impatient::default());
    server.advance(2 * SECOND);
    assert!(server.handler().0);
}

/// Lingering connections were not counted anywhere: clients that said goodbye and stayed held as
/// many descriptors as they liked, far above the limit of connections.
#[test]
fn who_lingers_makes_room_for_newcomers() {
    let limits = Limits { max_connections: 5, linger: PATIENCE, ..Limits::default() };
    let goodbye = || Callbacks::new().on_connection(|cx| cx.close());
    let server = Server::start(limits, goodbye);
    let mut stay = Vec::new();
    for _ in 0..20 {
        let mut client = server.connect();
        assert_eq!(client.rest(), b"");
        stay.push(client);
    }
    // The oldest are cut; the others linger until they close too.
    for client in stay.iter_mut().take(15) {
        util::until("the server is gone", || client.stream.write(b"x").is_err());
    }
    let (exit, counters) = server.stop();
    assert_eq!((exit, counters.accepted, counters.refused), (Exit::Clean, 20, 0));
}

/// A broadcast counted as one line and its bytes once: a few kilobytes from one client could make
/// one turn of hundreds of thousands of copies, and everybody else waited for its end.
#[test]
fn a_flood_of_broadcasts_is_spread_over_turns() {
    let room = Callbacks::new().on_line(|cx, line| cx.broadcast(line));
    let mut server = Harness::new(room);
    let clients: Vec<_> = (0..2000).map(|_| server.connect()).collect();
    let turns = server.counters().turns;
    server.feed(clients[0], "a\n".repeat(1000));
    let turns = server.counters().turns - turns;
    assert!(turns >= 2000 * 1000 / (300 * 1024), "{turns} turns");
    assert!(clients.iter().all(|client| server.sent(*client).len() == 1000));
}

/// Any byte that left counted as progress: who took one every 29 s of what it was owed kept its
/// place and its output for years.
#[test]
fn a_closing_connection_that_takes_next_to_nothing_is_stalled() {
    let goodbye = Callbacks::new().on_line(|cx, _| {
        cx.send(vec![b'x'; 100_000]);
        cx.close();
    });
    let mut server = Harness::new(goodbye);
    let client = server.connect();
    server.take_only(client, Some(0));
    server.feed(client, "go\n");
    let mut time = 0;
    while server.closed(client).is_none() {
        assert!(time < 100, "still there after {time} s");
        server.advance(29 * SECOND);
        server.take_only(client, Some(1));
        time += 29;
    }
    assert_eq!(server.closed(client), Some(CloseReason::Stalled));
}

/// An assertion in a hook failed, and the test passed.
#[test]
#[should_panic(expected = "a hook of the handler panicked")]
fn a_panic_in_a_hook_fails_the_test_in_the_harness() {
    let mut server = Harness::new(ByteByByte::default());
    let client = server.connect();
    server.feed(client, "!");
}

/// Pauses at the second line.
struct Thinker;

impl Handler for Thinker {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        if line == b"2" {
            cx.pause();
        }
    }
}

/// A reset that was told of while there was input left to handle was forgotten where a hook then
/// paused the connection: nobody read on to find it, and no second event came. What is left is for
/// the handler, if it goes on in time.
#[test]
fn a_reset_just_before_a_pause_is_noticed() {
    let limits = Limits { lines_per_turn: 1, ..Limits::default() };
    let mut server = Harness::with_limits(Thinker, limits).by_hand();
    let client = server.connect();
    server.feed(client, "1\n2\n3\n");
    assert!(server.turn());
    server.reset(client);
    while server.turn() {}
    server.jump(Limits::default().flush_timeout - SECOND);
    while server.turn() {}
    assert_eq!(server.closed(client), None);
    server.jump(SECOND);
    while server.turn() {}
    let reset = CloseReason::Error(ErrorKind::ConnectionReset);
    assert_eq!(server.closed(client), Some(reset));
}

/// Time that a line waited for its turn counted as the client's silence.
#[test]
fn what_waits_for_its_turn_does_not_make_a_client_idle() {
    let limits = Limits { lines_per_turn: 1, idle_timeout: Some(10 * SECOND), ..Limits::default() };
    let mut server = Harness::with_limits(Callbacks::new().on_line(|_, _| {}), limits).by_hand();
    let client = server.connect();
    server.feed(client, "1\n2\n");
    assert!(server.turn());
    server.jump(9 * SECOND);
    while server.turn() {}
    server.jump(9 * SECOND);
    while server.turn() {}
    assert_eq!(server.closed(client), None);
    server.jump(SECOND);
    while server.turn() {}
    assert_eq!(server.closed(client), Some(CloseReason::IdleTimeout));
}

/// Of the addresses of `localhost` the first alone was bound.
#[test]
fn a_host_is_listened_on_at_all_its_addresses_or_at_none() {
    #[derive(Default)]
    struct Places(std::rc::Rc<RefCell<Vec<String>>>);

    impl Handler for Places {
        type Session = ();
        type Message = ();

        fn on_listening(&mut self, _: &mut ServiceContext<'_, ()>, address: &reactor::Address) {
            self.0.borrow_mut().push(address.to_string());
        }
    }

    let told = std::rc::Rc::<RefCell<Vec<String>>>::default();
    let places = || Places(std::rc::Rc::clone(&told));
    let host = |port, ips: &[&str]| {
        let addresses = ips.iter().map(|ip| std::net::SocketAddr::new(ip.parse().unwrap(), port));
        reactor::Address::from(reactor::Host::new("several.test", port).found_at(addresses))
    };
    let mut reactor = Reactor::new().unwrap();
    // The second is for documentation: nobody has it.
    let service =
        reactor.listen(host(0, &["127.0.0.1", "203.0.113.1", "127.0.0.2"]), places()).unwrap();
    let (bound, port) = (service.address().unwrap().clone(), service.port());
    assert_eq!(bound.to_string(), format!("several.test:{port}"));
    let wanted = [format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}")];
    assert_eq!(*told.borrow(), wanted);
    assert_eq!(bound.as_sockets().iter().map(ToString::to_string).collect::<Vec<_>>(), wanted);
    for addr in bound.as_sockets() {
        TcpStream::connect(addr).unwrap();
    }

    // One that is taken is an error, with the host's name, and leaves nothing behind.
    let taken = reactor.listen(host(port, &["127.0.0.3", "127.0.0.2"]), places()).unwrap_err();
    let taken = taken.to_string();
    let words = format!("cannot listen on several.test:{port}: 127.0.0.2: the port is in use");
    assert!(taken.starts_with(&words), "{taken}");
    TcpListener::bind(("127.0.0.3", port)).unwrap();
    let nowhere = reactor.listen(host(0, &["203.0.113.1", "203.0.113.2"]), places()).unwrap_err();
    let nowhere = nowhere.to_string();
    assert!(nowhere.starts_with("cannot listen on several.test:0: this machine has"), "{nowhere}");
}

/// Notes its lines and whether the answer was taken; pauses at `rest` until a message comes.
#[derive(Default)]
struct Noted(Vec<String>);

impl Handler for Noted {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send("hello\n");
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        let line = String::from_utf8(line.to_vec()).unwrap();
        if line == "rest" {
            cx.pause();
        }
        let sent = cx.send(&line);
        self.0.push(format!("{line} {sent}"));
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, (): ()) {
        let all: Vec<_> = cx.connections().map(|(id, _)| id).collect();
        all.into_iter().for_each(|id| cx.connection(id).unwrap().resume());
    }
}

/// A client whose greeting fails with this error, after it has sent these bytes and ended.
fn unheard(
    error: ErrorKind,
    limits: Limits,
    bytes: &str,
) -> (Harness<Noted>, reactor::testing::Client) {
    let mut server = Harness::with_limits(Noted::default(), limits).by_hand();
    let client = server.connect();
    server.disturb(client, [], [Fault::Error(error)]);
    server.feed(client, bytes);
    server.end(client);
    while server.turn() {}
    (server, client)
}

/// A write that failed, of the greeting for instance, hid what the client had sent before it left.
#[test]
fn what_came_before_a_failed_write_is_handled() {
    for (error, last) in
        [(ErrorKind::ConnectionReset, None), (ErrorKind::BrokenPipe, Some("4 false"))]
    {
        // In many turns, so that the error comes first.
        let limits = Limits { lines_per_turn: 1, ..Limits::default() };
        let (server, client) = unheard(error, limits, "1\n2\n3\n4");
        // A socket that breaks after the other side's end says so: then it is one.
        let all: Vec<_> = ["1 true", "2 false", "3 false"].into_iter().chain(last).collect();
        assert_eq!(server.handler().0, all);
        assert_eq!(server.closed(client), Some(CloseReason::Error(error)));
        assert_eq!(server.left_over(), (0, 0));
    }
}

/// The same, where the handler or a rate makes it wait.
#[test]
fn what_came_before_a_failed_write_waits_for_its_turn() {
    let reset = ErrorKind::ConnectionReset;
    for in_time in [true, false] {
        let (mut server, client) = unheard(reset, Limits::default(), "rest\n2\n");
        server.advance(Limits::default().flush_timeout - SECOND);
        assert_eq!(server.closed(client), None);
        if in_time {
            server.post(());
            while server.turn() {}
        }
        server.advance(SECOND);
        assert_eq!(server.closed(client), Some(CloseReason::Error(reset)));
        assert_eq!(server.handler().0.len(), if in_time { 2 } else { 1 });
        assert_eq!(server.left_over(), (0, 0));
    }
    let rate = reactor::Rate { per_second: 1, burst: 1 }.into();
    let (mut server, client) = unheard(reset, Limits { rate, ..Limits::default() }, "1\n2\n3\n");
    server.advance(3 * SECOND);
    assert_eq!(server.handler().0.len(), 3);
    assert_eq!(server.closed(client), Some(CloseReason::Error(reset)));
}

/// As the last, with a reset that the selector tells of.
#[test]
fn what_came_before_a_reset_is_handled_at_its_rate() {
    let rate = reactor::Rate { per_second: 1, burst: 1 }.into();
    let mut server =
        Harness::with_limits(Noted::default(), Limits { rate, ..Limits::default() }).by_hand();
    let client = server.connect();
    server.feed(client, "1\n2\n3\n");
    while server.turn() {}
    server.reset(client);
    server.advance(3 * SECOND);
    assert_eq!(server.handler().0.len(), 3);
    assert_eq!(server.closed(client), Some(CloseReason::Error(ErrorKind::ConnectionReset)));
    assert_eq!(server.left_over(), (0, 0));
}

/// Nobody's end is without a word for the others, and one such word is all that a turn has room for.
struct Obituaries;

impl Handler for Obituaries {
    type Session = ();
    type Message = ();

    fn on_close(&mut self, cx: &mut Context<'_, ()>, _: CloseReason) {
        cx.broadcast(vec![b'x'; 300 * 1024]);
    }
}

/// A connection whose report waited for the next turn was reported with how its lingering ended
/// instead: those that idled out together had mostly "closed".
#[test]
fn who_ends_while_its_report_waits_keeps_its_reason() {
    let limits = Limits { idle_timeout: Some(10 * SECOND), ..Limits::default() };
    let mut server = Harness::with_limits(Obituaries, limits).by_hand();
    let idle = [(); 3].map(|()| server.connect());
    while server.turn() {}
    server.jump(5 * SECOND);
    let listener = server.connect();
    while server.turn() {}
    server.jump(5 * SECOND);
    assert!(server.turn());
    assert_eq!(server.counters().closed(CloseReason::IdleTimeout), 1, "the others wait");
    idle.iter().for_each(|client| server.end(*client));
    while server.turn() {}
    assert_eq!(server.counters().closed(CloseReason::IdleTimeout), 3);
    assert_eq!(server.sent(listener).len(), 3 * 300 * 1024);
}

/// What a pipe held failed again when our side ended, and the pipe took the error, of which it had
/// told, for one that nobody knew.
#[test]
fn who_has_told_of_an_error_is_broken_from_then_on() {
    let mut server = Harness::new(Noted::default()).by_hand();
    let client = server.connect();
    server.hold(client, 100);
    server.take_only(client, Some(0));
    server.feed(client, "rest\n2\n");
    while server.turn() {}
    server.reset(client);
    assert!(server.turn());
    assert!(server.is_broken(client));
    while server.turn() {}
    assert!(server.is_broken(client));
    assert_eq!(server.closed(client), None);
}

/// A telnet command without an end has no LF in it either, which nobody noted: the client was told of
/// a frame, in a protocol of lines.
#[test]
fn an_overlong_telnet_command_is_an_overlong_line() {
    let mut server = Harness::with_limits(Echo, Limits { max_line: 20, ..Limits::default() });
    let client = server.connect();
    server.sent(client);
    server.feed(client, b"\xff\xfa\x18");
    server.feed(client, [b'x'; 17]);
    assert_eq!((server.sent(client), server.closed(client)), (vec![], None));
    server.feed(client, "xx");
    assert_eq!(server.sent(client), b"Line too long (limit 20 bytes)\n");
    assert_eq!(server.closed(client), Some(CloseReason::LineTooLong));
}
