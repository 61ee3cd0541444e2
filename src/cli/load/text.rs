//! The result for people.

use std::fmt::Write;
use std::time::Duration;

use super::crew::Crew;
use super::options::Mode;
use super::outcome::Outcome;
use super::units::{bytes, grouped, time};

/// The quantiles that are shown, and their names.
pub(crate) const QUANTILES: [(f64, &str); 4] =
    [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9")];

/// Writing into memory does not fail.
macro_rules! row {
    ($text:expr, $name:expr, $($rest:tt)+) => {{
        let _ = write!($text, "{:<10} ", $name);
        let _ = writeln!($text, $($rest)+);
    }};
}

pub(crate) fn text(crew: &Crew, outcome: &Outcome) -> String {
    let (plan, tally) = (&crew.plan, &crew.tally);
    let mut text = format!("{}\n", plan.describe());
    let early = if crew.interrupted { " (interrupted)" } else { "" };
    let mut clients = format!("{} of {} connected", crew.connected, plan.clients);
    if tally.connections > u64::from(crew.connected) {
        let each_second = tally.connections as f64 / outcome.elapsed.as_secs_f64().max(1e-9);
        let _ = write!(
            clients,
            ", {} connections: {}/s",
            grouped(tally.connections),
            grouped(each_second as u64)
        );
    } else if plan.mode != Mode::Time && crew.all_here > 0 {
        let _ = write!(clients, " in {}", time(Duration::from_nanos(crew.all_here)));
    }
    row!(text, "clients", "{clients}");
    let elapsed = time(outcome.elapsed);
    let (lines, rate) = (grouped(tally.lines), grouped(outcome.lines_per_s as u64));
    let asked = plan.rate.filter(|rate| outcome.lines_per_s < 0.95 * rate);
    let asked = match (plan.mode, asked) {
        (Mode::Presence, _) | (_, None) => String::new(),
        (_, Some(rate)) => format!(", {rate}/s asked"),
    };
    row!(text, "lines", "{lines} in {elapsed}{early}: {rate}/s{asked}");
    if plan.mode == Mode::Presence {
        let each_second = tally.messages as f64 / outcome.elapsed.as_secs_f64().max(1e-9);
        let (messages, rate) = (grouped(tally.messages), grouped(each_second as u64));
        row!(text, "messages", "{messages} heard by all: {rate}/s");
    }
    let (sent, received) = (bytes(outcome.sent_per_s), bytes(outcome.received_per_s));
    row!(text, "bytes", "{sent}/s sent, {received}/s received");
    if let Some(interval) = tally.interval {
        row!(text, "interval", "{}", time(Duration::from_nanos(interval)));
    }
    let name = if plan.mode == Mode::Time { "jitter" } else { "latency" };
    let latencies = &tally.latencies;
    if !latencies.is_empty() {
        let show = |nanos| time(Duration::from_nanos(nanos));
        let mut shown = format!("min {}", show(latencies.min()));
        for (quantile, name) in QUANTILES {
            let _ = write!(shown, "  {name} {}", show(latencies.value_at_quantile(quantile)));
        }
        row!(text, name, "{shown}  max {}", show(latencies.max()));
    }
    if let Some(server) = outcome.server {
        let per_line = server.cpu_per_line.map(|each| format!(", {} a line", time(each)));
        let per_line = per_line.unwrap_or_default();
        let memory = match server.memory_per_client {
            Some(each) => format!(", {} a client", bytes(each)),
            None => String::new(),
        };
        let all = server.memory.map(|memory| bytes(memory as f64)).join(", ");
        row!(text, "server", "CPU {:.0} %{per_line}", server.cpu.percent);
        row!(text, "", "resident before, connected, at the end: {all}{memory}");
    }
    if let Some(cpu) = outcome.tester {
        let warning = if cpu.is_bottleneck() {
            ": it is the bottleneck, the server may do more than this"
        } else {
            ""
        };
        row!(text, "tester", "CPU {:.0} %{warning}", cpu.percent);
    }
    if tally.errors() == 0 {
        row!(text, "errors", "none");
    }
    for (index, (fault, count)) in tally.faults().enumerate() {
        let name = if index == 0 { "errors" } else { "" };
        row!(text, name, "{} {}", grouped(count), fault.name().replace('_', " "));
    }
    if let Some((got, wanted)) = &tally.first_wrong {
        row!(text, "wrong", "\"{got}\"");
        row!(text, "not", "\"{wanted}\"");
    }
    text
}
