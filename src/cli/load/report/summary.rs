//! What the result says beside the counts: rates, CPU time, memory.

use std::time::Duration;

use jiff::Timestamp;

use crate::cli::load::run::{Readings, Run};
use crate::cli::load::seconds::Spread;
use crate::cli::process::Usage;

/// The quantiles that are printed, and their names.
pub(crate) const QUANTILES: [(f64, &str); 4] =
    [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9")];

/// A figure of which there is one for each second too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    LinesPerSecond,
    /// At the quantile of this place in [`QUANTILES`], in nanoseconds.
    Latency(usize),
}

impl Figure {
    /// In the order of the figures of a second.
    pub(crate) fn all() -> impl Iterator<Item = Figure> {
        [Figure::LinesPerSecond].into_iter().chain((0..QUANTILES.len()).map(Figure::Latency))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Figure::LinesPerSecond => "lines/s",
            Figure::Latency(at) => QUANTILES[at].1,
        }
    }

    /// Its name in the JSON result, and the unit there.
    pub(crate) fn key(self) -> (String, f64) {
        match self {
            Figure::LinesPerSecond => ("lines_per_s".to_owned(), 1.0),
            Figure::Latency(at) => (format!("{}_us", QUANTILES[at].1.replace('.', "_")), 1e3),
        }
    }
}

/// Above this share of a core, the tester may be what limits the throughput.
const BUSY: f64 = 90.0;
/// Less CPU time than this is too coarse to judge by, since it comes in hundredths of a second.
const JUDGED: Duration = Duration::from_millis(100);

/// The computed part of the result.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    /// When the run was over.
    pub(crate) date: Timestamp,
    pub(crate) elapsed: Duration,
    pub(crate) lines_per_s: f64,
    pub(crate) sent_per_s: f64,
    pub(crate) received_per_s: f64,
    pub(crate) tester: Option<Cpu>,
    pub(crate) server: Option<Server>,
    /// In nanoseconds, in the order of [`QUANTILES`]; empty without latencies.
    pub(crate) latencies: Vec<u64>,
    /// How much each [`Figure`] varies.
    pub(crate) spreads: Vec<Option<Spread>>,
}

/// CPU time used during the load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    pub(crate) time: Duration,
    /// Of one core.
    pub(crate) percent: f64,
    /// Threads that have used it.
    pub(crate) threads: usize,
}

impl Cpu {
    fn between(start: Option<Usage>, end: Option<Usage>, elapsed: Duration) -> Option<Cpu> {
        let time = end?.cpu.saturating_sub(start?.cpu);
        Some(Cpu { time, percent: 100.0 * per(time.as_secs_f64(), elapsed), threads: 1 })
    }

    pub(crate) fn is_bottleneck(self) -> bool {
        self.percent > BUSY * self.threads as f64 && self.time >= JUDGED
    }
}

/// What the server's process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Server {
    pub(crate) cpu: Cpu,
    /// None without lines, or if the CPU time is too coarse.
    pub(crate) cpu_per_line: Option<Duration>,
    /// Resident bytes before, with all connected, at the end.
    pub(crate) memory: [u64; 3],
    /// How much the clients added, divided by their number. None in modes that do not connect all
    /// clients before the load.
    pub(crate) memory_per_client: Option<f64>,
}

impl Server {
    fn new(readings: Readings, lines: u64, clients: u32, elapsed: Duration) -> Option<Server> {
        let Readings { before: Some(before), start: Some(start), end: Some(end) } = readings else {
            return None;
        };
        let cpu = Cpu::between(Some(start), Some(end), elapsed)?;
        let judged = if cpu.time < JUDGED { 0 } else { lines };
        let per_line = cpu.time.as_nanos().checked_div(u128::from(judged));
        let more = start.memory as f64 - before.memory as f64;
        Some(Server {
            cpu,
            cpu_per_line: per_line.map(|nanos| Duration::from_nanos(nanos as u64)),
            memory: [before, start, end].map(|usage| usage.memory),
            memory_per_client: (clients > 0).then(|| more / f64::from(clients)),
        })
    }
}

impl Summary {
    pub(crate) fn new(run: &Run) -> Summary {
        let (metrics, elapsed) = (&run.metrics, run.elapsed());
        let clients = if run.plan.mode.begins_at_once() { 0 } else { run.connected };
        Summary {
            elapsed,
            lines_per_s: per(metrics.lines as f64, elapsed),
            sent_per_s: per(metrics.bytes_sent as f64, elapsed),
            received_per_s: per(metrics.bytes_received as f64, elapsed),
            date: Timestamp::now(),
            tester: Cpu::between(run.own.start, run.own.end, elapsed)
                .map(|cpu| Cpu { threads: run.plan.threads, ..cpu }),
            server: Server::new(run.server, metrics.lines, clients, elapsed),
            latencies: match metrics.latencies.is_empty() {
                true => Vec::new(),
                false => QUANTILES
                    .map(|(quantile, _)| metrics.latencies.value_at_quantile(quantile))
                    .to_vec(),
            },
            spreads: (0..1 + QUANTILES.len()).map(|at| spread(&run.seconds, at)).collect(),
        }
    }

    pub(crate) fn figure(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::LinesPerSecond => Some(self.lines_per_s),
            Figure::Latency(at) => self.latencies.get(at).map(|nanos| *nanos as f64),
        }
    }

    pub(crate) fn spread(&self, figure: Figure) -> Option<Spread> {
        let at = Figure::all().position(|it| it == figure)?;
        self.spreads.get(at).copied().flatten()
    }
}

/// How much the figures at this place vary.
fn spread(seconds: &[[f64; 1 + QUANTILES.len()]], at: usize) -> Option<Spread> {
    Spread::of(&seconds.iter().map(|figures| figures[at]).collect::<Vec<_>>())
}

/// How many in a second, or 0 if no time has passed.
fn per(count: f64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { count / elapsed.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn used(millis: u64, memory: u64) -> Option<Usage> {
        Some(Usage { cpu: Duration::from_millis(millis), memory })
    }

    #[test]
    fn cpu_per_line_and_memory_per_client() {
        let readings =
            Readings { before: used(10, 1000), start: used(100, 21_000), end: used(1100, 30_000) };
        let server = Server::new(readings, 1_000_000, 100, 2 * SECOND).unwrap();
        assert_eq!(server.cpu, Cpu { time: SECOND, percent: 50.0, threads: 1 });
        assert_eq!(server.cpu_per_line, Some(Duration::from_micros(1)));
        assert_eq!(server.memory_per_client, Some(200.0));
        let silent = Server::new(readings, 0, 0, SECOND).unwrap();
        assert_eq!((silent.cpu_per_line, silent.memory_per_client), (None, None));
        let brief = Readings { end: used(190, 21_000), ..readings };
        assert_eq!(Server::new(brief, 1000, 0, SECOND).unwrap().cpu_per_line, None);
        assert_eq!(Server::new(Readings { end: None, ..readings }, 1, 1, SECOND), None);
    }

    #[test]
    fn nothing_is_divided_by_no_time() {
        assert_eq!(per(5.0, Duration::ZERO), 0.0);
        let cpu = Cpu::between(used(0, 0), used(500, 0), Duration::ZERO).unwrap();
        assert_eq!(cpu.percent, 0.0);
    }

    #[test]
    fn a_busy_tester_is_the_bottleneck_if_it_was_measured_well_enough() {
        let after = |millis| Cpu::between(used(0, 0), used(millis, 0), SECOND).unwrap();
        assert!(after(950).is_bottleneck() && !Cpu { threads: 2, ..after(950) }.is_bottleneck());
        assert!(!after(850).is_bottleneck());
        assert!(
            !Cpu { time: Duration::from_millis(10), percent: 100.0, threads: 1 }.is_bottleneck()
        );
    }
}
