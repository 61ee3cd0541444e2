//! What all modes share: the clients, the phases, the times.

use std::time::{Duration, Instant};

use reactor::{ConnId, Connect, ServiceContext};

use super::fault::Fault;
use super::metrics::Metrics;
use super::options::Load;
use super::progress::Progress;
use super::ramp::Ramp;
use super::report::summary::QUANTILES;
use super::seconds::Cutter;
use super::source_addresses::SourceAddresses;
use super::team::Member;
use crate::cli::process::Usage;

/// How long a server may take for what it owes: a greeting, the last replies, the goodbye.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Why a client could not be connected.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) fault: Fault,
    /// For people, with the remedy where there is one.
    pub(crate) why: String,
}

/// One connection.
#[derive(Debug, Default)]
pub(crate) struct Client<S> {
    pub(crate) number: u32,
    pub(crate) state: State,
    /// Which of the [`SourceAddresses`] it connects from.
    pub(crate) source: u8,
    /// When it was dialled.
    pub(crate) since: u64,
    /// What the mode keeps of it.
    pub(crate) own: S,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Dialled,
    /// Connected, but the greeting is not complete.
    Greeting,
    /// Greeted, and not gone.
    Here,
    /// Whatever happens to it now is expected, or was counted.
    Done,
}

/// The phases of a run, in this order. Moments are nanoseconds since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The clients are being connected.
    Connecting,
    /// As `Loading`, but only until then, and not counted: `--warm-up`.
    WarmingUp {
        until: u64,
    },
    /// Nothing new is sent until all that was sent to warm up has its reply. If it has none by
    /// then, the load does not begin.
    CoolingDown {
        until: u64,
    },
    /// What the mode is about.
    Loading,
    /// Nothing new is sent. The last replies may come until `until`; then the clients that still
    /// wait are given up, and a moment later the phase ends whatever happens.
    Settling {
        until: u64,
        gave_up: bool,
    },
    /// The clients say goodbye. `until` as before.
    Leaving {
        until: u64,
        gave_up: bool,
    },
    Over,
}

/// What a process had used before the first connect, when the load began, and at its end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Readings {
    pub(crate) before: Option<Usage>,
    pub(crate) start: Option<Usage>,
    pub(crate) end: Option<Usage>,
}

/// The state of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) plan: Load,
    pub(crate) metrics: Metrics,
    pub(crate) phase: Phase,
    pub(crate) ramp: Ramp,
    sources: SourceAddresses,
    /// The connections of the clients that are here, by number.
    pub(crate) ids: Vec<Option<ConnId>>,
    /// The number of the first one; those before it are other threads'.
    pub(crate) first_client: u32,
    /// How many clients are here.
    pub(crate) here: u32,
    /// How many clients were ever here, each counted once.
    pub(crate) connected: u32,
    ever: Vec<bool>,
    origin: Instant,
    /// When a client was last dialled or greeted. The server is not mute then.
    pub(crate) moved: u64,
    /// When the last client was greeted for the first time.
    pub(crate) all_here: u64,
    pub(crate) started: u64,
    pub(crate) ended: u64,
    /// When the last right line came.
    last_line: u64,
    pub(crate) interrupted: bool,
    /// Why the first client that failed could not be connected.
    pub(crate) refusal: Option<Refusal>,
    pub(crate) server: Readings,
    pub(crate) own: Readings,
    member: Member,
    /// Cuts the load into seconds, where somebody looks at them.
    cutter: Option<Cutter>,
    /// The figures of each whole second, once it is over.
    pub(crate) seconds: Vec<[f64; 1 + QUANTILES.len()]>,
}

impl Run {
    /// `first_client` is the number of the first client of this thread.
    pub(crate) fn new(plan: Load, member: Member, first_client: u32) -> Run {
        let clients = plan.clients() as usize;
        let mut run = Run {
            metrics: Metrics::new(),
            phase: Phase::Connecting,
            ramp: Ramp::new(plan.clients(), plan.ramp, plan.most_connections()),
            sources: SourceAddresses::new(&plan.target.address, plan.clients()),
            ids: vec![None; clients],
            first_client,
            here: 0,
            connected: 0,
            ever: vec![false; clients],
            origin: member.team.origin,
            moved: 0,
            all_here: 0,
            started: 0,
            ended: 0,
            last_line: 0,
            interrupted: false,
            refusal: None,
            server: Readings::default(),
            own: Readings::default(),
            cutter: None,
            seconds: Vec::new(),
            member,
            plan,
        };
        run.server.before = run.plan.server_pid.and_then(Usage::of);
        run.own.before = Usage::own();
        run
    }

    /// The moment this turn began. It is read once a turn, so a latency is counted from the turn
    /// that sends to the turn that finds the reply: at a depth of hundreds a reading per line
    /// would cost more than the line.
    #[inline]
    pub(crate) fn now<S>(&self, cx: &ServiceContext<'_, S>) -> u64 {
        cx.now().saturating_duration_since(self.origin).as_nanos() as u64
    }

    /// Whether lines are sent, to warm up or to be counted.
    #[inline]
    pub(crate) fn is_loading(&self) -> bool {
        matches!(self.phase, Phase::Loading | Phase::WarmingUp { .. })
    }

    /// Whether what comes now is of no interest, or was counted as missing.
    pub(crate) fn has_given_up(&self) -> bool {
        use Phase::{Leaving, Over, Settling};
        matches!(self.phase, Settling { gave_up: true, .. } | Leaving { gave_up: true, .. } | Over)
    }

    pub(crate) fn is_settling(&self) -> bool {
        matches!(self.phase, Phase::Settling { .. })
    }

    /// Begins to warm up, or where that is not wanted, the load.
    pub(crate) fn begin(&mut self, now: u64) {
        match self.plan.warm_up {
            Some(warm_up) => self.phase = Phase::WarmingUp { until: now + nanos(warm_up) },
            None => self.start(now),
        }
    }

    /// Begins the load: what is sent from now on counts.
    pub(crate) fn start(&mut self, now: u64) {
        self.phase = Phase::Loading;
        self.started = now;
        self.server.start = self.plan.server_pid.and_then(Usage::of);
        self.own.start = Usage::own();
        self.cutter = self.member.team.seconds_wanted.then(|| Cutter::new(&self.metrics, now));
    }

    /// Ends the load, and begins to wait for the last replies.
    pub(crate) fn wind_up(&mut self, now: u64) {
        self.end(now);
        self.phase = Phase::Settling { until: now + nanos(PATIENCE), gave_up: false };
    }

    /// Ends the load: nothing new is begun.
    pub(crate) fn end(&mut self, now: u64) {
        self.ended = now;
        self.ramp.stop();
    }

    /// Takes the last reading, before the goodbyes, which are no load.
    pub(crate) fn read_end(&mut self) {
        self.server.end = self.plan.server_pid.and_then(Usage::of);
        self.own.end = Usage::own();
    }

    /// When the load is to end. With `--requests` alone, that is when there were no replies for a
    /// while: who waits for as many of them as a silent server does not give waits for ever.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let duration = self.plan.duration().map(|duration| self.started + nanos(duration));
        let silent = || self.started.max(self.last_line) + nanos(PATIENCE);
        match self.phase {
            Phase::WarmingUp { until } => Some(until),
            _ => duration.or(self.plan.requests.map(|_| silent())),
        }
    }

    /// When the clients that have not been greeted are given up. They have as long as the load will
    /// last, at least as long as a greeting may take, and what the ramp takes on top.
    pub(crate) fn late(&self) -> u64 {
        let ramp = self.plan.ramp.map_or(0.0, |ramp| f64::from(self.plan.clients()) / ramp);
        nanos(self.plan.duration().unwrap_or_default().max(PATIENCE)) + (ramp * 1e9) as u64
    }

    /// Opens as many connections as may be opened now.
    pub(crate) fn fill<S: Default>(
        &mut self,
        target: &Connect,
        cx: &mut ServiceContext<'_, Client<S>>,
    ) {
        if self.phase == Phase::Over {
            return;
        }
        let now = self.now(cx);
        while let Some(number) = self.ramp.next(now) {
            let (source, address) = self.sources.next();
            let client = Client { number, source, since: now, ..Client::default() };
            let dialled = match address {
                None => cx.connect(target, client),
                Some(ip) => cx.connect_from(ip, target, client),
            };
            if dialled.is_err() {
                // The reactor shuts down already.
                self.ramp.in_flight -= 1;
                return;
            }
            self.moved = now;
        }
    }

    /// A client could not be connected. If there was no port left, it is tried from another
    /// address.
    pub(crate) fn not_connected(&mut self, number: u32, source: u8, fault: Fault) {
        self.ramp.in_flight -= 1;
        if fault == Fault::NoPorts && self.sources.used_up(source) {
            self.ramp.retry(number);
        } else if self.phase != Phase::Over {
            self.metrics.fault(fault, 1);
        }
    }

    pub(crate) fn connected(&mut self) {
        self.sources.worked();
    }

    /// A client was greeted.
    pub(crate) fn arrived(&mut self, number: u32, id: ConnId, now: u64) {
        self.ramp.in_flight -= 1;
        self.moved = now;
        self.here += 1;
        self.ids[number as usize] = Some(id);
        self.metrics.connections += 1;
        if !std::mem::replace(&mut self.ever[number as usize], true) {
            self.connected += 1;
            self.all_here = now;
        }
    }

    pub(crate) fn departed(&mut self, number: u32) {
        self.here -= 1;
        self.ids[number as usize] = None;
    }

    /// Counts right lines that came now.
    #[inline]
    pub(crate) fn right(&mut self, lines: u64, now: u64) {
        self.metrics.lines += lines;
        self.last_line = now;
    }

    /// Whether the clients of all threads are connected, now that those of this one are.
    pub(crate) fn all_connected(&mut self) -> bool {
        self.member.all_connected()
    }

    /// When this second of the load ends, if somebody looks at them.
    pub(crate) fn next_second(&self) -> Option<u64> {
        self.cutter.as_ref().filter(|_| self.phase == Phase::Loading).map(|cutter| cutter.next)
    }

    /// Tells of a second that is over.
    pub(crate) fn cut_second(&mut self, now: u64) {
        if self.next_second().is_some_and(|next| next <= now)
            && let Some(cutter) = &mut self.cutter
        {
            self.member.tell(cutter.cut(&self.metrics, self.started, now));
        }
    }

    /// Tells of what is left of a second at the end.
    pub(crate) fn cut_rest(&mut self) {
        if let Some(cutter) = &mut self.cutter {
            let end = self.ended.max(self.last_line);
            self.member.leave(cutter.cut(&self.metrics, self.started, end));
        }
    }

    pub(crate) fn show(&mut self, now: u64) {
        let Run { plan, phase, started, .. } = self;
        match phase {
            Phase::Connecting => self.member.show_connecting(self.here),
            Phase::WarmingUp { .. } | Phase::CoolingDown { .. } => {
                self.member.show(|progress| progress.warming_up());
            }
            Phase::Loading => {
                let elapsed = Duration::from_nanos(now.saturating_sub(*started));
                self.member.show(|progress| progress.loading(plan, elapsed));
            }
            Phase::Settling { .. } | Phase::Leaving { .. } => {
                self.member.show(Progress::settling);
            }
            Phase::Over => {}
        }
    }

    /// Adds what another thread has done.
    pub(crate) fn add(&mut self, other: &Run) {
        self.metrics.add(&other.metrics);
        self.connected += other.connected;
        self.all_here = self.all_here.max(other.all_here);
        self.started = self.started.min(other.started);
        self.ended = self.ended.max(other.ended);
        self.last_line = self.last_line.max(other.last_line);
        self.interrupted |= other.interrupted;
        if self.refusal.is_none() {
            self.refusal.clone_from(&other.refusal);
        }
        self.server.end = later(self.server.end, other.server.end);
        self.own.end = later(self.own.end, other.own.end);
    }

    /// How long the load lasted.
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.ended.max(self.last_line).saturating_sub(self.started))
    }
}

/// The reading that was taken later. None if the process was gone at one of them.
fn later(one: Option<Usage>, other: Option<Usage>) -> Option<Usage> {
    let (one, other) = (one?, other?);
    Some(if one.cpu < other.cpu { other } else { one })
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2)
}
