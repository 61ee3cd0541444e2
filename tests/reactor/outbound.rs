//! Outbound connections: dialled, not accepted, and then like the others.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use reactor::client::Redial;
use reactor::testing::Harness;
use reactor::{
    Address, CloseReason, ConnId, Connect, Context, Error, Handler, Host, Limits, Reactor,
    ServiceContext, TimerId,
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
    // Does not close its side.
    let lingers = server.connect();
    assert!(matches!(told.try_recv(), Ok(Told::Open(..))));
    server.stop();
    assert_eq!(told.try_recv(), Ok(Told::Closed(id, CloseReason::Shutdown)));
    assert!(matches!(told.try_recv(), Ok(Told::Closed(..))));
    assert!(server.post(("192.0.2.1:7".to_owned(), String::new())));
    assert_eq!(told.try_recv(), Ok(Told::Refused));
    server.end(lingers);
    assert_eq!(server.left_over(), (0, 0));
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

// ---- A server that does not read ----

const MILLISECOND: Duration = Duration::from_millis(1);

/// Publishes pieces of so many bytes from a message, until one is refused; counts what it hears and what
/// of its answers were taken.
#[derive(Default)]
struct Publisher {
    published: usize,
    refused: usize,
    heard: usize,
    answered: usize,
    drained: usize,
    timer: Option<bool>,
    id: Option<ConnId>,
}

impl Handler for Publisher {
    type Session = ();
    /// How many, of what size.
    type Message = (usize, usize);

    fn on_start(&mut self, cx: &mut ServiceContext<'_, ()>) {
        self.id = cx.connect("192.0.2.1:7", ()).ok();
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        self.heard += 1;
        let size = str::from_utf8(line).unwrap().parse().unwrap();
        self.answered += usize::from(cx.send(vec![b'a'; size]));
    }

    fn on_drain(&mut self, _cx: &mut Context<'_, ()>) {
        self.drained += 1;
    }

    fn on_timer(&mut self, cx: &mut Context<'_, ()>, _timer: TimerId) {
        self.timer = Some(cx.send("tick"));
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, (count, size): (usize, usize)) {
        let id = self.id.unwrap();
        for _ in 0..count {
            let sent = cx.send_to(id, vec![b'p'; size]);
            *(if sent { &mut self.published } else { &mut self.refused }) += 1;
        }
        cx.broadcast("all");
        let mut server = cx.connection(id).expect("full is not gone");
        server.request_drain();
        server.set_timer(MILLISECOND);
    }
}

/// One whose server takes nothing.
fn publisher(limits: Limits) -> (Harness<Publisher>, reactor::testing::Client) {
    let mut client = Harness::without_listener(Publisher::default(), limits);
    let (_, server) = client.dialled()[0];
    client.answer(server);
    client.take_only(server, Some(0));
    (client, server)
}

#[test]
fn a_publisher_is_told_that_its_server_is_full_and_when_to_go_on() {
    let (mut client, server) = publisher(Limits::default());
    let Limits { max_output, low_water, soft_output_for, .. } = Limits::default();
    let piece = 64 * 1024;
    client.post((48, piece));
    let published = max_output / piece + 1;
    assert_eq!(client.handler().published, published);
    assert_eq!(client.handler().refused, 48 - published);
    client.advance(2 * soft_output_for);
    assert_eq!((client.handler().timer, client.closed(server)), (Some(false), None));
    assert_eq!((client.unsent(), client.handler().drained), (published * piece, 0));

    client.take_only(server, Some(published * piece - low_water));
    assert_eq!(client.handler().drained, 1);
    client.take_only(server, None);
    assert_eq!(
        client.sent(server),
        vec![b'p'; published * piece],
        "and nothing of what was refused"
    );
    client.post((1, 1));
    client.advance(MILLISECOND);
    assert_eq!(client.sent(server), b"palltick");
}

#[test]
fn at_the_limit_it_is_not_full_and_above_it_is() {
    let (mut client, _) = publisher(Limits { max_output: 10, soft_output: 1, ..Limits::default() });
    client.post((1, 7));
    assert_eq!(client.unsent(), 7 + 3, "the broadcast");
    client.advance(Duration::from_secs(1));
    assert_eq!((client.unsent(), client.handler().timer), (14, Some(true)));
    client.post((1, 1));
    assert_eq!((client.unsent(), client.handler().refused), (14, 1));
}

#[test]
fn a_server_that_does_not_read_is_heard_all_the_same() {
    let (mut client, server) =
        publisher(Limits { high_water: 100, low_water: 10, ..Limits::default() });
    client.feed(server, "60\n".repeat(5_000));
    assert_eq!((client.handler().heard, client.handler().answered), (5_000, 5_000));
    client.take_only(server, None);
    assert_eq!(client.sent(server).len(), 5_000 * 60);
}

#[test]
fn answers_that_a_server_does_not_read_are_refused_above_the_limit() {
    let limits = Limits {
        max_output: 1_000,
        soft_output: 1,
        high_water: 100,
        low_water: 10,
        ..Limits::default()
    };
    let (mut client, server) = publisher(limits);
    client.feed(server, "30\n".repeat(5_000));
    // 34 times 30 is above it.
    assert_eq!((client.handler().heard, client.handler().answered), (5_000, 34));
    client.feed(server, "1\n");
    client.advance(Duration::from_secs(3600));
    assert_eq!((client.unsent(), client.closed(server)), (34 * 30, None));
    client.take_only(server, Some(20));
    client.feed(server, "50\n1\n");
    assert_eq!((client.unsent(), client.handler().answered), (1_050, 35));
}

/// Answers line by line through one writer.
struct Writes(usize);

impl Handler for Writes {
    type Session = ();
    type Message = ();

    fn on_start(&mut self, cx: &mut ServiceContext<'_, ()>) {
        cx.connect("192.0.2.1:7", ()).unwrap();
    }

    fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        let mut lines = cx.lines(bytes);
        let mut writer = cx.writer();
        while let Some(line) = writer.next_line(&mut lines) {
            self.0 += 1;
            writer.put(line);
        }
        writer.written().make_ascii_uppercase();
        drop(writer);
        lines.taken()
    }
}

#[test]
fn one_writer_for_many_answers_is_full_at_the_same_mark() {
    let limits = Limits { max_output: 1_000, soft_output: 1, ..Limits::default() };
    let mut client = Harness::without_listener(Writes(0), limits);
    let (_, server) = client.dialled()[0];
    client.answer(server);
    client.take_only(server, Some(0));
    client.feed(server, "abc\n".repeat(5_000));
    assert_eq!((client.handler().0, client.unsent()), (5_000, 1_002));
    client.take_only(server, Some(500));
    client.feed(server, "abc\n".repeat(300));
    assert_eq!((client.handler().0, client.unsent()), (5_300, 1_003));
    client.take_only(server, None);
    assert_eq!(client.sent(server), b"ABC".repeat(501));
}

/// Publishes as the page for clients says, and notes whether its server takes output.
#[derive(Default)]
struct Follows {
    id: Option<ConnId>,
    drained: usize,
    takes: Vec<bool>,
}

impl Follows {
    fn publish(&mut self, cx: &mut ServiceContext<'_, ()>) {
        if !cx.send_to(self.id.unwrap(), "x")
            && let Some(mut server) = cx.connection(self.id.unwrap()).filter(|it| it.takes_output())
        {
            server.request_drain();
        }
    }
}

impl Handler for Follows {
    type Session = ();
    type Message = &'static str;

    fn on_start(&mut self, cx: &mut ServiceContext<'_, ()>) {
        self.id = cx.connect("192.0.2.1:7", ()).ok();
    }

    fn on_drain(&mut self, cx: &mut Context<'_, ()>) {
        self.drained += 1;
        self.publish(cx);
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, _: CloseReason) {
        self.takes.push(cx.takes_output());
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, what: &'static str) {
        let mut server = cx.connection(self.id.unwrap()).unwrap();
        match what {
            "half-close" => server.half_close(),
            "pause" => server.pause(),
            "resume" => server.resume(),
            _ => {}
        }
        self.takes.push(server.takes_output());
        self.publish(cx);
    }
}

#[test]
fn whether_a_server_takes_output_is_told_apart_from_whether_it_does_now() {
    let begun = || {
        let limits = Limits { max_output: 1, soft_output: 1, ..Limits::default() };
        let mut client = Harness::without_listener(Follows::default(), limits);
        let (_, server) = client.dialled()[0];
        client.post("");
        assert_eq!((client.handler().takes.as_slice(), client.handler().drained), (&[true][..], 0));
        client.answer(server);
        assert_eq!(client.handler().drained, 1, "it is open");
        client.take_only(server, Some(0));
        (client, server)
    };

    let (mut client, server) = begun();
    for _ in 0..3 {
        client.post("");
    }
    client.take_only(server, None);
    assert_eq!((client.handler().takes.as_slice(), client.handler().drained), (&[true; 4][..], 2));
    client.post("half-close");
    assert_eq!(client.handler().takes.last(), Some(&false));

    let (mut client, server) = begun();
    client.post("pause");
    client.feed(server, "it waits\n");
    client.reset(server);
    client.post("");
    assert_eq!((client.handler().takes.last(), client.closed(server)), (Some(&false), None));
    client.post("resume");
    assert_eq!(client.closed(server), Some(CloseReason::Error(ErrorKind::ConnectionReset)));
    assert_eq!(client.handler().takes.last(), Some(&false));
}

#[test]
fn a_server_is_closed_without_a_farewell() {
    let idle_timeout = Some(Duration::from_secs(1));
    for (line, reason) in [("", CloseReason::IdleTimeout), ("12345\n", CloseReason::LineTooLong)] {
        let limits = Limits { idle_timeout, max_line: 4, ..Limits::default() };
        let mut client = Harness::without_listener(Publisher::default(), limits);
        let (_, server) = client.dialled()[0];
        client.answer(server);
        client.feed(server, line);
        client.advance(Duration::from_secs(1));
        assert_eq!(client.closed(server), Some(reason));
        // It would read it as a request.
        assert_eq!(client.sent(server).escape_ascii().to_string(), "");
        assert!(client.is_shut(server));
    }
}

/// Sends what there is of numbers and asks for more room, in the two ways that there are.
#[derive(Default)]
struct Streams {
    by_hand: bool,
    id: Option<ConnId>,
    drained: usize,
    done: usize,
}

impl Handler for Streams {
    type Session = std::ops::Range<u32>;
    type Message = usize;

    fn on_start(&mut self, cx: &mut ServiceContext<'_, Self::Session>) {
        self.id = cx.connect("192.0.2.1:7", 0..200).ok();
    }

    /// Fills the connection from elsewhere, then begins.
    fn on_message(&mut self, cx: &mut ServiceContext<'_, Self::Session>, size: usize) {
        cx.send_to(self.id.unwrap(), vec![b'p'; size]);
        self.on_drain(&mut cx.connection(self.id.unwrap()).unwrap());
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Self::Session>) {
        self.drained += 1;
        if !self.by_hand {
            self.done +=
                usize::from(cx.send_pieces(|left| left.next().map(|n| format!("{n:09}\n"))));
            return;
        }
        while let Some(n) = cx.session().clone().next() {
            if !cx.send(format!("{n:09}\n")) {
                return cx.request_drain();
            }
            cx.session().next();
        }
        self.done += 1;
    }
}

/// Numbers for a server that was dialled with these limits, has `before` to read and takes `room` at a
/// time.
fn streams(by_hand: bool, limits: Limits, before: usize, room: usize) {
    let handler = Streams { by_hand, ..Streams::default() };
    let most = before.max(limits.max_output + 10);
    let mut client = Harness::without_listener(handler, limits);
    let (_, server) = client.dialled()[0];
    client.answer(server);
    client.take_only(server, Some(0));
    client.post(before);
    assert_eq!((client.handler().drained, client.handler().done), (1, 0), "nothing has gone out");
    let mut sent = Vec::new();
    for _ in 0..(before + 2_000).div_ceil(room) {
        assert!(client.unsent() <= most);
        client.take_only(server, Some(room));
        sent.extend(client.sent(server));
    }
    let numbers: String = (0..200).map(|n| format!("{n:09}\n")).collect();
    assert_eq!(
        sent[before..].escape_ascii().to_string(),
        numbers.as_bytes().escape_ascii().to_string()
    );
    assert_eq!(client.handler().done, 1);
}

#[test]
fn a_drain_of_a_full_connection_waits_until_it_takes_more() {
    let limits = Limits { max_output: 100, soft_output: 100, ..Limits::default() };
    assert!(limits.low_water > limits.max_output);
    for by_hand in [true, false] {
        streams(by_hand, limits.clone(), 0, 50);
        streams(by_hand, limits.clone(), 500, 50);
    }
}

#[test]
fn pieces_for_a_full_connection_wait_until_it_takes_more() {
    let (max_output, high_water, low_water) = (100, 50, 20);
    let soft_output = max_output;
    let limits = Limits { max_output, soft_output, high_water, low_water, ..Limits::default() };
    streams(false, limits, 500, 50);

    // They wait as well until it is open.
    let mut client = Harness::without_listener(Streams::default(), Limits::default());
    let (_, server) = client.dialled()[0];
    client.post(0);
    assert_eq!(client.handler().done, 0);
    client.answer(server);
    assert_eq!((client.sent(server).len(), client.handler().done), (2_000, 1));
}

// ---- Beginning, and coming back ----

/// Tells that the loop runs.
struct Starts<'a>(&'a Cell<usize>);

impl Handler for Starts<'_> {
    type Session = ();
    type Message = ();

    fn on_start(&mut self, cx: &mut ServiceContext<'_, ()>) {
        self.0.set(self.0.get() + 1);
        cx.set_service_timer(Duration::ZERO);
    }

    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, ()>, _: TimerId) {
        cx.stop();
    }
}

#[test]
fn a_service_starts_when_the_loop_runs_and_once() {
    let starts = Cell::new(0);
    let mut reactor = Reactor::new().unwrap();
    reactor.add(Starts(&starts), Limits::default()).unwrap();
    reactor.listen("127.0.0.1:0", Starts(&starts)).unwrap();
    assert_eq!(starts.get(), 0);
    assert!(reactor.next_deadline().unwrap() <= Instant::now(), "a foreign loop calls it now");
    let _ = reactor.run().unwrap();
    assert_eq!(starts.get(), 2);

    // Not if it never runs.
    let mut reactor = Reactor::new().unwrap();
    reactor.add(Starts(&starts), Limits::default()).unwrap();
    reactor.stop();
    let _ = reactor.run().unwrap();
    assert_eq!(starts.get(), 2);
}

/// Stays connected to a server; a message stops that.
struct Stays {
    server: Redial,
    delays: Vec<Duration>,
    others: usize,
}

impl Stays {
    fn new(server: Redial) -> Stays {
        Stays { server, delays: Vec::new(), others: 0 }
    }
}

impl Handler for Stays {
    type Session = ();
    type Message = &'static str;

    fn on_start(&mut self, cx: &mut ServiceContext<'_, ()>) {
        self.server.start(cx);
    }

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        self.others += usize::from(!self.server.on_open(cx));
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, _: CloseReason) {
        self.delays.extend(self.server.on_close(cx));
    }

    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, ()>, timer: TimerId) {
        self.others += usize::from(!self.server.on_service_timer(cx, timer));
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, what: &'static str) {
        match what {
            "stop" => self.server.stop(cx),
            "start" => self.server.start(cx),
            _ => _ = cx.set_service_timer(Duration::ZERO),
        }
    }
}

fn stays(seed: u64) -> Harness<Stays> {
    let server = Redial::new("192.0.2.1:7").unwrap().with_seed(seed);
    let server = server.with_delays(100 * MILLISECOND, 3_000 * MILLISECOND);
    Harness::without_listener(Stays::new(server), Limits::default())
}

/// The connection that it dials next; the time that it took to is over.
fn redialled(client: &mut Harness<Stays>) -> reactor::testing::Client {
    if let Some(delay) = client.handler().delays.last().copied() {
        assert_eq!(client.dialled(), [], "before its time");
        client.advance(delay + MILLISECOND);
    }
    let dialled = client.dialled();
    assert_eq!(dialled.len(), 1);
    assert_eq!(client.handler().server.connection(), Some(client.id(dialled[0].1)));
    dialled[0].1
}

#[test]
fn the_delays_grow_up_to_a_bound_and_are_jittered() {
    let refused = |seed, times| {
        let mut client = stays(seed);
        for number in 1..=times {
            let server = redialled(&mut client);
            assert_eq!(client.handler().server.attempts(), number);
            client.refuse(server, ErrorKind::ConnectionRefused);
            assert_eq!(client.handler().server.connection(), None);
            assert!(client.handler().server.waits_for().is_some());
        }
        client.handler().delays.clone()
    };
    let runs: Vec<_> = (0..200).map(|seed| refused(seed, 8)).collect();
    for (number, bound) in
        [100_u32, 200, 400, 800, 1_600, 3_000, 3_000, 3_000].into_iter().enumerate()
    {
        let bound = bound * MILLISECOND;
        let delays = || runs.iter().map(|delays| delays[number]);
        assert!(delays().max().unwrap() <= bound && delays().max().unwrap() > bound * 9 / 10);
        assert!(delays().min().unwrap() < bound / 10);
        let mean = delays().sum::<Duration>() / 200;
        assert!(mean > bound * 4 / 10 && mean < bound * 6 / 10, "{mean:?} of {bound:?}");
    }
    assert_eq!(refused(7, 8), runs[7], "the same from the same seed");
    // Far beyond where the doubling would overflow.
    assert!(refused(1, 100)[99] <= 3_000 * MILLISECOND);
}

#[test]
fn the_delays_begin_anew_once_a_connection_has_stayed() {
    let mut client = stays(3);
    for _ in 0..5 {
        let server = redialled(&mut client);
        client.refuse(server, ErrorKind::ConnectionRefused);
    }
    // One that is accepted and closed soon proves nothing.
    let server = redialled(&mut client);
    assert!(!client.handler().server.is_open());
    client.answer(server);
    assert!(client.handler().server.is_open());
    client.advance(2_999 * MILLISECOND);
    client.end(server);
    assert_eq!(client.handler().server.attempts(), 6);
    let server = redialled(&mut client);
    client.answer(server);
    client.advance(3_000 * MILLISECOND);
    client.end(server);
    assert_eq!(client.handler().server.attempts(), 0);
    assert!(*client.handler().delays.last().unwrap() <= 100 * MILLISECOND);
    let server = redialled(&mut client);
    // The handler may know better.
    client.answer(server);
    assert_eq!(client.handler().server.attempts(), 1);
    client.handler_mut().server.reset();
    client.end(server);
    assert_eq!(client.handler().server.attempts(), 0);
    assert_eq!(client.handler().others, 0);
}

#[test]
fn stopped_it_dials_no_more_until_it_is_started() {
    let mut client = stays(4);
    let server = redialled(&mut client);
    client.refuse(server, ErrorKind::ConnectionRefused);
    client.post("stop");
    assert_eq!(client.left_over(), (0, 0), "no timer is left");
    client.advance(Duration::from_secs(60));
    assert_eq!(client.dialled(), []);
    client.post("start");
    client.post("start");
    let (_, server) = client.dialled()[0];
    client.answer(server);
    client.post("stop");
    assert_eq!(client.closed(server), None);
    client.end(server);
    assert_eq!((client.dialled(), client.handler().delays.len()), (vec![], 1));
    assert_eq!(client.left_over(), (0, 0));
}

#[test]
fn other_connections_and_timers_are_none_of_its_business() {
    let mut client = stays(5);
    redialled(&mut client);
    let other = client.connect();
    client.end(other);
    client.post("a timer");
    client.advance(MILLISECOND);
    assert_eq!((client.handler().others, client.handler().delays.len()), (2, 0));
    assert_eq!((client.handler().server.attempts(), client.dialled()), (1, vec![]));
}

#[test]
fn each_time_the_same_goes_before_the_bytes() {
    let target = Connect::to("192.0.2.1:7").unwrap().proxy_for(None, None);
    let mut client =
        Harness::without_listener(Stays::new(Redial::new(target).unwrap()), Limits::default());
    for _ in 0..3 {
        let server = redialled(&mut client);
        client.answer(server);
        assert_eq!(client.sent(server), b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0");
        client.reset(server);
    }
}

#[test]
fn a_shutdown_is_no_loss() {
    let mut client = stays(6);
    let server = redialled(&mut client);
    client.answer(server);
    client.stop();
    client.end(server);
    assert_eq!((client.handler().delays.len(), client.left_over()), (0, (0, 0)));
}

/// With real sockets, and a server that is gone for a while.
#[test]
fn it_comes_back_to_a_server_that_comes_back() {
    let listener = TcpListener::bind(util::DOOMED).unwrap();
    let addr = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let server = Redial::new(addr).unwrap().with_delays(MILLISECOND, 20 * MILLISECOND);
        let mut reactor = Reactor::new().unwrap();
        let service = reactor.add(Stays::new(server), Limits::default()).unwrap();
        tell.send(service.handle()).unwrap();
        reactor.run().unwrap();
        reactor.counters()
    });
    let handle = told.recv_timeout(PATIENCE).unwrap();
    let first = listener.accept().unwrap().0;
    drop((first, listener));
    // On this address nobody else takes the port meanwhile.
    let mut again = None;
    util::until("the port is free", || {
        again = TcpListener::bind(addr).ok();
        again.is_some()
    });
    let second = again.unwrap().accept().unwrap();
    handle.stop();
    drop(second);
    let counters = thread.join().unwrap();
    assert!(counters.dialled >= 2 && counters.closed_in_all() == counters.dialled);
}

#[test]
fn why_a_name_could_not_be_looked_up_is_told() {
    struct Lost<'a>(&'a RefCell<String>);
    impl Handler for Lost<'_> {
        type Session = ();
        type Message = ();

        fn on_start(&mut self, cx: &mut ServiceContext<'_, ()>) {
            cx.connect(Host::new("no..name", 7), ()).unwrap();
        }

        fn on_close(&mut self, cx: &mut Context<'_, ()>, _: CloseReason) {
            *self.0.borrow_mut() = cx.error().unwrap().to_string();
            cx.stop();
        }
    }
    let error = RefCell::default();
    let mut reactor = Reactor::new().unwrap();
    reactor.add(Lost(&error), Limits::default()).unwrap();
    let _ = reactor.run().unwrap();
    let text = Address::from(Host::new("no..name", 7)).resolve().unwrap_err().to_string();
    assert!(text.starts_with("cannot look up no..name:7: "), "{text}");
    assert_eq!(*error.borrow(), text);
}
