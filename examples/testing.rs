//! A handler tested without sockets and without waiting: bytes in any pieces, a clock that one
//! moves by hand. The checks below would be `#[test]` functions in a program of yours.
//!
//! ```text
//! $ cargo run --example testing
//! a question may come in pieces: ok
//! a reset takes nobody else along: ok
//! who stays for too long is sent away: ok
//! ```

use std::time::Duration;

use reactor::{CloseReason, Context, Handler, TimerId, testing::Harness};

const PATIENCE: Duration = Duration::from_secs(10);

/// Answers questions for ten seconds.
struct Oracle;

impl Handler for Oracle {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.set_timer(PATIENCE);
    }
    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        cx.send(if line.ends_with(b"?") { "Yes.\n" } else { "Ask.\n" });
    }
    fn on_timer(&mut self, cx: &mut Context<'_, ()>, _timer: TimerId) {
        cx.send("Too late.\n");
        cx.close();
    }
}

fn main() {
    let mut server = Harness::new(Oracle);
    let client = server.connect();
    server.feed(client, "Will it ");
    assert_eq!(server.sent(client), b"");
    server.feed(client, "rain?\r\nSo\n");
    assert_eq!(server.sent(client), b"Yes.\nAsk.\n");
    println!("a question may come in pieces: ok");

    let other = server.connect();
    server.reset(other);
    assert!(matches!(server.closed(other), Some(CloseReason::Error(_))));
    assert_eq!(server.closed(client), None);
    println!("a reset takes nobody else along: ok");

    server.advance(PATIENCE);
    assert_eq!(server.sent(client), b"Too late.\n");
    assert_eq!(server.closed(client), Some(CloseReason::Closed));
    println!("who stays for too long is sent away: ok");
}
