//! How fast lines are handled: a token bucket that is one moment, until when the lines so far are
//! paid for (GCRA).

use super::clock::Nanos;
use super::connection::Connection;
use crate::limits::{Limits, Rate};

impl Rate {
    /// The time of one line.
    fn interval(self) -> Nanos {
        (1_000_000_000 / Nanos::from(self.per_second)).max(1)
    }

    /// Lines allowed now, where those before are paid for until `paid`.
    pub(crate) fn allows(self, paid: Nanos, now: Nanos) -> usize {
        let full = now.saturating_add(self.interval().saturating_mul(self.burst.into()));
        (full.saturating_sub(paid.max(now)) / self.interval()) as usize
    }

    /// Until when they are paid for after `lines` more.
    pub(crate) fn spend(self, paid: Nanos, now: Nanos, lines: u64) -> Nanos {
        paid.max(now).saturating_add(self.interval().saturating_mul(lines))
    }

    /// When one more is allowed.
    pub(crate) fn next(self, paid: Nanos) -> Nanos {
        paid.saturating_sub(self.interval().saturating_mul(Nanos::from(self.burst) - 1))
    }
}

impl Connection {
    /// Lines that it may have now.
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
