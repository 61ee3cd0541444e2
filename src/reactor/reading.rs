//! Input: from a socket that is ready to the handler's hook.

use std::io::ErrorKind;

use super::loop_state::LoopState;
use super::service::ActiveService;
use super::table::Table;
use crate::connection::clock::Nanos;
use crate::connection::connection::Stage;
use crate::connection::flags::Flag;
use crate::connection::framing::{self, Search};
use crate::connection::input::{self, Offer, Scratch};
use crate::connection::rate::Share;
use crate::connection::{CloseReason, ConnId};
use crate::handler::{Farewell, Handler};
use crate::limits::Limits;

impl<H: Handler> ActiveService<H> {
    /// Does what is due for a connection whose turn has come, by its stage.
    pub(super) fn serve(&mut self, id: ConnId, state: &mut LoopState, scratch: &mut Scratch) {
        let Some(slot) = self.table.get_mut(id) else { return };
        slot.conn.flags.set(Flag::Queued, false);
        match slot.conn.stage {
            Stage::Connecting => self.finish_connect(id, state),
            Stage::Open => {
                self.call_on_drain(id, state);
                self.read(id, state, scratch);
            }
            Stage::Closing | Stage::Lingering => self.discard_input(id, state, scratch),
            Stage::Ended => {}
        }
        let Table { connections, queues, .. } = &mut self.table;
        let Some(slot) = connections.get_mut(id.slot()).filter(|slot| slot.conn.id == id) else {
            return;
        };
        if slot.stream.unsent() {
            // The stream answers by itself to some of what it reads, as TLS does.
            queues.push_dirty(&mut slot.conn);
        }
        if slot.conn.is_broken_unread() {
            // Nobody reads the connection now, and no other event will tell of the error.
            let error = slot.take_error();
            self.table.lose_peer(id, &error, state.turn.now);
        } else if slot.conn.has_work() {
            queues.push_ready(slot);
        }
    }

    /// Tells the handler that there is room for output, if it asked and there still is.
    fn call_on_drain(&mut self, id: ConnId, state: &mut LoopState) {
        let Table { limits, connections, .. } = &mut self.table;
        let slot = &mut connections[id.slot()];
        if slot.conn.flags.has(Flag::Drain) && slot.conn.is_drained(limits.low_water) {
            slot.conn.flags.set(Flag::Drain, false);
            self.call(id, true, state, H::on_drain);
        }
    }

    /// Gives the connection its share of the turn, as far as its rates allow.
    fn read(&mut self, id: ConnId, state: &mut LoopState, scratch: &mut Scratch) {
        let Limits { lines_per_turn, bytes_per_turn, .. } = self.table.limits;
        let mut share = Share { lines: lines_per_turn, bytes: bytes_per_turn };
        let metered = self.table.metered;
        if metered {
            let Some(allowed) = self.table.allowance(id, state) else { return };
            share = share.min(allowed);
        }
        self.read_share(id, share, state, scratch);
        if metered {
            let used = Share { lines: state.turn.lines, bytes: state.turn.bytes };
            self.table.spend(id, used, state);
        }
    }

    /// Reads and offers what has come to the handler, until nothing is left or the connection has
    /// had its share.
    fn read_share(
        &mut self,
        id: ConnId,
        share: Share,
        state: &mut LoopState,
        scratch: &mut Scratch,
    ) {
        (state.turn.lines, state.turn.most_lines) = (0, share.lines);
        state.turn.bytes = 0;
        while state.turn.lines < state.turn.most_lines {
            let budget = share.bytes.saturating_sub(state.turn.bytes);
            let slot = &mut self.table.connections[id.slot()];
            if !slot.conn.takes_input() {
                return;
            }
            let since = slot.conn.input.unfinished_since().unwrap_or(state.turn.now);
            let known = slot.conn.input.known();
            let kept = if slot.conn.input.has_work() { slot.conn.input.lend() } else { None };
            let offer = if let Some(kept) = kept {
                kept
            } else if slot.conn.flags.has(Flag::Eof) {
                return self.call_on_eof(id, state);
            } else if !slot.conn.flags.has(Flag::Readable) || budget == 0 {
                return;
            } else {
                match slot.conn.input.read(&mut slot.stream, scratch, budget) {
                    Ok((_, None)) if slot.is_cut() => {
                        return self.table.close_with_error(id, ErrorKind::UnexpectedEof, state);
                    }
                    Ok((_, None)) => {
                        slot.conn.flags.set(Flag::Eof, true);
                        slot.conn.input.offer_again();
                        continue;
                    }
                    Ok((count, Some(offer))) => {
                        slot.mark_read(count, budget);
                        state.turn.bytes += slot.stream.cost(count);
                        slot.conn.active = state.turn.now;
                        state.counters.bytes_in += count as u64;
                        offer
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if slot.mark_would_block() && slot.conn.flags.has(Flag::Gone) {
                            self.table.close_with_error(id, error.kind(), state);
                        }
                        return;
                    }
                    Err(error) => {
                        // An attacker may have cut the stream: its last line is not to be trusted,
                        // but the lines before it have their answers.
                        if error.kind() != ErrorKind::UnexpectedEof {
                            self.table.lose_peer(id, &error, state.turn.now);
                        }
                        return self.table.close_with_error(id, error.kind(), state);
                    }
                }
            };
            self.offer(id, offer, known, since, state, scratch);
        }
    }

    /// Tells the handler once that the peer has ended its side and all input was handled. Where our
    /// side has ended too, the connection closes.
    fn call_on_eof(&mut self, id: ConnId, state: &mut LoopState) {
        let slot = &mut self.table.connections[id.slot()];
        if !slot.conn.flags.has(Flag::EofTold) {
            slot.conn.flags.set(Flag::EofTold, true);
            slot.conn.input.discard();
            self.call(id, true, state, H::on_eof);
            if self.table.connections[id.slot()].conn.flags.has(Flag::Finished) {
                self.table.close(id, CloseReason::PeerClosed, state);
            }
        }
    }

    /// Offers bytes to the handler for as long as it takes some, and keeps the rest. The first
    /// `known` bytes hold no LF; the first line began at `since`.
    fn offer(
        &mut self,
        id: ConnId,
        offer: Offer,
        known: usize,
        since: Nanos,
        state: &mut LoopState,
        scratch: &Scratch,
    ) {
        let bytes = offer.bytes(scratch);
        let mut taken = 0;
        let hungry = loop {
            let rest = &bytes[taken..];
            state.turn.search = Search::new(rest.len(), known.saturating_sub(taken));
            let before = state.turn.lines;
            let took = self.call(id, true, state, |handler, cx| {
                let took = handler.on_bytes(cx, rest);
                assert!(took <= rest.len(), "on_bytes took {took} of {} bytes", rest.len());
                took
            });
            let took = took.unwrap_or(rest.len());
            taken += took;
            let lines = (state.turn.lines - before) as u64;
            state.counters.lines_in += lines;
            // What a handler without lines takes in one call counts as one line.
            let lines = lines.max(u64::from(took > 0));
            state.turn.lines = before + lines as usize;
            let left = rest.len() - took;
            if left == 0 || !self.table.connections[id.slot()].conn.takes_input() {
                break false;
            }
            if took == 0 || state.turn.search.is_done(left) {
                // Also when the handler looked at all the lines that it may have in a turn and took
                // none: with nothing new to see it would look at the same lines for ever.
                break true;
            }
            if state.turn.lines >= state.turn.most_lines {
                break false;
            }
        };
        let slot = &mut self.table.connections[id.slot()];
        if slot.conn.stage != Stage::Open {
            return;
        }
        let overlong = slot.conn.flags.has(Flag::Overlong)
            || hungry && framing::overlong(&bytes[taken..], self.table.limits.max_line);
        if taken > 0 {
            // The input may have come turns ago: what waited for us does not make its client idle.
            slot.conn.active = state.turn.now;
        }
        let searched = state.turn.search.is_done(bytes.len() - taken);
        let since = if taken == 0 { since } else { state.turn.now };
        slot.conn.input.give_back(offer, scratch, taken, hungry, searched, since);
        if hungry {
            self.table.arm(id);
        }
        if overlong {
            self.farewell(id, Farewell::LineTooLong, CloseReason::LineTooLong, state);
        }
    }

    /// Reads and forgets, for a connection that is closing: unread input would turn the close into
    /// a reset, and a client that writes before it reads would never come to the reply.
    fn discard_input(&mut self, id: ConnId, state: &mut LoopState, scratch: &mut Scratch) {
        let budget = self.table.limits.bytes_per_turn;
        let slot = &mut self.table.connections[id.slot()];
        match input::discard(&mut slot.stream.raw(), scratch, budget) {
            Ok((count, eof)) => {
                state.counters.bytes_in += count as u64;
                slot.mark_discarded(count, budget, eof);
                if eof && slot.conn.stage == Stage::Lingering {
                    self.table.end(id, CloseReason::Closed);
                }
            }
            Err(error) => self.table.fail(id, &error),
        }
    }
}
