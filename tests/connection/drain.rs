//! Streaming: `on_drain` comes once for each time it was asked for, when there is room, so that a
//! reply of any length costs bounded memory and nobody else's turn.

use std::io::Read;
use std::sync::mpsc;
use std::time::Duration;

use reactor::testing::{Client as Fake, Harness};
use reactor::{Callbacks, Context, Counters, Exit, Handler, Limits, ServiceContext};

use crate::util::{Server, again};

const PIECE: usize = 64 * 1024;
const MIB: usize = 1024 * 1024;

/// A number asks for so many bytes, piece by piece; `endless` for as many as are taken; any other
/// line comes back.
#[derive(Default)]
struct Streamer {
    piece: usize,
    /// Calls of `on_drain`, and the most that was unsent after one.
    calls: usize,
    most: usize,
}

#[derive(Default)]
struct Session {
    sent: usize,
    left: usize,
}

/// What a stream consists of: its own offsets, 8 bytes each.
fn stream(from: usize, count: usize) -> Vec<u8> {
    assert!(from.is_multiple_of(8) && count.is_multiple_of(8));
    (from..from + count).step_by(8).flat_map(|at| (at as u64).to_be_bytes()).collect()
}

impl Streamer {
    fn new(piece: usize) -> Streamer {
        Streamer { piece, ..Streamer::default() }
    }

    fn next_piece(&mut self, cx: &mut Context<'_, Session>) {
        let session = cx.session();
        let count = session.left.min(self.piece);
        let bytes = stream(session.sent, count);
        session.sent += count;
        session.left -= count;
        let more = session.left > 0;
        cx.send(bytes);
        self.most = self.most.max(cx.unsent());
        if more {
            cx.request_drain();
        }
    }
}

impl Handler for Streamer {
    type Session = Session;
    type Message = mpsc::Sender<Counters>;

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        let text = str::from_utf8(line).unwrap();
        match text.parse() {
            _ if text == "endless" => cx.session().left = usize::MAX / 8 * 8,
            Ok(count) => cx.session().left = count,
            Err(_) => {
                writeln!(cx, "{text}");
                return;
            }
        }
        self.next_piece(cx);
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Session>) {
        assert!(cx.unsent() <= cx.limits().low_water, "{} unsent", cx.unsent());
        self.calls += 1;
        self.next_piece(cx);
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, Session>, asker: mpsc::Sender<Counters>) {
        let _ = asker.send(cx.counters());
    }
}

// ---- Over real sockets ----

#[test]
fn a_slow_reader_gets_a_long_stream_whole_and_a_neighbour_is_served_meanwhile() {
    const ALL: usize = 64 * MIB;
    let server = Server::start(Limits::default(), || Streamer::new(PIECE));
    let (mut slow, mut neighbour) = (server.connect(), server.connect());
    slow.send(format!("{ALL}\n"));
    // Stuck: nothing moves between two questions of the neighbour, though it is not yet all.
    let (mut before, mut same) = (0, 0);
    while same < 20 {
        neighbour.send("still there?\n");
        neighbour.expect("still there?\n");
        let out = server.counters().bytes_out as usize;
        same = if out <= before + "still there?\n".len() { same + 1 } else { 0 };
        before = out;
    }
    assert!(before < ALL, "all {before} bytes went out to one who does not read");
    let (mut got, mut buf) = (0, vec![0; 1 << 16]);
    let mut odd: Vec<u8> = Vec::new();
    while got < ALL {
        let count = again(|| slow.stream.read(&mut buf)).unwrap();
        assert!(count > 0, "the end after {got} bytes");
        odd.extend(&buf[..count]);
        let whole = odd.len() / 8 * 8;
        assert!(odd[..whole] == stream(got, whole), "wrong after {got} bytes");
        odd.drain(..whole);
        got += whole;
        if got % (8 * MIB) < count {
            neighbour.send("and now?\n");
            neighbour.expect("and now?\n");
        }
    }
    assert_eq!((got, odd.len()), (ALL, 0));
}

#[test]
fn an_endless_stream_to_a_fast_reader_starves_nobody_and_ends_at_a_shutdown() {
    let server = Server::start(Limits::default(), || Streamer::new(PIECE));
    let mut fast = server.connect();
    fast.send("endless\n");
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut buf = vec![0; 1 << 20];
        while again(|| fast.stream.read(&mut buf)).unwrap() > 0 {
            let _ = tell.send(());
        }
    });
    let mut neighbour = server.connect();
    for n in 0..200 {
        neighbour.send(format!("line {n}\n"));
        neighbour.expect(format!("line {n}\n"));
        assert!(told.recv().is_ok(), "the stream has ended");
    }
    drop(neighbour);
    assert_eq!(server.stop().0, Exit::Clean);
    reader.join().unwrap();
}

// ---- To the byte, without sockets ----

/// Marks and pieces small enough to count by hand.
fn small() -> Limits {
    Limits {
        max_output: 400,
        soft_output: 400,
        high_water: 200,
        low_water: 50,
        ..Limits::default()
    }
}

/// A client that takes nothing so far.
fn one<H: Handler>(handler: H) -> (Harness<H>, Fake) {
    let mut server = Harness::with_limits(handler, small());
    let client = server.connect();
    server.take_only(client, Some(0));
    (server, client)
}

#[test]
fn the_next_piece_is_asked_for_at_the_low_water_mark_and_not_above_it() {
    let (mut server, client) = one(Streamer::new(80));
    server.feed(client, "240\n");
    server.take_only(client, Some(29));
    assert_eq!(server.handler().calls, 0, "51 are unsent");
    server.take_only(client, Some(1));
    assert_eq!((server.handler().calls, server.handler().most), (1, 130));
    server.take_only(client, Some(0));
    assert_eq!(server.handler().calls, 1, "130 are unsent");
    server.take_only(client, None);
    assert_eq!(server.sent(client), stream(0, 240));
    assert_eq!((server.handler().calls, server.handler().most), (2, 130));
}

#[test]
fn a_stream_counts_as_its_own_request_holds_it_back_and_never_kills_it() {
    let (mut server, client) = one(Streamer::new(800));
    server.feed(client, "1600\nhello\n");
    server.take_only(client, Some(750));
    server.advance(Duration::from_secs(60));
    assert_eq!(server.handler().most, 850);
    assert_eq!(server.closed(client), None);
    server.take_only(client, None);
    assert_eq!(server.sent(client), [stream(0, 1600), b"hello\n".to_vec()].concat());
}

/// Asks when it is told to, by a line or a message, and says when it is called.
#[derive(Default)]
struct Asker {
    called: Vec<u64>,
}

impl Handler for Asker {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        match line {
            b"ask" => cx.request_drain(),
            b"close" => cx.close(),
            b"pause" => cx.pause(),
            b"panic" => panic!("as asked"),
            b"shout" => cx.broadcast_to_others("y".repeat(60)),
            _ => assert!(cx.send(line)),
        }
    }

    fn on_drain(&mut self, cx: &mut Context<'_, ()>) {
        self.called.push(cx.counters().turns);
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, (): ()) {
        let all: Vec<_> = cx.connections().map(|(id, _)| id).collect();
        all.into_iter().for_each(|id| cx.connection(id).unwrap().request_drain());
    }

    fn on_eof(&mut self, _cx: &mut Context<'_, ()>) {}
}

#[test]
fn it_comes_in_a_later_turn_once_however_often_it_was_asked_for() {
    let mut server = Harness::new(Asker::default());
    let client = server.connect();
    let turn = server.counters().turns;
    server.feed(client, "ask\nask\n");
    assert_eq!(server.handler().called, [turn + 1]);
    server.feed(client, "hello\n");
    assert_eq!(server.handler().called.len(), 1);
    server.feed(client, "ask\n");
    assert_eq!(server.handler().called.len(), 2);
}

#[test]
fn it_comes_while_paused_and_after_the_end_of_input() {
    let (mut server, client) = one(Asker::default());
    server.feed(client, format!("{}\nask\npause\nhello\n", "x".repeat(60)));
    assert!(server.handler().called.is_empty());
    server.take_only(client, Some(10));
    assert_eq!(server.handler().called.len(), 1);
    let (mut server, client) = one(Asker::default());
    server.feed(client, format!("{}\nask\n", "x".repeat(60)));
    server.end(client);
    assert!(server.handler().called.is_empty());
    server.take_only(client, Some(10));
    assert_eq!(server.handler().called.len(), 1);
}

#[test]
fn it_does_not_come_after_a_close() {
    let mut server = Harness::new(Asker::default()).catching_panics();
    for last in ["ask\nclose\n", "ask\npanic\n"] {
        let client = server.connect();
        server.feed(client, last);
        server.end(client);
        assert!(server.closed(client).is_some());
    }
    let (reset, shut) = (server.connect(), server.connect());
    for client in [reset, shut] {
        server.take_only(client, Some(0));
        server.feed(client, format!("{}\nask\n", "x".repeat(100_000)));
    }
    server.reset(reset);
    server.stop();
    server.take_only(shut, None);
    assert!(server.handler().called.is_empty());
}

#[test]
fn asked_for_before_an_outbound_connection_is_there_it_comes_when_it_is() {
    struct Dialler(usize);
    impl Handler for Dialler {
        type Session = ();
        type Message = ();

        fn on_listening(&mut self, cx: &mut ServiceContext<'_, ()>, _: &reactor::Address) {
            let id = cx.connect("127.0.0.1:7", ()).unwrap();
            cx.connection(id).unwrap().request_drain();
        }

        fn on_drain(&mut self, _cx: &mut Context<'_, ()>) {
            self.0 += 1;
        }
    }
    let mut server = Harness::new(Dialler(0));
    let (_, target) = server.dialled()[0].clone();
    assert_eq!(server.handler().0, 0);
    server.answer(target);
    assert_eq!(server.handler().0, 1);
}

#[test]
fn what_others_send_in_between_puts_it_off() {
    let mut server =
        Harness::with_limits(Asker::default(), Limits { lines_per_turn: 1, ..small() });
    let (client, other) = (server.connect(), server.connect());
    server.take_only(client, Some(0));
    server.feed(client, format!("{}\nask\n", "x".repeat(60)));
    // The first line's turn empties the client's output, the second line fills it again before
    // the client's own turn comes.
    server.jump_with(Duration::ZERO, |server| {
        server.feed(other, "first\nshout\n");
        server.take_only(client, Some(60));
    });
    assert!(server.handler().called.is_empty());
    server.take_only(client, None);
    assert_eq!(server.handler().called.len(), 1);
}

#[test]
fn closures_can_stream_too() {
    let mut left = 3;
    let callbacks = Callbacks::new().on_connection(|cx| cx.request_drain()).on_drain(|cx| {
        writeln!(cx, "{left}");
        left -= 1;
        if left > 0 {
            cx.request_drain();
        }
    });
    let mut server = Harness::new(callbacks);
    let client = server.connect();
    assert_eq!(server.sent(client), b"3\n2\n1\n");
}

#[test]
fn who_takes_nothing_of_a_stream_is_idle_even_while_paused() {
    let seconds = Duration::from_secs;
    let limits = Limits { idle_timeout: Some(seconds(60)), ..small() };
    let mut server = Harness::with_limits(Asker::default(), limits);
    let client = server.connect();
    server.take_only(client, Some(0));
    server.feed(client, format!("{}\n", "x".repeat(100)));
    server.feed(client, "pause\n");
    server.advance(seconds(3600));
    assert!(server.session(client).is_some(), "the handler is what it waits for");
    server.post(());
    server.advance(seconds(59));
    server.take_only(client, Some(10));
    server.advance(seconds(59));
    assert!(server.session(client).is_some(), "something moved");
    server.advance(seconds(1));
    assert!(server.session(client).is_none());
    server.take_only(client, None);
    let said = format!("{}Idle for too long (limit 60 s)\n", "x".repeat(100));
    assert_eq!(server.sent(client), said.as_bytes());
}

/// A number asks for all numbers below it, by `send_pieces`; any other line comes back.
#[derive(Default)]
struct Counter {
    /// Pieces that were made, and the most that was unsent then.
    made: u32,
    most: usize,
}

impl Handler for Counter {
    type Session = std::ops::Range<u32>;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, Self::Session>, line: &[u8]) {
        let text = str::from_utf8(line).unwrap();
        match text.parse() {
            Ok(count) => {
                *cx.session() = 0..count;
                self.on_drain(cx);
            }
            Err(_) if text == "last" => cx.half_close(),
            Err(_) => writeln!(cx, "{text}"),
        }
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Self::Session>) {
        let done = cx.send_pieces(|left| {
            let number = left.next()?;
            self.made += 1;
            Some(format!("{number}\n"))
        });
        assert!(!done || cx.session().start == cx.session().end || !cx.send(""));
        self.most = self.most.max(cx.unsent());
    }
}

#[test]
fn pieces_go_out_in_order_and_what_comes_next_waits() {
    let (mut server, client) = one(Counter::default());
    server.feed(client, "1000\nhello\n0\n2\nbye");
    server.end(client);
    let mut got = Vec::new();
    while server.closed(client).is_none() {
        assert!(server.handler().most < small().low_water + 20, "{}", server.handler().most);
        server.take_only(client, Some(7));
        got.extend(server.sent(client));
    }
    let wanted: String = (0..1000).map(|number| format!("{number}\n")).collect();
    assert_eq!(String::from_utf8(got).unwrap(), wanted + "hello\n0\n1\nbye\n");
}

#[test]
fn no_piece_is_made_for_one_who_takes_none() {
    let (mut server, client) = one(Counter::default());
    server.feed(client, "1000\n".repeat(10));
    let made = server.handler().made;
    assert!(made < 100, "{made}");
    server.reset(client);
    assert!(server.closed(client).is_some());
    assert_eq!((server.handler().made, server.left_over()), (made, (0, 0)));

    let mut server = Harness::new(Counter::default());
    let client = server.connect();
    server.feed(client, "last\n1000\n");
    assert_eq!((server.handler().made, server.is_shut(client)), (0, true));
    server.end(client);
    assert!(server.closed(client).is_some());
}
