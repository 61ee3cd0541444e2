//! The bounds on the memory that all connections together take for what clients have not read and
//! for what they have not finished: [`set_max_total_output`](crate::Reactor::set_max_total_output),
//! [`set_max_total_input`](crate::Reactor::set_max_total_input).

use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::ops::DerefMut;

use super::fairness::LOG_EVERY;
use super::loop_state::LoopState;
use super::peers;
use super::service::AnyService;
use super::table::{Slot, Table};
use super::token::Token;
use crate::connection::CloseReason;
use crate::connection::connection::Stage;

/// What is bounded, each by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub(crate) fn most(&self, memory: Memory) -> usize {
        match memory {
            Memory::Output => self.max_total_output,
            Memory::Input => self.max_total_input,
        }
    }
}

/// How much one connection has of it.
pub(crate) struct Holding {
    count: usize,
    /// What its peer goes by; none if it stands for itself alone.
    peer: Option<IpAddr>,
    token: Token,
}

/// Complains, and chooses which connections to reset.
fn to_reset(all: Vec<Holding>, most: usize, memory: Memory, state: &mut LoopState) -> Vec<Token> {
    let bound = state.most(memory);
    let limits = &mut state.log_limits;
    let (limit, what, option) = match memory {
        Memory::Output => (&mut limits.total_output, "unsent output", "max_total_output"),
        Memory::Input => (&mut limits.total_input, "unfinished input", "max_total_input"),
    };
    if limit.allows(state.turn.now, LOG_EVERY) {
        // Each connection that is reset is logged by itself as well.
        log::warn!("too much {what} in all ({option}, {bound} bytes): resetting");
    }
    largest(all, most)
}

/// The largest of the peer that has most in all, and so on: so many that an eighth of the bound is free
/// again and not every line after that ends another connection. Else a peer of thousands, each with a
/// little less than others have, would never be the one that has to go.
fn largest(mut all: Vec<Holding>, most: usize) -> Vec<Token> {
    let mut total: usize = all.iter().map(|holding| holding.count).sum();
    all.sort_unstable_by_key(|holding| holding.count);
    let mut by_peer = BTreeMap::<_, (usize, Vec<_>)>::new();
    for Holding { count, peer, token } in all {
        let alone = peer.is_none().then_some(token);
        let (sum, holdings) = by_peer.entry((peer, alone)).or_default();
        *sum += count;
        holdings.push((count, token));
    }
    let mut peers: BinaryHeap<_> = by_peer.into_values().collect();
    let mut chosen = Vec::new();
    while total > most / 8 * 7
        && let Some((sum, mut holdings)) = peers.pop()
    {
        if let Some((count, token)) = holdings.pop() {
            total -= count;
            chosen.push(token);
            peers.push((sum - count, holdings));
        }
    }
    chosen
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
        self.list_holdings(memory, &mut all);
        let most = state.most(memory);
        for token in to_reset(all, most, memory, state) {
            self.end_for_total(memory, token);
        }
    }

    /// Adds which connection has how much of it.
    pub(super) fn list_holdings(&self, memory: Memory, all: &mut Vec<Holding>) {
        let holdings = self.connections.iter().map(|(_, slot)| Holding {
            count: memory.of(slot),
            peer: peers::key(&slot.conn),
            token: Token::connection(self.service, slot.conn.id),
        });
        all.extend(holdings.filter(|holding| holding.count > 0));
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
        let most = state.most(memory);
        if total(services, memory) > most {
            reset(services, memory, most, state);
        }
    }
}

/// How much all services together have of it.
pub(super) fn total<S: DerefMut<Target: AnyService>>(services: &[S], memory: Memory) -> usize {
    services.iter().map(|service| service.total(memory)).sum()
}

/// Ends so many of the largest that an eighth of `most` is free again.
pub(super) fn reset<S: DerefMut<Target: AnyService>>(
    services: &mut [S],
    memory: Memory,
    most: usize,
    state: &mut LoopState,
) {
    let mut all = Vec::new();
    services.iter().for_each(|service| service.list_holdings(memory, &mut all));
    for token in to_reset(all, most, memory, state) {
        services[token.service()].end_for_total(memory, token);
    }
}
