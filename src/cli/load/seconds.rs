//! A run second by second: for `--series`, the live view, and how much the result varies.

use hdrhistogram::Histogram;

use super::metrics::Metrics;

pub(crate) const SECOND: u64 = 1_000_000_000;

/// What was done in a second, or in the rest of one.
#[derive(Clone, Debug)]
pub(crate) struct Second {
    /// Seconds from the start of the load to the end of this one.
    pub(crate) elapsed: f64,
    pub(crate) lines: u64,
    pub(crate) lines_per_s: f64,
    pub(crate) errors: u64,
    pub(crate) latencies: Histogram<u64>,
}

impl Second {
    /// Adds what another thread did in the same second.
    pub(crate) fn add(&mut self, other: &Second) {
        self.elapsed = self.elapsed.max(other.elapsed);
        self.lines += other.lines;
        self.lines_per_s += other.lines_per_s;
        self.errors += other.errors;
        let added = self.latencies.add(&other.latencies);
        added.expect("both have the same bounds");
    }

    /// The head of the lines that [`csv`](Self::csv) makes.
    pub(crate) const HEAD: &str =
        "elapsed_s,lines,lines_per_s,p50_us,p90_us,p99_us,p99_9_us,max_us,errors\n";

    pub(crate) fn csv(&self) -> String {
        let Second { elapsed, lines, lines_per_s, errors, latencies } = self;
        let micros = |nanos: u64| match latencies.is_empty() {
            true => String::new(),
            false => format!("{:.1}", nanos as f64 / 1e3),
        };
        let quantiles = [0.5, 0.9, 0.99, 0.999].map(|it| micros(latencies.value_at_quantile(it)));
        let (quantiles, max) = (quantiles.join(","), micros(latencies.max()));
        format!("{elapsed:.3},{lines},{lines_per_s:.1},{quantiles},{max},{errors}\n")
    }
}

/// Cuts what one thread counts into seconds. The counts before the last cut are kept and subtracted, so
/// that a line costs no more than without.
#[derive(Debug)]
pub(crate) struct Cutter {
    /// When the last second ended. Moments are nanoseconds.
    last: u64,
    /// When the next one is to end.
    pub(crate) next: u64,
    lines: u64,
    errors: u64,
    latencies: Histogram<u64>,
}

impl Cutter {
    pub(crate) fn new(metrics: &Metrics, started: u64) -> Cutter {
        Cutter {
            last: started,
            next: started + SECOND,
            lines: 0,
            errors: metrics.errors(),
            latencies: metrics.latencies.clone(),
        }
    }

    /// What was done since the last cut. `started` is when the load began.
    pub(crate) fn cut(&mut self, metrics: &Metrics, started: u64, now: u64) -> Second {
        let mut latencies = metrics.latencies.clone();
        let subtracted = latencies.subtract(&self.latencies);
        subtracted.expect("what was counted before is still in it");
        self.latencies.clone_from(&metrics.latencies);
        let lines = metrics.lines - std::mem::replace(&mut self.lines, metrics.lines);
        let errors = metrics.errors() - std::mem::replace(&mut self.errors, metrics.errors());
        let passed = now.saturating_sub(std::mem::replace(&mut self.last, now)).max(1);
        while self.next <= now {
            self.next += SECOND;
        }
        Second {
            elapsed: now.saturating_sub(started) as f64 / SECOND as f64,
            lines,
            lines_per_s: lines as f64 * SECOND as f64 / passed as f64,
            errors,
            latencies,
        }
    }
}

/// How much a figure varies from second to second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spread {
    pub(crate) seconds: usize,
    pub(crate) mean: f64,
    /// The standard deviation.
    pub(crate) deviation: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Option<Spread> {
        let count = values.len() as f64;
        if values.len() < 2 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / (count - 1.0)).sqrt();
        Some(Spread { seconds: values.len(), mean, deviation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_has_what_came_since_the_last_one() {
        let mut metrics = Metrics::new();
        let mut cutter = Cutter::new(&metrics, 5);
        metrics.lines = 3;
        metrics.latency(1000, 3);
        let first = cutter.cut(&metrics, 5, 5 + SECOND);
        metrics.lines = 4;
        metrics.latency(2000, 1);
        let second = cutter.cut(&metrics, 5, 5 + 3 * SECOND);
        assert_eq!((first.lines, first.latencies.len(), first.lines_per_s), (3, 3, 3.0));
        assert_eq!((second.lines, second.latencies.len(), second.lines_per_s), (1, 1, 0.5));
        assert_eq!((second.latencies.min() / 1000, second.elapsed), (2, 3.0));
        assert_eq!(cutter.next, 5 + 4 * SECOND);
        assert_eq!(second.csv(), "3.000,1,0.5,2.0,2.0,2.0,2.0,2.0,0\n");
        let third = cutter.cut(&metrics, 5, 5 + 4 * SECOND);
        assert_eq!(third.csv(), "4.000,0,0.0,,,,,,0\n");
        assert_eq!(Second::HEAD.split(',').count(), third.csv().split(',').count());
    }

    #[test]
    fn spreads() {
        assert_eq!(Spread::of(&[1.0]), None);
        let spread = Spread::of(&[1.0, 2.0, 3.0]);
        assert_eq!(spread, Some(Spread { seconds: 3, mean: 2.0, deviation: 1.0 }));
    }
}
