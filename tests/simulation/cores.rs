//! Several cores, turned by hand in one thread: the seed says which of them runs next, and with that
//! when newcomers, words and questions arrive. Clients are at a Unix socket, so that nothing else
//! decides anything. An oracle hears every word that a core says to another, and compares.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reactor::testing::CoresByHand;
use reactor::{
    Address, Ask, Callbacks, CloseReason, ConnId, Context, Core, Cores, Decoder, Error, Exit,
    Handle, Handler, Limits, Listen, Networks, Peers, Remote, Report, Saved, ServiceContext,
    Spread, Unreadable,
};

use crate::folder::Folder;
use crate::world::Choices;

/// Messages that may wait for a core before who says more is held back.
const AHEAD: usize = 1024;
/// Lines of who says more than that, and where each turn takes only a few of them.
const FLOODS: [usize; 2] = [1500, 100];
/// Clients at once, about.
const CROWD: usize = 30;
/// More than the kernel takes for a client that does not read.
const DEAFENING: usize = 768 * 1024;
/// More than the time to remove a service, which is 10 s.
const SHUTDOWN: Duration = Duration::from_secs(11);
/// Turns after which cores are taken to spin.
const MOST_TURNS: usize = 400_000;

type Outcome = Result<(), String>;

/// What one core says to another: for each of these, the how-manieth it is.
#[derive(Clone, Debug)]
struct Word {
    from: usize,
    numbers: Arc<[u64]>,
    /// A connection that has gone.
    gone: Option<u64>,
}

/// What the oracle knows.
#[derive(Default)]
struct Book {
    /// Every connection that is open: its core, the process and its peer.
    open: BTreeMap<u64, (usize, usize, Option<IpAddr>)>,
    /// Every number that a connection has had.
    numbers: BTreeSet<u64>,
    /// Lines that each connection has had handled.
    lines: BTreeMap<u64, usize>,
    /// Words that a core has said to another, and that the other has taken. The cores of each process follow
    /// those of the one before.
    said: Vec<Vec<u64>>,
    taken: Vec<Vec<u64>>,
    /// How many cores have heard that a connection has gone.
    gone: BTreeMap<u64, usize>,
    /// How often each core was told of the shutdown.
    shut: Vec<usize>,
    /// The end of all cores is near.
    dying: bool,
    digest: u64,
    complaint: Option<String>,
}

impl Book {
    fn note(&mut self, what: u64) {
        self.digest = (self.digest ^ what).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
    }

    fn complain(&mut self, what: String) {
        self.complaint.get_or_insert(what);
    }

    /// A core has something to say to these others.
    fn say(&mut self, from: usize, to: impl Iterator<Item = usize>, gone: Option<u64>) -> Word {
        to.for_each(|to| self.said[from][to] += 1);
        Word { from, numbers: self.said[from].as_slice().into(), gone }
    }

    /// So many cores more.
    fn add_cores(&mut self, count: usize) {
        let count = self.shut.len() + count;
        self.shut.resize(count, 0);
        for square in [&mut self.said, &mut self.taken] {
            square.resize(count, Vec::new());
            square.iter_mut().for_each(|row| row.resize(count, 0));
        }
    }

    fn take(&mut self, core: usize, word: &Word) {
        let taken = &mut self.taken[word.from][core];
        *taken += 1;
        let (taken, number) = (*taken, word.numbers[core]);
        if number != taken {
            let from = word.from;
            self.complain(format!("core {core} took word {number} of core {from} as its {taken}."));
        }
        if let Some(gone) = word.gone {
            *self.gone.entry(gone).or_default() += 1;
        }
        self.note(number << 16 | (word.from << 8 | core) as u64);
    }
}

struct Talker {
    core: usize,
    /// Which process it is in, and how many cores those before have.
    process: usize,
    base: usize,
    peers: Peers<Word>,
    book: Arc<Mutex<Book>>,
}

impl Talker {
    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    /// Says something to these others.
    fn word(&self, to: impl Iterator<Item = usize>, gone: Option<u64>) -> Word {
        self.book().say(self.base + self.core, to.map(|core| self.base + core), gone)
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handler for Talker {
    type Session = ();
    type Message = Word;

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        let (number, peer) = (cx.id().number(), cx.peer_addr().map(|peer| peer.ip()));
        let mut book = self.book();
        book.open.insert(number, (self.core, self.process, peer));
        if !book.numbers.insert(number) {
            book.complain(format!("two connections have the number {number}"));
        }
        drop(book);
        writeln!(cx, "{number}");
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        *self.book().lines.entry(cx.id().number()).or_default() += 1;
        let line = String::from_utf8_lossy(line).into_owned();
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match command {
            "say" => {
                let word = self.word(self.peers.others(), None);
                self.peers.post_all(cx, &word);
                if !rest.is_empty() {
                    writeln!(cx, "said {rest}");
                }
            }
            "tell" => {
                let to = rest.parse().unwrap();
                let word = self.word(std::iter::once(to), None);
                let _ = self.peers.post(cx, to, word);
            }
            "count" => cx.request_report(Ask::Overview { watch: false }),
            "close" => {
                let (number, why) = (rest.parse().unwrap(), "on purpose".to_owned());
                cx.request_report(Ask::Close { number, why });
            }
            "stop" => cx.stop(),
            _ => cx.close(),
        }
    }

    fn on_report(&mut self, cx: &mut Context<'_, ()>, report: &Report) {
        match report {
            Report::Overview(status) => writeln!(cx, "count {}", status.counters.open),
            Report::Closed(closed) => writeln!(cx, "closed {closed}"),
            _ => {}
        }
    }

    fn on_message(&mut self, _: &mut ServiceContext<'_, ()>, word: Word) {
        self.book().take(self.base + self.core, &word);
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, _: CloseReason) {
        let number = cx.id().number();
        let mut book = self.book();
        if book.open.remove(&number).is_none() {
            book.complain(format!("{number} is closed a second time"));
        }
        drop(book);
        let word = self.word(self.peers.others(), Some(number));
        self.peers.tell_all(&word);
    }

    fn on_shutdown(&mut self, _: &mut ServiceContext<'_, ()>) {
        self.book().shut[self.base + self.core] += 1;
    }

    fn save(&self, _: &ServiceContext<'_, ()>) -> Option<Saved> {
        Some(Saved::new(1))
    }

    fn restore(&mut self, _: u32, _: &mut Decoder<'_>) -> Result<(), Unreadable> {
        Ok(())
    }

    fn restore_session(
        &mut self,
        _: ConnId,
        _: u32,
        _: &mut Decoder<'_>,
    ) -> Result<(), Unreadable> {
        Ok(())
    }

    fn on_restored(&mut self, cx: &mut Context<'_, ()>) {
        let (number, mut book) = (cx.id().number(), self.book());
        match book.open.get_mut(&number) {
            Some((core, process, _)) if *core == self.core => *process = self.process,
            other => {
                let wrong = format!("{number} has come to core {}, and was {other:?}", self.core);
                book.complain(wrong);
            }
        }
    }
}

/// What a client waits for.
#[derive(Debug)]
enum Answer {
    Words(String),
    /// Any that begins so.
    Like(&'static str),
}

struct Client {
    stream: UnixStream,
    /// Still to be sent.
    talk: VecDeque<u8>,
    /// Lines it has said.
    lines: usize,
    /// What it has heard of a line.
    heard: Vec<u8>,
    number: Option<u64>,
    refused: bool,
    /// There was an end, or an error.
    ended: bool,
    /// It goes by itself.
    leaves: bool,
    awaited: VecDeque<Answer>,
}

impl Client {
    fn say(&mut self, line: &str) {
        self.talk.extend(line.as_bytes());
        self.talk.push_back(b'\n');
        self.lines += 1;
    }

    fn is_served(&self) -> bool {
        self.number.is_some() && !self.ended
    }

    /// Sends what it can and reads what is there; says whether that was something.
    fn move_on(&mut self, read: bool) -> Result<bool, String> {
        let mut moved = false;
        while !self.ended && !self.talk.is_empty() {
            match self.stream.write(self.talk.make_contiguous()) {
                Ok(count) => {
                    drop(self.talk.drain(..count));
                    moved = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // There may be something to read all the same.
                Err(_) => self.talk.clear(),
            }
        }
        let mut piece = [0; 4096];
        while read && !self.ended {
            match self.stream.read(&mut piece) {
                Ok(0) => self.ended = true,
                Ok(count) => self.heard.extend(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.ended = true,
            }
            moved = true;
        }
        while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            self.hear(String::from_utf8_lossy(&line).trim_end())?;
        }
        Ok(moved)
    }

    fn hear(&mut self, line: &str) -> Outcome {
        if self.number.is_none() {
            self.refused = line.starts_with("Too many connections");
            self.number = line.parse().ok();
            return match self.refused || self.number.is_some() {
                true => Ok(()),
                false => Err(format!("{line:?} is no welcome")),
            };
        }
        match self.awaited.pop_front() {
            Some(Answer::Words(words)) if words == line => Ok(()),
            Some(Answer::Like(words)) if line.starts_with(words) => Ok(()),
            answer => Err(format!("{:?} heard {line:?}, not {answer:?}", self.number)),
        }
    }
}

/// What has happened in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) digest: u64,
    pub(crate) connections: usize,
    pub(crate) words: u64,
    pub(crate) refused: usize,
    /// Times a core has had as many words waiting as there may be.
    pub(crate) held: usize,
    pub(crate) upgrades: usize,
}

pub(crate) struct World {
    cores: CoresByHand<'static>,
    remote: Remote<'static>,
    room: Arc<Spread<Word>>,
    /// A service that comes and goes, and who is there.
    guest: Arc<Mutex<Option<Spread<()>>>>,
    visitor: Option<UnixStream>,
    /// It is sent more than it takes.
    deaf: bool,
    handles: Vec<Handle<Word>>,
    book: Arc<Mutex<Book>>,
    choices: Choices,
    clients: Vec<Client>,
    limits: Limits,
    /// Clients come by way of a proxy, which says who they are.
    proxied: bool,
    /// Lower limits close nobody: so many are there all the same, of all and of each peer.
    there: usize,
    there_by_peer: BTreeMap<Option<IpAddr>, usize>,
    /// One that does not run for a while.
    lazy: Option<usize>,
    /// How many have gone on for the one before.
    process: usize,
    turns: usize,
    history: History,
    trace: bool,
    folder: Folder,
}

fn at(path: &Path, proxied: bool) -> Listen {
    let listen = Listen::at(path).unwrap();
    if proxied { listen.proxy(Networks::loopback()) } else { listen }
}

/// The room of one process.
fn open_room(
    cores: &mut Cores<'static>,
    listen: Listen,
    limits: Limits,
    process: usize,
    book: &Arc<Mutex<Book>>,
) -> Result<Spread<Word>, Error> {
    let (heard, base) = (Arc::clone(book), process * cores.count());
    lock(book).add_cores(cores.count());
    let make = move |core: Core<Word>| {
        let (peers, book) = (core.peers(), Arc::clone(&heard));
        Talker { core: core.index(), process, base, peers, book }
    };
    cores.listen_with(listen, make, limits)
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> World {
        let mut choices = Choices::of_seed(seed);
        let count = choices.one_of(&[2, 2, 3, 5]);
        let by_peer = choices.once_in(2);
        let limits = Limits {
            max_connections: if by_peer { 10_000 } else { choices.one_of(&[2, 9, 25]) },
            max_per_peer: by_peer.then(|| choices.one_of(&[1, 4, 9])),
            lines_per_turn: choices.one_of(&[1, 3, 64, 1024, 1024]),
            bytes_per_turn: choices.one_of(&[7, 64 << 10, 64 << 10]),
            accepts_per_turn: choices.one_of(&[1, 3, 64]),
            ..Limits::default()
        };
        let book = Arc::default();
        let folder = Folder::new("cores");
        let mut cores = Cores::new(count).unwrap();
        let listen = at(&folder.file("room"), by_peer);
        let room = open_room(&mut cores, listen, limits.clone(), 0, &book).unwrap();
        World {
            handles: room.handles().to_vec(),
            remote: cores.remote(),
            room: Arc::new(room),
            guest: Arc::default(),
            visitor: None,
            deaf: false,
            cores: CoresByHand::new(cores).unwrap(),
            book,
            choices,
            clients: Vec::new(),
            limits,
            proxied: by_peer,
            there: 0,
            there_by_peer: BTreeMap::new(),
            lazy: None,
            process: 0,
            turns: 0,
            history: History::default(),
            trace,
            folder,
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    fn note(&mut self, what: &str, number: usize) {
        if self.trace {
            println!("{what} {number}");
        }
        self.book().note(number as u64);
    }

    pub(crate) fn history(&self) -> History {
        let book = self.book();
        let words = book.taken.iter().flatten().sum();
        History { digest: book.digest, words, connections: book.numbers.len(), ..self.history }
    }

    /// From the first newcomer to the end of all cores.
    pub(crate) fn live(&mut self, steps: usize) -> Outcome {
        for _ in 0..steps {
            match self.choices.below(18) {
                0..4 => {
                    let count = self.choices.one_of(&[1, 1, 3, 12]);
                    self.come(count);
                }
                4..9 => self.talk(),
                9 => self.leave(),
                10 => {
                    self.lazy = Some(self.choices.below(self.handles.len()));
                    self.note("lazy is", self.lazy.unwrap_or(0));
                }
                11 => self.cores.advance(Duration::from_millis(20)),
                12 => {
                    self.settle()?;
                    self.must_be_settled()?;
                    match self.choices.below(4) {
                        0 => self.rush()?,
                        1 => self.press()?,
                        2 => self.change_limits()?,
                        _ => self.come_or_go()?,
                    }
                }
                13 => self.move_entrance(),
                14 => self.upgrade()?,
                _ => drop(self.move_clients()?),
            }
            let most = self.choices.one_of(&[0, 1, 3, 10, 300]);
            self.run(most)?;
        }
        self.settle()?;
        self.must_be_settled()?;
        self.die()
    }

    /// So many clients connect.
    fn come(&mut self, count: usize) {
        let room = CROWD.saturating_sub(self.clients.len());
        for _ in 0..count.min(room) {
            let Ok(stream) = UnixStream::connect(self.folder.file("room")) else { return };
            stream.set_nonblocking(true).unwrap();
            let peer = self.choices.below(4);
            self.note("comes from", peer);
            let talk = match self.proxied {
                true => format!("PROXY TCP4 10.0.0.{peer} 10.0.0.9 1 2\r\n").into_bytes(),
                false => Vec::new(),
            };
            self.clients.push(Client {
                stream,
                talk: talk.into(),
                lines: 0,
                heard: Vec::new(),
                number: None,
                refused: false,
                ended: false,
                leaves: false,
                awaited: VecDeque::new(),
            });
        }
    }

    /// One of the clients.
    fn somebody(&mut self) -> Option<usize> {
        (!self.clients.is_empty()).then(|| self.choices.below(self.clients.len()))
    }

    fn talk(&mut self) {
        let Some(who) = self.somebody() else { return };
        let (cores, what) = (self.handles.len(), self.choices.below(8));
        let numbers: Vec<_> = self.book().open.keys().copied().collect();
        let other = numbers.get(self.choices.below(numbers.len().max(1))).copied().unwrap_or(0);
        let to = self.choices.below(cores);
        self.note("talks", who << 8 | what);
        let Limits { lines_per_turn, bytes_per_turn, .. } = self.limits;
        let flood = FLOODS[usize::from(lines_per_turn < 64 || bytes_per_turn < 4096)];
        let client = &mut self.clients[who];
        match what {
            0 => (0..flood).for_each(|_| client.say("say")),
            1 => (0..flood).for_each(|_| client.say(&format!("tell {to}"))),
            2 => {
                client.say("count");
                client.awaited.push_back(Answer::Like("count "));
            }
            3 => {
                client.say(&format!("close {other}"));
                client.awaited.push_back(Answer::Like("closed "));
            }
            _ => {
                let words = format!("{}", client.lines);
                client.say(&format!("say {words}"));
                client.awaited.push_back(Answer::Words(format!("said {words}")));
            }
        }
    }

    /// Somebody goes, in whichever way.
    fn leave(&mut self) {
        let Some(who) = self.somebody() else { return };
        self.note("leaves", who);
        self.clients[who].leaves = true;
        match self.choices.below(3) {
            0 => self.clients[who].say("bye"),
            1 => {
                let client = &mut self.clients[who];
                client.talk.clear();
                let _ = client.stream.shutdown(std::net::Shutdown::Write);
            }
            _ => drop(self.clients.swap_remove(who)),
        }
    }

    /// Clients send, and some of them read.
    fn move_clients(&mut self) -> Result<bool, String> {
        let all = self.choices.once_in(2);
        self.move_those(|choices| all || choices.once_in(2))
    }

    fn move_those(&mut self, reads: impl Fn(&mut Choices) -> bool) -> Result<bool, String> {
        let mut moved = false;
        for client in &mut self.clients {
            moved |= client.move_on(reads(&mut self.choices))?;
        }
        let lost = |it: &Client| it.ended && it.number.is_none() && !it.refused && !it.leaves;
        if !self.book().dying && self.clients.iter().any(lost) {
            return Err("one that had come was neither served nor refused".to_owned());
        }
        self.history.refused += self.clients.iter().filter(|it| it.ended && it.refused).count();
        self.clients.retain(|client| !client.ended);
        Ok(moved)
    }

    /// Runs so many turns of cores that have something to do.
    fn run(&mut self, most: usize) -> Result<bool, String> {
        for turn in 0..most {
            let mut due: Vec<_> = (0..self.handles.len()).collect();
            due.retain(|core| Some(*core) != self.lazy && self.cores.is_due(*core));
            if due.is_empty() {
                return Ok(turn > 0);
            }
            let core = due[self.choices.below(due.len())];
            self.note("turn of", core);
            self.cores.turn(core);
            self.turns += 1;
            if self.turns > MOST_TURNS {
                return Err("the cores are never at rest".to_owned());
            }
            self.must_hold()?;
        }
        Ok(most > 0)
    }

    /// What holds after each turn.
    fn must_hold(&mut self) -> Outcome {
        let mut by_peer = BTreeMap::<_, usize>::new();
        let (open, most) = {
            let book = self.book();
            // Those that stay with a process of before have no place in this one.
            let here = book.open.values().filter(|(_, process, _)| *process == self.process);
            here.for_each(|(_, _, peer)| *by_peer.entry(*peer).or_default() += 1);
            if let Some(complaint) = &book.complaint {
                return Err(complaint.clone());
            }
            (by_peer.values().sum::<usize>(), book.numbers.len())
        };
        if open > self.limits.max_connections.max(self.there) {
            return Err(format!("{open} connections are open"));
        }
        if let Some(most) = self.limits.max_per_peer
            && let Some((peer, count)) =
                by_peer.iter().find(|(peer, count)| **count > most.max(self.there_from(peer)))
        {
            return Err(format!("{count} connections of {peer:?} are open"));
        }
        for (core, handle) in self.handles.iter().enumerate() {
            let waiting = handle.len();
            self.history.held += usize::from(waiting > AHEAD);
            // One line of each connection that was not held back yet, and the end of each.
            if waiting > AHEAD + CROWD + most {
                return Err(format!("{waiting} words wait for core {core}"));
            }
        }
        Ok(())
    }

    /// Runs until nobody has anything left to do.
    fn settle(&mut self) -> Outcome {
        self.lazy = None;
        loop {
            self.move_clients()?;
            if !self.run(usize::MAX)? && !self.move_those(|_| true)? {
                return Ok(());
            }
        }
    }

    /// What holds when nobody has anything left to do.
    fn must_be_settled(&mut self) -> Outcome {
        let book = lock(&self.book);
        for client in &self.clients {
            let lines = client.number.and_then(|number| book.lines.get(&number)).unwrap_or(&0);
            if !client.is_served() || !client.awaited.is_empty() || *lines != client.lines {
                let Client { number, lines: said, awaited, .. } = client;
                return Err(format!("{number:?}: {lines} of {said} lines; waits for {awaited:?}"));
            }
        }
        let served: BTreeSet<_> = self.clients.iter().filter_map(|it| it.number).collect();
        let open: BTreeSet<_> = book.open.keys().copied().collect();
        if served != open {
            return Err(format!("open are {open:?}, and clients have {served:?}"));
        }
        if book.said != book.taken {
            return Err(format!("of the words {:?} arrived {:?}", book.said, book.taken));
        }
        for core in 0..self.handles.len() {
            // One that has taken the place of another has seen that go.
            let room = self.cores.status(core).map(|mut status| status.services.swap_remove(0));
            let listeners = room.map_or(0, |room| room.listeners.len());
            if listeners != 1 {
                return Err(format!("core {core} has {listeners} listeners"));
            }
        }
        let others = self.handles.len() - 1;
        for gone in book.numbers.difference(&open) {
            let heard = book.gone.get(gone).unwrap_or(&0);
            if *heard != others {
                return Err(format!("{heard} of {others} cores heard that {gone} has gone"));
            }
        }
        Ok(())
    }

    /// Many come at once and nobody goes: as many get in as may, not one fewer.
    fn rush(&mut self) -> Outcome {
        // Those that a process of before has let in since take no place here.
        if self.book().open.values().any(|(_, process, _)| *process != self.process) {
            return Ok(());
        }
        let before = self.clients.len();
        self.come(12);
        let (came, refused) = (self.clients.len(), self.history.refused);
        let mut before_by_peer = BTreeMap::new();
        let mut asked = BTreeMap::<_, usize>::new();
        for client in &self.clients[..before] {
            let (_, _, peer) = self.book().open[&client.number.unwrap_or(0)];
            *asked.entry(peer).or_default() += 1;
            before_by_peer.clone_from(&asked);
        }
        for client in &self.clients[before..] {
            let header: Vec<_> = client.talk.iter().copied().collect();
            let header = String::from_utf8_lossy(&header).into_owned();
            let peer = header.split(' ').nth(2).map(|peer| peer.parse().unwrap());
            *asked.entry(peer).or_default() += 1;
        }
        let Limits { max_connections, max_per_peer, .. } = self.limits;
        let most = max_per_peer.unwrap_or(max_connections);
        // Those who were there stay, though they may be more than may come.
        let there = |peer| before_by_peer.get(peer).copied().unwrap_or(0);
        let expected: usize =
            asked.iter().map(|(peer, count)| *count.min(&most).max(&there(peer))).sum();
        self.settle()?;
        let (open, refused) = (self.book().open.len(), self.history.refused - refused);
        if open != expected || refused != came - expected {
            return Err(format!("{came} asked, {expected} were to get in, {open} did"));
        }
        self.must_be_settled()
    }

    /// Some say more to a core than that can take, and nothing else happens: they go on in the end.
    fn press(&mut self) -> Outcome {
        let Some(who) = self.somebody() else { return Ok(()) };
        let to = self.choices.below(self.handles.len());
        self.note("presses", who << 8 | to);
        let flood = FLOODS[usize::from(self.limits.lines_per_turn < 64)];
        for client in self.clients[who..].iter_mut().take(4) {
            (0..flood).for_each(|_| client.say(&format!("tell {to}")));
        }
        self.lazy = Some(to);
        while self.move_clients()? | self.run(100)? {}
        self.settle()?;
        self.must_be_settled()
    }

    /// How many a peer had when the limits were last set.
    fn there_from(&self, peer: &Option<IpAddr>) -> usize {
        self.there_by_peer.get(peer).copied().unwrap_or(0)
    }

    /// Has the cores change something, between two turns of the first one.
    fn change(
        &self,
        change: impl FnOnce(&mut Cores<'static>) -> Result<(), Error> + Send + 'static,
    ) {
        let book = Arc::clone(&self.book);
        let change = move |cores: &mut Cores<'static>| {
            if let Err(error) = change(cores) {
                lock(&book).complain(error.to_string());
            }
        };
        self.remote.post(change).unwrap();
    }

    /// Others hold from now on, and nobody goes for that.
    fn change_limits(&mut self) -> Outcome {
        let most = self.choices.one_of(&[1, 2, 4, 9, 25]);
        let limits = match self.proxied {
            true => Limits { max_per_peer: (most < 25).then_some(most), ..self.limits.clone() },
            false => Limits { max_connections: most, ..self.limits.clone() },
        };
        let limits = Limits { lines_per_turn: self.choices.one_of(&[1, 3, 64, 1024]), ..limits };
        self.note("most are", most);
        let book = lock(&self.book);
        self.there = book.open.len();
        self.there_by_peer.clear();
        for (_, _, peer) in book.open.values() {
            *self.there_by_peer.entry(*peer).or_default() += 1;
        }
        drop(book);
        self.limits = limits.clone();
        let room = Arc::clone(&self.room);
        self.change(move |cores| cores.set_limits(&room, limits));
        self.settle()?;
        self.must_be_settled()
    }

    /// The listener goes and another one comes in its place, or it takes the same rules again, whoever is
    /// on the way.
    fn move_entrance(&mut self) {
        let (room, anew) = (Arc::clone(&self.room), self.choices.once_in(2));
        self.note("another entrance", usize::from(anew));
        let (path, proxied) = (self.folder.file("room"), self.proxied);
        self.change(move |cores| {
            let listen = at(&path, proxied);
            if !anew {
                return cores.rebind(&room, listen);
            }
            cores.unbind(&room, &Address::Unix(path))?;
            cores.bind(&room, listen).map(drop)
        });
    }

    /// The cores of another process go on with all that these have, whatever is under way. Or they end before
    /// they do, and these go on.
    fn upgrade(&mut self) -> Outcome {
        // Who is in the middle of a header stays, and is served for other limits. The guest would have to go.
        let arriving = self.proxied && self.clients.iter().any(|it| it.number.is_none());
        if arriving || self.visitor.is_some() {
            return Ok(());
        }
        let (fails, process) = (self.choices.once_in(4), self.process + 1);
        self.note("upgrade", usize::from(fails));
        let (listen, limits) = (at(&self.folder.file("room"), self.proxied), self.limits.clone());
        let book = Arc::clone(&self.book);
        let begun = self.cores.upgrade(SHUTDOWN, |cores| {
            if fails {
                // Its book is its own.
                open_room(cores, listen, limits, 0, &Arc::default())?;
                return Err(Error::ShuttingDown);
            }
            Ok((open_room(cores, listen, limits, process, &book)?, cores.remote()))
        });
        match begun {
            Ok((room, remote)) => {
                self.handles = room.handles().to_vec();
                (self.room, self.remote, self.process) = (Arc::new(room), remote, process);
                self.history.upgrades += 1;
                self.must_hold()
            }
            Err(Error::ShuttingDown) if fails => self.must_hold(),
            Err(error) => Err(format!("no upgrade: {error}")),
        }
    }

    /// Another service comes, on all cores; or it goes, and whoever is there is told so.
    fn come_or_go(&mut self) -> Outcome {
        let path = self.folder.file("guest");
        let (guest, comes) = (Arc::clone(&self.guest), self.visitor.is_none());
        self.deaf = if comes { self.choices.once_in(2) } else { self.deaf };
        self.note("guest", usize::from(comes) << 1 | usize::from(self.deaf));
        let behind = if self.deaf { DEAFENING } else { 0 };
        self.change(move |cores| {
            let mut guest = guest.lock().unwrap_or_else(PoisonError::into_inner);
            match guest.take() {
                Some(service) => cores.remove(&service),
                None => {
                    let hello = move |_| {
                        Callbacks::new().on_connection(move |cx| {
                            cx.send("hello\n");
                            cx.send(vec![b'x'; behind]);
                        })
                    };
                    *guest = Some(cores.listen(path.as_path(), hello)?);
                    Ok(())
                }
            }
        });
        self.settle()?;
        match self.visitor.take() {
            None => self.visit()?,
            Some(visitor) => self.must_go(visitor)?,
        }
        self.must_be_settled()
    }

    /// Somebody comes to the guest.
    fn visit(&mut self) -> Outcome {
        let visitor = UnixStream::connect(self.folder.file("guest"));
        let mut visitor = visitor.map_err(|error| format!("no guest: {error}"))?;
        visitor.set_nonblocking(true).unwrap();
        self.settle()?;
        match visitor.read(&mut [0; 6]) {
            Ok(6) => self.visitor = Some(visitor),
            outcome => return Err(format!("the guest says {outcome:?}")),
        }
        Ok(())
    }

    /// The guest goes: at once from all cores where nobody is, from the one with the visitor when that has
    /// gone. If it does not take what it is sent, it is cut off when its time is over.
    fn must_go(&mut self, mut visitor: UnixStream) -> Outcome {
        if self.deaf {
            self.must_have_left(1)?;
            self.cores.advance(SHUTDOWN);
        } else if !matches!(visitor.read(&mut [0]), Ok(0)) {
            return Err("the guest is still here".to_owned());
        } else {
            drop(visitor);
        }
        self.settle()?;
        self.must_have_left(0)
    }

    /// The guest is on so many cores still.
    fn must_have_left(&self, still: usize) -> Outcome {
        let cores = 0..self.handles.len();
        let services = cores.map(|core| self.cores.status(core).map_or(0, |it| it.services.len()));
        let services: Vec<_> = services.collect();
        match services.iter().sum::<usize>() == self.handles.len() + still {
            true => Ok(()),
            false => Err(format!("the cores have {services:?} services")),
        }
    }

    /// The end of all cores, asked for in the middle of whatever goes on.
    fn die(&mut self) -> Outcome {
        let cores = self.handles.len();
        (self.book().dying, self.visitor) = (true, None);
        for _ in 0..self.choices.below(8) {
            self.talk();
            self.move_clients()?;
            self.lazy = Some(self.choices.below(cores));
            self.run(20)?;
        }
        self.lazy = None;
        self.come(3);
        let (core, how) = (self.choices.below(cores), self.choices.below(3));
        let said = self.book().said.clone();
        self.note("the end of", core << 2 | how);
        match how {
            0 => self.handles[core].stop(),
            1 => {
                let served = self.clients.iter_mut().filter(|client| client.is_served());
                served.for_each(|client| client.say("stop"));
            }
            _ => self.cores.fail(core),
        }
        let failed = (how == 2).then_some(core);
        for round in 0..400 {
            if self.cores.exit().is_some() {
                return self.must_have_ended(failed, &said);
            }
            self.move_clients()?;
            self.run(1000)?;
            self.cores.advance(Duration::from_millis(50));
            if how == 1 && round == 100 {
                // Nobody is there who could say it.
                self.handles[core].stop();
            }
        }
        Err("there is no end".to_owned())
    }

    fn must_have_ended(&mut self, failed: Option<usize>, said: &[Vec<u64>]) -> Outcome {
        match (self.cores.exit(), failed) {
            (Some(Ok(Exit::Clean)), None) => {}
            (Some(Err(Error::Core { core, .. })), Some(failed)) if *core == failed => {}
            (exit, _) => return Err(format!("it ended with {exit:?}")),
        }
        let book = lock(&self.book);
        let base = self.process * self.handles.len();
        for core in (0..self.handles.len()).filter(|core| Some(*core) != failed) {
            let core = base + core;
            if book.shut[core] != 1 {
                return Err(format!("core {core} was told {} times of the end", book.shut[core]));
            }
            for (from, said) in said.iter().enumerate() {
                let (said, taken) = (said[core], book.taken[from][core]);
                if taken < said {
                    return Err(format!("core {core} took {taken} of {said} words of core {from}"));
                }
            }
        }
        let left = book.open.values().find(|(core, _, _)| Some(*core) != failed);
        left.map_or(Ok(()), |(core, _, _)| Err(format!("core {core} has not closed everybody")))
    }
}
