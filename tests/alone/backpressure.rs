//! Backpressure: who does not read is held back or closed, memory stays bounded, and nobody pays
//! for what others do.

#![cfg(feature = "services")]

#[path = "../util/mod.rs"]
mod util;

use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use reactor::services::Presence;
use reactor::testing::{Client as Fake, Harness};
use reactor::{CloseReason, Context, Counters, Handler, Limits, ServiceContext};
use util::{Server, again};

/// Sends each line back; another thread may ask for the counters.
struct Echo;

impl Handler for Echo {
    type Session = ();
    type Message = mpsc::Sender<Counters>;

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        cx.send(line);
        cx.send("\n");
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, asker: mpsc::Sender<Counters>) {
        let _ = asker.send(cx.counters());
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// The endless text that the flooding client sends: numbered lines of 100 bytes.
fn text(from: usize, most: usize) -> Vec<u8> {
    let lines = from / 100..=(from + most) / 100;
    let bytes: Vec<u8> = lines.flat_map(|n| format!("{n:>99}\n").into_bytes()).collect();
    bytes[from % 100..from % 100 + most].to_vec()
}

const MIB: usize = 1024 * 1024;

#[test]
fn a_client_that_sends_and_never_reads_is_held_back_by_tcp() {
    let _quiet = util::quiet();
    let server = Server::start(Limits::default(), || Echo);
    let mut other = server.connect();
    let before = resident();
    let mut flood = server.connect();
    flood.stream.set_nonblocking(true).unwrap();
    let (mut sent, mut read, mut asked, mut same) = (0, 0, 0, 0);
    // It is stuck once neither side has moved for a while in which somebody else was served.
    while same < 50 {
        let last = (sent, read);
        match flood.stream.write(&text(sent, 64_000)) {
            Ok(count) => sent += count,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(sent < 100 * MIB, "it is never held back");
        other.send("are you there?\n");
        other.expect("are you there?\n");
        asked += "are you there?\n".len();
        read = server.counters().bytes_in as usize - asked;
        same = if (sent, read) == last { same + 1 } else { 0 };
    }
    assert!(read < sent, "the rest waits in the kernel");
    let grown = resident().saturating_sub(before);
    assert!(grown < 24 * MIB, "{grown} bytes more");

    flood.stream.set_nonblocking(false).unwrap();
    flood.end();
    let (mut got, mut buf) = (0, vec![0; 1 << 16]);
    loop {
        let count = again(|| flood.stream.read(&mut buf)).unwrap();
        if count == 0 {
            break;
        }
        let more = count.min(sent.saturating_sub(got));
        assert!(buf[..more] == text(got, more), "wrong around byte {got}");
        got += count;
    }
    // The last line was not complete, but its reply is.
    assert_eq!(got, sent + usize::from(sent % 100 != 0));
}

#[test]
fn a_listener_that_never_reads_is_closed_while_the_others_get_every_line() {
    let _quiet = util::quiet();
    let server = Server::start(Limits::default(), Presence::default);
    let mut sloth = server.connect();
    sloth.line();
    let (mut speaker, mut listener) = (server.connect(), server.connect());
    // Both are in the room once they have been welcomed.
    speaker.line();
    listener.line();
    speaker.send("HELLO x\n");
    for client in [&mut speaker, &mut listener] {
        while client.line() != "x is in the room.\n" {}
    }
    let gone = "An anonymous user has left the room.\n";
    let rest = "y".repeat(60_000);
    let mut heard_of_it = 0;
    for n in 0.. {
        assert!(n < 5_000, "the sloth is still there after {n} lines");
        speaker.send(format!("SAY {n} {rest}\n"));
        for client in [&mut speaker, &mut listener] {
            let mut line = client.line();
            if line == gone {
                heard_of_it += 1;
                line = client.line();
            }
            assert!(line == format!("x says: {n} {rest}\n"), "line {n}: {line:.50}");
        }
        if heard_of_it == 2 {
            break;
        }
    }
    // The reset comes after what its kernel had taken.
    let mut buf = vec![0; 1 << 16];
    let error = loop {
        match again(|| sloth.stream.read(&mut buf)) {
            Ok(count) => assert!(count > 0, "a graceful end instead of a reset"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    drop((speaker, listener, sloth));
    let (_, counters) = server.stop();
    assert_eq!(counters.closed(CloseReason::SlowConsumer), 1);
}

// ---- To the byte, without sockets ----

/// A number asks for so many bytes for oneself, `!` and a number for so many for everybody else.
#[derive(Default)]
struct Bytes {
    handled: usize,
}

impl Handler for Bytes {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        self.handled += 1;
        let text = str::from_utf8(line).unwrap();
        match text.strip_prefix('!') {
            Some(count) => cx.broadcast_to_others(vec![b'x'; count.parse().unwrap()]),
            None => {
                cx.send(vec![b'o'; text.parse().unwrap()]);
            }
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// A victim that takes nothing, and somebody who speaks.
fn two(limits: Limits) -> (Harness<Bytes>, Fake, Fake) {
    let mut server = Harness::with_limits(Bytes::default(), limits);
    let (victim, other) = (server.connect(), server.connect());
    server.take_only(victim, Some(0));
    (server, victim, other)
}

fn small() -> Limits {
    Limits {
        max_output: 1000,
        soft_output: 100,
        soft_output_for: 10 * SECOND,
        high_water: 200,
        low_water: 50,
        ..Limits::default()
    }
}

#[test]
fn the_hard_limit_is_exact() {
    let (mut server, victim, other) = two(Limits { soft_output: 999, ..small() });
    server.feed(other, "!999\n!1\n");
    assert_eq!(server.closed(victim), None);
    server.feed(other, "!1\n");
    assert_eq!(server.closed(victim), Some(CloseReason::SlowConsumer));
    assert_eq!(server.closed(other), None);
}

#[test]
fn the_hard_limit_counts_what_is_unsent_not_what_was_sent() {
    let (mut server, victim, other) = two(small());
    for _ in 0..100 {
        server.feed(other, "!600\n");
        server.take_only(victim, Some(600));
        assert_eq!(server.sent(victim).len(), 600);
    }
    assert_eq!(server.closed(victim), None);
}

#[test]
fn the_soft_limit_may_be_passed_for_a_while_only() {
    let (mut server, victim, other) = two(small());
    server.feed(other, "!101\n");
    server.advance(9 * SECOND);
    server.feed(other, "!1\n");
    assert_eq!(server.closed(victim), None);
    server.advance(2 * SECOND);
    server.feed(other, "!1\n");
    assert_eq!(server.closed(victim), Some(CloseReason::SlowConsumer));
}

#[test]
fn falling_below_the_soft_limit_in_time_starts_the_count_again() {
    let (mut server, victim, other) = two(small());
    for _ in 0..5 {
        server.feed(other, "!101\n");
        server.advance(9 * SECOND);
        server.take_only(victim, Some(101));
        server.advance(9 * SECOND);
    }
    assert_eq!(server.closed(victim), None);
    // At the limit is not above it.
    server.feed(other, "!100\n");
    server.advance(60 * SECOND);
    server.feed(other, "!0\n");
    assert_eq!(server.closed(victim), None);
}

#[test]
fn a_victim_of_others_is_not_held_back_in_its_own_requests() {
    let (mut server, victim, other) = two(Limits { soft_output: 1000, ..small() });
    server.feed(other, "!900\n");
    server.feed(victim, "1\n1\n1\n");
    assert_eq!(server.handler().handled, 4);
    // Until it has asked for too much itself.
    server.feed(victim, "198\n1\n");
    server.feed(victim, "1\n");
    assert_eq!(server.handler().handled, 5);
}

#[test]
fn ones_own_replies_never_make_one_a_slow_consumer() {
    let (mut server, victim, other) = two(small());
    server.feed(victim, "50000\n");
    server.advance(60 * SECOND);
    server.feed(other, "!10\n");
    server.advance(60 * SECOND);
    server.feed(other, "!10\n");
    assert_eq!(server.closed(victim), None);
    server.take_only(victim, None);
    assert_eq!(server.sent(victim).len(), 50_020);
}

#[test]
fn who_is_held_back_is_read_again_at_the_low_water_mark() {
    let (mut server, victim, _) = two(small());
    server.feed(victim, "200\n1\n7\n7\n");
    assert_eq!(server.handler().handled, 2, "200 is at the mark, 201 above it");
    server.feed(victim, "7\n");
    server.take_only(victim, Some(150));
    assert_eq!((server.handler().handled, server.sent(victim).len()), (2, 150));
    server.take_only(victim, Some(1));
    assert_eq!(server.handler().handled, 5);
    server.take_only(victim, None);
    assert_eq!(server.sent(victim).len(), 1 + 50 + 3 * 7);
}
