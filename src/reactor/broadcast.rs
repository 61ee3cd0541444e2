//! One message to many connections: the same bytes of the arena for all of them.

use super::fairness::RECEIVERS_PER_LINE;
use super::loop_state::LoopState;
use super::table::Table;
use super::total_memory::Memory;
use crate::connection::{CloseReason, ConnId};

impl<S> Table<S> {
    /// Appends the same output for every open connection that `wanted` picks, but for those that are
    /// full. The copy of `sender` is one that its own request caused.
    pub(crate) fn broadcast(
        &mut self,
        bytes: &[u8],
        sender: Option<ConnId>,
        state: &mut LoopState,
        mut wanted: impl FnMut(ConnId, &S) -> bool,
    ) {
        if self.open == 0 || bytes.is_empty() {
            return;
        }
        self.commit(state);
        // A broadcast costs as much as so many lines, and the sender pays with its share of the
        // turn.
        state.turn.most_lines =
            state.turn.most_lines.saturating_sub(self.open / RECEIVERS_PER_LINE);
        state.turn.step.count_copies(self.open);
        let segment = state.turn.arena.add(bytes);
        let mut slow = Vec::new();
        let mut done = 0;
        while done < self.connections.len() {
            for (_, slot) in self.connections.iter_mut().skip(done) {
                done += 1;
                let takes = slot.conn.takes_output() && slot.conn.has_room(self.limits.max_output);
                if !takes || !wanted(slot.conn.id, &slot.session) {
                    continue;
                }
                let copied = slot.conn.output.push(&state.turn.arena, bytes, segment);
                if sender == Some(slot.conn.id) {
                    slot.conn.hold_above(self.limits.high_water);
                } else if slot.conn.overrun(bytes.len(), &self.limits, state.turn.now) {
                    slow.push(slot.conn.id);
                }
                self.queues.push_dirty(&mut slot.conn);
                if copied > 0 {
                    self.backlog += copied;
                    if self.backlog > state.max_total_output {
                        break;
                    }
                }
            }
            self.enforce_total(Memory::Output, state);
        }
        for id in slow {
            self.end(id, CloseReason::SlowConsumer);
        }
    }
}
