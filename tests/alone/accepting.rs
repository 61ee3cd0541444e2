//! Out of file descriptors: a test binary of its own with one test, because the limit is one of
//! the whole process.

#[path = "../util/mod.rs"]
mod util;

use std::fs::File;
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use reactor::{Context, Counters, Exit, Handler, Limits, Refused, ServiceContext};
use socket2::{Domain, Socket, Type};
use util::{Client, Server};

struct Plain;

impl Handler for Plain {
    type Session = ();
    type Message = mpsc::Sender<Counters>;

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send("hello\n");
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        if line == b"pause" {
            cx.pause();
        }
        cx.send(line);
        cx.send("\n");
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, asker: mpsc::Sender<Counters>) {
        let _ = asker.send(cx.counters());
    }
}

/// Sockets that are not connected yet: connecting them takes no descriptor of ours.
fn newcomers(count: usize) -> Vec<Socket> {
    let socket = |_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    (0..count).map(socket).collect()
}

fn knock(newcomer: Socket, server: &Server<mpsc::Sender<Counters>>) -> Client {
    newcomer.connect(&server.addr.into()).unwrap();
    Client::from(TcpStream::from(newcomer))
}

/// Takes every descriptor that is left.
fn plugs() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[test]
fn survives_resets_before_accept_and_running_out_of_descriptors() {
    let server = Server::start(Limits::default(), || Plain);

    // Many that are reset at once, most of them before the loop gets round to them.
    for _ in 0..500 {
        Client::connect(server.addr).reset();
    }
    let mut served = server.connect();
    served.expect("hello\n");
    util::until("they are gone", || server.counters().open == 1);

    // A small limit, and all of it in use; the newcomers' own sockets are there already.
    let (_, most) = rlimit::getrlimit(rlimit::Resource::NOFILE).unwrap();
    rlimit::setrlimit(rlimit::Resource::NOFILE, 128, most).unwrap();
    let sockets = newcomers(20);
    let plugs = self::plugs();
    let mut waiting: Vec<Client> = sockets.into_iter().map(|n| knock(n, &server)).collect();
    util::until("the first of them is turned away", || server.counters().refused >= 1);

    // Whoever is connected is served, and the loop does not spin: what it does apart from
    // answering us is a try a second.
    served.send("still here\n");
    served.expect("still here\n");
    let began = Instant::now();
    let before = server.counters();
    std::thread::sleep(Duration::from_millis(2500));
    let after = server.counters();
    let seconds = began.elapsed().as_secs() + 1;
    let turns = after.turns - before.turns;
    assert!(turns < 20 * seconds, "{turns} turns in {seconds} s with nothing to do");
    assert_eq!(after.accepted, before.accepted);
    assert!(after.refused - before.refused <= seconds, "one a second at the most");

    // Descriptors become free, those who still wait get in, with nobody new to raise an edge.
    drop(plugs);
    let mut got_in = 0;
    for client in &mut waiting {
        let line = client.line();
        match line.as_str() {
            "hello\n" => got_in += 1,
            "Too many connections, try again later\n" => {}
            _ => panic!("{line:?}"),
        }
    }
    let end = server.counters();
    assert_eq!(got_in + end.refused, 20);
    assert_eq!(end.refused_for(Refused::NoDescriptor), end.refused);
    assert!(got_in >= 2, "only {got_in} were left waiting");
    let mut late = server.connect();
    late.expect("hello\n");

    // And again, where it is somebody who leaves that makes room.
    let mut gone = server.connect();
    gone.send("pause\nmore\n");
    gone.expect("hello\npause\n");
    let sockets = newcomers(20);
    let plugs = self::plugs();
    let more: Vec<Client> = sockets.into_iter().map(|socket| knock(socket, &server)).collect();
    util::until("out again", || server.counters().refused > end.refused);
    let before = server.counters().accepted;
    drop(late);
    util::until("one gets in", || server.counters().accepted > before);

    // Somebody who was reset makes room too, though what it has sent still waits for the handler.
    // Both ends of each are ours.
    gone.reset();
    let soon = Duration::from_secs(15);
    util::until_within(soon, "four get in", || server.counters().accepted >= before + 4);
    drop((plugs, waiting, more, served));
    let (exit, counters) = server.stop();
    assert_eq!((exit, counters.open), (Exit::Clean, 0));
}
