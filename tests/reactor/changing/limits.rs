//! Other limits hold from one turn to the next, for those who are there too.

use std::time::{Duration, Instant};

use reactor::{CloseReason, Error, Limits, Listen, Networks, Rate, Reactor, Selection, Waits};

use super::{MUCH, Rig, TICK, Talk};

/// What the first connection waits for.
fn waits(reactor: &Reactor<'_>) -> Waits {
    reactor.connections(&Selection::default()).connections[0].waits
}

fn soon() -> Option<Duration> {
    Some(Duration::from_millis(50))
}

/// So many lines, and no more within this test's time.
fn at_most(burst: u32) -> Option<Rate> {
    Some(Rate { per_second: 1, burst })
}

/// Nobody is held back, or too slow.
fn patient() -> Limits {
    let most = 64 * 1024 * 1024;
    Limits { high_water: most, soft_output: most, max_output: most, ..Limits::default() }
}

#[test]
fn wrong_ones_change_nothing() {
    let mut rig = Rig::new();
    let limits = Limits { max_line: 77, ..Limits::default() };
    let service = rig.service("a", limits.clone());
    let wrong = Limits { max_line: 0, ..Limits::default() };
    let outcome = rig.reactor.set_limits(&service, wrong);
    assert!(matches!(outcome, Err(Error::Limit { name: "max_line", .. })), "{outcome:?}");
    assert_eq!(rig.reactor.status().services[0].limits, Some(limits));
}

#[test]
fn what_is_looked_at_when_it_is_needed_holds_at_once() {
    let mut rig = Rig::new();
    let service = rig.service("a", Limits::default());
    let mut client = rig.client("a");
    rig.reactor.set_limits(&service, Limits { max_line: 5, ..Limits::default() }).unwrap();
    rig.says(&mut client, "12345\n");
    client.send("123456\n");
    rig.ends(&mut client, "Line too long (limit 5 bytes)\n");
}

#[test]
fn a_deadline_that_was_none_or_later_comes() {
    let idle = |timeout| Limits { idle_timeout: timeout, ..Limits::default() };
    let line = |timeout| Limits { line_timeout: timeout, ..Limits::default() };
    let hour = Some(Duration::from_secs(3600));
    for (before, after, words, reason) in [
        (idle(None), idle(soon()), "", CloseReason::IdleTimeout),
        (idle(hour), idle(soon()), "", CloseReason::IdleTimeout),
        (line(None), line(soon()), "hel", CloseReason::LineTimeout),
        (line(hour), line(soon()), "hel", CloseReason::LineTimeout),
    ] {
        let mut rig = Rig::new();
        let service = rig.service("a", before);
        let mut client = rig.client("a");
        client.send(words);
        let length = 6 + words.len() as u64;
        rig.until("it has come", |reactor| reactor.counters().bytes_in == length);
        rig.reactor.set_limits(&service, after).unwrap();
        rig.until("the end", |reactor| reactor.counters().closed(reason) == 1);
    }
}

#[test]
fn a_deadline_that_is_later_now_or_none_does_not_come() {
    for after in [None, Some(Duration::from_secs(3600))] {
        let mut rig = Rig::new();
        let before = Limits { idle_timeout: Some(Duration::from_millis(200)), ..Limits::default() };
        let service = rig.service("a", before);
        let mut client = rig.client("a");
        rig.reactor
            .set_limits(&service, Limits { idle_timeout: after, ..Limits::default() })
            .unwrap();
        let end = Instant::now() + Duration::from_millis(300);
        rig.until("the old one would have come", |_| Instant::now() >= end);
        rig.says(&mut client, "still here\n");
    }
}

#[test]
fn a_handshake_that_is_under_way_has_less_time() {
    let mut rig = Rig::new();
    let listen = Listen::at("127.0.0.1:0").unwrap().proxy(Networks::loopback());
    let service = rig.service_at("a", listen, Limits::default());
    let _client = Talk::connect(rig.address("a"));
    rig.until("it is here", |reactor| reactor.counters().accepted == 1);
    let limits = Limits { handshake_timeout: soon().unwrap(), ..Limits::default() };
    rig.reactor.set_limits(&service, limits).unwrap();
    rig.until("the end", |reactor| reactor.counters().handshakes_failed == 1);
}

#[test]
fn fewer_connections_close_nobody() {
    let mut rig = Rig::new();
    let service = rig.service("a", Limits::default());
    let mut clients: Vec<_> = (0..3).map(|_| rig.client("a")).collect();
    let two = Limits { max_connections: 2, ..Limits::default() };
    rig.reactor.set_limits(&service, two.clone()).unwrap();
    for refused in 1..4 {
        let mut late = Talk::connect(rig.address("a"));
        rig.ends(&mut late, "Too many connections, try again later\n");
        assert_eq!(rig.reactor.counters().refused, refused);
        for client in &mut clients {
            rig.says(client, "still here\n");
        }
        if refused == 2 {
            clients.pop();
            rig.until("it has gone", |reactor| reactor.counters().open == 2);
        }
    }
    clients.pop();
    rig.until("it has gone", |reactor| reactor.counters().open == 1);
    clients.push(rig.client("a"));
    rig.reactor.set_limits(&service, Limits::default()).unwrap();
    clients.push(rig.client("a"));
}

#[test]
fn whose_peer_is_gone_goes_for_a_newcomer_only_where_that_lets_it_in() {
    let mut rig = Rig::new();
    let service = rig.service("a", Limits::default());
    let others = [rig.client("a"), rig.client("a")];
    let mut gone = rig.client("a");
    // The loop has the second line, and not the handler.
    gone.send("PAUSE\nunheard\n");
    rig.until("it is paused", |reactor| reactor.counters().lines_in == 4);
    socket2::SockRef::from(&gone.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(gone);
    (0..3).for_each(|_| rig.turn());
    let one = Limits { max_connections: 1, ..Limits::default() };
    rig.reactor.set_limits(&service, one).unwrap();
    let mut late = Talk::connect(rig.address("a"));
    rig.ends(&mut late, "Too many connections, try again later\n");
    assert_eq!(rig.reactor.counters().closed(CloseReason::Stalled), 0);
    assert_eq!(rig.reactor.counters().open, 3);
    drop(others);
    rig.until("they have gone", |reactor| reactor.counters().open == 1);
    rig.client("a");
    let reset = CloseReason::Error(std::io::ErrorKind::ConnectionReset);
    assert_eq!(rig.reactor.counters().closed(reset), 1);
}

#[test]
fn who_is_not_told_by_a_proxy_is_refused_once_there_are_limits_by_peer() {
    let mut rig = Rig::new();
    let listen = Listen::at("127.0.0.1:0").unwrap().proxy(Networks::loopback());
    let service = rig.service_at("a", listen, Limits::default());
    let by_peer = Limits { max_per_peer: Some(9), ..Limits::default() };
    for (limits, served) in [(by_peer, false), (Limits::default(), true)] {
        rig.reactor.set_limits(&service, limits).unwrap();
        let mut client = Talk::connect(rig.address("a"));
        client.send("PROXY UNKNOWN\r\nhello\n");
        match served {
            true => rig.hears(&mut client, "hello\n"),
            false => rig.ends(&mut client, ""),
        }
    }
}

#[test]
fn those_who_are_there_count_for_their_peer() {
    let mut rig = Rig::new();
    let service = rig.service("a", Limits::default());
    let at_most = |most| Limits { max_per_peer: most, ..Limits::default() };
    let mut clients: Vec<_> = (0..3).map(|_| rig.client("a")).collect();
    for (most, may) in [(Some(3), false), (Some(4), true), (None, true), (Some(5), false)] {
        rig.reactor.set_limits(&service, at_most(most)).unwrap();
        if may {
            clients.push(rig.client("a"));
        } else {
            let mut late = Talk::connect(rig.address("a"));
            rig.until("the end", |_| late.is_over());
            let words = String::from_utf8_lossy(&late.got).into_owned();
            assert!(words.starts_with("Too many connections from"), "{words:?}");
            // No place is lost by that.
            clients.pop();
            let open = clients.len() as u64;
            rig.until("it has gone", |reactor| reactor.counters().open == open);
            clients.push(rig.client("a"));
        }
    }
    clients.clear();
    rig.until("all have gone", |reactor| reactor.counters().open == 0);
    rig.reactor.set_limits(&service, at_most(Some(1))).unwrap();
    rig.client("a");
}

#[test]
fn who_waits_for_a_rate_goes_on_by_the_new_one() {
    let rate = |rate: Option<Rate>| Limits {
        rate: rate.map(Into::into).unwrap_or_default(),
        ..Limits::default()
    };
    let peer_rate = |rate: Option<Rate>| Limits {
        peer_rate: rate.map(Into::into).unwrap_or_default(),
        ..Limits::default()
    };
    for limits in [rate as fn(_) -> _, peer_rate] {
        let mut rig = Rig::new();
        // More seconds than this test has, once the burst is used up.
        let service = rig.service("a", limits(at_most(80)));
        let mut client = rig.client("a");
        client.send(&"1\n".repeat(200));
        rig.hears(&mut client, &"1\n".repeat(79));
        rig.until("it waits", |reactor| waits(reactor) == Waits::Rate);
        // The burst begins anew.
        rig.reactor.set_limits(&service, limits(at_most(40))).unwrap();
        rig.hears(&mut client, &"1\n".repeat(40));
        rig.until("it waits", |reactor| waits(reactor) == Waits::Rate);
        rig.reactor.set_limits(&service, limits(None)).unwrap();
        rig.hears(&mut client, &"1\n".repeat(81));
        // As if there had been none.
        rig.reactor.set_limits(&service, limits(at_most(1))).unwrap();
        client.send("1\n2\n");
        rig.hears(&mut client, "1\n");
        rig.until("it waits", |reactor| waits(reactor) == Waits::Rate);
        // Other limits leave the rates alone: what was used is used.
        let same = Limits { max_line: 99, ..limits(at_most(1)) };
        rig.reactor.set_limits(&service, same).unwrap();
        rig.turn();
        assert_eq!(waits(&rig.reactor), Waits::Rate);
    }
}

#[test]
fn those_of_one_peer_who_wait_in_line_all_go_on() {
    let mut rig = Rig::new();
    let slow = Limits { peer_rate: at_most(1).unwrap().into(), ..Limits::default() };
    let service = rig.service("a", Limits::default());
    let mut clients: Vec<_> = (0..5).map(|_| rig.client("a")).collect();
    rig.reactor.set_limits(&service, slow).unwrap();
    clients.iter_mut().for_each(|client| client.send("hello\nagain\n"));
    let waiting = |reactor: &Reactor<'_>| {
        let page = reactor.connections(&Selection::default());
        page.connections.iter().filter(|one| one.waits == Waits::Rate).count()
    };
    rig.until("all wait", |reactor| waiting(reactor) == 5);
    rig.reactor.set_limits(&service, Limits::default()).unwrap();
    rig.until("all have had all", |reactor| reactor.counters().lines_in == 15);
    assert_eq!(waiting(&rig.reactor), 0);
}

#[test]
fn connecting_has_another_rate() {
    let mut rig = Rig::new();
    let connects = |rate| Limits { peer_connect_rate: rate, ..Limits::default() };
    let service = rig.service("a", connects(at_most(1)));
    let _first = rig.client("a");
    let mut late = Talk::connect(rig.address("a"));
    rig.until("the end", |_| late.is_over());
    rig.reactor.set_limits(&service, connects(at_most(2))).unwrap();
    let _others = [rig.client("a"), rig.client("a")];
    let mut late = Talk::connect(rig.address("a"));
    rig.until("the end", |_| late.is_over());
    assert_eq!(rig.reactor.counters().refused, 2);
}

#[test]
fn the_marks_of_unsent_output_hold_for_what_is_unsent() {
    let mut rig = Rig::new();
    let service = rig.service("a", Limits::default());
    let mut client = rig.client("a");
    client.send("MUCH\n");
    rig.until("it is held", |reactor| waits(reactor) == Waits::Held);
    client.send("handled while nothing is read\n");
    (0..3).for_each(|_| rig.turn());
    assert_eq!(rig.reactor.counters().lines_in, 2);
    rig.reactor.set_limits(&service, Limits { low_water: MUCH, ..patient() }).unwrap();
    rig.until("it is handled", |reactor| reactor.counters().lines_in == 3);
    assert_eq!(waits(&rig.reactor), Waits::Reader);
    rig.reactor.set_limits(&service, Limits::default()).unwrap();
    assert_eq!(waits(&rig.reactor), Waits::Held);
}

#[test]
fn what_others_have_sent_may_be_too_much_now() {
    let too_much = Limits::default();
    let too_long =
        Limits { max_output: 1 << 30, soft_output_for: soon().unwrap(), ..too_much.clone() };
    for limits in [too_much, too_long] {
        let mut rig = Rig::new();
        let service = rig.service("a", patient());
        let (_slow, mut other) = (rig.client("a"), rig.client("a"));
        other.send("OTHERS\n");
        rig.until("it has it", |_| {
            other.read();
            other.got.len() == MUCH
        });
        assert_eq!(rig.reactor.counters().open, 2);
        let tight = limits.soft_output_for < Duration::from_secs(1);
        rig.reactor.set_limits(&service, limits).unwrap();
        rig.turn();
        if tight {
            assert_eq!(rig.reactor.counters().open, 2, "not at once");
        }
        let slow = |reactor: &Reactor<'_>| reactor.counters().closed(CloseReason::SlowConsumer);
        rig.until("it has gone", |reactor| slow(reactor) == 1);
    }
}

/// What proc(5) says of the timer of the server's socket: 2 is keepalive, and in how many hundredths of a
/// second.
#[cfg(target_os = "linux")]
fn timer(client: &Talk) -> (u8, u64) {
    let port = |addr: std::net::SocketAddr| format!(":{:04X}", addr.port());
    let (own, peer) = (client.stream.peer_addr().unwrap(), client.stream.local_addr().unwrap());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let is_it = |row: &Vec<&str>| row[1].ends_with(&port(own)) && row[2].ends_with(&port(peer));
    let row = rows.into_iter().find(is_it).expect("it is there");
    let (kind, when) = row[5].split_once(':').unwrap();
    (kind.parse().unwrap(), u64::from_str_radix(when, 16).unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn keepalive_is_set_on_those_who_are_there_and_those_who_come() {
    let mut rig = Rig::new();
    let keepalive = |seconds| Limits {
        keepalive: Option::map(seconds, Duration::from_secs),
        ..Limits::default()
    };
    let service = rig.service("a", keepalive(None));
    let client = rig.client("a");
    assert_eq!(timer(&client).0, 0);
    for seconds in [77, 7777] {
        rig.reactor.set_limits(&service, keepalive(Some(seconds))).unwrap();
        for client in [&client, &rig.client("a")] {
            // What is sent has to be acknowledged first, which has a timer too.
            rig.until("it has it", |_| timer(client).0 == 2);
            let left = timer(client).1;
            assert!((seconds * 90..=seconds * 100).contains(&left), "{left} of {seconds}");
        }
    }
    rig.reactor.set_limits(&service, keepalive(None)).unwrap();
    for client in [&client, &rig.client("a")] {
        rig.until("it has none", |_| timer(client).0 == 0);
    }
    rig.reactor.turn(Some(TICK)).unwrap();
}
