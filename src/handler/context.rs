use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};
use std::{fmt, io};

use super::{Lines, ServiceContext, Writer};
use crate::connection::connection::Stage;
use crate::connection::flags::Flag;
use crate::connection::framing::Search;
use crate::connection::{CloseReason, ConnId, TimerId};
use crate::reactor::loop_state::LoopState;
use crate::reactor::table::Table;
use crate::reactor::token::Token;

/// What a handler can do with the connection that a hook is about. Made by the loop, one for
/// each call; everything of [`ServiceContext`] works on it too.
pub struct Context<'a, S> {
    pub(super) service: ServiceContext<'a, S>,
    pub(super) id: ConnId,
    /// The connection's own request is being handled: its output holds it back rather than
    /// making it a slow consumer.
    pub(super) own: bool,
}

impl<'a, S> Context<'a, S> {
    pub(crate) fn new(
        table: &'a mut Table<S>,
        state: &'a mut LoopState,
        id: ConnId,
        own: bool,
    ) -> Self {
        Context { service: ServiceContext::new(table, state), id, own }
    }

    /// The connection's identity, to send to it later.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The handler's own state of this connection. It borrows all of the context, so what is to
    /// be said about it is made first: `let line = format!("{}\n", cx.session()); cx.send(line)`.
    pub fn session(&mut self) -> &mut S {
        &mut self.service.table.connections[self.id.slot()].session
    }

    /// Appends to this connection's output; all of a turn's output leaves in one write. Past
    /// [`high_water`](crate::Limits::high_water) the connection is not read until the client has
    /// taken most of it. After `close` or `half_close`, or once a write to it has failed, nothing
    /// more is sent, and this says false; a `match` whose arms send and close wants a semicolon
    /// after it.
    ///
    /// Who caused it matters: what a connection is sent in `on_open`, `on_line`, `on_bytes`,
    /// `on_drain` and `on_eof` of its own, or by
    /// [`reply_to`](crate::ServiceContext::reply_to), is a reply, which holds it back. What it is
    /// sent in `on_timer`, in the hooks of other connections and of the service is what others
    /// have for it: past [`max_output`](crate::Limits::max_output) it is a slow consumer.
    #[inline]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let mut reply = self.writer();
        reply.put(bytes);
        reply.finish()
    }

    /// What `write!(cx, "…")` and `writeln!(cx, "hello {name}")` call: formats into this
    /// connection's output.
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) {
        self.writer().write_fmt(text);
    }

    /// Writes a reply in pieces straight into the output, for less than the cost of a
    /// [`send`](Self::send) each.
    #[inline]
    pub fn writer(&mut self) -> Writer<'_, 'a, S> {
        let ServiceContext { table, state } = &mut self.service;
        let joined =
            self.own && (state.turn.reply.of.is_some() || table.begin_reply(self.id, state));
        Writer { start: state.turn.arena.len(), joined, cx: self }
    }

    /// Appends to the output of every open connection of this handler, this one included.
    /// Others that do not read it become slow consumers past
    /// [`max_output`](crate::Limits::max_output).
    pub fn broadcast(&mut self, bytes: impl AsRef<[u8]>) {
        self.broadcast_if(bytes, |_, _| true);
    }

    /// As [`broadcast`](Self::broadcast), to all but this one.
    pub fn broadcast_to_others(&mut self, bytes: impl AsRef<[u8]>) {
        let me = self.id;
        self.broadcast_if(bytes, |id, _| id != me);
    }

    /// As [`broadcast`](Self::broadcast), to those that `wanted` picks by id and session.
    pub fn broadcast_if(
        &mut self,
        bytes: impl AsRef<[u8]>,
        wanted: impl FnMut(ConnId, &S) -> bool,
    ) {
        let ServiceContext { table, state } = &mut self.service;
        table.broadcast(bytes.as_ref(), self.own.then_some(self.id), state, wanted);
    }

    /// Ends the connection gracefully: no more input is handled, what was sent goes out, then the
    /// write side is shut and input thrown away for [`linger`](crate::Limits::linger) at most, so
    /// that no reset destroys the last reply.
    pub fn close(&mut self) {
        self.commit();
        let reason = if self.at_eof() { CloseReason::PeerClosed } else { CloseReason::Closed };
        self.service.table.close(self.id, reason, self.service.state);
    }

    /// Ends our side alone: no more output is taken, what was sent goes out, then the write side
    /// is shut. Input is handled as before, to its end, at which the connection closes by itself
    /// with [`PeerClosed`](CloseReason::PeerClosed) after [`on_eof`](crate::Handler::on_eof);
    /// called then or later, this is the same as [`close`](Self::close).
    ///
    /// A peer that never ends its side stays until [`idle_timeout`](crate::Limits::idle_timeout):
    /// no other deadline applies before a close. [`broadcast`](Self::broadcast)s pass it by.
    pub fn half_close(&mut self) {
        self.commit();
        let table = &mut self.service.table;
        let flags = &mut table.connections[self.id.slot()].conn.flags;
        if flags.has(Flag::EofTold) {
            return self.close();
        }
        flags.set(Flag::Finished, true);
        // The flush shuts the write side once all is sent.
        table.mark_dirty(self.id.slot());
    }

    /// Ends the connection at once with a reset; unsent output is lost.
    pub fn abort(&mut self) {
        self.commit();
        self.service.table.end(self.id, CloseReason::Aborted);
    }

    /// In [`on_close`](crate::Handler::on_close) with [`CloseReason::Error`]: what the system said,
    /// for people. The kind says less: the standard library has none for many errors, as when
    /// there is no file descriptor left.
    pub fn error(&self) -> Option<io::Error> {
        self.service.table.get(self.id).and_then(|slot| slot.conn.error())
    }

    /// Stops reading this connection, so that TCP holds the client back. Input already received
    /// waits too, and so does its end: a client that asked and then half-closed is still there
    /// when the answer is. While it is paused, [`idle_timeout`](crate::Limits::idle_timeout) does
    /// not apply, since the client is not to blame; but see [`request_drain`](Self::request_drain).
    pub fn pause(&mut self) {
        self.commit();
        self.service.table.connections[self.id.slot()].conn.flags.set(Flag::Paused, true);
    }

    /// Reads again after [`pause`](Self::pause); what waited comes first.
    pub fn resume(&mut self) {
        self.commit();
        let ServiceContext { table, state } = &mut self.service;
        let slot = &mut table.connections[self.id.slot()];
        if slot.conn.flags.take(Flag::Paused) && slot.conn.stage == Stage::Open {
            slot.conn.active = state.turn.now;
            slot.conn.input.wait_from(state.turn.now);
            table.arm(self.id);
            // What has arrived meanwhile was told by an edge that does not repeat.
            table.queue(self.id);
        }
    }

    /// Calls [`on_timer`](crate::Handler::on_timer) once, unless the connection is gone by then.
    /// `after` counts from [`now`](ServiceContext::now), the beginning of the turn. A turn's
    /// timers fire in order; resolution is a millisecond. What is sent in `on_timer` counts as
    /// caused by others: a stream to a client that does not read it ends at
    /// [`max_output`](crate::Limits::max_output).
    pub fn set_timer(&mut self, after: Duration) -> TimerId {
        let when = self.service.state.after(after);
        self.service.table.set_timer(self.id, when)
    }

    /// As [`set_timer`](Self::set_timer), at a moment: for a rhythm that does not drift.
    pub fn set_timer_at(&mut self, when: Instant) -> TimerId {
        let when = self.service.state.nanos(when);
        self.service.table.set_timer(self.id, when)
    }

    /// Cancels a timer of this connection. False when it has fired already.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        let table = &mut self.service.table;
        table.drop_timer(self.id, timer);
        table.timers.cancel(timer, Token::connection(table.service, self.id))
    }

    /// The client's address as it connected, also after it is gone; for an outbound connection
    /// the address dialled, which of those of a [host](crate::Host) shows once it is there. None
    /// over a Unix socket and for descriptors.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.service.table.connections[self.id.slot()].conn.peer.get()
    }

    /// Our own address of this connection (a system call). None over a Unix socket and for
    /// descriptors.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.service.table.connections[self.id.slot()].stream.local_end()
    }

    /// Whether it was dialled with `connect` rather than accepted or adopted.
    pub fn is_outbound(&self) -> bool {
        self.service.table.connections[self.id.slot()].conn.flags.has(Flag::Outbound)
    }

    /// Whether the client has ended its side: what [`on_bytes`](crate::Handler::on_bytes) is
    /// given then is all that will ever come.
    pub fn at_eof(&self) -> bool {
        self.service.table.connections[self.id.slot()].conn.flags.has(Flag::Eof)
    }

    /// Bytes sent and not yet taken by the kernel.
    pub fn unsent(&self) -> usize {
        let ServiceContext { table, state } = &self.service;
        let reply = state.turn.reply.of == Some(self.id);
        let writing = if reply { state.turn.arena.len() - state.turn.reply.start } else { 0 };
        table.connections[self.id.slot()].conn.output.len() + writing
    }

    /// Asks for one call of [`on_drain`](crate::Handler::on_drain), in a later turn, once no more
    /// than [`low_water`](crate::Limits::low_water) bytes of this connection's output are unsent;
    /// in the next turn if that is so already. Asking twice before the call changes nothing.
    ///
    /// So a reply of any length is sent in bounded memory: send a piece, ask, send the next piece
    /// in `on_drain`, ask again. To ask again and again without sending keeps the loop busy. Until
    /// the call it is the client that is waited for, so
    /// [`idle_timeout`](crate::Limits::idle_timeout) applies even while the connection is paused.
    pub fn request_drain(&mut self) {
        let ServiceContext { table, state } = &mut self.service;
        let slot = &mut table.connections[self.id.slot()];
        slot.conn.flags.set(Flag::Drain, true);
        if slot.conn.stage == Stage::Open {
            slot.conn.active = state.turn.now;
            table.arm(self.id);
        }
        // The flush looks whether it is so already.
        table.mark_dirty(self.id.slot());
    }

    /// The lines in `bytes`, which must be what [`on_bytes`](crate::Handler::on_bytes) was given
    /// or its rest.
    #[inline]
    pub fn lines<'b>(&self, bytes: &'b [u8]) -> Lines<'b> {
        Lines::new(bytes, self.service.state.turn.search)
    }

    /// Whether the loop still wants input handled: false once this connection is paused, held
    /// back or closing, or has had its share of the turn.
    #[inline]
    pub(crate) fn may_go_on(&mut self) -> bool {
        let state = &self.service.state;
        state.turn.lines < state.turn.most_lines
            && (state.turn.arena.len() < state.turn.reply.end || self.takes_input())
    }

    /// Looks at the connection itself, once: from then on its reply tells.
    #[cold]
    pub(super) fn takes_input(&mut self) -> bool {
        let ServiceContext { table, state } = &mut self.service;
        let takes =
            state.turn.reply.of.is_none() && table.connections[self.id.slot()].conn.takes_input();
        if takes && self.own {
            table.begin_reply(self.id, state);
        }
        takes
    }

    pub(super) fn commit(&mut self) {
        self.service.table.commit(self.service.state);
    }

    #[inline]
    pub(crate) fn count_line(&mut self) {
        self.service.state.turn.lines += 1;
    }

    pub(crate) fn search(&mut self) -> &mut Search {
        &mut self.service.state.turn.search
    }

    /// Takes no more input; the loop adds the last words and closes it.
    pub(crate) fn line_too_long(&mut self) {
        self.service.state.turn.most_lines = 0;
        self.service.table.connections[self.id.slot()].conn.flags.set(Flag::Overlong, true);
    }
}

impl<'a, S> Deref for Context<'a, S> {
    type Target = ServiceContext<'a, S>;

    fn deref(&self) -> &Self::Target {
        &self.service
    }
}

impl<S> DerefMut for Context<'_, S> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.service
    }
}

impl<S> fmt::Debug for Context<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("id", &self.id).finish_non_exhaustive()
    }
}
