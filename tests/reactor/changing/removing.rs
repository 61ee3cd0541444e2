//! A service is removed, as by a shutdown of it alone.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use reactor::{
    Callbacks, Counters, DatagramContext, DatagramHandler, Error, Exit, Limits, Reactor,
    TryPostError,
};

use super::{Noting, Rig, TICK, Talk, at};

#[test]
fn it_goes_as_in_a_shutdown_and_the_others_stay() {
    let mut rig = Rig::new();
    let (goes, _stays) = (rig.service("a", Limits::default()), rig.service("b", Limits::default()));
    let (mut one, mut other) = (rig.client("a"), rig.client("b"));
    let address = rig.address("a");
    assert_eq!(rig.notes(), ["a starts", "b starts"]);
    let handle = goes.handle();
    handle.post("one").unwrap();
    handle.post("dial").unwrap();
    rig.reactor.remove(&goes).unwrap();
    // No newcomer, from the first moment on.
    TcpStream::connect(address).unwrap_err();
    rig.ends(&mut one, "bye\n");
    drop(one);
    rig.until("it has gone", |reactor| reactor.status().services.len() == 1);
    let removed = "a the service was removed, or is one of another reactor";
    assert_eq!(rig.notes(), ["a one", removed, "a shuts down", "a shutdown", "a is dropped"]);
    rig.says(&mut other, "still here\n");
    assert_eq!(rig.reactor.counters().open, 1);
    assert_eq!(handle.post("late"), Err("late"));
    assert!(rig.reactor.exit().is_none());
}

#[test]
fn its_place_is_anothers_and_its_key_leads_nowhere() {
    let mut rig = Rig::new();
    rig.reactor.set_shutdown_timeout(Duration::ZERO);
    let services: Vec<_> =
        (0..250).map(|_| rig.reactor.add(Callbacks::new(), Limits::default()).unwrap()).collect();
    let full = rig.reactor.add(Callbacks::new(), Limits::default()).unwrap_err();
    assert!(matches!(full, Error::TooManyServices));
    rig.reactor.remove(&services[7]).unwrap();
    rig.turn();
    for round in 0..1000 {
        let service = rig.service("a", Limits::default());
        if round == 500 {
            let mut client = rig.client("a");
            rig.says(&mut client, "as ever\n");
        }
        let handle = service.handle();
        assert_eq!(handle.try_post("one too many", 0), Err(TryPostError::Full("one too many")));
        rig.reactor.remove(&service).unwrap();
        rig.until("it has gone", |reactor| reactor.status().services.len() == 249);
        // Another one has the place.
        let next = rig.service("b", Limits::default());
        let address = rig.address("b");
        let reactor = &mut rig.reactor;
        for outcome in [
            reactor.bind(&service, "127.0.0.1:0").map(drop),
            reactor.unbind(&service, &address.into()),
            reactor.rebind(&service, at(address)),
            reactor.set_limits(&service, Limits::default()),
            reactor.connect(&service, address).map(drop),
            reactor.adopt(&service, std::io::stdin(), std::io::stdout()).map(drop),
            reactor.remove(&service),
        ] {
            assert!(matches!(outcome, Err(Error::Removed)), "{outcome:?}");
        }
        reactor.set_name(&service, "c");
        assert_eq!((reactor.name(&service), reactor.name(&next)), ("", "b"));
        assert_eq!(reactor.counters_of(&service), Counters::default());
        assert_eq!(handle.post("late"), Err("late"));
        assert_eq!(handle.try_post("late", 1), Err(TryPostError::Gone("late")));
        assert!(handle.is_empty());
        rig.turn();
        let starts = rig.notes.borrow().iter().filter(|note| *note == "b starts").count();
        assert_eq!(starts, 1 + round);
        rig.reactor.remove(&next).unwrap();
        rig.until("it has gone", |reactor| reactor.status().services.len() == 249);
    }
    let counters = rig.reactor.counters();
    assert_eq!((counters.accepted, counters.lines_in, counters.open), (1, 2, 0));
}

#[test]
fn a_key_of_another_reactor_is_none_of_this_one() {
    let (mut one, mut other) = (Rig::new(), Rig::new());
    let service = one.service("a", Limits::default());
    other.service("b", Limits::default());
    assert!(matches!(other.reactor.remove(&service), Err(Error::Removed)));
    assert_eq!(other.reactor.name(&service), "");
}

#[test]
fn who_takes_nothing_is_cut_off_when_its_time_is_over() {
    let mut rig = Rig::new();
    rig.service("b", Limits::default());
    let service = rig.service("a", Limits::default());
    let _client = rig.held_client("a");
    let time = Duration::from_millis(150);
    rig.reactor.set_shutdown_timeout(time);
    let began = Instant::now();
    rig.reactor.remove(&service).unwrap();
    // What is set later is for those that are removed later.
    rig.reactor.set_shutdown_timeout(Duration::from_secs(3600));
    (0..3).for_each(|_| rig.turn());
    // Nothing else wakes the loop, unless it has gone already.
    let next = rig.reactor.next_deadline();
    assert!(next.is_none_or(|next| next < began + Duration::from_secs(20)), "{next:?}");
    rig.until("it has gone", |reactor| reactor.status().services.len() == 1);
    assert!(began.elapsed() >= time, "{:?}", began.elapsed());
    let counters = rig.reactor.counters();
    assert_eq!((counters.open, rig.reactor.status().unsent), (0, 0));
    assert_eq!(rig.notes()[2..], ["a shuts down", "a shutdown", "a is dropped"]);
    // It was not the reactor that has cut anybody off.
    rig.reactor.stop();
    rig.until("the end", |reactor| reactor.exit().is_some());
    assert_eq!(rig.reactor.exit(), Some(Exit::Clean));
}

#[test]
fn a_stop_meanwhile_tells_each_handler_once() {
    for turns in 0..4 {
        let mut rig = Rig::new();
        rig.service("b", Limits::default());
        let service = rig.service("a", Limits::default());
        let mut client = rig.held_client("a");
        service.handle().post("before").unwrap();
        rig.reactor.remove(&service).unwrap();
        (0..turns).for_each(|_| rig.turn());
        rig.reactor.stop();
        let outcome = rig.reactor.remove(&service);
        assert!(matches!(outcome, Err(Error::Removed)), "{outcome:?}");
        rig.until("it stops", |reactor| reactor.status().stopping);
        rig.until("the end", |reactor| client.is_over() || reactor.exit().is_some());
        drop(client);
        rig.until("the end", |reactor| reactor.exit().is_some());
        assert_eq!(rig.reactor.exit(), Some(Exit::Clean));
        let notes = rig.notes();
        for once in ["a before", "a shuts down", "a shutdown", "b shuts down"] {
            assert_eq!(notes.iter().filter(|note| *note == once).count(), 1, "{once} in {notes:?}");
        }
    }
}

#[test]
fn a_shutdown_is_the_end_of_changes() {
    let mut rig = Rig::new();
    let service = rig.service("a", Limits::default());
    let address = rig.address("a");
    rig.reactor.stop();
    let reactor = &mut rig.reactor;
    for outcome in [
        reactor.remove(&service),
        reactor.unbind(&service, &address.into()),
        reactor.rebind(&service, at(address)),
        reactor.set_limits(&service, Limits::default()),
    ] {
        assert!(matches!(outcome, Err(Error::ShuttingDown)), "{outcome:?}");
    }
    rig.until("the end", |reactor| reactor.exit().is_some());
    assert_eq!(rig.notes(), ["a shuts down"]);
}

#[test]
fn a_service_may_keep_its_connections_for_a_while() {
    let mut rig = Rig::new();
    let keeps = Duration::from_millis(200);
    for (timeout, least) in [(Duration::from_secs(10), keeps), (keeps / 4, keeps / 4)] {
        rig.reactor.set_shutdown_timeout(timeout);
        let mut handler = Noting::new("a", &rig.notes);
        handler.keeps = keeps;
        let service = rig.reactor.listen("127.0.0.1:0", handler).unwrap();
        rig.reactor.set_name(&service, "a");
        let mut client = rig.client("a");
        let began = Instant::now();
        rig.reactor.remove(&service).unwrap();
        rig.hears(&mut client, "bye\n");
        rig.says(&mut client, "one more\n");
        rig.ends(&mut client, "");
        assert!(began.elapsed() >= least);
        drop(client);
        rig.until("it has gone", |reactor| reactor.status().services.is_empty());
        assert_eq!(rig.notes().last().unwrap(), "a is dropped");
    }
}

#[test]
fn all_that_was_posted_before_comes_first() {
    let mut rig = Rig::new();
    let service = rig.service("a", Limits::default());
    rig.turn();
    // More than a turn takes.
    (0..3000).for_each(|_| service.handle().post("one").unwrap());
    rig.reactor.remove(&service).unwrap();
    rig.until("it has gone", |reactor| reactor.status().services.is_empty());
    let notes = rig.notes();
    assert_eq!(notes.len(), 3003);
    assert_eq!(notes[3001..], ["a shuts down", "a is dropped"]);
    assert_eq!(rig.reactor.counters().messages_lost, 0);
}

#[test]
fn what_was_not_handled_is_counted_as_lost() {
    let mut rig = Rig::new();
    rig.reactor.set_shutdown_timeout(Duration::ZERO);
    let service = rig.service("a", Limits::default());
    rig.turn();
    (0..3000).for_each(|_| service.handle().post("one").unwrap());
    rig.reactor.remove(&service).unwrap();
    rig.until("it has gone", |reactor| reactor.status().services.is_empty());
    let handled = rig.notes().iter().filter(|note| *note == "a one").count() as u64;
    assert!(handled < 3000);
    assert_eq!(rig.reactor.counters().messages_lost, 3000 - handled);
    assert!(service.handle().is_empty());
}

#[test]
fn a_handler_that_panics_as_it_is_dropped_ends_nothing() {
    let mut rig = Rig::new();
    rig.service("b", Limits::default());
    let mut handler = Noting::new("a", &rig.notes);
    handler.panics_at_its_end = true;
    let service = rig.reactor.add(handler, Limits::default()).unwrap();
    let mut client = rig.client("b");
    rig.reactor.remove(&service).unwrap();
    rig.until("it has gone", |reactor| reactor.status().services.len() == 1);
    rig.says(&mut client, "still here\n");
    assert_eq!(rig.reactor.counters().panics, 1);
}

/// Answers, and says a last word to who came last.
#[derive(Default)]
struct Shout {
    last: Option<SocketAddr>,
}

impl DatagramHandler for Shout {
    type Message = ();

    fn on_datagram(&mut self, cx: &mut DatagramContext<'_>, from: SocketAddr, bytes: &[u8]) {
        self.last = Some(from);
        cx.send_to(from, bytes);
    }

    fn on_shutdown(&mut self, cx: &mut DatagramContext<'_>) {
        cx.send_to(self.last.unwrap(), "bye");
    }
}

#[test]
fn a_service_of_datagrams_goes_too() {
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.datagrams("127.0.0.4:0", Shout::default()).unwrap();
    let address = service.address().unwrap().as_socket().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(address).unwrap();
    client.send(b"hello").unwrap();
    while reactor.counters().datagrams_out == 0 {
        reactor.turn(Some(TICK)).unwrap();
    }
    for outcome in [
        reactor.unbind(&service, &address.into()),
        reactor.rebind(&service, at(address)),
        reactor.set_limits(&service, Limits::default()),
    ] {
        assert!(matches!(outcome, Err(Error::Datagrams)), "{outcome:?}");
    }
    reactor.remove(&service).unwrap();
    assert!(matches!(reactor.remove(&service), Err(Error::Removed)));
    reactor.turn(Some(TICK)).unwrap();
    assert!(reactor.status().services.is_empty());
    assert_eq!(reactor.counters().datagrams_out, 2);
    let mut buffer = [0; 16];
    for words in ["hello", "bye"] {
        let count = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], words.as_bytes());
    }
    // Its port is free, and its place: for a service of lines as well.
    drop(UdpSocket::bind(address).unwrap());
    let next = reactor.listen("127.0.0.1:0", Callbacks::new()).unwrap();
    assert_eq!(reactor.name(&next), "Callbacks");
    reactor.turn(Some(TICK)).unwrap();
}

#[test]
fn it_may_go_before_it_was_told_that_the_loop_runs() {
    let mut rig = Rig::new();
    let service = rig.service("a", Limits::default());
    let address = rig.address("a");
    // One that has come before the first turn is not let in any more.
    let mut client = Talk::connect(address);
    rig.reactor.remove(&service).unwrap();
    rig.ends(&mut client, "");
    rig.until("it has gone", |reactor| reactor.status().services.is_empty());
    assert_eq!(rig.notes(), ["a shuts down", "a is dropped"]);
}
