//! What it costs to cut input into lines, sockets apart. The pipe that stands in for one takes a
//! part of it: compare a figure with its own past, not with that of another library.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use reactor::testing::{Client, Harness};
use reactor::{Context, Handler};

fn main() {
    divan::main();
}

/// Takes every line and says nothing.
struct Sink;

impl Handler for Sink {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, _cx: &mut Context<'_, ()>, line: &[u8]) {
        black_box(line);
    }
}

fn one_client() -> (Harness<Sink>, Client) {
    let mut server = Harness::new(Sink);
    let client = server.connect();
    (server, client)
}

/// 1,000 lines of 32 bytes, which is less than a turn may handle.
fn lines() -> Vec<u8> {
    b"the quick brown fox jumps over!\n".repeat(1000)
}

/// Feeds the input in pieces; none is larger than what a turn reads.
fn pieces(bencher: Bencher<'_, '_>, input: &[u8], size: usize) {
    let (mut server, client) = one_client();
    bencher.counter(BytesCount::new(input.len())).bench_local(|| {
        for piece in input.chunks(size) {
            server.feed(client, piece);
        }
    });
}

#[divan::bench]
fn a_thousand_lines_at_once(bencher: Bencher<'_, '_>) {
    pieces(bencher, &lines(), usize::MAX);
}

#[divan::bench]
fn a_thousand_lines_one_by_one(bencher: Bencher<'_, '_>) {
    pieces(bencher, &lines(), 32);
}

#[divan::bench]
fn a_thousand_lines_never_whole(bencher: Bencher<'_, '_>) {
    pieces(bencher, &lines(), 25);
}

/// What was searched once must not be searched again.
#[divan::bench]
fn a_long_line_in_small_pieces(bencher: Bencher<'_, '_>) {
    let mut line = vec![b'x'; 60_000];
    line.push(b'\n');
    pieces(bencher, &line, 100);
}
