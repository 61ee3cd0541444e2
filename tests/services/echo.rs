//! The echo service over real sockets, byte for byte as its protocol says.

#![cfg(feature = "services")]

use reactor::services::Echo;
use reactor::{CloseReason, Exit, Limits};

use crate::util::Server;

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";

fn server() -> Server<()> {
    Server::start(Limits::default(), || Echo)
}

#[test]
fn upper_cases_lf_and_crlf_lines_and_closes_after_bye() {
    let server = server();
    let mut client = server.connect();
    client.expect(GREETING);
    client.send("hello, été\r\n\nBye\n");
    assert_eq!(client.rest(), "> HELLO, ÉTÉ\n> \n> BYE\n".as_bytes());
    drop(client);
    let (exit, counters) = server.stop();
    assert_eq!(exit, Exit::Clean);
    assert_eq!((counters.accepted, counters.lines_in, counters.open), (1, 3, 0));
    assert_eq!(counters.closed(CloseReason::Closed), 1);
}

#[test]
fn two_hundred_thousand_pipelined_lines_come_back_in_order() {
    let server = server();
    let mut client = server.connect();
    client.expect(GREETING);
    let lines: String = (0..200_000).map(|n| format!("line number {n}\n")).collect();
    let replies: String = (0..200_000).map(|n| format!("> LINE NUMBER {n}\n")).collect();
    let mut writer = client.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, lines.as_bytes()).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    assert!(client.rest() == replies.as_bytes());
    sending.join().unwrap();
}

/// What PuTTY sends as soon as it is connected, and what it is told.
const PUTTY: &[u8] =
    b"\xff\xfb\x1f\xff\xfb\x20\xff\xfb\x18\xff\xfb\x27\xff\xfd\x01\xff\xfb\x03\xff\xfd\x03";
const REFUSED: &[u8] =
    b"\xff\xfe\x1f\xff\xfe\x20\xff\xfe\x18\xff\xfe\x27\xff\xfc\x01\xff\xfe\x03\xff\xfc\x03";

#[test]
fn telnets_commands_are_answered_and_no_part_of_a_line() {
    let server = server();
    let mut client = server.connect();
    client.expect(GREETING);
    client.send([PUTTY, b"hello\r\n"].concat());
    client.expect([REFUSED, b"> HELLO\n"].concat());
    for (sent, heard) in [
        // Ctrl-C: the client prints nothing until it is told that its mark was seen.
        (&b"\xff\xf4\xff\xfd\x06back\r\n"[..], &b"\xff\xfb\x06> BACK\n"[..]),
        // What needs no answer.
        (
            b"\xff\xfc\x01\xff\xfe\x03\xff\xf1\xff\xf9\xff\xfa\x18\x00xterm\xff\xff\xff\xf0x\n",
            b"> X\n",
        ),
        // In front of any line, and nowhere else.
        (b"a\n\xff\xf1b\nc\xff\xf1\n", b"> A\n> B\n> C\xff\xf1\n"),
        // An option that is a letter is no letter.
        (b"\xff\xfbz\xff\xfdaz\n", b"\xff\xfez\xff\xfca> Z\n"),
        // Data.
        (
            b"\xff\xffa\n\xff\xfb\n\xff\xfd\r\n\xff\n",
            b"> \xff\xffA\n> \xff\xfb\n> \xff\xfd\n> \xff\n",
        ),
        (b"\xff\xfa\x1f\0\nb\xff\xf0\n", b"> \xff\xfa\x1f\0\n> B\xff\xf0\n"),
        (b"\xff\xf0\n", b"> \xff\xf0\n"),
    ] {
        client.send(sent);
        client.expect(heard);
    }
    // A line of nothing but a command is empty, and so is no line at the end of the input.
    client.send(b"\xff\xf4\n\xff\xf4");
    client.end();
    assert_eq!(client.rest(), b"> \n");
}

#[test]
fn telnets_commands_may_come_in_any_pieces() {
    let server = server();
    let sent = [PUTTY, b"hi\r\n\xff\xfa\x18\x00vt100\xff\xf0\xff\xf4\xff\xfd\x06bye\r\n"].concat();
    let heard = [REFUSED, b"> HI\n\xff\xfb\x06> BYE\n"].concat();
    for size in [1, 2, 5] {
        let mut client = server.connect();
        client.stream.set_nodelay(true).unwrap();
        client.expect(GREETING);
        sent.chunks(size).for_each(|piece| client.send(piece));
        assert_eq!(client.rest(), heard, "{size}");
    }
}

#[test]
fn a_command_that_the_end_cuts_off_is_data() {
    let server = server();
    for (sent, heard) in [
        (&b"\xff"[..], &b"> \xff\n"[..]),
        (b"\xff\xf4\xff\xfd", b"> \xff\xfd\n"),
        (b"\xff\xfa\x18a", b"> \xff\xfa\x18A\n"),
    ] {
        let mut client = server.connect();
        client.expect(GREETING);
        client.send(sent);
        client.end();
        assert_eq!(client.rest(), heard);
    }
}

#[test]
fn a_subnegotiation_without_an_end_is_held_to_a_lines_bound_or_is_data() {
    let server = Server::start(Limits { max_line: 100, ..Limits::default() }, || Echo);
    let mut client = server.connect();
    client.expect(GREETING);
    client.send([&b"\xff\xfa"[..], &[b'x'; 100]].concat());
    assert_eq!(client.rest(), b"Line too long (limit 100 bytes)\n");
    let server = self::server();
    let mut client = server.connect();
    client.expect(GREETING);
    let line = [&b"\xff\xfa"[..], &[b'X'; 600]].concat();
    client.send([&line[..], b"\n"].concat());
    client.expect([b"> ", &line[..], b"\n"].concat());
}
