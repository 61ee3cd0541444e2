use std::ops::Range;

/// Even intervals: when which line is to be sent. Moments are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    start: u64,
    /// From one line to the next.
    every: f64,
    /// Lines whose time had come when the clock was last looked at.
    pub(crate) come: u64,
}

impl Pace {
    pub(crate) fn new(start: u64, per_second: f64) -> Pace {
        Pace { start, every: 1e9 / per_second, come: 0 }
    }

    /// When this line is due, counted from 0.
    pub(crate) fn due(&self, line: u64) -> u64 {
        self.start + (line as f64 * self.every) as u64
    }

    /// Looks at the clock: the lines whose time has come since the last look.
    pub(crate) fn look(&mut self, now: u64) -> Range<u64> {
        let before = self.come;
        let passed = now.saturating_sub(self.start) as f64 / self.every;
        self.come = before.max(passed as u64 + 1);
        before..self.come
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_due_at_even_intervals_without_drift() {
        let pace = Pace::new(1000, 3.0);
        assert_eq!((pace.due(0), pace.due(1)), (1000, 333_334_333));
        assert_eq!(pace.due(3_000_000), 1000 + 1_000_000_000_000_000);
    }

    #[test]
    fn each_line_comes_once() {
        let mut pace = Pace::new(1000, 1e6);
        assert_eq!(pace.look(1000), 0..1);
        assert_eq!(pace.look(1999), 1..1);
        assert_eq!(pace.look(5000), 1..5);
        assert_eq!(pace.look(4000), 5..5);
    }
}
