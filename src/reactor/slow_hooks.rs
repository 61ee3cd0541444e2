//! Notices hooks that block the loop, without reading the clock for each call.

use std::time::{Duration, Instant};

use super::fairness::{CALLS_PER_CLOCK_READING, LOG_EVERY};
use super::log_limits::LogLimit;
use super::loop_state::LoopState;
use super::table::Label;

#[derive(Debug, Default)]
pub(crate) struct SlowHooks {
    /// Hooks called since the last reading of the clock.
    calls: u32,
    /// A service that is slow all the time is not logged all the time.
    logged: LogLimit,
}

impl SlowHooks {
    /// A hook of the service `name` has returned.
    #[inline]
    pub(crate) fn called(&mut self, state: &mut LoopState, name: &Label, slow_call: Duration) {
        self.calls += 1;
        if self.calls >= CALLS_PER_CLOCK_READING {
            self.check(state, name, slow_call);
        }
    }

    /// Complains if the hooks called since the last reading of the clock took too long. Without any
    /// call it does not read the clock.
    pub(crate) fn check(&mut self, state: &mut LoopState, name: &Label, slow_call: Duration) {
        let calls = std::mem::take(&mut self.calls);
        if calls == 0 {
            return;
        }
        let now = Instant::now();
        let held = now - std::mem::replace(&mut state.turn.clock, now);
        if held < slow_call {
            return;
        }
        state.counters(name.service).slow_calls += 1;
        if self.logged.allows(state.nanos(now), LOG_EVERY) {
            log::warn!(
                "{name}: the handler held the loop for {} ms in {calls} call(s); callbacks must \
                 not block: move the work to a thread and post the answer",
                held.as_millis()
            );
        }
    }
}
