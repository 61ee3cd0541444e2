//! Lines, over real sockets and byte for byte.

use crate::util;

use reactor::{Callbacks, CloseReason, Limits};
use util::Server;

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
