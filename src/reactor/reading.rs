//! Input: from a socket that is ready to the handler's hook.

use std::io::{self, ErrorKind};

use super::loop_state::{LoopState, Turn};
use super::service::ActiveService;
use super::table::{Slot, Table, find};
use super::total_memory::Memory;
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
            Stage::Leaving | Stage::Ended => {}
        }
        self.table.enforce_total(Memory::Input, state);
        let Table { connections, queues, .. } = &mut self.table;
        let Some(slot) = find(connections, id) else { return };
        let layered = slot.stream.is_layer();
        if slot.conn.is_broken_unread() {
            // Nobody reads the connection now, and no other event will tell of the error.
            let error = slot.take_error();
            self.table.lose_peer(id, &error, state.turn.now);
        } else {
            let in_block = slot.conn.flags.has(Flag::InBlock);
            if slot.conn.has_work() {
                queues.push_ready(slot);
            }
            if in_block {
                self.table.arm(id);
            }
        }
        if layered {
            self.table.look_into_layer(id, state.turn.now);
        }
    }

    /// Tells the handler that there is room for output, if it asked and there still is.
    fn call_on_drain(&mut self, id: ConnId, state: &mut LoopState) {
        let Table { limits, connections, .. } = &mut self.table;
        let slot = &mut connections[id.slot()];
        if slot.conn.flags.has(Flag::Drain) && slot.conn.is_drained(limits) {
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
            let Table { connections, kept, .. } = &mut self.table;
            let slot = &mut connections[id.slot()];
            if !slot.conn.takes_input() {
                return;
            }
            let since = slot.conn.input.unfinished_since();
            let since = since.or_else(|| slot.stream.unfinished_since()).unwrap_or(state.turn.now);
            let known = slot.conn.input.known();
            let lent = match slot.conn.input.has_work() {
                true => slot.counted(kept, |slot| slot.conn.input.lend()),
                false => None,
            };
            let offer = if let Some(lent) = lent {
                lent
            } else if slot.conn.has_empty_block() {
                Offer::NOTHING
            } else if slot.conn.flags.has(Flag::Eof) {
                return self.call_on_eof(id, state);
            } else if !slot.conn.flags.has(Flag::Readable) || budget == 0 {
                return;
            } else {
                match slot.read(kept, budget, &mut state.turn, scratch) {
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
                        slot.conn.active = state.turn.now;
                        self.table.count_input(id, count, state);
                        offer
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        if slot.mark_would_block() && slot.conn.flags.has(Flag::Gone) {
                            self.table.close_with_error(id, error.kind(), state);
                        }
                        return;
                    }
                    Err(error) => {
                        // An attacker may have cut the stream, or a layer does not understand what
                        // comes: the last line is not to be trusted, but the lines before it have
                        // their answers.
                        let gone = slot.conn.flags.has(Flag::Gone);
                        match error.kind() {
                            ErrorKind::UnexpectedEof => slot.conn.note(&error),
                            ErrorKind::InvalidData if !gone => slot.conn.note(&error),
                            _ => self.table.lose_peer(id, &error, state.turn.now),
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
        let Table { connections, kept, .. } = &mut self.table;
        let slot = &mut connections[id.slot()];
        if !slot.conn.flags.has(Flag::EofTold) {
            slot.conn.flags.set(Flag::EofTold, true);
            slot.counted(kept, |slot| slot.conn.input.discard());
            slot.conn.flags.set(Flag::InBlock, false);
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
            let (took, refused) = self.call_with_input(id, rest, state);
            taken += took;
            let left = rest.len() - took;
            let conn = &self.table.connections[id.slot()].conn;
            if left == 0 && !conn.has_empty_block() || !conn.takes_input() {
                break false;
            }
            let spent = state.turn.lines >= state.turn.most_lines;
            if (refused || state.turn.search.is_done(left)) && conn.takes_lines() {
                // Also when the handler looked at all the lines that it may have in a turn and took
                // none: with nothing new to see it would look at the same lines for ever. But where
                // others before them had a part of that share, it sees more in the next turn.
                break !(refused && spent && before > 0);
            }
            if spent {
                break false;
            }
        };
        let slot = &mut self.table.connections[id.slot()];
        if slot.conn.stage > Stage::Leaving {
            return;
        }
        let rest = &bytes[taken..];
        let searched = state.turn.search.is_done(rest.len());
        let limits = &self.table.limits;
        let too_long = if slot.conn.flags.has(Flag::Overlong) {
            Some(Farewell::LineTooLong)
        } else if searched {
            let overlong = hungry && framing::overlong(rest, limits.max_line);
            overlong.then_some(Farewell::LineTooLong)
        } else {
            (hungry && rest.len() > limits.longest_frame()).then_some(Farewell::FrameTooLong)
        };
        if taken > 0 {
            // The input may have come turns ago: what waited for us does not make its client idle.
            slot.conn.active = state.turn.now;
        }
        let since = if taken == 0 { since } else { state.turn.now };
        slot.conn.input.give_back(offer, scratch, taken, hungry, searched, since);
        // It held nothing meanwhile.
        self.table.kept += slot.conn.input.kept();
        if hungry {
            self.table.arm(id);
        }
        if let Some(why) = too_long {
            self.farewell(id, why, CloseReason::LineTooLong, state);
        }
    }

    /// Calls `on_block` with the piece of a block that the bytes begin with, or else `on_bytes`. Counts
    /// the lines that the hook had, and gives how many bytes it took and whether it refused them.
    fn call_with_input(
        &mut self,
        id: ConnId,
        bytes: &[u8],
        state: &mut LoopState,
    ) -> (usize, bool) {
        let before = state.turn.lines;
        let piece = self.table.connections[id.slot()].conn.cut_piece(bytes.len(), state.turn.now);
        let took = match piece {
            Some((count, ends)) => {
                let piece = &bytes[..count];
                self.call(id, true, state, |handler, cx| handler.on_block(cx, piece, ends));
                count
            }
            None => {
                let took = self.call(id, true, state, |handler, cx| {
                    let took = handler.on_bytes(cx, bytes);
                    assert!(took <= bytes.len(), "on_bytes took {took} of {} bytes", bytes.len());
                    took
                });
                took.unwrap_or(bytes.len())
            }
        };
        let lines = (state.turn.lines - before) as u64;
        self.table.count_lines(id, lines, state);
        // What a handler takes in one call without lines counts as one line, and so does a piece.
        let refused = took == 0 && piece.is_none();
        let lines = lines.max(u64::from(!refused));
        state.turn.lines = before + lines as usize;
        (took, refused)
    }

    /// Reads and forgets, for a connection that is closing: unread input would turn the close into
    /// a reset, and a client that writes before it reads would never come to the reply.
    fn discard_input(&mut self, id: ConnId, state: &mut LoopState, scratch: &mut Scratch) {
        let budget = self.table.limits.bytes_per_turn;
        let Table { connections, kept, .. } = &mut self.table;
        let slot = &mut connections[id.slot()];
        let discarded =
            slot.counted(kept, |slot| input::discard(&mut slot.stream.raw(), scratch, budget));
        match discarded {
            Ok((count, eof)) => {
                slot.mark_discarded(count, budget, eof);
                let over = eof && slot.conn.stage == Stage::Lingering;
                self.table.count_input(id, count, state);
                if over {
                    self.table.end(id, CloseReason::Closed);
                }
            }
            Err(error) => self.table.fail(id, &error),
        }
    }
}

impl<S> Slot<S> {
    /// Reads once, at most `budget` bytes, and counts what that costs.
    #[inline]
    fn read(
        &mut self,
        kept: &mut usize,
        budget: usize,
        turn: &mut Turn,
        scratch: &mut Scratch,
    ) -> io::Result<(usize, Option<Offer>)> {
        let read = |slot: &mut Slot<S>| slot.conn.input.read(&mut slot.stream, scratch, budget);
        let outcome = self.counted(kept, read);
        // A layer may have read something that the handler is not given, or not yet.
        let count = outcome.as_ref().map_or(0, |(count, _)| *count);
        let cost = self.stream.cost(count);
        turn.bytes += cost.bytes;
        turn.lines += cost.lines;
        outcome
    }
}

impl<S> Table<S> {
    /// What a layer has read may concern nobody but itself: it answers by itself, as TLS does, and
    /// a part of a record is nothing that a handler would wait for the rest of.
    fn look_into_layer(&mut self, id: ConnId, now: Nanos) {
        let Table { connections, queues, .. } = self;
        let Some(slot) = find(connections, id) else { return };
        if slot.stream.unsent() {
            queues.push_dirty(&mut slot.conn);
        }
        slot.stream.tell_time(now, false);
        if slot.stream.unfinished_since().is_some() {
            self.arm(id);
        }
    }
}
