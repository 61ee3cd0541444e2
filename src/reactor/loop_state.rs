//! What all services of one reactor share.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::handle::Shared;
use crate::id::Serials;
use crate::line::Search;
use crate::net::Stream;
use crate::output::Arena;
use crate::timer::{Nanos, nanos};
use crate::{Address, ConnId, Counters};

/// How often running out of descriptors is logged and answered.
const STARVED_EVERY: Duration = Duration::from_secs(1);
/// How often being full is logged, and keeping somebody out.
const REFUSED_EVERY: Duration = Duration::from_secs(10);
/// See [`Reactor::set_max_total_output`](crate::Reactor::set_max_total_output).
const MAX_TOTAL_OUTPUT: usize = 1 << 30;

/// From where, if that was asked for, and where to.
pub(crate) type Dial = dyn FnMut(Option<IpAddr>, &Address) -> io::Result<Stream>;

/// From an input and an output.
pub(crate) type Adopt = dyn FnMut(BorrowedFd<'_>, BorrowedFd<'_>) -> io::Result<Stream>;

pub(crate) struct Core {
    start: Instant,
    /// The moment this turn began: one reading of the clock serves the whole turn.
    pub(crate) now: Nanos,
    /// The last reading of the real clock.
    pub(crate) clock: Instant,
    /// None in tests, where nothing is registered.
    pub(crate) registry: Option<Rc<mio::Registry>>,
    /// What dialling out makes: sockets, but for tests.
    pub(crate) dial: Box<Dial>,
    /// What adopting descriptors makes.
    pub(crate) adopt: Box<Adopt>,
    pub(crate) arena: Arena,
    pub(crate) reply: Reply,
    pub(crate) serials: Serials,
    pub(crate) counters: Counters,
    pub(crate) shared: Arc<Shared>,
    /// The shutdown is under way: nothing new begins.
    pub(crate) stopping: bool,
    /// Lines that the connection now served has had in this turn.
    pub(crate) lines: usize,
    /// How many it may have; broadcasts take from it.
    pub(crate) most_lines: usize,
    /// How far the line framing has looked.
    pub(crate) search: Search,
    /// Counts descriptors given back, so that listeners which ran out know when to try again.
    pub(crate) freed: u64,
    /// Given up for a moment when there is no other descriptor to say no with.
    reserve: Option<File>,
    pub(crate) max_total_output: usize,
    relieved: Nanos,
    /// Those of all listeners, each once.
    #[cfg(all(feature = "signals", feature = "tls"))]
    certificates: Vec<crate::Tls>,
    starved: Nanos,
    /// A newcomer found no descriptor: somebody who only lingers should give his up.
    pub(crate) starving: bool,
    full: Nanos,
    barred: Nanos,
    crowded: Nanos,
}

impl Core {
    pub(crate) fn new(registry: Option<Rc<mio::Registry>>, shared: Arc<Shared>) -> Core {
        let clock = Instant::now();
        Core {
            start: clock,
            now: 1,
            clock,
            registry,
            dial: Box::new(Stream::connect),
            adopt: Box::new(Stream::adopt),
            arena: Arena::default(),
            reply: Reply::default(),
            serials: Serials::default(),
            counters: Counters::default(),
            shared,
            stopping: false,
            lines: 0,
            most_lines: 0,
            search: Search::default(),
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
        self.clock = Instant::now();
        self.now = self.nanos(self.clock).max(self.now);
    }

    pub(crate) fn nanos(&self, when: Instant) -> Nanos {
        nanos(when.saturating_duration_since(self.start)).saturating_add(1)
    }

    pub(crate) fn instant(&self, when: Nanos) -> Instant {
        self.start + Duration::from_nanos(when - 1)
    }

    pub(crate) fn after(&self, wait: Duration) -> Nanos {
        self.now.saturating_add(nanos(wait))
    }

    /// Out of descriptors: gives the reserve up, runs `say_no`, takes the reserve back. At most
    /// once a second, so that the others may wait in the kernel's queue for a place. Says whether
    /// it turned out that nobody is waiting: the kernel wants a descriptor before it looks.
    pub(crate) fn with_reserve(&mut self, say_no: impl FnOnce(&mut Core) -> bool) -> bool {
        if !lapsed(&mut self.starved, self.now, STARVED_EVERY) {
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

    /// Notes a listener's certificate, for [`reload`](Self::reload).
    #[cfg(feature = "tls")]
    pub(crate) fn add_certificate(&mut self, _tls: Option<&crate::Tls>) {
        #[cfg(feature = "signals")]
        if let Some(tls) = _tls
            && !self.certificates.iter().any(|known| known.is(tls))
        {
            self.certificates.push(tls.clone());
        }
    }

    /// Reads the certificates of all listeners again.
    #[cfg(feature = "signals")]
    pub(crate) fn reload(&mut self) {
        // Reading takes one descriptor at a time, and there may be no other.
        drop(self.reserve.take());
        #[cfg(feature = "tls")]
        for tls in &self.certificates {
            match tls.reload() {
                Ok(()) => log::info!("hangup signal: {tls:?} reloaded, for those who come now"),
                Err(error) => log::error!("hangup signal: the old certificate stays: {error}"),
            }
        }
        self.reserve = File::open("/dev/null").ok();
        #[cfg(feature = "tls")]
        if !self.certificates.is_empty() {
            return;
        }
        log::info!("hangup signal: nothing to reload");
    }

    /// What a piece of the embedder's code gave; none where it panicked, which is counted and
    /// logged.
    pub(crate) fn caught<R>(&mut self, outcome: std::thread::Result<R>, name: &str) -> Option<R> {
        if outcome.is_err() {
            self.counters.panics += 1;
            log::error!("{name}: a hook of the handler panicked");
        }
        outcome.ok()
    }

    /// Connections were ended for the budget of all; each is logged by itself as well.
    pub(crate) fn relieved(&mut self) {
        if lapsed(&mut self.relieved, self.now, REFUSED_EVERY) {
            let most = self.max_total_output;
            log::warn!("too much unsent output in all (max_total_output, {most} bytes): resetting");
        }
    }

    /// A newcomer was turned away from a service that is full.
    pub(crate) fn count_full(&mut self, name: &str, most: usize) {
        self.counters.refused += 1;
        if lapsed(&mut self.full, self.now, REFUSED_EVERY) {
            log::warn!("{name}: full with {most} connections (max_connections): turning away");
        }
    }

    /// A newcomer was turned away whose address has as many connections as it may.
    pub(crate) fn count_crowded(&mut self, name: &str, peer: Option<SocketAddr>, most: usize) {
        self.counters.refused += 1;
        if let Some(peer) = peer
            && lapsed(&mut self.crowded, self.now, REFUSED_EVERY)
        {
            let ip = peer.ip();
            log::warn!("{name}: {ip} has {most} connections (max_per_peer): turning away");
        }
    }

    /// A newcomer was turned away for where it comes from.
    pub(crate) fn count_barred(&mut self, listener: &Address, peer: SocketAddr) {
        self.counters.refused += 1;
        if lapsed(&mut self.barred, self.now, REFUSED_EVERY) {
            log::warn!(
                "{listener}: {} is in none of the allowed networks: turning away",
                peer.ip()
            );
        }
    }
}

/// What the connection now served has written into the arena and not been given yet: to give it
/// line by line would cost as much as the lines.
///
/// While there is one, nothing has changed the connection's state since it was begun: whatever
/// would is preceded by a commit.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) of: Option<ConnId>,
    pub(crate) start: usize,
    /// Length of the arena from which the connection is held back; 0 where it takes no input, and
    /// without a reply.
    pub(crate) end: usize,
}

/// Whether something last done at `last` may be done again now; then it counts as done.
pub(crate) fn lapsed(last: &mut Nanos, now: Nanos, every: Duration) -> bool {
    let may = *last == 0 || now - *last >= nanos(every);
    if may {
        *last = now;
    }
    may
}
