//! One test for each bug that was found; each was seen to fail first.

mod util;

use std::cell::RefCell;
use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use reactor::{Callbacks, CloseReason, Context, Handler, Limits, Reactor};
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
