//! Promise 2: a turn costs in proportion to what is ready, never to how many are connected.
//!
//! Two things are looked at: that those who are silent cause no turns, which the counters tell,
//! and that they make the turns of the others no longer, which takes a clock. The clock shows a
//! walk over all connections, were there one; it would not show a cost that grows with the
//! logarithm of their number.

#![cfg(feature = "services")]

use std::net::TcpStream;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use reactor::services::Echo;
use reactor::{Handler, Limits, Reactor, ServiceContext};

use crate::util::{self, Client, PATIENCE, Server};

/// Tells how many turns there have been.
struct Turns(Sender<u64>);

impl Handler for Turns {
    type Session = ();
    type Message = ();

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, (): ()) {
        self.0.send(cx.counters().turns).unwrap();
    }
}

#[test]
fn the_silent_cause_no_turns() {
    let _quiet = util::quiet();
    let (tell, told) = mpsc::channel();
    let server = Server::start(Limits::default(), || Turns(tell));
    let clients: Vec<_> = (0..300).map(|_| server.connect()).collect();
    let turns = || {
        server.handle.post(()).unwrap();
        told.recv_timeout(PATIENCE).unwrap()
    };
    // Those that connected last may still be on their way in.
    let mut before = turns();
    let mut after = before;
    for _ in 0..20 {
        before = after;
        let _ = told.recv_timeout(Duration::from_millis(200));
        after = turns();
        if after - before <= 1 {
            break;
        }
    }
    assert!(after - before <= 1, "{} turns for nobody", after - before);
    drop(clients);
}

/// The time of one round trip, the loop and the client on this thread: the best of several, so
/// that what else the machine does counts as little as can be.
fn round_trip(reactor: &mut Reactor<'_>, client: &mut Client) -> Duration {
    let rounds = (0..15).map(|_| {
        let start = Instant::now();
        for _ in 0..100 {
            client.send("ping\n");
            reactor.turn(Some(PATIENCE)).unwrap();
            client.expect("> PING\n");
        }
        start.elapsed() / 100
    });
    rounds.min().unwrap()
}

#[test]
fn the_silent_make_no_turn_longer() {
    let _quiet = util::quiet();
    let most = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let silent = (most / 2).saturating_sub(200).min(8_000) as usize;
    let mut reactor = Reactor::new().unwrap();
    let addr = reactor.listen("127.0.0.1:0", Echo).unwrap().address().unwrap().as_socket().unwrap();
    let mut client = Client::connect(addr);
    reactor.turn(None).unwrap();
    client.line();
    client.line();
    let alone = round_trip(&mut reactor, &mut client);

    let mut others = Vec::new();
    while others.len() < silent {
        others.extend((0..50).map(|_| TcpStream::connect(addr).unwrap()));
        while reactor.counters().open <= others.len() as u64 {
            reactor.turn(None).unwrap();
        }
    }
    // What the others' arrival still has for the loop to do.
    while reactor.counters().turns < 10 || reactor.next_deadline().is_some() {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    reactor.turn(Some(Duration::ZERO)).unwrap();
    let turns = reactor.counters().turns;
    let mut crowded = round_trip(&mut reactor, &mut client);
    assert_eq!(reactor.counters().turns - turns, 1_500, "one turn for each round trip");
    let most = alone * 2 + Duration::from_micros(20);
    for _ in 0..20 {
        // The machine may just have been busy.
        if crowded > most {
            crowded = round_trip(&mut reactor, &mut client);
        }
    }
    println!("a round trip alone {alone:?}, beside {silent} silent connections {crowded:?}");
    assert!(crowded <= most, "{alone:?} became {crowded:?}");
}
