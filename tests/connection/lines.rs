//! Lines, over real sockets and byte for byte.

use reactor::testing::Harness;
use reactor::{Callbacks, CloseReason, Context, Handler, Limits};

use crate::util::Server;

/// Says what it got, unmistakably.
fn server(limits: Limits) -> Server<()> {
    Server::start(limits, || {
        Callbacks::new().on_line(|cx, line| {
            cx.send([b"[", line, b"]\n"].concat());
        })
    })
}

#[track_caller]
fn exchange(input: &[u8], wanted: &[u8]) {
    let server = server(Limits::default());
    let mut whole = server.connect();
    whole.send(input);
    whole.end();
    let mut slow = server.connect();
    slow.stream.set_nodelay(true).unwrap();
    for byte in input {
        slow.send([*byte]);
    }
    slow.end();
    for client in [&mut whole, &mut slow] {
        let got = client.rest();
        assert!(got == wanted, "{:?}", String::from_utf8_lossy(&got));
    }
}

#[test]
fn lf_and_crlf_end_a_line() {
    exchange(b"one\ntwo\r\nthree\n", b"[one]\n[two]\n[three]\n");
}

#[test]
fn only_one_cr_belongs_to_the_end_and_none_elsewhere() {
    exchange(b"\rone\rtwo\r\r\n\r\n", b"[\rone\rtwo\r]\n[]\n");
}

#[test]
fn empty_lines_are_lines() {
    exchange(b"\n\r\n\n", b"[]\n[]\n[]\n");
}

#[test]
fn the_last_line_needs_no_end() {
    exchange(b"one\ntwo", b"[one]\n[two]\n");
    exchange(b"one\ntwo\r", b"[one]\n[two]\n");
    exchange(b"one\n", b"[one]\n");
    exchange(b"", b"");
}

#[test]
fn any_bytes_may_be_in_a_line() {
    let all: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    let input = [&all[..], b"\n\0\0\n\xff\xfe\n\xc3"].concat();
    let wanted = [b"[", &all[..], b"]\n[\0\0]\n[\xff\xfe]\n[\xc3]\n"].concat();
    exchange(&input, &wanted);
}

const MOST: usize = 64 * 1024;
const FAREWELL: &[u8] = b"Line too long (limit 65536 bytes)\n";

#[test]
fn a_line_of_exactly_the_limit_is_a_line() {
    let line = vec![b'x'; MOST];
    let reply = [b"[", &line[..], b"]\n"].concat();
    for end in ["\n", "\r\n", "", "\r"] {
        let server = server(Limits::default());
        let mut client = server.connect();
        client.send("before\n");
        client.send(&line);
        client.send(end);
        if end.ends_with('\n') {
            client.send("after\n");
        }
        client.end();
        let after: &[u8] = if end.ends_with('\n') { b"[after]\n" } else { b"" };
        let got = client.rest();
        assert!(got == [b"[before]\n", &reply[..], after].concat(), "{end:?}: {}", got.len());
        drop(client);
        assert_eq!(server.stop().1.closed(CloseReason::PeerClosed), 1);
    }
}

/// Answered, closed, and nothing after it interpreted: whether its end has come, will come, or
/// never does.
#[test]
fn one_byte_more_is_the_end_of_it() {
    let line = vec![b'x'; MOST + 1];
    for after in ["\nafter\n", "\r\nafter\n", "", "yyyyyyyyyyyyyyyyyyyyyyyy", "\r"] {
        for ended in [true, false] {
            let server = server(Limits::default());
            let mut client = server.connect();
            client.send("before\n");
            client.send(&line);
            client.send(after);
            if ended {
                client.end();
            }
            let got = client.rest();
            assert!(
                got == [b"[before]\n", FAREWELL].concat(),
                "{after:?}: {:?}",
                String::from_utf8_lossy(&got[got.len().saturating_sub(200)..])
            );
            drop(client);
            let (_, counters) = server.stop();
            assert_eq!((counters.lines_in, counters.closed(CloseReason::LineTooLong)), (1, 1));
        }
    }
}

#[test]
fn what_follows_an_overlong_line_later_is_not_interpreted_either() {
    let server = server(Limits { max_line: 10, ..Limits::default() });
    let mut client = server.connect();
    client.send("0123456789\r\n0123456789x");
    client.expect("[0123456789]\nLine too long (limit 10 bytes)\n");
    client.send("\nafter\n");
    client.end();
    assert_eq!(client.rest(), b"");
    drop(client);
    assert_eq!(server.stop().1.lines_in, 1);
}

/// What a hook does to its own connection, and whether the next line of the same read is handled.
type Deed = (&'static str, fn(&mut Context<'_, ()>), bool);

const DEEDS: &[Deed] = &[
    ("nothing", |_| {}, true),
    ("pause", |cx| cx.pause(), false),
    ("pause and resume", pause_and_resume, true),
    ("pause, send and resume", pause_send_and_resume, true),
    ("pause by id", |cx| by_id(cx).pause(), false),
    ("pause by id and resume", pause_by_id_and_resume, true),
    ("a block", |cx| cx.take_block(4), false),
    ("a block by id", |cx| by_id(cx).take_block(4), false),
    ("a block of no bytes", |cx| cx.take_block(0), true),
    ("close", |cx| cx.close(), false),
    ("close by id", |cx| by_id(cx).close(), false),
    ("abort", |cx| cx.abort(), false),
    ("half-close", |cx| cx.half_close(), true),
    ("too much to send", |cx| _ = cx.send(vec![b'x'; 256 * 1024 + 1]), false),
    ("too much to broadcast", |cx| cx.broadcast(vec![b'x'; 256 * 1024 + 1]), false),
    ("a broadcast", |cx| cx.broadcast("x"), true),
];

fn by_id<'c>(cx: &'c mut Context<'_, ()>) -> Context<'c, ()> {
    let id = cx.id();
    cx.connection(id).unwrap()
}

fn pause_and_resume(cx: &mut Context<'_, ()>) {
    cx.pause();
    cx.resume();
}

fn pause_send_and_resume(cx: &mut Context<'_, ()>) {
    cx.pause();
    cx.send("between\n");
    cx.resume();
}

fn pause_by_id_and_resume(cx: &mut Context<'_, ()>) {
    by_id(cx).pause();
    cx.resume();
}

/// Does a deed at the line `now`, before or after a reply to it.
struct Doer {
    deed: fn(&mut Context<'_, ()>),
    replies: (bool, bool),
    lines: Vec<String>,
}

impl Handler for Doer {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        self.lines.push(String::from_utf8_lossy(line).into_owned());
        if self.replies.0 {
            cx.send("before\n");
        }
        if line == b"now" {
            (self.deed)(cx);
        }
        if self.replies.1 {
            cx.writer().put("after\n");
        }
    }
}

#[test]
fn a_hook_stops_the_lines_that_came_in_the_same_read() {
    for (name, deed, goes_on) in DEEDS {
        for replies in [(false, false), (true, false), (false, true), (true, true)] {
            let mut server = Harness::new(Doer { deed: *deed, replies, lines: Vec::new() });
            let client = server.connect();
            // Else what is held back by its output would not be for long.
            server.take_only(client, Some(0));
            server.feed(client, "one\nnow\ntwo\n");
            let lines = &server.handler().lines;
            let wanted: &[&str] = if *goes_on { &["one", "now", "two"] } else { &["one", "now"] };
            assert_eq!(lines, wanted, "{name}, {replies:?}");
        }
    }
}
