//! Promise 3: an identity is an incarnation. What belongs to a closed connection never touches
//! the one that took its slot.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use reactor::testing::Harness;
use reactor::{
    Callbacks, CloseReason, ConnId, Context, Handler, Limits, Reactor, ServiceContext, TimerId,
};

use crate::util::{Client, PATIENCE, Server};

/// Does to a connection whatever a message says, and notes what the context answered.
#[derive(Default)]
struct Puppet {
    answers: Vec<bool>,
    timers: Vec<ConnId>,
    closed: Vec<(ConnId, CloseReason)>,
}

#[derive(Clone, Copy)]
enum Act {
    All(ConnId),
}

impl Handler for Puppet {
    type Session = u32;
    type Message = Act;

    fn on_line(&mut self, cx: &mut Context<'_, u32>, line: &[u8]) {
        match line {
            b"timer" => drop(cx.set_timer(Duration::from_secs(10))),
            _ => drop(cx.send(b"ok\n")),
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_, u32>, _: TimerId) {
        self.timers.push(cx.id());
    }

    fn on_close(&mut self, cx: &mut Context<'_, u32>, reason: CloseReason) {
        self.closed.push((cx.id(), reason));
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, u32>, Act::All(id): Act) {
        self.answers = vec![
            cx.send_to(id, b"for another\n"),
            cx.reply_to(id, b"for another\n"),
            cx.connection(id).map(|mut cx| *cx.session() += 1).is_some(),
            cx.connection(id).map(|mut cx| cx.abort()).is_some(),
        ];
    }
}

#[test]
fn a_saved_id_does_nothing_to_the_next_one_in_the_slot() {
    let mut server = Harness::new(Puppet::default());
    let first = server.connect();
    let saved = server.id(first);
    server.end(first);
    assert_eq!(server.left_over(), (0, 0), "the slot is free");
    let second = server.connect();
    assert_ne!(server.id(second), saved);

    server.post(Act::All(saved));
    assert_eq!(server.handler().answers, [false; 4]);
    assert_eq!(server.session(second), Some(&0));
    assert_eq!(server.closed(second), None);
    server.feed(second, "x\n");
    assert_eq!(server.sent(second), b"ok\n");

    // The same calls do reach the one that they are for.
    let id = server.id(second);
    server.post(Act::All(id));
    assert_eq!(server.handler().answers, [true; 4]);
    assert_eq!(server.closed(second), Some(CloseReason::Aborted));
}

#[test]
fn a_timer_dies_with_its_connection() {
    let mut server = Harness::new(Puppet::default());
    let first = server.connect();
    server.feed(first, "timer\ntimer\n");
    server.end(first);
    assert_eq!(server.left_over(), (0, 0));
    let second = server.connect();
    server.advance(Duration::from_secs(5));
    server.feed(second, "timer\n");
    server.advance(Duration::from_secs(6));
    assert_eq!(server.handler().timers, []);
    server.advance(Duration::from_secs(5));
    let id = server.id(second);
    assert_eq!(server.handler().timers, [id]);
}

#[test]
fn a_connection_does_not_inherit_a_deadline() {
    let limits = Limits { idle_timeout: Some(Duration::from_secs(60)), ..Limits::default() };
    let mut server = Harness::with_limits(Puppet::default(), limits);
    let first = server.connect();
    server.advance(Duration::from_secs(30));
    server.end(first);
    let second = server.connect();
    server.advance(Duration::from_secs(59));
    assert_eq!(server.closed(second), None);
    server.advance(Duration::from_secs(2));
    assert_eq!(server.closed(second), Some(CloseReason::IdleTimeout));
}

/// Both have sent before the turn, so both events are in the same batch; the one that is served
/// first aborts the other. The slot is empty when the other's turn comes, or a newcomer has it.
#[test]
fn an_event_in_the_same_batch_as_the_end_is_for_nobody() {
    for newcomer in [false, true] {
        let lines = RefCell::new(Vec::new());
        let closed = RefCell::new(Vec::new());
        let mut reactor = Reactor::new().unwrap();
        let duel = Callbacks::new()
            .on_line(|cx, line| {
                let me = cx.id();
                lines.borrow_mut().push((me, line.to_vec()));
                let all = cx.connections().map(|(id, _)| id);
                let others: Vec<_> = all.filter(|id| *id != me).collect();
                others.into_iter().for_each(|id| cx.connection(id).unwrap().abort());
                // Enough to end the turn here: the event of the other one is still to be served
                // when its slot has been freed.
                cx.send(vec![b'x'; 300 * 1024]);
            })
            .on_close(|cx, reason| closed.borrow_mut().push((cx.id(), reason)));
        let service = reactor.listen("127.0.0.1:0", duel).unwrap();
        let addr = service.address().unwrap().as_socket().unwrap();
        let mut clients = vec![Client::connect(addr), Client::connect(addr)];
        while reactor.counters().accepted < 2 {
            reactor.turn(None).unwrap();
        }
        clients.iter_mut().for_each(|client| client.send("me\n"));
        reactor.turn(None).unwrap();
        let there = if newcomer { 3 } else { 2 };
        clients.extend(newcomer.then(|| Client::connect(addr)));
        let deadline = Instant::now() + PATIENCE;
        while reactor.counters().accepted < there && Instant::now() < deadline {
            reactor.turn(Some(Duration::from_millis(10))).unwrap();
        }
        for _ in 0..3 {
            reactor.turn(Some(Duration::from_millis(10))).unwrap();
        }
        let (lines, closed) = (lines.borrow(), closed.borrow());
        assert_eq!((lines.len(), closed.len()), (1, 1));
        assert_eq!(closed[0].1, CloseReason::Aborted);
        assert_ne!(closed[0].0, lines[0].0);
        // The winner and the newcomer are untouched.
        assert_eq!(reactor.counters().open, there - 1);
    }
}

/// Greets with the id, and sends to whatever id it is told of.
struct Mailman(std::sync::mpsc::Sender<ConnId>);

impl Handler for Mailman {
    type Session = ();
    type Message = ConnId;

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        writeln!(cx, "{}", cx.id());
        self.0.send(cx.id()).unwrap();
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, _: &[u8]) {
        cx.send("mine\n");
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, id: ConnId) {
        cx.send_to(id, "yours\n");
        assert!(cx.connection(id).is_none());
    }
}

#[test]
fn over_real_sockets_mail_for_the_dead_reaches_nobody() {
    let (tell, told) = std::sync::mpsc::channel();
    let server = Server::start(Limits::default(), || Mailman(tell));
    let mut dead = Vec::new();
    for _ in 0..100 {
        let mut client = server.connect();
        let id = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(client.line(), format!("{id}\n"));
        dead.iter().for_each(|id| server.handle.post(*id).unwrap());
        client.send("x\n");
        assert_eq!(client.line(), "mine\n");
        client.end();
        assert_eq!(client.rest(), b"");
        dead.push(id);
    }
    let mut ids = dead.clone();
    ids.dedup();
    assert_eq!(ids.len(), 100, "no id was given twice");
    assert!(dead.is_sorted(), "ids sort by arrival");
}
