//! The bound on the unsent output of all connections together.

use std::cmp::Reverse;

use super::loop_state::LoopState;
use super::service::AnyService;
use super::table::Table;
use crate::connection::CloseReason;

/// What may be left where the budget was passed: an eighth is free, so that not every line is
/// somebody's end.
pub(crate) fn target(budget: usize) -> usize {
    budget / 8 * 7
}

impl<S> Table<S> {
    /// Holds one service to the budget of all as its output comes: a turn may broadcast to
    /// thousands what would be gigabytes at its end.
    #[inline]
    pub(crate) fn keep_total_output(&mut self, state: &mut LoopState) {
        if self.backlog > state.max_total_output {
            self.relieve(state);
        }
    }

    #[cold]
    fn relieve(&mut self, state: &mut LoopState) {
        let each =
            self.connections.iter().map(|(_, slot)| (slot.conn.output.backlog(), slot.conn.id));
        let mut all: Vec<_> = each.filter(|(backlog, _)| *backlog > 0).collect();
        all.sort_unstable_by_key(|(backlog, _)| Reverse(*backlog));
        for (_, id) in all {
            if self.backlog <= target(state.max_total_output) {
                break;
            }
            self.end(id, CloseReason::TotalOutput);
        }
        state.relieved();
    }
}

/// Holds all services together to it, at the end of a turn.
pub(crate) fn relieve(services: &mut [Box<dyn AnyService + '_>], state: &mut LoopState) {
    let mut total: usize = services.iter().map(|service| service.backlog()).sum();
    if total <= state.max_total_output {
        return;
    }
    let mut all = Vec::new();
    services.iter().for_each(|service| service.backlogs(&mut all));
    all.sort_unstable_by_key(|(backlog, _)| Reverse(*backlog));
    for (backlog, token) in all {
        if total <= target(state.max_total_output) {
            break;
        }
        services[token.service()].relieve(token);
        total -= backlog;
    }
    state.relieved();
}
