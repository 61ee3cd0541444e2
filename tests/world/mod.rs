//! A service and its clients, who do what the choices say: they come, talk, suffer and go, and
//! after each turn of the loop an oracle looks at every byte.
//!
//! Real is all but the sockets and the clock: the loop, the service, its limits.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

mod book;
mod choices;
pub mod models;
mod record;
mod watched;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::Duration;

use reactor::testing::{Client, Fault, Harness};
use reactor::{ConnId, Limits, Rate};

pub use choices::Choices;
use models::Model;
use watched::Watched;

/// Turns without an end in sight after which the loop is taken to spin.
const MOST_TURNS: usize = 200_000;
/// Seconds after which everybody must have been heard, unless a rate holds them back.
const PATIENCE: usize = 80;
const ERRORS: &[ErrorKind] =
    &[ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::TimedOut];

/// One client, from when it connects until both it and the loop are done.
struct Peer {
    client: Client,
    id: ConnId,
    /// What it is about to send.
    talk: VecDeque<u8>,
    ended: bool,
    /// It was dialled, and has not answered.
    dialled: bool,
}

/// What has happened in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Of every event and every byte.
    pub digest: u64,
    pub connections: usize,
    pub lines: u64,
    pub panics: u64,
}

pub struct World<M: Model> {
    server: Harness<Watched<M>>,
    choices: Choices,
    peers: Vec<Peer>,
    /// Clients at once, but for those that come together.
    crowd: usize,
    /// The longest line that is tried: a loop that reads byte by byte has less patience.
    longest: usize,
    /// Connections made so far.
    connections: usize,
}

fn limits(choices: &mut Choices) -> Limits {
    let (low_water, high_water) = choices.one_of(&[(64 << 10, 256 << 10), (10, 100), (1, 2)]);
    let (soft_output, max_output) = choices.one_of(&[(256 << 10, 1 << 20), (2_000, 5_000)]);
    Limits {
        max_line: choices.one_of(&[64 << 10, 5_000, 100, 20]),
        bytes_per_turn: choices.one_of(&[64 << 10, 4096, 100, 3]),
        lines_per_turn: choices.one_of(&[1024, 3, 1]),
        idle_timeout: choices.one_of(&[None, Some(Duration::from_secs(30))]),
        line_timeout: choices.one_of(&[None, Some(Duration::from_secs(40))]),
        rate: choices.one_of(&[None, None, Some(Rate { per_second: 500, burst: 5 })]),
        high_water,
        low_water,
        max_output,
        soft_output,
        ..Limits::default()
    }
}

impl<M: Model> World<M> {
    /// A service with limits of the seed's or the fuzzer's choice, and nobody there.
    pub fn new(mut choices: Choices) -> World<M> {
        let limits = limits(&mut choices);
        let longest = match limits.bytes_per_turn {
            0..10 => 40,
            10..1000 => 300,
            _ => 20_000,
        };
        let crowd = choices.one_of(&[30, 8, 60, 300]);
        let (service, model) = M::start(&mut choices);
        let watched = Watched::new(service, model, &limits);
        let server = Harness::with_limits(watched, limits).by_hand().catching_panics();
        World { server, choices, peers: Vec::new(), crowd, longest, connections: 0 }
    }

    /// From here on other choices.
    pub fn choose(&mut self, choices: Choices) {
        self.choices = choices;
    }

    /// Whether to tell all that happens on stderr.
    pub fn trace(&mut self, trace: bool) {
        self.server.handler_mut().book.trace = trace;
    }

    /// What has happened so far.
    pub fn history(&self) -> History {
        let book = &self.server.handler().book;
        let (digest, lines, panics) = (book.digest(), book.lines, book.panics);
        History { digest, lines, panics, connections: self.connections }
    }

    /// Clients come, talk, suffer and go, in so many steps; then all leave and nothing is left.
    pub fn live(&mut self, steps: usize) -> Result<(), String> {
        self.begin(steps)?;
        self.rest()?;
        self.leave()
    }

    /// As [`live`](Self::live), ended by a shutdown in the middle.
    pub fn die(&mut self, steps: usize) -> Result<(), String> {
        self.begin(steps)?;
        self.server.handler_mut().book.stopping = true;
        self.server.stop();
        self.nobody_is_left()
    }

    fn begin(&mut self, steps: usize) -> Result<(), String> {
        // In half the lives hooks panic, once in so many.
        let panics = self.choices.once_in(2).then(|| self.choices.below(1 << 20) as u64);
        self.server.handler_mut().panics = panics.map(fastrand::Rng::with_seed);
        for _ in 0..steps {
            if self.choices.are_over() {
                break;
            }
            self.step()?;
        }
        Ok(())
    }

    // ---- What clients do ----

    /// Some of them do something at once; then the loop takes a turn or two.
    fn step(&mut self) -> Result<(), String> {
        for _ in 0..1 + self.choices.below(6) {
            self.act();
        }
        if self.choices.once_in(5) {
            let millis = self.choices.one_of(&[1, 20, 500, 3_000, 31_000, 3_600_000]);
            self.pass(Duration::from_millis(millis));
        }
        for _ in 0..1 + self.choices.below(3) {
            if !self.turn()? {
                break;
            }
        }
        Ok(())
    }

    fn act(&mut self) {
        if self.peers.is_empty() || self.peers.len() < self.crowd && self.choices.once_in(10) {
            let alone = self.choices.below(8) > 0;
            let newcomers = if alone { 1 } else { 1 + self.choices.below(self.crowd) };
            return (0..newcomers).for_each(|_| self.connect());
        }
        if self.choices.once_in(20)
            && let Some(message) = self.server.handler().model.post(&mut self.choices)
        {
            return self.server.post(message);
        }
        let number = self.choices.below(self.peers.len());
        let (client, id) = (self.peers[number].client, self.peers[number].id);
        if self.peers[number].dialled {
            return self.answer(number);
        }
        match self.choices.below(24) {
            0..12 => self.talk(number),
            12 => self.end(number),
            13 => self.server.take_only(client, None),
            14 | 15 => {
                let room = self.choices.size(300, 6_000);
                self.server.take_only(client, Some(room));
            }
            16..20 => {
                let (reads, writes) = (self.faults(), self.faults());
                self.server.disturb(client, reads, writes);
            }
            20 => {
                let error = self.choices.one_of(ERRORS);
                self.server.handler_mut().book.breaks(id, error);
                match self.choices.below(4) {
                    0 => self.server.refuse(client, error),
                    1 => self.server.disturb(client, [Fault::Error(error)], []),
                    // After so many bytes.
                    2 => {
                        let bytes = 1 + self.choices.below(20);
                        self.server.disturb(client, [Fault::Short(bytes), Fault::Error(error)], []);
                    }
                    _ => {
                        let bytes = 1 + self.choices.below(200);
                        self.server.disturb(client, [], [Fault::Short(bytes), Fault::Error(error)]);
                    }
                }
            }
            _ => {
                // All that it has to say, and its end, in one go.
                self.talk(number);
                self.feed(number, usize::MAX);
                if self.choices.once_in(4) {
                    self.end(number);
                }
            }
        }
    }

    fn connect(&mut self) {
        let client = self.server.connect();
        self.meet(client, false);
        self.meet_dialled();
    }

    /// Whoever the service has dialled is one more client.
    fn meet_dialled(&mut self) {
        for (_, client) in self.server.dialled() {
            let id = self.server.id(client);
            let Watched { model, book, .. } = self.server.handler_mut();
            book.dialled(id);
            model.dialled(book, id);
            self.meet(client, true);
        }
    }

    fn meet(&mut self, client: Client, dialled: bool) {
        let id = self.server.id(client);
        self.connections += 1;
        self.peers.push(Peer { client, id, talk: VecDeque::new(), ended: false, dialled });
    }

    /// It is being dialled: it accepts, refuses, or does nothing about it yet.
    fn answer(&mut self, number: usize) {
        let Peer { client, id, dialled, .. } = &mut self.peers[number];
        match self.choices.below(5) {
            0..3 => {
                *dialled = false;
                self.server.answer(*client);
            }
            3 => {
                self.server.handler_mut().book.breaks(*id, ErrorKind::ConnectionRefused);
                self.server.refuse(*client, ErrorKind::ConnectionRefused);
            }
            _ => {}
        }
    }

    fn faults(&mut self) -> Vec<Fault> {
        (0..self.choices.below(12))
            .map(|_| match self.choices.below(4) {
                0 => Fault::WouldBlock,
                1 => Fault::Interrupted,
                _ => Fault::Short(1 + self.choices.below(9)),
            })
            .collect()
    }

    /// It sends a piece of what it has to say.
    fn talk(&mut self, number: usize) {
        if self.peers[number].talk.is_empty() {
            for _ in 0..1 + self.choices.below(8) {
                let mut line = self.server.handler().model.talk(&mut self.choices, self.longest);
                let more = self.choices.size(4096, self.longest);
                line.extend(self.choices.text(more));
                line.extend(if self.choices.once_in(4) { &b"\r\n"[..] } else { b"\n" });
                self.peers[number].talk.extend(line);
            }
        }
        let most = self.choices.size(4096, 2 * self.longest);
        self.feed(number, 1 + most);
    }

    fn feed(&mut self, number: usize, most: usize) {
        let peer = &mut self.peers[number];
        if peer.ended {
            return;
        }
        let piece: Vec<u8> = peer.talk.drain(..peer.talk.len().min(most)).collect();
        self.server.handler_mut().book.fed(peer.id, &piece);
        self.server.feed(peer.client, piece);
    }

    fn end(&mut self, number: usize) {
        let peer = &mut self.peers[number];
        peer.ended = true;
        self.server.handler_mut().book.ended(peer.id);
        self.server.end(peer.client);
    }

    // ---- What the loop does ----

    fn pass(&mut self, time: Duration) {
        self.server.handler_mut().book.clock += time;
        self.server.jump(time);
    }

    /// One turn, after which the clients read; says whether there was anything to do.
    fn turn(&mut self) -> Result<bool, String> {
        let worked = self.server.turn();
        self.meet_dialled();
        for peer in &self.peers {
            let mut got = self.server.sent(peer.client);
            let Watched { model, book, .. } = self.server.handler_mut();
            model.plain(&mut got);
            book.received(peer.id, &got);
        }
        let left_over = self.server.left_over();
        let Watched { model, book, .. } = self.server.handler_mut();
        book.after_turn();
        if left_over.0 == 0 && left_over.1 != model.service_timers() {
            book.complain(format!("{} timers of nobody", left_over.1));
        }
        // Some stay for a while, though all is over, and send to a slot that is another's by now.
        if self.choices.below(3) == 0 {
            self.forget();
        }
        match self.server.handler().book.complaint() {
            None => Ok(worked),
            Some(complaint) => Err(complaint.to_owned()),
        }
    }

    /// Those that both sides are done with are no more.
    fn forget(&mut self) {
        let server = &mut self.server;
        self.peers.retain(|peer| {
            let gone = server.forget(peer.client);
            if gone {
                server.handler_mut().book.forget(peer.id);
            }
            !gone
        });
    }

    /// Turns until nothing is left to do.
    fn turns(&mut self) -> Result<(), String> {
        for _ in 0..MOST_TURNS {
            if !self.turn()? {
                return self.nobody_overstays();
            }
        }
        Err("the loop spins".to_owned())
    }

    /// Whoever does not close its side is let go in time.
    fn nobody_overstays(&mut self) -> Result<(), String> {
        self.forget();
        let book = &self.server.handler().book;
        let closed_for = |peer: &Peer| book.closed_for(peer.id).unwrap_or_default();
        match self.peers.iter().find(|peer| closed_for(peer) > book.limits.linger) {
            Some(peer) => Err(format!("{} still lingers", peer.id)),
            None => Ok(()),
        }
    }

    // ---- What must hold at the end ----

    /// Nothing disturbs any more: everybody is heard and gets everything.
    fn rest(&mut self) -> Result<(), String> {
        for number in 0..self.peers.len() {
            let Peer { client, dialled, .. } = self.peers[number];
            if dialled {
                self.peers[number].dialled = false;
                self.server.answer(client);
            }
            self.server.take_only(client, None);
            self.feed(number, usize::MAX);
        }
        self.turns()?;
        // Whoever rests for a while is heard after it, and so is whoever was too fast.
        let (mut seconds, mut lines, mut before) = (0, 1, 0);
        while seconds < PATIENCE || lines > before {
            before = lines;
            self.pass(Duration::from_secs(1));
            self.turns()?;
            lines = self.server.handler().book.lines;
            seconds += 1;
        }
        let Watched { model, book, .. } = self.server.handler_mut();
        book.at_rest(M::keeps);
        match (book.complaint(), model.overdue(book)) {
            (Some(complaint), _) => Err(complaint.to_owned()),
            (None, Some(overdue)) => Err(format!("overdue: {overdue}")),
            (None, None) => Ok(()),
        }
    }

    /// Everybody leaves in a way of its own.
    fn leave(&mut self) -> Result<(), String> {
        if !M::LAST_LINE.is_empty() {
            self.server.handler_mut().panics = None;
            self.connect();
            let number = self.peers.len() - 1;
            self.peers[number].talk.extend(format!("{}\n", M::LAST_LINE).bytes());
            self.feed(number, usize::MAX);
            self.turns()?;
        }
        for number in 0..self.peers.len() {
            match self.choices.below(4) {
                0 => {}
                1 => self.reset(number),
                2 => {
                    self.server.take_only(self.peers[number].client, Some(0));
                    self.end(number);
                }
                _ => self.end(number),
            }
        }
        self.turns()?;
        // Those that wait for the other side to close get no more patience than the limits say.
        for _ in 0..3 {
            self.pass(Duration::from_secs(60));
            self.turns()?;
        }
        (0..self.peers.len()).for_each(|number| self.reset(number));
        self.nobody_is_left()
    }

    fn reset(&mut self, number: usize) {
        let Peer { client, id, .. } = self.peers[number];
        self.server.handler_mut().book.breaks(id, ErrorKind::ConnectionReset);
        self.server.reset(client);
    }

    fn nobody_is_left(&mut self) -> Result<(), String> {
        self.turns()?;
        for _ in 0..3 {
            self.pass(Duration::from_secs(60));
            self.turns()?;
        }
        self.forget();
        let Watched { model, book, .. } = self.server.handler();
        let counters = self.server.counters();
        let same = [
            ("connections and timers left over", self.server.left_over(), (0, 0)),
            ("kept for clients that are gone", (self.peers.len(), model.left_over()), (0, 0)),
        ];
        for (what, found, wanted) in same {
            if found != wanted {
                return Err(format!("{what}: {found:?}"));
            }
        }
        for (what, counted, known) in [
            ("open", counters.open, 0),
            ("accepted and dialled", counters.accepted + counters.dialled, book.closed),
            ("closed", counters.closed_in_all(), book.closed),
            ("panics", counters.panics, book.panics),
            ("bytes out", counters.bytes_out, book.received),
        ] {
            if counted != known {
                return Err(format!("{what}: the loop counted {counted} instead of {known}"));
            }
        }
        Ok(())
    }
}
