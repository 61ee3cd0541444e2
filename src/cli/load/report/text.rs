//! The result for people.

use std::fmt::Write;
use std::time::Duration;

use super::summary::Outcome;
use crate::cli::load::fault::Fault;
use crate::cli::load::format::{bytes, grouped, rate, time};
use crate::cli::load::options::Mode;
use crate::cli::load::run::{Crew, Refusal};

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
    let each_second = |count: u64| rate(count as f64 / outcome.elapsed.as_secs_f64().max(1e-9));
    let (connected, all) = (grouped(crew.connected.into()), grouped(plan.clients().into()));
    let mut clients = format!("{connected} of {all} connected");
    if tally.connections > u64::from(crew.connected) {
        let (connections, each) = (grouped(tally.connections), each_second(tally.connections));
        let _ = write!(clients, ", {connections} connections: {each}");
    } else if let Some(lines) = tally.lines_each.filter(|_| tally.count(Fault::LineCount) == 0) {
        let _ = write!(clients, ", {} lines each", grouped(lines));
    } else if plan.mode != Mode::Time && crew.all_here > 0 {
        let _ = write!(clients, " in {}", time(Duration::from_nanos(crew.all_here)));
    }
    row!(text, "clients", "{clients}");
    let (lines, elapsed) = (grouped(tally.lines), time(outcome.elapsed));
    row!(text, "lines", "{lines} in {elapsed}{early}: {}", rate(outcome.lines_per_s));
    if plan.mode == Mode::Presence {
        let (messages, each) = (grouped(tally.messages), each_second(tally.messages));
        row!(text, "messages", "{messages} heard by all: {each}");
    }
    if let Some(unsent) = tally.unsent.filter(|unsent| *unsent > 0) {
        row!(text, "unsent", "{} of the lines that were due", grouped(unsent));
    }
    let (sent, received) = (bytes(outcome.sent_per_s), bytes(outcome.received_per_s));
    row!(text, "bytes", "{sent}/s sent, {received}/s received");
    if let Some(interval) = tally.interval {
        row!(text, "interval", "{}", time(Duration::from_nanos(interval)));
    }
    let latencies = &tally.latencies;
    if !latencies.is_empty() {
        let show = |nanos| time(Duration::from_nanos(nanos));
        let mut shown = format!("min {}", show(latencies.min()));
        for (quantile, name) in QUANTILES {
            let _ = write!(shown, "  {name} {}", show(latencies.value_at_quantile(quantile)));
        }
        row!(text, plan.mode.measured(), "{shown}  max {}", show(latencies.max()));
    }
    if plan.server_pid.is_some() && outcome.server.is_none() {
        row!(text, "server", "its process is gone");
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
        // The others say it all.
        let untold = |refusal: &&Refusal| fault == Fault::Connect && refusal.fault == fault;
        let why = crew.refusal.as_ref().filter(untold).map(|refusal| format!(": {}", refusal.why));
        let kind = fault.name().replace('_', " ");
        row!(text, name, "{} {kind}{}", grouped(count), why.unwrap_or_default());
    }
    if let Some((got, wanted)) = &tally.first_wrong {
        row!(text, "wrong", "\"{got}\"");
        match wanted.as_str() {
            "" => row!(text, "", "where nothing was due"),
            _ => row!(text, "not", "\"{wanted}\""),
        }
    }
    text
}
