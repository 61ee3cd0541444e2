//! Notices callbacks that block the loop, without reading the clock for each call.

use std::time::{Duration, Instant};

/// Calls between two readings of the clock: so many together must not hold the loop either.
const CALLS: u32 = 16;

/// A service that is slow all the time is logged no more often than this.
const LOG_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct SlowHooks {
    calls: u32,
    logged: Option<Instant>,
}

impl SlowHooks {
    /// A hook has returned. `clock` is the last reading, and is renewed when it is read again.
    pub(crate) fn called(&mut self, clock: &mut Instant, name: &str, limit: Duration) {
        self.calls += 1;
        if self.calls >= CALLS {
            self.check(clock, name, limit);
        }
    }

    /// Complains if the calls since the last reading of the clock took too long. Without any
    /// call it does not read the clock.
    pub(crate) fn check(&mut self, clock: &mut Instant, name: &str, limit: Duration) {
        let calls = std::mem::take(&mut self.calls);
        if calls == 0 {
            return;
        }
        let now = Instant::now();
        let held = now - std::mem::replace(clock, now);
        let quiet = self.logged.is_some_and(|logged| now - logged < LOG_EVERY);
        if held >= limit && !quiet {
            self.logged = Some(now);
            log::warn!(
                "{name}: the handler held the loop for {} ms in {calls} call(s); callbacks must \
                 not block: move the work to a thread and post the answer",
                held.as_millis()
            );
        }
    }
}
