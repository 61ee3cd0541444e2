//! What it costs to set a timer, to cancel it, and to let it fire, among many others.

use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use reactor::testing::{Client, Harness};
use reactor::{Context, Handler, TimerId};

fn main() {
    divan::main();
}

const TIMERS: u64 = 1000;
/// How many connections have a timer that is far away, as an idle time-out is.
const OTHERS: [usize; 2] = [0, 10_000];

/// Obeys one-letter commands.
struct Alarms;

impl Handler for Alarms {
    type Session = Vec<TimerId>;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, Vec<TimerId>>, line: &[u8]) {
        match line {
            b"s" => {
                for n in 1..=TIMERS {
                    let timer = cx.set_timer(Duration::from_millis(n * 7 % TIMERS + 1));
                    cx.session().push(timer);
                }
            }
            b"c" => {
                for timer in std::mem::take(cx.session()) {
                    cx.cancel_timer(timer);
                }
            }
            _ => {
                cx.set_timer(Duration::from_secs(1 << 30));
            }
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Vec<TimerId>>, _timer: TimerId) {
        cx.session().clear();
    }
}

fn server(others: usize) -> (Harness<Alarms>, Client) {
    let mut server = Harness::new(Alarms);
    for _ in 0..others {
        let other = server.connect();
        server.feed(other, "wait\n");
    }
    let client = server.connect();
    (server, client)
}

#[divan::bench(args = OTHERS)]
fn set_and_cancel(bencher: Bencher<'_, '_>, others: usize) {
    let (mut server, client) = server(others);
    bencher.counter(ItemsCount::new(TIMERS)).bench_local(|| server.feed(client, "s\nc\n"));
}

#[divan::bench(args = OTHERS)]
fn set_and_fire(bencher: Bencher<'_, '_>, others: usize) {
    let (mut server, client) = server(others);
    bencher.counter(ItemsCount::new(TIMERS)).bench_local(|| {
        server.feed(client, "s\n");
        // In one leap: the harness looks at every client whenever it stops on the way.
        server.jump(Duration::from_secs(2));
    });
}
