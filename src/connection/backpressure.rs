//! How a peer is judged that reads slowly or not at all. Three rules for clients:
//!
//! * While it does not take the replies to its own requests, it is not read: from `high_water` on,
//!   until no more than `low_water` is left.
//! * If it does not take what others send it, it is a slow consumer: above `max_output` at once,
//!   above `soft_output` after `soft_output_for`.
//! * If it is closing, it must go on taking what is left, or it has stalled.
//!
//! A server that was dialled is never held back and no slow consumer: its handler is its client, which
//! must hear it and knows what to do about it. Above `max_output` it is full, and takes nothing more
//! until some is gone, whoever sends. Closing, it is judged as the others.
//!
//! Which bytes of the output are whose is not kept. Those that others caused are taken to go out
//! last.

use super::clock::{Nanos, nanos};
use super::connection::{Connection, Stage};
use super::flags::Flag;
use crate::limits::Limits;

/// Bytes of its remaining output that a closing connection has to take in each
/// [`flush_timeout`](Limits::flush_timeout): some 500 a second.
const LEAST_TAKEN: usize = 16 * 1024;

impl Connection {
    /// Unsent bytes that others caused; none of a dialled connection are counted.
    pub(crate) fn pushed(&self) -> usize {
        (self.others as usize).min(self.output.len())
    }

    /// Unsent bytes that its own requests caused.
    pub(crate) fn owed(&self) -> usize {
        self.output.len() - self.pushed()
    }

    /// A reply was appended to its output: above the mark, its input is held back.
    #[inline]
    pub(crate) fn hold_above(&mut self, high_water: usize) {
        if self.output.len() > high_water && self.owed() > high_water {
            let held = !self.flags.has(Flag::Outbound);
            self.flags.set(Flag::Held, held);
        }
    }

    /// Whether it is not full. Only a dialled connection ever is.
    #[inline]
    pub(crate) fn has_room(&self, max_output: usize) -> bool {
        self.output.len() <= max_output || !self.flags.has(Flag::Outbound)
    }

    /// How many bytes of replies it takes before it is held back or, if it was dialled, before it is
    /// full.
    pub(crate) fn room(&self, limits: &Limits) -> usize {
        match self.flags.has(Flag::Outbound) {
            true => limits.max_output.saturating_sub(self.output.len()),
            false => limits.high_water.saturating_sub(self.owed()),
        }
    }

    /// Whether so little is unsent that input which was held back is read again, and that the handler
    /// may be asked for more output. A full connection would refuse it, and the handler ask again.
    #[inline]
    pub(crate) fn is_drained(&self, limits: &Limits) -> bool {
        self.output.len() <= limits.low_water && self.has_room(limits.max_output)
    }

    /// Others appended `count` bytes. Says whether that is too much already. If the connection is
    /// not blocked, only the flush at the end of the turn can show whether its client keeps up.
    #[inline]
    pub(crate) fn overrun(&mut self, count: usize, limits: &Limits, now: Nanos) -> bool {
        if self.flags.has(Flag::Outbound) {
            return false;
        }
        self.others = self.others.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.flags.has(Flag::Blocked) && self.too_slow(limits, now)
    }

    /// Whether others have sent it more than it reads: too much at once, or much for too long.
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
    fn past_soft(&mut self, pushed: usize, limits: &Limits, now: Nanos) -> bool {
        if self.over_soft() == 0 {
            self.extras().over_soft = now;
        }
        let since = now - self.over_soft();
        pushed > limits.max_output || since >= nanos(limits.soft_output_for)
    }

    /// Since when more than `soft_output` of what others caused has been unsent; 0 while it is not.
    pub(crate) fn over_soft(&self) -> Nanos {
        self.extras.as_ref().map_or(0, |extras| extras.over_soft)
    }

    /// Some output went out.
    pub(crate) fn sent(&mut self, now: Nanos) {
        self.others = self.pushed() as u32;
        if self.stage <= Stage::Open || self.makes_progress() {
            self.active = now;
        }
    }

    /// Whether a connection that closes or leaves has taken enough since this was last true. Without a least
    /// amount, one that takes a byte now and then would never end.
    fn makes_progress(&mut self) -> bool {
        let left = self.output.len();
        if left == 0 {
            return true;
        }
        let extras = self.extras();
        let enough = extras.left == 0 || left + LEAST_TAKEN <= extras.left;
        if enough {
            extras.left = left;
        }
        enough
    }
}
