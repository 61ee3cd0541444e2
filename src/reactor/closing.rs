//! How a connection ends: last words, flush, shut the write side, linger, tell the handler.

use std::borrow::Cow;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::loop_state::LoopState;
use super::service::ActiveService;
use super::table::Table;
use super::writing::would_block;
use crate::connection::clock::Nanos;
use crate::connection::connection::Stage;
use crate::connection::deadlines::later;
use crate::connection::flags::Flag;
use crate::connection::{CloseReason, ConnId};
use crate::error;
use crate::handler::{Farewell, Handler};
use crate::limits::Limits;

impl<S> Table<S> {
    /// Begins a graceful end: no more input, flush, shut the write side, linger.
    pub(crate) fn close(&mut self, id: ConnId, reason: CloseReason, state: &LoopState) {
        let Some(slot) = self.get_mut(id) else { return };
        match slot.conn.stage {
            Stage::Connecting => {
                slot.conn.flags.set(Flag::Failed, true);
                return self.end(id, reason);
            }
            Stage::Open => {}
            Stage::Closing | Stage::Lingering | Stage::Ended => return,
        }
        slot.conn.stage = Stage::Closing;
        if !slot.conn.flags.has(Flag::Gone) {
            slot.conn.reason = reason;
        }
        slot.conn.active = state.turn.now;
        slot.conn.input.discard();
        self.live -= 1;
        self.mark_dirty(id.slot());
        self.queue(id);
    }

    /// A write has failed: the output is thrown away and no more is taken, but what the peer sent
    /// before is still here. The error is the reason of the end, whatever brings that about.
    pub(crate) fn lose(&mut self, id: ConnId, error: &io::Error, now: Nanos) {
        let Some(slot) = self.get_mut(id) else { return };
        if slot.conn.flags.has(Flag::Gone) {
            return;
        }
        if slot.conn.stage != Stage::Open || slot.conn.is_unread() && !slot.is_unheard() {
            return self.fail(id, error);
        }
        let backlog = slot.conn.output.backlog();
        slot.conn.output.discard();
        slot.conn.reason = CloseReason::Error(error.kind());
        slot.conn.note(error);
        slot.conn.extras().lost = now;
        slot.conn.flags.set(Flag::Blocked, false);
        // No event need come any more: it is read until there is nothing.
        for flag in [Flag::Gone, Flag::Finished, Flag::Readable, Flag::ReadOn] {
            slot.conn.flags.set(flag, true);
        }
        self.backlog -= backlog;
        // Whoever waits for it to take its output need not.
        self.mark_dirty(id.slot());
        self.queue(id);
        self.arm(id);
    }

    /// As [`end`](Self::end), for an error.
    pub(crate) fn fail(&mut self, id: ConnId, error: &io::Error) {
        let reason = CloseReason::Error(error.kind());
        let ended = self.get(id).is_none_or(|slot| slot.conn.stage == Stage::Ended);
        self.end(id, reason);
        // Another one may have been the first.
        if let Some(slot) = self.get_mut(id).filter(|slot| !ended && slot.conn.reason == reason) {
            slot.conn.note(error);
        }
    }

    /// Notes that it lingers now.
    pub(crate) fn list_lingering(&mut self, id: ConnId) {
        let Table { lingering, connections, .. } = self;
        let there =
            |id: &ConnId| connections.get(id.slot()).is_some_and(|slot| slot.conn.id == *id);
        if lingering.len() > 2 * connections.len() {
            // The oldest stays for long, and those behind it are gone.
            lingering.retain(there);
        }
        lingering.push_back(id);
    }

    /// When the one that has lingered longest has done so for long enough. All of them wait equally
    /// long, so that their list is in the order of their deadlines and none needs a timer.
    pub(crate) fn lingers_until(&self) -> Option<Nanos> {
        let oldest = self.get(*self.lingering.front()?)?;
        let lingers = oldest.conn.stage == Stage::Lingering;
        lingers.then(|| later(oldest.conn.active, self.limits.linger))
    }

    /// Forgets the oldest that are gone: nobody is to be woken for them.
    pub(super) fn forget_lingering(&mut self) {
        while self.lingering.front().is_some_and(|oldest| self.get(*oldest).is_none()) {
            self.lingering.pop_front();
        }
    }

    /// Makes room for a newcomer: lingering connections must not hold more descriptors than the
    /// limit of connections allows. The oldest has had most of its time.
    pub(crate) fn make_room(&mut self) {
        if self.connections.len() >= self.limits.max_connections {
            self.cut_lingering();
        }
    }

    /// Ends the connection that has lingered longest; says whether there is one.
    pub(crate) fn cut_lingering(&mut self) -> bool {
        while let Some(oldest) = self.lingering.pop_front() {
            if self.get(oldest).is_some_and(|slot| slot.conn.stage == Stage::Lingering) {
                self.end(oldest, CloseReason::Closed);
                return true;
            }
        }
        false
    }

    /// Ends it at once; the handler is told at the end of the turn.
    pub(crate) fn end(&mut self, id: ConnId, reason: CloseReason) {
        let Some(slot) = self.get_mut(id) else { return };
        let was = std::mem::replace(&mut slot.conn.stage, Stage::Ended);
        if was == Stage::Ended {
            return;
        }
        // Once the end has begun, what goes wrong with it does not change why it began: a peer
        // may leave early. But nobody else says that a file or a pipe has not got its output.
        let graver = matches!(reason, CloseReason::Stalled | CloseReason::TotalOutput);
        let begun = was == Stage::Closing && !graver && slot.stream.is_socket();
        if !begun && !slot.conn.flags.has(Flag::Gone) {
            slot.conn.reason = reason;
        }
        let backlog = slot.conn.output.backlog();
        slot.conn.output.discard();
        slot.conn.input.discard();
        if matches!(
            reason,
            CloseReason::Aborted
                | CloseReason::SlowConsumer
                | CloseReason::TotalOutput
                | CloseReason::Stalled
        ) {
            slot.stream.reset();
        }
        self.backlog -= backlog;
        if was == Stage::Open {
            self.live -= 1;
        }
        self.list_ending(id);
    }
}

/// What the handler says to one that the loop closes; nothing, should it panic.
pub(super) fn farewell_text<H: Handler>(
    handler: &H,
    why: Farewell,
    limits: &Limits,
    name: &str,
    state: &mut LoopState,
) -> Cow<'static, [u8]> {
    let words = catch_unwind(AssertUnwindSafe(|| handler.farewell(why, limits)));
    state.caught(words, name).unwrap_or_default()
}

impl<H: Handler> ActiveService<H> {
    pub(crate) fn farewell(
        &mut self,
        id: ConnId,
        why: Farewell,
        reason: CloseReason,
        state: &mut LoopState,
    ) {
        let Table { limits, name, .. } = &self.table;
        let words = farewell_text(&self.handler, why, limits, name, state);
        self.table.send(id.slot(), &words, true, state);
        self.table.close(id, reason, state);
    }

    /// All is sent: shuts the write side and waits for the peer to do the same.
    pub(super) fn linger(&mut self, id: ConnId, state: &mut LoopState) {
        let slot = &mut self.table.connections[id.slot()];
        if slot.conn.flags.has(Flag::Eof) && slot.stream.shuts_with_drop() {
            // All input has been read: no reset follows the output, and nobody is waited for.
            let reason = slot.conn.reason;
            return self.table.end(id, reason);
        }
        let shut = slot.stream.shutdown_write();
        if would_block(&shut) {
            slot.conn.flags.set(Flag::Blocked, true);
            return self.table.arm(id);
        }
        if slot.conn.flags.has(Flag::Eof) || shut.is_err() || !slot.stream.is_socket() {
            let reason = slot.conn.reason;
            return self.table.end(id, reason);
        }
        slot.conn.stage = Stage::Lingering;
        slot.conn.active = state.turn.now;
        self.table.list_lingering(id);
        // The handler need not wait for the peer.
        self.table.list_ending(id);
    }

    pub(crate) fn reap_one(&mut self, id: ConnId, state: &mut LoopState) {
        let Some(slot) = self.table.get_mut(id) else { return };
        slot.conn.flags.set(Flag::Ending, false);
        let reason = slot.conn.reason;
        if slot.conn.flags.take(Flag::Handshaking) {
            self.table.open -= 1;
            self.table.discount_peer(id);
            state.counters.handshakes_failed += 1;
            log::debug!("{}: {}: no handshake: {reason}", self.table.name, self.describe(id));
            return self.table.remove(id, state);
        }
        let was_open = slot.conn.flags.take(Flag::Open);
        if was_open || slot.conn.flags.take(Flag::Failed) {
            state.counters.open -= u64::from(was_open);
            self.table.open -= 1;
            if was_open {
                self.table.discount_peer(id);
            }
            state.counters.closed[reason.index()] += 1;
            if log::log_enabled!(reason.level()) {
                let (who, name) = (self.describe(id), &self.table.name);
                let what = if was_open { "is gone" } else { "cannot be reached" };
                let error = self.table.get(id).and_then(|slot| slot.conn.error());
                let why = error.map_or_else(|| reason.to_string(), |error| error::why(&error));
                log::log!(reason.level(), "{name}: {who} {what}: {why}");
            }
            self.call(id, false, state, |handler, cx| handler.on_close(cx, reason));
        }
        if self.table.get(id).is_some_and(|slot| slot.conn.stage == Stage::Ended) {
            self.table.remove(id, state);
        }
    }

    pub(super) fn reap_ended(&mut self, state: &mut LoopState) {
        if self.table.ending.is_empty() {
            return;
        }
        state.turn.clock = Instant::now();
        self.table.begin_step(state);
        // Thousands that leave a room at once are thousands of broadcasts: not all in one turn.
        // Those that end meanwhile are told in the next round.
        for _ in 0..self.table.ending.len() {
            if self.table.step_is_spent(state) {
                break;
            }
            if let Some(id) = self.table.ending.pop_front() {
                self.reap_one(id, state);
            }
        }
        self.watch.check(&mut state.turn.clock, &self.table.name, self.table.limits.slow_call);
    }
}
