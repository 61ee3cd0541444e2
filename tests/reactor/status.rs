//! What can be seen of the loop from outside, over real sockets: services and listeners, why each
//! connection waits and what it has done, how long the turns take; and that one can be closed by its
//! number.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use reactor::testing::Harness;
use reactor::{
    Ask, CloseReason, ConnectionStatus, Context, DatagramContext, DatagramHandler, Handler, Limits,
    Listen, Networks, Order, Page, Rate, Reactor, Refused, Report, Selection, Service,
    ServiceContext, Turns, Waits,
};

use crate::util::{self, Client, PATIENCE};

/// How long one turn may sleep.
const TICK: Duration = Duration::from_millis(5);

/// More than the kernel takes for a client that does not read.
const MUCH: usize = 16 * 1024 * 1024;

/// Does what it is told, and notes why connections end.
#[derive(Default)]
struct Puppet<'e> {
    ends: Option<&'e RefCell<Vec<CloseReason>>>,
}

impl Handler for Puppet<'_> {
    type Session = usize; // bytes of a stream that are still to be sent
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, usize>, line: &[u8]) {
        match line {
            b"MUCH" => {
                cx.send(vec![b'x'; MUCH]);
            }
            b"STREAM" => {
                *cx.session() = MUCH;
                self.on_drain(cx);
            }
            b"PAUSE" => cx.pause(),
            b"QUIT" => cx.close(),
            b"PANIC" => panic!("on purpose"),
            b"STATUS" => cx.request_report(Ask::Overview { watch: false }),
            _ => match line.strip_prefix(b"CLOSE ").and_then(reactor::text::parse) {
                Some(number) => cx.request_report(Ask::Close { number, why: "asked".to_owned() }),
                None => writeln!(cx, "{}", line.escape_ascii()),
            },
        }
    }

    fn on_drain(&mut self, cx: &mut Context<'_, usize>) {
        cx.send_pieces(|left| {
            *left = left.checked_sub(64 * 1024)?;
            Some([b'x'; 64 * 1024])
        });
    }

    fn on_eof(&mut self, cx: &mut Context<'_, usize>) {
        // What it is sent in the end is for the test to say.
        cx.send("ended\n");
    }

    fn on_close(&mut self, _cx: &mut Context<'_, usize>, reason: CloseReason) {
        if let Some(ends) = self.ends {
            ends.borrow_mut().push(reason);
        }
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, usize>, (): ()) {
        cx.broadcast(vec![b'x'; MUCH]);
    }

    fn on_report(&mut self, cx: &mut Context<'_, usize>, report: &Report) {
        match report {
            Report::Overview(status) => {
                let count: usize = status.services.iter().map(|one| one.connections).sum();
                writeln!(cx, "{count} connections");
            }
            Report::Closed(closed) => writeln!(cx, "closed: {closed}"),
            _ => {}
        }
    }
}

/// Unsent output holds nobody back, nor is it too much.
fn patient() -> Limits {
    let most = 64 * 1024 * 1024;
    Limits {
        high_water: most,
        soft_output: most,
        max_output: most,
        linger: PATIENCE,
        ..Limits::default()
    }
}

fn addr<M>(service: &Service<M>) -> SocketAddr {
    service.address().unwrap().as_socket().unwrap()
}

/// Takes turns until it is so.
#[track_caller]
fn until(reactor: &mut Reactor<'_>, what: &str, mut so: impl FnMut(&Reactor<'_>) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so(reactor) {
        assert!(Instant::now() < deadline, "in vain: {what}");
        reactor.turn(Some(TICK)).unwrap();
    }
}

/// All connections, page by page.
fn all(reactor: &Reactor<'_>) -> Vec<ConnectionStatus> {
    let mut which = Selection::default();
    let mut all = Vec::new();
    loop {
        let Page { connections, next, .. } = reactor.connections(&which);
        all.extend(connections);
        which.after = next;
        if next.is_none() {
            return all;
        }
    }
}

/// What the only connection waits for.
fn waits(reactor: &Reactor<'_>) -> Option<Waits> {
    match &all(reactor)[..] {
        [one] => Some(one.waits),
        _ => None,
    }
}

/// One client of a service with these limits says these lines, and reads nothing.
#[track_caller]
fn one_that_says(limits: Limits, lines: &str, waits_for: Waits) {
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.listen_with("127.0.0.1:0", Puppet::default(), limits).unwrap();
    let mut client = Client::connect(addr(&service));
    client.send(lines);
    until(&mut reactor, waits_for.as_str(), |reactor| waits(reactor) == Some(waits_for));
    // It is no passing state.
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(waits(&reactor), Some(waits_for));
}

#[test]
fn it_waits_for_input() {
    one_that_says(Limits::default(), "", Waits::Input);
}

#[test]
fn it_waits_for_its_reader() {
    one_that_says(patient(), "MUCH\n", Waits::Reader);
}

#[test]
fn a_stream_waits_for_its_reader_though_it_is_paused() {
    one_that_says(patient(), "STREAM\n", Waits::Reader);
}

#[test]
fn it_is_held_back() {
    one_that_says(
        Limits { high_water: 1024, low_water: 512, ..patient() },
        "MUCH\nmore\n",
        Waits::Held,
    );
}

#[test]
fn it_waits_for_its_rate() {
    let rate = Rate { per_second: 1, burst: 1 };
    one_that_says(
        Limits { rate: rate.into(), ..Limits::default() },
        &"a\n".repeat(50),
        Waits::Rate,
    );
    let limits = Limits { peer_rate: rate.into(), ..Limits::default() };
    one_that_says(limits, &"a\n".repeat(50), Waits::Rate);
}

#[test]
fn it_waits_for_its_turn() {
    let limits = Limits { lines_per_turn: 1, ..Limits::default() };
    one_that_says(limits, &"a\n".repeat(1000), Waits::Turn);
}

#[test]
fn it_is_paused() {
    one_that_says(Limits::default(), "PAUSE\nmore\n", Waits::Paused);
}

#[test]
fn it_is_closing() {
    one_that_says(patient(), "MUCH\nQUIT\n", Waits::Closing);
}

#[test]
fn it_lingers() {
    one_that_says(patient(), "QUIT\n", Waits::Lingering);
}

#[test]
fn who_has_ended_waits_for_the_handler() {
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.listen("127.0.0.1:0", Puppet::default()).unwrap();
    let client = Client::connect(addr(&service));
    client.end();
    until(&mut reactor, "paused", |reactor| waits(reactor) == Some(Waits::Paused));
}

#[test]
fn a_handshake_is_under_way() {
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.add(Puppet::default(), Limits::default()).unwrap();
    let behind = Listen::at("127.0.0.1:0").unwrap().proxy(Networks::loopback());
    let address = reactor.bind(&service, behind).unwrap();
    let _client = Client::connect(address.as_socket().unwrap());
    until(&mut reactor, "handshake", |reactor| waits(reactor) == Some(Waits::Handshake));
}

#[test]
fn it_is_being_connected() {
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.add(Puppet::default(), Limits::default()).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    reactor.connect(&service, listener.local_addr().unwrap()).unwrap();
    assert_eq!(waits(&reactor), Some(Waits::Connecting));
    let [one] = &all(&reactor)[..] else { panic!("one connection") };
    assert!(one.outbound && one.peer == Some(listener.local_addr().unwrap()));
    until(&mut reactor, "connected", |reactor| waits(reactor) == Some(Waits::Input));
}

/// Takes datagrams and does nothing.
struct Deaf;

impl DatagramHandler for Deaf {
    type Message = ();

    fn on_datagram(&mut self, _cx: &mut DatagramContext<'_>, _from: SocketAddr, _bytes: &[u8]) {}
}

#[test]
fn the_services_are_shown_with_their_listeners_and_what_each_has_counted() {
    let folder = util::folder::Folder::new("status");
    let path = folder.path().join("room.sock");
    let mut reactor = Reactor::new().unwrap();
    let first = reactor.listen("127.0.0.1:0", Puppet::default()).unwrap();
    reactor.set_name(&first, "first");
    reactor.bind(&first, path.as_path()).unwrap();
    let limits = Limits { max_line: 77, ..patient() };
    let second = reactor.add(Puppet::default(), limits.clone()).unwrap();
    reactor.set_name(&second, "second");
    let behind = Listen::at("127.0.0.1:0").unwrap().proxy(Networks::loopback());
    let proxied = reactor.bind(&second, behind).unwrap();
    let datagrams = reactor.datagrams("127.0.0.1:0", Deaf).unwrap();

    let mut client = Client::connect(addr(&first));
    client.send("one\ntwo\n");
    let _local = UnixStream::connect(&path).unwrap();
    let mut other = Client::connect(proxied.as_socket().unwrap());
    other.send("PROXY TCP4 192.0.2.7 192.0.2.1 1111 2222\r\nMUCH\n");
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(b"hello", addr(&datagrams)).unwrap();
    until(&mut reactor, "all is handled", |reactor| {
        let counters = reactor.counters();
        counters.lines_in == 3 && counters.datagrams_in == 1 && counters.open == 3
    });

    let status = reactor.status();
    let [one, two, three] = &status.services[..] else { panic!("{status:?}") };
    assert_eq!((&*one.name, &*two.name, &*three.name), ("first", "second", "Deaf"));
    let shown = |service: &reactor::ServiceStatus| {
        let listeners = service.listeners.iter();
        listeners.map(|listener| listener.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(shown(one), [addr(&first).to_string(), format!("unix:{}", path.display())]);
    assert_eq!(shown(two), [format!("proxy:{proxied}")]);
    assert_eq!(shown(three), [addr(&datagrams).to_string()]);
    assert_eq!((one.connections, two.connections, three.connections), (2, 1, 0));
    assert_eq!((one.counters.lines_in, one.counters.bytes_in, one.counters.accepted), (2, 8, 2));
    assert_eq!((two.counters.lines_in, two.counters.accepted, two.counters.open), (1, 1, 1));
    assert_eq!((three.counters.datagrams_in, three.counters.bytes_in), (1, 5));
    assert_eq!(reactor.counters_of(&second), two.counters);
    assert_eq!(reactor.counters_of(&datagrams), three.counters);
    assert_eq!(status.counters.bytes_in, 8 + two.counters.bytes_in + 5);
    assert!(two.unsent > 0 && one.unsent == 0 && status.unsent == two.unsent);
    assert_eq!((two.limits.as_ref(), three.limits.as_ref()), (Some(&limits), None));
    assert!(!status.stopping && status.uptime > Duration::ZERO);

    // Whom the proxy names is the peer.
    let which = Selection { service: Some("second".to_owned()), ..Selection::default() };
    let page = reactor.connections(&which);
    assert_eq!((page.total, page.connections.len(), page.next), (1, 1, None));
    let one = &page.connections[0];
    assert_eq!(one.peer, Some("192.0.2.7:1111".parse().unwrap()));
    assert_eq!((&*one.service, one.outbound, one.unsent), ("second", false, two.unsent));
    assert_eq!(one.usage, None);

    reactor.stop();
    reactor.turn(Some(TICK)).unwrap();
    let status = reactor.status();
    assert!(status.stopping && status.services.iter().all(|one| one.listeners.is_empty()));
}

#[test]
fn accounts_are_kept_for_as_long_as_they_are_wanted() {
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.listen("127.0.0.1:0", Puppet::default()).unwrap();
    let mut client = Client::connect(addr(&service));
    client.send("before\n");
    until(&mut reactor, "a line", |reactor| reactor.counters().lines_in == 1);
    let usage = |reactor: &Reactor<'_>| all(reactor)[0].usage;
    assert_eq!(usage(&reactor), None);
    reactor.set_accounting(true);
    client.send("12345\nabc\n");
    until(&mut reactor, "two more", |reactor| reactor.counters().lines_in == 3);
    let account = usage(&reactor).unwrap();
    assert_eq!((account.lines_in, account.bytes_in, account.bytes_out), (2, 10, 10));
    assert!(account.age > Duration::ZERO && account.age < reactor.status().uptime);
    // Who comes in its place begins anew, and so does a service that is added later.
    drop(client);
    until(&mut reactor, "nobody", |reactor| all(reactor).is_empty());
    let later = reactor.listen("127.0.0.1:0", Puppet::default()).unwrap();
    for service in [&service, &later] {
        let mut client = Client::connect(addr(service));
        let lines = reactor.counters().lines_in;
        client.send("x\n");
        until(&mut reactor, "a line", |reactor| reactor.counters().lines_in == lines + 1);
        let account = usage(&reactor).unwrap();
        assert_eq!((account.lines_in, account.bytes_in, account.bytes_out), (1, 2, 2));
        drop(client);
        until(&mut reactor, "nobody", |reactor| all(reactor).is_empty());
    }
    let _client = Client::connect(addr(&service));
    until(&mut reactor, "somebody", |reactor| !all(reactor).is_empty());
    reactor.set_accounting(false);
    assert_eq!(usage(&reactor), None);
}

#[test]
fn each_is_on_one_page_and_orders_have_the_greatest_first() {
    let _quiet = util::quiet();
    let mut reactor = Reactor::new().unwrap();
    reactor.set_accounting(true);
    let first = reactor.listen_with("127.0.0.1:0", Puppet::default(), patient()).unwrap();
    let second = reactor.listen_with("127.0.0.1:0", Puppet::default(), patient()).unwrap();
    let mut clients: Vec<_> = (0..300)
        .map(|number| Client::connect(addr(if number % 3 == 0 { &second } else { &first })))
        .collect();
    until(&mut reactor, "all are here", |reactor| reactor.counters().open == 300);
    clients[7].send("a\n".repeat(9));
    clients[8].send("MUCH\n");
    until(&mut reactor, "heard", |reactor| reactor.counters().lines_in == 10);
    until(&mut reactor, "blocked", |reactor| reactor.status().unsent > 0);
    let ids: BTreeSet<_> = all(&reactor).iter().map(|one| one.id).collect();
    assert_eq!((ids.len(), all(&reactor).len()), (300, 300));
    let page = reactor.connections(&Selection { most: 10_000, ..Selection::default() });
    assert_eq!((page.total, page.connections.len()), (300, 256));

    let local = |client: &Client| client.stream.local_addr().ok();
    let sorted = |order, most| {
        let page = reactor.connections(&Selection { order, most, ..Selection::default() });
        assert_eq!((page.total, page.next), (300, None));
        page.connections
    };
    let numbers =
        |page: &[ConnectionStatus]| -> Vec<_> { page.iter().map(|one| one.id.number()).collect() };
    let oldest = sorted(Order::Oldest, 300);
    assert_eq!(numbers(&oldest), ids.iter().map(|id| id.number()).collect::<Vec<_>>());
    assert_eq!(sorted(Order::Unsent, 1)[0].peer, local(&clients[8]));
    assert_eq!(sorted(Order::BytesOut, 1)[0].peer, local(&clients[8]));
    assert_eq!(sorted(Order::BytesIn, 1)[0].peer, local(&clients[7]));
    let lines = sorted(Order::Lines, 3);
    let lines: Vec<_> = lines.iter().map(|one| one.usage.unwrap().lines_in).collect();
    assert_eq!(lines, [9, 1, 0]);
    let idle = sorted(Order::Idle, 300);
    assert!(idle.is_sorted_by(|one, next| one.idle >= next.idle) && idle.len() == 300);
    assert!(sorted(Order::Idle, 0).is_empty());
}

#[test]
fn one_is_closed_by_its_number_whatever_its_service() {
    let ends = RefCell::default();
    let mut reactor = Reactor::new().unwrap();
    let first =
        reactor.listen_with("127.0.0.1:0", Puppet { ends: Some(&ends) }, patient()).unwrap();
    let second =
        reactor.listen_with("127.0.0.1:0", Puppet { ends: Some(&ends) }, patient()).unwrap();
    let mut one = Client::connect(addr(&first));
    until(&mut reactor, "one", |reactor| reactor.counters().open == 1);
    let number = all(&reactor)[0].id.number();
    let mut two = Client::connect(addr(&second));
    until(&mut reactor, "two", |reactor| reactor.counters().open == 2);
    let other = all(&reactor)[1].id.number();
    assert!(!reactor.close(number.max(other) + 1, "nobody"));

    // Gracefully: what it was sent before arrives.
    one.send("hello\n");
    until(&mut reactor, "a line", |reactor| reactor.counters().lines_in == 1);
    assert!(reactor.close(number, "on purpose"));
    until(&mut reactor, "closed", |_| ends.borrow().len() == 1);
    assert_eq!(ends.borrow()[..], [CloseReason::Administrator]);
    assert_eq!(one.rest(), b"hello\n");
    assert_eq!(reactor.counters_of(&first).closed(CloseReason::Administrator), 1);
    // It lingers: the second time it is cut off.
    assert!(reactor.close(number, "now"));
    until(&mut reactor, "cut off", |reactor| all(reactor).len() == 1);
    assert!(!reactor.close(number, "once more"));

    // So does a handler, for whichever service, also with the one that it is asked by.
    let mut admin = Client::connect(addr(&first));
    admin.send(format!("STATUS\nCLOSE {other}\nCLOSE {other}00\nhello\n"));
    until(&mut reactor, "all answered", |reactor| {
        reactor.counters_of(&first).lines_in == 1 + 4 && ends.borrow().len() == 2
    });
    reactor.turn(Some(Duration::ZERO)).unwrap();
    admin.expect("2 connections\nclosed: true\nclosed: false\nhello\n");
    assert_eq!(two.rest(), b"");
    let which = Selection { order: Order::Oldest, ..Selection::default() };
    let page = reactor.connections(&which);
    let own = page.connections.last().unwrap().id.number();
    admin.send(format!("CLOSE {own}\n"));
    until(&mut reactor, "closed", |_| ends.borrow().len() == 3);
    assert_eq!(admin.rest(), b"closed: true\n");
    assert_eq!(ends.borrow()[..], [CloseReason::Administrator; 3]);
}

#[test]
fn one_that_is_not_open_yet_is_closed_at_once() {
    let ends = RefCell::default();
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.add(Puppet { ends: Some(&ends) }, Limits::default()).unwrap();
    let behind = Listen::at("127.0.0.1:0").unwrap().proxy(Networks::loopback());
    let address = reactor.bind(&service, behind).unwrap();
    let mut client = Client::connect(address.as_socket().unwrap());
    until(&mut reactor, "handshake", |reactor| waits(reactor) == Some(Waits::Handshake));
    assert!(reactor.close(all(&reactor)[0].id.number(), "no header"));
    assert!(all(&reactor).is_empty());
    until(&mut reactor, "freed", |reactor| reactor.status().services[0].connections == 0);
    assert_eq!(client.rest(), b"");
    // The handler knew nothing of it. One that it has dialled it is told of.
    assert!(ends.borrow().is_empty());
    let dialled = reactor.connect(&service, util::nobody()).unwrap();
    assert!(reactor.close(dialled.number(), "not there"));
    until(&mut reactor, "told", |_| ends.borrow().len() == 1);
    assert_eq!(ends.borrow()[..], [CloseReason::Administrator]);
}

#[test]
fn turns_are_counted_by_their_length() {
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.listen("127.0.0.1:0", Puppet::default()).unwrap();
    let began = Instant::now();
    let mut client = Client::connect(addr(&service));
    client.send("hello\n");
    until(&mut reactor, "a line", |reactor| reactor.counters().lines_in == 1);
    reactor.turn(Some(Duration::from_millis(50))).unwrap();
    let Turns { count, slept, busy, longest, histogram, steps, .. } = reactor.status().turns;
    assert_eq!(count, reactor.counters().turns);
    assert_eq!(histogram.iter().sum::<u64>(), count);
    assert!(slept >= Duration::from_millis(40) && busy > Duration::ZERO);
    assert!(slept + busy <= began.elapsed() + TICK, "{slept:?} {busy:?}");
    assert!(longest > Duration::ZERO && longest <= busy);
    assert_eq!(longest, reactor.counters().longest_turn);
    assert_eq!(steps, None);
}

#[test]
fn the_refused_are_counted_by_why() {
    let mut reactor = Reactor::new().unwrap();
    let limits = Limits { max_connections: 1, ..Limits::default() };
    let full = reactor.listen_with("127.0.0.1:0", Puppet::default(), limits).unwrap();
    let limits = Limits { max_per_peer: Some(1), ..Limits::default() };
    let crowded = reactor.listen_with("127.0.0.1:0", Puppet::default(), limits).unwrap();
    let rate = Rate { per_second: 1, burst: 1 };
    let limits = Limits { peer_connect_rate: Some(rate), ..Limits::default() };
    let hasty = reactor.listen_with("127.0.0.1:0", Puppet::default(), limits).unwrap();
    let nobody: Networks = "192.0.2.0/24".parse().unwrap();
    let at = || Listen::at("127.0.0.1:0").unwrap();
    let barred = reactor.listen(at().allow(nobody.clone()), Puppet::default()).unwrap();
    let forged = reactor.listen(at().proxy(nobody.clone()), Puppet::default()).unwrap();
    let named = at().proxy(Networks::loopback()).allow(nobody);
    let named = reactor.listen(named, Puppet::default()).unwrap();
    let all = [&full, &crowded, &hasty, &barred, &forged, &named];
    let mut clients: Vec<_> =
        all.iter().flat_map(|service| [0, 1].map(|_| Client::connect(addr(service)))).collect();
    clients[10].send("PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n");
    clients[11].send("what?\r\n");
    until(&mut reactor, "all are judged", |reactor| {
        let counters = reactor.counters();
        counters.refused + counters.open + counters.handshakes_failed == 12
    });
    let refused = |service| {
        let counters = reactor.counters_of(service);
        let some = counters.refused_by_why().filter(|(_, count)| *count > 0);
        assert_eq!(
            counters.refused_by_why().map(|(_, count)| count).sum::<u64>(),
            counters.refused
        );
        some.collect::<Vec<_>>()
    };
    assert_eq!(refused(&full), [(Refused::Full, 1)]);
    assert_eq!(refused(&crowded), [(Refused::PerPeer, 1)]);
    assert_eq!(refused(&hasty), [(Refused::ConnectRate, 1)]);
    assert_eq!(refused(&barred), [(Refused::NotAllowed, 2)]);
    assert_eq!(refused(&forged), [(Refused::NotProxied, 2)]);
    assert_eq!(refused(&named), [(Refused::NotAllowed, 1)]);
    let failed = reactor.counters_of(&named);
    let layers: Vec<_> = failed.handshakes_failed_by_layer().collect();
    assert_eq!((layers, failed.handshakes_failed), (vec![("proxy", 1), ("tls", 0), ("ws", 0)], 1));
    assert_eq!(reactor.counters().refused_for(Refused::NotAllowed), 3);
}

#[cfg(feature = "tls")]
#[test]
fn handshakes_that_fail_are_counted_by_layer() {
    let pem = util::tls::Pem::new("status");
    let tls = reactor::Tls::from_files(pem.cert(), pem.key()).unwrap();
    let mut reactor = Reactor::new().unwrap();
    let layered = Listen::at("127.0.0.1:0").unwrap().proxy(Networks::loopback()).tls(&tls);
    let service = reactor.listen(layered, Puppet::default()).unwrap();
    assert_eq!(reactor.status().services[0].listeners[0].layers, ["proxy", "tls"]);
    let header = "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n";
    let mut clients = ["what?\r\n", "GET / HTTP/1.1\r\n\r\n", header].map(|text| {
        let mut client = Client::connect(addr(&service));
        client.send(text);
        client
    });
    clients[2].send("this is no TLS, whatever it is\r\n");
    until(&mut reactor, "all have failed", |reactor| reactor.counters().handshakes_failed == 3);
    let layers: Vec<_> = reactor.counters().handshakes_failed_by_layer().collect();
    assert_eq!(layers, [("proxy", 2), ("tls", 1), ("ws", 0)]);
}

#[test]
fn reports_come_in_the_order_of_requests_and_before_the_end() {
    let mut server = Harness::new(Puppet::default());
    let client = server.connect();
    server.feed(client, "STATUS\nhello\nSTATUS\n");
    server.end(client);
    assert_eq!(server.sent(client), b"1 connections\nhello\n1 connections\nended\n");
}

#[test]
fn who_is_gone_is_told_nothing() {
    let mut server = Harness::new(Puppet::default()).by_hand();
    let clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    clients.iter().for_each(|client| server.feed(*client, "STATUS\n"));
    server.turn();
    clients.iter().for_each(|client| server.reset(*client));
    while server.turn() {}
    assert_eq!(server.left_over(), (0, 0));
}

#[test]
fn a_turn_has_a_bounded_share_of_reports() {
    let mut server = Harness::new(Puppet::default()).by_hand();
    let clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
    clients.iter().for_each(|client| server.feed(*client, "STATUS\n"));
    let mut told = Vec::new();
    while server.turn() {
        told.push(clients.iter().filter(|client| !server.sent(**client).is_empty()).count());
    }
    assert_eq!(told, [16, 16, 16, 16, 16, 16, 4]);
}

/// Lists everybody, a page of a few at a time.
struct Lister;

impl Handler for Lister {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        if line == b"LIST" {
            cx.request_report(Ask::Connections(Selection { most: 7, ..Selection::default() }));
        }
    }

    fn on_report(&mut self, cx: &mut Context<'_, ()>, report: &Report) {
        let Report::Connections(page) = report else { return };
        for one in &page.connections {
            let usage = one.usage.unwrap();
            writeln!(cx, "{} {} {} {}", one.id, usage.lines_in, one.waits, usage.age.as_secs());
        }
        match page.next {
            None => writeln!(cx, "OK {}", page.total),
            after => {
                let which = Selection { most: 7, after, ..Selection::default() };
                cx.request_report(Ask::Connections(which));
            }
        }
    }
}

#[test]
fn a_handler_goes_through_all_pages() {
    let mut server = Harness::new(Lister);
    server.set_accounting(true);
    let clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    server.advance(Duration::from_secs(3));
    server.feed(clients[8], "hello\nhello\n");
    server.feed(clients[0], "LIST\n");
    let all = String::from_utf8(server.sent(clients[0])).unwrap();
    let lines: Vec<_> = all.lines().collect();
    assert_eq!((lines.len(), lines[40]), (41, "OK 40"));
    let id = server.id(clients[8]);
    assert_eq!(lines[8], format!("{id} 2 input 3"));
    assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), 41);
}
