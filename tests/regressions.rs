//! One test for each bug that was found; each was seen to fail first.

use std::cell::RefCell;
use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use reactor::{Callbacks, Limits, Reactor};

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
