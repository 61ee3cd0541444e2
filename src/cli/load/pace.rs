/// Even intervals: when which line is to be sent. Moments are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    start: u64,
    /// From one line to the next.
    every: f64,
}

impl Pace {
    pub(crate) fn new(start: u64, per_second: f64) -> Pace {
        Pace { start, every: 1e9 / per_second }
    }

    /// When this line is due, counted from 0.
    pub(crate) fn due(&self, line: u64) -> u64 {
        self.start + (line as f64 * self.every) as u64
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
}
