//! SIGINT and SIGTERM: the first one shuts down gracefully, the second one ends at once. SIGHUP calls a hook.
//! In a binary of its own, because a signal is for the whole process.

#![cfg(feature = "signals")]

#[path = "../util/mod.rs"]
mod util;

use std::cell::Cell;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use reactor::{Callbacks, Context, Cores, Exit, Handler, Reactor, ServiceContext};
use util::{Client, PATIENCE};

struct Sender;

impl Handler for Sender {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        let count: usize = str::from_utf8(line).unwrap().parse().unwrap();
        cx.send(vec![b'x'; count]);
    }

    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, ()>) {
        cx.broadcast("bye, all\n");
    }
}

fn signal(name: &str) {
    let status = Command::new("kill").arg(name).arg(std::process::id().to_string()).status();
    assert!(status.unwrap().success());
}

/// A reactor that catches signals, and a client that has asked for so many bytes.
fn scene(count: usize) -> (Reactor<'static>, Client) {
    let mut reactor = Reactor::new().unwrap();
    reactor.set_shutdown_timeout(PATIENCE);
    reactor.stop_on_signals().unwrap();
    let service = reactor.listen("127.0.0.1:0", Sender).unwrap();
    let mut stream = TcpStream::connect(service.address().unwrap().as_socket().unwrap()).unwrap();
    writeln!(stream, "{count}").unwrap();
    while reactor.counters().lines_in == 0 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    (reactor, Client::from(stream))
}

#[test]
fn the_first_is_graceful_and_the_second_ends_at_once() {
    for name in ["-TERM", "-INT"] {
        let (mut reactor, mut client) = scene(16_000_000);
        signal(name);
        let reading = std::thread::spawn(move || client.rest());
        assert_eq!(reactor.run().unwrap(), Exit::Clean);
        let all = reading.join().unwrap();
        assert_eq!(all.len(), 16_000_000 + "bye, all\n".len());
        assert!(all.ends_with(b"bye, all\n"));
    }

    let (mut reactor, client) = scene(64_000_000);
    let began = Instant::now();
    signal("-TERM");
    while reactor.listen("127.0.0.1:0", Sender).is_ok() {
        reactor.turn(Some(Duration::from_millis(10))).unwrap();
    }
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(reactor.exit(), None, "it waits for a client that does not read");
    signal("-INT");
    assert_eq!(reactor.run().unwrap(), Exit::Cut { connections: 1 });
    assert!(began.elapsed() < PATIENCE / 2);
    drop(client);

    // Both in one batch, with a newcomer in the queue: nobody may be let in after the end.
    let opens = Cell::new(0);
    let mut reactor = Reactor::new().unwrap();
    reactor.stop_on_signals().unwrap();
    let counting = Callbacks::new()
        .on_connection(|_| opens.set(opens.get() + 1))
        .on_close(|_, _| opens.set(opens.get() - 1));
    let service = reactor.listen("127.0.0.1:0", counting).unwrap();
    let _newcomer = Client::connect(service.address().unwrap().as_socket().unwrap());
    signal("-TERM");
    signal("-INT");
    reactor.run().unwrap();
    drop(reactor);
    assert_eq!(opens.get(), 0);
}

#[test]
fn a_hangup_calls_the_last_hook_that_was_set() {
    for count in [1, 2] {
        let calls = &Cell::new(0);
        let mut cores = Cores::new(count).unwrap();
        let first = cores.on_hangup(|cores| {
            calls.set(100);
            cores.first().stop();
        });
        first.unwrap();
        let hook = cores.on_hangup(move |cores| {
            calls.set(calls.get() + 1);
            signal("-HUP");
            assert!(calls.get() > 1, "on purpose");
            cores.listen("127.0.0.1:0", |_| Sender).unwrap();
            // Another one takes the place of this.
            let last = cores.on_hangup(move |cores| {
                calls.set(calls.get() + 10);
                cores.first().stop();
            });
            last.unwrap();
        });
        hook.unwrap();
        let (remote, (over, waits)) = (cores.remote(), mpsc::channel::<()>());
        thread::scope(|scope| {
            scope.spawn(move || {
                if waits.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                    let _ = remote.post(|cores| cores.first().stop());
                }
            });
            signal("-HUP");
            assert_eq!(cores.run().unwrap(), Exit::Clean);
            drop(over);
        });
        assert_eq!((calls.get(), cores.status().services.len()), (12, 1));
    }
}
