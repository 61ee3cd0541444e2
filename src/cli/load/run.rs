//! What all modes share: the clients, the phases, the times.

use std::time::{Duration, Instant};

use reactor::{ConnId, Connect, ServiceContext};

use super::fault::Fault;
use super::metrics::Metrics;
use super::options::Load;
use super::progress::Progress;
use super::ramp::Ramp;
use super::source_addresses::SourceAddresses;
use crate::cli::process::Usage;

/// How long a server may take for what it owes: a greeting, the last replies, the goodbye.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Why a client could not be connected.
#[derive(Debug)]
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
    connect: Connect,
    pub(crate) metrics: Metrics,
    pub(crate) phase: Phase,
    pub(crate) ramp: Ramp,
    sources: SourceAddresses,
    /// The connections of the clients that are here, by number.
    pub(crate) ids: Vec<Option<ConnId>>,
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
    pub(crate) progress: Progress,
}

impl Run {
    pub(crate) fn new(plan: Load, connect: Connect) -> Run {
        let clients = plan.clients() as usize;
        let mut run = Run {
            metrics: Metrics::new(),
            phase: Phase::Connecting,
            ramp: Ramp::new(plan.clients(), plan.ramp),
            sources: SourceAddresses::new(&plan.target.address, plan.clients()),
            ids: vec![None; clients],
            here: 0,
            connected: 0,
            ever: vec![false; clients],
            origin: Instant::now(),
            moved: 0,
            all_here: 0,
            started: 0,
            ended: 0,
            last_line: 0,
            interrupted: false,
            refusal: None,
            server: Readings::default(),
            own: Readings::default(),
            progress: Progress::new(&plan),
            plan,
            connect,
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

    pub(crate) fn is_loading(&self) -> bool {
        self.phase == Phase::Loading
    }

    /// Whether what comes now is of no interest, or was counted as missing.
    pub(crate) fn has_given_up(&self) -> bool {
        use Phase::{Leaving, Over, Settling};
        matches!(self.phase, Settling { gave_up: true, .. } | Leaving { gave_up: true, .. } | Over)
    }

    pub(crate) fn is_settling(&self) -> bool {
        matches!(self.phase, Phase::Settling { .. })
    }

    /// Begins the load: lines may be sent from now on.
    pub(crate) fn start(&mut self, now: u64) {
        self.phase = Phase::Loading;
        self.started = now;
        self.server.start = self.plan.server_pid.and_then(Usage::of);
        self.own.start = Usage::own();
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

    /// When the load is to end.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.plan.duration().map(|duration| self.started + nanos(duration))
    }

    /// When the clients that have not been greeted are given up. They have as long as the load will
    /// last, at least as long as a greeting may take, and what the ramp takes on top.
    pub(crate) fn late(&self) -> u64 {
        let ramp = self.plan.ramp.map_or(0.0, |ramp| f64::from(self.plan.clients()) / ramp);
        nanos(self.plan.duration().unwrap_or_default().max(PATIENCE)) + (ramp * 1e9) as u64
    }

    /// Opens as many connections as may be opened now.
    pub(crate) fn fill<S: Default>(&mut self, cx: &mut ServiceContext<'_, Client<S>>) {
        if self.phase == Phase::Over {
            return;
        }
        let now = self.now(cx);
        while let Some(number) = self.ramp.next(now) {
            let (source, address) = self.sources.next();
            let client = Client { number, source, since: now, ..Client::default() };
            let target = &self.connect;
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
            self.ramp.again(number);
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

    pub(crate) fn show(&mut self, now: u64) {
        let Run { progress, plan, metrics, phase, here, started, .. } = self;
        match phase {
            Phase::Connecting => progress.connecting(*here),
            Phase::Loading => progress.loading(plan, metrics, *started, now),
            Phase::Settling { .. } | Phase::Leaving { .. } => progress.settling(),
            Phase::Over => {}
        }
    }

    /// How long the load lasted.
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.ended.max(self.last_line).saturating_sub(self.started))
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2)
}
