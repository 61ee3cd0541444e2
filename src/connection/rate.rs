//! How fast lines are handled: a token bucket. It is kept as one moment, until when the lines so far
//! are paid for (the generic cell rate algorithm, GCRA).

use super::clock::Nanos;
use super::connection::Connection;
use crate::limits::{Limits, Rate};

impl Rate {
    /// The time that one line pays for.
    fn interval(self) -> Nanos {
        (1_000_000_000 / Nanos::from(self.per_second)).max(1)
    }

    /// How many lines are allowed now, if those before are paid for until `paid`.
    fn allows(self, paid: Nanos, now: Nanos) -> usize {
        let full = now.saturating_add(self.interval().saturating_mul(self.burst.into()));
        (full.saturating_sub(paid.max(now)) / self.interval()) as usize
    }

    /// Until when the lines are paid for once there are `lines` more.
    fn spend(self, paid: Nanos, now: Nanos, lines: u64) -> Nanos {
        paid.max(now).saturating_add(self.interval().saturating_mul(lines))
    }

    /// When one more line is allowed.
    pub(super) fn next(self, paid: Nanos) -> Nanos {
        paid.saturating_sub(self.interval().saturating_mul(Nanos::from(self.burst) - 1))
    }
}

impl Connection {
    /// How many lines its rate allows now.
    pub(crate) fn allowance(&self, limits: &Limits, now: Nanos) -> usize {
        let paid = self.extras.as_ref().map_or(0, |extras| extras.paid);
        limits.rate.map_or(usize::MAX, |rate| rate.allows(paid, now))
    }

    /// Counts lines against its rate.
    pub(crate) fn spend(&mut self, limits: &Limits, lines: u64, now: Nanos) {
        if let Some(rate) = limits.rate {
            let extras = self.extras();
            extras.paid = rate.spend(extras.paid, now, lines);
        }
    }
}
