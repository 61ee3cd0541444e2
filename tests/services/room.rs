//! A room on three cores: everybody hears the same in the same order, whatever happens meanwhile.

#![cfg(feature = "services")]

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reactor::services::Presence;
use reactor::services::redis::Login;
use reactor::services::room::bus::{Action, Bus, Event, MemberId, News, Told};
use reactor::services::room::{
    Demand, Failure, InProcess, Link, Message, OverRedis, Protocol, Room, Seat, ServerId, Settings,
    Words,
};
use reactor::testing::{CoresByHand, Harness};
use reactor::{
    Address, CloseReason, Connect, Context, Core, Cores, Error, Exit, HandedOn, Handler, Limits,
    Reactor, Remote, ServiceContext, Status, Successor, TimerId,
};

use crate::util::{Client, PATIENCE, Server, quiet, until};

const CORES: usize = 3;

fn room() -> Server<Message> {
    Server::on_cores(CORES, Limits::default(), |core| Presence::default().on(&core))
}

/// A newcomer that has heard its welcome.
fn join(server: &Server<Message>) -> Client {
    welcomed(server.connect())
}

fn welcomed(mut client: Client) -> Client {
    (0..6).for_each(|_| _ = client.line());
    client
}

/// All that comes up to that line, and it.
fn up_to(client: &mut Client, last: &str) -> Vec<String> {
    let mut heard = Vec::new();
    while heard.last().is_none_or(|line| line != last) {
        heard.push(client.line());
    }
    heard
}

/// Clients with names, of whom each has heard that all have theirs.
fn named(server: &Server<Message>, count: usize) -> Vec<Client> {
    with_names((0..count).map(|_| join(server)).collect())
}

fn with_names(mut clients: Vec<Client>) -> Vec<Client> {
    let count = clients.len();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("HELLO c{number}\n"));
        client.expect_up_to(&format!("c{number} is in the room.\n"));
    }
    let last = format!("c{} is in the room.\n", count - 1);
    clients[..count - 1].iter_mut().for_each(|client| client.expect_up_to(&last));
    clients
}

trait Hears {
    fn expect_up_to(&mut self, last: &str);
}

impl Hears for Client {
    fn expect_up_to(&mut self, last: &str) {
        up_to(self, last);
    }
}

#[test]
fn everybody_hears_the_same_in_the_same_order() {
    const CLIENTS: usize = 30;
    const LINES: usize = 200;
    let server = room();
    let clients = named(&server, CLIENTS);
    let mut ends = Vec::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        ends.push(std::thread::spawn(move || {
            let mut writer = client.stream.try_clone().unwrap();
            let said = std::thread::spawn(move || {
                for line in 0..LINES {
                    let said = format!("SAY {line}\nHELLO c{number}\n");
                    writer.write_all(said.as_bytes()).unwrap();
                }
                if number % 3 == 0 {
                    writer.write_all(b"BYE\n").unwrap();
                }
            });
            let mut heard = Vec::new();
            let mut left = CLIENTS.div_ceil(3);
            let leaving = format!("c{number} is about to leave the room.\n");
            let mut said_by_others = CLIENTS * LINES * 2;
            while left > 0 || said_by_others > 0 {
                let line = client.line();
                left -= usize::from(line.ends_with(" has left the room.\n"));
                let says = line.contains(" says: ") || line.ends_with(" is in the room.\n");
                said_by_others -= usize::from(says);
                let own_end = line == leaving;
                heard.push(line);
                if own_end {
                    assert_eq!(client.rest(), b"");
                    break;
                }
            }
            said.join().unwrap();
            (client, heard)
        }));
    }
    let all: Vec<_> = ends.into_iter().map(|end| end.join().unwrap()).collect();
    let whole = &all[1].1;
    for (number, (_, heard)) in all.iter().enumerate() {
        // Those who left have heard the beginning of it.
        assert!(number % 3 == 0 || heard.len() == whole.len());
        assert!(*heard == whole[..heard.len()], "{number} has heard something else");
        for line in 0..LINES {
            let said = format!("c{number} says: {line}\n");
            assert_eq!(whole.iter().filter(|heard| **heard == said).count(), 1);
        }
        let left = format!("c{number} has left the room.\n");
        let times = whole.iter().filter(|line| **line == left).count();
        assert_eq!(times, usize::from(number % 3 == 0));
    }
    drop(all);
    let (exit, counters) = server.stop();
    assert_eq!((exit, counters.closed(CloseReason::SlowConsumer)), (Exit::Clean, 0));
}

/// The cores of one process that has the room, in threads of their own.
struct Process {
    address: SocketAddr,
    remote: Remote<'static>,
    thread: JoinHandle<(Result<Exit, Error>, Status)>,
}

impl Process {
    fn start(at: String, inherited: Option<UnixStream>) -> Process {
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut cores = Cores::new(CORES).unwrap();
            if let Some(socket) = inherited {
                cores.inherit(socket, PATIENCE).unwrap();
            }
            let make = |core: Core<Message>| Presence::default().on(&core);
            let room = cores.listen(at.as_str(), make).unwrap();
            let address = room.address().and_then(Address::as_socket).unwrap();
            tell.send((address, cores.remote())).unwrap();
            (cores.run(), cores.status())
        });
        let (address, remote) = told.recv_timeout(PATIENCE).expect("it did not start");
        Process { address, remote, thread }
    }

    /// Another one goes on with all that it has, and it ends.
    fn upgraded(self) -> (Process, HandedOn) {
        let (one, other) = UnixStream::pair().unwrap();
        let (tell, told) = mpsc::channel();
        let hand_on = move |cores: &mut Cores<'static>| {
            let mut to = Successor::new(one, PATIENCE).unwrap();
            cores.offer(&mut to).unwrap();
            tell.send(cores.hand_on(to, PATIENCE)).unwrap();
        };
        self.remote.post(hand_on).unwrap();
        let next = Process::start(self.address.to_string(), Some(other));
        let handed_on = told.recv_timeout(PATIENCE).expect("it hands on for ever").unwrap();
        let counters = self.ended().counters;
        assert_eq!((counters.closed_in_all(), counters.open), (0, 0));
        assert_eq!((counters.messages_lost, counters.panics), (0, 0));
        (next, handed_on)
    }

    fn ended(self) -> Status {
        until("it ends", || self.thread.is_finished());
        let (exit, status) = self.thread.join().unwrap();
        assert_eq!(exit.unwrap(), Exit::Clean);
        status
    }
}

/// All hear the same in the same order, each line once, and of the upgrades nothing.
#[test]
fn a_room_on_several_cores_is_upgraded_while_everybody_talks() {
    const CLIENTS: usize = 12;
    const UPGRADES: usize = 10;
    let _quiet = quiet();
    let mut there = Process::start("127.0.0.1:0".to_owned(), None);
    let come = |_| welcomed(Client::connect(there.address));
    let clients = with_names((0..CLIENTS).map(come).collect());
    let (over, lines) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let talking = clients.into_iter().enumerate().map(|(number, mut client)| {
        let (over, lines) = (Arc::clone(&over), Arc::clone(&lines));
        std::thread::spawn(move || {
            let (mut heard, mut last) = (Vec::new(), false);
            for line in 0.. {
                last |= over.load(SeqCst);
                let text = if last { "the end".to_owned() } else { line.to_string() };
                // An upgrade finds it in the middle of a line.
                client.send(format!("SAY {text}"));
                client.send("\n");
                heard.extend(up_to(&mut client, &format!("c{number} says: {text}\n")));
                lines.fetch_add(1, SeqCst);
                if last {
                    break;
                }
            }
            let ends =
                |heard: &[String]| heard.iter().filter(|it| it.ends_with(" the end\n")).count();
            while ends(&heard[heard.len().saturating_sub(CLIENTS * CLIENTS)..]) < CLIENTS {
                heard.push(client.line());
            }
            (client, heard)
        })
    });
    let talking: Vec<_> = talking.collect();
    for upgrade in 1..=UPGRADES {
        until("all have talked", || lines.load(SeqCst) > 3 * CLIENTS * upgrade);
        let (next, handed_on) = there.upgraded();
        assert_eq!((handed_on.connections, handed_on.left), (CLIENTS, 0));
        there = next;
    }
    over.store(true, SeqCst);
    let all: Vec<_> = talking.into_iter().map(|thread| thread.join().unwrap()).collect();
    let heard = &all[0].1;
    for (number, (_, other)) in all.iter().enumerate() {
        assert!(heard == other, "c0 and c{number} have heard something else");
        let own = format!("c{number} says: ");
        let said: Vec<_> = heard.iter().filter_map(|line| line.strip_prefix(&own)).collect();
        let (end, said) = said.split_last().unwrap();
        assert_eq!(*end, "the end\n");
        assert!(said.iter().enumerate().all(|(line, said)| *said == format!("{line}\n")));
    }
    assert!(heard.iter().all(|line| line.contains(" says: ")));
    drop(all);
    there.remote.post(|cores| cores.first().stop()).unwrap();
    there.ended();
}

#[test]
fn of_many_who_want_one_name_at_once_one_has_it() {
    const CLIENTS: usize = 20;
    let make = |core: Core<_>| Presence::default().unique_names().on(&core);
    let server = Server::on_cores(CORES, Limits::default(), make);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| join(&server)).collect();
    for round in 0..20 {
        for (number, client) in clients.iter_mut().enumerate() {
            let name = if number % 2 == 0 { "Zoe" } else { "ZOE" };
            client.send(format!("HELLO {name}{round}\nSAY end of {round}\n"));
        }
        let mut owners = 0;
        for client in &mut clients {
            let (mut refused, mut named, mut ends) = (0, 0, 0);
            while ends < CLIENTS {
                let line = client.line();
                refused += usize::from(line.starts_with("The name "));
                named += usize::from(line.ends_with(" is in the room.\n"));
                ends += usize::from(line.ends_with(&format!("end of {round}\n")));
            }
            assert_eq!(named, 1);
            owners += 1 - refused;
        }
        assert_eq!(owners, 1);
    }
}

/// A bus that waits for a gate, and asks for a drain, when somebody says so.
struct Slow {
    inner: InProcess,
    gate: Arc<Mutex<mpsc::Receiver<()>>>,
    drain: bool,
    drained: Arc<AtomicUsize>,
}

impl Bus for Slow {
    fn event(&mut self, member: MemberId, event: Event, now: Instant) {
        match &event {
            Event::Say(text) if text == "halt" => self.gate.lock().unwrap().recv().unwrap(),
            Event::Say(text) if text == "drain" => self.drain = true,
            _ => {}
        }
        self.inner.event(member, event, now);
    }

    fn poll(&mut self) -> Option<Action> {
        let drain = self.inner.poll();
        drain.or_else(|| std::mem::take(&mut self.drain).then_some(Action::Drain))
    }

    fn drained(&mut self, _now: Instant) {
        self.drained.fetch_add(1, SeqCst);
    }
}

/// What is said, as it is said; after `drain` more than all buffers of a socket take.
struct Plain;

const MUCH: usize = 16 << 20;

impl Words for Plain {
    fn welcome(&mut self) -> String {
        "welcome\n".to_owned()
    }

    fn news(&mut self, news: &News) -> String {
        match news {
            News::Said { text, .. } if text == "drain" => "x".repeat(MUCH) + "\n",
            News::Said { text, .. } => format!("{text}\n"),
            News::Left { .. } => "left\n".to_owned(),
            _ => String::new(),
        }
    }

    fn told(&mut self, told: &Told) -> String {
        let Told::Line(line) = told else { return String::new() };
        line.clone()
    }
}

/// A handler of one's own on a seat: `where` tells which core it is, and all else is said.
struct Talk {
    core: usize,
    seat: Seat<Plain>,
    /// How many lines were read.
    read: Arc<AtomicUsize>,
}

impl Handler for Talk {
    type Session = ();
    type Message = Message;

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        self.seat.on_open(cx);
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        self.read.fetch_add(1, SeqCst);
        let text = String::from_utf8_lossy(line).into_owned();
        let event = match &*text {
            "where" => Event::Answer(format!("{}\n", self.core)),
            _ => Event::Say(text),
        };
        self.seat.event(cx, event);
    }

    fn on_eof(&mut self, cx: &mut Context<'_, ()>) {
        self.seat.on_eof(cx);
    }

    fn on_drain(&mut self, cx: &mut Context<'_, ()>) {
        self.seat.on_drain(cx);
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, _reason: CloseReason) {
        self.seat.on_close(cx);
    }

    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, ()>, timer: TimerId) {
        self.seat.on_service_timer(cx, timer);
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, message: Message) {
        self.seat.on_message(cx, message);
    }
}

/// A server, and what is seen of it.
struct Talking {
    server: Server<Message>,
    /// Opens the gate of its bus.
    open: mpsc::Sender<()>,
    /// How often the bus was drained.
    drained: Arc<AtomicUsize>,
    /// How many lines were read.
    read: Arc<AtomicUsize>,
}

fn talk(limits: Limits) -> Talking {
    let (open, gate) = mpsc::channel();
    let gate = Arc::new(Mutex::new(gate));
    let (drained, read) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (drains, reads) = (Arc::clone(&drained), Arc::clone(&read));
    let server = Server::on_cores(CORES, limits, move |core: Core<Message>| {
        let (gate, drained) = (Arc::clone(&gate), Arc::clone(&drains));
        let bus = || Slow { inner: InProcess::new(), gate, drain: false, drained };
        let seat = Seat::new(&core, Plain, bus);
        Talk { core: core.index(), seat, read: Arc::clone(&reads) }
    });
    Talking { server, open, drained, read }
}

/// So many clients on each core. More come, and go again.
fn clients_of(server: &Server<Message>, each: usize) -> Vec<Vec<Client>> {
    let mut cores: Vec<Vec<Client>> = (0..CORES).map(|_| Vec::new()).collect();
    while cores.iter().any(|clients| clients.len() < each) {
        let mut client = server.connect();
        client.expect("welcome\n");
        client.send("where\n");
        let core: usize = client.line().trim().parse().unwrap();
        cores[core].push(client);
    }
    let more = cores.iter().map(Vec::len).sum::<usize>() - CORES * each;
    cores.iter_mut().for_each(|clients| clients.truncate(each));
    cores.iter_mut().flatten().for_each(|client| client.send("all here\n"));
    for client in cores.iter_mut().flatten() {
        let (mut here, mut gone) = (CORES * each, more);
        while here > 0 || gone > 0 {
            let line = client.line();
            here -= usize::from(line == "all here\n");
            gone -= usize::from(line == "left\n");
        }
    }
    cores
}

#[test]
fn who_says_more_than_the_bus_takes_is_held_back_without_a_deadline_and_a_leave_has_its_place() {
    const LINES: usize = 500;
    let idle_timeout = Some(Duration::from_millis(500));
    let Talking { server, open, read, .. } = talk(Limits { idle_timeout, ..Limits::default() });
    let mut cores = clients_of(&server, 3);
    let before = read.load(SeqCst);
    let [mut speaker, leaver, mut clock] = cores.remove(1).try_into().unwrap();
    speaker.send("halt\n");
    let mut writer = speaker.stream.try_clone().unwrap();
    let long = |number: usize| format!("{number:05}{}\n", "x".repeat(60_000));
    let thread = std::thread::spawn(move || {
        (0..LINES).for_each(|number| writer.write_all(long(number).as_bytes()).unwrap());
    });
    drop(leaver);
    // Of three on this core one says nothing, and is closed for that; and so might the speaker be by now.
    assert!(clock.rest().ends_with(b"Idle for too long (limit 0.5 s)\n"));
    drop(clock);
    // 64 KiB are two lines, and `halt` is one.
    assert_eq!(read.load(SeqCst) - before, 3);
    open.send(()).unwrap();
    let (mut number, mut left, mut halted) = (0, 0, 0);
    while number < LINES || left < 2 {
        match speaker.line() {
            line if line == "left\n" => left += 1,
            line if line == "halt\n" => halted += 1,
            line => {
                assert!(line == long(number), "{number}: {}", &line[..20]);
                number += 1;
            }
        }
    }
    assert_eq!(halted, 1);
    thread.join().unwrap();
}

#[test]
fn on_each_core_an_answer_has_its_place_and_all_is_heard_before_the_end() {
    let talking = talk(Limits::default());
    let cores = clients_of(&talking.server, 1);
    for (core, mut client) in cores.into_iter().flatten().enumerate() {
        client.send("one\nwhere\nwhere\ntwo\nthree");
        client.end();
        let heard = client.rest();
        let heard = String::from_utf8(heard).unwrap().replace("left\n", "");
        let others: String = (0..core).map(|_| "one\ntwo\nthree\n").collect();
        assert_eq!(heard, format!("{others}one\n{core}\n{core}\ntwo\nthree\n"));
    }
}

#[test]
fn the_bus_is_told_when_the_clients_of_all_cores_have_taken_what_was_said() {
    let limits = Limits { max_output: 4 * MUCH, ..Limits::default() };
    let Talking { server, drained, .. } = talk(limits);
    let mut cores = clients_of(&server, 1);
    let mut slow = cores.remove(2).remove(0);
    // The system makes it no larger then.
    socket2::SockRef::from(&slow.stream).set_recv_buffer_size(256 << 10).unwrap();
    let mut others: Vec<_> = cores.into_iter().flatten().collect();
    let much = "x".repeat(MUCH) + "\n";
    others[1].send("drain\n");
    others.iter_mut().for_each(|client| client.expect(&much));
    for _ in 0..50 {
        for client in &mut others {
            client.send("where\n");
            client.line();
        }
    }
    assert_eq!(drained.load(SeqCst), 0);
    slow.expect(&much);
    until("all have taken it", || drained.load(SeqCst) == 1);

    // Who leaves is not waited for.
    others[0].send("drain\n");
    others.iter_mut().for_each(|client| client.expect(&much));
    assert_eq!(drained.load(SeqCst), 1);
    drop(slow);
    until("all others have", || drained.load(SeqCst) == 2);
    // With nobody on that core nobody there is waited for.
    others[0].send("drain\n");
    others.iter_mut().for_each(|client| client.expect(format!("left\n{much}")));
    until("all have", || drained.load(SeqCst) == 3);
}

/// The clients of Redis dial again by themselves, too, and the room may not have asked for that for long.
#[test]
fn a_connection_is_given_its_time_from_when_it_is_there() {
    let (settings, mut now) = (Settings::default(), Instant::now());
    let mut room = Room::new(settings.clone(), ServerId(7), now);
    for _ in 0..100 {
        now += settings.timeout / 25;
        room.lost(Link::Commands, Failure::Other, now);
        room.lost(Link::Reader, Failure::Other, now);
    }
    assert!(room.is_cut_off());
    while room.poll_redis().is_some() {}
    room.connected(Link::Commands, now);
    let demands: Vec<_> = std::iter::from_fn(|| room.poll_redis()).collect();
    assert!(matches!(demands[..], [Demand::Send(Link::Commands, _)]), "{demands:?}");
}

/// A bus that holds whoever says so, until its time has come or it is woken.
#[derive(Default)]
struct Holding {
    inner: InProcess,
    actions: Vec<Action>,
    held: Option<(MemberId, Instant)>,
}

impl Bus for Holding {
    fn event(&mut self, member: MemberId, event: Event, now: Instant) {
        if matches!(&event, Event::Say(text) if text == "hold") {
            self.actions.push(Action::Hold(member));
            self.held = Some((member, now + Duration::from_secs(7)));
        }
        self.inner.event(member, event, now);
    }

    fn poll(&mut self) -> Option<Action> {
        self.inner.poll().or_else(|| self.actions.pop())
    }

    fn deadline(&self) -> Option<Instant> {
        self.held.map(|(_, until)| until)
    }

    fn tick(&mut self, _now: Instant) {
        self.actions.extend(self.held.take().map(|(member, _)| Action::Release(member)));
    }
}

#[test]
fn whom_the_bus_holds_is_not_read_until_its_deadline_or_a_wake_up_and_does_not_idle() {
    let seat = Seat::alone(Plain, Holding::default());
    let talk = Talk { core: 0, seat, read: Arc::default() };
    let idle_timeout = Some(Duration::from_secs(2));
    let mut server = Harness::with_limits(talk, Limits { idle_timeout, ..Limits::default() });
    let client = server.connect();
    server.feed(client, "hold\nhold\nlast\n");
    assert_eq!(server.sent(client), b"welcome\nhold\n");
    server.advance(Duration::from_millis(6999));
    assert_eq!(server.sent(client), b"");
    server.advance(Duration::from_millis(1));
    assert_eq!(server.sent(client), b"hold\n");
    server.post(Message::wake());
    assert_eq!(server.sent(client), b"last\n");
    // The rest of what it waits for is its own.
    server.advance(Duration::from_secs(2));
    assert_eq!(server.closed(client), Some(CloseReason::IdleTimeout));
}

/// A bus on which somebody has something to say behind each goodbye.
#[derive(Default)]
struct Talkative {
    inner: InProcess,
    behind: Option<Action>,
}

impl Bus for Talkative {
    fn event(&mut self, member: MemberId, event: Event, now: Instant) {
        if event == Event::Bye {
            let news = News::Said { name: None, text: "goodbye".to_owned() };
            self.behind = Some(Action::ToAll { news, by: None });
        }
        self.inner.event(member, event, now);
    }

    fn poll(&mut self) -> Option<Action> {
        self.inner.poll().or_else(|| self.behind.take())
    }
}

/// The goodbye and the end of the connection came to the bus as two, and what others said came in between.
#[test]
fn whoever_says_goodbye_hears_nothing_behind_it() {
    const CLIENTS: usize = 12;
    let make = |core: Core<_>| Presence::default().on_bus(&core, Talkative::default);
    let server = Server::on_cores(CORES, Limits::default(), make);
    let mut clients = named(&server, CLIENTS);
    while let Some(mut client) = clients.pop() {
        client.send("BYE\nSAY never\n");
        let name = format!("c{}", clients.len());
        client.expect(format!("{name} is about to leave the room.\n"));
        assert_eq!(client.rest(), b"");
        for other in &mut clients {
            other.expect(format!("{name} is about to leave the room.\n"));
            other.expect("An anonymous user says: goodbye\n");
            other.expect(format!("{name} has left the room.\n"));
        }
    }
}

/// A bus that notes what it is told.
struct Noting {
    inner: InProcess,
    told: Arc<Mutex<Vec<&'static str>>>,
}

impl Bus for Noting {
    fn event(&mut self, member: MemberId, event: Event, now: Instant) {
        self.told.lock().unwrap().push("event");
        self.inner.event(member, event, now);
    }

    fn poll(&mut self) -> Option<Action> {
        self.inner.poll()
    }

    fn stop(&mut self, _now: Instant) {
        self.told.lock().unwrap().push("stop");
    }
}

impl Protocol for Plain {
    type Session = ();

    fn on_line(seat: &mut Seat<Plain>, cx: &mut Context<'_, ()>, line: &[u8]) {
        seat.event(cx, Event::Say(String::from_utf8_lossy(line).into_owned()));
    }
}

#[test]
fn a_bus_that_was_stopped_is_told_nothing_that_other_cores_do() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&told);
    let mut cores = Cores::new(2).unwrap();
    let make = move |core: Core<Message>| {
        let bus = || Noting { inner: InProcess::new(), told: Arc::clone(&noted) };
        Seat::new(&core, Plain, bus)
    };
    let room = cores.listen("127.0.0.1:0", make).unwrap();
    let mut cores = CoresByHand::new(cores).unwrap();
    let mut clients: Vec<_> =
        (0..4).map(|_| TcpStream::connect(("127.0.0.1", room.port())).unwrap()).collect();
    while let Some(core) = (0..2).find(|core| cores.is_due(*core)) {
        cores.turn(core);
    }
    assert_eq!(*told.lock().unwrap(), ["event"; 4]);
    room.handles()[0].stop();
    cores.turn(0);
    assert_eq!(told.lock().unwrap().last(), Some(&"stop"));
    for client in &mut clients {
        client.write_all(b"late\n").unwrap();
    }
    // The other core reads that before it hears of the stop.
    cores.turn(1);
    (0..10).for_each(|_| cores.turn(0));
    assert_eq!(told.lock().unwrap().last(), Some(&"stop"));
}

#[test]
fn a_room_with_settings_that_cannot_be_kept_is_an_error() {
    let second = Duration::from_secs(1);
    let good = Settings { timeout: second, lease: 2 * second, ..Settings::default() };
    let mut reactor = Reactor::new().unwrap();
    for (settings, error) in [
        (Settings { key: "a room".to_owned(), ..good.clone() }, Some("key")),
        (Settings { key: String::new(), ..good.clone() }, Some("key")),
        (Settings { timeout: Duration::ZERO, ..good.clone() }, Some("timeout")),
        (Settings { lease: second, ..good.clone() }, Some("lease")),
        (Settings { timeout: Duration::MAX, ..good.clone() }, Some("lease")),
        (good, None),
    ] {
        let redis = Connect::to("127.0.0.1:1").unwrap();
        let dialled = OverRedis::dial(&mut reactor, redis, Login::default(), settings.clone());
        let found = match dialled {
            Err(Error::Limit { name, .. }) => Some(name),
            Err(error) => panic!("{settings:?}: {error}"),
            Ok(_) => None,
        };
        assert_eq!(found, error, "{settings:?}");
    }
}
