use std::fmt::Write;

use super::{Figures, Row};
use crate::load::Sample;
use crate::peers::MODELS;
use crate::table::{aligned, marked, thousands};

const HEAD: [&str; 13] = [
    "clients",
    "model",
    "served",
    "wait",
    "not in",
    "KiB each",
    "lines/s",
    "p50 us",
    "p99 us",
    "ns a line",
    "ten: p99 us",
    "ns a line",
    "load busy",
];

/// One of the figures.
pub type Metric = fn(&Figures) -> f64;

pub const SERVED: Metric = |figures| figures.greeted as f64;
pub const MEMORY: Metric = |figures| figures.memory / 1024.0;
pub const SPEED: Metric = |figures| figures.all.units as f64 / figures.all.elapsed.as_secs_f64();
pub const P50: Metric = |figures| quantile(&figures.all, 0.5);
pub const P99: Metric = |figures| quantile(&figures.all, 0.99);
pub const COST: Metric = |figures| cost(&figures.all);
pub const FEW_P99: Metric = |figures| quantile(&figures.few, 0.99);
pub const FEW_COST: Metric = |figures| cost(&figures.few);

/// Microseconds.
fn quantile(sample: &Sample, quantile: f64) -> f64 {
    sample.latency.value_at_quantile(quantile) as f64 / 1e3
}

/// CPU nanoseconds of the server for each line.
fn cost(sample: &Sample) -> f64 {
    sample.cpu.as_nanos() as f64 / sample.units.max(1) as f64
}

fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    rows.iter().map(cells_of).collect()
}

fn cells_of(row: &Row) -> Vec<String> {
    let mut cells = vec![thousands(row.clients as f64), row.model.to_owned()];
    if let Ok(figures) = &row.result {
        let load = figures.all.own.as_secs_f64() / figures.all.elapsed.as_secs_f64();
        let count = |count: usize| if count == 0 { String::new() } else { thousands(count as f64) };
        cells.extend([
            count(figures.greeted),
            count(figures.waiting),
            count(figures.outside + figures.turned_away),
            format!("{:.1}", MEMORY(figures)),
        ]);
        let numbers = [SPEED, P50, P99, COST, FEW_P99, FEW_COST];
        cells.extend(numbers.map(|metric| thousands(metric(figures))));
        cells.push(format!("{:.0} %", load * 100.0));
    }
    cells.resize(HEAD.len(), String::new());
    cells
}

/// For a terminal, with a word about where each model gives up.
pub fn text(rows: &[Row]) -> String {
    let mut text = format!("{}\n{LEGEND}", aligned(&HEAD, &cells(rows)));
    for model in MODELS {
        let mut rows = rows.iter().filter(|row| row.model == model.name);
        if let Some(row) = rows.clone().find(|row| row.gave_up()) {
            let served = rows.filter_map(Row::served).max().unwrap_or(0);
            let (served, clients) = (thousands(served as f64), thousands(row.clients as f64));
            let _ = writeln!(text, "{} gives up at {served}, before {clients}", row.model);
        } else if let Some(row) = rows.next_back() {
            let clients = thousands(row.clients as f64);
            let _ = writeln!(text, "{} serves all {clients}", row.model);
        }
    }
    for row in rows {
        if let Err(error) = &row.result {
            let clients = thousands(row.clients as f64);
            let _ = writeln!(text, "{} with {clients} clients: {error}", row.model);
        }
    }
    text
}

impl Row {
    fn served(&self) -> Option<usize> {
        self.result.as_ref().ok().map(|figures| figures.greeted)
    }

    fn gave_up(&self) -> bool {
        self.served().is_none_or(|served| served < self.clients)
    }
}

const LEGEND: &str = "\
served: greeted and answered; wait: connected, and not a word from the server; not in: not even
connected, or closed by the server. KiB each: memory of the server's processes for each client
served, without files and the kernel's. lines/s to ns a line: all who are served talk, one line in flight of
each; ns a line: CPU time of the server's processes. ten: only ten of them talk.
";

pub fn markdown(rows: &[Row]) -> String {
    marked(&HEAD, &cells(rows))
}
