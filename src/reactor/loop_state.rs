//! What all services of one reactor share, and what belongs to the current turn alone.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Counters;
use super::adopting::Adopt;
use super::dialling::{self, Dial};
use super::fairness::Step;
use super::hand_over::Traveller;
use super::handle::{Identity, Shared};
use super::log_limits::LogLimits;
use super::reports::Asked;
use super::spare_descriptor::SpareDescriptor;
use super::token::Serials;
use super::turn_trace::TurnTrace;
use super::turns::Meter;
use super::upgrade::Inheritance;
use super::writing::Reply;
use crate::connection::ConnId;
use crate::connection::clock::{Nanos, nanos};
use crate::connection::framing::Search;
use crate::connection::output::Arena;
use crate::limits::{MAX_TOTAL_INPUT, MAX_TOTAL_OUTPUT};
use crate::net::stream::Stream;

pub(crate) struct LoopState {
    /// When the reactor was made: the loop counts its nanoseconds from here.
    start: Instant,
    /// What the time of day was then, as a test has set it; none for the system's.
    pub(crate) time_of_day: Option<SystemTime>,
    pub(crate) turn: Turn,
    /// Where sockets are registered. None in the harnesses, where nothing is.
    pub(crate) registry: Option<Rc<mio::Registry>>,
    /// What dialling out makes: sockets, or the harness's pipes.
    pub(crate) dial: Box<Dial>,
    /// What adopting descriptors makes, likewise.
    pub(crate) adopt: Box<Adopt>,
    /// All services by number. The entry of a removed service stays until another one takes its place.
    pub(crate) services: Vec<ServiceEntry>,
    /// The sums of removed services whose places were taken.
    pub(super) past: Counters,
    /// Connections that have left one service and are to be taken in by another, in this turn.
    pub(super) travellers: VecDeque<Traveller>,
    /// Gives connections their numbers, across all services.
    pub(super) serials: Serials,
    pub(crate) meter: Meter,
    pub(super) trace: TurnTrace,
    /// What handlers have asked for and were not told yet.
    pub(crate) asked: VecDeque<Asked>,
    /// What this loop has to do with those of other cores; none if it is alone.
    pub(crate) for_cores: Option<Box<ForCores>>,
    /// The queue of changes that are made between turns, see [`Remote`](crate::Remote); none without
    /// `Cores`.
    pub(super) changes: Option<Identity>,
    /// See [`set_accounting`](crate::Reactor::set_accounting).
    pub(super) accounting: bool,
    /// What handles on other threads reach: the waker, and whether a stop was asked for.
    pub(crate) shared: Arc<Shared>,
    /// The service that last had a step of a handshake.
    pub(super) last_handshake: usize,
    /// The shutdown is under way: nothing new begins.
    pub(crate) stopping: bool,
    /// Counts descriptors given back, so that listeners which ran out know when to try again.
    pub(crate) freed: u64,
    /// A newcomer found no descriptor: a connection that lingers or has lost its peer should give up
    /// its own.
    pub(super) starving: bool,
    pub(super) spare_descriptor: SpareDescriptor,
    /// See [`set_max_total_output`](crate::Reactor::set_max_total_output).
    pub(crate) max_total_output: usize,
    /// See [`set_max_total_input`](crate::Reactor::set_max_total_input).
    pub(crate) max_total_input: usize,
    pub(super) log_limits: LogLimits,
    /// What the loop before this one has offered; none if there was none, or once it has let go.
    pub(super) inherited: Option<Box<Inheritance>>,
}

/// What a loop that is one of several cores has noted for them in the current turn.
#[derive(Debug, Default)]
pub(crate) struct ForCores {
    /// Which core it is.
    core: usize,
    /// What handlers have asked for that takes all cores to answer.
    pub(crate) asked: Vec<Asked>,
    /// The services and their connections that wait until other cores have taken what was said to them.
    pub(crate) ahead: Vec<(usize, ConnId)>,
}

/// What belongs to the current turn alone.
pub(crate) struct Turn {
    /// The moment it began: one reading of the clock serves the whole turn.
    pub(crate) now: Nanos,
    /// The last reading of the real clock, from which slow hooks are noticed.
    pub(crate) clock: Instant,
    /// All output of the turn.
    pub(crate) arena: Arena,
    /// The end of the arena that is still to be given to the connection being served.
    pub(crate) reply: Reply,
    /// What the step under way has used up.
    pub(super) step: Step,
    /// Lines that the connection being served has had in this turn.
    pub(crate) lines: usize,
    /// How many it may have; broadcasts take from it.
    pub(crate) most_lines: usize,
    /// Bytes that its input has cost in this turn.
    pub(crate) bytes: usize,
    /// How far the line framing has looked.
    pub(crate) search: Search,
}

/// What the loop knows of a service without asking it.
#[derive(Debug)]
pub(crate) struct ServiceEntry {
    /// What others hand connections over to it by.
    pub(super) name: Box<str>,
    /// Its identity; none once it is removed, so that no key and no name leads to it.
    pub(super) identity: Option<Identity>,
    /// It has connections, not datagrams.
    pub(super) connections: bool,
    /// All its listeners ask who comes: nobody may come in past them.
    pub(super) guarded: bool,
    /// What the loop has done for it.
    pub(super) counters: Counters,
}

impl ServiceEntry {
    pub(crate) fn new(name: &str, connections: bool, identity: Identity) -> ServiceEntry {
        let (identity, counters) = (Some(identity), Counters::default());
        ServiceEntry { name: name.into(), identity, connections, guarded: false, counters }
    }
}

impl LoopState {
    pub(crate) fn new(registry: Option<Rc<mio::Registry>>, shared: Arc<Shared>) -> LoopState {
        let clock = Instant::now();
        LoopState {
            start: clock,
            time_of_day: None,
            turn: Turn {
                now: 1,
                clock,
                arena: Arena::default(),
                reply: Reply::default(),
                step: Step::default(),
                lines: 0,
                most_lines: 0,
                bytes: 0,
                search: Search::default(),
            },
            registry,
            dial: Box::new(dialling::dial),
            adopt: Box::new(Stream::adopt),
            services: Vec::new(),
            past: Counters::default(),
            travellers: VecDeque::new(),
            serials: Serials::default(),
            meter: Meter::default(),
            trace: TurnTrace::default(),
            asked: VecDeque::new(),
            for_cores: None,
            changes: None,
            accounting: false,
            shared,
            last_handshake: 0,
            stopping: false,
            freed: 0,
            starving: false,
            spare_descriptor: SpareDescriptor::open(),
            max_total_output: MAX_TOTAL_OUTPUT,
            max_total_input: MAX_TOTAL_INPUT,
            log_limits: LogLimits::default(),
            inherited: None,
        }
    }

    /// Enters a service at its place.
    pub(crate) fn enter(&mut self, place: usize, entry: ServiceEntry) {
        match self.services.get_mut(place) {
            None => self.services.push(entry),
            Some(before) => {
                self.past.add(&before.counters);
                *before = entry;
            }
        }
    }

    /// The place of a service, if it is still there.
    pub(super) fn place_of(&self, identity: &Identity) -> Option<usize> {
        self.services.iter().position(|entry| entry.identity.as_ref() == Some(identity))
    }

    /// Makes it that of one of several cores, which all count from the same moment.
    pub(crate) fn join(&mut self, core: usize, cores: usize, start: Instant) {
        self.set_start(start);
        self.serials = Serials::of_core(core, cores);
        self.for_cores = Some(Box::new(ForCores { core, ..ForCores::default() }));
    }

    /// Whether this loop is alone or the first one.
    pub(crate) fn is_first_core(&self) -> bool {
        self.for_cores.as_ref().is_none_or(|cores| cores.core == 0)
    }

    /// Has the loop count from there.
    pub(super) fn set_start(&mut self, start: Instant) {
        self.start = start;
    }

    /// When it was made.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// Asks for a graceful shutdown.
    pub(crate) fn stop(&self) {
        // Once: each further request would put the shutdown behind the messages posted meanwhile.
        if !self.shared.stop_asked() {
            self.shared.stop();
        }
    }

    /// A shutdown was asked for or is under way.
    pub(crate) fn is_ending(&self) -> bool {
        self.stopping || self.shared.stop_asked()
    }

    /// Reads the clock.
    pub(super) fn tick(&mut self) {
        self.turn.clock = Instant::now();
        self.turn.now = self.nanos(self.turn.clock).max(self.turn.now);
    }

    /// A moment as the loop counts it, from 1 on: 0 is "never" in many places.
    pub(crate) fn nanos(&self, when: Instant) -> Nanos {
        nanos(when.saturating_duration_since(self.start)).saturating_add(1)
    }

    /// The inverse of [`nanos`](Self::nanos).
    pub(crate) fn instant(&self, when: Nanos) -> Instant {
        self.start + Duration::from_nanos(when - 1)
    }

    /// The time of day: the system's, or what a test has set and has let pass since.
    pub(crate) fn wall_clock(&self) -> SystemTime {
        let passed = Duration::from_nanos(self.turn.now - 1);
        self.time_of_day.map_or_else(SystemTime::now, |start| start + passed)
    }

    /// The moment that is so long after the beginning of the turn.
    pub(crate) fn after(&self, wait: Duration) -> Nanos {
        self.turn.now.saturating_add(nanos(wait))
    }
}
