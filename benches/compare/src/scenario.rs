use std::fmt;
use std::time::Duration;

use crate::load::{self, Echo, Sample, Span};
use crate::peers::{Peer, Service};
use crate::server::Server;
use crate::{Result, sys};

#[derive(Clone, Copy)]
pub enum Kind {
    /// Bursts of `depth` lines, each as soon as the last one is answered.
    Lines { clients: usize, depth: usize },
    /// One line in flight for each of the active, while others are there and say nothing.
    AmongIdle { active: usize, idle: usize },
    /// Connect, a line, BYE, wait for the end.
    Churn { clients: usize },
    /// Memory of connections that have had a line and now say nothing.
    Idle { clients: usize },
    /// One speaks, all hear it.
    FanOut { listeners: usize, depth: usize },
    /// A line a second to each.
    Clock { clients: usize },
}

pub struct Scenario {
    pub name: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    pub kind: Kind,
}

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "ping-pong-100",
        title: "ping-pong, 100 clients",
        unit: "line",
        kind: Kind::Lines { clients: 100, depth: 1 },
    },
    Scenario {
        name: "ping-pong-10000",
        title: "ping-pong, 10,000 clients",
        unit: "line",
        kind: Kind::Lines { clients: 10_000, depth: 1 },
    },
    Scenario {
        name: "pipelined-64",
        title: "pipelined 64 deep, 50 clients",
        unit: "line",
        kind: Kind::Lines { clients: 50, depth: 64 },
    },
    Scenario {
        name: "pipelined-512",
        title: "pipelined 512 deep, 8 clients",
        unit: "line",
        kind: Kind::Lines { clients: 8, depth: 512 },
    },
    Scenario {
        name: "among-idle",
        title: "100 active among 10,000 idle",
        unit: "line",
        kind: Kind::AmongIdle { active: 100, idle: 10_000 },
    },
    Scenario {
        name: "churn",
        title: "churn: connect, line, BYE",
        unit: "connection",
        kind: Kind::Churn { clients: 32 },
    },
    Scenario {
        name: "idle",
        title: "10,000 idle: memory of each",
        unit: "connection",
        kind: Kind::Idle { clients: 10_000 },
    },
    Scenario {
        name: "fan-out-1",
        title: "fan-out to 1,000, 1 in flight",
        unit: "delivery",
        kind: Kind::FanOut { listeners: 1000, depth: 1 },
    },
    Scenario {
        name: "fan-out-16",
        title: "fan-out to 1,000, 16 in flight",
        unit: "delivery",
        kind: Kind::FanOut { listeners: 1000, depth: 16 },
    },
    Scenario {
        name: "clock",
        title: "the clock, 10,000 clients",
        unit: "line",
        kind: Kind::Clock { clients: 10_000 },
    },
];

/// Why a measurement came to nothing: a server that stands still, or a machine that did.
#[derive(Debug)]
pub struct NothingServed;

impl fmt::Display for NothingServed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing was served in the time of the measurement")
    }
}

impl std::error::Error for NothingServed {}

/// What one measurement came to.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Units a second, and the 99th percentile of what one takes in microseconds.
    pub speed: Option<(f64, f64)>,
    /// CPU nanoseconds of the server, or bytes, per unit.
    pub cost: f64,
    /// The cost as a ratio to the same without the idle ones.
    pub alone: Option<f64>,
    /// How busy the load was: near 1 it was the bottleneck.
    pub load: Option<f64>,
}

impl Figures {
    fn new(sample: &Sample) -> Result<Figures> {
        if sample.units == 0 {
            return Err(NothingServed.into());
        }
        let (units, elapsed) = (sample.units as f64, sample.elapsed.as_secs_f64());
        let p99 = sample.latency.value_at_quantile(0.99) as f64 / 1e3;
        Ok(Figures {
            speed: Some((units / elapsed, p99)),
            cost: sample.cpu.as_nanos() as f64 / units,
            alone: None,
            load: Some(sample.own.as_secs_f64() / elapsed),
        })
    }

    fn of_memory(bytes: f64) -> Figures {
        Figures { speed: None, cost: bytes, alone: None, load: None }
    }
}

impl Scenario {
    pub fn service(&self) -> Service {
        match self.kind {
            Kind::FanOut { .. } => Service::Presence,
            Kind::Clock { .. } => Service::Clock,
            _ => Service::Echo,
        }
    }

    pub fn is_memory(&self) -> bool {
        matches!(self.kind, Kind::Idle { .. })
    }

    /// The same with few clients, to see whether it is served rightly.
    pub fn brief(&self) -> Scenario {
        let few = |count: usize| count.min(40);
        let kind = match self.kind {
            Kind::Lines { clients, depth } => Kind::Lines { clients: few(clients), depth },
            Kind::AmongIdle { active, idle } => {
                Kind::AmongIdle { active: few(active), idle: few(idle) }
            }
            Kind::Churn { clients } => Kind::Churn { clients: few(clients) },
            Kind::Idle { clients } => Kind::Idle { clients: few(clients) },
            Kind::FanOut { listeners, depth } => Kind::FanOut { listeners: few(listeners), depth },
            Kind::Clock { clients } => Kind::Clock { clients: few(clients) },
        };
        Scenario { kind, ..*self }
    }

    pub fn measure(&self, server: &Server, span: Span, core: Option<usize>) -> Result<Figures> {
        match self.kind {
            Kind::Lines { clients, depth } => {
                let mut echo = Echo::new(server)?;
                echo.open(clients, depth)?;
                Figures::new(&echo.run(clients, span)?)
            }
            Kind::AmongIdle { active, idle } => {
                let mut echo = Echo::new(server)?;
                echo.open(active, 1)?;
                let alone = Figures::new(&echo.run(active, span)?)?;
                echo.open(idle, 1)?;
                let figures = Figures::new(&echo.run(active, span)?)?;
                Ok(Figures { alone: Some(figures.cost / alone.cost), ..figures })
            }
            Kind::Churn { clients } => Figures::new(&load::churn(server, clients, span)?),
            Kind::Idle { clients } => idle(server.peer(), clients, core),
            Kind::FanOut { listeners, depth } => {
                Figures::new(&load::fanout(server, listeners, depth, span)?)
            }
            Kind::Clock { clients } => {
                // Whole seconds: each client has as many lines.
                let seconds = span.measured.as_secs().max(if clients < 1000 { 1 } else { 2 });
                let measured = Duration::from_secs(seconds);
                Figures::new(&load::clock(server, clients, Span { measured, ..span })?)
            }
        }
    }
}

/// In a process of its own: what earlier clients have used is not always given back.
fn idle(peer: &'static Peer, clients: usize, core: Option<usize>) -> Result<Figures> {
    let server = Server::start(peer, Service::Echo, core)?;
    // What the first connections set up once and for all does not count.
    let mut first = Echo::new(&server)?;
    first.open(16, 1)?;
    drop(first);
    server.quiet()?;
    let before = server.memory()?;
    let mut echo = Echo::new(&server)?;
    echo.open(clients, 1)?;
    server.quiet()?;
    let grown = server.memory()?.saturating_sub(before);
    Ok(Figures::of_memory(grown as f64 / clients as f64))
}

/// The cores for the servers and for the load, where there are two.
pub fn cores() -> Option<(usize, usize)> {
    let cores = sys::cores();
    cores.first().copied().zip(cores.last().copied()).filter(|(first, last)| first != last)
}
