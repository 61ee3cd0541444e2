//! A callback that holds the loop is complained of once, by its service's name; a fast one is not.

#[path = "../util/mod.rs"]
mod util;

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use reactor::{
    Context, DatagramContext, DatagramHandler, Handler, Limits, Reactor, ServiceContext,
};
use util::{Client, Server};

static LINES: Mutex<Vec<(log::Level, String)>> = Mutex::new(Vec::new());

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LINES.lock().unwrap().push((record.level(), record.args().to_string()));
    }

    fn flush(&self) {}
}

/// What was logged of callbacks that hold the loop.
fn complaints() -> Vec<(log::Level, String)> {
    let lines = LINES.lock().unwrap();
    lines.iter().filter(|(_, line)| line.contains("held the loop")).cloned().collect()
}

fn work(line: &[u8]) {
    if line == b"slow" {
        std::thread::sleep(Duration::from_millis(150));
    }
}

macro_rules! handler {
    ($name:ident) => {
        struct $name;
        impl Handler for $name {
            type Session = ();
            type Message = ();
            fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
                work(line);
                cx.send("done\n");
            }
        }
    };
}

handler!(Sleepy);
handler!(Brisk);

/// Slow where no client is concerned.
struct LateSleeper;

impl Handler for LateSleeper {
    type Session = ();
    type Message = ();

    fn on_shutdown(&mut self, _cx: &mut ServiceContext<'_, ()>) {
        work(b"slow");
    }
}

impl DatagramHandler for LateSleeper {
    type Message = ();

    fn on_datagram(&mut self, _: &mut DatagramContext<'_>, _: SocketAddr, _: &[u8]) {}

    fn on_shutdown(&mut self, _: &mut DatagramContext<'_>) {
        work(b"slow");
    }
}

fn ask(client: &mut Client, line: &str) {
    client.send(line);
    client.expect("done\n");
}

#[test]
fn is_logged_once_with_the_services_name_and_a_fast_one_is_not() {
    log::set_boxed_logger(Box::new(Capture)).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    // The threshold is far above what a busy machine makes of a fast callback.
    let brisk =
        Server::start(Limits { slow_call: Duration::from_secs(20), ..Limits::default() }, || Brisk);
    let mut client = brisk.connect();
    for _ in 0..100 {
        ask(&mut client, "fast\n");
    }
    ask(&mut client, "slow\n");
    drop(client);
    let (_, counters) = brisk.stop();
    assert_eq!(counters.slow_calls, 0);
    assert_eq!(complaints(), []);

    let sleepy = Server::start(Limits::default(), || Sleepy);
    let mut client = sleepy.connect();
    for _ in 0..3 {
        ask(&mut client, "slow\n");
    }
    drop(client);
    let (_, counters) = sleepy.stop();
    assert_eq!(counters.slow_calls, 3, "each is counted, though not each is logged");
    let [(level, line)] = &complaints()[..] else { panic!("{:?}", complaints()) };
    assert_eq!(*level, log::Level::Warn);
    let held = line.strip_prefix("Sleepy: the handler held the loop for ");
    let millis: u64 = held.unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(millis >= 100, "{line}");

    let _ = Server::start(Limits::default(), || LateSleeper).stop();
    assert_eq!(complaints().len(), 2, "{:?}", complaints());
    assert!(complaints()[1].1.starts_with("LateSleeper:"));

    let mut reactor = Reactor::new().unwrap();
    let first = reactor.add(LateSleeper, Limits::default()).unwrap();
    let second = reactor.add(LateSleeper, Limits::default()).unwrap();
    let third = reactor.datagrams("127.0.0.1:0", LateSleeper).unwrap();
    assert_eq!((reactor.name(&first), reactor.name(&third)), ("LateSleeper", "LateSleeper"));
    reactor.set_name(&second, "second");
    reactor.set_name(&third, format!("the {}rd", 3));
    assert_eq!((reactor.name(&second), reactor.name(&third)), ("second", "the 3rd"));
    reactor.stop();
    reactor.run().unwrap();
    let names: Vec<_> = complaints()[2..].iter().map(|(_, line)| line.clone()).collect();
    let starts = ["LateSleeper: ", "second: ", "the 3rd: "];
    assert!(
        names.len() == 3 && names.iter().zip(starts).all(|(name, start)| name.starts_with(start)),
        "{names:?}"
    );
}
