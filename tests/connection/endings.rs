//! Endings: the last reply arrives, `on_close` comes exactly once and with the right reason, and
//! nothing is left behind.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;

use reactor::testing::{Client as Fake, Harness};
use reactor::{CloseReason, ConnId, Context, Exit, Handler, Limits, ServiceContext, TimerId};

use crate::util::{Client, PATIENCE, Server, until};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Open,
    Line,
    Eof,
    Timer,
    Close(CloseReason),
}

/// Upper-cases lines, but obeys some of them; tells of every call.
struct Teller(mpsc::Sender<(ConnId, Call)>);

impl Teller {
    fn tell(&self, cx: &Context<'_, ()>, call: Call) {
        let _ = self.0.send((cx.id(), call));
    }
}

impl Handler for Teller {
    type Session = ();
    type Message = ConnId;

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        self.tell(cx, Call::Open);
        cx.send("hello\n");
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        self.tell(cx, Call::Line);
        match line {
            b"ABORT" => cx.abort(),
            b"MUCH" => {
                cx.send(vec![b'x'; 64 * 1024 * 1024]);
                cx.close();
            }
            b"TIMER" => {
                cx.set_timer(Duration::from_millis(1));
            }
            _ => {
                cx.send("> ");
                cx.send(line.to_ascii_uppercase());
                assert!(cx.send("\n"));
                if line == b"BYE" {
                    cx.close();
                    // Nothing of this arrives anywhere.
                    let id = cx.id();
                    assert!(!cx.send("never\n") && !cx.send_to(id, "never\n"));
                    cx.broadcast_if("never\n", |other, _| other == id);
                    cx.set_timer(Duration::ZERO);
                    assert!(cx.connection(id).is_none());
                }
            }
        }
    }

    fn on_eof(&mut self, cx: &mut Context<'_, ()>) {
        self.tell(cx, Call::Eof);
        cx.close();
    }

    fn on_timer(&mut self, cx: &mut Context<'_, ()>, _timer: TimerId) {
        self.tell(cx, Call::Timer);
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
        self.tell(cx, Call::Close(reason));
        assert!(!cx.send("never\n"));
        cx.set_timer(Duration::ZERO);
        cx.close();
        cx.resume();
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, id: ConnId) {
        cx.send_to(id, "message\n");
    }
}

type Calls = mpsc::Receiver<(ConnId, Call)>;

fn server(limits: Limits) -> (Server<ConnId>, Calls) {
    let (tell, told) = mpsc::channel();
    (Server::start(limits, || Teller(tell)), told)
}

fn greeted(server: &Server<ConnId>) -> Client {
    let mut client = server.connect();
    client.expect("hello\n");
    client
}

/// The reason of the next ending.
#[track_caller]
fn ending(calls: &Calls) -> CloseReason {
    loop {
        if let (_, Call::Close(reason)) = calls.recv_timeout(PATIENCE).expect("no end came") {
            return reason;
        }
    }
}

/// Reads until the connection ends; whether by a reset.
fn drain(client: &mut Client) -> (usize, Option<ErrorKind>) {
    let (mut count, mut buf) = (0, vec![0; 1 << 16]);
    loop {
        match client.stream.read(&mut buf) {
            Ok(0) => return (count, None),
            Ok(more) => count += more,
            Err(error) => return (count, Some(error.kind())),
        }
    }
}

// ---- The last reply arrives ----

#[test]
fn bye_before_megabytes_of_unread_input_is_answered_every_time() {
    let (server, calls) = server(Limits { linger: PATIENCE, ..Limits::default() });
    let mut input = b"BYE\n".to_vec();
    input.resize(4 * 1024 * 1024, b'x');
    for n in 0..50 {
        let mut client = greeted(&server);
        let mut writer = client.stream.try_clone().unwrap();
        let input = input.clone();
        let writing = std::thread::spawn(move || {
            let _ = writer.write_all(&input);
        });
        assert_eq!(client.rest(), b"> BYE\n", "repetition {n}");
        drop(client);
        writing.join().unwrap();
        assert_eq!(ending(&calls), CloseReason::Closed);
    }
}

/// A client whose kernel takes next to nothing for it, so that what it does not read stays with
/// the server.
fn narrow(server: &Server<ConnId>) -> Client {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.addr.into()).unwrap();
    Client::from(std::net::TcpStream::from(socket))
}

#[test]
fn unread_input_does_not_destroy_replies_that_are_still_on_their_way() {
    let (server, calls) = server(Limits { linger: PATIENCE, ..Limits::default() });
    let line = "y".repeat(60_000);
    let mut input = format!("{line}\n{line}\nBYE\n").into_bytes();
    // More than the kernels on both sides take, so that it has to be read.
    input.resize(24 * 1024 * 1024, b'x');
    let line = line.to_uppercase();
    let expected = format!("hello\n> {line}\n> {line}\n> BYE\n").into_bytes();
    for n in 0..6 {
        let mut client = narrow(&server);
        // Nothing is read before everything is written: the server has to take it all.
        let _ = client.stream.write_all(&input);
        assert!(client.rest() == expected, "repetition {n}");
        drop(client);
        assert_eq!(ending(&calls), CloseReason::Closed);
    }
}

#[test]
fn after_half_close_the_unterminated_line_is_handled_and_all_replies_go_out() {
    let (server, calls) = server(Limits::default());
    let mut client = greeted(&server);
    client.send("one\ntwo");
    client.end();
    assert_eq!(client.rest(), b"> ONE\n> TWO\n");
    assert_eq!(ending(&calls), CloseReason::PeerClosed);

    // More than fits into any buffer: most of the replies go out after the end was seen.
    let mut client = greeted(&server);
    let lines = "0123456789abcde\n".repeat(512 * 1024) + "last";
    let mut writer = client.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all(lines.as_bytes()).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let replies = "> 0123456789ABCDE\n".repeat(512 * 1024) + "> LAST\n";
    assert!(client.rest() == replies.as_bytes());
    writing.join().unwrap();
    assert_eq!(ending(&calls), CloseReason::PeerClosed);
}

#[test]
fn a_reset_in_the_middle_of_a_line_is_one_ending_with_the_error() {
    let (server, calls) = server(Limits::default());
    let mut client = greeted(&server);
    client.send("one\nand a ha");
    client.expect("> ONE\n");
    client.reset();
    let expected = CloseReason::Error(ErrorKind::ConnectionReset);
    assert_eq!(ending(&calls), expected);
    let (_, counters) = server.stop();
    assert_eq!((counters.lines_in, counters.closed_in_all()), (1, 1));
    assert_eq!(calls.iter().count(), 0, "nothing is called after the end");
}

#[test]
fn a_half_closed_client_that_is_only_listened_for_and_resets_is_noticed() {
    struct Stay(mpsc::Sender<CloseReason>);
    impl Handler for Stay {
        type Session = ();
        type Message = ();
        fn on_eof(&mut self, cx: &mut Context<'_, ()>) {
            cx.send("stay\n");
        }
        fn on_close(&mut self, _cx: &mut Context<'_, ()>, reason: CloseReason) {
            let _ = self.0.send(reason);
        }
    }
    let (tell, told) = mpsc::channel();
    let server = Server::start(Limits::default(), || Stay(tell));
    let mut client = server.connect();
    client.end();
    client.expect("stay\n");
    client.reset();
    assert!(matches!(told.recv_timeout(PATIENCE), Ok(CloseReason::Error(_))));
}

// ---- Peers that do not end ----

#[test]
fn lingering_ends_by_its_timeout_and_frees_the_slot() {
    let limits = Limits { linger: Duration::from_millis(100), ..Limits::default() };
    let (server, calls) = server(limits);
    let mut client = greeted(&server);
    client.send("BYE\n");
    assert_eq!(client.rest(), b"> BYE\n");
    // The handler is told at once; the socket goes when the time is up.
    assert_eq!(ending(&calls), CloseReason::Closed);
    until("the socket is gone", || client.stream.write(b"x").is_err());

    let (tell, _told) = mpsc::channel();
    let mut server = Harness::with_limits(Teller(tell), Limits::default());
    let client = server.connect();
    server.feed(client, "BYE\n");
    assert_eq!(server.closed(client), Some(CloseReason::Closed));
    server.advance(Duration::from_millis(1000));
    let later = server.connect();
    server.feed(later, "BYE\n");
    server.advance(Duration::from_millis(3900));
    assert_eq!(server.left_over(), (2, 0), "and none of them needs a timer");
    server.advance(Duration::from_millis(200));
    assert_eq!(server.left_over(), (1, 0), "each has its own time");
    server.advance(Duration::from_millis(900));
    assert_eq!(server.left_over(), (0, 0));
}

#[test]
fn nobody_lingers_for_less_because_an_older_one_is_gone() {
    let (tell, _told) = mpsc::channel();
    let mut server = Harness::with_limits(Teller(tell), Limits::default());
    let clients = [server.connect(), server.connect(), server.connect()];
    for client in clients {
        server.feed(client, "BYE\n");
        server.advance(Duration::from_millis(1000));
    }
    server.end(clients[0]);
    server.end(clients[1]);
    assert_eq!(server.left_over(), (1, 0));
    server.advance(Duration::from_millis(3900));
    assert_eq!(server.left_over(), (1, 0));
    server.advance(Duration::from_millis(200));
    assert_eq!(server.left_over(), (0, 0));
}

#[test]
fn a_closing_connection_whose_peer_takes_nothing_is_stalled() {
    let limits = Limits { flush_timeout: Duration::from_millis(200), ..Limits::default() };
    let (server, calls) = server(limits);
    let mut client = greeted(&server);
    client.send("MUCH\n");
    assert_eq!(ending(&calls), CloseReason::Stalled);
    let (count, error) = drain(&mut client);
    assert!(count < 64 * 1024 * 1024);
    assert_eq!(error, Some(ErrorKind::ConnectionReset));
}

#[test]
fn slow_but_steady_is_not_stalled() {
    let (tell, _told) = mpsc::channel();
    let mut server = Harness::new(Teller(tell));
    let client = server.connect();
    server.take_only(client, Some(0));
    let line = "x".repeat(60_000);
    server.feed(client, format!("{line}\nBYE\n"));
    let expected = format!("hello\n> {}\n> BYE\n", line.to_uppercase());
    while server.closed(client).is_none() {
        assert!(!server.is_shut(client));
        for _ in 0..4 {
            server.advance(Duration::from_secs(7));
            server.take_only(client, Some(4096));
        }
    }
    assert_eq!(server.closed(client), Some(CloseReason::Closed));
    assert!(server.sent(client) == expected.as_bytes());
}

#[test]
fn abort_is_a_reset() {
    let (server, calls) = server(Limits::default());
    let mut client = greeted(&server);
    client.send("ABORT\nnever handled\n");
    assert_eq!(drain(&mut client), (0, Some(ErrorKind::ConnectionReset)));
    assert_eq!(ending(&calls), CloseReason::Aborted);
}

// ---- Idle ----

fn idle_harness() -> (Harness<Teller>, Fake) {
    let (tell, _told) = mpsc::channel();
    let idle_timeout = Some(Duration::from_secs(60));
    let limits = Limits { idle_timeout, line_timeout: None, ..Limits::default() };
    let mut server = Harness::with_limits(Teller(tell), limits);
    let client = server.connect();
    server.sent(client);
    (server, client)
}

#[test]
fn an_idle_connection_is_told_so_and_closed() {
    let limits = Limits { idle_timeout: Some(Duration::from_millis(300)), ..Limits::default() };
    let (server, calls) = server(limits);
    let mut client = server.connect();
    assert_eq!(client.rest(), b"hello\nIdle for too long (limit 0.3 s)\n");
    assert_eq!(ending(&calls), CloseReason::IdleTimeout);

    let (mut server, client) = idle_harness();
    server.advance(Duration::from_millis(59_900));
    assert_eq!((server.closed(client), server.sent(client).len()), (None, 0));
    server.advance(Duration::from_millis(200));
    assert_eq!(server.closed(client), Some(CloseReason::IdleTimeout));
    assert_eq!(server.sent(client), b"Idle for too long (limit 60 s)\n");
}

#[test]
fn an_active_connection_is_not_idle_whichever_side_moves() {
    let (mut server, client) = idle_harness();
    for _ in 0..5 {
        server.advance(Duration::from_secs(50));
        server.feed(client, "x");
    }
    server.take_only(client, Some(0));
    server.feed(client, "\n");
    for _ in 0..4 {
        server.advance(Duration::from_secs(50));
        server.take_only(client, Some(1));
    }
    assert_eq!(server.closed(client), None);
    server.advance(Duration::from_secs(61));
    server.take_only(client, None);
    assert_eq!(server.closed(client), Some(CloseReason::IdleTimeout));
}

// ---- Too many ----

#[test]
fn one_too_many_is_told_so_and_later_ones_get_in() {
    let (server, calls) = server(Limits { max_connections: 2, ..Limits::default() });
    let (mut first, second) = (greeted(&server), greeted(&server));
    for _ in 0..3 {
        assert_eq!(server.connect().rest(), b"Too many connections, try again later\n");
    }
    first.send("BYE\n");
    assert_eq!(first.rest(), b"> BYE\n");
    let third = greeted(&server);
    assert_eq!(server.connect().rest(), b"Too many connections, try again later\n");
    drop((first, second, third));
    for _ in 0..3 {
        ending(&calls);
    }
    let (exit, counters) = server.stop();
    assert_eq!(exit, Exit::Clean);
    assert_eq!((counters.accepted, counters.refused, counters.closed_in_all()), (3, 4, 3));
}

// ---- The contract of on_open and on_close ----

/// A client that ends in one of eight ways; those that are to be idle are given back.
fn end_somehow(addr: SocketAddr, way: usize) -> Option<Client> {
    // On a busy machine it may have been idle for too long already.
    let send = |client: &mut Client, bytes: &[u8]| drop(client.stream.write_all(bytes));
    let mut client = Client::connect(addr);
    match way % 8 {
        0 => send(&mut client, b"TIMER\nBYE\nafter\nafter\n"),
        1 => {
            send(&mut client, b"TIMER\nhalf");
            let _ = client.stream.shutdown(Shutdown::Write);
        }
        2 => {
            send(&mut client, b"TIMER\nnot a li");
            client.reset();
            return None;
        }
        3 => send(&mut client, b"TIMER\nABORT\nafter\n"),
        4 => send(&mut client, &[b'x'; 2000]),
        5 => return Some(client),
        // Gone without a word, and gone before the reply.
        6 => return None,
        _ => {
            send(&mut client, b"BYE\n");
            return None;
        }
    }
    drain(&mut client);
    None
}

#[test]
fn every_open_has_one_close_and_nothing_comes_after_it() {
    const THREADS: usize = 4;
    const EACH: usize = 120;
    let limits = Limits {
        max_line: 1000,
        idle_timeout: Some(Duration::from_millis(400)),
        linger: Duration::from_millis(50),
        ..Limits::default()
    };
    let (server, calls) = server(limits);
    let addr = server.addr;
    let crowd: Vec<_> = (0..THREADS)
        .map(|thread| {
            std::thread::spawn(move || {
                let clients = (0..EACH).map(|n| end_somehow(addr, n + thread));
                let mut idle: Vec<_> = clients.flatten().collect();
                for client in &mut idle {
                    drain(client);
                }
            })
        })
        .collect();
    crowd.into_iter().for_each(|thread| thread.join().unwrap());
    let (exit, counters) = server.stop();
    assert_eq!(exit, Exit::Clean);

    let mut states: HashMap<ConnId, bool> = HashMap::new();
    let mut closed = HashMap::new();
    for (id, call) in calls.iter() {
        match call {
            Call::Open => assert_eq!(states.insert(id, true), None, "{id} opens twice"),
            _ => assert_eq!(states.get(&id), Some(&true), "{call:?} of {id} is out of place"),
        }
        if let Call::Close(reason) = call {
            states.insert(id, false);
            *closed.entry(std::mem::discriminant(&reason)).or_insert(0) += 1;
        }
    }
    assert_eq!(states.values().filter(|open| **open).count(), 0, "some never close");
    assert_eq!(states.len() as u64, counters.accepted);
    assert_eq!((counters.open, counters.closed_in_all()), (0, counters.accepted));
    assert_eq!(counters.panics, 0, "an assertion in the handler");
    // All kinds of endings took part.
    for reason in [
        CloseReason::Closed,
        CloseReason::PeerClosed,
        CloseReason::Aborted,
        CloseReason::LineTooLong,
        CloseReason::IdleTimeout,
    ] {
        let count = closed.get(&std::mem::discriminant(&reason)).copied().unwrap_or(0);
        assert!(count > 0, "nobody ended by {reason:?}");
        assert_eq!(counters.closed(reason), count);
    }
}
