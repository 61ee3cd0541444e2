//! `half_close`: our side ends, once all is sent, and the peer's goes on.

use std::sync::mpsc;
use std::time::Duration;

use reactor::testing::{Client as Fake, Harness};
use reactor::{CloseReason, Context, Counters, Handler, Limits, ServiceContext};

use crate::util::{self, Server};

/// Sends a line back; `end` ends our side. What comes is remembered.
#[derive(Default)]
struct Echo {
    heard: Vec<String>,
    refused: usize,
}

impl Handler for Echo {
    type Session = ();
    type Message = mpsc::Sender<Counters>;

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        match line {
            b"end" => cx.half_close(),
            b"all" => cx.broadcast("to all\n"),
            _ if cx.send([line, b"\n"].concat()) => {}
            _ => self.refused += 1,
        }
        self.heard.push(String::from_utf8_lossy(line).into_owned());
    }

    fn on_eof(&mut self, _cx: &mut Context<'_, ()>) {
        // Does not close, so what closes it is the end of both sides.
        self.heard.push("EOF".to_owned());
    }

    fn on_close(&mut self, _cx: &mut Context<'_, ()>, reason: CloseReason) {
        self.heard.push(reason.to_string());
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, asker: mpsc::Sender<Counters>) {
        let _ = asker.send(cx.counters());
    }
}

fn one(limits: Limits) -> (Harness<Echo>, Fake) {
    let mut server = Harness::with_limits(Echo::default(), limits);
    let client = server.connect();
    (server, client)
}

#[test]
fn what_was_sent_goes_out_first_and_input_goes_on() {
    let (mut server, client) = one(Limits::default());
    server.take_only(client, Some(2));
    server.feed(client, "hello\nend\n");
    assert!(!server.is_shut(client), "there is more to send");
    server.feed(client, "more\n");
    server.take_only(client, None);
    assert!(server.is_shut(client));
    assert_eq!(server.sent(client), b"hello\n");
    server.feed(client, "and more");
    assert_eq!(server.closed(client), None);
    server.end(client);
    assert_eq!(server.closed(client), Some(CloseReason::PeerClosed));
    let heard = ["hello", "end", "more", "and more", "EOF", "closed by the peer"];
    assert_eq!(
        (server.handler().heard.as_slice(), server.handler().refused),
        (&heard.map(String::from)[..], 2)
    );
    assert_eq!(server.left_over(), (0, 0));
}

#[test]
fn after_the_peers_end_it_is_a_close() {
    struct Ends(bool);
    impl Handler for Ends {
        type Session = ();
        type Message = ();

        fn on_eof(&mut self, cx: &mut Context<'_, ()>) {
            cx.send("bye\n");
            match self.0 {
                true => cx.half_close(),
                false => drop(cx.set_timer(Duration::from_secs(1))),
            }
        }

        fn on_timer(&mut self, cx: &mut Context<'_, ()>, _: reactor::TimerId) {
            cx.half_close();
        }
    }
    for at_once in [true, false] {
        let mut server = Harness::new(Ends(at_once));
        let client = server.connect();
        server.end(client);
        assert_eq!(server.closed(client).is_some(), at_once);
        server.advance(Duration::from_secs(1));
        assert_eq!(server.closed(client), Some(CloseReason::PeerClosed));
        assert_eq!(server.sent(client), b"bye\n");
    }
}

#[test]
fn only_the_idle_timeout_waits_for_a_peer_that_does_not_end_its_side() {
    let limits = Limits { flush_timeout: Duration::from_secs(1), ..Limits::default() };
    let (mut server, client) = one(limits.clone());
    server.take_only(client, Some(0));
    server.feed(client, "hello\nend\n");
    server.advance(Duration::from_secs(1000));
    assert_eq!(server.closed(client), None);
    server.take_only(client, None);
    server.advance(Duration::from_secs(1000));
    assert_eq!((server.is_shut(client), server.closed(client)), (true, None));

    let limits = Limits { idle_timeout: Some(Duration::from_secs(60)), ..limits };
    let (mut server, client) = one(limits);
    server.feed(client, "end\n");
    server.advance(Duration::from_secs(59));
    server.feed(client, "still here\n");
    server.advance(Duration::from_secs(59));
    assert_eq!(server.closed(client), None);
    server.advance(Duration::from_secs(1));
    assert_eq!(server.closed(client), Some(CloseReason::IdleTimeout));
    assert_eq!(server.sent(client), b"", "no farewell after the end");
}

#[test]
fn broadcasts_pass_it_by() {
    let (mut server, client) = one(Limits::default());
    let other = server.connect();
    server.feed(client, "end\nall\n");
    assert_eq!((server.sent(client), server.sent(other)), (b"".to_vec(), b"to all\n".to_vec()));
    assert_eq!(server.closed(client), None);
}

#[test]
fn a_shutdown_and_a_reset_end_it_all_the_same() {
    let (mut server, client) = one(Limits::default());
    let reset = server.connect();
    server.feed(client, "end\n");
    server.feed(reset, "end\n");
    server.reset(reset);
    let reason = CloseReason::Error(std::io::ErrorKind::ConnectionReset);
    assert_eq!(server.closed(reset), Some(reason));
    server.stop();
    assert_eq!(server.closed(client), Some(CloseReason::Shutdown));
    server.end(client);
    assert_eq!(server.left_over(), (0, 0));
}

#[test]
fn asked_for_while_dialling_it_ends_our_side_as_soon_as_it_is_there() {
    struct Listens;
    impl Handler for Listens {
        type Session = ();
        type Message = ();

        fn on_listening(&mut self, cx: &mut ServiceContext<'_, ()>, _: &reactor::Address) {
            let id = cx.connect("127.0.0.1:7", ()).unwrap();
            cx.connection(id).unwrap().half_close();
        }

        fn on_open(&mut self, cx: &mut Context<'_, ()>) {
            assert!(!cx.send("never"));
        }
    }
    let mut server = Harness::new(Listens);
    let (_, target) = server.dialled()[0].clone();
    assert!(!server.is_shut(target));
    server.answer(target);
    assert_eq!(
        (server.is_shut(target), server.sent(target), server.closed(target)),
        (true, vec![], None)
    );
    server.end(target);
    assert_eq!(server.closed(target), Some(CloseReason::PeerClosed));
}

#[test]
fn over_a_socket_the_peer_sees_the_end_and_can_still_speak() {
    let server = Server::start(Limits::default(), Echo::default);
    let mut client = server.connect();
    client.send("hello\nend\n");
    assert_eq!(client.rest(), b"hello\n");
    // Were it closed, the second of these would meet a reset.
    for _ in 0..100 {
        client.send("still there?\n");
    }
    client.end();
    util::until("the server has heard the end", || server.counters().closed_in_all() == 1);
    let (_, counters) = server.stop();
    assert_eq!(counters.lines_in, 102);
    assert_eq!(counters.closed(CloseReason::PeerClosed), 1);
}
