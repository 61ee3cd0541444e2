//! The clock of the loop: nanoseconds, and the names of timers on it.

use std::time::Duration;

/// Nanoseconds on the reactor's own clock, which starts at 1: 0 stands for "never armed".
pub(crate) type Nanos = u64;

/// A duration on that clock; the longest there is for one that does not fit.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// A timer that a handler has set; pass it to `cancel_timer`, compare it in `on_timer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerId {
    pub(crate) when: Nanos,
    pub(crate) serial: u64,
}

impl TimerId {
    /// When it is due, on the reactor's clock.
    pub(crate) fn when(self) -> Nanos {
        self.when
    }
}
