//! Several cores that hand all they have on to as many others. The two programs are two sets of threads of this process;
//! what one of them does the other learns over a Unix socket alone.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use reactor::{
    Address, Callbacks, CloseReason, ConnId, Context, Core, Cores, Decoder, Error, Exit, HandedOn,
    Handle, Handler, Limits, Peers, Rate, Remote, Saved, ServiceContext, Status, Successor,
    Unreadable,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{READY, only};
use crate::util::{Client, PATIENCE, quiet, until};

/// What the handlers say to each other.
#[derive(Clone, Debug)]
enum Word {
    Said(Vec<u8>),
    /// To wait until this channel has something, or ends.
    Halt(Arc<Mutex<Receiver<()>>>),
    /// To be handed to the other core, for ever.
    Pass,
    /// To be said back by the core that gets it.
    Ask {
        from: usize,
    },
}

/// What is wrong with the handler of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// It cannot be made.
    Made,
    Restored,
    Session,
    /// `restore` panics.
    Panics,
    /// `save` panics.
    Saved,
}

/// A room over all cores: a line everybody hears, `where` is answered with the core and the number, `members` with how
/// many the core has, `ask` by the first core.
struct Room {
    core: usize,
    peers: Peers<Word>,
    members: u64,
    stays: bool,
    wrong: Option<Wrong>,
}

impl Handler for Room {
    type Session = ();
    type Message = Word;

    fn on_open(&mut self, _cx: &mut Context<'_, ()>) {
        self.members += 1;
    }

    fn on_close(&mut self, _cx: &mut Context<'_, ()>, _reason: CloseReason) {
        self.members -= 1;
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        match line {
            b"where" => writeln!(cx, "{} {}", self.core, cx.id().number()),
            b"members" => writeln!(cx, "{}", self.members),
            b"ask" => _ = self.peers.post(cx, 0, Word::Ask { from: self.core }),
            line => {
                let said = [line, b"\n"].concat();
                cx.broadcast(&said);
                self.peers.post_all(cx, &Word::Said(said));
            }
        }
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, word: Word) {
        match word {
            Word::Said(said) => cx.broadcast(&said),
            Word::Halt(gate) => _ = gate.lock().unwrap().recv(),
            Word::Pass => {
                thread::sleep(Duration::from_millis(20));
                self.peers.tell(1 - self.core, Word::Pass).unwrap();
            }
            Word::Ask { from } => {
                let said = Word::Said(b"the first core is there\n".to_vec());
                self.peers.tell(from, said).unwrap();
            }
        }
    }

    fn save(&self, _cx: &ServiceContext<'_, ()>) -> Option<Saved> {
        assert_ne!(self.wrong, Some(Wrong::Saved), "on purpose");
        if self.stays {
            return Some(Saved::stay());
        }
        Some(Saved::new(1))
    }

    fn restore(&mut self, _version: u32, _from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        assert_ne!(self.wrong, Some(Wrong::Panics), "on purpose");
        if self.wrong == Some(Wrong::Restored) {
            return Err(Unreadable("not on this core"));
        }
        Ok(())
    }

    fn restore_session(
        &mut self,
        _id: ConnId,
        _version: u32,
        _from: &mut Decoder<'_>,
    ) -> Result<(), Unreadable> {
        if self.wrong == Some(Wrong::Session) {
            return Err(Unreadable("not on this core"));
        }
        self.members += 1;
        Ok(())
    }
}

#[derive(Clone)]
struct Config {
    cores: usize,
    /// Where the rooms listen.
    listen: Vec<String>,
    limits: Limits,
    stays: bool,
    /// What is wrong with the first room, and where.
    wrong: Option<(usize, Wrong)>,
    /// The last core waits for the end of this before it has its handlers.
    slow: Option<Arc<Mutex<Receiver<()>>>>,
}

fn of(cores: usize) -> Config {
    let listen = vec!["127.0.0.1:0".to_owned()];
    Config { cores, listen, limits: Limits::default(), stays: false, wrong: None, slow: None }
}

type Handles = Vec<Handle<Word>>;
type Outcome = (Result<Exit, Error>, Status);

/// The cores of one program, in threads of their own.
struct Generation {
    addresses: Vec<SocketAddr>,
    /// Those of the first room.
    handles: Handles,
    remote: Remote<'static>,
    thread: JoinHandle<Outcome>,
}

fn set_up(config: Config, cores: &mut Cores<'_>) -> Result<(Vec<SocketAddr>, Handles), Error> {
    let Config { listen, limits, stays, wrong, slow, cores: count } = config;
    let (mut addresses, mut handles) = (Vec::new(), Vec::new());
    for (number, text) in listen.iter().enumerate() {
        let slow = slow.clone();
        let make = move |core: Core<Word>| {
            let gate = slow.as_ref().filter(|_| core.index() + 1 == count);
            if let Some(gate) = gate {
                let _ = gate.lock().unwrap().recv();
            }
            let wrong = wrong.filter(|(at, _)| number == 0 && *at == core.index());
            let wrong = wrong.map(|(_, wrong)| wrong);
            assert_ne!(wrong, Some(Wrong::Made), "on purpose");
            Room { core: core.index(), peers: core.peers(), members: 0, stays, wrong }
        };
        let room = cores.listen_with(text.as_str(), make, limits.clone())?;
        cores.set_name(&room, format!("room {number}"));
        addresses.push(room.address().and_then(Address::as_socket).unwrap());
        handles.extend(room.handles().iter().cloned());
    }
    Ok((addresses, handles))
}

impl Generation {
    /// The services are there when it returns; it may still wait for its predecessor.
    fn start(config: Config, inherited: Option<UnixStream>) -> Generation {
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut cores = Cores::new(config.cores).unwrap();
            if let Some(socket) = inherited {
                cores.inherit(socket, PATIENCE).unwrap();
            }
            let (addresses, handles) = set_up(config, &mut cores).unwrap();
            tell.send((addresses, handles, cores.remote())).unwrap();
            (cores.run(), cores.status())
        });
        let (addresses, handles, remote) = told.recv_timeout(PATIENCE).expect("it did not start");
        Generation { addresses, handles, remote, thread }
    }

    fn connect(&self) -> Client {
        Client::connect(self.addresses[0])
    }

    /// Begins to hand on. The outcome comes over the channel.
    fn hand_on(&self, socket: UnixStream, silence: Duration, patience: Duration) -> Handed {
        let (tell, told) = mpsc::channel();
        let change = move |cores: &mut Cores<'static>| {
            let mut to = Successor::new(socket, silence).unwrap();
            let offered = cores.offer(&mut to);
            tell.send(offered.and_then(|()| cores.hand_on(to, patience))).unwrap();
        };
        self.remote.post(change).unwrap();
        Handed(told)
    }

    /// As this one, where it listens.
    fn same(&self, config: Config) -> Config {
        Config { listen: self.addresses.iter().map(ToString::to_string).collect(), ..config }
    }

    fn successor(&self, config: Config, patience: Duration) -> (Generation, HandedOn) {
        let (one, other) = UnixStream::pair().unwrap();
        let handed = self.hand_on(one, PATIENCE, patience);
        let next = Generation::start(self.same(config), Some(other));
        (next, handed.outcome().unwrap())
    }

    /// Has a core stand still in the middle of a turn, until what this gives is dropped.
    fn halt(&self, core: usize) -> Sender<()> {
        let (gate, halted) = mpsc::channel();
        self.handles[core].post(Word::Halt(Arc::new(Mutex::new(halted)))).unwrap();
        until("it stands still", || self.handles[core].is_empty());
        gate
    }

    /// How many connections the first core has.
    fn on_first(&self) -> u64 {
        let (tell, told) = mpsc::channel();
        self.remote.post(move |cores| tell.send(cores.first().counters().open).unwrap()).unwrap();
        told.recv_timeout(PATIENCE).unwrap()
    }

    /// It ends by itself.
    fn ended(self) -> Status {
        until("it ends", || self.thread.is_finished());
        let (exit, status) = self.thread.join().unwrap();
        assert_eq!(exit.unwrap(), Exit::Clean);
        status
    }

    fn stop(self) -> Status {
        self.remote.post(|cores| cores.first().stop()).unwrap();
        self.ended()
    }
}

struct Handed(Receiver<Result<HandedOn, Error>>);

impl Handed {
    fn outcome(self) -> Result<HandedOn, Error> {
        self.0.recv_timeout(PATIENCE).expect("it hands on for ever")
    }
}

/// Whether the other side has said something within that time.
fn is_heard(to: &Successor, within: Duration) -> bool {
    let within = Timespec::try_from(within).unwrap();
    poll(&mut [PollFd::new(to, PollFlags::IN)], Some(&within)).unwrap() > 0
}

/// The core and the number of a client's connection.
fn whereabouts(client: &mut Client) -> (usize, u64) {
    client.send("where\n");
    let line = client.line();
    let (core, number) = line.trim().split_once(' ').unwrap();
    (core.parse().unwrap(), number.parse().unwrap())
}

/// A client on each core.
fn one_on_each(there: &Generation, cores: usize) -> Vec<Client> {
    let mut found: Vec<Option<Client>> = (0..cores).map(|_| None).collect();
    let mut others = Vec::new();
    while found.iter().any(Option::is_none) {
        let mut client = there.connect();
        let (core, _) = whereabouts(&mut client);
        others.extend(found[core].replace(client));
    }
    drop(others);
    found.into_iter().flatten().collect()
}

/// All are in the middle of lines, and what they say is on its way from core to core.
#[test]
fn what_cores_say_to_each_other_is_neither_lost_nor_repeated() {
    let _quiet = quiet();
    for cores in [2, 3] {
        let mut there = Generation::start(of(cores), None);
        let mut clients: Vec<_> = (0..30).map(|_| there.connect()).collect();
        let places: Vec<_> = clients.iter_mut().map(whereabouts).collect();
        let on: BTreeSet<_> = places.iter().map(|(core, _)| *core).collect();
        assert_eq!(on.len(), cores);
        for upgrade in 0..5 {
            for (number, client) in clients.iter_mut().enumerate() {
                client.send(format!("{number} one\n{number} two\n{number} th"));
            }
            let (next, handed_on) = there.successor(of(cores), PATIENCE);
            assert_eq!(handed_on, only(clients.len()), "{upgrade}");
            for client in &mut clients {
                client.send("ree\n");
            }
            for client in &mut clients {
                let mut heard = vec![Vec::new(); places.len()];
                for _ in 0..3 * places.len() {
                    let line = client.line();
                    let (number, word) = line.trim_end().split_once(' ').unwrap();
                    heard[number.parse::<usize>().unwrap()].push(word.to_owned());
                }
                assert!(heard.iter().all(|words| words == &["one", "two", "three"]), "{heard:?}");
            }
            assert_eq!(clients.iter_mut().map(whereabouts).collect::<Vec<_>>(), places);
            // Nobody is left, so the old one has ended, or does so.
            let status = std::mem::replace(&mut there, next).ended();
            assert_eq!((status.counters.closed_in_all(), status.counters.open), (0, 0));
            assert_eq!((status.counters.messages_lost, status.counters.panics), (0, 0));
        }
        drop(clients);
        let counters = there.stop().counters;
        assert_eq!((counters.closed_in_all(), counters.open), (places.len() as u64, 0));
    }
}

/// Counts of the whole are those of the whole afterwards, and numbers go on.
#[test]
fn limits_hold_over_an_upgrade_of_several_cores() {
    let connects = Rate { per_second: 1, burst: 1000 };
    let limits = Limits {
        max_connections: 6,
        max_per_peer: Some(5),
        peer_connect_rate: Some(connects),
        ..Limits::default()
    };
    let config = Config { limits, ..of(3) };
    let old = Generation::start(config.clone(), None);
    let mut clients: Vec<_> = (0..5).map(|_| old.connect()).collect();
    let known: BTreeSet<_> = clients.iter_mut().map(|client| whereabouts(client).1).collect();
    let (new, handed_on) = old.successor(config, PATIENCE);
    assert_eq!(handed_on, only(5));
    assert!(String::from_utf8_lossy(&new.connect().rest()).contains("from your address"));
    clients.remove(0).end();
    let mut later = new.connect();
    // The place may not be free yet.
    until("one more is let in", || {
        later = new.connect();
        later.send("where\n");
        let line = later.line();
        line.split_once(' ').is_some_and(|(core, number)| {
            let numbers = (core.parse::<usize>(), number.trim().parse::<u64>());
            matches!(numbers, (Ok(_), Ok(number)) if !known.contains(&number))
        })
    });
    old.ended();
    new.stop();
}

/// It is known before anything is sent.
#[test]
fn another_number_of_cores_is_refused() {
    let old = Generation::start(of(2), None);
    let mut clients = one_on_each(&old, 2);
    clients.iter_mut().for_each(|client| client.send("wh"));
    for cores in [1, 3] {
        let (one, other) = UnixStream::pair().unwrap();
        let handed = old.hand_on(one, PATIENCE, PATIENCE);
        let error = Cores::new(cores).unwrap().inherit(other, PATIENCE).unwrap_err().to_string();
        let why = format!("2 cores cannot go on as {cores}; start as many, or restart it instead");
        assert_eq!(error, format!("the upgrade has failed: {why}"));
        let error = handed.outcome().unwrap_err().to_string();
        assert_eq!(error, format!("the upgrade has failed: the other process says: {why}"));
    }
    for (core, client) in clients.iter_mut().enumerate() {
        client.send("ere\n");
        assert!(client.line().starts_with(&format!("{core} ")));
    }
    old.stop();
}

/// Whatever the other side does, the clients of all cores go on in the middle of their lines.
#[test]
fn all_cores_go_on_whichever_step_the_next_ones_fail_at() {
    let old = Generation::start(of(3), None);
    let mut clients = one_on_each(&old, 3);
    let say = |mut socket: &UnixStream, bytes: &[u8]| socket.write_all(bytes).unwrap();
    let hear_offer = |mut socket: &UnixStream| _ = socket.read(&mut [0; 4096]).unwrap();
    // So many parcels.
    let hear = |mut socket: &UnixStream, parcels: usize| {
        hear_offer(socket);
        say(socket, &READY);
        let mut left = parcels;
        while left > 0 {
            let mut head = [0; 6];
            socket.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes(head[1..5].try_into().unwrap());
            std::io::copy(&mut socket.take(length.into()), &mut std::io::sink()).unwrap();
            left -= usize::from(head[0] == 5);
        }
    };
    type Fails<'f> = (&'f str, &'f dyn Fn(&UnixStream));
    let fails: [Fails<'_>; 9] = [
        ("", &|_| ()),
        ("", &|socket| hear_offer(socket)),
        ("", &|socket| hear(socket, 0)),
        ("", &|socket| hear(socket, 1)),
        ("", &|socket| hear(socket, 2)),
        ("has gone", &|socket| hear(socket, 3)),
        ("says: no", &|socket| (hear(socket, 3), say(socket, b"\x08\0\0\0\x02\0no")).1),
        // Of one core alone, and of one too many.
        ("cut off", &|socket| (hear(socket, 3), say(socket, &[6, 0, 0, 0, 1, 0, 0])).1),
        ("more than", &|socket| {
            hear(socket, 3);
            say(socket, &[6, 0, 0, 0, 4, 0, 0, 0, 0, 0]);
        }),
    ];
    for (number, (why, fail)) in fails.into_iter().enumerate() {
        let (one, other) = UnixStream::pair().unwrap();
        clients.iter_mut().for_each(|client| client.send("in the "));
        let handed = old.hand_on(one, PATIENCE, PATIENCE);
        fail(&other);
        // What it has said is to be read, and nothing more comes.
        let _ = other.shutdown(Shutdown::Write);
        let dropped = why.is_empty().then(|| drop(other));
        let error = handed.outcome().unwrap_err().to_string();
        assert!(error.contains(why), "{number}, {dropped:?}: {error}");
        for client in &mut clients {
            client.send("middle\n");
            client.expect("in the middle\n");
        }
        clients.iter_mut().for_each(|client| client.expect("in the middle\n".repeat(2)));
    }
    // One that says nothing costs no more than its time.
    let (one, other) = UnixStream::pair().unwrap();
    let error = old.hand_on(one, Duration::from_millis(50), PATIENCE).outcome().unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error}");
    drop(other);
    let (new, handed_on) = old.successor(of(3), PATIENCE);
    assert_eq!(handed_on, only(3));
    old.ended();
    new.stop();
}

/// As a program whose configuration has become wrong: its cores cannot even be made.
#[test]
fn a_core_that_cannot_start_or_restore_is_a_refusal() {
    for (at, wrong, why) in [
        (1, Wrong::Made, "a core has failed; the log says why"),
        (2, Wrong::Made, "a core has failed; the log says why"),
        (0, Wrong::Session, "room 0: not on this core"),
        (2, Wrong::Session, "room 0: not on this core"),
        (1, Wrong::Panics, "room 0: its handler panicked"),
    ] {
        let old = Generation::start(of(3), None);
        let mut clients = one_on_each(&old, 3);
        clients.iter_mut().for_each(|client| client.send("wh"));
        let (one, other) = UnixStream::pair().unwrap();
        let handed = old.hand_on(one, PATIENCE, PATIENCE);
        let wrong = old.same(Config { wrong: Some((at, wrong)), ..of(3) });
        let new = Generation::start(wrong, Some(other));
        let error = handed.outcome().unwrap_err().to_string();
        assert_eq!(error, format!("the upgrade has failed: the other process says: {why}"));
        until("the new one ends", || new.thread.is_finished());
        let (exit, status) = new.thread.join().unwrap();
        assert_eq!(exit.unwrap_err().to_string(), format!("the upgrade has failed: {why}"));
        assert_eq!(status.counters.accepted, 0);
        for (core, client) in clients.iter_mut().enumerate() {
            client.send("ere\n");
            assert!(client.line().starts_with(&format!("{core} ")));
        }
        old.stop();
    }
}

/// Part of a service would be worse than none of it.
#[test]
fn a_service_that_one_core_cannot_go_on_with_goes_on_nowhere() {
    for (at, wrong) in
        [(1, Wrong::Restored), (0, Wrong::Restored), (1, Wrong::Saved), (0, Wrong::Saved)]
    {
        let config = Config { listen: vec!["127.0.0.1:0".to_owned(); 2], ..of(3) };
        let with = Config { wrong: Some((at, wrong)), ..config.clone() };
        let (first, second) = match wrong {
            Wrong::Saved => (with, config),
            _ => (config, with),
        };
        let old = Generation::start(first, None);
        let mut clients = one_on_each(&old, 3);
        let mut others: Vec<_> = (0..6).map(|_| Client::connect(old.addresses[1])).collect();
        others.iter_mut().for_each(|client| _ = whereabouts(client));
        let (new, handed_on) = old.successor(second, PATIENCE);
        assert_eq!((handed_on.connections, handed_on.left), (6, 3), "{at} {wrong:?}");
        for client in &mut clients {
            assert_eq!(client.rest(), b"The server is being upgraded, please connect again\n");
        }
        others[0].send("still there\n");
        others.iter_mut().for_each(|client| client.expect("still there\n"));
        let mut again = new.connect();
        until("nobody else is there, whichever core that is", || {
            again.send("members\n");
            again.line() == "1\n"
        });
        drop((clients, again));
        assert_eq!(old.ended().counters.closed(CloseReason::Upgrade), 3);
        new.stop();
    }
}

/// Until then each core may ask the others, also one that has no connections any more.
#[test]
fn the_old_cores_end_together_once_nobody_is_left_on_any() {
    let config = Config { stays: true, ..of(2) };
    let old = Generation::start(config.clone(), None);
    let mut clients = one_on_each(&old, 2);
    // Those that were on the way to a core are there.
    until("the others have gone", || old.on_first() == 1);
    let (new, handed_on) = old.successor(config, PATIENCE);
    assert_eq!(handed_on.connections, 0);
    let mut last = clients.pop().unwrap();
    drop(clients);
    for _ in 0..3 {
        last.send("ask\n");
        last.expect("the first core is there\n");
    }
    assert!(!old.thread.is_finished());
    drop(last);
    assert_eq!(old.ended().counters.closed(CloseReason::Upgrade), 0);
    new.stop();
}

#[test]
fn who_stays_is_served_for_no_longer_than_the_patience() {
    for cores in [1, 2] {
        let config = Config { stays: true, ..of(cores) };
        let old = Generation::start(config.clone(), None);
        let mut clients = one_on_each(&old, cores);
        let (new, _) = old.successor(config, Duration::from_millis(300));
        clients[0].send("hello\n");
        for client in &mut clients {
            client.expect("hello\n");
            // By itself.
            assert_eq!(client.rest(), b"");
        }
        assert!(old.ended().counters.closed(CloseReason::Shutdown) >= cores as u64);
        new.stop();
    }
}

/// They are on no core yet: that which is to have them stands still.
#[test]
fn newcomers_on_their_way_to_a_core_go_along() {
    let old = Generation::start(of(2), None);
    let gate = old.halt(1);
    let mut clients: Vec<_> = (0..8).map(|_| old.connect()).collect();
    // Every other one.
    until("half of them are on the first core", || old.on_first() == 4);
    let (one, other) = UnixStream::pair().unwrap();
    let handed = old.hand_on(one, PATIENCE, PATIENCE);
    let new = Generation::start(old.same(of(2)), Some(other));
    // The word to stop is there before the core goes on. If it is not, less is tried.
    thread::sleep(Duration::from_millis(50));
    drop(gate);
    let handed_on = handed.outcome().unwrap();
    // The last one may still wait to be accepted.
    assert!(handed_on.connections >= 7 && handed_on.left == 0, "{handed_on:?}");
    clients.iter_mut().for_each(|client| _ = whereabouts(client));
    assert_eq!(old.ended().counters.closed_in_all(), 0);
    new.stop();
}

#[test]
fn a_core_that_stands_still_is_not_waited_for() {
    let old = Generation::start(of(3), None);
    let mut clients = one_on_each(&old, 3);
    for core in [1, 2] {
        clients.iter_mut().for_each(|client| client.send("wh"));
        let gate = old.halt(core);
        let (one, mut other) = UnixStream::pair().unwrap();
        other.write_all(&READY).unwrap();
        let handed = old.hand_on(one, Duration::from_millis(100), PATIENCE);
        let error = handed.outcome().unwrap_err().to_string();
        let why = format!("core {core} does not come to the end of its turn");
        assert_eq!(error, format!("the upgrade has failed: {why}"));
        drop(gate);
        for (core, client) in clients.iter_mut().enumerate() {
            client.send("ere\n");
            assert!(client.line().starts_with(&format!("{core} ")));
        }
    }
    let (new, handed_on) = old.successor(of(3), PATIENCE);
    assert_eq!(handed_on, only(3));
    old.ended();
    new.stop();
}

/// They serve nobody until then.
#[test]
fn cores_that_do_not_come_to_rest_are_not_waited_for() {
    let old = Generation::start(of(2), None);
    let mut clients = one_on_each(&old, 2);
    old.handles[0].post(Word::Pass).unwrap();
    let (one, mut other) = UnixStream::pair().unwrap();
    other.write_all(&READY).unwrap();
    let start = Instant::now();
    let handed = old.hand_on(one, Duration::from_millis(200), PATIENCE);
    let error = handed.outcome().unwrap_err().to_string();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let why = "messages are posted to the handlers without end";
    assert_eq!(error, format!("the upgrade has failed: {why}"));
    clients.iter_mut().for_each(|client| _ = whereabouts(client));
    old.stop();
}

/// The first core of the next program is ready long before another one, and nobody waits for that one.
#[test]
fn the_old_cores_serve_until_all_of_the_next_have_their_services() {
    let old = Generation::start(of(2), None);
    let mut clients = one_on_each(&old, 2);
    let (one, other) = UnixStream::pair().unwrap();
    let (tell, told) = mpsc::channel();
    let offer = move |cores: &mut Cores<'static>| {
        let mut to = Successor::new(one, PATIENCE).unwrap();
        cores.offer(&mut to).unwrap();
        tell.send(to).unwrap();
    };
    old.remote.post(offer).unwrap();
    let to = told.recv_timeout(PATIENCE).unwrap();
    let (gate, made) = mpsc::channel();
    let slow = Config { slow: Some(Arc::new(Mutex::new(made))), ..old.same(of(2)) };
    let new = Generation::start(slow, Some(other));
    // If it said that it is ready, it would do so about now.
    assert!(!is_heard(&to, Duration::from_millis(200)));
    clients.iter_mut().for_each(|client| _ = whereabouts(client));
    drop(gate);
    assert!(is_heard(&to, PATIENCE));
    let (tell, told) = mpsc::channel();
    old.remote.post(move |cores| tell.send(cores.hand_on(to, PATIENCE)).unwrap()).unwrap();
    assert_eq!(Handed(told).outcome().unwrap(), only(2));
    clients.iter_mut().for_each(|client| _ = whereabouts(client));
    old.ended();
    new.stop();
}

/// Who still has clients after that serves these alone.
#[test]
fn nothing_listens_anew_where_all_has_been_handed_on() {
    for cores in [1, 2] {
        let config = Config { stays: true, ..of(cores) };
        let old = Generation::start(config.clone(), None);
        let mut clients = one_on_each(&old, cores);
        let (new, _) = old.successor(config, PATIENCE);
        let (tell, told) = mpsc::channel();
        let change = move |cores: &mut Cores<'static>| {
            let nobody = |_| Callbacks::new();
            tell.send(cores.listen("127.0.0.1:0", nobody).err()).unwrap();
            tell.send(cores.add(nobody, Limits::default()).err()).unwrap();
        };
        old.remote.post(change).unwrap();
        for _ in 0..2 {
            let error = told.recv_timeout(PATIENCE).unwrap();
            assert!(matches!(error, Some(Error::ShuttingDown)), "{error:?}");
        }
        clients.iter_mut().for_each(|client| _ = whereabouts(client));
        drop(clients);
        old.ended();
        new.stop();
    }
}
