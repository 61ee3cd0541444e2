use std::fmt::Write;

use super::{Figures, Row};
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

pub const SERVED: Metric = |figures| figures.greeted;
pub const MEMORY: Metric = |figures| figures.memory;
pub const COST: Metric = |figures| figures.all.cost;
pub const FEW_COST: Metric = |figures| figures.few.cost;

/// Of the Markdown: what repeats.
const LASTING: [&str; 9] = [
    "clients",
    "model",
    "served",
    "wait",
    "not in",
    "CPU a line, all talk",
    "CPU a line, ten talk",
    "memory each",
    "lines/s",
];

fn cells(head: &[&str], rows: &[Row], of: fn(&Figures) -> Vec<String>) -> Vec<Vec<String>> {
    let cells = |row: &Row| {
        let mut cells = vec![thousands(row.clients as f64), row.model.to_owned()];
        if let Ok(figures) = &row.result {
            let counts = [figures.greeted, figures.waiting, figures.outside];
            let count = |count| if count == 0.0 { String::new() } else { thousands(count) };
            cells.extend(counts.map(count));
            cells.extend(of(figures));
        }
        cells.resize(head.len(), String::new());
        cells
    };
    rows.iter().map(cells).collect()
}

fn all_cells(figures: &Figures) -> Vec<String> {
    let Figures { memory, all, few, .. } = figures;
    let mut cells = vec![format!("{memory:.1}")];
    let numbers = [all.lines_a_second, all.p50, all.p99, all.cost, few.p99, few.cost];
    cells.extend(numbers.map(thousands));
    cells.push(format!("{:.0} %", all.load * 100.0));
    cells
}

fn lasting_cells(figures: &Figures) -> Vec<String> {
    let micros = |nanos: f64| format!("{:.1} µs", nanos / 1e3);
    let memory = format!("{:.1} KiB", figures.memory);
    let speed = thousands(figures.all.lines_a_second);
    vec![micros(figures.all.cost), micros(figures.few.cost), memory, speed]
}

/// For a terminal, with a word about where each model gives up.
pub fn text(rows: &[Row]) -> String {
    let mut text = format!("{}\n{LEGEND}", aligned(&HEAD, &cells(&HEAD, rows, all_cells)));
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
        self.result.as_ref().ok().map(|figures| figures.greeted as usize)
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
    marked(&LASTING, &cells(&LASTING, rows, lasting_cells))
}
