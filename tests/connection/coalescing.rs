//! Promise 6: what a turn sends to one connection leaves in one write.

#![cfg(feature = "services")]

use std::time::Duration;

use reactor::services::Echo;
use reactor::testing::{Client, Harness};
use reactor::{Context, Handler, ServiceContext, TimerId};

#[test]
fn the_replies_to_pipelined_lines_are_one_write() {
    let mut server = Harness::new(Echo);
    let client = server.connect();
    assert_eq!(server.writes(client), 1, "the greeting");
    server.feed(client, "line\n".repeat(1_000));
    assert_eq!(
        server.sent(client).len(),
        "Welcome to the Reactor Server.\nSend me text lines \
        and conclude with the BYE command.\n"
            .len()
            + 1_000 * "> LINE\n".len()
    );
    assert_eq!(server.writes(client), 2);
}

#[test]
fn the_last_words_leave_with_what_was_sent_before() {
    let mut server = Harness::new(Echo);
    let client = server.connect();
    server.feed(client, "one\ntwo\nbye\n");
    assert_eq!(server.writes(client), 2);
    assert!(server.is_shut(client));
}

/// Everybody hears every line; all are paused until a message comes, so that many speak in one
/// turn.
struct Chat;

impl Handler for Chat {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.pause();
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        // Also what is sent to the one in between keeps its place, and costs no further write.
        cx.send("you say: ");
        cx.broadcast([line, b"\n"].concat());
        cx.set_timer(Duration::from_secs(1));
    }

    fn on_timer(&mut self, cx: &mut Context<'_, ()>, _: TimerId) {
        cx.broadcast("tick\n");
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, (): ()) {
        let mut all: Vec<_> = cx.connections().map(|(id, _)| id).collect();
        all.sort_unstable();
        all.into_iter().for_each(|id| cx.connection(id).unwrap().resume());
        cx.broadcast("go\n");
    }
}

#[test]
fn many_speakers_in_one_turn_are_one_write_for_each_listener() {
    let mut server = Harness::new(Chat);
    let clients: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    for client in &clients[..9] {
        server.feed(*client, "hello\nall\n");
    }
    server.post(());
    let listener = clients[9];
    assert_eq!(server.sent(listener), format!("go\n{}", "hello\nall\n".repeat(9)).as_bytes());
    // The message in its own turn, then all that it has made ready.
    let writes: Vec<_> = clients.iter().map(|client| server.writes(*client)).collect();
    assert_eq!(writes, [2; 10]);
    let first = String::from_utf8(server.sent(clients[0])).unwrap();
    let own = "you say: hello\nyou say: all\n";
    assert_eq!(first, format!("go\n{own}{}", "hello\nall\n".repeat(8)));

    // The timers that come due together too.
    server.advance(Duration::from_secs(1));
    assert_eq!(server.sent(listener), "tick\n".repeat(18).as_bytes());
    assert_eq!(server.writes(listener), 3);
}
