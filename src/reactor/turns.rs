//! How long the turns of the loop take, and while somebody watches what their time goes into.

use std::time::{Duration, Instant};

use crate::connection::clock::{Nanos, nanos};

/// How long the longest turn is remembered, at least; it may be twice that.
const LONGEST_FOR: Nanos = 1_000_000_000;

/// How long the steps are measured after the last time that somebody asked for it.
const WATCHED_FOR: Duration = Duration::from_secs(5);

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
    pub const BOUNDS: [Duration; 16] = [
        Duration::from_micros(10),
        Duration::from_micros(20),
        Duration::from_micros(50),
        Duration::from_micros(100),
        Duration::from_micros(200),
        Duration::from_micros(500),
        Duration::from_millis(1),
        Duration::from_millis(2),
        Duration::from_millis(5),
        Duration::from_millis(10),
        Duration::from_millis(20),
        Duration::from_millis(50),
        Duration::from_millis(100),
        Duration::from_millis(200),
        Duration::from_millis(500),
        Duration::from_secs(1),
    ];
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
    turns: Turns,
    longest_ever: Duration,
    /// When the last second began, the longest turn since then, and the one of the second before.
    second: Nanos,
    longest: [Duration; 2],
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
        self.turns.slept += Duration::from_nanos(time);
    }

    /// A turn begins.
    pub(super) fn begin(&mut self, clock: Instant, now: Nanos) {
        self.under_way = (now < self.watched_until).then_some((Step::Read, clock));
    }

    /// The turn that began at `clock` ends; `now` is when it did on the loop's count.
    pub(super) fn end(&mut self, clock: Instant, now: Nanos) {
        let end = Instant::now();
        if let Some((step, since)) = self.under_way.take() {
            self.steps[step as usize] += end - since;
        }
        let took = end - clock;
        self.turns.count += 1;
        self.turns.busy += took;
        self.longest_ever = self.longest_ever.max(took);
        let bucket = Turns::BOUNDS.iter().take_while(|bound| took > **bound).count();
        self.turns.histogram[bucket] += 1;
        let second = now + nanos(took);
        if second >= self.second.saturating_add(LONGEST_FOR) {
            let last = second < self.second.saturating_add(2 * LONGEST_FOR);
            self.longest = [Duration::ZERO, if last { self.longest[0] } else { Duration::ZERO }];
            self.second = second;
        }
        self.longest[0] = self.longest[0].max(took);
    }

    /// Counts a turn of a harness, whose clock stands still.
    pub(crate) fn count(&mut self) {
        self.turns.count += 1;
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
        let age = now.saturating_sub(self.second);
        let recent = self.longest.iter().take(match age / LONGEST_FOR {
            0 => 2,
            1 => 1,
            _ => 0,
        });
        let [accept, read, handlers, timers, messages, flush] = self.steps;
        let steps = Steps { accept, read, handlers, timers, messages, flush };
        Turns {
            longest: recent.max().copied().unwrap_or_default(),
            steps: (now < self.watched_until).then_some(steps),
            ..self.turns.clone()
        }
    }

    /// How many turns there were, and how long the longest took.
    pub(super) fn count_and_longest(&self) -> (u64, Duration) {
        (self.turns.count, self.longest_ever)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    /// A turn of so many milliseconds that ends now, and begins at `now` on the loop's count.
    fn turn(meter: &mut Meter, now: Nanos, millis: u64) {
        meter.begin(began(millis), now);
        meter.end(began(millis), now);
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
        assert_eq!(longest(&meter, 11 * SECOND), 5);
        turn(&mut meter, 12 * SECOND, 200);
        assert_eq!(longest(&meter, 12 * SECOND), 5);
        turn(&mut meter, 12 * SECOND, 0);
        turn(&mut meter, 14 * SECOND, 0);
        assert_eq!(longest(&meter, 14 * SECOND), 2);
        turn(&mut meter, 30 * SECOND, 300);
        assert_eq!(longest(&meter, 30 * SECOND), 3);
        // Nothing happens any more.
        assert_eq!(longest(&meter, 40 * SECOND), 0);
        assert!(meter.count_and_longest().1 >= Duration::from_millis(500));
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
        meter.end(began(100), SECOND);
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
