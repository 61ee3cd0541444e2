//! When each line is due: `--rate`.

use std::ops::Range;

/// Beyond so many, unsent lines are told in groups: a rate that nobody can keep leaves billions.
const ONE_BY_ONE: u64 = 1_000_000;

/// Lines at even intervals, however slow the replies are. Moments are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FixedRate {
    start: u64,
    /// From one line to the next.
    every: f64,
    /// How many lines there are.
    most: u64,
    /// Lines that were due when the clock was last read.
    pub(crate) come: u64,
}

impl FixedRate {
    pub(crate) fn new(start: u64, per_second: f64, most: u64) -> FixedRate {
        FixedRate { start, every: 1e9 / per_second, most, come: 0 }
    }

    /// When this line is due, counted from 0.
    pub(crate) fn due(&self, line: u64) -> u64 {
        self.start + (line as f64 * self.every) as u64
    }

    /// The lines that have come due since the last call.
    pub(crate) fn look(&mut self, now: u64) -> Range<u64> {
        let before = self.come;
        let passed = now.saturating_sub(self.start) as f64 / self.every;
        self.come = before.max((passed as u64).saturating_add(1).min(self.most));
        before..self.come
    }

    /// Tells of unsent lines when they were due, and how many: of those that are due, every
    /// `step`th from `first` on. `all` is how many lines were not sent altogether.
    pub(crate) fn rest(&self, first: u64, step: u64, all: u64, mut tell: impl FnMut(u64, u64)) {
        let most = all.div_ceil(ONE_BY_ONE);
        let mut line = first;
        while line < self.come {
            let count = (self.come - line).div_ceil(step).min(most);
            // The line in the middle stands for its group.
            tell(self.due(line + count / 2 * step), count);
            line += count * step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_due_at_even_intervals_without_drift() {
        let rate = FixedRate::new(1000, 3.0, u64::MAX);
        assert_eq!((rate.due(0), rate.due(1)), (1000, 333_334_333));
        assert_eq!(rate.due(3_000_000), 1000 + 1_000_000_000_000_000);
    }

    #[test]
    fn each_line_comes_once() {
        let mut rate = FixedRate::new(1000, 1e6, 7);
        assert_eq!(rate.look(1000), 0..1);
        assert_eq!(rate.look(1999), 1..1);
        assert_eq!(rate.look(5000), 1..5);
        assert_eq!(rate.look(4000), 5..5);
        // There are no more than those.
        assert_eq!((rate.look(9000), rate.look(99_000)), (5..7, 7..7));
    }

    #[test]
    fn what_was_not_sent_is_told_of_line_by_line_or_in_groups() {
        let mut rate = FixedRate::new(1000, 1e9, u64::MAX);
        rate.look(1009);
        let rest = |first, step, all| {
            let mut told = Vec::new();
            rate.rest(first, step, all, |due, count| told.push((due, count)));
            told
        };
        assert_eq!(rest(2, 3, 8), [(1002, 1), (1005, 1), (1008, 1)]);
        assert_eq!(rest(2, 3, 2 * ONE_BY_ONE), [(1005, 2), (1008, 1)]);
        assert_eq!(rest(10, 3, 8), []);
    }
}
