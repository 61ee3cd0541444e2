//! Three servers, their clients, a Redis, and what befalls them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use reactor::services::room::bus::{Action, Bus, Event, News, Told};
use reactor::services::room::{Demand, Failure, Link, Reply, Room, ServerId, Settings};

use super::aims::Aim;
use super::network::Connection;
use super::oracle::{Oracle, number_of};
use super::redis::{Data, Redis};

#[path = "faults.rs"]
mod faults;

pub use faults::Fault;

const SERVERS: usize = 3;
/// More events than that are a loop that spins.
const MOST_EVENTS: u64 = 400_000;
/// When Redis's clock begins.
const EPOCH: u64 = 1_700_000_000_000;

/// By when all servers have joined, in worlds that are aimed at what befalls them then.
const FIRST: u64 = 7_000;
/// How much is said at once.
const PIECE: usize = 64 << 10;
/// How long a lease is missing at least before somebody says that its server is gone.
const HALF_A_LEASE: u64 = 5_000;
/// How long after it has been there again that may still come to Redis.
const DECIDED: u64 = 6_000;

/// A server: a process, or the time when the next one starts.
struct Server {
    room: Option<Room>,
    process: usize,
    /// It does nothing before then.
    frozen: u64,
    /// Nothing that it dials is there before then.
    apart: u64,
    starts: u64,
    /// Its clients: by their numbers, which listener each is.
    clients: BTreeMap<u64, usize>,
    held: Vec<u64>,
    /// What it dials, and when that is decided.
    dialled: Vec<(u64, Link)>,
    /// Connections that were reset while it was frozen.
    lost: Vec<Link>,
    /// When it tells the room that all has left.
    drained: Option<u64>,
    /// It is to stop, and its clients are gone.
    stopping: bool,
}

/// What is to be seen of a process's lease.
#[derive(Default)]
struct Lease {
    process: usize,
    /// When it was there last.
    there: u64,
    /// When it had last been missing for so long that the others may take the process for gone.
    ran_out: Option<u64>,
    /// The process says itself that it is gone, or has been killed.
    over: bool,
    /// It says so itself.
    stops: bool,
    /// It had not come yet when it was told to: nobody in the room knows anybody of it.
    unknown: bool,
    /// The lives of which it was written that they are gone.
    gone: BTreeSet<String>,
}

pub struct World {
    aim: Aim,
    random: fastrand::Rng,
    pub trace: bool,
    base: Instant,
    now: u64,
    redis: Redis,
    redis_frozen: u64,
    wrong_password: u64,
    memory_back: u64,
    /// Older states of Redis.
    saved: Vec<Data>,
    next_save: u64,
    servers: Vec<Server>,
    connections: Vec<Connection>,
    pub oracle: Oracle,
    faults: Vec<Fault>,
    next_fault: u64,
    next_deed: u64,
    members: u64,
    processes: usize,
    /// How many bytes have been said in this call.
    piece: usize,
    /// The lease of each process, by its server's id.
    leases: BTreeMap<String, Lease>,
    /// Milliseconds between a server and Redis, at the most.
    slow: u64,
    events: u64,
    pub digest: u64,
    /// Until when clients talk and faults happen.
    trouble: u64,
    /// Whatever takes its way to Redis or back takes longer before then.
    slow_until: u64,
    /// Commands that have come to Redis, and answers that have come back.
    pub places: u64,
    /// When a wrong password was last tried.
    tried: BTreeMap<(usize, bool), u64>,
    /// How often each thing has happened.
    pub seen: BTreeMap<&'static str, u64>,
}

impl World {
    /// A world that is aimed at something, or like any other.
    pub fn new(seed: u64, aim: Option<Aim>, trace: bool) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let aim = aim.unwrap_or_else(|| Aim::any(&mut random));
        let faults = aim.faults.clone();
        let slow = [2, 20, 300][random.usize(..3)];
        let mut world = World {
            random,
            trace,
            base: Instant::now(),
            now: 0,
            redis: Redis::at(EPOCH),
            redis_frozen: 0,
            wrong_password: 0,
            memory_back: 0,
            saved: vec![Data::default()],
            next_save: 2_000,
            servers: Vec::new(),
            connections: Vec::new(),
            oracle: Oracle::new(aim.unique_names),
            faults,
            next_fault: if aim.time.is_some() { FIRST } else { 3_000 },
            next_deed: 0,
            members: 0,
            processes: 0,
            piece: 0,
            leases: BTreeMap::new(),
            slow,
            events: 0,
            digest: 0,
            trouble: aim.trouble,
            slow_until: 0,
            places: 0,
            tried: BTreeMap::new(),
            seen: BTreeMap::new(),
            aim,
        };
        for number in 0..SERVERS {
            let starts = world.random.u64(..2_000) * number as u64;
            world.servers.push(Server {
                room: None,
                process: 0,
                frozen: 0,
                apart: 0,
                starts,
                clients: BTreeMap::new(),
                held: Vec::new(),
                dialled: Vec::new(),
                lost: Vec::new(),
                drained: None,
                stopping: false,
            });
        }
        world
    }

    fn instant(&self) -> Instant {
        self.base + Duration::from_millis(self.now)
    }

    fn latency(&mut self) -> u64 {
        let more = if self.slow_until > self.now { self.random.u64(300..1_400) } else { 0 };
        self.random.u64(..=self.slow) + more
    }

    pub fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// One more place at which a connection can be cut; whether it is.
    fn is_cut_here(&mut self, at: usize) -> bool {
        self.places += 1;
        let cut = self.aim.cut_at == Some(self.places);
        if cut {
            self.note(|| "---- cut".to_owned());
            self.reset(at, false);
        }
        cut
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>7} {}", self.now, what());
        }
    }

    /// From the beginning until all has been quiet; what was broken.
    pub fn live(&mut self) -> Result<(), String> {
        while self.now < self.trouble + self.aim.peace {
            self.events += 1;
            if self.events > MOST_EVENTS {
                return Err(format!("it spins at {} ms", self.now));
            }
            let due = self.next_due();
            if due > self.now {
                self.redis.clock += due - self.now;
                self.now = due;
                self.oracle.now = due;
            }
            self.digest =
                self.digest.wrapping_mul(31).wrapping_add(self.now ^ self.oracle.deliveries);
            self.step();
            if let Some(complaint) = self.oracle.complaint.take() {
                return Err(format!("after {} ms: {complaint}", self.now));
            }
        }
        self.conclude();
        let always = self.aim.always.iter().filter(|it| !self.seen.contains_key(**it));
        if let Some(what) = always.copied().next() {
            self.oracle.complain(format!("{what:?} must happen here"));
        }
        let never = self.aim.never.iter().filter(|it| self.seen.contains_key(**it));
        if let Some(what) = never.copied().next() {
            self.oracle.complain(format!("{what:?} must not happen here"));
        }
        self.oracle.complaint.take().map_or(Ok(()), Err)
    }

    fn conclude(&mut self) {
        let mut lists = Vec::new();
        for number in 0..SERVERS {
            // Somebody asks, whom nobody else has heard of.
            let whole = self.servers[number].room.as_ref().is_some_and(Room::is_whole);
            if !whole {
                let room = &self.servers[number].room;
                let complaint = format!("server {number} is not whole again: {room:#?}");
                return self.oracle.complain(complaint);
            }
            lists.extend(self.servers[number].room.as_mut().map(Room::list));
        }
        if let Some(number) = (0..SERVERS).find(|it| !self.servers[*it].held.is_empty()) {
            self.oracle.complain(format!("somebody at server {number} is still held"));
        }
        // Old states may list servers that everybody knows to be gone.
        let listed = self.redis.members_of("room:servers");
        if !self.seen.contains_key(Fault::DATA_LOST) && listed.len() != SERVERS {
            self.oracle.complain(format!("listed are the lives {listed:?}"));
        }
        let records = self.redis.keys_below("room:members:");
        if let Some(record) = records.iter().find(|record| !listed.contains(record)) {
            self.oracle.complain(format!("nobody will ever delete the record of {record}"));
        }
        let bytes = self.redis.bytes();
        // What was there before a server came it can only guess the half of.
        if bytes > 2 * self.aim.keep + self.aim.keep / 16 + (8 << 10) {
            self.oracle.complain(format!("the stream has {bytes} bytes"));
        }
        // Two rooms that were apart may have two of one name.
        let apart =
            ["cut off", "missing", "gone: alive"].iter().any(|it| self.seen.contains_key(it));
        if self.aim.unique_names && !apart {
            self.oracle.names_are_unique(&lists[0]);
        }
        self.oracle.concludes(&lists);
        if self.aim.last_in_who {
            self.oracle.who_was_gone_comes_last(&lists[0]);
        }
    }

    /// When the next thing happens.
    fn next_due(&self) -> u64 {
        let mut due = self.trouble + self.aim.peace;
        if self.now < self.trouble {
            due = due.min(self.next_fault).min(self.next_deed).min(self.next_save);
        }
        for connection in &self.connections {
            due = due.min(connection.redis_due().map_or(due, |at| at.max(self.redis_frozen)));
            let frozen = self.servers[connection.server].frozen;
            due = due.min(connection.server_due().map_or(due, |at| at.max(frozen)));
        }
        for server in &self.servers {
            let Some(room) = &server.room else {
                due = due.min(server.starts);
                continue;
            };
            let deadline = room.deadline().unwrap();
            let deadline = deadline.duration_since(self.base).as_micros().div_ceil(1000) as u64;
            let dialled = server.dialled.iter().map(|(at, _)| *at).min().unwrap_or(due);
            let lost = if server.lost.is_empty() { due } else { 0 };
            let soonest = deadline.min(lost).min(dialled).min(server.drained.unwrap_or(due));
            due = due.min(soonest.max(server.frozen));
        }
        due
    }

    /// One thing of those that are due.
    fn step(&mut self) {
        if self.memory_back <= self.now {
            self.redis.out_of_memory = false;
        }
        if self.now < self.trouble && self.next_save <= self.now {
            self.saved.push(self.redis.data.clone());
            self.next_save = self.now + 2_000;
        }
        if self.now < self.trouble && self.next_fault <= self.now {
            let before = self.aim.time.map_or(0, |time| time + HALF_A_LEASE);
            self.next_fault = self.now + before + self.random.u64(200..self.aim.pause);
            self.befall();
        }
        if self.now < self.trouble && self.next_deed <= self.now {
            self.next_deed = self.now + self.random.u64(5..400);
            self.deed();
        }
        self.watch_leases();
        for number in 0..SERVERS {
            self.server_step(number);
        }
        let mut order: Vec<_> = (0..self.connections.len()).collect();
        self.random.shuffle(&mut order);
        for at in order {
            self.redis_step(at);
        }
        let mut order: Vec<_> = (0..self.connections.len()).collect();
        self.random.shuffle(&mut order);
        for at in order {
            self.deliver(at);
        }
        self.connections.retain(|it| !it.dropped || !it.to_redis.is_empty());
    }

    fn lease_of(&mut self, process: usize) -> &mut Lease {
        self.leases.values_mut().find(|lease| lease.process == process).unwrap()
    }

    fn watch_leases(&mut self) {
        for (id, lease) in &mut self.leases {
            if self.redis.has(&format!("room:lease:{id}")) {
                lease.there = self.now;
            } else if self.now >= lease.there + HALF_A_LEASE {
                lease.ran_out = Some(self.now);
            }
        }
    }

    /// It was written that a server is gone: its lease must have run out shortly before.
    fn gone(&mut self, id: &str, life: String) {
        let Some(lease) = self.leases.get_mut(id) else { return };
        *self.oracle.gone.entry(lease.process).or_default() += 1;
        self.oracle.was_gone.insert(lease.process, self.oracle.listeners.len());
        let itself = lease.stops && self.now < lease.there + HALF_A_LEASE;
        let how = match lease.over {
            _ if itself => "gone: it says so",
            true if lease.unknown => "gone: before it had come",
            true => "gone: ended",
            false => "gone: alive",
        };
        *self.seen.entry(how).or_default() += 1;
        let just = lease.ran_out.is_some_and(|at| at + DECIDED > self.now);
        // Whoever was killed stays for as long as who is silent.
        let excused = lease.stops || lease.over && self.aim.time.is_none();
        // Who says it again of a life that is gone, because it was frozen meanwhile, tells nobody anything.
        let first = lease.gone.insert(life);
        if first && !just && !excused {
            let (process, there) = (lease.process, lease.there);
            let complaint = format!("process {process} is gone, its lease was there at {there} ms");
            self.oracle.complain(complaint);
        }
    }

    /// Which lines were written, and which were lost.
    fn watch_lines(&mut self) {
        for said in std::mem::take(&mut self.redis.said) {
            number_of(&said).into_iter().for_each(|number| self.oracle.is_written(number));
        }
        for lost in std::mem::take(&mut self.redis.lost) {
            number_of(&lost).into_iter().for_each(|number| self.oracle.is_lost(number));
        }
    }

    /// Redis executes one command of a connection, or looks whether a read may go on.
    fn redis_step(&mut self, at: usize) {
        if self.redis_frozen > self.now {
            return;
        }
        let latency = self.latency();
        let connection = &mut self.connections[at];
        let (reply, command) = if let Some((until, command)) = connection.blocked.take() {
            let reply = self.redis.execute(&mut connection.client, &command);
            if reply.is_none() && until > self.now {
                connection.blocked = Some((until, command));
                return;
            }
            (Some(reply.unwrap_or(Reply::Nil)), command)
        } else if connection.redis_due().is_some_and(|due| due <= self.now) {
            let (_, command) = connection.to_redis.pop_front().unwrap();
            if self.is_cut_here(at) {
                return;
            }
            let connection = &mut self.connections[at];
            (self.redis.execute(&mut connection.client, &command), command)
        } else {
            return;
        };
        for (id, life) in std::mem::take(&mut self.redis.gone) {
            self.gone(&id, life);
        }
        self.watch_lines();
        let connection = &mut self.connections[at];
        match reply {
            Some(Reply::Error(error)) if error.starts_with("OOM") => {
                connection.answer(Reply::Error(error), self.now + latency);
                self.saw("refused: no memory");
            }
            Some(reply) => connection.answer(reply, self.now + latency),
            None => connection.blocked = Some((self.now + 1_000, command)),
        }
    }

    /// Answers come to a server.
    fn deliver(&mut self, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else { return };
        let (number, link) = (connection.server, connection.link);
        let due = connection.server_due().is_some_and(|due| due <= self.now);
        if !due || connection.dropped || self.servers[number].frozen > self.now {
            return;
        }
        let (_, replies) = connection.to_server.pop_front().unwrap();
        if self.is_cut_here(at) {
            return;
        }
        self.note(|| format!("server {number} {link:?} <- {}", brief(&shown(&replies))));
        self.with(number, |room, now| room.replies(link, &replies, now));
    }

    /// Something is told to a room, and what it asks for is done.
    fn with(&mut self, number: usize, tell: impl FnOnce(&mut Room, Instant)) {
        let now = self.instant();
        let Some(room) = &mut self.servers[number].room else { return };
        tell(room, now);
        self.piece = 0;
        loop {
            let Some(room) = &mut self.servers[number].room else { return };
            if let Some(action) = room.poll() {
                self.act(number, action);
            } else if let Some(demand) = room.poll_redis() {
                self.meet(number, demand);
            } else {
                break;
            }
        }
        if self.piece >= PIECE + self.aim.padding + 4_000 {
            self.oracle.complain(format!("server {number} says {} bytes at once", self.piece));
        }
    }

    fn meet(&mut self, number: usize, demand: Demand) {
        match demand {
            Demand::Connect(link) => {
                let at = self.now + self.latency();
                self.servers[number].dialled.push((at, link));
            }
            Demand::Disconnect(link) => {
                self.servers[number].dialled.retain(|(_, it)| *it != link);
                self.drop_connection(number, link);
            }
            Demand::Send(link, commands) => self.send(number, link, commands),
            Demand::Stopped => {
                self.note(|| format!("server {number} has stopped"));
                self.end_process(number);
            }
        }
    }

    fn act(&mut self, number: usize, action: Action) {
        match action {
            Action::ToAll { news, .. } => self.say(number, None, &news),
            Action::ToOthers(but, news) => self.say(number, Some(but), &news),
            Action::To(member, told) => {
                if matches!(told, Told::NameTaken(_)) {
                    self.saw("a name is taken");
                }
                self.note(|| format!("server {number} to {member}: {told:?}"));
                if let Some(listener) = self.servers[number].clients.get(&member) {
                    self.oracle.told(*listener, &told);
                }
            }
            Action::Hold(member) => {
                self.saw("held");
                self.servers[number].held.push(member);
            }
            Action::Release(member) => self.servers[number].held.retain(|it| *it != member),
            Action::Drain => {
                // Or somebody does not take it, and the time has to pass.
                let takes = self.random.bool();
                self.saw("a piece");
                self.servers[number].drained = takes.then(|| self.now + self.random.u64(..60));
            }
        }
    }

    fn say(&mut self, number: usize, but: Option<u64>, news: &News) {
        self.note(|| format!("server {number}: {news:?}"));
        match news {
            News::Missing => self.saw("missing"),
            News::CutOff => self.saw("cut off"),
            News::Whole => self.saw("whole"),
            News::SaidElsewhere(_) => self.saw("said elsewhere"),
            _ => {}
        }
        let server = &self.servers[number];
        if let News::Said { text, .. } = news {
            self.piece += text.len();
            let cut = server.room.as_ref().is_some_and(Room::is_cut_off);
            if let Some(said) = number_of(text) {
                self.oracle.is_read(said, server.process);
                if cut {
                    self.oracle.said_at_a_cut(said, server.process);
                }
            }
        }
        for (member, listener) in server.clients.clone() {
            if Some(member) != but {
                self.oracle.hears(listener, news);
            }
        }
    }

    fn send(&mut self, number: usize, link: Link, commands: Vec<super::redis::Command>) {
        let arrives = self.now + self.latency();
        self.note(|| {
            let words = commands.iter().map(|command| {
                command
                    .iter()
                    .map(|word| String::from_utf8_lossy(word))
                    .collect::<Vec<_>>()
                    .join(" ")
            });
            format!("server {number} {link:?} -> {}", brief(&words.collect::<Vec<_>>().join("; ")))
        });
        if self.servers[number].lost.contains(&link) {
            // It was reset while the server was frozen.
            return;
        }
        let connection = self.connections.iter_mut();
        let mut connection = connection.filter(|it| it.server == number && it.link == link);
        let Some(connection) = connection.find(|it| !it.dropped) else {
            return self.oracle.complain(format!("server {number} has no {link:?} to send on"));
        };
        if !connection.requests.is_empty() {
            self.oracle.complain(format!("server {number} {link:?} sends before it is answered"));
        }
        let arrives = connection.to_redis.back().map_or(arrives, |(last, _)| arrives.max(*last));
        for command in &commands {
            if command[0] == b"XTRIM" {
                *self.seen.entry("trimmed by size").or_default() += 1;
            }
        }
        connection.requests.push_back(commands.len());
        connection.to_redis.extend(commands.into_iter().map(|command| (arrives, command)));
    }

    /// A server drops a connection: what is under way may never come to Redis, or come there late.
    fn drop_connection(&mut self, number: usize, link: Link) {
        for connection in &mut self.connections {
            if connection.server != number || connection.link != link || connection.dropped {
                continue;
            }
            connection.dropped = true;
            connection.to_server.clear();
            connection.blocked = None;
            let comes = self.random.usize(..=connection.to_redis.len());
            let comes = if self.random.bool() { connection.to_redis.len() } else { comes };
            connection.to_redis.truncate(comes);
            let late = self.random.u64(..8_000);
            connection.stalled = connection.stalled.max(self.now) + late;
        }
    }

    fn server_step(&mut self, number: usize) {
        if self.servers[number].room.is_none() {
            if self.servers[number].starts <= self.now {
                self.start(number);
            }
            return;
        }
        if self.servers[number].frozen > self.now {
            return;
        }
        while let Some(link) = self.servers[number].lost.last().copied() {
            self.with(number, |room, now| room.lost(link, Failure::Other, now));
            self.servers[number].lost.pop();
        }
        let now = self.now;
        let dialled = &mut self.servers[number].dialled;
        if let Some(at) = dialled.iter().position(|(due, _)| *due <= now) {
            let (_, link) = dialled.remove(at);
            self.dials(number, link);
        }
        if self.servers[number].drained.is_some_and(|due| due <= now) {
            self.servers[number].drained = None;
            self.with(number, Room::drained);
        }
        if self.servers[number]
            .room
            .as_ref()
            .and_then(Room::deadline)
            .is_some_and(|at| at <= self.instant())
        {
            self.with(number, Room::tick);
        }
    }

    fn dials(&mut self, number: usize, link: Link) {
        let before = self.tried.remove(&(number, link == Link::Reader));
        if self.wrong_password > self.now {
            self.saw("a wrong password");
            self.tried.insert((number, link == Link::Reader), self.now);
            if before.is_some_and(|before| self.now < before + 30_000) {
                self.oracle.complain(format!("server {number} tries a wrong password too soon"));
            }
            self.note(|| format!("server {number} {link:?}: wrong password"));
            return self.with(number, |room, now| room.lost(link, Failure::Password, now));
        }
        let at = self.redis_frozen.max(self.servers[number].apart);
        if at > self.now {
            return self.servers[number].dialled.push((at, link));
        }
        self.note(|| format!("server {number} {link:?} is connected"));
        self.connections.push(Connection::new(number, link));
        self.with(number, |room, now| room.connected(link, now));
    }

    fn settings(&self) -> Settings {
        let (keep, unique_names) = (self.aim.keep, self.aim.unique_names);
        Settings { key: "room".to_owned(), keep, unique_names, ..Settings::default() }
    }

    fn start(&mut self, number: usize) {
        self.processes += 1;
        let id = ServerId(self.random.u128(..));
        let settings = self.settings();
        let lease = Lease { process: self.processes, there: self.now, ..Lease::default() };
        self.leases.insert(id.to_string(), lease);
        let server = &mut self.servers[number];
        server.room = Some(Room::new(settings, id, self.base + Duration::from_millis(self.now)));
        (server.process, server.stopping) = (self.processes, false);
        self.note(|| format!("server {number} starts as {id}"));
        self.with(number, Room::tick);
    }

    /// A process is no more: its clients are gone, its connections dropped.
    fn end_process(&mut self, number: usize) {
        for (_, listener) in std::mem::take(&mut self.servers[number].clients) {
            let listener = &mut self.oracle.listeners[listener];
            listener.gone = true;
            self.oracle.left.insert(listener.name.clone());
        }
        let process = self.servers[number].process;
        if !(self.servers[number].stopping && self.aim.gentle) {
            self.oracle.killed.insert(process);
        }
        self.lease_of(process).over = true;
        self.drop_connection(number, Link::Commands);
        self.drop_connection(number, Link::Reader);
        let starts = self.now + self.random.u64(100..9_000);
        let server = &mut self.servers[number];
        (server.room, server.starts, server.frozen, server.drained) = (None, starts, 0, None);
        server.dialled.clear();
        server.lost.clear();
        server.held.clear();
        self.tried.retain(|(of, _), _| *of != number);
    }

    /// Redis drops its connections.
    fn drop_all(&mut self) {
        for at in (0..self.connections.len()).rev() {
            self.reset(at, false);
        }
    }

    /// A connection is reset; what was under way to Redis may still be executed.
    fn reset(&mut self, at: usize, may_come: bool) {
        let connection = &mut self.connections[at];
        let (number, link, dropped) = (connection.server, connection.link, connection.dropped);
        if !may_come {
            connection.to_redis.clear();
        }
        if dropped {
            return;
        }
        self.drop_connection(number, link);
        if self.servers[number].frozen > self.now {
            self.servers[number].lost.push(link);
        } else {
            self.with(number, |room, now| room.lost(link, Failure::Other, now));
        }
    }

    /// Somebody does something.
    fn deed(&mut self) {
        let number = self.random.usize(..SERVERS);
        let server = &self.servers[number];
        if server.room.is_none() || server.frozen > self.now || server.stopping {
            return;
        }
        let clients: Vec<_> = server.clients.keys().copied().collect();
        let member =
            if clients.is_empty() { 0 } else { clients[self.random.usize(..clients.len())] };
        match self.random.usize(..20) {
            0..3 if clients.len() < 6 => self.arrive(number),
            _ if clients.is_empty() => {}
            3 if self.random.bool() => self.leave(number, member),
            5 if self.aim.unique_names => {
                let name = format!("m{}", self.random.u8(..6));
                self.does(number, member, Event::Hello(Some(name)));
            }
            4 if !self.servers[number].held.contains(&member) => {
                self.does(number, member, Event::Who);
            }
            _ => {
                for _ in 0..self.random.usize(1..=self.aim.burst) {
                    if self.servers[number].held.contains(&member) {
                        return;
                    }
                    self.says(number, member);
                }
            }
        }
    }

    fn does(&mut self, number: usize, member: u64, event: Event) {
        self.with(number, |room, now| room.event(member, event, now));
    }

    /// A client says something; the text is made up.
    pub fn says(&mut self, number: usize, member: u64) {
        let said = self.oracle.says(self.servers[number].clients[&member], self.aim.padding);
        let text = format!("t{said}{}", " ".repeat(self.aim.padding));
        self.does(number, member, Event::Say(text));
    }

    fn arrive(&mut self, number: usize) {
        self.members += 1;
        let some = if self.aim.unique_names { self.members % 6 } else { self.members };
        let (member, name) = (self.members, format!("m{some}"));
        let listener = self.oracle.arrives(&name, self.servers[number].process);
        self.servers[number].clients.insert(member, listener);
        self.note(|| format!("server {number}: {name} arrives"));
        for event in [Event::Arrive, Event::Hello(Some(name)), Event::Who] {
            self.does(number, member, event);
        }
    }

    fn leave(&mut self, number: usize, member: u64) {
        let listener = self.servers[number].clients.remove(&member).unwrap();
        let listener = &mut self.oracle.listeners[listener];
        listener.gone = true;
        let name = listener.name.clone();
        self.oracle.left.insert(name.clone());
        self.note(|| format!("server {number}: {name} leaves"));
        if self.random.bool() {
            self.does(number, member, Event::Bye);
        }
        self.does(number, member, Event::Leave);
        // Also for what it has just said.
        self.servers[number].held.retain(|it| *it != member);
    }
}

/// So much of a line as one wants to read.
fn brief(line: &str) -> String {
    line.chars().take(1500).collect()
}

/// Answers as redis-cli might show them, in one line.
fn shown(replies: &[Reply]) -> String {
    let one = |reply: &Reply| match reply {
        Reply::Nil => "nil".to_owned(),
        Reply::Status(text) | Reply::Error(text) => text.clone(),
        Reply::Integer(number) => number.to_string(),
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Array(parts) => format!("[{}]", shown(parts)),
    };
    replies.iter().map(one).collect::<Vec<_>>().join(" ")
}
