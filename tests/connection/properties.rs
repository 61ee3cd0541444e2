//! Properties: whatever the splits, the budgets and the faults of the transport, nothing is
//! lost, repeated or reordered, and nothing is left over at the end.

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::*;
use reactor::testing::{Client, Fault, Harness};
use reactor::{CloseReason, ConnId, Context, Handler, Limits, ServiceContext};

const CASES: u32 = 256;

/// Notes every hook, and checks that they pair.
#[derive(Default)]
struct Recorder {
    lines: Vec<(ConnId, Vec<u8>)>,
    open: HashSet<ConnId>,
    closed: usize,
    /// Sends each line to everybody rather than to its sender.
    broadcast: bool,
}

impl Handler for Recorder {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        assert!(self.open.insert(cx.id()));
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        assert!(self.open.contains(&cx.id()));
        self.lines.push((cx.id(), line.to_vec()));
        let line = [line, b"\n"].concat();
        if self.broadcast { cx.broadcast(line) } else { _ = cx.send(line) }
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, _: CloseReason) {
        assert!(self.open.remove(&cx.id()));
        self.closed += 1;
    }
}

/// Notes lines and the blocks behind them; a line begins with the length of its block.
#[derive(Default)]
struct Blocks {
    parts: Vec<Vec<u8>>,
    /// The block under way.
    block: Vec<u8>,
    /// How many hooks pause their connection: one in so many, or none.
    pauses: usize,
    calls: usize,
}

impl Blocks {
    fn pause(&mut self, cx: &mut Context<'_, ()>) {
        self.calls += 1;
        if self.pauses > 0 && self.calls.is_multiple_of(self.pauses) {
            cx.pause();
        }
    }
}

impl Handler for Blocks {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        let (length, line) = reactor::text::command(line);
        self.parts.push(line.to_vec());
        cx.take_block(str::from_utf8(length).unwrap().parse().unwrap());
        self.pause(cx);
        cx.send("a reply");
    }

    fn on_block(&mut self, cx: &mut Context<'_, ()>, piece: &[u8], end: bool) {
        self.block.extend(piece);
        if end {
            self.parts.push(std::mem::take(&mut self.block));
        }
        cx.send("another reply");
        self.pause(cx);
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, (): ()) {
        let all: Vec<_> = cx.connections().map(|(id, _)| id).collect();
        all.into_iter().for_each(|id| cx.connection(id).unwrap().resume());
    }
}

/// The lines of a whole input, cut in the plainest way.
fn oracle(input: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = vec![Vec::new()];
    for byte in input {
        match byte {
            b'\n' => lines.push(Vec::new()),
            _ => lines.last_mut().unwrap().push(*byte),
        }
    }
    if lines.last().unwrap().is_empty() {
        lines.pop();
    }
    for line in &mut lines {
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    lines
}

/// What echoing these lines comes to.
fn echoed(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| [&line[..], b"\n"].concat()).collect()
}

/// Bytes that are often those that matter.
fn input(most: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => Just(b'\n'), 2 => Just(b'\r'), 6 => b'a'..=b'c', 1 => any::<u8>()];
    vec(byte, 0..most)
}

/// Cuts the input at random places.
fn pieces<'i>(input: &'i [u8], cuts: &[prop::sample::Index]) -> Vec<&'i [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    places.extend([0, input.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect()
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    vec(any::<prop::sample::Index>(), 0..12)
}

fn limits() -> impl Strategy<Value = Limits> {
    let water = prop_oneof![Just((64 * 1024, 1024)), (2_usize..40).prop_map(|n| (n, n / 2))];
    let bytes = prop_oneof![1_usize..20, Just(64 * 1024)];
    let lines = prop_oneof![1_usize..5, Just(1024)];
    (bytes, lines, water).prop_map(|(bytes_per_turn, lines_per_turn, (high_water, low_water))| {
        Limits { bytes_per_turn, lines_per_turn, high_water, low_water, ..Limits::default() }
    })
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        (1_usize..9).prop_map(Fault::Short),
        Just(Fault::WouldBlock),
        Just(Fault::Interrupted),
    ];
    vec(fault, 0..30)
}

/// Everybody ends properly: the hooks have paired, and the loop keeps nothing.
fn check_end(server: &mut Harness<Recorder>, clients: usize) {
    assert_eq!(server.handler().open.len(), 0);
    assert_eq!(server.handler().closed, clients);
    assert_eq!(server.left_over(), (0, 0));
    assert_eq!(server.counters().closed_in_all(), clients as u64);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_split_of_any_bytes_gives_the_same_lines(
        input in input(400), cuts in cuts(), limits in limits(),
    ) {
        let mut server = Harness::with_limits(Recorder::default(), limits);
        let client = server.connect();
        pieces(&input, &cuts).into_iter().for_each(|piece| server.feed(client, piece));
        server.end(client);
        let lines: Vec<_> = server.handler_mut().lines.drain(..).map(|(_, line)| line).collect();
        prop_assert_eq!(&lines, &oracle(&input));
        prop_assert_eq!(server.sent(client), echoed(&lines));
        prop_assert_eq!(server.closed(client), Some(CloseReason::PeerClosed));
        check_end(&mut server, 1);
    }

    /// Whatever the splits, the budgets, the faults and the pauses: each line and each block comes
    /// whole and in its place.
    #[test]
    fn any_split_of_lines_and_blocks_gives_the_same(
        parts in vec((input(12), prop_oneof![3 => 0_usize..12, 1 => 0_usize..1_000]), 0..20),
        cuts in cuts(), limits in limits(), reads in faults(), pauses in 0_usize..4,
    ) {
        let limits = Limits { bytes_per_turn: limits.bytes_per_turn.max(3), ..limits };
        let (mut input, mut wanted) = (Vec::new(), Vec::new());
        for (number, (bytes, length)) in parts.into_iter().enumerate() {
            let line: Vec<u8> = bytes.into_iter().filter(|byte| !b"\r\n".contains(byte)).collect();
            let block = vec![b"\n\rx"[number % 3]; length];
            input.extend(format!("{length} ").into_bytes());
            input.extend([&line, &b"\n"[..], &block].concat());
            wanted.push(line);
            wanted.push(block);
        }
        let blocks = Blocks { pauses, ..Blocks::default() };
        let mut server = Harness::with_limits(blocks, limits);
        let client = server.connect();
        server.disturb(client, reads, []);
        pieces(&input, &cuts).into_iter().for_each(|piece| server.feed(client, piece));
        server.end(client);
        for _ in 0..20_000 {
            if server.closed(client).is_some() {
                break;
            }
            server.post(());
            // A fault may have been a would-block, of which no event tells.
            server.feed(client, "");
        }
        prop_assert!(server.handler().parts == wanted);
        prop_assert_eq!(server.closed(client), Some(CloseReason::PeerClosed));
        prop_assert_eq!(server.left_over(), (0, 0));
    }

    /// Lines around the size up to which a rest is copied in front of the next read.
    #[test]
    fn long_lines_in_any_split(
        lengths in vec(prop_oneof![0_usize..10, 4_000_usize..4_200, 8_000_usize..20_000], 1..8),
        cuts in cuts(), limits in limits(),
    ) {
        let limits = Limits { bytes_per_turn: limits.bytes_per_turn.max(1_000), ..limits };
        let input: Vec<u8> = lengths.iter().enumerate().flat_map(|(n, length)| {
            let mut line = vec![b'a' + n as u8; *length];
            line.extend(if n % 2 == 0 { &b"\n"[..] } else { b"\r\n" });
            line
        }).collect();
        let mut server = Harness::with_limits(Recorder::default(), limits);
        let client = server.connect();
        pieces(&input, &cuts).into_iter().for_each(|piece| server.feed(client, piece));
        server.end(client);
        prop_assert!(server.sent(client) == echoed(&oracle(&input)));
        check_end(&mut server, 1);
    }

    /// Whatever comes before the line that is too long is handled, it is answered once, and
    /// nothing after it is interpreted.
    #[test]
    fn any_split_finds_the_same_overlong_line(
        input in input(200), max_line in 1_usize..8, cuts in cuts(), limits in limits(),
    ) {
        let limits = Limits { max_line, ..limits };
        let mut server = Harness::with_limits(Recorder::default(), limits);
        let client = server.connect();
        pieces(&input, &cuts).into_iter().for_each(|piece| server.feed(client, piece));
        server.end(client);
        let all = oracle(&input);
        let good = all.iter().take_while(|line| line.len() <= max_line).cloned();
        let good: Vec<_> = good.collect();
        let mut wanted = echoed(&good);
        let reason = if good.len() < all.len() {
            wanted.extend(format!("Line too long (limit {max_line} bytes)\n").bytes());
            CloseReason::LineTooLong
        } else {
            CloseReason::PeerClosed
        };
        prop_assert_eq!(server.sent(client), wanted);
        prop_assert_eq!(server.closed(client), Some(reason));
        check_end(&mut server, 1);
    }

    #[test]
    fn no_pattern_of_faults_loses_repeats_or_reorders_anything(
        input in input(400), cuts in cuts(), limits in limits(),
        reads in faults(), writes in faults(),
        rooms in vec(prop_oneof![(0_usize..30).prop_map(Some), Just(None)], 12),
        end_early in any::<bool>(),
    ) {
        let mut server = Harness::with_limits(Recorder::default(), limits);
        let client = server.connect();
        server.disturb(client, reads, writes);
        let mut sent = Vec::new();
        let parts = pieces(&input, &cuts);
        let last = parts.len() - 1;
        for (number, piece) in parts.into_iter().enumerate() {
            server.take_only(client, rooms[number % rooms.len()]);
            server.feed(client, piece);
            sent.extend(server.sent(client));
            if end_early && number == last {
                server.end(client);
            }
        }
        server.take_only(client, None);
        if !end_early {
            server.end(client);
        }
        sent.extend(server.sent(client));
        let lines: Vec<_> = server.handler_mut().lines.drain(..).map(|(_, line)| line).collect();
        prop_assert_eq!(&lines, &oracle(&input));
        prop_assert_eq!(sent, echoed(&lines));
        check_end(&mut server, 1);
    }

    /// Each hears all lines, in the one order in which they were handled, as soon as it takes
    /// them; those of each client come in its own order.
    #[test]
    fn a_broadcast_reaches_everybody_in_one_order(
        inputs in vec(input(150), 3), turns in vec((0_usize..3, 1_usize..20), 0..40),
        limits in limits(), faults in vec((faults(), faults()), 3),
        rooms in vec((0_usize..3, prop_oneof![(0_usize..60).prop_map(Some), Just(None)]), 0..10),
    ) {
        let recorder = Recorder { broadcast: true, ..Recorder::default() };
        let mut server = Harness::with_limits(recorder, limits);
        let clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
        for (client, (reads, writes)) in clients.iter().zip(faults) {
            server.disturb(*client, reads, writes);
        }
        let mut fed = [0; 3];
        let mut rooms = rooms.into_iter();
        for (who, count) in turns {
            if let Some((whose, room)) = rooms.next() {
                server.take_only(clients[whose], room);
            }
            let end = inputs[who].len().min(fed[who] + count);
            server.feed(clients[who], &inputs[who][fed[who]..end]);
            fed[who] = end;
        }
        for (who, client) in clients.iter().enumerate() {
            server.take_only(*client, None);
            server.feed(*client, &inputs[who][fed[who]..]);
            // Nobody leaves before all is said.
            server.feed(*client, "\n");
        }
        let lines = server.handler().lines.clone();
        for (who, client) in clients.iter().enumerate() {
            let id = server.id(*client);
            let own: Vec<_> = lines.iter().filter(|(of, _)| *of == id).map(|(_, l)| l.clone()).collect();
            prop_assert_eq!(own, oracle(&[&inputs[who][..], b"\n"].concat()));
        }
        let all: Vec<_> = lines.into_iter().map(|(_, line)| line).collect();
        for client in &clients {
            prop_assert_eq!(server.sent(*client), echoed(&all));
        }
        clients.iter().for_each(|client| server.end(*client));
        check_end(&mut server, 3);
    }

    /// Whoever leaves in whatever way, each connection is told of once and nothing is kept.
    #[test]
    fn every_end_is_told_once(ways in vec((0_u8..6, input(30)), 1..12), limits in limits()) {
        let mut server = Harness::with_limits(Recorder::default(), limits);
        let count = ways.len();
        for (way, input) in ways {
            let client = server.connect();
            server.feed(client, &input);
            match way {
                0 => server.end(client),
                1 => server.reset(client),
                2 => {
                    server.take_only(client, Some(0));
                    server.feed(client, "unsent\n");
                    server.reset(client);
                }
                3 => {
                    server.end(client);
                    server.reset(client);
                }
                _ => {}
            }
        }
        server.stop();
        server.advance(std::time::Duration::from_secs(120));
        check_end(&mut server, count);
    }
}
