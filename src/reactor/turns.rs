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
