//! The counters: exact, for a scene of which every byte is known.

use std::sync::mpsc;
use std::time::Duration;

use reactor::{CloseReason, Context, Counters, Exit, Handler, Limits, Reactor, ServiceContext};

use crate::util::{self, PATIENCE, Server};

/// `hello` to newcomers, lines back as they come; QUIT, ABORT and PANIC do what they say.
struct Plain;

impl Handler for Plain {
    type Session = ();
    type Message = mpsc::Sender<Counters>;

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send("hello\n");
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        match line {
            b"QUIT" => cx.close(),
            b"ABORT" => cx.abort(),
            b"PANIC" => panic!("on purpose"),
            _ => {
                cx.send(line);
                cx.send("\n");
            }
        }
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, asker: mpsc::Sender<Counters>) {
        let _ = asker.send(cx.counters());
    }
}

#[test]
fn a_scene_is_counted_to_the_byte() {
    let limits =
        Limits { max_connections: 5, max_line: 100, linger: PATIENCE, ..Limits::default() };
    let server = Server::start(limits, || Plain);
    assert_eq!(server.counters().accepted, 0);

    let mut clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.expect("hello\n"));
    assert_eq!(server.connect().rest(), b"Too many connections, try again later\n");
    let now = server.counters();
    assert_eq!((now.accepted, now.refused, now.open, now.dialled), (5, 1, 5, 0));
    assert_eq!((now.lines_in, now.bytes_in, now.bytes_out), (0, 0, 30));

    // LF, CRLF, an empty line, and an unterminated one: 6 + 5 + 1 + 4 bytes, back come 6 + 4 + 1 + 5.
    clients[0].send("12345\nabc\r\n\nlast");
    clients[0].end();
    assert_eq!(clients[0].rest(), b"12345\nabc\n\nlast\n");
    clients[1].send("QUIT\n");
    assert_eq!(clients[1].rest(), b"");
    clients[2].send("ABORT\n");
    util::until("it is reset", || clients[2].stream.peek(&mut [0]).is_err());
    clients[3].send("PANIC\n");
    assert_eq!(clients[3].rest(), b"");
    clients[4].send([b'x'; 101]);
    assert_eq!(clients[4].rest(), b"Line too long (limit 100 bytes)\n");

    let now = server.counters();
    assert_eq!((now.lines_in, now.panics), (4 + 3, 1));
    assert_eq!(now.bytes_in, 16 + 5 + 6 + 6 + 101);
    assert_eq!(now.bytes_out, 30 + 16 + 32);
    assert_eq!((now.open, now.closed_in_all()), (0, 5));
    for reason in [
        CloseReason::PeerClosed,
        CloseReason::Closed,
        CloseReason::Aborted,
        CloseReason::Panicked,
        CloseReason::LineTooLong,
    ] {
        assert_eq!(now.closed(reason), 1, "{reason:?}");
    }

    // What a closing connection still sends is read, and counted, though nobody hears it.
    clients[1].send("not heard\n");
    util::until("it is read", || server.counters().bytes_in == now.bytes_in + 10);
    assert_eq!(server.counters().lines_in, now.lines_in);

    let mut last = server.connect();
    last.expect("hello\n");
    drop(clients);
    server.handle.stop();
    assert_eq!(last.rest(), b"");
    drop(last);
    let (exit, end) = server.stop();
    assert_eq!(exit, Exit::Clean);
    assert_eq!((end.accepted, end.open, end.closed(CloseReason::Shutdown)), (6, 0, 1));
    assert_eq!(end.closed_in_all(), 6);
    assert!(end.turns > now.turns && end.longest_turn > Duration::ZERO);
}

#[test]
fn dialled_ones_are_counted_apart_and_end_like_the_others() {
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.listen("127.0.0.1:0", Plain).unwrap();
    // One to ourselves, and one to nobody.
    reactor.connect(&service, service.address().unwrap()).unwrap();
    reactor.connect(&service, util::nobody()).unwrap();
    while reactor.counters().open < 2 || reactor.counters().closed_in_all() < 1 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    let now = reactor.counters();
    assert_eq!((now.accepted, now.dialled, now.open), (1, 2, 2));
    let refused = CloseReason::Error(std::io::ErrorKind::ConnectionRefused);
    assert_eq!(now.closed(refused), 1);
    drop(reactor);
}
