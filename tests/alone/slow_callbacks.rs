//! A callback that holds the loop is complained of once, by its handler's name; a fast one is not.

#[path = "../util/mod.rs"]
mod util;

use std::sync::Mutex;
use std::time::Duration;

use reactor::{Context, Handler, Limits, ServiceContext};
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

fn ask(client: &mut Client, line: &str) {
    client.send(line);
    client.expect("done\n");
}

#[test]
fn is_logged_once_with_the_handlers_name_and_a_fast_one_is_not() {
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
    let _ = brisk.stop();
    assert_eq!(complaints(), []);

    let sleepy = Server::start(Limits::default(), || Sleepy);
    let mut client = sleepy.connect();
    for _ in 0..3 {
        ask(&mut client, "slow\n");
    }
    drop(client);
    let _ = sleepy.stop();
    let [(level, line)] = &complaints()[..] else { panic!("{:?}", complaints()) };
    assert_eq!(*level, log::Level::Warn);
    let held = line.strip_prefix("Sleepy: the handler held the loop for ");
    let millis: u64 = held.unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(millis >= 100, "{line}");

    let _ = Server::start(Limits::default(), || LateSleeper).stop();
    assert_eq!(complaints().len(), 2, "{:?}", complaints());
    assert!(complaints()[1].1.starts_with("LateSleeper:"));
}
