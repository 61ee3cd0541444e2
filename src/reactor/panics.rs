//! A panic in the embedder's code ends the call and not the loop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use super::loop_state::LoopState;
use super::table::Label;

impl LoopState {
    /// Runs code of the embedder that is given nothing of the loop's. None where it panicked.
    pub(super) fn guard<R>(&mut self, name: &Label, code: impl FnOnce() -> R) -> Option<R> {
        let outcome = catch_unwind(AssertUnwindSafe(code));
        self.unless_panicked(outcome, name)
    }

    /// What a hook gave. None where it panicked, which is counted and logged.
    #[inline]
    pub(crate) fn unless_panicked<R>(
        &mut self,
        outcome: thread::Result<R>,
        name: &Label,
    ) -> Option<R> {
        if outcome.is_err() {
            self.counters(name.service).panics += 1;
            log::error!("{name}: a hook of the handler panicked");
        }
        outcome.ok()
    }
}
