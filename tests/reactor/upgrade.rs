//! A loop that hands all it has on to another one, over real sockets. The two are threads of this process;
//! what one of them does the other learns over a Unix socket alone.

mod cores;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use reactor::{
    Address, CloseReason, ConnId, Context, Counters, DatagramContext, DatagramHandler, Decoder,
    Encoder, Error, HandedOn, Handle, Handler, Limits, Listen, Reactor, Saved, Selection, Service,
    ServiceContext, Successor, Unreadable,
};

use crate::util::folder::Folder;
use crate::util::{Client, PATIENCE, quiet, until};

/// A frame without a body, of kind `READY`.
const READY: [u8; 6] = [3, 0, 0, 0, 0, 0];

/// A room: lines go to everybody with the name of who has said them. `NAME x` is a name, `BIG n` is an
/// answer of so many bytes, `DIAL addr` dials.
struct Room {
    told: Sender<String>,
    lines: u64,
    names: BTreeMap<ConnId, String>,
    together: bool,
    stays: bool,
    version: u32,
}

impl Handler for Room {
    type Session = String;
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, String>) {
        let _ = self.told.send(format!("open {}", cx.is_outbound()));
    }

    fn on_line(&mut self, cx: &mut Context<'_, String>, line: &[u8]) {
        self.lines += 1;
        let line = String::from_utf8_lossy(line).into_owned();
        if let Some(name) = line.strip_prefix("NAME ") {
            *cx.session() = name.to_owned();
            self.names.insert(cx.id(), name.to_owned());
        } else if let Some(size) = line.strip_prefix("BIG ") {
            cx.send(vec![b'x'; size.parse().unwrap()]);
            cx.send("\n");
        } else if let Some(addr) = line.strip_prefix("DIAL ") {
            cx.connect(addr, "dialled".to_owned()).unwrap();
        } else if line == "LATER" {
            cx.pause();
            cx.set_timer(Duration::from_secs(3600));
        } else {
            let own = self.names.get(&cx.id()).cloned().unwrap_or_default();
            cx.broadcast(format!("{} {own}: {line}\n", self.lines));
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, String>, reason: CloseReason) {
        let name = cx.session().clone();
        self.names.remove(&cx.id());
        cx.broadcast(format!("{name} has left\n"));
        let dialled = if cx.is_outbound() { "which was dialled, " } else { "" };
        let _ = self.told.send(format!("close {name}: {dialled}{reason}"));
    }

    fn save(&self, _cx: &ServiceContext<'_, String>) -> Option<Saved> {
        if self.stays {
            return Some(Saved::stay());
        }
        let mut saved = Saved::new(self.version);
        saved.state().put_number(self.lines);
        for (id, name) in &self.names {
            saved.state().put_number(id.to_bits());
            saved.state().put_text(name);
        }
        Some(if self.together { saved.together() } else { saved })
    }

    fn save_session(
        &self,
        _cx: &ServiceContext<'_, String>,
        _id: ConnId,
        session: &String,
        to: &mut Encoder,
    ) {
        to.put_text(session);
    }

    fn restore(&mut self, version: u32, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        if version != self.version {
            return Err(Unreadable("an unknown version"));
        }
        self.lines = from.number()?;
        while !from.is_empty() {
            let id = ConnId::from_bits(from.number()?);
            self.names.insert(id, from.text()?.to_owned());
        }
        Ok(())
    }

    fn restore_session(
        &mut self,
        _id: ConnId,
        _version: u32,
        from: &mut Decoder<'_>,
    ) -> Result<String, Unreadable> {
        match from.text()? {
            "spoilt" => Err(Unreadable("of no use")),
            "panic" => panic!("it has a name that nobody may have"),
            name => Ok(name.to_owned()),
        }
    }

    fn on_restored(&mut self, cx: &mut Context<'_, String>) {
        let _ = self.told.send(format!("restored {}", cx.session()));
    }

    fn on_handed_on(&mut self, cx: &mut ServiceContext<'_, String>) {
        let left = cx.connection_count();
        if left > 0 {
            let _ = self.told.send(format!("{left} left"));
        }
    }
}

/// Sends datagrams back with a number.
struct Echoes(u64);

impl DatagramHandler for Echoes {
    type Message = ();

    fn on_datagram(&mut self, cx: &mut DatagramContext<'_>, from: SocketAddr, bytes: &[u8]) {
        self.0 += 1;
        cx.send_to(from, [self.0.to_string().as_bytes(), b" ", bytes].concat());
    }
}

enum Order {
    HandOn(UnixStream, Duration),
    Stop,
}

/// One loop, in a thread of its own.
struct Generation {
    addresses: Vec<Address>,
    told: Receiver<String>,
    orders: Sender<Order>,
    answers: Receiver<Result<HandedOn, Error>>,
    handle: Handle<()>,
    thread: JoinHandle<Counters>,
}

#[derive(Clone)]
struct Config {
    listen: Vec<String>,
    limits: Limits,
    together: bool,
    stays: bool,
    version: u32,
    web_socket: bool,
    datagrams: Option<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: vec!["127.0.0.1:0".to_owned()],
            limits: Limits::default(),
            together: false,
            stays: false,
            version: 1,
            web_socket: false,
            datagrams: None,
        }
    }
}

fn set_up(
    config: Config,
    reactor: &mut Reactor<'static>,
    told: Sender<String>,
) -> Result<(Service<()>, Vec<Address>), Error> {
    let Config { listen, limits, together, stays, version, web_socket, datagrams } = config;
    let room = Room { told, lines: 0, names: BTreeMap::new(), together, stays, version };
    let service = reactor.add(room, limits)?;
    let mut addresses = Vec::new();
    for text in listen {
        addresses.push(reactor.bind(&service, text.as_str())?);
    }
    #[cfg(feature = "websocket")]
    if web_socket {
        let listen = Listen::at("127.0.0.1:0")?.web_socket(&reactor::WebSocket::new());
        addresses.push(reactor.bind(&service, listen)?);
    }
    let _ = web_socket;
    if let Some(text) = datagrams {
        addresses.extend(reactor.datagrams(text.as_str(), Echoes(0))?.address().cloned());
    }
    Ok((service, addresses))
}

fn run(
    reactor: &mut Reactor<'_>,
    orders: &Receiver<Order>,
    answers: &Sender<Result<HandedOn, Error>>,
) -> Counters {
    while reactor.exit().is_none() {
        reactor.turn(None).unwrap();
        match orders.try_recv() {
            Ok(Order::HandOn(socket, patience)) => {
                let mut to = Successor::new(socket, patience).unwrap();
                let outcome = reactor.offer(&mut to).and_then(|()| reactor.hand_on(to, PATIENCE));
                answers.send(outcome).unwrap();
            }
            Ok(Order::Stop) => reactor.stop(),
            Err(_) => {}
        }
    }
    reactor.counters()
}

impl Generation {
    fn start(config: Config, inherited: Option<UnixStream>) -> Generation {
        let (tell, told) = mpsc::channel();
        let (orders, obeyed) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut reactor = Reactor::new().unwrap();
            let inherits = inherited.is_some();
            if let Some(socket) = inherited {
                reactor.inherit(socket, PATIENCE).unwrap();
            }
            let (service, addresses) = set_up(config, &mut reactor, tell).unwrap();
            if inherits {
                reactor.succeed().unwrap();
            }
            ready.send((service.handle(), addresses)).unwrap();
            run(&mut reactor, &obeyed, &answer)
        });
        let (handle, addresses) = started.recv_timeout(PATIENCE).expect("it did not start");
        Generation { addresses, told, orders, answers, handle, thread }
    }

    fn addr(&self) -> SocketAddr {
        self.addresses[0].as_socket().unwrap()
    }

    fn order(&self, order: Order) {
        self.orders.send(order).unwrap();
        self.handle.post(()).unwrap();
    }

    fn hand_on(&self, to: UnixStream, patience: Duration) {
        self.order(Order::HandOn(to, patience));
    }

    fn answer(&self) -> Result<HandedOn, Error> {
        self.answers.recv_timeout(PATIENCE).expect("it hands on for ever")
    }

    /// The next one, which listens where this one does.
    fn successor(&self, config: Config) -> (Generation, HandedOn) {
        let (one, other) = UnixStream::pair().unwrap();
        self.hand_on(one, PATIENCE);
        let listen = config.listen.iter().zip(&self.addresses);
        let listen = listen.map(|(asked, there)| match there {
            Address::Tcp(addr) => addr.to_string(),
            _ => asked.clone(),
        });
        let next = Generation::start(Config { listen: listen.collect(), ..config }, Some(other));
        assert_eq!(next.addresses.len(), self.addresses.len());
        (next, self.answer().unwrap())
    }

    #[track_caller]
    fn next_told(&self) -> String {
        self.told.recv_timeout(PATIENCE).expect("nothing is told")
    }

    fn stop(self) -> Counters {
        // It may have ended by itself.
        let _ = self.orders.send(Order::Stop);
        let _ = self.handle.post(());
        self.thread.join().unwrap()
    }
}

/// Clients in the middle of lines, and upgrades one after the other.
#[test]
fn no_line_is_lost_repeated_or_moved_over_many_upgrades() {
    let _quiet = quiet();
    let number = |name: &str, usual| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a whole number"))
    };
    let (clients, upgrades) = (number("CLIENTS", 200), number("UPGRADES", 5));
    let mut loops = vec![Generation::start(Config::default(), None)];
    let addr = loops[0].addr();
    let mut clients: Vec<Client> = (0..clients).map(|_| Client::connect(addr)).collect();
    // Each asks for an answer of its own: nobody waits for anybody else.
    let answer = "x".repeat(10) + "\n";
    for client in &mut clients {
        client.send("BIG 10\n");
        client.expect(&answer);
    }
    let mut pauses = Vec::new();
    for upgrade in 0..upgrades {
        let begun = Instant::now();
        clients.iter_mut().for_each(|client| client.send("BIG 10\nBI"));
        let (next, handed_on) = loops.last().unwrap().successor(Config::default());
        assert_eq!(handed_on, only(clients.len()));
        for client in &mut clients {
            client.send("G 10\n");
            client.expect(format!("{answer}{answer}"));
            pauses.push(begun.elapsed());
        }
        loops.push(next);
        assert_eq!(loops[upgrade + 1].addr(), addr);
    }
    pauses.sort_unstable();
    let at = |part: usize| pauses[(pauses.len() - 1) * part / 100];
    println!(
        "{} clients, {upgrades} upgrades; from the first byte to the answer: p50 {:?}, p99 {:?}, \
         max {:?}",
        clients.len(),
        at(50),
        at(99),
        at(100)
    );
    let counters: Vec<_> = loops.into_iter().map(Generation::stop).collect();
    let lines: u64 = counters.iter().map(|one| one.lines_in).sum();
    assert_eq!(lines, (clients.len() * (1 + 2 * upgrades)) as u64);
    assert_eq!(counters.iter().map(|one| one.accepted).sum::<u64>(), clients.len() as u64);
    let closed = counters.iter().map(|one| (one.closed_in_all(), one.open, one.panics));
    let all: Vec<_> = closed.collect();
    assert_eq!(all.iter().map(|one| one.0).sum::<u64>(), clients.len() as u64, "{all:?}");
    assert!(all.iter().all(|one| (one.1, one.2) == (0, 0)), "{all:?}");
}

/// So many have gone, and nobody has stayed.
fn only(connections: usize) -> HandedOn {
    let mut handed_on = HandedOn::default();
    handed_on.connections = connections;
    handed_on
}

#[test]
fn what_was_not_taken_is_sent_by_the_next_one_and_a_room_stays_whole() {
    let config = Config { together: true, ..Config::default() };
    let old = Generation::start(config.clone(), None);
    let (mut one, mut two) = (Client::connect(old.addr()), Client::connect(old.addr()));
    one.send("NAME olivier\n");
    two.send("NAME simon\nBIG 8000000\nhi");
    // As much as the kernel takes of it.
    two.expect("x");
    let (new, handed_on) = old.successor(config);
    assert_eq!(handed_on, only(2));
    // Newcomers come to the same address, and the old one may end.
    let (counters, mut three) = (old.stop(), Client::connect(new.addr()));
    assert_eq!((counters.closed_in_all(), counters.open), (0, 0));
    three.send("NAME late\nhello\n");
    one.expect("6 olivier: ".replace("6", "5").replace("olivier", "late") + "hello\n");
    let big = two.line();
    assert_eq!(big.len(), 8_000_000);
    two.send(" there\n");
    let mut heard: Vec<_> = (0..2).map(|_| two.line()).collect();
    heard.sort_unstable();
    assert_eq!(heard, ["5 late: hello\n", "6 simon: hi there\n"]);
    drop(two);
    assert_eq!(one.line(), "6 simon: hi there\n");
    assert_eq!(one.line(), "simon has left\n");
    new.stop();
}

/// Whatever has become of the next one, nothing has of this one.
#[test]
fn a_successor_that_fails_at_any_step_is_not_noticed() {
    let old = Generation::start(Config { together: true, ..Config::default() }, None);
    let mut client = Client::connect(old.addr());
    client.send("NAME olivier\n");
    let offer = |mut socket: &UnixStream| {
        let mut offer = [0; 4096];
        socket.read(&mut offer).unwrap()
    };
    let read_all = |mut socket: &UnixStream| {
        offer(socket);
        socket.write_all(&READY).unwrap();
        let mut head = [0; 6];
        // Its last frame is of kind `END`.
        while head[0] != 5 {
            // The listening socket that has come with the offer was lost with it.
            socket.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes(head[1..5].try_into().unwrap());
            std::io::copy(&mut socket.take(length.into()), &mut std::io::sink()).unwrap();
        }
    };
    let say = |mut socket: &UnixStream, bytes: &[u8]| socket.write_all(bytes).unwrap();
    type Fails<'f> = (&'f str, &'f dyn Fn(&UnixStream));
    let fails: [Fails<'_>; 10] = [
        ("has gone", &|_| ()),
        ("has gone", &|socket| _ = offer(socket)),
        ("has gone", &|socket| say(socket, &READY)),
        ("has gone", &|socket| say(socket, &READY[..3])),
        ("has gone", &|socket| read_all(socket)),
        ("none of this program", &|socket| say(socket, &[99; 64])),
        ("says: no?", &|socket| say(socket, b"\x08\0\0\0\x03\0no\n")),
        // An answer for fewer services than there are, for more, and one that is none.
        ("cut off", &|socket| (read_all(socket), say(socket, &[6, 0, 0, 0, 0, 0])).1),
        ("more than was", &|socket| (read_all(socket), say(socket, &[6, 0, 0, 0, 2, 0, 0, 0])).1),
        ("neither yes nor no", &|socket| (read_all(socket), say(socket, &[6, 0, 0, 0, 1, 0, 7])).1),
    ];
    for (number, (why, fail)) in (1..).zip(fails) {
        let (one, other) = UnixStream::pair().unwrap();
        client.send("in the ");
        old.hand_on(one, PATIENCE);
        fail(&other);
        if why != "has gone" {
            // The rest is not to be refused for want of a reader.
            let error = old.answer().unwrap_err().to_string();
            assert!(error.contains(why), "{number}: {error}");
        } else {
            drop(other);
            old.answer().unwrap_err();
        }
        client.send("middle\n");
        client.expect(format!("{} olivier: in the middle\n", number + 1));
        Client::connect(old.addr()).end();
        client.expect(" has left\n");
    }
    // One that says nothing costs no more than its time.
    let (one, other) = UnixStream::pair().unwrap();
    old.hand_on(one, Duration::from_millis(50));
    let error = old.answer().unwrap_err().to_string();
    assert_eq!(error, "the upgrade has failed: the other process does not answer");
    drop(other);
    // After all that, the next one succeeds.
    let (new, handed_on) = old.successor(Config { together: true, ..Config::default() });
    assert_eq!(handed_on, only(1));
    client.send("still\n");
    client.expect("12 olivier: still\n");
    old.stop();
    new.stop();
}

/// The other side of that: whatever comes, a loop that is to take over says no and takes nothing.
#[test]
fn a_predecessor_that_fails_at_any_step_leaves_nothing() {
    let frame = |kind: u8, body: &[u8]| {
        [&[kind][..], &(body.len() as u32).to_be_bytes(), &[0], body].concat()
    };
    let mut hello = Encoder::default();
    hello.put_text("line-reactor");
    let strange = hello.clone();
    [1, 1, 12_345, 0].into_iter().for_each(|number| hello.put_number(number));
    let hello = frame(1, hello.as_bytes());
    let (end, commit) = (frame(5, b""), frame(7, b""));
    let serials = frame(4, &0_u64.to_be_bytes());
    let service = |record: &[u8], sockets: u64| {
        let mut parcel = Encoder::default();
        parcel.put_number(7);
        parcel.put_text("Room");
        parcel.put_option(Some(record), |parcel, record| {
            parcel.put_number(sockets);
            parcel.put_bytes(record);
        });
        frame(4, parcel.as_bytes())
    };
    let inherits = |said: &[u8]| {
        let (one, mut other) = UnixStream::pair().unwrap();
        other.write_all(said).unwrap();
        // It hears what is answered.
        other.shutdown(std::net::Shutdown::Write).unwrap();
        let mut reactor = Reactor::new().unwrap();
        reactor.inherit(one, PATIENCE)?;
        let (tell, _told) = mpsc::channel();
        set_up(Config::default(), &mut reactor, tell)?;
        reactor.succeed()
    };
    let all = |parts: &[&Vec<u8>]| {
        let said: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        inherits(&[&hello[..], &said].concat())
    };
    assert!(inherits(b"").is_err());
    assert!(inherits(&frame(1, strange.as_bytes())).is_err());
    assert!(inherits(&frame(1, b"GET / HTTP/1.1")).is_err());
    assert!(inherits(&frame(4, b"")).is_err());
    for parts in [
        &[][..],
        &[&serials],
        // Nothing was committed.
        &[&serials, &end],
        &[&end, &commit],
        &[&serials, &frame(5, b"!"), &commit],
        &[&frame(4, &[0xff; 99]), &end, &commit],
        &[&service(b"", 1), &end, &commit],
        &[&service(b"", u64::MAX), &end, &commit],
    ] {
        let outcome = all(parts);
        assert!(matches!(outcome, Err(Error::Upgrade { .. })), "{parts:?}: {outcome:?}");
    }
    assert!(all(&[&service(&[0xff; 40], 0), &end, &commit]).is_err());
    // A service of another version is not taken over, and that is no failure.
    let mut record = Encoder::default();
    [9, 0].into_iter().for_each(|number| record.put_number(number));
    assert!(all(&[&service(record.as_bytes(), 0), &end, &commit]).is_ok());
    assert!(all(&[&serials, &end, &commit]).is_ok());
}

/// Of a service that the next one cannot read, the clients are told to come again.
#[test]
fn what_the_next_one_does_not_know_is_closed_with_a_word() {
    let old = Generation::start(Config::default(), None);
    let mut client = Client::connect(old.addr());
    client.send("NAME olivier\nhi\nand th");
    client.expect("2 olivier: hi\n");
    assert_eq!(old.next_told(), "open false");
    let (new, handed_on) = old.successor(Config { version: 2, ..Config::default() });
    assert_eq!((handed_on.connections, handed_on.left), (0, 1));
    assert_eq!(client.rest(), b"The server is being upgraded, please connect again\n");
    assert_eq!(old.next_told(), "close olivier: closed for an upgrade");
    assert!(new.told.try_recv().is_err());
    let mut again = Client::connect(new.addr());
    again.send("hi\n");
    again.expect("1 : hi\n");
    drop(client);
    assert_eq!(old.stop().closed(CloseReason::Upgrade), 1);
    new.stop();
}

/// By then the handler has the state of all, with members that would never come. So nothing goes over, and nobody is
/// closed.
#[test]
fn a_session_that_cannot_be_restored_leaves_all_where_it_is() {
    for (name, why) in [("spoilt", "Room: of no use"), ("panic", "Room: its handler panicked")] {
        let old = Generation::start(Config { together: true, ..Config::default() }, None);
        let [mut one, mut two] = [(); 2].map(|()| Client::connect(old.addr()));
        one.send("NAME olivier\nhi\n");
        one.expect("2 olivier: hi\n");
        two.expect("2 olivier: hi\n");
        two.send(format!("NAME {name}\nhi\nin the mid"));
        [&mut one, &mut two].iter_mut().for_each(|it| it.expect(format!("4 {name}: hi\n")));
        let (to, from) = UnixStream::pair().unwrap();
        old.hand_on(to, PATIENCE);
        let mut reactor = Reactor::new().unwrap();
        reactor.inherit(from, PATIENCE).unwrap();
        let (tell, told) = mpsc::channel();
        let listen = vec![old.addr().to_string()];
        set_up(Config { listen, ..Config::default() }, &mut reactor, tell).unwrap();
        let error = reactor.succeed().unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        let error = old.answer().unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        drop(reactor);
        assert!(told.try_recv().is_err());
        two.send("dle\n");
        [one, two].iter_mut().for_each(|it| it.expect(format!("5 {name}: in the middle\n")));
        old.stop();
    }
}

/// A server that was dialled knows this process only. Where its connection belongs to the others, the next
/// one hears of its end.
#[test]
fn who_cannot_go_stays_or_is_missed_where_all_belong_together() {
    for together in [false, true] {
        let config = Config { together, ..Config::default() };
        let old = Generation::start(config.clone(), None);
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = Client::connect(old.addr());
        client.send(format!("NAME olivier\nDIAL {}\n", server.local_addr().unwrap()));
        let mut dialled = Client::from(server.accept().unwrap().0);
        assert_eq!([(); 2].map(|()| old.next_told()), ["open false", "open true"]);
        let (new, handed_on) = old.successor(config);
        assert_eq!((handed_on.connections, handed_on.left), (1, 1));
        assert_eq!(new.next_told(), "restored olivier");
        if together {
            assert_eq!(new.next_told(), "close dialled: which was dialled, closed for an upgrade");
            client.expect("dialled has left\n");
            // It is no client to be told anything.
            assert_eq!(dialled.rest(), b"");
        } else {
            assert_eq!(old.next_told(), "1 left");
            dialled.send("still here\n");
            dialled.expect("3 : still here\n");
            assert!(new.told.try_recv().is_err());
        }
        client.send("hello\n");
        client.expect("3 olivier: hello\n");
        drop(dialled);
        let gone = (!together).then(|| old.next_told());
        let wanted = "close dialled: which was dialled, closed by the peer";
        assert_eq!(gone.as_deref(), (!together).then_some(wanted));
        assert!(old.told.try_recv().is_err());
        let counters = old.stop();
        assert_eq!((counters.open, counters.closed_in_all()), (0, u64::from(!together)));
        new.stop();
    }
}

/// Of a handler that has everybody stay, nobody notices; newcomers are the next one's.
#[test]
fn who_is_to_stay_is_served_to_the_end_where_it_is() {
    let config = Config { stays: true, ..Config::default() };
    let old = Generation::start(config.clone(), None);
    let mut client = Client::connect(old.addr());
    client.send("NAME olivier\nin the ");
    assert_eq!(old.next_told(), "open false");
    let (new, handed_on) = old.successor(config);
    assert_eq!((handed_on.connections, handed_on.left), (0, 1));
    assert_eq!(old.next_told(), "1 left");
    let mut second = Client::connect(new.addr());
    second.send("hi\n");
    second.expect("1 : hi\n");
    assert_eq!(new.next_told(), "open false");
    client.send("middle\n");
    client.expect("2 olivier: in the middle\n");
    drop(client);
    assert_eq!(old.next_told(), "close olivier: closed by the peer");
    assert!(new.told.try_recv().is_err());
    assert_eq!(old.stop().closed(CloseReason::PeerClosed), 1);
    new.stop();
}

#[cfg(feature = "websocket")]
#[test]
fn a_web_socket_that_cannot_go_is_told_to_come_again() {
    use crate::util::websocket;

    let config = Config { together: true, web_socket: true, ..Config::default() };
    let old = Generation::start(config.clone(), None);
    let mut page = websocket::open(old.addresses[1].as_socket().unwrap());
    page.send(websocket::masked(websocket::TEXT, "NAME page"));
    let mut client = Client::connect(old.addr());
    client.send("NAME olivier\n");
    assert_eq!([(); 2].map(|()| old.next_told()), ["open false", "open false"]);
    // In the same order as the page's.
    client.send("x\n");
    client.expect("3 olivier: x\n");
    page.expect(websocket::plain(websocket::TEXT, "3 olivier: x"));
    let (new, handed_on) = old.successor(config);
    assert_eq!((handed_on.connections, handed_on.left), (1, 1));
    let words = "The server is being upgraded, please connect again";
    page.expect(websocket::plain(websocket::TEXT, words));
    page.expect(websocket::closing(1012));
    client.expect("page has left\n");
    drop(page);
    old.stop();
    new.stop();
}

#[test]
fn the_path_of_a_unix_socket_goes_along_and_is_removed_once() {
    let folder = Folder::new("upgrade");
    let path = folder.file("room.sock");
    let (address, lock) = (format!("unix:{}", path.display()), folder.file("room.sock.lock"));
    let config = Config { listen: vec![address], ..Config::default() };
    let old = Generation::start(config.clone(), None);
    let talk = |mut stream: &UnixStream, line: &str| {
        stream.write_all(line.as_bytes()).unwrap();
        let mut got = vec![0; line.len() + 4];
        stream.read_exact(&mut got).unwrap();
        String::from_utf8(got).unwrap()
    };
    let client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(talk(&client, "one\n"), "1 : one\n");
    // Who only looks at it and fails removes nothing.
    let (one, other) = UnixStream::pair().unwrap();
    old.hand_on(one, PATIENCE);
    let mut reactor = Reactor::new().unwrap();
    reactor.inherit(other, PATIENCE).unwrap();
    set_up(config.clone(), &mut reactor, mpsc::channel().0).unwrap();
    drop(reactor);
    old.answer().unwrap_err();
    assert!(path.exists() && lock.exists());
    let (new, handed_on) = old.successor(config.clone());
    assert_eq!(handed_on, only(1));
    old.stop();
    assert!(path.exists() && lock.exists());
    assert_eq!(talk(&client, "two\n"), "2 : two\n");
    let second = UnixStream::connect(&path).unwrap();
    assert_eq!(talk(&second, "six\n"), "3 : six\n");
    // It is taken, as ever.
    let taken = set_up(config, &mut Reactor::new().unwrap(), mpsc::channel().0).unwrap_err();
    assert!(taken.to_string().contains("another server"), "{taken}");
    new.stop();
    assert!(!path.exists() && !lock.exists());
}

/// An address that the next one does not have is listened on no more, and one that only it has is.
#[test]
fn addresses_may_come_and_go() {
    let two = Config { listen: vec!["127.0.0.1:0".to_owned(); 2], ..Config::default() };
    let old = Generation::start(two, None);
    let (one, other) = UnixStream::pair().unwrap();
    old.hand_on(one, PATIENCE);
    let listen = vec![old.addresses[1].to_string(), "127.0.0.2:0".to_owned()];
    let new = Generation::start(Config { listen, ..Config::default() }, Some(other));
    old.answer().unwrap();
    for (number, address) in (1..).zip(&new.addresses) {
        let mut client = Client::connect(address.as_socket().unwrap());
        client.send("hi\n");
        client.expect(format!("{number} : hi\n"));
        client.end();
        assert_eq!(client.rest(), b"");
    }
    let error = std::net::TcpStream::connect(old.addr()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    old.stop();
    new.stop();
}

/// Its datagrams wait in the system's queue meanwhile.
#[test]
fn a_socket_of_datagrams_goes_along() {
    let config = Config { datagrams: Some("127.0.0.1:0".to_owned()), ..Config::default() };
    let old = Generation::start(config.clone(), None);
    let addr = old.addresses[1].as_socket().unwrap();
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut got = [0; 99];
        let (count, from) = client.recv_from(&mut got).unwrap();
        assert_eq!(from, addr);
        String::from_utf8(got[..count].to_vec()).unwrap()
    };
    client.send_to(b"one", addr).unwrap();
    assert_eq!(hear(), "1 one");
    let config = Config { datagrams: Some(addr.to_string()), ..config };
    let (new, _) = old.successor(config);
    for (number, word) in [(1, "two"), (2, "three")] {
        client.send_to(word.as_bytes(), addr).unwrap();
        assert_eq!(hear(), format!("{number} {word}"));
    }
    let counters = old.stop();
    assert_eq!((counters.datagrams_in, counters.datagrams_lost), (1, 0));
    new.stop();
}

/// Whoever waits to be accepted, or to be read, is served by the next one.
#[test]
fn who_comes_meanwhile_is_served_by_the_next_one() {
    let old = Generation::start(Config::default(), None);
    let (one, other) = UnixStream::pair().unwrap();
    old.hand_on(one, PATIENCE);
    let mut reactor = Reactor::new().unwrap();
    reactor.inherit(other, PATIENCE).unwrap();
    let (tell, told) = mpsc::channel();
    let listen = vec![old.addr().to_string()];
    set_up(Config { listen, ..Config::default() }, &mut reactor, tell).unwrap();
    // The old one waits until this one is ready: nobody is accepted.
    let mut client = Client::connect(old.addr());
    client.send("hello\n");
    reactor.succeed().unwrap();
    assert_eq!(old.answer().unwrap(), only(0));
    while reactor.counters().lines_in < 1 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    client.expect("1 : hello\n");
    assert_eq!(told.try_recv().unwrap(), "open false");
    old.stop();
}

/// Both loops count from the same moment, or deadlines would begin anew.
#[test]
fn who_has_been_quiet_for_long_has_been_so_in_the_next_loop() {
    let old = Generation::start(Config::default(), None);
    let mut client = Client::connect(old.addr());
    client.send("first\n");
    client.expect("1 : first\n");
    let heard = Instant::now();
    thread::sleep(Duration::from_millis(100));
    let quiet_for = heard.elapsed();
    let (one, other) = UnixStream::pair().unwrap();
    old.hand_on(one, PATIENCE);
    let mut reactor = Reactor::new().unwrap();
    reactor.inherit(other, PATIENCE).unwrap();
    let listen = vec![old.addr().to_string()];
    let config = Config { listen, ..Config::default() };
    set_up(config, &mut reactor, mpsc::channel().0).unwrap();
    reactor.succeed().unwrap();
    assert_eq!(old.answer().unwrap(), only(1));
    let page = reactor.connections(&Selection::default());
    assert!(page.connections[0].idle >= quiet_for, "{page:?}, not {quiet_for:?}");
    old.stop();
}

/// Tells what it is told.
struct Tells(Sender<&'static str>);

impl Handler for Tells {
    type Session = ();
    type Message = &'static str;

    fn on_message(&mut self, _cx: &mut ServiceContext<'_, ()>, message: &'static str) {
        self.0.send(message).unwrap();
    }

    fn on_shutdown(&mut self, _cx: &mut ServiceContext<'_, ()>) {
        self.0.send("shutdown").unwrap();
    }

    fn save(&self, _cx: &ServiceContext<'_, ()>) -> Option<Saved> {
        Some(Saved::new(1).together())
    }

    fn restore(&mut self, _version: u32, _from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        Ok(())
    }
}

/// It might do something in the name of what is another one's.
#[test]
fn the_old_handler_of_what_went_together_is_told_nothing_more() {
    let (one, other) = UnixStream::pair().unwrap();
    let (tell, told) = mpsc::channel();
    let next = thread::spawn(move || {
        let (tell, told) = mpsc::channel();
        let mut reactor = Reactor::new().unwrap();
        reactor.inherit(other, PATIENCE).unwrap();
        let service = reactor.add(Tells(tell), Limits::default()).unwrap();
        reactor.succeed().unwrap();
        service.handle().post("to the next").unwrap();
        reactor.stop();
        reactor.run().unwrap();
        told.try_iter().collect::<Vec<_>>()
    });
    let mut old = Reactor::new().unwrap();
    let service = old.add(Tells(tell), Limits::default()).unwrap();
    old.turn(Some(Duration::ZERO)).unwrap();
    service.handle().post("before").unwrap();
    let mut to = Successor::new(one, PATIENCE).unwrap();
    old.offer(&mut to).unwrap();
    old.hand_on(to, PATIENCE).unwrap();
    service.handle().post("after").unwrap();
    old.stop();
    old.run().unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), ["before"]);
    assert_eq!(next.join().unwrap(), ["to the next", "shutdown"]);
}

/// Posts itself a smaller number for each that it is posted.
struct CountsDown {
    own: Arc<OnceLock<Handle<u64>>>,
    sum: u64,
}

impl Handler for CountsDown {
    type Session = ();
    type Message = u64;

    fn on_message(&mut self, _cx: &mut ServiceContext<'_, ()>, number: u64) {
        self.sum += number;
        if number > 0 {
            self.own.get().unwrap().post(number - 1).unwrap();
        }
    }

    fn save(&self, _cx: &ServiceContext<'_, ()>) -> Option<Saved> {
        let mut saved = Saved::new(1);
        saved.state().put_number(self.sum);
        Some(saved)
    }

    fn restore(&mut self, _version: u32, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        self.sum = from.number()?;
        assert_eq!(self.sum, 10 + 9 + 8 + 7 + 6 + 5 + 4 + 3 + 2 + 1);
        Ok(())
    }
}

/// What a handler has posted while it was given its messages is under way as much as these.
#[test]
fn messages_that_follow_from_messages_are_taken_before_the_upgrade() {
    let (one, other) = UnixStream::pair().unwrap();
    let counts_down = || CountsDown { own: Arc::default(), sum: 0 };
    let next = thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        reactor.inherit(other, PATIENCE).unwrap();
        reactor.add(counts_down(), Limits::default()).unwrap();
        reactor.succeed().unwrap();
    });
    let mut old = Reactor::new().unwrap();
    let handler = counts_down();
    let own = Arc::clone(&handler.own);
    let service = old.add(handler, Limits::default()).unwrap();
    own.set(service.handle()).unwrap();
    service.handle().post(10).unwrap();
    let mut to = Successor::new(one, PATIENCE).unwrap();
    old.offer(&mut to).unwrap();
    old.hand_on(to, PATIENCE).unwrap();
    next.join().unwrap();
}

/// Tells each client its number.
struct Numbers;

impl Handler for Numbers {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        let number = cx.id().number();
        writeln!(cx, "{number}");
    }

    fn save(&self, _cx: &ServiceContext<'_, ()>) -> Option<Saved> {
        Some(Saved::new(1))
    }

    fn restore(&mut self, _version: u32, _from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        Ok(())
    }
}

/// It was accepted when its listener was unbound, and is let in when all else has gone over.
#[test]
fn who_is_let_in_after_the_upgrade_has_a_number_that_nobody_else_has() {
    let mut old = Reactor::new().unwrap();
    let service = old.listen("127.0.0.1:0", Numbers).unwrap();
    let first = service.address().unwrap().clone();
    let second = old.bind(&service, "127.0.0.1:0").unwrap().as_socket().unwrap();
    let mut waits = Client::connect(first.as_socket().unwrap());
    old.unbind(&service, &first).unwrap();
    let (one, other) = UnixStream::pair().unwrap();
    let next = thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        reactor.inherit(other, PATIENCE).unwrap();
        let service = reactor.listen(second, Numbers).unwrap();
        reactor.succeed().unwrap();
        thread::spawn(move || {
            let mut client = Client::connect(second);
            assert_eq!(client.line(), "2\n");
            service.handle().stop();
        });
        reactor.run().unwrap();
    });
    let mut to = Successor::new(one, PATIENCE).unwrap();
    old.offer(&mut to).unwrap();
    old.hand_on(to, PATIENCE).unwrap();
    next.join().unwrap();
    until("it is let in", || {
        old.turn(Some(Duration::ZERO)).unwrap();
        old.counters().accepted == 1
    });
    assert_eq!(waits.line(), "1\n");
    drop(waits);
    old.run().unwrap();
}
