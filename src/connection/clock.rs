//! The clock of the loop, in nanoseconds, and the names of the timers that run on it.

use std::time::Duration;

/// Nanoseconds on the reactor's own clock. It starts at 1, so that 0 can stand for "none".
pub(crate) type Nanos = u64;

/// A duration in nanoseconds. One that does not fit becomes the longest that does.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// The earlier of two moments that there may be.
#[inline]
pub(crate) fn earlier(one: Option<Nanos>, other: Option<Nanos>) -> Option<Nanos> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        _ => one.or(other),
    }
}

/// A timer that a handler has set.
///
/// Pass it to [`cancel_timer`](crate::Context::cancel_timer) of the context that gave it, or compare
/// it with the one that [`on_timer`](crate::Handler::on_timer) is given. No other timer of the same
/// service ever gets the same. Timers sort by the moment they are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId {
    /// When it is due.
    pub(crate) when: Nanos,
    /// Tells it from others that are due at the same moment.
    pub(crate) serial: u64,
}
