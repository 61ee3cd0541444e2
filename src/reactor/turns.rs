//! How long the turns of the loop take, and while somebody watches what their time goes into.

use std::time::{Duration, Instant};

use crate::connection::clock::{Nanos, nanos};

/// How long the longest turn is remembered, at least; it may be twice that.
const LONGEST_FOR: Nanos = 1_000_000_000;

/// How long the steps are measured after the last time that somebody asked for it.
const WATCHED_FOR: Duration = Duration::from_secs(5);

/// The bounds of the histogram: 10, 20 and 50 microseconds, and so on up to a second.
const BOUNDS: [Nanos; 16] = {
    let mut bounds = [10_000; 16];
    let mut place = 1;
    while place < bounds.len() {
        // 1, 2, 5, 10: the second step of three is two and a half.
        let twice = 2 * bounds[place - 1];
        bounds[place] = if place % 3 == 2 { twice + twice / 4 } else { twice };
        place += 1;
    }
    bounds
};

/// How long the turns of the loop take. A turn begins when the wait for events ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turns {
    /// How many there were.
    pub count: u64,
    /// How long the loop has slept.
    pub slept: Duration,
    /// How long the turns took in all.
    pub busy: Duration,
    /// The longest turn of the last second or two.
    pub longest: Duration,
    /// How many turns took no longer than each of [`BOUNDS`](Self::BOUNDS) and longer than the one before
    /// it. The last number is of those that took longer than all.
    pub histogram: [u64; Turns::BOUNDS.len() + 1],
    /// What the time of the turns went into, as far as that was
    /// [measured](crate::Ask::Overview); none unless it is being measured.
    pub steps: Option<Steps>,
}

/// What the time of turns went into, as far as it was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Steps {
    /// Accepting newcomers, and the handshakes of layers.
    pub accept: Duration,
    /// Reading, and finding the lines.
    pub read: Duration,
    /// The hooks of handlers, whatever calls them.
    pub handlers: Duration,
    /// Timers and deadlines.
    pub timers: Duration,
    /// Messages that were posted.
    pub messages: Duration,
    /// Writing, and freeing the connections that have ended.
    pub flush: Duration,
}

impl Turns {
    /// The upper bounds of the [`histogram`](Self::histogram).
    pub const BOUNDS: [Duration; 16] = {
        let mut bounds = [Duration::ZERO; 16];
        let mut place = 0;
        while place < bounds.len() {
            bounds[place] = Duration::from_nanos(BOUNDS[place]);
            place += 1;
        }
        bounds
    };
}

/// A step of a turn whose time is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Accept,
    Read,
    Handlers,
    Timers,
    Messages,
    Flush,
}

/// Measures the turns, with the readings of the clock that the loop needs anyway. Only the steps take
/// some of their own, while they are watched.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    slept: Nanos,
    busy: Nanos,
    longest_ever: Nanos,
    /// The longest since `second` began, and the longest of the second before.
    longest: [Nanos; 2],
    second: Nanos,
    histogram: [u64; BOUNDS.len() + 1],
    /// Until when the steps are measured.
    watched_until: Nanos,
    /// The step under way and when it began; none unless they are measured.
    under_way: Option<(Step, Instant)>,
    /// What each step has taken so far.
    steps: [Duration; 6],
}

impl Meter {
    /// The loop has slept for so long.
    pub(super) fn slept(&mut self, time: Nanos) {
        self.slept += time;
    }

    /// A turn begins.
    pub(super) fn begin(&mut self, clock: Instant, now: Nanos) {
        if now < self.watched_until {
            self.under_way = Some((Step::Read, clock));
        }
    }

    /// A turn has ended, so long after it began, and on the loop's count at `end`.
    pub(crate) fn end(&mut self, took: Nanos, end: Nanos) {
        if self.under_way.is_some() {
            self.step(Step::Read);
            self.under_way = None;
        }
        self.busy += took;
        self.longest_ever = self.longest_ever.max(took);
        let bucket = BOUNDS.iter().take_while(|bound| took > **bound).count();
        self.histogram[bucket] += 1;
        if end >= self.second + LONGEST_FOR {
            let last = if end < self.second + 2 * LONGEST_FOR { self.longest[0] } else { 0 };
            (self.longest, self.second) = ([0, last], end);
        }
        self.longest[0] = self.longest[0].max(took);
    }

    /// Another step of the turn begins. Gives the one before.
    #[inline]
    pub(crate) fn step(&mut self, next: Step) -> Step {
        if self.under_way.is_some() { self.lap(next) } else { next }
    }

    #[cold]
    fn lap(&mut self, next: Step) -> Step {
        let Some((step, since)) = &mut self.under_way else { return next };
        let now = Instant::now();
        let before = std::mem::replace(step, next);
        self.steps[before as usize] += now - std::mem::replace(since, now);
        before
    }

    /// Has the steps measured for a while from `now` on.
    pub(super) fn watch(&mut self, now: Nanos) {
        self.watched_until = now.saturating_add(nanos(WATCHED_FOR));
    }

    /// All turns so far.
    pub(super) fn turns(&self, now: Nanos) -> Turns {
        let [this, last] = self.longest;
        let longest = match now.saturating_sub(self.second) / LONGEST_FOR {
            0 => this.max(last),
            1 => this,
            _ => 0,
        };
        let [accept, read, handlers, timers, messages, flush] = self.steps;
        let steps = Steps { accept, read, handlers, timers, messages, flush };
        Turns {
            count: self.count(),
            slept: Duration::from_nanos(self.slept),
            busy: Duration::from_nanos(self.busy),
            longest: Duration::from_nanos(longest),
            histogram: self.histogram,
            steps: (now < self.watched_until).then_some(steps),
        }
    }

    /// How long the loop has slept since it was made.
    pub(super) fn slept_in_all(&self) -> Nanos {
        self.slept
    }

    pub(super) fn count(&self) -> u64 {
        self.histogram.iter().sum()
    }

    pub(super) fn longest_ever(&self) -> Duration {
        Duration::from_nanos(self.longest_ever)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    /// A turn of so many milliseconds that ends now, and begins at `now` on the loop's count.
    fn turn(meter: &mut Meter, now: Nanos, millis: u64) {
        meter.begin(began(millis), now);
        meter.end(nanos(Duration::from_millis(millis)), now);
    }

    fn began(millis: u64) -> Instant {
        Instant::now().checked_sub(Duration::from_millis(millis)).unwrap()
    }

    #[test]
    fn the_longest_is_forgotten_after_a_second_or_two() {
        let mut meter = Meter::default();
        let longest = |meter: &Meter, now| meter.turns(now).longest.as_millis() / 100;
        turn(&mut meter, 10 * SECOND, 500);
        turn(&mut meter, 10 * SECOND, 0);
        assert_eq!(longest(&meter, 10 * SECOND), 5);
        turn(&mut meter, 11 * SECOND, 200);
        assert_eq!(longest(&meter, 11 * SECOND), 5);
        turn(&mut meter, 12 * SECOND, 0);
        assert_eq!(longest(&meter, 12 * SECOND), 2);
        turn(&mut meter, 30 * SECOND, 300);
        assert_eq!(longest(&meter, 30 * SECOND), 3);
        // Nothing happens any more.
        assert_eq!(longest(&meter, 40 * SECOND), 0);
        assert_eq!(meter.longest_ever(), Duration::from_millis(500));
    }

    #[test]
    fn each_turn_is_in_the_bucket_of_the_first_bound_that_it_keeps() {
        let mut meter = Meter::default();
        for millis in [15, 30, 30, 700, 5000] {
            turn(&mut meter, SECOND, millis);
        }
        let Turns { count, busy, histogram, .. } = meter.turns(SECOND);
        assert_eq!((count, busy.as_millis() / 100), (5, 57));
        assert_eq!(histogram, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 1]);
    }

    #[test]
    fn the_bounds_are_round() {
        let micros = Turns::BOUNDS.map(|bound| bound.as_micros());
        assert_eq!(micros[..7], [10, 20, 50, 100, 200, 500, 1000]);
        assert_eq!(micros[13..], [200_000, 500_000, 1_000_000]);
    }

    #[test]
    fn steps_are_measured_while_they_are_watched() {
        let mut meter = Meter::default();
        turn(&mut meter, SECOND, 100);
        assert_eq!(meter.turns(SECOND).steps, None);
        meter.watch(SECOND);
        assert_eq!(meter.turns(SECOND).steps, Some(Steps::default()));
        meter.begin(began(100), SECOND);
        let before = meter.step(Step::Handlers);
        meter.step(before);
        meter.step(Step::Flush);
        meter.end(0, SECOND);
        let steps = meter.turns(5 * SECOND).steps.unwrap();
        assert!(steps.read >= Duration::from_millis(100), "{steps:?}");
        let Steps { accept, read, handlers, timers, messages, flush } = steps;
        assert!(handlers + flush < read && (accept, timers, messages) == Default::default());
        // Nobody has looked for five seconds.
        turn(&mut meter, 6 * SECOND, 100);
        assert_eq!(meter.turns(6 * SECOND).steps, None);
        meter.watch(7 * SECOND);
        assert_eq!(meter.turns(7 * SECOND).steps, Some(steps));
    }
}
