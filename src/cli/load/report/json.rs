//! The result for programs. The names and units are documented in the help of `load`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::chart::curve;
use super::summary::{Figure, QUANTILES, Server, Summary};
use crate::cli::load::options::Mode;
use crate::cli::load::run::Run;

pub(crate) fn json(run: &Run, summary: &Summary) -> Value {
    let (plan, metrics) = (&run.plan, &run.metrics);
    let by_kind: Map<_, _> =
        metrics.faults().map(|(fault, count)| (fault.name().to_owned(), count.into())).collect();
    let wrong = metrics.first_wrong.as_ref();
    let mut value = json!({
        "date": super::date(summary.date),
        "mode": plan.mode.name(),
        "target": plan.target.to_string(),
        "clients": plan.clients(),
        "threads": plan.threads,
        "protocol": plan.talk.name(),
        "depth": plan.depth(),
        "size": plan.size,
        "warm_up_s": plan.warm_up.map(|warm_up| warm_up.as_secs_f64()),
        "connected": run.connected,
        "connections": metrics.connections,
        "connect_s": Duration::from_nanos(run.all_here).as_secs_f64(),
        "elapsed_s": summary.elapsed.as_secs_f64(),
        "interrupted": run.interrupted,
        "requests": plan.requests,
        "sent": metrics.sent,
        "lines": metrics.lines,
        "lines_each": metrics.lines_each,
        "messages": (plan.mode == Mode::Presence).then_some(metrics.messages),
        "lines_per_s": summary.lines_per_s,
        "bytes_sent_per_s": summary.sent_per_s,
        "bytes_received_per_s": summary.received_per_s,
    });
    let rest = json!({
        "rate_per_s": plan.rate,
        "unsent": metrics.unsent,
        "latency_us": latencies(run),
        "latency_curve_us": curve(&metrics.latencies).into_iter().map(|nanos| nanos / 1e3).collect::<Vec<_>>(),
        "seconds": seconds(run, summary),
        "interval_us": metrics.interval.map(micros),
        "errors": metrics.errors(),
        "errors_by_kind": by_kind,
        "first_wrong": wrong.map(|wrong| &wrong.got),
        "first_wrong_expected": wrong.map(|wrong| &wrong.wanted),
        "first_wrong_sent": wrong.and_then(|wrong| wrong.sent.as_ref()),
        "tester": summary.tester.map(|cpu| json!({
            "cpu_percent": cpu.percent,
            "is_bottleneck": cpu.is_bottleneck(),
        })),
        "server": server(plan.server_pid, summary.server),
    });
    // One object, of which no macro could hold all the names.
    value
        .as_object_mut()
        .into_iter()
        .for_each(|all| all.extend(rest.as_object().cloned().unwrap_or_default()));
    value
}

fn server(pid: Option<u32>, server: Option<Server>) -> Value {
    let Some(server) = server else { return Value::Null };
    json!({
        "pid": pid,
        "cpu_us_per_line": server.cpu_per_line.map(|each| micros(each.as_nanos() as u64)),
        "cpu_percent": server.cpu.percent,
        "rss_before_bytes": server.memory[0],
        "rss_connected_bytes": server.memory[1],
        "rss_end_bytes": server.memory[2],
        "rss_bytes_per_client": server.memory_per_client,
    })
}

/// How much the figures vary from second to second.
fn seconds(run: &Run, summary: &Summary) -> Value {
    let mut value = json!({ "count": run.seconds.len() });
    for figure in Figure::all() {
        let (key, unit) = figure.key();
        value[key] = match summary.spread(figure) {
            Some(it) => json!({ "mean": it.mean / unit, "deviation": it.deviation / unit }),
            None => Value::Null,
        };
    }
    value
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
