//! Three servers, their clients, a Redis, and what befalls them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reactor::services::room::bus::{Action, Bus, Event, News};
use reactor::services::room::{Demand, Failure, Link, Reply, Room, ServerId, Settings};

use super::aims::Aim;
use super::network::Connection;
use super::oracle::{Oracle, number_of};
use super::redis::{Data, Redis};

const SERVERS: usize = 3;
/// Milliseconds in which clients talk and faults happen.
const TROUBLE: u64 = 40_000;
/// Milliseconds after which all must be well again: a wrong password is tried again after 30 s.
const PEACE: u64 = 75_000;
/// More events than that are a loop that spins.
const MOST_EVENTS: u64 = 400_000;
/// When Redis's clock begins.
const EPOCH: u64 = 1_700_000_000_000;

/// How much is said at once.
const PIECE: usize = 64 << 10;
/// How long a lease is missing at least before somebody says that its server is gone.
const HALF_A_LEASE: u64 = 5_000;
/// How long after it has been there again that may still come to Redis.
const DECIDED: u64 = 6_000;

/// What may befall a world, by the sort of seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    RedisFrozen,
    LinkCut,
    ServerFrozen,
    Partition,
    Killed,
    DataLost,
    Trimmed,
    OutOfMemory,
    Password,
    Stopped,
}

const ALL: &[Fault] = &[
    Fault::RedisFrozen,
    Fault::LinkCut,
    Fault::ServerFrozen,
    Fault::Partition,
    Fault::Killed,
    Fault::DataLost,
    Fault::Trimmed,
    Fault::OutOfMemory,
    Fault::Password,
    Fault::Stopped,
];

/// A server: a process, or the time when the next one starts.
struct Server {
    room: Option<Room>,
    process: usize,
    /// It does nothing before then.
    frozen: u64,
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
    pub happened: u64,
}

impl World {
    pub fn new(seed: u64, aim: Aim, trace: bool) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let faults = match random.usize(..12) {
            0 => vec![],
            1 => vec![Fault::RedisFrozen, Fault::LinkCut, Fault::OutOfMemory],
            2 => vec![Fault::DataLost],
            3 => vec![Fault::LinkCut],
            4..8 => (0..2).map(|_| ALL[random.usize(..ALL.len())]).collect(),
            _ => ALL.to_vec(),
        };
        let faults = aim.faults.clone().unwrap_or(faults);
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
            next_fault: 3_000,
            next_deed: 0,
            members: 0,
            processes: 0,
            piece: 0,
            leases: BTreeMap::new(),
            slow,
            events: 0,
            digest: 0,
            happened: 0,
            aim,
        };
        for number in 0..SERVERS {
            let starts = world.random.u64(..2_000) * number as u64;
            world.servers.push(Server {
                room: None,
                process: 0,
                frozen: 0,
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
        self.random.u64(..=self.slow)
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>7} {}", self.now, what());
        }
    }

    /// From the beginning until all has been quiet; what was broken.
    pub fn live(&mut self) -> Result<(), String> {
        while self.now < TROUBLE + PEACE {
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
        let bytes = self.redis.bytes();
        // What is kept, and three of the strides in which is cut.
        if bytes > self.aim.keep + (3 << 20) {
            self.oracle.complain(format!("the stream has {bytes} bytes"));
        }
        if self.aim.unique_names {
            self.oracle.names_are_unique(&lists[0]);
        }
        self.oracle.concludes(&lists);
    }

    /// When the next thing happens.
    fn next_due(&self) -> u64 {
        let mut due = TROUBLE + PEACE;
        if self.now < TROUBLE {
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
        if self.now < TROUBLE && self.next_save <= self.now {
            self.saved.push(self.redis.data.clone());
            self.next_save = self.now + 2_000;
        }
        if self.now < TROUBLE && self.next_fault <= self.now {
            self.next_fault = self.now + self.random.u64(200..8_000);
            self.befall();
        }
        if self.now < TROUBLE && self.next_deed <= self.now {
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
    fn gone(&mut self, id: &str) {
        let Some(lease) = self.leases.get(id) else { return };
        *self.oracle.gone.entry(lease.process).or_default() += 1;
        let just = lease.ran_out.is_some_and(|at| at + DECIDED > self.now);
        if !just && !lease.over {
            let (process, there) = (lease.process, lease.there);
            let complaint = format!("process {process} is gone, its lease was there at {there} ms");
            self.oracle.complain(complaint);
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
            (self.redis.execute(&mut connection.client, &command), command)
        } else {
            return;
        };
        for id in std::mem::take(&mut self.redis.gone) {
            self.gone(&id);
        }
        for said in std::mem::take(&mut self.redis.said) {
            number_of(&said).into_iter().for_each(|number| self.oracle.is_written(number));
        }
        let connection = &mut self.connections[at];
        match reply {
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
                self.note(|| format!("server {number} to {member}: {told:?}"));
                if let Some(listener) = self.servers[number].clients.get(&member) {
                    self.oracle.told(*listener, &told);
                }
            }
            Action::Hold(member) => self.servers[number].held.push(member),
            Action::Release(member) => self.servers[number].held.retain(|it| *it != member),
            Action::Drain => {
                // Or somebody does not take it, and the time has to pass.
                let takes = self.random.bool();
                self.servers[number].drained = takes.then(|| self.now + self.random.u64(..60));
            }
        }
    }

    fn say(&mut self, number: usize, but: Option<u64>, news: &News) {
        self.note(|| format!("server {number}: {news:?}"));
        let server = &self.servers[number];
        if let News::Said { text, .. } = news {
            self.piece += text.len();
            let cut = server.room.as_ref().is_some_and(Room::is_cut_off);
            if let Some(said) = number_of(text).filter(|_| cut) {
                self.oracle.said_at_a_cut(said, server.process);
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
        let arrives = connection.to_redis.back().map_or(arrives, |(last, _)| arrives.max(*last));
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
        if self.wrong_password > self.now {
            self.note(|| format!("server {number} {link:?}: wrong password"));
            return self.with(number, |room, now| room.lost(link, Failure::Password, now));
        }
        if self.redis_frozen > self.now {
            let at = self.redis_frozen;
            return self.servers[number].dialled.push((at, link));
        }
        self.note(|| format!("server {number} {link:?} is connected"));
        self.connections.push(Connection::new(number, link));
        self.with(number, |room, now| room.connected(link, now));
    }

    fn start(&mut self, number: usize) {
        self.processes += 1;
        let id = ServerId(self.random.u128(..));
        let (keep, unique_names) = (self.aim.keep, self.aim.unique_names);
        let settings =
            Settings { key: "room".to_owned(), keep, unique_names, ..Settings::default() };
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
        self.oracle.killed.insert(process);
        self.lease_of(process).over = true;
        self.drop_connection(number, Link::Commands);
        self.drop_connection(number, Link::Reader);
        let starts = self.now + self.random.u64(100..9_000);
        let server = &mut self.servers[number];
        (server.room, server.starts, server.frozen, server.drained) = (None, starts, 0, None);
        server.dialled.clear();
        server.lost.clear();
        server.held.clear();
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
            4 if !self.servers[number].held.contains(&member) => {
                self.does(number, member, Event::Who);
            }
            _ => {
                let listener = self.servers[number].clients[&member];
                for _ in 0..self.random.usize(1..=self.aim.burst) {
                    if self.servers[number].held.contains(&member) {
                        return;
                    }
                    let said = self.oracle.says(listener);
                    let text = format!("t{said}{}", " ".repeat(self.aim.padding));
                    self.does(number, member, Event::Say(text));
                }
            }
        }
    }

    fn does(&mut self, number: usize, member: u64, event: Event) {
        self.with(number, |room, now| room.event(member, event, now));
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
        self.servers[number].held.retain(|it| *it != member);
        self.note(|| format!("server {number}: {name} leaves"));
        if self.random.bool() {
            self.does(number, member, Event::Bye);
        }
        self.does(number, member, Event::Leave);
    }

    /// Something happens that should not.
    fn befall(&mut self) {
        if self.faults.is_empty() {
            return;
        }
        self.happened += 1;
        let fault = self.faults[self.random.usize(..self.faults.len())];
        let number = self.random.usize(..SERVERS);
        let time = [500, 3_000, 7_000, 20_000][self.random.usize(..4)];
        self.note(|| format!("---- {fault:?} (server {number}, {time} ms)"));
        let until = (self.now + time).min(TROUBLE);
        let process = self.servers[number].process;
        match fault {
            Fault::RedisFrozen => self.redis_frozen = until,
            Fault::LinkCut => {
                if !self.connections.is_empty() {
                    let at = self.random.usize(..self.connections.len());
                    let may_come = self.random.bool();
                    self.reset(at, may_come);
                }
            }
            Fault::ServerFrozen => {
                self.servers[number].frozen = until;
            }
            Fault::Partition => {
                for connection in self.connections.iter_mut().filter(|it| it.server == number) {
                    connection.stalled = connection.stalled.max(until);
                }
            }
            Fault::Killed => {
                if self.servers[number].room.is_some() {
                    self.end_process(number);
                }
            }
            Fault::DataLost => {
                let saved = self.saved.len();
                let back = self.random.usize(..saved.min(3));
                let which = if self.random.u8(..5) == 0 { 0 } else { saved - 1 - back };
                let data = self.saved[which].clone();
                self.redis.restart(data);
                self.drop_all();
            }
            Fault::Trimmed => self.redis.trim_all(self.random.usize(..3)),
            Fault::OutOfMemory => {
                self.redis.out_of_memory = true;
                self.memory_back = until;
            }
            Fault::Password => {
                self.wrong_password = until;
                self.drop_all();
            }
            Fault::Stopped => {
                let server = &mut self.servers[number];
                if server.room.is_some() && server.frozen <= self.now && !server.stopping {
                    server.stopping = true;
                    self.lease_of(process).over = true;
                    self.with(number, Room::stop);
                }
            }
        }
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
