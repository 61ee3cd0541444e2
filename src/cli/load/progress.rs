use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::format::{grouped, time};
use super::metrics::Metrics;
use super::options::Load;

/// The bar that shows on a terminal during a run.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    /// When the throughput was last shown, and the lines until then.
    shown: (u64, u64),
}

impl Progress {
    pub(crate) fn new(plan: &Load) -> Progress {
        let bar = ProgressBar::with_draw_target(
            Some(u64::from(plan.clients())),
            ProgressDrawTarget::stderr(),
        );
        bar.set_style(style("{bar:30} {pos} of {len} clients connected"));
        Progress { bar, shown: (0, 0) }
    }

    pub(crate) fn connecting(&mut self, here: u32) {
        self.bar.set_position(u64::from(here));
    }

    pub(crate) fn loading(&mut self, plan: &Load, metrics: &Metrics, started: u64, now: u64) {
        if self.bar.is_hidden() {
            return;
        }
        let (before, lines) = std::mem::replace(&mut self.shown, (now, metrics.lines));
        if before == 0 {
            let template = match plan.duration() {
                Some(_) => "{bar:30} {msg}",
                None => "{spinner} {elapsed} {msg}",
            };
            self.bar.set_style(style(template));
            self.bar.set_length(plan.duration().unwrap_or_default().as_millis() as u64);
            return;
        }
        let seconds = Duration::from_nanos((now - before).max(1)).as_secs_f64();
        let rate = (metrics.lines - lines) as f64 / seconds;
        let p99 = Duration::from_nanos(metrics.latencies.value_at_quantile(0.99));
        self.bar.set_position((now.saturating_sub(started)) / 1_000_000);
        self.bar.set_message(format!(
            "{} lines/s, p99 {}, {} errors",
            grouped(rate as u64),
            time(p99),
            grouped(metrics.errors())
        ));
    }

    pub(crate) fn settling(&mut self) {
        self.bar.set_message("waiting for the last replies");
    }

    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
