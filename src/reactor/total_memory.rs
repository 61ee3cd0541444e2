//! The bounds on the memory that all connections together take for what clients have not read and
//! for what they have not finished: [`set_max_total_output`](crate::Reactor::set_max_total_output),
//! [`set_max_total_input`](crate::Reactor::set_max_total_input).

use std::cmp::Reverse;
use std::ops::DerefMut;

use super::fairness::LOG_EVERY;
use super::loop_state::LoopState;
use super::service::AnyService;
use super::table::{Slot, Table};
use super::token::Token;
use crate::connection::CloseReason;
use crate::connection::connection::Stage;

/// What is bounded, each by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Memory {
    /// Unsent output: the backlogs.
    Output,
    /// Input that handlers have not taken, and what layers keep.
    Input,
}

impl Memory {
    /// How much a connection has of it.
    fn of<S>(self, slot: &Slot<S>) -> usize {
        match self {
            Memory::Output => slot.conn.output.backlog(),
            Memory::Input if slot.conn.stage == Stage::Ended => 0,
            Memory::Input => slot.kept(),
        }
    }

    fn reason(self) -> CloseReason {
        match self {
            Memory::Output => CloseReason::TotalOutput,
            Memory::Input => CloseReason::TotalInput,
        }
    }
}

impl LoopState {
    /// How much there may be of it.
    #[inline]
    fn most(&self, memory: Memory) -> usize {
        match memory {
            Memory::Output => self.max_total_output,
            Memory::Input => self.max_total_input,
        }
    }
}

/// Complains, and chooses which connections to reset: those with the most, so many that an eighth of
/// the bound is free again and not every line after that ends another connection.
fn to_reset(
    mut all: Vec<(usize, Token)>,
    memory: Memory,
    state: &mut LoopState,
) -> impl Iterator<Item = Token> + use<> {
    let most = state.most(memory);
    let limits = &mut state.log_limits;
    let (limit, what, option) = match memory {
        Memory::Output => (&mut limits.total_output, "unsent output", "max_total_output"),
        Memory::Input => (&mut limits.total_input, "unfinished input", "max_total_input"),
    };
    if limit.allows(state.turn.now, LOG_EVERY) {
        // Each connection that is reset is logged by itself as well.
        log::warn!("too much {what} in all ({option}, {most} bytes): resetting");
    }
    let mut total: usize = all.iter().map(|(count, _)| count).sum();
    all.sort_unstable_by_key(|(count, _)| Reverse(*count));
    let too_much = move |(count, _): &(usize, Token)| {
        let too_much = total > most / 8 * 7;
        total -= count;
        too_much
    };
    all.into_iter().take_while(too_much).map(|(_, token)| token)
}

impl<S> Table<S> {
    /// How much all connections of the service have of it.
    #[inline]
    pub(super) fn total(&self, memory: Memory) -> usize {
        match memory {
            Memory::Output => self.backlog,
            Memory::Input => self.kept,
        }
    }

    /// Holds one service to the bound as the memory is taken: a turn may broadcast to thousands what
    /// would be gigabytes at its end.
    #[inline]
    pub(super) fn enforce_total(&mut self, memory: Memory, state: &mut LoopState) {
        if self.total(memory) > state.most(memory) {
            self.reset_largest(memory, state);
        }
    }

    #[cold]
    fn reset_largest(&mut self, memory: Memory, state: &mut LoopState) {
        let mut all = Vec::new();
        self.list_shares(memory, &mut all);
        for token in to_reset(all, memory, state) {
            self.end_for_total(memory, token);
        }
    }

    /// Adds which connection has how much of it.
    pub(super) fn list_shares(&self, memory: Memory, all: &mut Vec<(usize, Token)>) {
        let each = self.connections.iter().map(|(_, slot)| slot);
        let shares = each
            .map(|slot| (memory.of(slot), Token::connection(self.service, slot.conn.id)))
            .filter(|(count, _)| *count > 0);
        all.extend(shares);
    }

    pub(super) fn end_for_total(&mut self, memory: Memory, token: Token) {
        if let Some(slot) = self.get_by_token(token) {
            let id = slot.conn.id;
            self.end(id, memory.reason());
        }
    }
}

/// Holds all services together to the bounds, at the end of a turn.
pub(super) fn enforce<S: DerefMut<Target: AnyService>>(services: &mut [S], state: &mut LoopState) {
    for memory in [Memory::Output, Memory::Input] {
        let total: usize = services.iter().map(|service| service.total(memory)).sum();
        if total <= state.most(memory) {
            continue;
        }
        let mut all = Vec::new();
        services.iter().for_each(|service| service.list_shares(memory, &mut all));
        for token in to_reset(all, memory, state) {
            services[token.service()].end_for_total(memory, token);
        }
    }
}
