use std::fmt::Write;

use crate::peers::{FLOOR, OURS};
use crate::scenario::{Figures, Scenario};

/// All rounds of a peer in a scenario.
pub struct Row {
    pub peer: &'static str,
    pub rounds: Vec<Figures>,
}

pub struct Group<'s> {
    pub scenario: &'s Scenario,
    pub rows: Vec<Row>,
}

/// One of the figures.
pub type Metric = fn(&Figures) -> Option<f64>;

pub const SPEED: Metric = |figures| figures.speed.map(|(units, _)| units);
pub const P99: Metric = |figures| figures.speed.map(|(_, p99)| p99);
pub const COST: Metric = |figures| Some(figures.cost);

/// The one in the middle, or between the two in the middle; none of none.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

impl Row {
    pub fn median(&self, metric: Metric) -> Option<f64> {
        median(self.rounds.iter().filter_map(metric).collect())
    }
}

impl Group<'_> {
    /// The ratio to another peer in each round.
    fn ratios(&self, row: &Row, base: &str, metric: Metric) -> Vec<f64> {
        let Some(base) = self.rows.iter().find(|row| row.peer == base) else {
            return Vec::new();
        };
        let pairs = row.rounds.iter().zip(&base.rounds);
        pairs.filter_map(|(own, base)| Some(metric(own)? / metric(base)?)).collect()
    }

    pub fn ratio(&self, row: &Row, base: &str, metric: Metric) -> Option<f64> {
        median(self.ratios(row, base, metric)).filter(|ratio| ratio.is_finite())
    }

    fn spread(&self, row: &Row, base: &str, metric: Metric) -> Option<(f64, f64)> {
        let mut ratios = self.ratios(row, base, metric);
        ratios.sort_by(f64::total_cmp);
        ratios.first().copied().zip(ratios.last().copied())
    }
}

const HEAD: [&str; 14] = [
    "scenario",
    "peer",
    "per second",
    "x floor",
    "x ours",
    "p99",
    "x floor",
    "x ours",
    "server cost",
    "x floor",
    "(least-most)",
    "x ours",
    "x alone",
    "load busy",
];

/// The first columns are words.
const WORDS: usize = 2;

fn cells(groups: &[Group<'_>]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for group in groups {
        for row in &group.rows {
            let ratio = |metric, base| {
                group
                    .ratio(row, base, metric)
                    .map_or_else(String::new, |ratio| format!("{ratio:.2}"))
            };
            let number = |metric| row.median(metric).map_or_else(String::new, thousands);
            let cost = row.median(COST).unwrap_or_default();
            let digits = if cost < 100.0 { format!("{cost:.1}") } else { thousands(cost) };
            let measure = if group.scenario.is_memory() { "B" } else { "ns" };
            let cost = format!("{digits} {measure}/{}", group.scenario.unit);
            let spread = group.spread(row, FLOOR, COST);
            let spread =
                spread.map_or_else(String::new, |(least, most)| format!("{least:.2}-{most:.2}"));
            let alone = row.median(|figures| figures.alone);
            let load = row.median(|figures| figures.load);
            rows.push(vec![
                group.scenario.name.to_owned(),
                row.peer.to_owned(),
                number(SPEED),
                ratio(SPEED, FLOOR),
                ratio(SPEED, OURS),
                row.median(P99).map_or_else(String::new, |p99| format!("{} us", thousands(p99))),
                ratio(P99, FLOOR),
                ratio(P99, OURS),
                cost,
                ratio(COST, FLOOR),
                spread,
                ratio(COST, OURS),
                alone.map_or_else(String::new, |alone| format!("{alone:.2}")),
                load.map_or_else(String::new, |load| format!("{:.0} %", load * 100.0)),
            ]);
        }
    }
    rows
}

pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// For a terminal.
pub fn text(groups: &[Group<'_>]) -> String {
    aligned(&HEAD, &cells(groups))
}

/// Columns of one width; a free line wherever the first one changes.
pub fn aligned(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<_> = head.iter().map(|&title| title.to_owned()).collect();
    let width = |column: usize| {
        rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let mut last = "";
    for row in [&head].into_iter().chain(rows) {
        if !last.is_empty() && row[0] != last {
            text.push('\n');
        }
        last = &row[0];
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(text, "{cell:width$}"),
                _ if column < WORDS => write!(text, "  {cell:width$}"),
                _ => write!(text, "  {cell:>width$}"),
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

pub fn markdown(groups: &[Group<'_>]) -> String {
    marked(&HEAD, &cells(groups))
}

pub fn marked(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|", head.join(" | "));
    for column in 0..head.len() {
        text.push_str(if column < WORDS { " --- |" } else { " ---: |" });
    }
    text.push('\n');
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_medians_lie_in_the_middle() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
