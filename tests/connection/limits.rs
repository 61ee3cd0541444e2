//! The limits against clients that mean harm, each with the bound it keeps.

use std::cell::{Cell, RefCell};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use reactor::testing::{Client, Harness};
use reactor::{
    Callbacks, CloseReason, ConnId, Context, Counters, Handler, Limits, Rate, Rates, Reactor,
};
use reactor::{ServiceContext, TimerId};

use crate::util::{self, Server, until};

const SECOND: Duration = Duration::from_secs(1);

/// Answers each line with itself; posted a sender, it says what the loop has counted.
struct Parrot;

impl Handler for Parrot {
    type Session = ();
    type Message = mpsc::Sender<Counters>;

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        match line {
            b"pause" => {
                cx.pause();
                cx.set_timer(100 * SECOND);
            }
            _ => {
                cx.send([line, b"\n"].concat());
            }
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_, ()>, _: TimerId) {
        cx.resume();
    }

    fn on_eof(&mut self, cx: &mut Context<'_, ()>) {
        cx.send("the end\n");
        cx.close();
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, tell: mpsc::Sender<Counters>) {
        let _ = tell.send(cx.counters());
    }
}

fn parrot(limits: Limits) -> (Harness<Parrot>, Client) {
    let mut server = Harness::with_limits(Parrot, limits);
    let client = server.connect();
    (server, client)
}

fn numbers(from: usize, to: usize) -> String {
    (from..to).map(|number| format!("{number}\n")).collect()
}

// ---- The rate ----

fn ten_a_second() -> Limits {
    Limits { rate: Rate { per_second: 10, burst: 5 }.into(), ..Limits::default() }
}

#[test]
fn a_flood_is_handled_at_the_rate_and_loses_nothing() {
    let (mut server, client) = parrot(ten_a_second());
    server.feed(client, numbers(0, 30));
    assert_eq!(server.sent(client), numbers(0, 5).as_bytes(), "the burst");
    server.advance(SECOND / 10);
    assert_eq!(server.sent(client), numbers(5, 6).as_bytes());
    server.advance(SECOND);
    assert_eq!(server.sent(client), numbers(6, 16).as_bytes());
    server.feed(client, "last");
    server.end(client);
    server.advance(2 * SECOND);
    assert_eq!(server.sent(client), (numbers(16, 30) + "last\nthe end\n").as_bytes());
    assert_eq!(server.closed(client), Some(CloseReason::PeerClosed));
}

#[test]
fn a_flood_is_not_even_read() {
    let limits = Limits { bytes_per_turn: 100, ..ten_a_second() };
    let (mut server, client) = parrot(limits);
    server.feed(client, "0123456\n".repeat(1_000));
    let reads = server.reads(client);
    assert!(reads <= 2, "{reads}");
    server.advance(SECOND / 10);
    assert!(server.reads(client) <= reads + 1);
}

#[test]
fn a_polite_client_never_notices_the_rate() {
    let (mut server, client) = parrot(ten_a_second());
    for round in 0..50 {
        server.feed(client, format!("{round}\n"));
        assert_eq!(server.sent(client), format!("{round}\n").as_bytes());
        server.advance(SECOND / 10);
    }
    // What it saved up is a burst and no more.
    server.advance(100 * SECOND);
    server.feed(client, numbers(0, 10));
    assert_eq!(server.sent(client), numbers(0, 5).as_bytes());
}

#[test]
fn who_is_held_to_the_rate_is_not_idle() {
    let rate = Rate { per_second: 1, burst: 1 }.into();
    let limits = Limits { rate, idle_timeout: Some(SECOND / 2), ..Limits::default() };
    let (mut server, client) = parrot(limits);
    server.feed(client, numbers(0, 3));
    server.advance(SECOND);
    server.advance(SECOND);
    assert_eq!(server.sent(client), numbers(0, 3).as_bytes());
    assert_eq!(server.closed(client), None);
    server.advance(2 * SECOND);
    assert_eq!(server.closed(client), Some(CloseReason::IdleTimeout));
}

#[test]
fn a_reset_frees_one_that_is_held_to_the_rate() {
    // What it sent before is handled as fast as it may be, but not for longer than that.
    for (lines, time) in [(30, 3 * SECOND), (1000, Limits::default().flush_timeout)] {
        let (mut server, client) = parrot(ten_a_second());
        server.feed(client, numbers(0, lines));
        server.reset(client);
        assert_eq!(server.closed(client), None);
        server.advance(time);
        assert!(matches!(server.closed(client), Some(CloseReason::Error(_))));
        assert_eq!(server.counters().lines_in, (lines as u64).min(305));
        assert_eq!(server.left_over(), (0, 0));
    }
}

/// Frames of three bytes.
struct Triples(Rc<Cell<usize>>);

impl Handler for Triples {
    type Session = ();
    type Message = ();

    fn on_bytes(&mut self, _: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        let whole = bytes.len() >= 3;
        self.0.set(self.0.get() + usize::from(whole));
        if whole { 3 } else { 0 }
    }
}

#[test]
fn the_rate_counts_frames_where_there_are_no_lines() {
    let seen = Rc::new(Cell::new(0));
    let mut server = Harness::with_limits(Triples(Rc::clone(&seen)), ten_a_second());
    let client = server.connect();
    server.feed(client, "abc".repeat(30));
    assert_eq!(seen.get(), 5);
    server.advance(SECOND);
    assert_eq!(seen.get(), 15);
}

/// Takes blocks of two bytes, and counts the pieces.
struct Pairs(Rc<Cell<usize>>);

impl Handler for Pairs {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, _: &[u8]) {
        cx.take_block(2);
    }

    fn on_block(&mut self, _: &mut Context<'_, ()>, _: &[u8], _: bool) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn the_rate_counts_a_piece_of_a_block_as_a_line() {
    let seen = Rc::new(Cell::new(0));
    let mut server = Harness::with_limits(Pairs(Rc::clone(&seen)), ten_a_second());
    let client = server.connect();
    // Of five at once, the lines are three.
    server.feed(client, "x\nab".repeat(30));
    assert_eq!((seen.get(), server.counters().lines_in), (2, 3));
    server.advance(SECOND);
    assert_eq!(seen.get(), 7);
}

// ---- The rate of bytes ----

/// 8,000 bytes a second, of which an eighth is a thousand.
const BYTES: Rates = Rates { lines: None, bytes: Some(Rate { per_second: 8_000, burst: 8_000 }) };

#[test]
fn bytes_are_read_at_their_rate_and_none_is_lost() {
    let (mut server, client) = parrot(Limits { rate: BYTES, ..Limits::default() });
    let text: String = (0..2_000).map(|number| format!("{number:>9}\n")).collect();
    server.feed(client, &text);
    let mut got = server.sent(client);
    assert_eq!((got.len(), server.counters().bytes_in), (8_000, 8_000), "the burst");
    for eighth in 1..=12 {
        server.advance(SECOND / 8);
        got.extend(server.sent(client));
        let expected = 8_000 + (eighth * 1_000).min(12_000);
        assert_eq!((got.len(), server.counters().bytes_in), (expected, expected as u64));
    }
    assert_eq!(got, text.as_bytes());
}

#[test]
fn who_has_used_up_its_bytes_is_not_woken_for_each() {
    let (mut server, client) = parrot(Limits { rate: BYTES, ..Limits::default() });
    server.feed(client, "x\n".repeat(20_000));
    let (reads, turns) = (server.reads(client), server.counters().turns);
    for _ in 0..1_000 {
        server.advance(SECOND / 1_000);
    }
    assert_eq!(server.counters().bytes_in, 16_000);
    assert_eq!(server.reads(client) - reads, 8);
    assert!(server.counters().turns - turns <= 4 * 8, "{}", server.counters().turns - turns);
}

#[test]
fn the_rate_of_bytes_counts_where_no_line_ends() {
    let (mut server, client) = parrot(Limits { rate: BYTES, ..Limits::default() });
    server.feed(client, vec![b'x'; 30_000]);
    assert_eq!(server.counters().bytes_in, 8_000);
    server.advance(SECOND);
    assert_eq!(server.counters().bytes_in, 16_000);
    server.feed(client, "\n");
    server.advance(2 * SECOND);
    assert_eq!(server.sent(client).len(), 30_001);
}

#[test]
fn of_lines_and_bytes_the_scarcer_counts() {
    let few = Rate { per_second: 10, burst: 10 };
    for (length, burst, each) in [(10, 10, 10), (2_000, 4, 4)] {
        let rate = Rates { lines: Some(few), ..BYTES };
        let (mut server, client) = parrot(Limits { rate, ..Limits::default() });
        server.feed(client, format!("{}\n", "x".repeat(length - 1)).repeat(100));
        assert_eq!(server.counters().lines_in, burst);
        server.advance(SECOND);
        assert_eq!(server.counters().lines_in, burst + each, "{length}");
    }
}

#[test]
fn an_end_is_noticed_once_the_bytes_allow_it() {
    let (mut server, client) = parrot(Limits { rate: BYTES, ..Limits::default() });
    server.feed(client, "1234567\n".repeat(1_000));
    server.end(client);
    assert_eq!(server.closed(client), None);
    server.advance(SECOND / 8);
    assert_eq!(server.closed(client), Some(CloseReason::PeerClosed));
    assert_eq!(server.left_over(), (0, 0));
}

// ---- The rate of a peer ----

fn peer(address: &str) -> std::net::SocketAddr {
    std::net::SocketAddr::new(address.parse().unwrap(), 9)
}

/// Ten lines a second for each peer, five at once.
fn ten_a_peer() -> Limits {
    Limits { peer_rate: Rate { per_second: 10, burst: 5 }.into(), ..Limits::default() }
}

#[test]
fn all_connections_of_a_peer_share_its_rate() {
    for (one, other, shared) in [
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("192.0.2.1", "::ffff:192.0.2.1", true),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
    ] {
        let mut server = Harness::with_limits(Parrot, ten_a_peer());
        let first = server.connect_from(peer(one));
        server.feed(first, numbers(0, 5));
        let second = server.connect_from(peer(other));
        server.feed(second, numbers(0, 5));
        let expected = if shared { String::new() } else { numbers(0, 5) };
        assert_eq!(server.sent(second), expected.as_bytes(), "{one} and {other}");
    }
}

#[test]
fn coming_again_gains_a_peer_nothing() {
    let mut server = Harness::with_limits(Parrot, ten_a_peer());
    let first = server.connect_from(peer("192.0.2.1"));
    server.feed(first, numbers(0, 5));
    server.end(first);
    server.advance(SECOND / 10);
    assert_eq!(server.closed(first), Some(CloseReason::PeerClosed));
    let again = server.connect_from(peer("192.0.2.1"));
    server.feed(again, numbers(0, 5));
    server.advance(SECOND / 10);
    assert_eq!(server.sent(again), numbers(0, 2).as_bytes());
}

#[test]
fn who_has_no_address_is_exempt_and_so_is_who_was_dialled() {
    let mut server = Harness::with_limits(Parrot, ten_a_peer());
    for client in [server.connect(), server.connect()] {
        server.feed(client, numbers(0, 50));
        assert_eq!(server.sent(client), numbers(0, 50).as_bytes());
    }
    let dialled = server.dial();
    server.answer(dialled);
    server.feed(dialled, numbers(0, 50));
    assert_eq!(server.sent(dialled), numbers(0, 50).as_bytes());
}

#[test]
fn of_its_own_rate_and_its_peers_the_smaller_counts() {
    let own = |per_second| Limits { rate: Rate { per_second, burst: 5 }.into(), ..ten_a_peer() };
    for (limits, after) in [(own(2), 7), (own(10), 15), (own(100), 15)] {
        let mut server = Harness::with_limits(Parrot, limits);
        let client = server.connect_from(peer("192.0.2.1"));
        server.feed(client, numbers(0, 50));
        assert_eq!(server.sent(client), numbers(0, 5).as_bytes());
        server.advance(SECOND);
        assert_eq!(server.sent(client), numbers(5, after).as_bytes());
    }
}

#[test]
fn those_that_wait_for_one_peer_go_on_one_after_the_other() {
    let mut server = Harness::with_limits(Parrot, ten_a_peer());
    let clients: Vec<_> = (0..305).map(|_| server.connect_from(peer("192.0.2.1"))).collect();
    clients.iter().for_each(|client| server.feed(*client, "ping\n"));
    let turns = server.counters().turns;
    for answered in 5..305 {
        assert_eq!(server.counters().lines_in, answered);
        let all: usize = clients.iter().map(|client| server.reads(*client)).sum();
        assert!(all <= 2 * answered as usize, "{all} reads for {answered}");
        server.advance(SECOND / 10);
    }
    assert!(server.counters().turns - turns <= 3 * 300, "nobody is woken in vain");
    for client in clients {
        assert_eq!(server.sent(client), b"ping\n", "each in its turn");
    }
}

/// 105 of one peer, of which all but five wait.
fn waiting<H: Handler>(handler: H, limits: Limits) -> (Harness<H>, Vec<Client>) {
    let mut server = Harness::with_limits(handler, limits);
    let clients: Vec<_> = (0..105).map(|_| server.connect_from(peer("192.0.2.1"))).collect();
    clients.iter().for_each(|client| server.feed(*client, "ping\n"));
    assert_eq!(server.counters().lines_in, 5);
    (server, clients)
}

#[test]
fn what_is_set_aside_for_those_that_give_up_is_given_back() {
    let limits = Limits { peer_rate: Rate { per_second: 1, burst: 5 }.into(), ..Limits::default() };
    let (mut server, clients) = waiting(Parrot, limits);
    clients.iter().for_each(|client| server.reset(*client));
    server.advance(Limits::default().flush_timeout);
    assert!(matches!(server.counters().lines_in, 34 | 35), "{}", server.counters().lines_in);
    let next = server.connect_from(peer("192.0.2.1"));
    server.feed(next, numbers(0, 5));
    server.advance(5 * SECOND);
    assert_eq!(server.sent(next), numbers(0, 5).as_bytes());
}

/// Closes or pauses whoever it is told to.
struct Remote;

impl Handler for Remote {
    type Session = ();
    type Message = (reactor::ConnId, bool);

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        cx.send([line, b"\n"].concat());
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, (who, close): Self::Message) {
        let mut cx = cx.connection(who).unwrap();
        if close { cx.close() } else { cx.pause() }
    }
}

#[test]
fn who_is_closed_or_paused_while_it_waits_gives_back_its_part() {
    for (close, wait) in [(true, SECOND / 10), (false, 11 * SECOND)] {
        let (mut server, clients) = waiting(Remote, ten_a_peer());
        for client in &clients[5..] {
            let id = server.id(*client);
            server.post((id, close));
        }
        if !close {
            // Each is woken in its turn, and finds that it is not read.
            server.advance(10 * SECOND);
        }
        let next = server.connect_from(peer("192.0.2.1"));
        server.feed(next, "ping\n");
        server.advance(wait - if close { Duration::ZERO } else { 10 * SECOND });
        assert_eq!(server.sent(next), b"ping\n");
        assert_eq!(server.counters().lines_in, 6);
    }
}

#[test]
fn what_one_does_not_use_in_time_is_not_saved_up() {
    let mut server = Harness::with_limits(Parrot, ten_a_peer());
    let clients: Vec<_> = (0..105).map(|_| server.connect_from(peer("192.0.2.1"))).collect();
    server.feed(clients[0], numbers(0, 5));
    // Each has a part set aside for a line that it does not finish.
    clients[5..].iter().for_each(|client| server.feed(*client, "pi"));
    assert_eq!(server.counters().bytes_in, 10);
    server.advance(30 * SECOND);
    assert_eq!((server.counters().bytes_in, server.counters().lines_in), (210, 5));
    clients[5..].iter().for_each(|client| server.feed(*client, "ng\n"));
    assert_eq!(server.counters().lines_in, 10, "a burst, and no more");
}

#[test]
fn many_that_wait_for_bytes_get_them_one_after_the_other() {
    let mut server = Harness::with_limits(Parrot, Limits { peer_rate: BYTES, ..Limits::default() });
    let clients: Vec<_> = (0..4).map(|_| server.connect_from(peer("192.0.2.1"))).collect();
    let text = "1234567\n".repeat(10_000);
    clients.iter().for_each(|client| server.feed(*client, &text));
    assert_eq!(server.counters().bytes_in, 8_000);
    for _ in 0..8 {
        let before: Vec<_> = clients.iter().map(|client| server.reads(*client)).collect();
        let bytes = server.counters().bytes_in;
        server.advance(SECOND / 8);
        let woken =
            clients.iter().zip(before).filter(|(client, reads)| server.reads(**client) > *reads);
        assert_eq!((woken.count(), server.counters().bytes_in - bytes), (1, 1_000));
    }
    server.advance(4 * SECOND);
    let each: Vec<_> = clients.iter().map(|client| server.sent(*client).len()).collect();
    assert_eq!(each.iter().sum::<usize>(), 8_000 + 8_000 + 32_000);
    assert!(each[1..].iter().all(|bytes| *bytes >= 9_000), "each has its turn: {each:?}");
}

#[test]
fn what_one_that_waited_leaves_is_there_for_the_next() {
    let mut server = Harness::with_limits(Parrot, Limits { peer_rate: BYTES, ..Limits::default() });
    let clients: Vec<_> = (0..101).map(|_| server.connect_from(peer("192.0.2.1"))).collect();
    server.feed(clients[0], "1234567\n".repeat(1_000));
    assert_eq!(server.counters().bytes_in, 8_000);
    clients[1..].iter().for_each(|client| server.feed(*client, "1234567\n"));
    // 800 bytes of 8,000 a second.
    server.advance(SECOND / 4);
    assert_eq!(server.counters().lines_in, 1_100);
    assert!(clients[1..].iter().all(|client| server.sent(*client) == b"1234567\n"));
}

#[test]
fn whoever_waits_moves_up_when_others_give_up() {
    let (mut server, clients) = waiting(Remote, ten_a_peer());
    let behind = server.connect_from(peer("192.0.2.1"));
    server.feed(behind, "me\n");
    let (stays, leave) = clients[5..].split_first().unwrap();
    for client in leave {
        let id = server.id(*client);
        server.post((id, true));
    }
    server.advance(SECOND / 10);
    assert_eq!(server.sent(*stays), b"ping\n");
    assert_eq!(server.sent(behind), b"");
    server.advance(SECOND / 10);
    assert_eq!(server.sent(behind), b"me\n");
}

#[test]
fn who_is_there_goes_before_those_that_are_gone() {
    let (mut server, clients) = waiting(Parrot, ten_a_peer());
    let behind = server.connect_from(peer("192.0.2.1"));
    server.feed(behind, "me\n");
    clients[5..].iter().for_each(|client| server.reset(*client));
    let later = server.connect_from(peer("192.0.2.1"));
    server.feed(later, "me too\n");
    for (client, said) in [(behind, "me\n"), (later, "me too\n")] {
        server.advance(SECOND / 10);
        assert_eq!(server.sent(client), said.as_bytes());
    }
    // They have been heard all the same.
    server.advance(10 * SECOND);
    assert_eq!(server.counters().lines_in, 107);
}

#[test]
fn as_many_go_on_as_there_is_enough_for() {
    let (mut server, clients) = waiting(Parrot, ten_a_peer());
    let turns = server.counters().turns;
    // As where a turn is longer than the rate takes for a line.
    server.jump(SECOND);
    assert_eq!(server.counters().lines_in, 10);
    assert!(server.counters().turns - turns <= 4, "{}", server.counters().turns - turns);
    server.advance(9 * SECOND + SECOND / 2);
    assert!(clients.iter().all(|client| server.sent(*client) == b"ping\n"));
}

/// Says a word at each line, and does something when that is out.
struct Drained(fn(&mut Context<'_, ()>));

impl Handler for Drained {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        cx.send(line);
        cx.request_drain();
    }

    fn on_drain(&mut self, cx: &mut Context<'_, ()>) {
        (self.0)(cx);
    }
}

#[test]
fn who_takes_output_while_it_waits_keeps_its_place() {
    let limits = Limits { low_water: 0, ..ten_a_peer() };
    let mut server = Harness::with_limits(Drained(|cx| _ = cx.send(b"!")), limits);
    let [other, next, client] = [(); 3].map(|()| server.connect_from(peer("192.0.2.1")));
    server.take_only(client, Some(0));
    server.feed(client, "a\n");
    server.feed(other, numbers(0, 4));
    server.feed(next, "x\n");
    server.feed(client, "b\n");
    server.take_only(client, None);
    assert_eq!(server.sent(client), b"a!");
    server.advance(SECOND / 10);
    assert_eq!(server.sent(next), b"x!");
    assert_eq!(server.sent(client), b"");
    server.advance(SECOND / 10);
    assert_eq!(server.sent(client), b"b!");
}

/// More has come from it by then than its peer may send.
#[test]
fn who_is_closed_when_its_output_is_out_waits_for_no_rate() {
    let mut server = Harness::with_limits(Drained(|cx| cx.close()), ten_a_peer()).by_hand();
    let [client, other] = [(); 2].map(|()| server.connect_from(peer("192.0.2.1")));
    server.feed(client, numbers(0, 5));
    assert!(server.turn());
    assert_eq!((server.sent(client), server.closed(client)), (b"01234".to_vec(), None));
    server.feed(client, "more\n");
    assert!(server.turn());
    assert!(server.is_shut(client));
    server.feed(other, "x\n");
    server.advance(SECOND / 10);
    assert_eq!(server.sent(other), b"x");
    server.advance(Limits::default().linger - SECOND / 10);
    assert!(server.forget(client), "it lingers for no longer than others");
}

#[test]
fn its_own_rate_holds_up_nobody_else() {
    let own = Rate { per_second: 1, burst: 5 }.into();
    let mut server = Harness::with_limits(Parrot, Limits { rate: own, ..ten_a_peer() });
    let [greedy, other] = [(); 2].map(|()| server.connect_from(peer("192.0.2.1")));
    server.feed(greedy, numbers(0, 50));
    server.feed(other, numbers(0, 5));
    server.advance(SECOND / 2);
    assert_eq!(server.sent(other), numbers(0, 5).as_bytes());
}

// ---- The unfinished line ----

#[test]
fn a_line_that_drips_in_is_cut_off() {
    let (mut server, client) = parrot(Limits::default());
    server.feed(client, "whole\n");
    server.advance(1_000 * SECOND);
    assert_eq!(server.closed(client), None, "to say nothing is no unfinished line");
    for _ in 0..60 {
        server.feed(client, "x");
        server.advance(SECOND);
    }
    assert_eq!(server.closed(client), Some(CloseReason::LineTimeout));
    let sent = server.sent(client);
    assert_eq!(sent, b"whole\nLine not finished in time (limit 60 s)\n");
}

#[test]
fn each_line_has_its_own_time() {
    let (mut server, client) = parrot(Limits::default());
    for _ in 0..10 {
        server.feed(client, "be");
        server.advance(40 * SECOND);
        server.feed(client, "gun\nan");
        server.advance(40 * SECOND);
        server.feed(client, "other\n");
    }
    assert_eq!(server.closed(client), None);
    assert_eq!(server.sent(client), "begun\nanother\n".repeat(10).as_bytes());
}

#[test]
fn while_the_handler_pauses_the_time_stands_still() {
    let (mut server, client) = parrot(Limits::default());
    server.feed(client, "pause\nbegun");
    server.advance(100 * SECOND);
    server.advance(50 * SECOND);
    assert_eq!(server.closed(client), None);
    server.feed(client, "\n");
    assert_eq!(server.sent(client), b"begun\n");
}

#[test]
fn without_the_limit_a_line_may_take_for_ever() {
    let (mut server, client) = parrot(Limits { line_timeout: None, ..Limits::default() });
    server.feed(client, "x");
    server.advance(1_000_000 * SECOND);
    assert_eq!(server.closed(client), None);
    assert_eq!(server.left_over(), (1, 0), "and costs no timer");
}

/// Dials out once and then waits.
struct Dialler;

impl Handler for Dialler {
    type Session = ();
    type Message = ();

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, (): ()) {
        cx.connect("127.0.0.1:1", ()).unwrap();
    }
}

#[test]
fn a_servers_prompt_is_no_unfinished_line() {
    let mut client = Harness::new(Dialler);
    client.post(());
    let (_, server) = client.dialled()[0];
    client.answer(server);
    client.feed(server, "login: ");
    client.advance(1_000 * SECOND);
    assert_eq!(client.closed(server), None);
}

// ---- The peer's address ----

fn from(source: &str, server: &Server<mpsc::Sender<Counters>>) -> util::Client {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source = std::net::SocketAddr::new(source.parse().unwrap(), 0);
    socket.bind(&source.into()).unwrap();
    socket.connect(&server.addr.into()).unwrap();
    util::Client::from(TcpStream::from(socket))
}

#[test]
fn one_address_cannot_take_all_the_places() {
    let server = Server::start(Limits { max_per_peer: Some(2), ..Limits::default() }, || Parrot);
    let ping = |client: &mut util::Client| {
        client.send("ping\n");
        client.expect("ping\n");
    };
    let mut first = from("127.0.0.2", &server);
    let mut second = from("127.0.0.2", &server);
    ping(&mut first);
    ping(&mut second);
    for _ in 0..3 {
        let words = from("127.0.0.2", &server).rest();
        assert_eq!(words, b"Too many connections from your address, close one first\n");
    }
    ping(&mut from("127.0.0.3", &server));
    assert_eq!(server.counters().refused, 3);
    second.end();
    assert_eq!(second.rest(), b"the end\n");
    // Its place is free once the handler has been told of its end, which the client cannot see.
    util::until("its place is free", || server.counters().open <= 1);
    ping(&mut from("127.0.0.2", &server));
    ping(&mut first);
}

// ---- The output of all together ----

/// Whatever is said is a number of kilobytes that everybody gets.
struct Flood;

impl Handler for Flood {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        let (who, size) = std::str::from_utf8(line).unwrap().split_once(' ').unwrap();
        let text = vec![b'x'; size.parse::<usize>().unwrap() * 1024];
        match who {
            "all" => cx.broadcast_to_others(text),
            _ => {
                cx.send(text);
            }
        }
    }
}

/// A client for which the kernel keeps little.
fn reading_little(addr: std::net::SocketAddr) -> TcpStream {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&addr.into()).unwrap();
    socket.into()
}

#[test]
fn past_the_budget_of_all_the_largest_backlog_goes_first() {
    let mut reactor = Reactor::new().unwrap();
    let limits = Limits {
        max_output: 256 << 20,
        soft_output: 256 << 20,
        high_water: 256 << 20,
        ..Limits::default()
    };
    let service = reactor.listen_with("127.0.0.1:0", Flood, limits).unwrap();
    let addr = service.address().unwrap().as_socket().unwrap();
    reactor.set_max_total_output(64 << 20);
    let mut streams: Vec<TcpStream> = (0..6).map(|_| reading_little(addr)).collect();
    let turn_until = |reactor: &mut Reactor<'_>, lines, gone| {
        until("the largest are closed", || {
            reactor.turn(Some(Duration::from_millis(5))).unwrap();
            let counters = reactor.counters();
            counters.lines_in == lines && counters.closed(CloseReason::TotalOutput) >= gone
        });
    };
    use std::io::Write;
    // Much more than the sockets' buffers take; the last one's the most.
    for (number, stream) in streams.iter_mut().enumerate() {
        let size = if number == 5 { 64 } else { 8 } * 1024;
        writeln!(stream, "me {size}").unwrap();
    }
    turn_until(&mut reactor, 6, 1);
    assert_eq!(reactor.counters().closed(CloseReason::TotalOutput), 1);
    assert_eq!(reactor.counters().open, 5);
    writeln!(streams[0], "all 24576").unwrap();
    // 96 megabytes more.
    turn_until(&mut reactor, 7, 2);
    let counters = reactor.counters();
    let gone = counters.closed(CloseReason::TotalOutput);
    assert_eq!(counters.open, 6 - gone);
    assert_eq!(counters.closed_in_all(), gone, "for no other reason");
}

// ---- The unfinished input of all together ----

#[test]
fn past_the_total_of_unfinished_input_the_longest_line_goes_first() {
    let (mut server, idle) = parrot(Limits::default());
    server.set_max_total_input(40_000);
    let half = |server: &mut Harness<Parrot>, number: usize| {
        let client = server.connect();
        server.feed(client, "x".repeat(number * 1_000));
        client
    };
    let clients: Vec<_> = (1..=8).map(|number| half(&mut server, number)).collect();
    assert_eq!((server.kept(), server.counters().closed_in_all()), (36_000, 0));
    let last = half(&mut server, 9);
    // 45,000 are too much, and at 36,000 less than an eighth is free.
    assert_eq!(server.kept(), 28_000);
    for client in [clients[7], last] {
        assert_eq!(server.closed(client), Some(CloseReason::TotalInput));
        assert!(server.sent(client).is_empty());
    }
    for (number, client) in (1..).zip(&clients[..7]) {
        server.feed(*client, "\n");
        assert_eq!(server.sent(*client).len(), number * 1_000 + 1);
    }
    assert_eq!((server.closed(idle), server.kept()), (None, 0));
    assert_eq!(server.counters().closed(CloseReason::TotalInput), 2);
    assert_eq!(server.counters().closed_in_all(), 2);
}

#[test]
fn many_short_lines_of_one_peer_do_not_end_the_long_one_of_another() {
    let (mut server, _) = parrot(Limits::default());
    server.set_max_total_input(40_000);
    let half = |server: &mut Harness<Parrot>, from: &str, length: usize| {
        let client = server.connect_from(peer(from));
        server.feed(client, "x".repeat(length));
        client
    };
    let polite = half(&mut server, "2001:db8::1", 6_000);
    let alone = half(&mut server, "192.0.2.1", 9_000);
    // Those of one /64 have most in all.
    let many: Vec<_> = (1..=26)
        .map(|number| half(&mut server, &format!("2001:db8:0:1::{number}"), 1_000))
        .collect();
    assert_eq!([polite, alone].map(|client| server.closed(client)), [None; 2]);
    let closed = many.iter().filter(|client| server.closed(**client).is_some()).count();
    assert_eq!((closed, server.kept()), (6, 35_000));
    assert_eq!(server.counters().closed(CloseReason::TotalInput), 6);
}

#[test]
fn what_is_kept_of_a_line_is_given_back_however_it_ends() {
    type End = fn(&mut Harness<Parrot>, Client);
    let ends: [(&str, End); 8] = [
        ("finished", |server, client| server.feed(client, "\n")),
        ("grown first", |server, client| {
            (0..50).for_each(|_| server.feed(client, "y".repeat(1_000)));
            server.feed(client, "\nmore\npause\n");
        }),
        ("the end", |server, client| server.end(client)),
        ("a reset", |server, client| server.reset(client)),
        ("too long", |server, client| server.feed(client, "z".repeat(64 << 10))),
        ("too slow", |server, _| server.advance(60 * SECOND)),
        ("paused", |server, client| {
            server.feed(client, "\npause\nfor a while\nand mo");
            assert!(server.kept() > 0);
            server.advance(100 * SECOND);
            server.feed(client, "re\n");
        }),
        ("a shutdown", |server, _| server.stop()),
    ];
    for (how, end) in ends {
        for count in [10, 5_000] {
            let (mut server, client) = parrot(Limits::default());
            server.feed(client, "whole\n");
            assert_eq!(server.kept(), 0, "{how}");
            server.feed(client, "x".repeat(count));
            assert_eq!(server.kept(), count, "{how}");
            end(&mut server, client);
            assert_eq!(server.kept(), 0, "{how}");
        }
    }
}

#[test]
fn a_line_that_grows_takes_little_more_than_it_is() {
    let (mut server, client) = parrot(Limits::default());
    for count in 1..=60 {
        server.feed(client, "x".repeat(1_000));
        let kept = server.kept();
        assert!(kept <= count * 1_000 * 9 / 8, "{kept} bytes for {count} kB");
    }
}

// ---- The places ----

/// Answers, and notes who has ended and why.
struct Ends(Rc<RefCell<Vec<(ConnId, CloseReason)>>>);

impl Handler for Ends {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        cx.send([line, b"\n"].concat());
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
        self.0.borrow_mut().push((cx.id(), reason));
    }
}

#[test]
fn whoever_is_gone_gives_up_its_place_to_a_newcomer() {
    const PLACES: usize = 20;
    let ends = Rc::new(RefCell::new(Vec::new()));
    let rate = Rate { per_second: 1, burst: 1 }.into();
    let limits = Limits { max_connections: PLACES, rate, ..Limits::default() };
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.listen_with("127.0.0.1:0", Ends(Rc::clone(&ends)), limits).unwrap();
    let addr = service.address().unwrap().as_socket().unwrap();
    // What has been done is known to the loop at once: nothing lies between us.
    let work = |reactor: &mut Reactor<'_>| {
        (0..10).for_each(|_| reactor.turn(Some(Duration::from_millis(1))).unwrap());
    };
    let mut clients: Vec<_> = (0..PLACES).map(|_| util::Client::connect(addr)).collect();
    for client in &mut clients {
        client.send(numbers(0, 1_000));
    }
    work(&mut reactor);
    // What they have sent before waits for the rate.
    for client in clients {
        client.reset();
        work(&mut reactor);
    }
    assert_eq!(reactor.counters().open, PLACES as u64);
    assert!(ends.borrow().is_empty());
    let mut newcomers = Vec::new();
    for came in 1..=PLACES + 3 {
        let mut newcomer = util::Client::connect(addr);
        newcomer.send("ping\n");
        work(&mut reactor);
        if came <= PLACES {
            newcomer.expect("ping\n");
        } else {
            assert_eq!(newcomer.rest(), b"Too many connections, try again later\n");
        }
        newcomers.push(newcomer);
        assert_eq!(ends.borrow().len(), came.min(PLACES));
    }
    assert_eq!(reactor.counters().refused, 3, "those who are there keep their places");
    let ends = ends.borrow();
    assert!(ends.is_sorted_by_key(|(id, _)| *id), "oldest first: {ends:?}");
    let reset = CloseReason::Error(std::io::ErrorKind::ConnectionReset);
    assert!(ends.iter().all(|(_, reason)| *reason == reset), "{ends:?}");
}

#[test]
fn a_budget_that_is_lowered_is_kept_from_the_next_turn_on() {
    let mut server = Harness::new(Callbacks::new().on_line(|cx, line| {
        cx.send(line);
    }));
    let (slow, other) = (server.connect(), server.connect());
    server.take_only(slow, Some(0));
    server.feed(slow, "hello\n");
    server.set_max_total_output(4);
    assert_eq!(server.closed(slow), None);
    // It causes no output.
    server.feed(other, "half");
    assert_eq!(server.closed(slow), Some(CloseReason::TotalOutput));
    assert_eq!(server.closed(other), None);
}

#[test]
fn limits_that_make_no_sense_are_named() {
    let usual = Limits::default;
    let none_a_second = Rate { per_second: 0, burst: 1 };
    let none_at_once = Rate { per_second: 1, burst: 0 };
    let bytes = |rate| Rates { bytes: Some(rate), lines: None };
    let wrong = [
        ("rate.lines.per_second", Limits { rate: none_a_second.into(), ..usual() }),
        ("rate.lines.burst", Limits { rate: none_at_once.into(), ..usual() }),
        ("rate.bytes.burst", Limits { rate: bytes(none_at_once), ..usual() }),
        ("peer_rate.lines.burst", Limits { peer_rate: none_at_once.into(), ..usual() }),
        ("peer_rate.bytes.per_second", Limits { peer_rate: bytes(none_a_second), ..usual() }),
        ("peer_connect_rate.burst", Limits { peer_connect_rate: Some(none_at_once), ..usual() }),
        ("max_per_peer", Limits { max_per_peer: Some(0), ..usual() }),
        ("line_timeout", Limits { line_timeout: Some(Duration::ZERO), ..usual() }),
        ("keepalive", Limits { keepalive: Some(SECOND / 2), ..usual() }),
        ("keepalive", Limits { keepalive: Some(SECOND * 32_768), ..usual() }),
        ("user_timeout", Limits { user_timeout: Some(SECOND * 2_147_484), ..usual() }),
        ("user_timeout", Limits { user_timeout: Some(Duration::from_nanos(1)), ..usual() }),
    ];
    for (name, limits) in wrong {
        let error = limits.check().unwrap_err().to_string();
        assert!(error.contains(name), "{name}: {error}");
    }
}

#[test]
fn the_longest_times_that_are_no_mistake_are_what_tcp_takes() {
    let limits = Limits {
        keepalive: Some(SECOND * 32_767),
        user_timeout: Some(Duration::from_millis(i32::MAX as u64)),
        ..Limits::default()
    };
    let mut reactor = Reactor::new().unwrap();
    reactor.listen_with("127.0.0.1:0", Callbacks::new(), limits).unwrap();
}
