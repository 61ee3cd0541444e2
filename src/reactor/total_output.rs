//! The bound on the unsent output of all connections together.

use std::cmp::Reverse;

use crate::CloseReason;
use crate::core::Core;
use crate::pool::Pool;
use crate::serve::Serve;

/// What may be left where the budget was passed: an eighth is free, so that not every line is
/// somebody's end.
fn target(budget: usize) -> usize {
    budget / 8 * 7
}

impl<S> Pool<S> {
    /// Holds one service to the budget of all as its output comes: a turn may broadcast to
    /// thousands what would be gigabytes at its end.
    #[inline]
    pub(crate) fn keep_budget(&mut self, core: &mut Core) {
        if self.backlog > core.max_total_output {
            self.relieve(core);
        }
    }

    #[cold]
    fn relieve(&mut self, core: &mut Core) {
        let each = self.connections.iter().map(|(_, found)| (found.output.backlog(), found.id));
        let mut all: Vec<_> = each.filter(|(backlog, _)| *backlog > 0).collect();
        all.sort_unstable_by_key(|(backlog, _)| Reverse(*backlog));
        for (_, id) in all {
            if self.backlog <= target(core.max_total_output) {
                break;
            }
            self.end(id, CloseReason::TotalOutput);
        }
        core.relieved();
    }
}

/// Holds all services together to it, at the end of a turn.
pub(crate) fn relieve(services: &mut [Box<dyn Serve + '_>], core: &mut Core) {
    let mut total: usize = services.iter().map(|service| service.backlog()).sum();
    if total <= core.max_total_output {
        return;
    }
    let mut all = Vec::new();
    services.iter().for_each(|service| service.backlogs(&mut all));
    all.sort_unstable_by_key(|(backlog, _)| Reverse(*backlog));
    for (backlog, token) in all {
        if total <= target(core.max_total_output) {
            break;
        }
        services[token.service()].relieve(token);
        total -= backlog;
    }
    core.relieved();
}
