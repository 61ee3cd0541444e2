//! What the loop says of itself, as text for other programs: JSON for people's tools and for the page,
//! metrics for Prometheus. Needs the feature `services`, the metrics `web`.
//!
//! These are plain functions from a [`Status`](crate::Status) to text. `Web` and `Admin` answer with
//! them; a program with an HTTP server of its own can do so as well.
//!
//! What both formats count by is called the same in both: the `reason` for which connections were closed
//! is `line-too-long` here and there. No name and no label is one that a client chooses.

use std::time::Duration;

use crate::Turns;

pub mod json;
#[cfg(feature = "web")]
pub mod metrics;
mod process;

pub use process::{Process, ProcessReader};

/// Each bound of a turn's length in seconds, the last one without an end, with how many turns took no
/// longer and longer than the bound before.
fn buckets(turns: &Turns) -> impl Iterator<Item = (f64, u64)> {
    let bounds = Turns::BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
    bounds.zip(turns.histogram)
}
