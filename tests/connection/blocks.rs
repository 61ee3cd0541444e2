//! Lines with bodies: `take_block` and `on_block`.

use std::time::Duration;

use reactor::testing::{Client, Harness};
use reactor::{CloseReason, Context, Handler, Limits, ServiceContext};

use crate::util::Server;

const SECOND: Duration = Duration::from_secs(1);

/// `BODY 3 5` says that a block of 3 bytes follows, and behind it one of 5; a plain line comes back in
/// brackets, a block in angles.
#[derive(Default)]
struct Post {
    /// Every hook pauses its connection.
    pauses: bool,
    /// Stays when the client has ended its side.
    stays: bool,
    /// What is to be a block for those who have just come.
    preamble: Option<usize>,
    /// The longest piece.
    longest: usize,
}

#[derive(Default)]
struct Session {
    /// The blocks that follow the one that is under way.
    next: Vec<usize>,
    body: Vec<u8>,
}

enum Ask {
    Resume,
    /// What comes next of everybody is a block, whatever has come already.
    Block(usize),
}

impl Post {
    fn pause(&self, cx: &mut Context<'_, Session>) {
        if self.pauses {
            cx.pause();
        }
    }
}

impl Handler for Post {
    type Session = Session;
    type Message = Ask;

    fn on_open(&mut self, cx: &mut Context<'_, Session>) {
        if let Some(count) = self.preamble {
            cx.take_block(count);
        }
    }

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        self.pause(cx);
        let Some(counts) = line.strip_prefix(b"BODY ") else {
            cx.send([b"[", line, b"]\n"].concat());
            return;
        };
        let counts = str::from_utf8(counts).unwrap().split(' ').map(|count| count.parse().unwrap());
        cx.session().next = counts.collect();
        let first = cx.session().next.remove(0);
        cx.take_block(first);
    }

    fn on_block(&mut self, cx: &mut Context<'_, Session>, piece: &[u8], end: bool) {
        self.pause(cx);
        self.longest = self.longest.max(piece.len());
        let session = cx.session();
        session.body.extend(piece);
        if end {
            let body = std::mem::take(&mut session.body);
            cx.send([b"<", &body[..], b">\n"].concat());
            if !cx.session().next.is_empty() {
                let next = cx.session().next.remove(0);
                cx.take_block(next);
            }
        } else {
            assert!(!piece.is_empty());
        }
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Session>) {
        let cut = cx.session().body.len();
        writeln!(cx, "the end, {cut} bytes of a block");
        if !self.stays {
            cx.close();
        }
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, Session>, ask: Ask) {
        let all: Vec<_> = cx.connections().map(|(id, _)| id).collect();
        for id in all {
            let mut connection = cx.connection(id).unwrap();
            match ask {
                Ask::Resume => connection.resume(),
                Ask::Block(count) => connection.take_block(count),
            }
        }
    }
}

fn text(server: &mut Harness<Post>, client: Client) -> String {
    String::from_utf8(server.sent(client)).unwrap()
}

fn tight() -> Limits {
    Limits { lines_per_turn: 1, bytes_per_turn: 7, ..Limits::default() }
}

#[test]
fn lines_and_blocks_in_any_split() {
    let body = "0123456\r\n\n".repeat(500);
    let input = format!(
        "one\r\nBODY 12\nraw\nBODY 3\n\0two\nBODY 1\n\nBODY 0\nBODY 2 0 0 3\nab\n\nc\nBODY 5000\n{body}last"
    );
    let wanted = format!(
        "[one]\n<raw\nBODY 3\n\0>\n[two]\n<\n>\n<>\n<ab>\n<>\n<>\n<\n\nc>\n[]\n<{body}>\n[last]\n\
         the end, 0 bytes of a block\n"
    );
    for (limits, pauses) in
        [(tight(), false), (Limits::default(), false), (tight(), true), (Limits::default(), true)]
    {
        for piece in (1..60).chain([4_095, 4_096, 4_097, 10_000]) {
            let handler = Post { pauses, ..Post::default() };
            let mut server = Harness::with_limits(handler, limits.clone());
            let client = server.connect();
            input.as_bytes().chunks(piece).for_each(|piece| server.feed(client, piece));
            server.end(client);
            let mut rounds = 0;
            while server.closed(client).is_none() {
                server.post(Ask::Resume);
                rounds += 1;
                assert!(rounds < 10_000, "it stalls: {pauses}, {piece}");
            }
            assert_eq!(text(&mut server, client), wanted, "{pauses}, {piece}");
            assert_eq!(server.left_over(), (0, 0));
        }
    }
}

#[test]
fn a_long_block_is_taken_as_it_comes_over_a_socket() {
    let server = Server::start(Limits { max_line: 20, ..Limits::default() }, Post::default);
    let mut client = server.connect();
    let body = vec![b'x'; 8 << 20];
    client.send(format!("BODY {}\n", body.len()));
    client.send(&body);
    client.send("after\n");
    client.expect([b"<", &body[..], b">\n[after]\n"].concat());
}

#[test]
fn nothing_of_a_block_is_kept() {
    let limits = Limits { bytes_per_turn: 1_000, max_line: 20, ..Limits::default() };
    let mut server = Harness::with_limits(Post::default(), limits);
    let client = server.connect();
    server.feed(client, "BODY 100000\n");
    server.feed(client, [b'x'; 100_000]);
    assert_eq!(server.handler().longest, 1_000);
    assert_eq!(server.sent(client).len(), 100_003);
}

#[test]
fn the_end_of_a_block_of_no_bytes_is_told_once_whatever_comes() {
    for input in ["BODY 0\n", "BODY 0\nx"] {
        for pauses in [false, true] {
            let mut server = Harness::new(Post { pauses, ..Post::default() });
            let client = server.connect();
            server.feed(client, input);
            if pauses {
                assert_eq!(text(&mut server, client), "");
                server.post(Ask::Resume);
            }
            assert_eq!(text(&mut server, client), "<>\n");
            server.post(Ask::Resume);
            server.end(client);
            server.post(Ask::Resume);
            let wanted = if input.ends_with('x') { "[x]\nthe end" } else { "the end" };
            assert!(text(&mut server, client).starts_with(wanted));
        }
    }
}

#[test]
fn a_connection_may_begin_with_a_block() {
    for (count, wanted) in [(3, "<a\nb>\n[]\n"), (0, "<>\n[a]\n[b]\n")] {
        let mut server = Harness::new(Post { preamble: Some(count), ..Post::default() });
        let client = server.connect();
        let mut got = text(&mut server, client);
        assert_eq!(got.is_empty(), count > 0, "no byte has to come for a block of none");
        server.feed(client, "a\nb\n");
        got.push_str(&text(&mut server, client));
        assert_eq!(got, wanted);
    }
}

/// A line has been looked for in vain in the bytes that become a block: they are offered again, and
/// what was found says nothing of those behind them.
#[test]
fn an_unfinished_line_may_become_a_block() {
    let mut server = Harness::new(Post::default());
    let client = server.connect();
    server.feed(client, "0123456789");
    server.post(Ask::Block(4));
    assert_eq!(text(&mut server, client), "<0123>\n");
    server.post(Ask::Block(8));
    server.feed(client, "ab\ncd\n");
    assert_eq!(text(&mut server, client), "<456789ab>\n[]\n[cd]\n");
    // A block is cut short where it is, and another is made longer.
    server.feed(client, "BODY 9\nabc");
    server.post(Ask::Block(1));
    server.feed(client, "de\nBODY 1\n");
    server.post(Ask::Block(2));
    server.feed(client, "fgh\n");
    assert_eq!(text(&mut server, client), "<abcd>\n[e]\n<fg>\n[h]\n");
}

#[test]
fn whoever_ends_within_a_block_is_told_of_as_one_who_ends() {
    let mut server = Harness::new(Post { stays: true, ..Post::default() });
    let client = server.connect();
    server.feed(client, "BODY 10\nabc");
    server.end(client);
    assert_eq!(text(&mut server, client), "the end, 3 bytes of a block\n");
    // It owes nothing any more.
    server.advance(1_000 * SECOND);
    server.post(Ask::Block(0));
    assert_eq!((server.closed(client), text(&mut server, client)), (None, String::new()));
    server.reset(client);
    assert_eq!(server.left_over(), (0, 0));
}

#[test]
fn a_block_that_does_not_move_is_cut_off() {
    let mut server = Harness::new(Post::default());
    let client = server.connect();
    server.feed(client, "BODY 10\n");
    for _ in 0..9 {
        server.advance(59 * SECOND);
        server.feed(client, "x");
    }
    assert_eq!(server.closed(client), None);
    server.advance(60 * SECOND);
    assert_eq!(server.closed(client), Some(CloseReason::LineTimeout));
    assert_eq!(server.sent(client), b"Line not finished in time (limit 60 s)\n");

    // Also one that has not begun to move. But after a block nobody owes anything.
    for (input, reason) in [("BODY 1\n", Some(CloseReason::LineTimeout)), ("BODY 1\nx", None)] {
        let client = server.connect();
        server.feed(client, input);
        server.advance(60 * SECOND);
        assert_eq!(server.closed(client), reason, "{input:?}");
    }
}

#[test]
fn while_the_handler_pauses_a_block_has_time() {
    let mut server = Harness::new(Post { pauses: true, ..Post::default() });
    let client = server.connect();
    server.feed(client, "BODY 10\nabc");
    server.advance(100 * SECOND);
    server.post(Ask::Resume);
    server.advance(100 * SECOND);
    assert_eq!(server.closed(client), None);
    server.post(Ask::Resume);
    server.advance(59 * SECOND);
    assert_eq!(server.closed(client), None);
    server.advance(SECOND);
    assert_eq!(server.closed(client), Some(CloseReason::LineTimeout));
}

/// One who does not read the replies to its blocks is not read; nothing is lost.
#[test]
fn a_block_is_held_back_by_its_own_replies() {
    let limits = Limits { high_water: 100, low_water: 10, ..Limits::default() };
    let mut server = Harness::with_limits(Post::default(), limits);
    let client = server.connect();
    server.take_only(client, Some(0));
    let input = "BODY 30\n".to_owned() + &"x".repeat(30);
    server.feed(client, input.repeat(20));
    assert_eq!(server.unsent(), 4 * 33);
    server.take_only(client, None);
    assert_eq!(text(&mut server, client), format!("<{}>\n", "x".repeat(30)).repeat(20));
}

/// Empty blocks without end.
struct Endless(usize);

impl Handler for Endless {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, _: &[u8]) {
        cx.take_block(0);
    }

    fn on_block(&mut self, cx: &mut Context<'_, ()>, _: &[u8], _: bool) {
        self.0 -= 1;
        if self.0 > 0 {
            cx.take_block(0);
        }
    }
}

#[test]
fn each_piece_has_a_part_of_the_share_of_a_turn() {
    let limits = Limits { lines_per_turn: 10, ..Limits::default() };
    let mut server = Harness::with_limits(Endless(1_000), limits);
    let client = server.connect();
    let turns = server.counters().turns;
    server.feed(client, "go\n");
    assert_eq!((server.handler().0, server.counters().lines_in), (0, 1));
    assert!(server.counters().turns - turns >= 100);
}

/// A length in four bytes, then as many bytes, of any length: on `on_bytes`.
#[derive(Default)]
struct Frames {
    sum: usize,
}

impl Handler for Frames {
    type Session = ();
    type Message = ();

    fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        let Some(head) = bytes.first_chunk() else { return 0 };
        cx.take_block(u32::from_be_bytes(*head) as usize);
        head.len()
    }

    fn on_block(&mut self, cx: &mut Context<'_, ()>, piece: &[u8], end: bool) {
        self.sum += piece.len();
        if end {
            writeln!(cx, "{}", std::mem::take(&mut self.sum));
        }
    }
}

#[test]
fn a_protocol_of_bytes_has_blocks_too() {
    let lengths = [3, 0, 0, 70_000, 1, 5_000];
    let frame = |length: &u32| [&length.to_be_bytes()[..], &vec![0; *length as usize]].concat();
    let input: Vec<u8> = lengths.iter().flat_map(frame).collect();
    for piece in [1, 2, 3, 5, 4_096, 100_000] {
        let limits = Limits { max_frame: Some(4), ..Limits::default() };
        let mut server = Harness::with_limits(Frames::default(), limits);
        let client = server.connect();
        input.chunks(piece).for_each(|piece| server.feed(client, piece));
        assert_eq!(server.sent(client), b"3\n0\n0\n70000\n1\n5000\n", "{piece}");
    }
}

/// Looks through lines itself, and takes a block where one says so.
struct OwnLines;

impl Handler for OwnLines {
    type Session = ();
    type Message = ();

    fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        let mut lines = cx.lines(bytes);
        while let Some(line) = lines.next(cx) {
            cx.send([b"[", line, b"]"].concat());
            if line == b"block" {
                cx.take_block(4);
            }
        }
        lines.taken()
    }
}

#[test]
fn a_block_ends_the_lines_in_an_on_bytes_of_ones_own() {
    let mut server = Harness::new(OwnLines);
    let client = server.connect();
    server.feed(client, "one\nblock\na\nb\ntwo\nblock\nabcdblock\na");
    server.feed(client, "bcdthree\n");
    assert_eq!(server.sent(client), b"[one][block][two][block][block][three]");
}
