//! How a connection ends, in this order: last words, the graceful close, the flush of what is
//! unsent (`writing`), lingering, the end, and telling the handler. An error enters that order
//! where it finds the connection.
//!
//! [`Table::close`] is graceful and [`Table::end`] immediate; there is no third way.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::time::Instant;

use super::counters::Refused;
use super::fairness::REAPED_AT_ONCE;
use super::loop_state::LoopState;
use super::queues::Queues;
use super::service::ActiveService;
use super::table::{Label, Table, find};
use super::turn_trace::Happened;
use super::writing::would_block;
use crate::connection::clock::Nanos;
use crate::connection::connection::Stage;
use crate::connection::deadlines::later;
use crate::connection::flags::Flag;
use crate::connection::{CloseReason, ConnId};
use crate::error;
use crate::handler::{Farewell, Handler};
use crate::limits::Limits;

/// What the handler says to a client that the loop closes or turns away; nothing, should it panic.
pub(super) fn farewell_text<H: Handler>(
    handler: &H,
    why: Farewell,
    limits: &Limits,
    name: &Label,
    state: &mut LoopState,
) -> Cow<'static, [u8]> {
    state.guard(name, || handler.farewell(why, limits)).unwrap_or_default()
}

impl<H: Handler> ActiveService<H> {
    /// Says the last words and begins the graceful end. A server that was dialled would read them as a
    /// request, so it gets none.
    pub(super) fn farewell(
        &mut self,
        id: ConnId,
        why: Farewell,
        reason: CloseReason,
        state: &mut LoopState,
    ) {
        let Table { limits, name, connections, .. } = &self.table;
        if !connections[id.slot()].conn.flags.has(Flag::Outbound) {
            let words = farewell_text(&self.handler, why, limits, name, state);
            self.table.send(id.slot(), &words, true, state);
        }
        self.table.close(id, reason, state);
    }
}

impl<S> Table<S> {
    /// Begins the graceful end: no more input is handled, what is unsent is flushed, then the write
    /// side is shut, and the connection lingers.
    pub(crate) fn close(&mut self, id: ConnId, reason: CloseReason, state: &LoopState) {
        let Some(slot) = find(&mut self.connections, id) else { return };
        match slot.conn.stage {
            Stage::Connecting => {
                slot.conn.flags.set(Flag::Failed, true);
                return self.end(id, reason);
            }
            Stage::Open => self.open -= 1,
            Stage::Leaving => {}
            Stage::Closing | Stage::Lingering | Stage::Ended => return,
        }
        slot.conn.stage = Stage::Closing;
        if !slot.conn.flags.has(Flag::Gone) {
            slot.conn.reason = reason;
        }
        slot.conn.active = state.turn.now;
        let kept = slot.conn.input.kept();
        slot.conn.input.discard();
        self.kept -= kept;
        self.leave_line(id);
        self.mark_dirty(id.slot());
        self.enqueue_if_work(id);
    }

    /// Nothing more reaches the peer, since a read or a write has failed: the output is thrown away
    /// and no more is taken, but what the peer sent before is still here and is handled. The error
    /// is the reason of the end, whatever brings that about.
    pub(super) fn lose_peer(&mut self, id: ConnId, error: &io::Error, now: Nanos) {
        let Some(slot) = self.get_mut(id) else { return };
        if slot.conn.flags.has(Flag::Gone) {
            // What came before the first error may tell why, as an alert of TLS does.
            return slot.conn.explain(error);
        }
        if slot.conn.stage != Stage::Open || slot.conn.is_unread() && !slot.has_unheard_input() {
            return self.fail(id, error);
        }
        let backlog = slot.conn.output.backlog();
        slot.conn.output.discard();
        slot.conn.reason = CloseReason::Error(error.kind());
        slot.conn.note(error);
        slot.conn.extras().lost = now;
        slot.conn.flags.set(Flag::Blocked, false);
        // No event need come any more: the connection is read until nothing is left.
        for flag in [Flag::Gone, Flag::Finished, Flag::Readable, Flag::ReadOn] {
            slot.conn.flags.set(flag, true);
        }
        self.backlog -= backlog;
        self.list(id, |queues| &mut queues.gone);
        // A handler that waits for room in the output is told by way of the flush.
        self.mark_dirty(id.slot());
        self.enqueue_if_work(id);
        self.fall_back(id);
        self.arm(id);
    }

    /// All that came before the error has been handled. What it caused goes out first.
    pub(super) fn close_with_error(&mut self, id: ConnId, kind: ErrorKind, state: &LoopState) {
        self.connections[id.slot()].conn.flags.set(Flag::Eof, true);
        self.close(id, CloseReason::Error(kind), state);
    }

    /// As [`end`](Self::end), for an error, which is kept for the handler.
    pub(crate) fn fail(&mut self, id: ConnId, error: &io::Error) {
        let reason = CloseReason::Error(error.kind());
        let ended = self.get(id).is_none_or(|slot| slot.conn.stage == Stage::Ended);
        self.end(id, reason);
        // Another error may have been the first.
        if let Some(slot) = self.get_mut(id).filter(|slot| !ended && slot.conn.reason == reason) {
            slot.conn.note(error);
        }
    }

    /// Ends the connection at once; the handler is told at the end of the turn.
    pub(crate) fn end(&mut self, id: ConnId, reason: CloseReason) {
        let Some(slot) = self.get_mut(id) else { return };
        let was = std::mem::replace(&mut slot.conn.stage, Stage::Ended);
        if was == Stage::Ended {
            return;
        }
        // What a layer keeps is freed with it, soon.
        let kept = slot.kept();
        // Once the close has begun, what goes wrong with it does not change why it began: a peer
        // may leave early, or before the handler has been told. But an error is all that tells that
        // a file or a pipe did not get its output.
        let graver = matches!(
            reason,
            CloseReason::Stalled | CloseReason::TotalOutput | CloseReason::TotalInput
        );
        let begun =
            was == Stage::Lingering || was == Stage::Closing && !graver && slot.stream.is_socket();
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
                | CloseReason::TotalInput
                | CloseReason::Stalled
        ) {
            slot.stream.reset();
        }
        self.backlog -= backlog;
        self.kept -= kept;
        if was == Stage::Open {
            self.open -= 1;
        }
        self.leave_line(id);
        self.enqueue_ending(id);
    }
}

impl<H: Handler> ActiveService<H> {
    /// All is sent: shuts the write side and waits for the peer to end its side too.
    pub(super) fn linger(&mut self, id: ConnId, state: &mut LoopState) {
        let Table { connections, kept, .. } = &mut self.table;
        let slot = &mut connections[id.slot()];
        if slot.conn.flags.has(Flag::Eof) && slot.stream.shuts_with_drop() {
            // All input has been read: no reset follows the output, and nobody is waited for.
            let reason = slot.conn.reason;
            return self.table.end(id, reason);
        }
        slot.stream.tell_why(slot.conn.reason);
        let shut = slot.counted(kept, |slot| slot.stream.shutdown_write());
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
        self.table.list(id, |queues| &mut queues.lingering);
        // The handler is told now: it need not wait for the peer.
        self.table.enqueue_ending(id);
    }
}

impl<S> Table<S> {
    /// Notes that from now on the connection lingers, or is without its peer.
    fn list(&mut self, id: ConnId, choose: impl FnOnce(&mut Queues) -> &mut VecDeque<ConnId>) {
        let Table { queues, connections, .. } = self;
        let list = choose(queues);
        let there =
            |id: &ConnId| connections.get(id.slot()).is_some_and(|slot| slot.conn.id == *id);
        if list.len() > 2 * connections.len() {
            // The oldest one stays for long, and most of those behind it are not there any more.
            list.retain(there);
        }
        list.push_back(id);
    }

    /// When the connection that has lingered longest has done so for long enough. All of them wait
    /// equally long: the list is in the order of their deadlines, and none needs a timer.
    pub(super) fn lingers_until(&self) -> Option<Nanos> {
        let oldest = self.get(*self.queues.lingering.front()?)?;
        let lingers = oldest.conn.stage == Stage::Lingering;
        lingers.then(|| later(oldest.conn.active, self.limits.linger))
    }

    /// Forgets the oldest ones that are gone: the loop is not to wake up for them.
    pub(super) fn forget_lingering(&mut self) {
        while self.queues.lingering.front().is_some_and(|oldest| self.get(*oldest).is_none()) {
            self.queues.lingering.pop_front();
        }
    }

    /// Makes room for a newcomer: lingering connections must not hold more descriptors than the
    /// limit of connections allows. The oldest has had most of its time.
    pub(super) fn make_room(&mut self) {
        if self.connections.len() >= self.limits.max_connections {
            self.cut_lingering();
        }
    }

    /// Ends the connection that has lingered longest; says whether there was one.
    pub(super) fn cut_lingering(&mut self) -> bool {
        while let Some(oldest) = self.queues.lingering.pop_front() {
            if self.get(oldest).is_some_and(|slot| slot.conn.stage == Stage::Lingering) {
                self.end(oldest, CloseReason::Closed);
                return true;
            }
        }
        false
    }

    /// Ends the connection whose peer has been gone longest, though what that has sent still waits:
    /// nobody waits for the answers. Says whether there was one.
    pub(super) fn cut_gone(&mut self) -> bool {
        while let Some(oldest) = self.queues.gone.pop_front() {
            if self.get(oldest).is_some_and(|slot| slot.conn.stage == Stage::Open) {
                self.end(oldest, CloseReason::Stalled);
                return true;
            }
        }
        false
    }
}

impl<H: Handler> ActiveService<H> {
    /// Frees a place among `max_connections` if it can: that of a connection that has ended and only
    /// waits to be reaped, or of one whose peer is gone.
    pub(super) fn free_place(&mut self, state: &mut LoopState) {
        for _ in 0..REAPED_AT_ONCE {
            let Table { places, limits, queues, .. } = &self.table;
            let most = limits.max_connections;
            // If the limit was lowered below the number of connections, the end of one makes no room yet.
            let one = !places.are_full(most.saturating_add(1));
            let ended = !queues.ending.is_empty();
            let helps = places.are_full(most) && (ended || one && self.table.cut_gone());
            if !helps {
                return;
            }
            if let Some(id) = self.table.queues.ending.pop_front() {
                self.reap_one(id, state);
            }
        }
    }

    /// Tells the handler of the connections that have ended.
    pub(super) fn reap_ended(&mut self, state: &mut LoopState) {
        if self.table.queues.ending.is_empty() {
            return;
        }
        state.turn.clock = Instant::now();
        state.turn.begin_step();
        // Thousands of clients that leave a room at once cause thousands of broadcasts, and a
        // system call each: not all of them in one turn. Connections that end meanwhile are
        // reported in the next round.
        for _ in 0..self.table.queues.ending.len().min(REAPED_AT_ONCE) {
            if state.turn.step_is_spent() {
                break;
            }
            if let Some(id) = self.table.queues.ending.pop_front() {
                self.reap_one(id, state);
            }
        }
        self.slow_hooks.check(state, &self.table.name, self.table.limits.slow_call);
    }

    /// Why a connection ended, as the log says it.
    fn why(&self, id: ConnId, reason: CloseReason) -> String {
        let error = self.table.get(id).and_then(|slot| slot.conn.error());
        error.map_or_else(|| reason.to_string(), |error| error::why(&error))
    }

    /// Tells the handler of the end, if it knows the connection, and frees the slot, unless the
    /// connection lingers.
    fn reap_one(&mut self, id: ConnId, state: &mut LoopState) {
        let Some(slot) = self.table.connections.get_mut(id.slot()) else { return };
        if slot.conn.id != id {
            return;
        }
        slot.conn.flags.set(Flag::Ending, false);
        let leaves = slot.conn.stage == Stage::Leaving;
        if leaves {
            // What it keeps is its next service's from now on.
            self.table.kept -= slot.kept();
            slot.conn.stage = Stage::Ended;
        }
        let reason = slot.conn.reason;
        if slot.conn.flags.take(Flag::Handshaking) {
            self.table.places.free();
            self.table.peers.remove(&slot.conn);
            let layer = slot.stream.handshaking();
            let counters = state.counters(self.table.service);
            match (reason, layer) {
                // The handshake has named a client that may not come.
                (CloseReason::Error(ErrorKind::PermissionDenied), Some("ws")) => {
                    counters.refuse(Refused::Origin);
                }
                (CloseReason::Error(ErrorKind::PermissionDenied), _) => {
                    counters.refuse(Refused::NotAllowed);
                }
                _ => counters.fail_handshake(layer),
            }
            if log::log_enabled!(log::Level::Debug) {
                let (name, who, why) = (&self.table.name, self.describe(id), self.why(id, reason));
                log::debug!("{name}: {who}: no handshake: {why}");
            }
            return self.table.remove(id, state);
        }
        let was_open = slot.conn.flags.take(Flag::Open);
        if was_open || slot.conn.flags.take(Flag::Failed) {
            state.counters(self.table.service).open -= u64::from(was_open);
            self.table.places.free();
            if was_open {
                self.table.peers.remove(&slot.conn);
            }
            state.counters(self.table.service).close(reason);
            state.trace(self.table.service, Some(id), Happened::Closed(reason));
            if log::log_enabled!(reason.level()) {
                let (who, name) = (self.describe(id), &self.table.name);
                let what = if was_open { "is gone" } else { "cannot be reached" };
                let why = self.why(id, reason);
                log::log!(reason.level(), "{name}: {who} {what}: {why}");
            }
            self.call(id, false, state, |handler, cx| handler.on_close(cx, reason));
        }
        if leaves {
            self.table.send_off(id, state);
        } else if self.table.get(id).is_some_and(|slot| slot.conn.stage == Stage::Ended) {
            self.table.remove(id, state);
        }
    }
}
