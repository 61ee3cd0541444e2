//! Two results side by side: `--compare`.

use std::fmt::Write;
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::chart::MARKED;
use super::summary::{Figure, QUANTILES, Summary};
use crate::cli::failure::Failure;
use crate::cli::load::format::{grouped, time};
use crate::cli::load::seconds::Spread;

/// Fewer seconds than these do not show how much they differ.
const FEWEST: usize = 5;

/// Bytes of a result, and more than any has.
const LONGEST: u64 = 1 << 20;

/// An earlier result, as `--json` has written it.
#[derive(Debug)]
pub(crate) struct Earlier {
    file: String,
    result: Value,
}

impl Earlier {
    pub(crate) fn read(path: &Path) -> Result<Earlier, Failure> {
        let file = path.display().to_string();
        let failure = |why: String| Failure::Runtime(format!("--compare {file}: {why}"));
        let read = |file: fs::File| {
            let mut text = String::new();
            file.take(LONGEST).read_to_string(&mut text).map(|_| text)
        };
        let text =
            fs::File::open(path).and_then(read).map_err(|error| failure(error.to_string()))?;
        let result: Value = serde_json::from_str(&text).unwrap_or_default();
        if !result["lines_per_s"].is_number() || result["mode"].as_str().is_none() {
            return Err(failure("it is no result that reactor load --json has written".to_owned()));
        }
        Ok(Earlier { file, result })
    }

    /// When it was made; earlier versions did not say.
    pub(crate) fn date(&self) -> &str {
        self.result["date"].as_str().unwrap_or("an unknown date")
    }

    pub(crate) fn lines_per_s(&self) -> f64 {
        self.result["lines_per_s"].as_f64().unwrap_or_default()
    }

    /// The distribution of its latencies, in nanoseconds; empty if it does not say.
    pub(crate) fn curve(&self) -> Vec<f64> {
        let points = self.result["latency_curve_us"].as_array();
        points.into_iter().flatten().filter_map(Value::as_f64).map(|micros| micros * 1e3).collect()
    }

    /// Its latencies at the marked quantiles, in nanoseconds.
    pub(crate) fn marked(&self) -> [f64; MARKED.len()] {
        MARKED.map(|(_, name)| self.result["latency_us"][name].as_f64().unwrap_or_default() * 1e3)
    }

    fn figure(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::LinesPerSecond => self.result["lines_per_s"].as_f64(),
            Figure::Latency(at) => {
                let micros = self.result["latency_us"][QUANTILES[at].1.replace('.', "_")].as_f64();
                micros.map(|micros| micros * 1e3)
            }
        }
    }

    fn spread(&self, figure: Figure) -> Option<Spread> {
        let seconds = &self.result["seconds"];
        let (key, unit) = figure.key();
        let number = |name: &str| Some(seconds[&key][name].as_f64()? * unit);
        Some(Spread {
            seconds: seconds["count"].as_u64()? as usize,
            mean: number("mean")?,
            deviation: number("deviation")?,
        })
    }

    /// What was asked for otherwise, since then a difference says little.
    fn asked_otherwise(&self, now: &Value) -> Vec<String> {
        let keys = ["mode", "clients", "threads", "depth", "size", "rate_per_s", "protocol"];
        let differs = |key: &&str| {
            let before = self.result.get(*key);
            before.is_some_and(|before| *before != now[*key])
        };
        let tell = |key: &str| format!("{key} was {}, is {}", self.result[key], now[key]);
        keys.into_iter().filter(differs).map(tell).collect()
    }
}

/// One figure of both.
struct Row {
    figure: Figure,
    before: f64,
    now: f64,
    /// What the seconds differ by anyway. None if there are too few.
    noise: Option<f64>,
}

impl Row {
    fn change(&self) -> f64 {
        100.0 * (self.now / self.before - 1.0)
    }

    fn is_noise(&self) -> Option<bool> {
        self.noise.map(|noise| (self.now - self.before).abs() <= noise)
    }
}

fn rows(earlier: &Earlier, summary: &Summary) -> Vec<Row> {
    let row = |figure: Figure| {
        let (before, now) = (earlier.figure(figure)?, summary.figure(figure)?);
        let (then, today) = (earlier.spread(figure), summary.spread(figure));
        let spreads = then.zip(today);
        let enough = spreads.filter(|(a, b)| a.seconds.min(b.seconds) >= FEWEST);
        let noise = enough.map(|(a, b)| a.deviation.hypot(b.deviation));
        (before > 0.0).then_some(Row { figure, before, now, noise })
    };
    Figure::all().filter_map(row).collect()
}

/// For people. `now` is the new result for programs.
pub(super) fn text(earlier: &Earlier, summary: &Summary, now: &Value) -> String {
    let mut text = format!("compared with {} of {}\n", earlier.file, earlier.date());
    for otherwise in earlier.asked_otherwise(now) {
        let _ = writeln!(text, "{:<10} {otherwise}", "otherwise");
    }
    let _ = writeln!(text, "{:<10} {:>12} {:>12} {:>10}", "", "before", "now", "change");
    let mut short = false;
    for row in rows(earlier, summary) {
        let shown = |number: f64| match row.figure {
            Figure::LinesPerSecond => grouped(number.round() as u64),
            Figure::Latency(_) => time(Duration::from_nanos(number as u64)),
        };
        short |= row.noise.is_none();
        let note = match (row.is_noise(), row.noise) {
            (Some(true), Some(noise)) => {
                format!("  noise: the seconds differ by {:.1} % anyway", 100.0 * noise / row.before)
            }
            _ => String::new(),
        };
        let (before, now, change) = (shown(row.before), shown(row.now), row.change());
        let name = row.figure.name();
        let _ = writeln!(text, "{name:<10} {before:>12} {now:>12} {change:>+8.1} %{note}");
    }
    if short {
        let _ =
            writeln!(text, "whether that is noise shows from {FEWEST} whole seconds of each on");
    }
    text
}

/// For programs.
pub(super) fn json(earlier: &Earlier, summary: &Summary, now: &Value) -> Value {
    let row = |row: Row| {
        let (key, unit) = row.figure.key();
        let value = json!({
            "before": row.before / unit,
            "now": row.now / unit,
            "change_percent": row.change(),
            "is_noise": row.is_noise(),
        });
        (key, value)
    };
    let mut value: Map<_, _> = rows(earlier, summary).into_iter().map(row).collect();
    value.insert("file".to_owned(), earlier.file.clone().into());
    value.insert("date".to_owned(), earlier.result["date"].clone());
    value.insert("otherwise".to_owned(), earlier.asked_otherwise(now).into());
    value.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn earlier(lines: f64, deviation: f64, seconds: u64) -> Earlier {
        let result = json!({
            "mode": "echo", "clients": 3, "lines_per_s": lines,
            "seconds": { "count": seconds, "lines_per_s": { "mean": lines, "deviation": deviation } },
        });
        Earlier { file: "a.json".to_owned(), result }
    }

    fn summary(lines_per_s: f64, deviation: f64) -> Summary {
        let spread = Spread { seconds: 10, mean: lines_per_s, deviation };
        Summary { lines_per_s, spreads: vec![Some(spread)], ..Summary::default() }
    }

    #[test]
    fn a_difference_within_the_spread_is_noise() {
        let now = json!({ "mode": "echo", "clients": 4 });
        for (before, deviation, seconds, noise) in [
            (1040.0, 30.0, 10, Some(true)),
            (960.0, 30.0, 10, Some(true)),
            (1060.0, 30.0, 10, Some(false)),
            (1040.0, 30.0, 4, None),
        ] {
            let (earlier, summary) = (earlier(before, deviation, seconds), summary(1000.0, 40.0));
            let json = json(&earlier, &summary, &now);
            assert_eq!(json["lines_per_s"]["is_noise"], noise.map_or(Value::Null, Value::from));
            let text = text(&earlier, &summary, &now);
            assert_eq!(
                text.contains("noise: the seconds differ by"),
                noise == Some(true),
                "{text}"
            );
            assert_eq!(text.contains("5 whole seconds"), noise.is_none(), "{text}");
            assert!(text.contains("otherwise  clients was 3, is 4"), "{text}");
        }
    }
}
