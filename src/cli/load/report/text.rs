//! The result for people.

use std::fmt::Write;
use std::time::Duration;

use super::summary::{QUANTILES, Server, Summary};
use crate::cli::load::fault::Fault;
use crate::cli::load::format::{bytes, grouped, rate, time};
use crate::cli::load::options::{Load, Mode};
use crate::cli::load::run::{Refusal, Run};

/// Appends a row: its name and its text. Writing into memory does not fail.
macro_rules! row {
    ($text:expr, $name:expr, $($rest:tt)+) => {{
        let _ = write!($text, "{:<10} ", $name);
        let _ = writeln!($text, $($rest)+);
    }};
}

/// One row for each thing that was measured.
pub(crate) fn text(run: &Run, summary: &Summary) -> String {
    let (plan, metrics) = (&run.plan, &run.metrics);
    let mut text = format!("{}\n", title(plan));
    row!(text, "clients", "{}", clients(run, summary));
    let early = if run.interrupted { " (interrupted)" } else { "" };
    let (lines, elapsed) = (grouped(metrics.lines), time(summary.elapsed));
    let name = plan.talk.counted();
    row!(text, name, "{lines} in {elapsed}{early}: {}", rate(summary.lines_per_s));
    if let Some(requests) = plan.requests {
        let sent =
            if plan.mode == Mode::Churn { metrics.connections } else { metrics.sent.unwrap_or(0) };
        let (requests, sent) = (grouped(requests), grouped(sent));
        row!(text, "requests", "{sent} of {requests} sent, {lines} answered");
    }
    if plan.mode == Mode::Presence {
        let each = rate(per_second(metrics.messages, summary));
        row!(text, "messages", "{} heard by all: {each}", grouped(metrics.messages));
    }
    if let Some(unsent) = metrics.unsent.filter(|unsent| *unsent > 0) {
        row!(text, "unsent", "{} of the lines that were due", grouped(unsent));
    }
    let (sent, received) = (bytes(summary.sent_per_s), bytes(summary.received_per_s));
    row!(text, "bytes", "{sent}/s sent, {received}/s received");
    if let Some(interval) = metrics.interval {
        row!(text, "interval", "{}", nanos(interval));
    }
    let latencies = &metrics.latencies;
    if !latencies.is_empty() {
        let mut shown = format!("min {}", nanos(latencies.min()));
        for (quantile, name) in QUANTILES {
            let _ = write!(shown, "  {name} {}", nanos(latencies.value_at_quantile(quantile)));
        }
        row!(text, plan.mode.measured(), "{shown}  max {}", nanos(latencies.max()));
    }
    if plan.server_pid.is_some() {
        server(&mut text, summary.server.as_ref());
    }
    if let Some(cpu) = summary.tester {
        let more = if plan.mode.has_threads() { ": try more --threads" } else { "" };
        let warning = if cpu.is_bottleneck() {
            format!(": it is the bottleneck, the server may do more than this{more}")
        } else {
            String::new()
        };
        row!(text, "tester", "CPU {:.0} %{warning}", cpu.percent);
    }
    errors(&mut text, run);
    text
}

/// What was asked for: the first line of the result, and the title of the drawing.
pub(crate) fn title(plan: &Load) -> String {
    let Load { target, mode, size, .. } = plan;
    let lines = match plan.depth() {
        1 => format!("1 line of {size} bytes in flight"),
        depth => format!("{} lines of {size} bytes in flight", grouped(depth as u64)),
    };
    let (head, what) = match (mode, plan.talk.words()) {
        (Mode::Churn, Some(words)) => {
            (format!("churn, {words}"), "one on each connection".to_owned())
        }
        (_, Some(words)) => (words, format!("{} in flight each", grouped(plan.depth() as u64))),
        (mode, None) => (mode.name().to_owned(), on_our_own(*mode, *size, lines)),
    };
    let clients = match plan.clients() {
        1 => "1 client".to_owned(),
        clients => format!("{} clients", grouped(clients.into())),
    };
    let clients = match plan.threads {
        1 => clients,
        threads => format!("{clients} in {threads} threads"),
    };
    let rate = plan.rate.map(|rate| format!(", {} lines/s asked", grouped(rate as u64)));
    format!("{head} to {target}: {clients}, {what}{}", rate.unwrap_or_default())
}

/// What clients do with a service of ours.
fn on_our_own(mode: Mode, size: usize, lines: String) -> String {
    match mode {
        Mode::Echo | Mode::Pipeline => format!("{lines} each"),
        Mode::Presence => lines,
        Mode::Idle => "silent".to_owned(),
        Mode::Churn => format!("one line of {size} bytes each time"),
        Mode::Time => "listening".to_owned(),
    }
}

fn clients(run: &Run, summary: &Summary) -> String {
    let (plan, metrics) = (&run.plan, &run.metrics);
    let (connected, all) = (grouped(run.connected.into()), grouped(plan.clients().into()));
    let mut text = format!("{connected} of {all} connected");
    if metrics.connections > u64::from(run.connected) {
        let each = rate(per_second(metrics.connections, summary));
        let _ = write!(text, ", {} connections: {each}", grouped(metrics.connections));
    } else if let Some(lines) = metrics.lines_each.filter(|_| metrics.count(Fault::LineCount) == 0)
    {
        let _ = write!(text, ", {} lines each", grouped(lines));
    } else if plan.mode != Mode::Time && run.all_here > 0 {
        let _ = write!(text, " in {}", nanos(run.all_here));
    }
    text
}

fn server(text: &mut String, server: Option<&Server>) {
    let Some(server) = server else {
        row!(text, "server", "its process is gone");
        return;
    };
    let per_line = server.cpu_per_line.map(|each| format!(", {} a line", time(each)));
    let per_client = server.memory_per_client.map(|each| format!(", {} a client", bytes(each)));
    let memory = server.memory.map(|memory| bytes(memory as f64)).join(", ");
    row!(text, "server", "CPU {:.0} %{}", server.cpu.percent, per_line.unwrap_or_default());
    let per_client = per_client.unwrap_or_default();
    row!(text, "", "resident before, connected, at the end: {memory}{per_client}");
}

fn errors(text: &mut String, run: &Run) {
    let metrics = &run.metrics;
    if metrics.errors() == 0 {
        row!(text, "errors", "none");
    }
    for (index, (fault, count)) in metrics.faults().enumerate() {
        let name = if index == 0 { "errors" } else { "" };
        // The names of the others say it all.
        let untold = |refusal: &&Refusal| fault == Fault::Connect && refusal.fault == fault;
        let why = run.refusal.as_ref().filter(untold).map(|refusal| format!(": {}", refusal.why));
        let kind = fault.name().replace('_', " ");
        row!(text, name, "{} {kind}{}", grouped(count), why.unwrap_or_default());
    }
    if let Some(wrong) = &metrics.first_wrong {
        if let Some(sent) = &wrong.sent {
            row!(text, "sent", "\"{sent}\"");
        }
        row!(text, "wrong", "\"{}\"", wrong.got);
        match wrong.wanted.as_str() {
            "" => row!(text, "", "where nothing was due"),
            wanted => row!(text, "not", "\"{wanted}\""),
        }
    }
}

fn nanos(nanos: u64) -> String {
    time(Duration::from_nanos(nanos))
}

fn per_second(count: u64, summary: &Summary) -> f64 {
    count as f64 / summary.elapsed.as_secs_f64().max(1e-9)
}
