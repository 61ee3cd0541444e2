//! A service and its clients, who do what the choices say: they come, talk, suffer and go, and
//! after each turn of the loop an oracle looks at every byte.
//!
//! Real is all but the sockets and the clock: the loop, the service, its limits.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

mod book;
mod choices;
mod clients;
#[path = "../util/frames.rs"]
pub mod frames;
pub mod models;
mod proxies;
mod record;
mod watched;
mod web_sockets;

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::time::Duration;

use reactor::testing::{Client, Harness};
use reactor::{ConnId, Limits, Rate, Rates};

pub use choices::Choices;
use models::Model;
use watched::Watched;
use web_sockets::WebSocketClient;

/// The timeouts, where there are any.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const LINE_TIMEOUT: Duration = Duration::from_secs(40);
/// Turns without an end in sight after which the loop is taken to spin.
const MOST_TURNS: usize = 200_000;
/// Of so many steps there is one before which the limits change, where they do.
const STEPS_PER_CHANGE: usize = 20;
/// Steps of a handshake, at the most.
const MOST_STEPS: usize = 4;
/// Seconds after which everybody must have been heard, unless a rate holds them back.
const PATIENCE: usize = 80;

/// One client, from when it connects until both it and the loop are done.
struct Peer {
    client: Client,
    id: ConnId,
    /// What it has to send first: a PROXY header, or a request for WebSocket.
    header: VecDeque<u8>,
    /// What it is about to send.
    talk: VecDeque<u8>,
    /// Bytes that it has sent over WebSocket, the request and the frames.
    came: usize,
    /// Its frames, if it speaks in such.
    web: Option<Box<WebSocketClient>>,
    ended: bool,
    /// It takes no output, or only some.
    limited: bool,
    /// It is reset, or its connection is broken otherwise.
    broken: bool,
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
    pub upgrades: u64,
}

pub struct World<M: Model> {
    server: Harness<Watched<M>>,
    choices: Choices,
    /// When the limits change and to which; never without them.
    changes: Option<Choices>,
    peers: Vec<Peer>,
    /// Clients at once, but for those that come together.
    crowd: usize,
    /// The longest line that is tried: a loop that reads byte by byte has less patience.
    longest: usize,
    /// Connections made so far.
    connections: usize,
    /// Messages posted so far.
    posted: u64,
    /// All run over plain sockets, so that another loop can go on with them.
    plain: bool,
    /// How often one has.
    upgrades: u64,
}

fn limits(choices: &mut Choices) -> Limits {
    let (low_water, high_water) = choices.one_of(&[(64 << 10, 256 << 10), (10, 100), (1, 2)]);
    let (soft_output, max_output) = choices.one_of(&[(256 << 10, 1 << 20), (2_000, 5_000)]);
    let no_rate = Rates::default();
    let lines = Rate { per_second: 500, burst: 5 };
    let bytes = Some(Rate { per_second: 500_000, burst: 5_000 });
    Limits {
        max_line: choices.one_of(&[64 << 10, 5_000, 100, 20]),
        bytes_per_turn: choices.one_of(&[64 << 10, 4096, 100, 3]),
        lines_per_turn: choices.one_of(&[1024, 3, 1]),
        idle_timeout: choices.one_of(&[None, Some(IDLE_TIMEOUT)]),
        line_timeout: choices.one_of(&[None, Some(LINE_TIMEOUT)]),
        rate: choices.one_of(&[no_rate, no_rate, lines.into(), Rates { bytes, ..lines.into() }]),
        peer_rate: choices.one_of(&[no_rate, no_rate, Rates { bytes, ..lines.into() }]),
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
        let budget = if M::BUDGET { choices.one_of(&[1 << 30, 20_000, 1_000]) } else { 1 << 30 };
        let input_budget = choices.one_of(&[1 << 30, 1 << 30, 5_000, 500]);
        let (service, model) = M::start(&mut choices);
        let mut watched = Watched::new(service, model, &limits);
        (watched.book.budget, watched.book.input_budget) = (budget, input_budget);
        let mut server = Harness::with_limits(watched, limits).by_hand().catching_panics();
        server = server.with_events_per_look(choices.one_of(&[usize::MAX, 3, 1]));
        server.set_max_total_output(budget);
        server.set_max_total_input(input_budget);
        let plain = choices.once_in(2);
        let (peers, changes, connections, posted, upgrades) = Default::default();
        World {
            server,
            choices,
            changes,
            peers,
            crowd,
            longest,
            connections,
            posted,
            plain,
            upgrades,
        }
    }

    /// From here on the limits change now and then, as these choices have it.
    pub fn change_limits(&mut self, changes: Choices) {
        self.changes = Some(changes);
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
        History { digest, lines, panics, connections: self.connections, upgrades: self.upgrades }
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
        let book = &mut self.server.handler_mut().book;
        (book.stopping, book.before_shutdown) = (true, self.posted);
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
            if let Some(mut changes) = self.changes.take() {
                if changes.once_in(STEPS_PER_CHANGE) {
                    self.change(limits(&mut changes));
                }
                self.changes = Some(changes);
            }
            self.step()?;
        }
        Ok(())
    }

    /// Other limits hold, but those that say what is too long, and how much a world has to do.
    fn change(&mut self, limits: Limits) {
        let book = &mut self.server.handler_mut().book;
        let Limits { max_line, bytes_per_turn, high_water, low_water, .. } = book.limits;
        // Who has more unsent than the marks have it now was no breach of those before.
        let (low_water, high_water) =
            (low_water.max(limits.low_water), high_water.max(limits.high_water));
        let limits = Limits { max_line, bytes_per_turn, low_water, high_water, ..limits };
        book.change_limits(limits.clone());
        self.server.set_limits(limits);
    }

    // ---- What the loop does ----

    fn pass(&mut self, time: Duration) {
        self.server.handler_mut().book.let_pass(time);
        self.server.jump(time);
    }

    /// One turn, after which the clients read; says whether there was anything to do.
    fn turn(&mut self) -> Result<bool, String> {
        for peer in &self.peers {
            let kept = self.server.kept_of(peer.client);
            self.server.handler_mut().book.weigh(peer.id, kept);
        }
        let worked = self.server.turn();
        self.meet_dialled();
        for peer in &mut self.peers {
            let mut got = self.server.sent(peer.client);
            if let Some(web) = &mut peer.web {
                let book = &mut self.server.handler_mut().book;
                book.came(peer.id, got.len());
                let means = web.receive(&got);
                got = means.unwrap_or_else(|wrong| {
                    book.complain(format!("{} {wrong}", peer.id));
                    Vec::new()
                });
            }
            let broken = self.server.is_broken(peer.client);
            let held = self.server.held(peer.client);
            let Watched { model, book, .. } = self.server.handler_mut();
            book.held(peer.id, held);
            if broken {
                book.broke(peer.id);
            }
            model.plain(&mut got);
            book.received(peer.id, &got);
        }
        self.check(worked);
        // Some stay for a while, though all is over, and send to a slot that is another's by now.
        if self.choices.below(3) == 0 {
            self.forget();
        }
        match self.server.handler().book.complaint() {
            None => Ok(worked),
            Some(complaint) => Err(complaint.to_owned()),
        }
    }

    /// What must hold after each turn.
    fn check(&mut self, worked: bool) {
        let World { server, peers, posted, .. } = self;
        let (connections, timers) = server.left_over();
        let (unsent, kept) = (server.unsent(), server.kept());
        let share = |peer: &Peer| Some((peer.id, server.kept_of(peer.client)?));
        let shares: BTreeMap<_, _> = peers.iter().filter_map(share).collect();
        for peer in &*peers {
            let (there, reason) = (shares.contains_key(&peer.id), server.closed(peer.client));
            server.handler_mut().book.check_handshake(peer.id, there, reason, !worked);
        }
        let Watched { model, book, .. } = server.handler_mut();
        book.check_input(kept, &shares);
        let owed = book.after_turn();
        if !worked {
            book.check_owed();
        }
        if unsent > book.budget || connections == 0 && unsent > 0 {
            book.complain(format!("{unsent} bytes of output are kept for {connections}"));
        }
        if connections == 0 && kept > 0 {
            book.complain(format!("{kept} bytes of input are kept for nobody"));
        }
        if connections == 0 && timers != model.service_timers() {
            book.complain(format!("{timers} timers of nobody"));
        }
        if !worked && *posted != book.messages {
            book.complain(format!("{} of {posted} messages were handled", book.messages));
        }
        for peer in peers {
            let broken = peer.broken || server.is_broken(peer.client);
            let what = match owed.get(&peer.id) {
                _ if server.session(peer.client).is_none() => continue,
                Some(what) if server.handler().book.is_healthy(peer.id) => what,
                // Once the loop sleeps, nothing else tells it.
                _ if worked => continue,
                _ if broken && server.handler().may_wait(peer.id) => continue,
                _ if broken => "is broken, and nobody has noticed",
                _ if peer.limited || !server.handler().is_owed(peer.id) => continue,
                _ => "has not got everything",
            };
            server.handler_mut().book.complain(format!("{} {what}", peer.id));
        }
    }

    /// Those that both sides are done with are no more.
    fn forget(&mut self) {
        let server = &mut self.server;
        self.peers.retain(|peer| {
            let held = server.held(peer.client) as u64;
            let gone = server.forget(peer.client);
            if gone {
                server.handler_mut().book.held += held;
                server.handler_mut().book.forget(peer.id);
            }
            !gone
        });
    }

    /// Turns until nothing is left to do.
    fn turns(&mut self) -> Result<(), String> {
        for _ in 0..MOST_TURNS {
            if self.choices.once_in(100) {
                self.upgrade()?;
            }
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
        for _ in 0..MOST_STEPS {
            (0..self.peers.len()).for_each(|number| self.take_only(number, None));
            self.turns()?;
        }
        for number in 0..self.peers.len() {
            let Peer { client, dialled, .. } = self.peers[number];
            if dialled {
                self.peers[number].dialled = false;
                self.server.answer(client);
            }
            self.take_only(number, None);
            if M::CUTS_LINES && self.choices.once_in(4) {
                self.peers[number].talk.extend(b"and");
            }
            self.feed(number, usize::MAX);
        }
        self.turns()?;
        // Whoever rests for a while is heard after it, and so is whoever was too fast.
        let (mut seconds, mut heard, mut before) = (0, 1, 0);
        while seconds < PATIENCE || heard > before {
            before = heard;
            self.pass(Duration::from_secs(1));
            self.turns()?;
            heard = self.server.handler().book.lines + self.server.counters().bytes_in;
            seconds += 1;
        }
        for peer in &self.peers {
            let shut = self.server.is_shut(peer.client);
            self.server.handler_mut().book.side_ended(peer.id, shut);
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
                    self.take_only(number, Some(0));
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
        self.peers[number].broken = true;
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
            (
                "accepted and dialled",
                counters.accepted + counters.dialled,
                book.closed + book.failed,
            ),
            ("handshakes", counters.handshakes_failed + counters.refused, book.failed),
            ("closed", counters.closed_in_all(), book.closed),
            ("panics", counters.panics, book.panics),
            ("bytes out", counters.bytes_out, book.received + book.held),
        ] {
            if counted != known {
                return Err(format!("{what}: the loop counted {counted} instead of {known}"));
            }
        }
        Ok(())
    }
}
