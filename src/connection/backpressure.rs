//! How a slow reader is judged: what its own requests caused holds it back, what others caused
//! makes it a slow consumer.

use super::clock::{Nanos, nanos};
use super::connection::{Connection, Stage};
use super::flags::Flag;
use crate::limits::Limits;

impl Connection {
    /// Unsent bytes that others caused.
    pub(crate) fn pushed(&self) -> usize {
        (self.others as usize).min(self.output.len())
    }

    /// Unsent bytes that its own requests caused.
    pub(crate) fn owed(&self) -> usize {
        self.output.len() - self.pushed()
    }

    /// Some output went out. What others caused is taken to go last, so it can only shrink.
    pub(crate) fn sent(&mut self, now: Nanos) {
        self.others = self.pushed() as u32;
        if self.stage != Stage::Closing || self.makes_progress() {
            self.active = now;
        }
    }

    /// Output of its own was appended: past the mark it is no longer read.
    #[inline]
    pub(crate) fn hold_above(&mut self, high_water: usize) {
        if self.output.len() > high_water && self.owed() > high_water {
            self.flags.set(Flag::Held, true);
        }
    }

    /// Others appended `count` bytes. Says whether that is too much already; whether one that is
    /// not blocked keeps up shows only when the turn flushes it.
    #[inline]
    pub(crate) fn overrun(&mut self, count: usize, limits: &Limits, now: Nanos) -> bool {
        self.others = self.others.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.flags.has(Flag::Blocked) && self.too_slow(limits, now)
    }

    /// Others have queued more for it than it reads, at once or for too long.
    #[inline]
    pub(crate) fn too_slow(&mut self, limits: &Limits, now: Nanos) -> bool {
        let pushed = self.pushed();
        if pushed <= limits.soft_output {
            if self.extras.is_some() {
                self.change_extras(|extras| extras.over_soft = 0);
            }
            return false;
        }
        self.past_soft(pushed, limits, now)
    }

    #[cold]
    pub(super) fn past_soft(&mut self, pushed: usize, limits: &Limits, now: Nanos) -> bool {
        if self.over_soft() == 0 {
            self.extras().over_soft = now;
        }
        let since = now - self.over_soft();
        pushed > limits.max_output || since >= nanos(limits.soft_output_for)
    }

    /// Since when the output has been above the soft limit; 0 while it is not.
    pub(crate) fn over_soft(&self) -> Nanos {
        self.extras.as_ref().map_or(0, |extras| extras.over_soft)
    }
}
