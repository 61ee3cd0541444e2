//! What all services of one reactor share, and what belongs to this turn alone.

use std::fs::File;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Counters;
use super::adopting::Adopt;
use super::dialling::Dial;
use super::fairness::{REFUSED_EVERY, STARVED_EVERY};
use super::handle::Shared;
use super::token::Serials;
use super::writing::Reply;
use crate::connection::clock::{Nanos, nanos};
use crate::connection::framing::Search;
use crate::connection::output::Arena;
use crate::net::Address;
use crate::net::stream::Stream;

/// See [`Reactor::set_max_total_output`](crate::Reactor::set_max_total_output).
const MAX_TOTAL_OUTPUT: usize = 1 << 30;

pub(crate) struct LoopState {
    pub(super) start: Instant,
    pub(crate) turn: Turn,
    /// None in tests, where nothing is registered.
    pub(crate) registry: Option<Rc<mio::Registry>>,
    /// What dialling out makes: sockets, but for tests.
    pub(crate) dial: Box<Dial>,
    /// What adopting descriptors makes.
    pub(crate) adopt: Box<Adopt>,
    pub(crate) serials: Serials,
    pub(crate) counters: Counters,
    pub(crate) shared: Arc<Shared>,
    /// The shutdown is under way: nothing new begins.
    pub(crate) stopping: bool,
    /// Counts descriptors given back, so that listeners which ran out know when to try again.
    pub(crate) freed: u64,
    /// Given up for a moment when there is no other descriptor to say no with.
    pub(super) reserve: Option<File>,
    pub(crate) max_total_output: usize,
    pub(super) relieved: Nanos,
    /// Those of all listeners, each once.
    #[cfg(all(feature = "signals", feature = "tls"))]
    pub(super) certificates: Vec<crate::net::tls::Tls>,
    pub(super) starved: Nanos,
    /// A newcomer found no descriptor: somebody who only lingers should give his up.
    pub(crate) starving: bool,
    pub(super) full: Nanos,
    pub(super) barred: Nanos,
    pub(super) crowded: Nanos,
}

impl LoopState {
    pub(crate) fn new(registry: Option<Rc<mio::Registry>>, shared: Arc<Shared>) -> LoopState {
        let clock = Instant::now();
        LoopState {
            start: clock,
            turn: Turn {
                now: 1,
                clock,
                arena: Arena::default(),
                reply: Reply::default(),
                lines: 0,
                most_lines: 0,
                search: Search::default(),
            },
            registry,
            dial: Box::new(Stream::connect),
            adopt: Box::new(Stream::adopt),
            serials: Serials::default(),
            counters: Counters::default(),
            shared,
            stopping: false,
            freed: 0,
            reserve: File::open("/dev/null").ok(),
            max_total_output: MAX_TOTAL_OUTPUT,
            relieved: 0,
            #[cfg(all(feature = "signals", feature = "tls"))]
            certificates: Vec::new(),
            starved: 0,
            starving: false,
            full: 0,
            barred: 0,
            crowded: 0,
        }
    }

    /// Asks for a graceful shutdown.
    pub(crate) fn stop(&self) {
        // Once: who says so again and again would put it off, with all that is posted meanwhile.
        if !self.shared.stop_asked() {
            self.shared.stop();
        }
    }

    /// A shutdown was asked for or is under way.
    pub(crate) fn is_ending(&self) -> bool {
        self.stopping || self.shared.stop_asked()
    }

    /// Reads the clock.
    pub(crate) fn tick(&mut self) {
        self.turn.clock = Instant::now();
        self.turn.now = self.nanos(self.turn.clock).max(self.turn.now);
    }

    pub(crate) fn nanos(&self, when: Instant) -> Nanos {
        nanos(when.saturating_duration_since(self.start)).saturating_add(1)
    }

    pub(crate) fn instant(&self, when: Nanos) -> Instant {
        self.start + Duration::from_nanos(when - 1)
    }

    pub(crate) fn after(&self, wait: Duration) -> Nanos {
        self.turn.now.saturating_add(nanos(wait))
    }

    /// Out of descriptors: gives the reserve up, runs `say_no`, takes the reserve back. At most
    /// once a second, so that the others may wait in the kernel's queue for a place. Says whether
    /// it turned out that nobody is waiting: the kernel wants a descriptor before it looks.
    pub(crate) fn with_reserve(&mut self, say_no: impl FnOnce(&mut LoopState) -> bool) -> bool {
        if !lapsed(&mut self.starved, self.turn.now, STARVED_EVERY) {
            return false;
        }
        let nobody = self.reserve.take().is_some() && say_no(self);
        self.reserve = File::open("/dev/null").ok();
        if !nobody {
            log::warn!(
                "out of file descriptors or memory: newcomers wait until a connection closes; \
                 raise the limit (ulimit -n) or lower max_connections"
            );
        }
        nobody
    }

    /// What a piece of the embedder's code gave; none where it panicked, which is counted and
    /// logged.
    #[inline]
    pub(crate) fn caught<R>(&mut self, outcome: std::thread::Result<R>, name: &str) -> Option<R> {
        if outcome.is_err() {
            self.counters.panics += 1;
            log::error!("{name}: a hook of the handler panicked");
        }
        outcome.ok()
    }

    /// Connections were ended for the budget of all; each is logged by itself as well.
    pub(crate) fn relieved(&mut self) {
        if lapsed(&mut self.relieved, self.turn.now, REFUSED_EVERY) {
            let most = self.max_total_output;
            log::warn!("too much unsent output in all (max_total_output, {most} bytes): resetting");
        }
    }

    /// A newcomer was turned away from a service that is full.
    pub(crate) fn count_full(&mut self, name: &str, most: usize) {
        self.counters.refused += 1;
        if lapsed(&mut self.full, self.turn.now, REFUSED_EVERY) {
            log::warn!("{name}: full with {most} connections (max_connections): turning away");
        }
    }

    /// A newcomer was turned away whose address has as many connections as it may.
    pub(crate) fn count_crowded(&mut self, name: &str, peer: Option<SocketAddr>, most: usize) {
        self.counters.refused += 1;
        if let Some(peer) = peer
            && lapsed(&mut self.crowded, self.turn.now, REFUSED_EVERY)
        {
            let ip = peer.ip();
            log::warn!("{name}: {ip} has {most} connections (max_per_peer): turning away");
        }
    }

    /// A newcomer was turned away for where it comes from.
    pub(crate) fn count_barred(&mut self, listener: &Address, peer: SocketAddr) {
        self.counters.refused += 1;
        if lapsed(&mut self.barred, self.turn.now, REFUSED_EVERY) {
            log::warn!(
                "{listener}: {} is in none of the allowed networks: turning away",
                peer.ip()
            );
        }
    }
}

/// Whether something last done at `last` may be done again now; then it counts as done.
pub(crate) fn lapsed(last: &mut Nanos, now: Nanos, every: Duration) -> bool {
    let may = *last == 0 || now - *last >= nanos(every);
    if may {
        *last = now;
    }
    may
}

/// What belongs to this turn alone.
pub(crate) struct Turn {
    /// The moment it began: one reading of the clock serves the whole turn.
    pub(crate) now: Nanos,
    /// The last reading of the real clock.
    pub(crate) clock: Instant,
    /// All output of the turn.
    pub(crate) arena: Arena,
    pub(crate) reply: Reply,
    /// Lines that the connection now served has had in this turn.
    pub(crate) lines: usize,
    /// How many it may have; broadcasts take from it.
    pub(crate) most_lines: usize,
    /// How far the line framing has looked.
    pub(crate) search: Search,
}
