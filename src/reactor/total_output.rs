//! The bound on the unsent output of all connections together:
//! [`set_max_total_output`](crate::Reactor::set_max_total_output).

use std::cmp::Reverse;
use std::ops::DerefMut;

use super::fairness::LOG_EVERY;
use super::loop_state::LoopState;
use super::service::AnyService;
use super::table::Table;
use super::token::Token;
use crate::connection::CloseReason;

/// Complains, and chooses which connections to reset: those with the largest backlogs, so many that
/// an eighth of the bound is free again and not every line after that ends another connection.
fn to_reset(
    mut all: Vec<(usize, Token)>,
    state: &mut LoopState,
) -> impl Iterator<Item = Token> + use<> {
    let most = state.max_total_output;
    if state.log_limits.total_output.allows(state.turn.now, LOG_EVERY) {
        // Each connection that is reset is logged by itself as well.
        log::warn!("too much unsent output in all (max_total_output, {most} bytes): resetting");
    }
    let mut total: usize = all.iter().map(|(backlog, _)| backlog).sum();
    all.sort_unstable_by_key(|(backlog, _)| Reverse(*backlog));
    let too_much = move |(backlog, _): &(usize, Token)| {
        let too_much = total > most / 8 * 7;
        total -= backlog;
        too_much
    };
    all.into_iter().take_while(too_much).map(|(_, token)| token)
}

impl<S> Table<S> {
    /// Holds one service to the bound as its output comes: a turn may broadcast to thousands what
    /// would be gigabytes at its end.
    #[inline]
    pub(super) fn enforce_total_output(&mut self, state: &mut LoopState) {
        if self.backlog > state.max_total_output {
            self.reset_largest(state);
        }
    }

    #[cold]
    fn reset_largest(&mut self, state: &mut LoopState) {
        let mut all = Vec::new();
        self.list_backlogs(&mut all);
        for token in to_reset(all, state) {
            self.end_for_total_output(token);
        }
    }

    /// Adds which connection has how many unsent bytes of its own.
    pub(super) fn list_backlogs(&self, all: &mut Vec<(usize, Token)>) {
        let each = self.connections.iter().map(|(_, slot)| &slot.conn);
        let some = each.filter(|conn| conn.output.backlog() > 0);
        all.extend(
            some.map(|conn| (conn.output.backlog(), Token::connection(self.service, conn.id))),
        );
    }

    pub(super) fn end_for_total_output(&mut self, token: Token) {
        if let Some(slot) = self.get_by_token(token) {
            let id = slot.conn.id;
            self.end(id, CloseReason::TotalOutput);
        }
    }
}

/// Holds all services together to the bound, at the end of a turn.
pub(super) fn enforce<S: DerefMut<Target: AnyService>>(services: &mut [S], state: &mut LoopState) {
    let total: usize = services.iter().map(|service| service.backlog()).sum();
    if total <= state.max_total_output {
        return;
    }
    let mut all = Vec::new();
    services.iter().for_each(|service| service.list_backlogs(&mut all));
    for token in to_reset(all, state) {
        services[token.service()].end_for_total_output(token);
    }
}
