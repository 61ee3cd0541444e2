//! Servers that share a room, their clients, and what is asked of them in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::judge::{self, CUT_OFF, MISSING, WHOLE, Witness};
use crate::link::Link;
use crate::swarm::{Pace, Swarm};
use crate::util::program::{Program, REACTOR};
use crate::util::redis::Redis;
use crate::util::{Quiet, quiet};

/// Bounds small enough for a test that waits for them. Both are long for Redis, and short for a machine
/// that has much else to do; so what must *not* be heard is asked with the usual bounds only.
pub const QUICK: [&str; 2] = ["--bus-timeout=2s", "--bus-lease=4s"];

/// The sizes that a night may take.
pub fn full() -> bool {
    std::env::var("ROOM").is_ok_and(|value| value == "full")
}

/// How many members each server has.
pub fn members() -> usize {
    if full() { 1000 } else { 100 }
}

/// Servers, and whoever is in their room.
pub struct Rooms {
    pub swarm: Swarm,
    pub servers: Vec<Option<Program>>,
    pub addrs: Vec<SocketAddr>,
    pub links: Vec<Link>,
    pub redis: Option<Redis>,
    options: Vec<String>,
    /// The room's name on the bus, which is the key of its stream.
    pub room: &'static str,
    /// Who was there when everybody had heard the same.
    who: BTreeSet<String>,
    /// Members that came after that are judged from their arrival on.
    settled: usize,
    _quiet: Option<Quiet>,
}

/// What everybody hears at the beginning and at the end of what is judged.
const SETTLED: &str = "s0-0 says: settled";

impl Rooms {
    /// A server without a bus.
    pub fn alone() -> Rooms {
        Rooms::with(None, "", 1, &[])
    }

    /// So many servers over a Redis of their own.
    pub fn start(servers: usize, options: &[&str]) -> Rooms {
        Rooms::over(Redis::start(), servers, options)
    }

    pub fn over(redis: Redis, servers: usize, options: &[&str]) -> Rooms {
        Rooms::with(Some(redis), "lobby", servers, options)
    }

    pub fn with(
        redis: Option<Redis>,
        room: &'static str,
        servers: usize,
        options: &[&str],
    ) -> Rooms {
        let mut rooms = Rooms::new(redis, room, options);
        (0..servers).for_each(|_| rooms.add_server());
        rooms.settle();
        rooms
    }

    fn new(redis: Option<Redis>, room: &'static str, options: &[&str]) -> Rooms {
        rlimit::increase_nofile_limit(20_000).unwrap();
        Rooms {
            // Three thousand clients are enough at a time.
            _quiet: full().then(quiet),
            swarm: Swarm::new(),
            servers: Vec::new(),
            addrs: Vec::new(),
            links: Vec::new(),
            redis,
            options: options.iter().map(|&option| option.to_owned()).collect(),
            room,
            who: BTreeSet::new(),
            settled: 0,
        }
    }

    pub fn redis(&mut self) -> &mut Redis {
        self.redis.as_mut().expect("it is a room over Redis")
    }

    /// One more server, with nobody in it.
    pub fn add_server(&mut self) {
        let mut command = Command::new(REACTOR);
        command.args(["serve", "presence=0", "--max-output=16M"]).args(&self.options);
        if let Some(redis) = &self.redis {
            let link = Link::to(redis.addr);
            let room = &self.room;
            command.arg(format!("--presence-bus=redis://{}?room={room}", link.addr));
            command
                .envs(redis.password.iter().map(|password| ("REACTOR_REDIS_PASSWORD", password)));
            self.links.push(link);
        }
        let program = Program::spawn(&mut command);
        self.addrs.push(program.addr("presence"));
        self.servers.push(Some(program));
    }

    pub fn server(&self, server: usize) -> &Program {
        self.servers[server].as_ref().expect("it has been killed")
    }

    /// Kills a server.
    pub fn kill(&mut self, server: usize) {
        self.servers[server] = None;
    }

    /// Waits until a server that was told to stop has ended by itself: its members go before it has told the
    /// others that they have.
    pub fn wait_for_end(&mut self, server: usize) {
        let (status, _, stderr) = self.servers[server].take().expect("it has been killed").end();
        assert_eq!(status, 0, "{stderr}");
    }

    /// How often the first member of each living server has heard a line: see
    /// [`wait_for_more`](Rooms::wait_for_more).
    pub fn counts(&self, line: &str) -> Vec<(usize, usize)> {
        let ears = self.living().into_iter().filter_map(|server| self.swarm.ear(server));
        ears.map(|ear| (ear, self.swarm.times(ear, line))).collect()
    }

    /// Each of these, but for those at a server, has heard the line once more.
    pub fn wait_for_more(&mut self, counts: &[(usize, usize)], but: usize, line: &str) {
        self.swarm.until(&format!("{line:?} is heard again"), |swarm| {
            let mut counts = counts.iter().filter(|(ear, _)| swarm.members[*ear].server != but);
            counts.all(|(ear, before)| swarm.times(*ear, line) > *before)
        });
    }

    /// The servers that are there.
    pub fn living(&self) -> Vec<usize> {
        (0..self.servers.len()).filter(|server| self.servers[*server].is_some()).collect()
    }

    /// One more member, which has heard its own name.
    pub fn join(&mut self, server: usize) -> usize {
        let id = self.swarm.join(server, self.addrs[server]);
        self.swarm.until("a newcomer has told its name", |swarm| swarm.is_in(id));
        id
    }

    /// Members come to all servers at once, until everybody has heard the same.
    fn settle(&mut self) {
        let servers = 0..self.servers.len();
        // The first one of each server hears all that the others hear.
        let first = servers.clone().map(|server| self.join(server)).collect::<Vec<_>>()[0];
        for server in servers {
            (1..members()).for_each(|_| _ = self.swarm.join(server, self.addrs[server]));
        }
        self.settled = self.swarm.members.len();
        let all = self.settled;
        self.swarm.until("all have told their names", |swarm| (0..all).all(|id| swarm.is_in(id)));
        self.wait_until_whole();
        self.swarm.send(first, "SAY settled\n");
        let living = self.living();
        self.swarm.until("all have settled", |it| it.have_heard(&living, SETTLED, 1));
        let arrival = self.swarm.number_of("Someone has arrived...");
        // Where the machine stood still for longer than a short timeout, each server has its own story.
        let apart =
            living.iter().any(|it| self.swarm.times(self.swarm.ear(*it).unwrap(), CUT_OFF) > 0);
        for server in living {
            let ear = if apart { self.swarm.ear(server).unwrap() } else { first };
            let whole = numbers(&self.swarm.heard(ear));
            for id in (0..all).filter(|id| self.swarm.members[*id].server == server) {
                let heard = numbers(&self.swarm.heard(id));
                judge::is_rest(&whole, &heard, arrival, whole.len()).unwrap_or_else(|why| {
                    let ends = [ear, id].map(|id| self.swarm.end_of(id));
                    panic!("{}: {why}: {ends:#?}", self.swarm.members[id].name);
                });
            }
        }
        self.who = self.who_is_there().into_iter().collect();
        assert_eq!(self.who.len(), all);
    }

    /// WHO's answer, which is the same at all servers that are there, once each of them has read what the
    /// others have.
    pub fn who_is_there(&mut self) -> Vec<String> {
        for _ in 0..100 {
            let mut answers = Vec::new();
            for server in self.living() {
                let ear = self.swarm.ear(server);
                answers.extend(ear.map(|ear| self.swarm.who(ear)));
            }
            if answers.iter().all(|other| *other == answers[0]) {
                return answers.swap_remove(0);
            }
        }
        panic!("WHO goes on to differ from server to server");
    }

    /// Two members of each server speak by themselves from now on.
    pub fn talk(&mut self) {
        let pause = Duration::from_millis(if full() { 300 } else { 60 });
        for server in self.living() {
            let speakers = [1, 2].map(|number| self.swarm.of(server, number));
            self.swarm.speaks(speakers[0], Pace { window: 1, pause });
            self.swarm.speaks(speakers[1], Pace { window: 20, pause });
        }
        self.go_on_talking(2);
    }

    /// Until so many more lines of each speaker have been heard by itself.
    pub fn go_on_talking(&mut self, lines: u32) {
        let speakers = self.speakers().into_iter();
        let speakers: Vec<_> = speakers.map(|id| (id, self.swarm.progress(id).1)).collect();
        self.swarm.until("speakers go on", |swarm| {
            speakers.iter().all(|(id, back)| swarm.progress(*id).1 >= back + lines)
        });
    }

    /// Those who speak by themselves, at servers that are there.
    pub fn speakers(&self) -> Vec<usize> {
        self.swarm.speakers().filter(|id| !self.swarm.members[*id].ended).collect()
    }

    /// Everybody at these servers hears this line, for the `times`th time.
    pub fn wait_for(&mut self, servers: &[usize], line: &str, times: usize) {
        self.swarm.until(&format!("{line:?} is heard"), |it| it.have_heard(servers, line, times));
    }

    /// Whoever was cut off is no longer.
    pub fn wait_until_whole(&mut self) {
        let ears: Vec<_> = self.living().iter().filter_map(|it| self.swarm.ear(*it)).collect();
        self.swarm.until("all rooms are whole", |swarm| {
            ears.iter().all(|ear| swarm.times(*ear, CUT_OFF) == swarm.times(*ear, WHOLE))
        });
    }

    /// Silence, in which all that was said has been heard; then everybody is asked what that was. Servers
    /// that were killed are asked for what they had heard by then.
    pub fn conclude(&mut self) -> Vec<Witness<'_>> {
        self.swarm.hush();
        self.wait_until_whole();
        self.swarm.until("all speakers have heard themselves", Swarm::all_back);
        let living = self.living();
        let speaker = self.swarm.ear(living[0]).unwrap();
        self.swarm.send(speaker, "SAY over\n");
        let over = format!("{} says: over", self.swarm.members[speaker].name);
        self.wait_for(&living, &over, 1);
        let who: BTreeSet<_> = self.who_is_there().into_iter().collect();
        let there = self.swarm.members.iter().filter(|it| !it.ended).map(|it| it.name.clone());
        let there: BTreeSet<_> = there.collect();
        let differ: Vec<_> = who.symmetric_difference(&there).collect();
        assert!(differ.is_empty(), "WHO lists others than are there: {differ:?}");
        self.members_of_one_server_agree();

        let swarm = &self.swarm;
        let witness = |server| {
            let mut heard = swarm.story(swarm.ear(server)?);
            // One that came later is none: what was heard there is compared among its own members.
            let from = heard.iter().position(|heard| heard.line == SETTLED)?;
            heard.drain(..=from);
            let stayed = living.contains(&server);
            let end = heard.iter().position(|heard| heard.line == over);
            heard.truncate(end.unwrap_or(heard.len()));
            Some(Witness { server, stayed, heard, who: [self.who.clone(), who.clone()] })
        };
        let witnesses: Vec<_> = (0..self.servers.len()).filter_map(witness).collect();
        let said: BTreeMap<_, _> = swarm.said().into_iter().collect();
        if let Err(why) = judge::judge(&witnesses, &said) {
            panic!("{why}\n{}", told(&witnesses));
        }
        witnesses
    }

    /// Whoever has stayed has heard what the first member of the same server has heard, byte for byte.
    fn members_of_one_server_agree(&mut self) {
        let arrival = self.swarm.number_of("Someone has arrived...");
        let settled = self.swarm.number_of(SETTLED);
        for server in self.living() {
            let Some(ear) = self.swarm.ear(server) else { continue };
            let all = numbers(&self.swarm.heard(ear));
            let mark = all.iter().position(|line| *line == settled).unwrap_or(all.len());
            for (id, member) in self.swarm.members.iter().enumerate() {
                if member.server != server || member.ended {
                    continue;
                }
                let mark = if id < self.settled { mark } else { all.len() };
                let rest = judge::is_rest(&all, &numbers(&self.swarm.heard(id)), arrival, mark);
                rest.unwrap_or_else(|why| panic!("{}: {why}", member.name));
            }
        }
    }
}

fn numbers(heard: &[(u32, u32)]) -> Vec<u32> {
    heard.iter().map(|heard| heard.0).collect()
}

/// What is told of the room itself, for whoever looks for the mistake.
fn told(witnesses: &[Witness<'_>]) -> String {
    let mut text = String::new();
    for witness in witnesses {
        let lines = witness.heard.iter().filter(|it| !it.line.contains(" says: "));
        let lines: Vec<_> = lines.take(60).map(|it| format!("{:?} {}", it.at, it.line)).collect();
        text += &format!("server {}: {lines:#?}\n", witness.server);
    }
    text
}

/// How often one of these witnesses has heard a line.
pub fn times(witness: &Witness<'_>, line: &str) -> usize {
    witness.heard.iter().filter(|heard| heard.line == line).count()
}

/// Nobody was told that somebody has left.
#[track_caller]
pub fn nobody_left(witnesses: &[Witness<'_>]) {
    let mut heard = witnesses.iter().flat_map(|witness| &witness.heard);
    let left = heard.find(|heard| heard.line.ends_with(" has left the room."));
    assert!(left.is_none(), "{left:?}");
}

/// Everybody has heard the same, and nothing of the fault.
#[track_caller]
pub fn nothing_is_heard_of_it(witnesses: &[Witness<'_>]) {
    assert_eq!(judge::same(witnesses), Ok(()));
    for line in [MISSING, CUT_OFF, WHOLE] {
        assert_eq!(times(&witnesses[0], line), 0, "{line}");
    }
    nobody_left(witnesses);
}

/// How many servers a fault is tried with.
pub fn sizes() -> impl Iterator<Item = usize> {
    if full() { 2..=3 } else { 3..=3 }
}

/// The options of a room whose bounds a test waits for, and its lease: the usual ones where there is time.
pub fn bounds() -> (Vec<&'static str>, Duration) {
    if full() {
        (Vec::new(), Duration::from_secs(10))
    } else {
        (QUICK.to_vec(), Duration::from_secs(4))
    }
}
