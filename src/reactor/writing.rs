//! Output: gathered in the arena while hooks run, written at the end of the turn.

use std::io::{self, ErrorKind};

use super::loop_state::LoopState;
use super::service::ActiveService;
use super::table::Table;
use crate::connection::connection::Stage;
use crate::connection::flags::Flag;
use crate::connection::output::Flushed;
use crate::connection::{CloseReason, ConnId};
use crate::handler::Handler;

impl<S> Table<S> {
    /// Appends output for one connection; says whether it is open. `own` tells whether its own
    /// request caused it: then it is held back, else it has to keep up.
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

    /// As [`send`](Self::send), of what the arena has had since it was `start` bytes long.
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
        let open = slot.conn.takes_output();
        if !open || count == 0 {
            state.turn.arena.truncate(start);
            return open;
        }
        let copied = slot.conn.output.push_since(&state.turn.arena, start);
        if copied > 0 {
            // Nobody else was given these bytes.
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
        self.keep_total_output(state);
        self.connections[key].conn.stage == Stage::Open
    }

    /// From here on the arena's bytes are a reply of this connection to its own request, until
    /// [`commit`](Self::commit). False if it is not open.
    #[inline(never)]
    pub(crate) fn begin_reply(&mut self, id: ConnId, state: &mut LoopState) -> bool {
        debug_assert!(state.turn.reply.of.is_none(), "one hook at a time");
        let slot = &self.connections[id.slot()];
        if !slot.conn.takes_output() {
            return false;
        }
        let start = state.turn.arena.len();
        let room = self.limits.high_water.saturating_sub(slot.conn.owed());
        let end = if slot.conn.takes_input() { start.saturating_add(room + 1) } else { 0 };
        state.turn.reply = Reply { of: Some(id), start, end };
        true
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

/// What the connection now served has written into the arena and not been given yet: to give it
/// line by line would cost as much as the lines.
///
/// While there is one, nothing has changed the connection's state since it was begun: whatever
/// would is preceded by a commit.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) of: Option<ConnId>,
    pub(crate) start: usize,
    /// Length of the arena from which the connection is held back; 0 where it takes no input, and
    /// without a reply.
    pub(crate) end: usize,
}

pub(super) fn would_block(outcome: &io::Result<()>) -> bool {
    outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

impl<H: Handler> ActiveService<H> {
    pub(crate) fn flush_one(&mut self, id: ConnId, state: &mut LoopState) {
        let Table { connections, backlog, .. } = &mut self.table;
        let Some(slot) = connections.get_mut(id.slot()).filter(|slot| slot.conn.id == id) else {
            return;
        };
        slot.conn.flags.set(Flag::Dirty, false);
        if slot.conn.stage != Stage::Open && slot.conn.stage != Stage::Closing {
            return;
        }
        let mut again = false;
        let before = slot.conn.output.backlog();
        if slot.conn.flags.has(Flag::Blocked) {
            // It may own nothing, where only the stream has something left.
            slot.conn.output.keep(&state.turn.arena);
            *backlog = *backlog + slot.conn.output.backlog() - before;
        } else if !slot.conn.flags.has(Flag::Gone) {
            let mut written = 0;
            let outcome = slot.conn.output.flush(&mut slot.stream, &state.turn.arena, &mut written);
            *backlog = *backlog + slot.conn.output.backlog() - before;
            state.counters.bytes_out += written as u64;
            if written > 0 || slot.stream.take_moved() {
                slot.conn.sent(state.turn.now);
            }
            match outcome {
                Ok(Flushed::All) if slot.conn.is_at_ease() => return,
                Ok(Flushed::All) => {}
                Ok(Flushed::Blocked) => slot.conn.flags.set(Flag::Blocked, true),
                Ok(Flushed::Budget) => again = true,
                // Two descriptors are two things: the input of one does not end with the other.
                Err(error) if slot.conn.stage == Stage::Open && slot.stream.is_socket() => {
                    return self.table.lose(id, &error, state.turn.now);
                }
                Err(error) => return self.table.fail(id, &error),
            }
        }
        let Table { limits, connections, .. } = &mut self.table;
        let slot = &mut connections[id.slot()];
        match slot.conn.stage {
            Stage::Open => {
                // One that has had its share of the turn has not refused anything yet.
                if !again && slot.conn.too_slow(limits, state.turn.now) {
                    return self.table.end(id, CloseReason::SlowConsumer);
                }
                let mut arm = slot.conn.over_soft() != 0;
                if slot.conn.flags.has(Flag::Finished) && slot.conn.all_sent() {
                    // Otherwise it fails only where the peer is gone, which the next read tells.
                    let later = would_block(&slot.stream.shutdown_write());
                    slot.conn.flags.set(Flag::Blocked, later);
                }
                if slot.conn.output.len() <= limits.low_water {
                    let held = slot.conn.flags.take(Flag::Held);
                    if held {
                        slot.conn.input.wait_from(state.turn.now);
                        arm = true;
                    }
                    if slot.conn.flags.has(Flag::Drain) {
                        // Not here: what the hook sends needs an arena that is not about to be
                        // cleared, and has to wait its turn behind the others.
                        self.table.visit(id);
                    } else if held {
                        self.table.queue(id);
                    }
                }
                if arm {
                    // Nobody may have anything more to say to it before its time is up.
                    self.table.arm(id);
                }
            }
            _ if slot.conn.all_sent() => self.linger(id, state),
            // Most have sent all by now: only those that have not need a deadline.
            _ => self.table.arm(id),
        }
        if again {
            self.table.mark_dirty(id.slot());
        }
    }

    pub(super) fn flush_dirty(&mut self, state: &mut LoopState) {
        // Those that become dirty meanwhile have used up their budget: they are for next turn.
        let mut dirty = std::mem::take(&mut self.table.dirty);
        for id in dirty.drain(..) {
            self.flush_one(id, state);
            self.table.keep_total_output(state);
        }
        dirty.append(&mut self.table.dirty);
        self.table.dirty = dirty;
    }
}
