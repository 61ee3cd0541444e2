//! What it costs to gather output and to hand it over, one write per connection and turn.

use divan::Bencher;
use divan::counter::ItemsCount;
use reactor::testing::Harness;
use reactor::{Context, Handler};

fn main() {
    divan::main();
}

const LINE: &[u8] = b"the quick brown fox jumps over!\n";

/// Sends every line back.
struct Back;

impl Handler for Back {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        cx.send(line);
        cx.send("\n");
    }
}

#[divan::bench]
fn echo_of_a_thousand_lines(bencher: Bencher<'_, '_>) {
    let mut server = Harness::new(Back);
    let client = server.connect();
    let lines = LINE.repeat(1000);
    bencher.counter(ItemsCount::new(1000_usize)).bench_local(|| {
        server.feed(client, &lines);
        server.sent(client)
    });
}

/// Sends every line to everybody.
struct Room;

impl Handler for Room {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        cx.broadcast(line);
    }
}

/// However many messages one turn brings, each listener has one write.
#[divan::bench(args = [1, 16])]
fn broadcast_to_a_thousand(bencher: Bencher<'_, '_>, messages: usize) {
    let mut server = Harness::new(Room);
    let clients: Vec<_> = (0..1000).map(|_| server.connect()).collect();
    let lines = LINE.repeat(messages);
    bencher.counter(ItemsCount::new(1000 * messages)).bench_local(|| {
        server.feed(clients[0], &lines);
        clients.iter().map(|&client| server.sent(client).len()).sum::<usize>()
    });
}
