use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::format::{grouped, time};
use super::options::Load;
use super::seconds::Second;

/// The live view that shows on a terminal during a run: how far it is, and how the last second was.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    /// The clients are connected.
    loading: bool,
}

impl Progress {
    pub(crate) fn new(plan: &Load) -> Progress {
        let bar = ProgressBar::with_draw_target(
            Some(u64::from(plan.clients())),
            ProgressDrawTarget::stderr(),
        );
        bar.set_style(style("{bar:30} {pos} of {len} clients connected"));
        Progress { bar, loading: false }
    }

    pub(crate) fn is_visible(&self) -> bool {
        !self.bar.is_hidden()
    }

    pub(crate) fn connecting(&mut self, here: u32) {
        self.bar.set_position(u64::from(here));
    }

    pub(crate) fn warming_up(&self) {
        self.bar.set_style(style("{spinner} {msg}"));
        self.bar.set_message("warming up");
    }

    /// How far it is, by time or by requests.
    pub(crate) fn loading(&mut self, plan: &Load, elapsed: Duration) {
        let whole = plan.duration().map(|duration| duration.as_millis() as u64);
        if !std::mem::replace(&mut self.loading, true) {
            let template =
                if whole.is_some() { "{bar:20} {msg}" } else { "{spinner} {elapsed} {msg}" };
            self.bar.set_style(style(template));
            self.bar.set_length(whole.unwrap_or_default());
            self.bar.set_message("");
        }
        self.bar.set_position(elapsed.as_millis() as u64);
    }

    /// A second is over. `errors` are those since the beginning.
    pub(crate) fn second(&mut self, second: &Second, errors: u64) {
        let quantile = |it| time(Duration::from_nanos(second.latencies.value_at_quantile(it)));
        self.bar.set_message(format!(
            "{} lines/s  p50 {}  p99 {}  p99.9 {}  {} errors",
            grouped(second.lines_per_s as u64),
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            grouped(errors)
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
