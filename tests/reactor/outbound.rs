//! Outbound connections: dialled, not accepted, and then like the others.

use std::io::ErrorKind;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use reactor::testing::Harness;
use reactor::{
    Address, CloseReason, ConnId, Context, Error, Handler, Host, Limits, Reactor, ServiceContext,
};

use crate::util::{self, PATIENCE, Server};

/// Dials wherever a message says, and tells what comes of it.
struct Dialler(Sender<Told>);

#[derive(Debug, PartialEq)]
enum Told {
    Refused,
    Dialling(ConnId),
    Open(ConnId, String, bool),
    Line(ConnId, String),
    Closed(ConnId, CloseReason),
}

impl Handler for Dialler {
    type Session = String;
    type Message = (String, String);

    fn on_open(&mut self, cx: &mut Context<'_, String>) {
        let session = cx.session().clone();
        self.0.send(Told::Open(cx.id(), session, cx.is_outbound())).unwrap();
        cx.send("who are you?\n");
    }

    fn on_line(&mut self, cx: &mut Context<'_, String>, line: &[u8]) {
        let line = String::from_utf8_lossy(line).into_owned();
        self.0.send(Told::Line(cx.id(), line)).unwrap();
    }

    fn on_close(&mut self, cx: &mut Context<'_, String>, reason: CloseReason) {
        self.0.send(Told::Closed(cx.id(), reason)).unwrap();
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, String>, (to, name): (String, String)) {
        let told = match cx.connect(to, name) {
            Ok(id) => Told::Dialling(id),
            Err(_) => Told::Refused,
        };
        self.0.send(told).unwrap();
    }
}

fn server() -> (Server<(String, String)>, mpsc::Receiver<Told>) {
    let (tell, told) = mpsc::channel();
    (Server::start(Limits::default(), || Dialler(tell)), told)
}

/// Dials and gives the id.
fn dial(server: &Server<(String, String)>, told: &mpsc::Receiver<Told>, to: &str) -> ConnId {
    server.handle.post((to.to_owned(), "name".to_owned())).unwrap();
    match told.recv_timeout(PATIENCE) {
        Ok(Told::Dialling(id)) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dialled_connection_opens_with_its_session_and_talks() {
    let (server, told) = server();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let id = dial(&server, &told, &listener.local_addr().unwrap().to_string());
    let (mut peer, from) = listener.accept().unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Told::Open(id, "name".to_owned(), true)));
    let mut asked = [0; 13];
    peer.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"who are you?\n");
    peer.write_all(b"nobody\nlast").unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Told::Line(id, "nobody".to_owned())));
    drop(peer);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Told::Line(id, "last".to_owned())));
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Told::Closed(id, CloseReason::PeerClosed)));
    assert!(from.ip().is_loopback());
    let (_, counters) = server.stop();
    assert_eq!((counters.dialled, counters.accepted, counters.open), (1, 0, 0));
}

#[test]
fn a_refused_one_is_told_without_an_open() {
    let (server, told) = server();
    let id = dial(&server, &told, &util::nobody().to_string());
    let refused = CloseReason::Error(ErrorKind::ConnectionRefused);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Told::Closed(id, refused)));
    let (_, counters) = server.stop();
    assert_eq!((counters.open, counters.closed(refused)), (0, 1));
    assert!(told.recv_timeout(PATIENCE).is_err(), "told once");
}

#[test]
fn a_unix_path_where_nobody_is_is_told_the_same_way() {
    let (server, told) = server();
    let id = dial(&server, &told, "unix:/nonexistent/folder/socket");
    let missing = CloseReason::Error(ErrorKind::NotFound);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Told::Closed(id, missing)));
}

#[test]
fn what_is_no_address_is_an_error_at_once() {
    let (server, told) = server();
    for text in ["", "nowhere", "127.0.0.1:99999", "unix:"] {
        server.handle.post((text.to_owned(), String::new())).unwrap();
        assert_eq!(told.recv_timeout(PATIENCE), Ok(Told::Refused), "{text:?}");
    }
    let (tell, _told) = mpsc::channel();
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.add(Dialler(tell), Limits::default()).unwrap();
    assert!(matches!(reactor.connect(&service, "nowhere"), Err(Error::Address { .. })));
}

fn harness(limits: Limits) -> (Harness<Dialler>, mpsc::Receiver<Told>) {
    let (tell, told) = mpsc::channel();
    (Harness::with_limits(Dialler(tell), limits), told)
}

fn dial_in(server: &mut Harness<Dialler>, told: &mpsc::Receiver<Told>) -> reactor::testing::Client {
    server.post(("192.0.2.1:7".to_owned(), "name".to_owned()));
    let mut dialled = server.dialled();
    assert_eq!(dialled.len(), 1);
    let (address, client) = dialled.remove(0);
    assert_eq!(address, "192.0.2.1:7".parse::<Address>().unwrap());
    assert_eq!(told.try_recv(), Ok(Told::Dialling(server.id(client))));
    client
}

#[test]
fn one_that_nobody_answers_times_out() {
    let limits = Limits { connect_timeout: Duration::from_secs(7), ..Limits::default() };
    let (mut server, told) = harness(limits);
    let client = dial_in(&mut server, &told);
    let id = server.id(client);
    server.advance(Duration::from_millis(6_999));
    assert!(told.try_recv().is_err());
    server.advance(Duration::from_millis(1));
    assert_eq!(told.try_recv(), Ok(Told::Closed(id, CloseReason::ConnectTimeout)));
    assert_eq!(server.left_over(), (0, 0));
    // An answer that comes now is for nobody.
    server.answer(client);
    assert!(told.try_recv().is_err());
}

#[test]
fn one_that_is_answered_in_time_is_not_timed_out_later() {
    let (mut server, told) = harness(Limits::default());
    let client = dial_in(&mut server, &told);
    let id = server.id(client);
    server.advance(Duration::from_secs(9));
    // What the other side says before we are told of the connection is not lost.
    server.feed(client, "early\n");
    assert!(told.try_recv().is_err());
    server.answer(client);
    assert_eq!(told.try_recv(), Ok(Told::Open(id, "name".to_owned(), true)));
    assert_eq!(told.try_recv(), Ok(Told::Line(id, "early".to_owned())));
    server.advance(Duration::from_secs(1000));
    assert!(told.try_recv().is_err());
    assert_eq!(server.sent(client), b"who are you?\n");
    server.refuse(client, ErrorKind::ConnectionReset);
    let reset = CloseReason::Error(ErrorKind::ConnectionReset);
    assert_eq!(told.try_recv(), Ok(Told::Closed(id, reset)));
    assert_eq!(server.left_over(), (0, 0));
}

#[test]
fn a_shutdown_ends_a_dial_under_way_and_allows_no_other() {
    let (mut server, told) = harness(Limits::default());
    let client = dial_in(&mut server, &told);
    let id = server.id(client);
    server.stop();
    assert_eq!(told.try_recv(), Ok(Told::Closed(id, CloseReason::Shutdown)));
    assert_eq!(server.left_over(), (0, 0));
    server.post(("192.0.2.1:7".to_owned(), String::new()));
    assert_eq!(told.try_recv(), Ok(Told::Refused));
}

#[test]
#[cfg(target_os = "linux")]
fn a_dialled_connection_counts_for_max_connections_before_it_is_there() {
    /// Dials for each client.
    struct Doubles(Address);
    impl Handler for Doubles {
        type Session = ();
        type Message = ();

        fn on_open(&mut self, cx: &mut Context<'_, ()>) {
            cx.connect(&self.0, ()).unwrap();
            cx.send("one moment\n");
        }
    }
    // Takes one connection into its queue and lets the others wait.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let target = full.local_addr().unwrap().as_socket().unwrap();
    let _first = std::net::TcpStream::connect(target).unwrap();
    let limits = Limits { max_connections: 4, ..Limits::default() };
    let server = Server::start(limits, move || Doubles(Address::Tcp(target)));
    let mut clients = [server.connect(), server.connect()];
    clients.iter_mut().for_each(|client| client.expect("one moment\n"));
    assert_eq!(server.connect().rest(), b"Too many connections, try again later\n");
    let (_, counters) = server.stop();
    assert_eq!((counters.accepted, counters.dialled, counters.refused), (2, 2, 1));
}

// ---- Hosts with several addresses ----

/// Dials the host that a message brings.
struct Hosts(Sender<Told>);

impl Handler for Hosts {
    type Session = ();
    type Message = Address;

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        let peer = cx.peer_addr().unwrap().to_string();
        self.0.send(Told::Open(cx.id(), peer, cx.is_outbound())).unwrap();
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
        self.0.send(Told::Closed(cx.id(), reason)).unwrap();
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, to: Address) {
        let id = cx.connect(to, ()).unwrap();
        // It waits for it: what happens to one attempt is nothing to it.
        cx.connection(id).unwrap().pause();
        self.0.send(Told::Dialling(id)).unwrap();
    }
}

fn hosts(limits: Limits) -> (Server<Address>, mpsc::Receiver<Told>) {
    let (tell, told) = mpsc::channel();
    (Server::start(limits, || Hosts(tell)), told)
}

fn host(addresses: &[SocketAddr]) -> Address {
    Host::new("several.test", 7).found_at(addresses.iter().copied()).into()
}

fn next(told: &mpsc::Receiver<Told>) -> Told {
    told.recv_timeout(PATIENCE).unwrap()
}

/// One whose queue is full: connecting to it neither succeeds nor fails.
#[cfg(target_os = "linux")]
fn mute() -> (SocketAddr, socket2::Socket, std::net::TcpStream) {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let addr = full.local_addr().unwrap().as_socket().unwrap();
    let first = std::net::TcpStream::connect(addr).unwrap();
    (addr, full, first)
}

#[test]
fn the_next_address_is_tried_when_one_fails() {
    let (server, told) = hosts(Limits::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = listener.local_addr().unwrap();
    server.handle.post(host(&[util::nobody(), util::nobody(), there])).unwrap();
    let Told::Dialling(id) = next(&told) else { panic!() };
    assert_eq!(next(&told), Told::Open(id, there.to_string(), true));
    drop(listener);
    let (_, counters) = server.stop();
    assert_eq!((counters.dialled, counters.open), (1, 0));
}

#[test]
fn none_that_answers_is_told_once() {
    let (server, told) = hosts(Limits::default());
    server.handle.post(host(&[util::nobody(), util::nobody()])).unwrap();
    let Told::Dialling(id) = next(&told) else { panic!() };
    let refused = CloseReason::Error(ErrorKind::ConnectionRefused);
    assert_eq!(next(&told), Told::Closed(id, refused));
    let (_, counters) = server.stop();
    assert_eq!(counters.closed(refused), 1);
    assert!(told.recv_timeout(PATIENCE).is_err(), "told once");
}

#[test]
#[cfg(target_os = "linux")]
fn an_address_that_does_not_answer_holds_the_others_up_for_a_moment() {
    let (server, told) = hosts(Limits { connect_timeout: PATIENCE, ..Limits::default() });
    let (mute, _full, _first) = mute();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = listener.local_addr().unwrap();
    let began = Instant::now();
    server.handle.post(host(&[mute, mute, there])).unwrap();
    let Told::Dialling(id) = next(&told) else { panic!() };
    assert_eq!(next(&told), Told::Open(id, there.to_string(), true));
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
}

#[test]
#[cfg(target_os = "linux")]
fn one_that_answers_late_is_taken_while_others_are_tried() {
    let (server, told) = hosts(Limits { connect_timeout: PATIENCE, ..Limits::default() });
    let (late, full, _first) = mute();
    let (never, _full, _other) = mute();
    server.handle.post(host(&[late, never])).unwrap();
    let Told::Dialling(id) = next(&told) else { panic!() };
    // Its next packet finds room.
    let _taken = full.accept().unwrap();
    assert_eq!(next(&told), Told::Open(id, late.to_string(), true));
}

#[test]
#[cfg(target_os = "linux")]
fn the_time_to_connect_is_for_all_addresses_together() {
    let time = Duration::from_millis(600);
    let (server, told) = hosts(Limits { connect_timeout: time, ..Limits::default() });
    let (mute, _full, _first) = mute();
    let began = Instant::now();
    server.handle.post(host(&[mute; 9])).unwrap();
    let Told::Dialling(id) = next(&told) else { panic!() };
    assert_eq!(next(&told), Told::Closed(id, CloseReason::ConnectTimeout));
    assert!((time..time * 3).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[test]
fn a_name_is_looked_up_without_holding_the_loop_up() {
    let (server, told) = hosts(Limits::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let localhost = Address::from(Host::new("localhost", port));
    server.handle.post(localhost).unwrap();
    let Told::Dialling(id) = next(&told) else { panic!() };
    assert_eq!(next(&told), Told::Open(id, format!("127.0.0.1:{port}"), true));
    // No name has an empty part.
    server.handle.post(Host::new("no..name", 7).into()).unwrap();
    let Told::Dialling(id) = next(&told) else { panic!() };
    assert_eq!(next(&told), Told::Closed(id, CloseReason::Error(ErrorKind::NotFound)));
}
