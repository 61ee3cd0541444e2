//! Protocols that are not lines, or not always: `on_bytes` beneath the framing.

use reactor::testing::Harness;
use reactor::{CloseReason, Context, Handler, Limits, ServiceContext};

use crate::util::Server;

/// A length in two bytes, then as many bytes; each frame is sent back in brackets.
struct Frames;

impl Handler for Frames {
    type Session = ();
    type Message = ();

    fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        let Some((head, rest)) = bytes.split_first_chunk::<2>() else { return 0 };
        let length = usize::from(u16::from_be_bytes(*head));
        let Some(body) = rest.get(..length) else { return 0 };
        cx.send([b"[", body, b"]"].concat());
        2 + length
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [&length.to_be_bytes(), body].concat()
}

#[test]
fn length_prefixes_in_any_split() {
    let bodies = ["", "a", "two\nlines\r\n", "\0\u{1}", &"long ".repeat(300), "", "end"];
    let input: Vec<u8> = bodies.iter().flat_map(|body| frame(body.as_bytes())).collect();
    let wanted: String = bodies.iter().map(|body| format!("[{body}]")).collect();
    for piece in (1..20).chain([100, 1_000, 1_504, 1_505, 1_506, 10_000]) {
        let mut server = Harness::new(Frames);
        let client = server.connect();
        input.chunks(piece).for_each(|piece| server.feed(client, piece));
        assert_eq!(String::from_utf8(server.sent(client)).unwrap(), wanted, "pieces of {piece}");
        server.end(client);
        assert_eq!(server.closed(client), Some(CloseReason::PeerClosed));
    }
}

#[test]
fn length_prefixes_over_a_socket() {
    let server = Server::start(Limits::default(), || Frames);
    let mut client = server.connect();
    let body = vec![b'x'; 60_000];
    for _ in 0..20 {
        client.send(frame(&body));
        client.send(frame(b""));
    }
    client.end();
    let reply = [b"[", &body[..], b"][]"].concat();
    assert!(client.rest() == reply.repeat(20));
}

#[test]
fn more_left_untaken_than_a_frame_may_be_long_is_the_end() {
    let limits = Limits { max_line: 100, ..Limits::default() };
    let mut server = Harness::with_limits(Frames, limits.clone());
    let client = server.connect();
    server.feed(client, frame(&[b'x'; 98]));
    assert_eq!(server.sent(client), [b"[", &[b'x'; 98][..], b"]"].concat());
    server.feed(client, &frame(&[b'x'; 200])[..100]);
    assert_eq!(server.closed(client), None);
    server.feed(client, "x");
    assert_eq!(server.closed(client), Some(CloseReason::LineTooLong));
    assert_eq!(server.sent(client), b"Frame too long (limit 100 bytes)\n");
    assert_eq!(server.left_over().0, 1, "it lingers");

    // A rest that is taken as it comes is no rest, however much comes at once.
    let mut server = Harness::with_limits(Frames, limits);
    let client = server.connect();
    server.feed(client, frame(b"short").repeat(1_000));
    assert_eq!(server.sent(client), b"[short]".repeat(1_000));
}

#[test]
fn lines_and_frames_have_a_bound_each() {
    // What the line framing leaves is a line, whatever frames may have.
    let limits = Limits { max_line: 10, max_frame: Some(1_000), ..Limits::default() };
    let mut server = Harness::with_limits(Requests, limits.clone());
    let client = server.connect();
    server.feed(client, [b'x'; 11]);
    assert_eq!(server.closed(client), Some(CloseReason::LineTooLong));
    assert_eq!(server.sent(client), b"Line too long (limit 10 bytes)\n");

    let mut server = Harness::with_limits(Frames, limits);
    let client = server.connect();
    server.feed(client, &frame(&[b'x'; 998])[..999]);
    server.feed(client, "x");
    assert_eq!(server.sent(client).len(), 1_000);
    server.feed(client, &frame(&[b'\r'; 1_000])[..1_001]);
    assert_eq!(server.closed(client), Some(CloseReason::LineTooLong));
    assert_eq!(server.sent(client), b"Frame too long (limit 1000 bytes)\n");
    assert!(Limits { max_frame: Some(0), ..Limits::default() }.check().is_err());
}

/// Requests of two lines, taken together or not at all; `cut` says that the last line has no end.
struct Requests;

impl Handler for Requests {
    type Session = ();
    type Message = ();

    fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        let mut lines = cx.lines(bytes);
        assert!(!lines.is_whole(), "there is no last line yet");
        let Some(first) = lines.next(cx) else { return 0 };
        let whole = lines.is_whole();
        let Some(second) = lines.next(cx) else {
            if !whole || cx.at_eof() {
                cx.send("cut\n");
            }
            return 0;
        };
        cx.send([first, b"+", second, if lines.is_whole() { b"\n" } else { b" cut\n" }].concat());
        lines.taken()
    }
}

/// The first line used up the share of a turn, the second was not seen in that turn; and since nothing
/// was taken, the handler seemed to need more than had come.
#[test]
fn nothing_taken_at_the_end_of_a_share_does_not_stall() {
    for lines_per_turn in 2..8 {
        let limits = Limits { lines_per_turn, ..Limits::default() };
        let mut server = Harness::with_limits(Requests, limits);
        let client = server.connect();
        server.feed(client, "a\nb\n".repeat(20));
        assert_eq!(server.sent(client), b"a+b\n".repeat(20), "{lines_per_turn}");
    }
}

#[test]
fn a_line_tells_whether_it_is_whole() {
    for (input, wanted) in [
        ("a\nb\n", "a+b\n"),
        ("a\nb", "a+b cut\n"),
        ("a\nb\r", "a+b cut\n"),
        ("a", "cut\n"),
        ("a\n", "cut\n"),
        ("\n\n", "+\n"),
    ] {
        let mut server = Harness::new(Requests);
        let client = server.connect();
        server.feed(client, input);
        server.end(client);
        assert_eq!(String::from_utf8(server.sent(client)).unwrap(), wanted, "{input:?}");
    }
}

#[test]
fn a_line_that_is_looked_at_twice_counts_twice() {
    let mut server = Harness::new(Requests);
    let client = server.connect();
    server.feed(client, "a\n");
    server.feed(client, "b");
    server.feed(client, "\n");
    assert_eq!((server.sent(client), server.counters().lines_in), (b"a+b\n".to_vec(), 1 + 1 + 2));
}

/// A line, then three raw bytes, then a line again, all in one call; the last byte is left behind.
struct Mixed;

impl Handler for Mixed {
    type Session = ();
    type Message = ();

    fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        let mut first = cx.lines(bytes);
        let Some(a) = first.next(cx) else { return 0 };
        let rest = &bytes[first.taken()..];
        let Some((raw, rest)) = rest.split_at_checked(3) else { return 0 };
        let mut second = cx.lines(rest);
        let Some(b) = second.next(cx) else { return 0 };
        cx.send([b"[", a, b"][", raw, b"][", b, b"]"].concat());
        // Less than was looked at.
        first.taken() + raw.len() + second.taken() - 1
    }
}

#[test]
fn lines_may_follow_on_the_rest_and_less_may_be_taken() {
    let mut server = Harness::new(Mixed);
    let client = server.connect();
    let input = "one\n\n\n\ntwo\n\nabcthree\n";
    input.bytes().for_each(|byte| server.feed(client, [byte]));
    assert_eq!(server.sent(client), b"[one][\n\n\n][two][][\nab][cthree]");
}

/// Lines; `BODY n` says that n raw bytes follow, then lines again: as in HTTP.
struct Post;

#[derive(Default)]
struct Session {
    missing: usize,
    body: Vec<u8>,
}

impl Handler for Post {
    type Session = Session;
    type Message = usize;

    /// The next so many bytes of everybody are raw, whatever has come already.
    fn on_message(&mut self, cx: &mut ServiceContext<'_, Session>, missing: usize) {
        let all: Vec<_> = cx.connections().map(|(id, _)| id).collect();
        all.into_iter().for_each(|id| cx.connection(id).unwrap().session().missing = missing);
    }

    fn on_bytes(&mut self, cx: &mut Context<'_, Session>, bytes: &[u8]) -> usize {
        let session = cx.session();
        if session.missing > 0 {
            let count = session.missing.min(bytes.len());
            session.body.extend(&bytes[..count]);
            session.missing -= count;
            if session.missing == 0 {
                let body = std::mem::take(&mut session.body);
                cx.send([b"<", &body[..], b">\n"].concat());
            }
            return count;
        }
        let mut lines = cx.lines(bytes);
        while let Some(line) = lines.next(cx) {
            self.on_line(cx, line);
            if cx.session().missing > 0 {
                break;
            }
        }
        lines.taken()
    }

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        match line.strip_prefix(b"BODY ") {
            Some(count) => {
                cx.session().missing = str::from_utf8(count).unwrap().parse().unwrap();
            }
            None => drop(cx.send([b"[", line, b"]\n"].concat())),
        }
    }
}

#[test]
fn lines_then_raw_bytes_then_lines_in_any_split() {
    let input = "one\r\nBODY 12\nraw\nBODY 3\n\0two\nBODY 1\n\nBODY 5000\n";
    let body = "0123456\r\n\n".repeat(500);
    let input = format!("{input}{body}last");
    let wanted = format!("[one]\n<raw\nBODY 3\n\0>\n[two]\n<\n>\n<{body}>\n[last]\n");
    for small in [true, false] {
        for piece in (1..60).chain([4_095, 4_096, 4_097, 10_000]) {
            let limits = match small {
                true => Limits { lines_per_turn: 1, bytes_per_turn: 7, ..Limits::default() },
                false => Limits::default(),
            };
            let mut server = Harness::with_limits(Post, limits);
            let client = server.connect();
            input.as_bytes().chunks(piece).for_each(|piece| server.feed(client, piece));
            server.end(client);
            assert_eq!(String::from_utf8(server.sent(client)).unwrap(), wanted, "{piece}");
        }
    }
}

/// A line has been looked for in vain in the bytes that are then taken raw: that says nothing of
/// those after them.
#[test]
fn a_search_for_lines_is_forgotten_with_the_bytes_it_was_in() {
    let mut server = Harness::new(Post);
    let client = server.connect();
    server.feed(client, "0123456789");
    server.post(12);
    server.feed(client, "ab\ncd\n");
    assert_eq!(String::from_utf8(server.sent(client)).unwrap(), "<0123456789ab>\n[]\n[cd]\n");
}

/// Takes nothing until it is paused and resumed: what was left is offered again.
struct Later;

impl Handler for Later {
    type Session = bool;
    type Message = bool;

    fn on_bytes(&mut self, cx: &mut Context<'_, bool>, bytes: &[u8]) -> usize {
        if !*cx.session() {
            cx.pause();
            return 0;
        }
        cx.send(bytes);
        bytes.len()
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, bool>, ready: bool) {
        let all: Vec<_> = cx.connections().map(|(id, _)| id).collect();
        for id in all {
            let mut connection = cx.connection(id).unwrap();
            *connection.session() = ready;
            connection.resume();
        }
    }
}

#[test]
fn what_is_left_in_a_pause_is_offered_again_after_it() {
    let mut server = Harness::new(Later);
    let client = server.connect();
    server.feed(client, "first ");
    server.feed(client, "second");
    server.post(false);
    assert_eq!(server.sent(client), b"");
    server.post(true);
    assert_eq!(server.sent(client), b"first second");
    server.end(client);
    assert_eq!(server.left_over(), (0, 0));
}
