//! Output: gathered in the arena while hooks run, written at the end of the turn.

use std::io::{self, ErrorKind};

use super::fairness::WRITTEN_PER_TURN;
use super::loop_state::LoopState;
use super::service::ActiveService;
use super::table::{Slot, Table, find};
use super::total_memory::Memory;
use super::turn_trace::Happened;
use crate::connection::connection::Stage;
use crate::connection::flags::Flag;
use crate::connection::output::Flushed;
use crate::connection::{CloseReason, ConnId};
use crate::handler::Handler;

impl<S> Table<S> {
    /// Appends output for one connection, and says whether the connection takes it. With `own` its
    /// own request has caused the output, which holds the connection back; else it has to keep up.
    #[inline]
    pub(crate) fn send(
        &mut self,
        key: usize,
        bytes: &[u8],
        own: bool,
        state: &mut LoopState,
    ) -> bool {
        let start = state.turn.arena.len();
        state.turn.arena.put(bytes);
        self.send_since(key, start, own, state)
    }

    /// As [`send`](Self::send), for what the arena was given since it was `start` bytes long.
    #[inline]
    pub(crate) fn send_since(
        &mut self,
        key: usize,
        start: usize,
        own: bool,
        state: &mut LoopState,
    ) -> bool {
        let slot = &mut self.connections[key];
        let count = state.turn.arena.len() - start;
        let takes = slot.conn.takes_output() && slot.conn.has_room(self.limits.max_output);
        if !takes || count == 0 {
            state.turn.arena.truncate(start);
            return takes;
        }
        let copied = slot.conn.output.push_since(&state.turn.arena, start);
        if copied > 0 {
            // The connection has a copy of its own, and no other connection shares these bytes.
            self.backlog += copied;
            state.turn.arena.truncate(start);
        }
        if own {
            slot.conn.hold_above(self.limits.high_water);
        } else if slot.conn.overrun(count, &self.limits, state.turn.now) {
            let id = slot.conn.id;
            self.end(id, CloseReason::SlowConsumer);
            return false;
        }
        self.mark_dirty(key);
        self.enforce_total(Memory::Output, state);
        self.connections[key].conn.stage == Stage::Open
    }

    /// From here on the arena's bytes are a reply of this connection to its own request, until
    /// [`commit`](Self::commit). False if the connection takes none.
    #[inline(never)]
    pub(crate) fn begin_reply(&mut self, id: ConnId, state: &mut LoopState) -> bool {
        debug_assert!(state.turn.reply.of.is_none(), "one hook at a time");
        let conn = &self.connections[id.slot()].conn;
        if !conn.takes_output() || !conn.has_room(self.limits.max_output) {
            return false;
        }
        let start = state.turn.arena.len();
        let room = conn.room(&self.limits);
        let end = if conn.takes_lines() { start.saturating_add(room + 1) } else { 0 };
        state.turn.reply = Reply { of: Some(id), start, end };
        true
    }

    /// As [`begin_reply`](Self::begin_reply), where there may be a reply that has come to its end. A
    /// client gets more of it all the same: it is held back once the hook has returned.
    #[inline(never)]
    pub(crate) fn join_reply(&mut self, id: ConnId, state: &mut LoopState) -> bool {
        if state.turn.reply.of.is_some() {
            if !self.connections[id.slot()].conn.flags.has(Flag::Outbound) {
                return true;
            }
            self.commit(state);
        }
        self.begin_reply(id, state)
    }

    /// Gives the reply to its connection. Due before anybody else gets output, before the
    /// connection's own output is looked at, and before its state changes.
    pub(crate) fn commit(&mut self, state: &mut LoopState) {
        let reply = std::mem::take(&mut state.turn.reply);
        if let Some(id) = reply.of {
            self.send_since(id.slot(), reply.start, true, state);
        }
    }
}

/// What a hook has written into the arena for its own connection, which was not given it yet: to
/// give it line by line would cost as much as the lines.
///
/// While there is a reply, the connection's state is what it was when the reply was begun: a commit
/// precedes whatever changes it.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// Whose reply it is; none without one.
    pub(crate) of: Option<ConnId>,
    /// Length of the arena when it began.
    pub(crate) start: usize,
    /// Length of the arena at which the connection is held back, or full; 0 where it takes no lines,
    /// and without a reply.
    pub(crate) end: usize,
}

impl<H: Handler> ActiveService<H> {
    /// Writes what is unsent of every connection that is listed for the flush.
    pub(super) fn flush_dirty(&mut self, state: &mut LoopState) {
        if self.table.queues.dirty.is_empty() {
            return;
        }
        // Those that become dirty meanwhile have used up their budget: they are for the next turn.
        let mut dirty = std::mem::take(&mut self.table.queues.dirty);
        for id in dirty.drain(..) {
            self.flush_one(id, state);
            state.trace(self.table.service, Some(id), Happened::Served);
            self.table.enforce_total(Memory::Output, state);
            self.table.enforce_total(Memory::Input, state);
        }
        dirty.append(&mut self.table.queues.dirty);
        self.table.queues.dirty = dirty;
    }

    /// Writes for one connection, and does what follows from how much is unsent then.
    fn flush_one(&mut self, id: ConnId, state: &mut LoopState) {
        let Table { service, connections, backlog, kept, accounts, .. } = &mut self.table;
        let Some(slot) = find(connections, id) else { return };
        slot.conn.flags.set(Flag::Dirty, false);
        if !matches!(slot.conn.stage, Stage::Open | Stage::Leaving | Stage::Closing) {
            return;
        }
        let mut budget_spent = false;
        let before = slot.conn.output.backlog();
        if slot.conn.flags.has(Flag::Blocked) {
            // There may be nothing to keep: where only the stream has something left.
            slot.conn.output.keep(&state.turn.arena);
            *backlog = *backlog + slot.conn.output.backlog() - before;
        } else if !slot.conn.flags.has(Flag::Gone) {
            let mut written = 0;
            let arena = &state.turn.arena;
            let outcome = slot.counted(kept, |Slot { conn, stream, .. }| {
                conn.output.flush(stream, arena, WRITTEN_PER_TURN, &mut written)
            });
            *backlog = *backlog + slot.conn.output.backlog() - before;
            state.counters(*service).bytes_out += written as u64;
            accounts.count_output(id, written);
            if written > 0 || slot.stream.take_moved() {
                slot.conn.sent(state.turn.now);
            }
            match outcome {
                Ok(Flushed::All) if slot.conn.is_at_ease() => return,
                Ok(Flushed::All) => {}
                Ok(Flushed::Blocked) => slot.conn.flags.set(Flag::Blocked, true),
                Ok(Flushed::Budget) => budget_spent = true,
                // What the peer of a socket sent before may still be read.
                Err(error) if slot.conn.stage == Stage::Open && slot.stream.is_socket() => {
                    return self.table.lose_peer(id, &error, state.turn.now);
                }
                Err(error) => return self.table.fail(id, &error),
            }
        }
        let Table { limits, connections, kept, .. } = &mut self.table;
        let slot = &mut connections[id.slot()];
        match slot.conn.stage {
            Stage::Open => {
                // A connection that has had its share of the turn has not refused anything yet.
                if !budget_spent && slot.conn.too_slow(limits, state.turn.now) {
                    return self.table.end(id, CloseReason::SlowConsumer);
                }
                let mut arm = slot.conn.over_soft() != 0;
                if slot.conn.flags.has(Flag::Finished) && slot.conn.all_sent() {
                    // Any other error means that the peer is gone, which the next read tells.
                    let shut = slot.counted(kept, |slot| slot.stream.shutdown_write());
                    let later = would_block(&shut);
                    slot.conn.flags.set(Flag::Blocked, later);
                }
                if slot.conn.is_drained(limits) {
                    let held = slot.stop_waiting(Flag::Held, state.turn.now);
                    arm |= held;
                    if slot.conn.flags.has(Flag::Drain) {
                        // `on_drain` is not called from here: what it sends needs an arena that is
                        // not about to be cleared, and has to wait behind the other connections.
                        self.table.enqueue(id);
                    } else if held {
                        self.table.enqueue_if_work(id);
                    }
                }
                if arm {
                    // Nothing else may move the connection before its time is up.
                    self.table.arm(id);
                }
            }
            Stage::Leaving if slot.conn.all_sent() => self.table.enqueue_ending(id),
            _ if slot.conn.all_sent() => self.linger(id, state),
            // Most have sent all by now: only those that have not need a deadline.
            _ => self.table.arm(id),
        }
        if budget_spent {
            self.table.mark_dirty(id.slot());
        }
    }
}

pub(super) fn would_block(outcome: &io::Result<()>) -> bool {
    outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}
