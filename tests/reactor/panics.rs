//! A panic in a hook ends the connection it was called for and nobody else.

use std::borrow::Cow;
use std::sync::mpsc;
use std::time::Duration;

use reactor::{
    CloseReason, ConnId, Context, Counters, Exit, Farewell, Handler, Limits, ServiceContext,
    TimerId,
};

use crate::util::{self, Client, PATIENCE, Server};

/// Upper-cases lines; panics where it is told to. It tells of every ending.
struct Brittle {
    ends: mpsc::Sender<(ConnId, CloseReason)>,
    /// The next newcomer is not survived.
    refuse: bool,
    /// Nor are the shutdown and the last words.
    touchy: bool,
}

#[derive(Default)]
struct Session {
    at_eof: bool,
    at_close: bool,
}

enum Ask {
    Panic,
    PanicAtNext,
    PanicByTimer,
    Counters(mpsc::Sender<Counters>),
}

impl Handler for Brittle {
    type Session = Session;
    type Message = Ask;

    fn on_open(&mut self, cx: &mut Context<'_, Session>) {
        cx.send("hello\n");
        assert!(!std::mem::take(&mut self.refuse), "on purpose");
    }

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        match line {
            b"PANIC" => panic!("on purpose"),
            b"PANIC AT EOF" => cx.session().at_eof = true,
            b"PANIC AT CLOSE" => cx.session().at_close = true,
            b"PANIC BY TIMER" => {
                cx.set_timer(Duration::from_millis(1));
            }
            _ => {
                cx.send(line.to_ascii_uppercase());
                cx.send("\n");
            }
        }
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Session>) {
        assert!(!cx.session().at_eof, "on purpose");
        cx.close();
    }

    fn on_timer(&mut self, _cx: &mut Context<'_, Session>, _timer: TimerId) {
        panic!("on purpose");
    }

    fn on_close(&mut self, cx: &mut Context<'_, Session>, reason: CloseReason) {
        let _ = self.ends.send((cx.id(), reason));
        assert!(!cx.session().at_close, "on purpose");
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, Session>, ask: Ask) {
        match ask {
            Ask::Panic => panic!("on purpose"),
            Ask::PanicAtNext => self.refuse = true,
            Ask::PanicByTimer => {
                cx.set_service_timer(Duration::from_millis(1));
            }
            Ask::Counters(asker) => asker.send(cx.counters()).unwrap(),
        }
    }

    fn on_service_timer(&mut self, _cx: &mut ServiceContext<'_, Session>, _timer: TimerId) {
        panic!("on purpose");
    }

    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, Session>) {
        cx.broadcast("shutdown\n");
        assert!(!self.touchy, "on purpose");
    }

    fn farewell(&self, _why: Farewell, _limits: &Limits) -> Cow<'static, [u8]> {
        assert!(!self.touchy, "on purpose");
        b"farewell\n".into()
    }
}

struct Scene {
    server: Server<Ask>,
    ends: mpsc::Receiver<(ConnId, CloseReason)>,
    /// Connected all the time; nothing may happen to it.
    bystander: Client,
}

fn scene(touchy: bool, limits: Limits) -> Scene {
    let (tell, ends) = mpsc::channel();
    let server = Server::start(limits, move || Brittle { ends: tell, refuse: false, touchy });
    let mut bystander = server.connect();
    bystander.expect("hello\n");
    Scene { server, ends, bystander }
}

impl Scene {
    fn client(&self) -> Client {
        let mut client = self.server.connect();
        client.expect("hello\n");
        client
    }

    fn post(&self, ask: Ask) {
        assert!(self.server.handle.post(ask).is_ok());
    }

    fn counters(&self) -> Counters {
        let (tell, told) = mpsc::channel();
        self.post(Ask::Counters(tell));
        told.recv_timeout(PATIENCE).expect("the loop does not answer")
    }

    fn panics(&self) -> u64 {
        self.counters().panics
    }

    fn ending(&self) -> CloseReason {
        self.ends.recv_timeout(PATIENCE).expect("no end came").1
    }

    /// The others are served as before, and nobody else has ended.
    fn goes_on(mut self, panics: u64) {
        self.bystander.send("still here\n");
        self.bystander.expect("STILL HERE\n");
        drop(self.client());
        assert_eq!(self.panics(), panics);
        self.bystander.end();
        assert_eq!(self.bystander.rest(), b"");
        let (exit, counters) = self.server.stop();
        assert_eq!((exit, counters.open), (Exit::Clean, 0));
        assert_eq!(counters.closed_in_all(), counters.accepted);
    }
}

#[test]
fn in_on_open() {
    let scene = scene(false, Limits::default());
    scene.post(Ask::PanicAtNext);
    assert_eq!(scene.panics(), 0, "and so the message has arrived");
    assert_eq!(scene.server.connect().rest(), b"hello\n");
    assert_eq!(scene.ending(), CloseReason::Panicked);
    scene.goes_on(1);
}

#[test]
fn in_on_line_after_the_replies_to_earlier_lines() {
    let scene = scene(false, Limits::default());
    let mut client = scene.client();
    client.send("one\ntwo\nPANIC\nthree\n");
    assert_eq!(client.rest(), b"ONE\nTWO\n");
    assert_eq!(scene.ending(), CloseReason::Panicked);
    assert_eq!(scene.counters().closed(CloseReason::Panicked), 1);
    scene.goes_on(1);
}

#[test]
fn in_on_eof() {
    let scene = scene(false, Limits::default());
    let mut client = scene.client();
    client.send("PANIC AT EOF\none\n");
    client.end();
    assert_eq!(client.rest(), b"ONE\n");
    assert_eq!(scene.ending(), CloseReason::Panicked);
    scene.goes_on(1);
}

#[test]
fn in_on_timer() {
    let scene = scene(false, Limits::default());
    let mut client = scene.client();
    client.send("PANIC BY TIMER\none\n");
    assert_eq!(client.rest(), b"ONE\n");
    assert_eq!(scene.ending(), CloseReason::Panicked);
    scene.goes_on(1);
}

#[test]
fn in_on_close_which_still_comes_once_and_keeps_its_reason() {
    let scene = scene(false, Limits::default());
    let mut client = scene.client();
    client.send("PANIC AT CLOSE\none\n");
    client.end();
    assert_eq!(client.rest(), b"ONE\n");
    drop(client);
    assert_eq!(scene.ending(), CloseReason::PeerClosed);
    // A second call would come before this one.
    let mut client = scene.client();
    client.send("PANIC\n");
    client.rest();
    assert_eq!(scene.ending(), CloseReason::Panicked);
    scene.goes_on(2);
}

#[test]
fn in_on_message_and_in_on_service_timer_which_end_nobody() {
    let scene = scene(false, Limits::default());
    scene.post(Ask::Panic);
    scene.post(Ask::PanicByTimer);
    util::until("both panic", || scene.panics() == 2);
    assert_eq!(scene.counters().closed_in_all(), 0);
    scene.goes_on(2);
}

#[test]
fn in_farewell_which_then_says_nothing() {
    let scene = scene(true, Limits { max_connections: 2, ..Limits::default() });
    let mut client = scene.client();
    assert_eq!(scene.server.connect().rest(), b"", "one too many");
    client.send("one\n");
    client.send([b'x'; 100_000]);
    assert_eq!(client.rest(), b"ONE\n");
    assert_eq!(scene.ending(), CloseReason::LineTooLong);
    scene.goes_on_until_shutdown(2);
}

#[test]
fn in_on_shutdown_which_goes_on_all_the_same() {
    let scene = scene(true, Limits::default());
    scene.goes_on_until_shutdown(0);
}

impl Scene {
    /// As `goes_on`, with one more panic in on_shutdown.
    fn goes_on_until_shutdown(mut self, panics: u64) {
        self.bystander.send("still here\n");
        self.bystander.expect("STILL HERE\n");
        assert_eq!(self.panics(), panics);
        self.server.handle.stop();
        assert_eq!(self.bystander.rest(), b"shutdown\n");
        assert_eq!(self.ending(), CloseReason::Shutdown);
        drop(self.bystander);
        let (exit, counters) = self.server.stop();
        assert_eq!((exit, counters.panics), (Exit::Clean, panics + 1));
    }
}

/// Takes bytes, one at a time, and not every one of them.
struct Picky;

impl Handler for Picky {
    type Session = ();
    type Message = ();

    fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        assert!(bytes[0] != b'!', "on purpose");
        cx.send(&bytes[..1]);
        1
    }
}

#[test]
fn in_on_bytes() {
    let server = Server::start(Limits::default(), || Picky);
    let (mut client, mut other) = (server.connect(), server.connect());
    client.send("abc!def");
    assert_eq!(client.rest(), b"abc");
    other.send("xyz");
    other.end();
    assert_eq!(other.rest(), b"xyz");
    drop((client, other));
    let (_, counters) = server.stop();
    assert_eq!((counters.panics, counters.closed(CloseReason::Panicked)), (1, 1));
}

/// Takes a block after each line, and not any block.
struct Squeamish;

impl Handler for Squeamish {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, _: &[u8]) {
        cx.take_block(3);
    }

    fn on_block(&mut self, cx: &mut Context<'_, ()>, piece: &[u8], _: bool) {
        assert!(!piece.contains(&b'!'), "on purpose");
        cx.send(piece);
    }
}

#[test]
fn in_on_block() {
    let server = Server::start(Limits::default(), || Squeamish);
    let (mut client, mut other) = (server.connect(), server.connect());
    client.send("\nabc\nd!e\nfgh");
    assert_eq!(client.rest(), b"abc");
    other.send("\nxyz");
    other.end();
    assert_eq!(other.rest(), b"xyz");
    drop((client, other));
    let (_, counters) = server.stop();
    assert_eq!((counters.panics, counters.closed(CloseReason::Panicked)), (1, 1));
}

#[test]
fn a_handler_that_only_panics_still_gets_on_close_for_everybody() {
    let scene = scene(false, Limits::default());
    for _ in 0..100 {
        let mut client = scene.client();
        client.send("PANIC AT CLOSE\nPANIC\n");
        assert_eq!(client.rest(), b"");
        assert_eq!(scene.ending(), CloseReason::Panicked);
    }
    scene.goes_on(200);
}
