//! How fast input is read and handled: token buckets of lines and of bytes. Each is kept as one
//! moment, until when what was used is paid for (the generic cell rate algorithm, GCRA).

use super::clock::Nanos;
use super::connection::Connection;
use super::encoding::{Decoder, Encoder, Unreadable};
use super::flags::Flag;
use crate::limits::{Rate, Rates};

/// A connection that has used up its bytes waits until this part of the burst is free again, so that
/// it is woken some 8 times a second and not for each byte.
const PART_OF_BURST: u32 = 8;

const SECOND: u64 = 1_000_000_000;

/// So many lines and bytes: allowed or used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) lines: usize,
    pub(crate) bytes: usize,
}

/// Until when the lines and the bytes that were used are paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paid {
    lines: Nanos,
    bytes: Nanos,
}

impl Share {
    /// Where no rate applies.
    pub(crate) const UNBOUNDED: Share = Share { lines: usize::MAX, bytes: usize::MAX };

    pub(crate) fn min(self, other: Share) -> Share {
        Share { lines: self.lines.min(other.lines), bytes: self.bytes.min(other.bytes) }
    }

    /// What is left without the other; none if that is more.
    pub(crate) fn without(self, other: Share) -> Option<Share> {
        let lines = self.lines.checked_sub(other.lines)?;
        Some(Share { lines, bytes: self.bytes.checked_sub(other.bytes)? })
    }

    pub(crate) fn is_nothing(self) -> bool {
        self == Share::default()
    }

    /// Whether something can be done with it: input is handled, and read first if it `reads`.
    pub(crate) fn suffices(self, reads: bool) -> bool {
        self.lines > 0 && (self.bytes > 0 || !reads)
    }
}

impl Paid {
    /// When all is paid for.
    pub(crate) fn until(self) -> Nanos {
        self.lines.max(self.bytes)
    }

    /// Writes down what is not paid for yet: so much time is owed.
    pub(crate) fn save(self, now: Nanos, to: &mut Encoder) {
        let Paid { lines, bytes } = self;
        to.put_left(lines, now);
        to.put_left(bytes, now);
    }

    /// Reads what [`save`](Self::save) has written.
    pub(crate) fn restore(from: &mut Decoder<'_>, now: Nanos) -> Result<Paid, Unreadable> {
        let mut until = || {
            let owed = from.number()?;
            Ok(if owed == 0 { 0 } else { now.saturating_add(owed) })
        };
        Ok(Paid { lines: until()?, bytes: until()? })
    }
}

impl Rate {
    /// The time that pays for so many.
    fn cost(self, count: u64) -> Nanos {
        count.saturating_mul(SECOND) / u64::from(self.per_second)
    }

    /// How many are allowed now, if those before are paid for until `paid`: as many as
    /// [`cost`](Self::cost) no more than the time that is left, whichever way they are divided.
    pub(crate) fn allows(self, paid: Nanos, now: Nanos) -> usize {
        let full = now.saturating_add(self.cost(self.burst.into()));
        let left = full.saturating_sub(paid.max(now));
        (((left + 1) * u64::from(self.per_second) - 1) / SECOND) as usize
    }

    /// Until when they are paid for once there are `count` more.
    pub(crate) fn spend(self, paid: Nanos, now: Nanos, count: u64) -> Nanos {
        paid.max(now).saturating_add(self.cost(count))
    }

    /// When `count` more are allowed.
    fn ready(self, paid: Nanos, count: u64) -> Nanos {
        paid.saturating_add(self.cost(count)).saturating_sub(self.cost(self.burst.into()))
    }
}

impl Rates {
    /// Whether there is a rate at all.
    pub(crate) fn are_set(&self) -> bool {
        self.lines.is_some() || self.bytes.is_some()
    }

    /// How much is allowed now.
    pub(crate) fn allow(&self, paid: Paid, now: Nanos) -> Share {
        let of = |rate: Option<Rate>, paid| rate.map_or(usize::MAX, |rate| rate.allows(paid, now));
        Share { lines: of(self.lines, paid.lines), bytes: of(self.bytes, paid.bytes) }
    }

    /// What one that has to wait waits for: a line, and if it `reads`, some bytes.
    pub(crate) fn wanted(&self, reads: bool) -> Share {
        let bytes =
            self.bytes.filter(|_| reads).map_or(0, |rate| (rate.burst / PART_OF_BURST).max(1));
        Share { lines: 1, bytes: bytes as usize }
    }

    /// When so much is allowed.
    pub(crate) fn ready(&self, mut paid: Paid, wanted: Share) -> Nanos {
        let wanted = self.each(&mut paid, wanted).filter(|(_, _, count)| *count > 0);
        wanted.map(|(rate, paid, count)| rate.ready(*paid, count)).max().unwrap_or(0)
    }

    /// Counts what was used.
    pub(crate) fn spend(&self, paid: &mut Paid, used: Share, now: Nanos) {
        self.each(paid, used).for_each(|(rate, paid, count)| *paid = rate.spend(*paid, now, count));
    }

    /// The rates that there are, each with its moment and its part of a share.
    fn each<'p>(
        &self,
        paid: &'p mut Paid,
        share: Share,
    ) -> impl Iterator<Item = (Rate, &'p mut Nanos, u64)> + use<'p> {
        let Paid { lines, bytes } = paid;
        let both = [(self.lines, lines, share.lines), (self.bytes, bytes, share.bytes)];
        both.into_iter().filter_map(|(rate, paid, count)| Some((rate?, paid, count as u64)))
    }
}

impl Connection {
    /// Until when what it has used of its rate is paid for.
    pub(crate) fn paid(&self) -> Paid {
        self.extras.as_ref().map_or(Paid::default(), |extras| extras.paid)
    }

    /// Its place among those that wait for their peer's rate; 0 if it does not.
    pub(crate) fn place(&self) -> u64 {
        self.extras.as_ref().map_or(0, |extras| extras.place)
    }

    /// The same, if it has one; from then on it has none.
    pub(crate) fn take_place(&mut self) -> Option<u64> {
        let place = self.extras.as_mut().map(|extras| std::mem::take(&mut extras.place))?;
        (place != 0).then_some(place)
    }

    /// The rates have changed: the connection waits for none of them, and if its `own` one is another, what it
    /// has used is forgotten.
    pub(crate) fn forget_rates(&mut self, own: bool) {
        self.change_extras(|extras| {
            extras.resumes = None;
            if own {
                extras.paid = Paid::default();
            }
        });
    }

    /// Whether it has to read before there is something to handle.
    pub(crate) fn reads(&self) -> bool {
        !self.input.has_work() && !self.flags.has(Flag::Eof)
    }

    /// Is not read until then; with none, until it has a moment.
    pub(crate) fn throttle(&mut self, until: Option<Nanos>) {
        self.flags.set(Flag::Throttled, true);
        self.extras().resumes = until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_whole_however_it_is_divided() {
        for per_second in [1, 3, 7, 10, 999, 65_536] {
            for burst in [1, 2, 3, 7, 100] {
                let rate = Rate { per_second, burst };
                let mut paid = 0;
                for left in (0..burst as usize).rev() {
                    paid = rate.spend(paid, 1000, 1);
                    assert_eq!(rate.allows(paid, 1000), left, "{rate:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_ready_is_allowed_then_and_not_before() {
        for per_second in [1, 3, 7, 999, 65_536] {
            let rate = Rate { per_second, burst: 64 };
            let paid = rate.spend(0, 5, 64);
            assert_eq!(rate.allows(paid, 5), 0);
            for count in [1, 8, 64] {
                let ready = rate.ready(paid, count);
                assert_eq!(rate.allows(paid, ready), count as usize, "{rate:?}");
                assert!(rate.allows(paid, ready - 1) < count as usize, "{rate:?}");
            }
        }
    }

    #[test]
    fn over_a_long_time_it_is_the_rate() {
        for per_second in [3, 65_536, 100 << 20] {
            let rate = Rate { per_second, burst: per_second };
            let (mut paid, mut now, mut used) = (0, 1, 0);
            while now < 100 * SECOND {
                let count = rate.allows(paid, now) as u64;
                used += count;
                paid = rate.spend(paid, now, count);
                now = rate.ready(paid, u64::from(per_second / PART_OF_BURST).max(1));
            }
            let whole = u64::from(per_second) * 101;
            assert!(used.abs_diff(whole) <= u64::from(per_second) / 5 + 1, "{used} of {whole}");
        }
    }
}
