//! The reading half of a [`Server`]: from a socket that is ready to the handler's hook.

use std::io::ErrorKind;

use crate::connection::State;
use crate::core::Core;
use crate::flags::Flag;
use crate::input::{self, Offer, Scratch};
use crate::line::{self, Search};
use crate::pool::Pool;
use crate::server::Server;
use crate::timer::Nanos;
use crate::{CloseReason, ConnId, Farewell, Handler};

impl<H: Handler> Server<H> {
    pub(crate) fn serve(&mut self, id: ConnId, core: &mut Core, scratch: &mut Scratch) {
        let Some(found) = self.pool.get_mut(id) else { return };
        found.flags.set(Flag::Queued, false);
        match found.state {
            State::Connecting => self.finish_connect(id, core),
            State::Open => {
                self.drain(id, core);
                self.feed(id, core, scratch);
            }
            State::Closing | State::Lingering => self.throw_away(id, core, scratch),
            State::Ended => {}
        }
        if self.pool.get(id).is_some_and(|found| found.stream.unsent()) {
            // What was read made the stream answer by itself.
            self.pool.mark_dirty(id.slot());
        }
        if let Some(found) = self.pool.get_mut(id).filter(|found| found.is_broken_unread()) {
            // No other event will follow.
            let error = found.take_error();
            self.pool.lose(id, &error, core.now);
        }
        self.pool.queue(id);
    }

    /// Tells the handler that there is room for output, if it asked and there still is.
    fn drain(&mut self, id: ConnId, core: &mut Core) {
        let Pool { limits, connections, .. } = &mut self.pool;
        let found = &mut connections[id.slot()];
        if found.flags.has(Flag::Drain) && found.output.len() <= limits.low_water {
            found.flags.set(Flag::Drain, false);
            self.call(id, true, core, H::on_drain);
        }
    }

    /// Reads and hands over, until there is no more or the connection has had its share.
    fn feed(&mut self, id: ConnId, core: &mut Core, scratch: &mut Scratch) {
        let mut budget = self.pool.limits.bytes_per_turn;
        let Pool { limits, connections, .. } = &mut self.pool;
        let allowed = connections[id.slot()].allowance(limits, core.now);
        core.lines = 0;
        core.most_lines = limits.lines_per_turn.min(allowed);
        if allowed == 0 {
            connections[id.slot()].flags.set(Flag::Throttled, true);
            return self.pool.arm(id);
        }
        while core.lines < core.most_lines {
            let found = &mut self.pool.connections[id.slot()];
            if !found.takes_input() {
                return;
            }
            let since = found.input.unfinished_since().unwrap_or(core.now);
            let known = found.input.known();
            let kept = if found.input.has_work() { found.input.lend() } else { None };
            let offer = if let Some(kept) = kept {
                kept
            } else if found.flags.has(Flag::Eof) {
                if !found.flags.has(Flag::EofTold) {
                    found.flags.set(Flag::EofTold, true);
                    found.input.discard();
                    self.call(id, true, core, H::on_eof);
                    if self.pool.connections[id.slot()].flags.has(Flag::Finished) {
                        self.pool.close(id, CloseReason::PeerClosed, core);
                    }
                }
                return;
            } else if !found.flags.has(Flag::Readable) || budget == 0 {
                return;
            } else {
                match found.input.read(&mut found.stream, scratch, budget) {
                    Ok((_, None)) if found.is_cut() => {
                        return self.part(id, ErrorKind::UnexpectedEof, core);
                    }
                    Ok((_, None)) => {
                        found.flags.set(Flag::Eof, true);
                        found.input.offer_again();
                        continue;
                    }
                    Ok((count, Some(offer))) => {
                        // A short read empties the socket; asking again for WouldBlock would be
                        // a system call for nothing. But a FIN may have come along with the
                        // data, and there is no second edge for it: then read on until 0.
                        if count < budget && !found.flags.has(Flag::ReadOn) {
                            found.flags.set(Flag::Readable, false);
                        }
                        budget -= found.stream.cost(count).min(budget);
                        found.active = core.now;
                        core.counters.bytes_in += count as u64;
                        offer
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        let more = found.stream.has_more();
                        found.flags.set(Flag::Readable, more);
                        if found.flags.has(Flag::Gone) && !more {
                            self.part(id, error.kind(), core);
                        }
                        return;
                    }
                    Err(error) => {
                        // Somebody may have cut it: the last line is not to be trusted, but those
                        // before it have their answers.
                        if error.kind() != ErrorKind::UnexpectedEof {
                            self.pool.lose(id, &error, core.now);
                        }
                        return self.part(id, error.kind(), core);
                    }
                }
            };
            self.hand_over(id, offer, known, since, core, scratch);
        }
    }

    /// All that came before the error has been handled. What it caused goes out first.
    fn part(&mut self, id: ConnId, error: ErrorKind, core: &Core) {
        self.pool.connections[id.slot()].flags.set(Flag::Eof, true);
        self.pool.close(id, CloseReason::Error(error), core);
    }

    /// Offers bytes to the handler for as long as it takes some; keeps the rest. The first
    /// `known` hold no LF; the first line of them began at `since`.
    fn hand_over(
        &mut self,
        id: ConnId,
        offer: Offer,
        known: usize,
        since: Nanos,
        core: &mut Core,
        scratch: &Scratch,
    ) {
        let bytes = offer.bytes(scratch);
        let mut taken = 0;
        let hungry = loop {
            let rest = &bytes[taken..];
            core.search = Search::new(rest.len(), known.saturating_sub(taken));
            let before = core.lines;
            let took = self.call(id, true, core, |handler, cx| {
                let took = handler.on_bytes(cx, rest);
                assert!(took <= rest.len(), "on_bytes took {took} of {} bytes", rest.len());
                took
            });
            let took = took.unwrap_or(rest.len());
            taken += took;
            let lines = (core.lines - before) as u64;
            core.counters.lines_in += lines;
            // Without lines, what is taken in one call counts as one.
            let lines = lines.max(u64::from(took > 0));
            core.lines = before + lines as usize;
            let Pool { limits, connections, .. } = &mut self.pool;
            connections[id.slot()].spend(limits, lines, core.now);
            let left = rest.len() - took;
            if left == 0 || !self.pool.connections[id.slot()].takes_input() {
                break false;
            }
            if took == 0 || core.search.is_done(left) {
                // Also when it looked at all the lines that it may have in a turn and took none:
                // with nothing new to see it would look at the same ones for ever.
                break true;
            }
            if core.lines >= core.most_lines {
                break false;
            }
        };
        let found = &mut self.pool.connections[id.slot()];
        if found.state != State::Open {
            return;
        }
        let overlong = found.flags.has(Flag::Overlong)
            || hungry && line::overlong(&bytes[taken..], self.pool.limits.max_line);
        if taken > 0 {
            // It may have come turns ago: what waited for us does not make its client idle.
            found.active = core.now;
        }
        let searched = core.search.is_done(bytes.len() - taken);
        let since = if taken == 0 { since } else { core.now };
        found.input.give_back(offer, scratch, taken, hungry, searched, since);
        if hungry {
            self.pool.arm(id);
        }
        if overlong {
            self.farewell(id, Farewell::LineTooLong, CloseReason::LineTooLong, core);
        }
    }

    /// Reads and forgets, for a connection that is closing: unread input would turn the close
    /// into a reset, and a client that writes before it reads would never get to the reply.
    fn throw_away(&mut self, id: ConnId, core: &mut Core, scratch: &mut Scratch) {
        let budget = self.pool.limits.bytes_per_turn;
        let found = &mut self.pool.connections[id.slot()];
        match input::discard(found.stream.raw(), scratch, budget) {
            Ok((count, eof)) => {
                core.counters.bytes_in += count as u64;
                found.flags.set(Flag::Eof, eof);
                found.flags.set(Flag::Readable, count >= budget);
                if eof && found.state == State::Lingering {
                    self.pool.end(id, CloseReason::Closed);
                }
            }
            Err(error) => self.pool.fail(id, &error),
        }
    }
}
