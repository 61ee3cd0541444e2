//! One service at work: its handler, its listeners and its connections, from a connection's
//! arrival to its end.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::accept::Listener;
use crate::connection::{Connection, State, Wait};
use crate::core::Core;
use crate::error;
use crate::flags::Flag;
use crate::handle::Mailbox;
use crate::net::Stream;
use crate::output::Flushed;
use crate::pool::Pool;
use crate::timer::Due;
use crate::watch::Watch;
use crate::{CloseReason, ConnId, Context, Farewell, Handler, Limits, ServiceContext};

/// Timers that one service fires in a turn.
pub(crate) const TIMERS_PER_TURN: usize = 1024;

/// What the handler says to one that the loop closes; nothing, should it panic.
fn last_words<H: Handler>(
    handler: &H,
    why: Farewell,
    limits: &Limits,
    name: &str,
    core: &mut Core,
) -> Cow<'static, [u8]> {
    let words = catch_unwind(AssertUnwindSafe(|| handler.farewell(why, limits)));
    core.caught(words, name).unwrap_or_default()
}

fn would_block(outcome: &io::Result<()>) -> bool {
    outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

pub(crate) struct Server<H: Handler> {
    pub(crate) handler: H,
    pub(crate) pool: Pool<H::Session>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) mailbox: Mailbox<H::Message>,
    /// The mailbox may have something.
    pub(crate) mail: bool,
    pub(crate) watch: Watch,
}

impl<H: Handler> Server<H> {
    pub(crate) fn new(
        handler: H,
        pool: Pool<H::Session>,
        mailbox: Mailbox<H::Message>,
    ) -> Server<H> {
        Server {
            handler,
            pool,
            listeners: Vec::new(),
            mailbox,
            mail: false,
            watch: Watch::default(),
        }
    }

    /// Calls a hook for a connection. A panic in it ends that connection and gives none.
    pub(crate) fn call<R>(
        &mut self,
        id: ConnId,
        own: bool,
        core: &mut Core,
        hook: impl FnOnce(&mut H, &mut Context<'_, H::Session>) -> R,
    ) -> Option<R> {
        let mut cx = Context::new(&mut self.pool, core, id, own);
        let outcome = catch_unwind(AssertUnwindSafe(|| hook(&mut self.handler, &mut cx)));
        self.watch.called(&mut core.clock, &self.pool.name, self.pool.limits.slow_call);
        self.pool.commit(core);
        let outcome = core.caught(outcome, &self.pool.name);
        if outcome.is_none() {
            self.pool.close(id, CloseReason::Panicked, core);
        }
        outcome
    }

    /// Calls a hook that is about no connection.
    pub(crate) fn call_service(
        &mut self,
        core: &mut Core,
        hook: impl FnOnce(&mut H, &mut ServiceContext<'_, H::Session>),
    ) {
        let mut cx = ServiceContext::new(&mut self.pool, core);
        let outcome = catch_unwind(AssertUnwindSafe(|| hook(&mut self.handler, &mut cx)));
        self.watch.called(&mut core.clock, &self.pool.name, self.pool.limits.slow_call);
        core.caught(outcome, &self.pool.name);
    }

    pub(crate) fn farewell(
        &mut self,
        id: ConnId,
        why: Farewell,
        reason: CloseReason,
        core: &mut Core,
    ) {
        let Pool { limits, name, .. } = &self.pool;
        let words = last_words(&self.handler, why, limits, name, core);
        self.pool.send(id.slot(), &words, true, core);
        self.pool.close(id, reason, core);
    }

    // ---- Arriving ----

    pub(crate) fn accept(&mut self, number: usize, core: &mut Core) {
        for _ in 0..self.pool.limits.accepts_per_turn {
            if self.pool.is_sated(core) {
                return;
            }
            let Pool { limits, timers, open, name, .. } = &mut self.pool;
            let no = |core: &mut Core| {
                last_words(&self.handler, Farewell::TooManyConnections, limits, name, core)
            };
            match self.listeners[number].accept(timers, core, no) {
                None => return,
                Some((stream, _)) if *open >= limits.max_connections => {
                    core.count_full(name, limits.max_connections);
                    stream.turn_away(&no(core));
                }
                Some((stream, peer)) if self.pool.has_enough(peer) => {
                    let Pool { limits, name, .. } = &self.pool;
                    core.count_crowded(name, peer, limits.max_per_peer.unwrap_or_default());
                    let why = Farewell::TooManyFromPeer;
                    stream.turn_away(&last_words(&self.handler, why, limits, name, core));
                }
                Some((stream, peer)) => {
                    self.pool.make_room();
                    self.adopt(stream, peer, core);
                }
            }
        }
    }

    pub(crate) fn adopt(
        &mut self,
        stream: Stream,
        peer: Option<SocketAddr>,
        core: &mut Core,
    ) -> Option<ConnId> {
        let session = catch_unwind(AssertUnwindSafe(H::Session::default));
        let session = core.caught(session, &self.pool.name)?;
        let (id, watched) = self.pool.insert(stream, session, core);
        if let Err(error) = watched {
            log::warn!("{}: cannot watch a newcomer: {error}", self.pool.name);
            self.pool.remove(id, core);
            return None;
        }
        core.counters.accepted += 1;
        let found = &mut self.pool.connections[id.slot()];
        found.peer = peer.into();
        if found.flags.has(Flag::Shaking) {
            self.pool.open += 1;
            self.pool.count_peer(id);
            self.pool.arm(id);
        } else {
            self.opened(id, core);
        }
        Some(id)
    }

    /// A connection is there: the handler's from now on.
    pub(crate) fn opened(&mut self, id: ConnId, core: &mut Core) {
        let found = &mut self.pool.connections[id.slot()];
        found.state = State::Open;
        found.active = core.now;
        found.flags.set(Flag::Open, true);
        // One that was dialled, or had a handshake to do, has counted since then.
        let shaken = found.flags.take(Flag::Shaking);
        self.pool.open += usize::from(!found.flags.take(Flag::Failed) && !shaken);
        let asked = found.flags.has(Flag::Drain) || found.flags.has(Flag::Finished);
        self.pool.live += 1;
        core.counters.open += 1;
        if !shaken {
            self.pool.count_peer(id);
        }
        if asked {
            // While it was being dialled.
            self.pool.mark_dirty(id.slot());
        }
        if log::log_enabled!(log::Level::Debug) {
            log::debug!("{}: {} is here", self.pool.name, self.describe(id));
        }
        self.call(id, true, core, H::on_open);
        self.pool.arm(id);
    }

    pub(crate) fn finish_connect(&mut self, id: ConnId, core: &mut Core) {
        match self.pool.connected(id, core) {
            Ok(false) => {}
            Ok(true) => self.opened(id, core),
            Err(error) => self.pool.fail(id, &error),
        }
    }

    // ---- The loop's own deadlines and the handler's timers ----

    pub(crate) fn fire(&mut self, core: &mut Core) {
        self.pool.begin_step(core);
        for _ in 0..TIMERS_PER_TURN {
            if self.pool.is_sated(core) {
                return;
            }
            match self.pool.timers.pop(core.now) {
                None => return,
                Some(Due::Deadline(token)) if token.is_connection() => {
                    if let Some(found) = self.pool.named(token) {
                        found.deadline = 0;
                        let id = found.id;
                        self.look_at(id, core);
                    }
                }
                Some(Due::Deadline(token)) => {
                    if let Some(listener) = self.listeners.get_mut(token.slot()) {
                        listener.retry();
                    }
                }
                Some(Due::Timer(timer, token)) if token.is_connection() => {
                    let Some(found) = self.pool.named(token) else { continue };
                    let (id, open) = (found.id, found.state <= State::Open);
                    self.pool.drop_timer(id, timer);
                    if open {
                        self.call(id, false, core, |handler, cx| handler.on_timer(cx, timer));
                    }
                }
                Some(Due::Timer(timer, _)) => {
                    self.call_service(core, |handler, cx| handler.on_service_timer(cx, timer));
                }
            }
        }
    }

    /// The loop's own deadline of a connection has come, which was set for when it was last
    /// looked at: it may have been active since.
    fn look_at(&mut self, id: ConnId, core: &mut Core) {
        let Pool { limits, connections, .. } = &mut self.pool;
        let found = &mut connections[id.slot()];
        let Some((due, wait)) = found.due(limits) else { return };
        let (queued, dirty) = (found.flags.has(Flag::Queued), found.flags.has(Flag::Dirty));
        match wait {
            _ if due > core.now => self.pool.arm(id),
            // What has come for it is still to be worked off, in this turn or the next ones:
            // nobody is to be judged by how long that takes us.
            Wait::Connect | Wait::Idle | Wait::Line | Wait::Gone if queued => {
                self.pool.look_again(id, core.now);
            }
            Wait::Idle | Wait::Line | Wait::SoftLimit | Wait::Flush if dirty => {
                self.pool.look_again(id, core.now);
            }
            Wait::Connect => self.pool.end(id, CloseReason::ConnectTimeout),
            Wait::Attempt => self.pool.visit(id),
            Wait::Idle => {
                self.farewell(id, Farewell::IdleTimeout, CloseReason::IdleTimeout, core);
            }
            Wait::Line => {
                self.farewell(id, Farewell::LineTimeout, CloseReason::LineTimeout, core);
            }
            Wait::SoftLimit if found.too_slow(limits, core.now) => {
                self.pool.end(id, CloseReason::SlowConsumer);
            }
            Wait::SoftLimit => self.pool.arm(id),
            Wait::Rate => {
                found.flags.set(Flag::Throttled, false);
                found.active = core.now;
                found.input.wait_from(core.now);
                self.pool.arm(id);
                self.pool.queue(id);
            }
            Wait::Flush | Wait::Gone => self.pool.end(id, CloseReason::Stalled),
            Wait::Linger => self.pool.end(id, CloseReason::Closed),
        }
    }

    // ---- Writing and ending ----

    pub(crate) fn flush_one(&mut self, id: ConnId, core: &mut Core) {
        let Pool { connections, backlog, .. } = &mut self.pool;
        let Some(found) = connections.get_mut(id.slot()).filter(|found| found.id == id) else {
            return;
        };
        found.flags.set(Flag::Dirty, false);
        if found.state != State::Open && found.state != State::Closing {
            return;
        }
        let mut again = false;
        let before = found.output.backlog();
        if found.flags.has(Flag::Blocked) {
            // It may own nothing, where only the stream has something left.
            found.output.keep(&core.arena);
            *backlog = *backlog + found.output.backlog() - before;
        } else if !found.flags.has(Flag::Gone) {
            let mut written = 0;
            let outcome = found.output.flush(&mut found.stream, &core.arena, &mut written);
            *backlog = *backlog + found.output.backlog() - before;
            core.counters.bytes_out += written as u64;
            if written > 0 || found.stream.take_moved() {
                found.sent(core.now);
            }
            match outcome {
                Ok(Flushed::All) => {}
                Ok(Flushed::Blocked) => found.flags.set(Flag::Blocked, true),
                Ok(Flushed::Budget) => again = true,
                // Two descriptors are two things: the input of one does not end with the other.
                Err(error) if found.state == State::Open && found.stream.is_socket() => {
                    return self.pool.lose(id, &error, core.now);
                }
                Err(error) => return self.pool.fail(id, &error),
            }
        }
        let Pool { limits, connections, .. } = &mut self.pool;
        let found = &mut connections[id.slot()];
        match found.state {
            State::Open => {
                // One that has had its share of the turn has not refused anything yet.
                if !again && found.too_slow(limits, core.now) {
                    return self.pool.end(id, CloseReason::SlowConsumer);
                }
                let mut arm = found.over_soft() != 0;
                if found.flags.has(Flag::Finished) && found.all_sent() {
                    // Otherwise it fails only where the peer is gone, which the next read tells.
                    let later = would_block(&found.stream.shutdown_write());
                    found.flags.set(Flag::Blocked, later);
                }
                if found.output.len() <= limits.low_water {
                    let held = found.flags.take(Flag::Held);
                    if held {
                        found.input.wait_from(core.now);
                        arm = true;
                    }
                    if found.flags.has(Flag::Drain) {
                        // Not here: what the hook sends needs an arena that is not about to be
                        // cleared, and has to wait its turn behind the others.
                        self.pool.visit(id);
                    } else if held {
                        self.pool.queue(id);
                    }
                }
                if arm {
                    // Nobody may have anything more to say to it before its time is up.
                    self.pool.arm(id);
                }
            }
            _ if found.all_sent() => self.linger(id, core),
            _ => {}
        }
        if again {
            self.pool.mark_dirty(id.slot());
        }
    }

    /// All is sent: shuts the write side and waits for the peer to do the same.
    fn linger(&mut self, id: ConnId, core: &mut Core) {
        let found = &mut self.pool.connections[id.slot()];
        let shut = found.stream.shutdown_write();
        if would_block(&shut) {
            found.flags.set(Flag::Blocked, true);
            return;
        }
        if found.flags.has(Flag::Eof) || shut.is_err() || !found.stream.is_socket() {
            let reason = found.reason;
            return self.pool.end(id, reason);
        }
        found.state = State::Lingering;
        found.active = core.now;
        self.pool.list_lingering(id);
        self.pool.arm(id);
        // The handler need not wait for the peer.
        self.pool.list_ending(id);
    }

    pub(crate) fn reap_one(&mut self, id: ConnId, core: &mut Core) {
        let Some(found) = self.pool.get_mut(id) else { return };
        found.flags.set(Flag::Ending, false);
        let reason = found.reason;
        if found.flags.take(Flag::Shaking) {
            self.pool.open -= 1;
            self.pool.discount_peer(id);
            core.counters.handshakes_failed += 1;
            log::debug!("{}: {}: no handshake: {reason}", self.pool.name, self.describe(id));
            return self.pool.remove(id, core);
        }
        let was_open = found.flags.take(Flag::Open);
        if was_open || found.flags.take(Flag::Failed) {
            core.counters.open -= u64::from(was_open);
            self.pool.open -= 1;
            if was_open {
                self.pool.discount_peer(id);
            }
            core.counters.closed[reason.index()] += 1;
            if log::log_enabled!(reason.level()) {
                let (who, name) = (self.describe(id), &self.pool.name);
                let what = if was_open { "is gone" } else { "cannot be reached" };
                let error = self.pool.get(id).and_then(Connection::error);
                let why = error.map_or_else(|| reason.to_string(), |error| error::why(&error));
                log::log!(reason.level(), "{name}: {who} {what}: {why}");
            }
            self.call(id, false, core, |handler, cx| handler.on_close(cx, reason));
        }
        if self.pool.get(id).is_some_and(|found| found.state == State::Ended) {
            self.pool.remove(id, core);
        }
    }

    fn describe(&self, id: ConnId) -> String {
        let Some(found) = self.pool.get(id) else { return id.to_string() };
        match (found.peer.get(), found.stream.dialling()) {
            (_, Some(dialling)) => format!("{id} ({})", dialling.host()),
            (Some(peer), None) => format!("{id} ({peer})"),
            (None, None) => id.to_string(),
        }
    }
}
