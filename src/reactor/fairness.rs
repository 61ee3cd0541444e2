//! Every bound of a turn or a queue that is not a setting, with its reason, and the budget of a
//! step. What a user can set is in [`Limits`](crate::Limits).

use std::time::Duration;

use super::loop_state::LoopState;
use super::table::Table;

/// A broadcast to so many counts as one line against the share that a client has of a turn.
pub(crate) const RECEIVERS_PER_LINE: usize = 64;

/// Bytes that one step of a service's turn may gather before it leaves the rest to the next.
pub(crate) const OUTPUT_PER_STEP: usize = 256 * 1024;

/// Copies of broadcasts that it may queue.
pub(crate) const DELIVERIES: usize = 256 * 1024;

/// Slots that a service begins with, and keeps while it is empty. Allocators take so much straight
/// from the system: only slots in use lie in memory, and growing leaves no smaller tables behind.
pub(crate) const SLOTS_KEPT: usize = 2048;

/// Events fetched in one wait to begin with; a wait that fills the buffer doubles it.
pub(crate) const EVENTS: usize = 1024;

pub(crate) const MOST_EVENTS: usize = 64 * 1024;

/// Connections that one service serves in a turn; the rest wait for the next one.
pub(crate) const SERVED_PER_TURN: usize = 256;

/// TLS handshakes that one service moves on in a turn: at a millisecond each for the largest usual
/// keys, the others wait for no more than that.
pub(crate) const HANDSHAKES_PER_TURN: usize = 8;

/// Messages that one service takes in a turn.
pub(crate) const MESSAGES_PER_TURN: usize = 1024;

/// Timers that one service fires in a turn.
pub(crate) const TIMERS_PER_TURN: usize = 1024;

/// Newcomers that are passed over in one go: gone before they could be accepted, or not allowed.
pub(crate) const PASSED_OVER: usize = 64;

/// Without descriptors, how long until the next try if no connection closes before.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// How often running out of descriptors is logged and answered.
pub(crate) const STARVED_EVERY: Duration = Duration::from_secs(1);

/// How often being full is logged, and keeping somebody out.
pub(crate) const REFUSED_EVERY: Duration = Duration::from_secs(10);

/// While shutting down nobody is waited for as long as [`linger`](crate::Limits::linger) says.
pub(crate) const LINGER_AT_SHUTDOWN: Duration = Duration::from_millis(500);

impl<S> Table<S> {
    /// One step of the turn begins: accepting, serving, timers, messages, reaping. Each has a
    /// budget of its own, so that none can use up another's.
    pub(crate) fn begin_step(&mut self, state: &LoopState) {
        self.delivered = 0;
        self.step_began = state.turn.arena.len();
    }

    /// This step of the turn has gathered as much output as it may; the rest is for the next.
    pub(crate) fn step_is_spent(&self, state: &LoopState) -> bool {
        self.delivered > DELIVERIES || state.turn.arena.len() - self.step_began > OUTPUT_PER_STEP
    }
}
