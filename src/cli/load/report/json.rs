//! The result for programs. The names and units are documented in the help of `load`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::summary::{QUANTILES, Summary};
use crate::cli::load::options::Mode;
use crate::cli::load::run::Run;

/// One line.
pub(crate) fn json(run: &Run, summary: &Summary) -> String {
    let (plan, metrics) = (&run.plan, &run.metrics);
    let by_kind: Map<_, _> =
        metrics.faults().map(|(fault, count)| (fault.name().to_owned(), count.into())).collect();
    let value = json!({
        "mode": plan.mode.name(),
        "target": plan.target.to_string(),
        "clients": plan.clients(),
        "connected": run.connected,
        "connections": metrics.connections,
        "connect_s": Duration::from_nanos(run.all_here).as_secs_f64(),
        "elapsed_s": summary.elapsed.as_secs_f64(),
        "interrupted": run.interrupted,
        "lines": metrics.lines,
        "lines_each": metrics.lines_each,
        "messages": (plan.mode == Mode::Presence).then_some(metrics.messages),
        "lines_per_s": summary.lines_per_s,
        "bytes_sent_per_s": summary.sent_per_s,
        "bytes_received_per_s": summary.received_per_s,
        "rate_per_s": plan.rate,
        "unsent": metrics.unsent,
        "latency_us": latencies(run),
        "interval_us": metrics.interval.map(micros),
        "errors": metrics.errors(),
        "errors_by_kind": by_kind,
        "first_wrong": metrics.first_wrong.as_ref().map(|(got, _)| got),
        "tester": summary.tester.map(|cpu| json!({
            "cpu_percent": cpu.percent,
            "is_bottleneck": cpu.is_bottleneck(),
        })),
        "server": summary.server.map(|server| json!({
            "pid": plan.server_pid,
            "cpu_us_per_line": server.cpu_per_line.map(|each| micros(each.as_nanos() as u64)),
            "cpu_percent": server.cpu.percent,
            "rss_before_bytes": server.memory[0],
            "rss_connected_bytes": server.memory[1],
            "rss_end_bytes": server.memory[2],
            "rss_bytes_per_client": server.memory_per_client,
        })),
    });
    format!("{value}\n")
}

fn latencies(run: &Run) -> Value {
    let latencies = &run.metrics.latencies;
    if latencies.is_empty() {
        return Value::Null;
    }
    let mut value = json!({
        "count": latencies.len(),
        "min": micros(latencies.min()),
        "mean": latencies.mean() / 1e3,
        "max": micros(latencies.max()),
    });
    for (quantile, name) in QUANTILES {
        value[name.replace('.', "_")] = micros(latencies.value_at_quantile(quantile)).into();
    }
    value
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}
