//! The connections of one service and the lists of those that something is due for. Each step
//! of a turn works off one list, so its cost follows what is ready and not what is connected.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};

use slab::Slab;

use crate::connection::{Connection, State};
use crate::core::{Core, Reply};
use crate::flags::Flag;
use crate::id::Token;
use crate::net::Stream;
use crate::peer::home;
use crate::timer::{Nanos, TimerId, Timers};
use crate::{CloseReason, ConnId, Limits};

/// A broadcast to so many counts as one line against the share that a client has of a turn.
const RECEIVERS_PER_LINE: usize = 64;
/// Bytes that one step of a service's turn may gather before it leaves the rest to the next.
const OUTPUT_PER_STEP: usize = 256 * 1024;
/// Copies of broadcasts that it may queue.
const DELIVERIES: usize = 256 * 1024;
/// Slots that an empty service keeps.
const SLOTS_KEPT: usize = 1024;

pub(crate) struct Pool<S> {
    pub(crate) service: usize,
    pub(crate) name: Box<str>,
    pub(crate) limits: Limits,
    pub(crate) connections: Slab<Connection<S>>,
    /// To be served: they may have input. Newly ready ones wait behind the others.
    pub(crate) ready: VecDeque<ConnId>,
    /// To be moved on in their TLS handshakes, which cost as much as thousands of lines each.
    pub(crate) handshakes: VecDeque<ConnId>,
    /// To be flushed at the end of the turn.
    pub(crate) dirty: Vec<ConnId>,
    /// To be reported to the handler, or freed.
    pub(crate) ending: VecDeque<ConnId>,
    pub(crate) timers: Timers,
    /// Connections in state Open: those that a broadcast reaches.
    pub(crate) live: usize,
    /// Connections that the handler has been told of, or has dialled, and not yet been told of
    /// their end.
    pub(crate) open: usize,
    /// Those that linger, oldest first; some may be gone.
    pub(crate) lingering: VecDeque<ConnId>,
    /// Bytes in the backlogs of all connections.
    pub(crate) backlog: usize,
    /// Open connections from each address, where they are limited.
    peers: HashMap<IpAddr, usize>,
    /// Copies of broadcasts queued in this step of the turn.
    delivered: usize,
    /// Length of the arena when this step began.
    step_began: usize,
}

impl<S> Pool<S> {
    pub(crate) fn new(service: usize, name: &str, limits: Limits) -> Self {
        Pool {
            service,
            name: name.into(),
            limits,
            connections: Slab::new(),
            ready: VecDeque::new(),
            handshakes: VecDeque::new(),
            dirty: Vec::new(),
            ending: VecDeque::new(),
            timers: Timers::default(),
            live: 0,
            open: 0,
            lingering: VecDeque::new(),
            backlog: 0,
            peers: HashMap::new(),
            delivered: 0,
            step_began: 0,
        }
    }

    /// Takes in a connection that is not open yet, and says whether the selector watches it.
    pub(crate) fn insert(
        &mut self,
        mut stream: Stream,
        session: S,
        core: &mut Core,
    ) -> (ConnId, io::Result<()>) {
        let slot = self.connections.vacant_entry();
        let id = ConnId::new(core.serials.next(), slot.key());
        let watched = match &core.registry {
            Some(registry) => stream.register(registry, Token::connection(self.service, id)),
            None => Ok(()),
        };
        slot.insert(Connection::new(id, stream, session, core.now));
        (id, watched)
    }

    /// The connection, if it is still the one that the id was given to.
    pub(crate) fn get(&self, id: ConnId) -> Option<&Connection<S>> {
        self.connections.get(id.slot()).filter(|found| found.id == id)
    }

    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection<S>> {
        self.connections.get_mut(id.slot()).filter(|found| found.id == id)
    }

    /// The connection that a token was made for, if it is still there.
    pub(crate) fn named(&mut self, token: Token) -> Option<&mut Connection<S>> {
        self.connections.get_mut(token.slot()).filter(|found| token.names(found.id))
    }

    /// Everyone a handler may speak of.
    pub(crate) fn everyone(&self) -> impl Iterator<Item = (ConnId, &Connection<S>)> {
        let open = self.connections.iter().filter(|(_, found)| found.state == State::Open);
        open.map(|(_, found)| (found.id, found))
    }

    pub(crate) fn is_idle(&self) -> bool {
        let Pool { ready, handshakes, dirty, ending, .. } = self;
        ready.is_empty() && handshakes.is_empty() && dirty.is_empty() && ending.is_empty()
    }

    /// Puts the connection behind those that wait to be served, if there is anything to do.
    pub(crate) fn queue(&mut self, id: ConnId) {
        self.visit_if(id, Connection::has_work);
    }

    /// Puts the connection behind those that wait to be served.
    pub(crate) fn visit(&mut self, id: ConnId) {
        self.visit_if(id, |_| true);
    }

    fn visit_if(&mut self, id: ConnId, so: impl FnOnce(&Connection<S>) -> bool) {
        if let Some(found) = self.get_mut(id)
            && !found.flags.has(Flag::Queued)
            && so(found)
        {
            found.flags.set(Flag::Queued, true);
            let shaking = found.flags.has(Flag::Shaking);
            if shaking { &mut self.handshakes } else { &mut self.ready }.push_back(id);
        }
    }

    pub(crate) fn mark_dirty(&mut self, slot: usize) {
        let found = &mut self.connections[slot];
        if !found.flags.has(Flag::Dirty) {
            found.flags.set(Flag::Dirty, true);
            self.dirty.push(found.id);
        }
    }

    /// Appends output for one connection; says whether it is open. `own` tells whether its own
    /// request caused it: then it is held back, else it has to keep up.
    #[inline]
    pub(crate) fn send(&mut self, slot: usize, bytes: &[u8], own: bool, core: &mut Core) -> bool {
        let start = core.arena.len();
        core.arena.put(bytes);
        self.send_since(slot, start, own, core)
    }

    /// As [`send`](Self::send), of what the arena has had since it was `start` bytes long.
    #[inline]
    pub(crate) fn send_since(
        &mut self,
        slot: usize,
        start: usize,
        own: bool,
        core: &mut Core,
    ) -> bool {
        let found = &mut self.connections[slot];
        let count = core.arena.len() - start;
        let open = found.takes_output();
        if !open || count == 0 {
            core.arena.truncate(start);
            return open;
        }
        let copied = found.output.push_since(&core.arena, start);
        if copied > 0 {
            // Nobody else was given these bytes.
            self.backlog += copied;
            core.arena.truncate(start);
        }
        if own {
            found.hold_above(self.limits.high_water);
        } else if found.overrun(count, &self.limits, core.now) {
            let id = found.id;
            self.end(id, CloseReason::SlowConsumer);
            return false;
        }
        self.mark_dirty(slot);
        self.keep_budget(core);
        self.connections[slot].state == State::Open
    }

    /// From here on the arena's bytes are a reply of this connection to its own request, until
    /// [`commit`](Self::commit). False if it is not open.
    #[inline(never)]
    pub(crate) fn begin_reply(&mut self, id: ConnId, core: &mut Core) -> bool {
        debug_assert!(core.reply.of.is_none(), "one hook at a time");
        let found = &self.connections[id.slot()];
        if !found.takes_output() {
            return false;
        }
        let start = core.arena.len();
        let room = self.limits.high_water.saturating_sub(found.owed());
        let end = if found.takes_input() { start.saturating_add(room + 1) } else { 0 };
        core.reply = Reply { of: Some(id), start, end };
        true
    }

    /// Gives the reply to its connection. Due before anybody else gets output, before the
    /// connection's own output is looked at, and before its state changes.
    pub(crate) fn commit(&mut self, core: &mut Core) {
        let reply = std::mem::take(&mut core.reply);
        if let Some(id) = reply.of {
            self.send_since(id.slot(), reply.start, true, core);
        }
    }

    /// Appends the same output for every open connection that `wanted` picks; `sender`'s own
    /// request caused its own copy.
    pub(crate) fn broadcast(
        &mut self,
        bytes: &[u8],
        sender: Option<ConnId>,
        core: &mut Core,
        mut wanted: impl FnMut(ConnId, &S) -> bool,
    ) {
        if self.live == 0 || bytes.is_empty() {
            return;
        }
        self.commit(core);
        // It costs as much as so many lines, which whoever asked for it has to share.
        core.most_lines = core.most_lines.saturating_sub(self.live / RECEIVERS_PER_LINE);
        self.delivered += self.live;
        let segment = core.arena.add(bytes);
        let mut slow = Vec::new();
        let mut done = 0;
        while done < self.connections.len() {
            for (_, found) in self.connections.iter_mut().skip(done) {
                done += 1;
                if !found.takes_output() || !wanted(found.id, &found.session) {
                    continue;
                }
                let copied = found.output.push(&core.arena, bytes, segment);
                if sender == Some(found.id) {
                    found.hold_above(self.limits.high_water);
                } else if found.overrun(bytes.len(), &self.limits, core.now) {
                    slow.push(found.id);
                }
                if !found.flags.has(Flag::Dirty) {
                    found.flags.set(Flag::Dirty, true);
                    self.dirty.push(found.id);
                }
                if copied > 0 {
                    self.backlog += copied;
                    if self.backlog > core.max_total_output {
                        break;
                    }
                }
            }
            self.keep_budget(core);
        }
        for id in slow {
            self.end(id, CloseReason::SlowConsumer);
        }
    }

    /// Begins a graceful end: no more input, flush, shut the write side, linger.
    pub(crate) fn close(&mut self, id: ConnId, reason: CloseReason, core: &Core) {
        let Some(found) = self.get_mut(id) else { return };
        match found.state {
            State::Connecting => {
                found.flags.set(Flag::Failed, true);
                return self.end(id, reason);
            }
            State::Open => {}
            State::Closing | State::Lingering | State::Ended => return,
        }
        found.state = State::Closing;
        if !found.flags.has(Flag::Gone) {
            found.reason = reason;
        }
        found.active = core.now;
        found.input.discard();
        self.live -= 1;
        self.arm(id);
        self.mark_dirty(id.slot());
        self.queue(id);
    }

    /// A write has failed: the output is thrown away and no more is taken, but what the peer sent
    /// before is still here. The error is the reason of the end, whatever brings that about.
    pub(crate) fn lose(&mut self, id: ConnId, error: &io::Error, now: Nanos) {
        let Some(found) = self.get_mut(id) else { return };
        if found.flags.has(Flag::Gone) {
            return;
        }
        if found.state != State::Open || found.is_unread() && !found.is_unheard() {
            return self.fail(id, error);
        }
        let backlog = found.output.backlog();
        found.output.discard();
        found.reason = CloseReason::Error(error.kind());
        found.note(error);
        found.rare().lost = now;
        found.flags.set(Flag::Blocked, false);
        // No event need come any more: it is read until there is nothing.
        for flag in [Flag::Gone, Flag::Finished, Flag::Readable, Flag::ReadOn] {
            found.flags.set(flag, true);
        }
        self.backlog -= backlog;
        // Whoever waits for it to take its output need not.
        self.mark_dirty(id.slot());
        self.queue(id);
        self.arm(id);
    }

    /// One step of the turn begins: accepting, serving, timers, messages, reaping. Each has a
    /// budget of its own, so that none can use up another's.
    pub(crate) fn begin_step(&mut self, core: &Core) {
        self.delivered = 0;
        self.step_began = core.arena.len();
    }

    /// This step of the turn has gathered as much output as it may; the rest is for the next.
    pub(crate) fn is_sated(&self, core: &Core) -> bool {
        self.delivered > DELIVERIES || core.arena.len() - self.step_began > OUTPUT_PER_STEP
    }

    /// The newcomer's address has as many connections as it may.
    pub(crate) fn has_enough(&self, peer: Option<SocketAddr>) -> bool {
        let Some((most, peer)) = self.limits.max_per_peer.zip(peer) else { return false };
        self.peers.get(&home(peer)).is_some_and(|open| *open >= most)
    }

    fn limited_peer(&self, id: ConnId) -> Option<IpAddr> {
        self.limits.max_per_peer?;
        let found = self.get(id).filter(|found| !found.flags.has(Flag::Outbound))?;
        found.peer.get().map(home)
    }

    pub(crate) fn count_peer(&mut self, id: ConnId) {
        if let Some(peer) = self.limited_peer(id) {
            *self.peers.entry(peer).or_default() += 1;
        }
    }

    pub(crate) fn discount_peer(&mut self, id: ConnId) {
        if let Some(peer) = self.limited_peer(id)
            && let Some(open) = self.peers.get_mut(&peer)
        {
            *open -= 1;
            if *open == 0 {
                self.peers.remove(&peer);
            }
        }
    }

    /// Notes that it lingers now.
    pub(crate) fn list_lingering(&mut self, id: ConnId) {
        let Pool { lingering, connections, .. } = self;
        let there = |id: &ConnId| connections.get(id.slot()).is_some_and(|found| found.id == *id);
        while lingering.front().is_some_and(|oldest| !there(oldest)) {
            lingering.pop_front();
        }
        if lingering.len() > 2 * connections.len() {
            // The oldest stays for long, and those behind it are gone.
            lingering.retain(there);
        }
        lingering.push_back(id);
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
            if self.get(oldest).is_some_and(|found| found.state == State::Lingering) {
                self.end(oldest, CloseReason::Closed);
                return true;
            }
        }
        false
    }

    /// Ends it at once; the handler is told at the end of the turn.
    pub(crate) fn end(&mut self, id: ConnId, reason: CloseReason) {
        let Some(found) = self.get_mut(id) else { return };
        let was = std::mem::replace(&mut found.state, State::Ended);
        if was == State::Ended {
            return;
        }
        // Once the end has begun, what goes wrong with it does not change why it began: a peer
        // may leave early. But nobody else says that a file or a pipe has not got its output.
        let graver = matches!(reason, CloseReason::Stalled | CloseReason::TotalOutput);
        let begun = was == State::Closing && !graver && found.stream.is_socket();
        if !begun && !found.flags.has(Flag::Gone) {
            found.reason = reason;
        }
        let backlog = found.output.backlog();
        found.output.discard();
        found.input.discard();
        if matches!(
            reason,
            CloseReason::Aborted
                | CloseReason::SlowConsumer
                | CloseReason::TotalOutput
                | CloseReason::Stalled
        ) {
            found.stream.reset();
        }
        self.backlog -= backlog;
        if was == State::Open {
            self.live -= 1;
        }
        self.list_ending(id);
    }

    /// As [`end`](Self::end), for an error.
    pub(crate) fn fail(&mut self, id: ConnId, error: &io::Error) {
        let reason = CloseReason::Error(error.kind());
        let ended = self.get(id).is_none_or(|found| found.state == State::Ended);
        self.end(id, reason);
        // Another one may have been the first.
        if let Some(found) = self.get_mut(id).filter(|found| !ended && found.reason == reason) {
            found.note(error);
        }
    }

    pub(crate) fn list_ending(&mut self, id: ConnId) {
        if let Some(found) = self.get_mut(id)
            && !found.flags.has(Flag::Ending)
        {
            found.flags.set(Flag::Ending, true);
            self.ending.push_back(id);
        }
    }

    /// Sets the loop's own deadline for it, if its state has one and none comes sooner.
    pub(crate) fn arm(&mut self, id: ConnId) {
        let service = self.service;
        let Some(found) = self.connections.get_mut(id.slot()).filter(|found| found.id == id) else {
            return;
        };
        let Some((due, _)) = found.due(&self.limits) else { return };
        let token = Token::connection(service, id);
        if found.deadline != 0 {
            if found.deadline <= due {
                return;
            }
            self.timers.disarm(found.deadline, token);
        }
        found.deadline = due;
        self.timers.arm(due, token);
    }

    /// Looks at it again in the next turn.
    pub(crate) fn look_again(&mut self, id: ConnId, now: Nanos) {
        let token = Token::connection(self.service, id);
        if let Some(found) = self.get_mut(id) {
            found.deadline = now + 1;
            self.timers.arm(now + 1, token);
        }
    }

    /// Sets a handler's timer for one connection.
    pub(crate) fn set_timer(&mut self, id: ConnId, when: Nanos) -> TimerId {
        let timer = self.timers.set(when, Token::connection(self.service, id));
        if let Some(found) = self.get_mut(id) {
            found.rare().timers.insert(timer);
        }
        timer
    }

    /// Forgets a handler's timer for one connection, fired or cancelled.
    pub(crate) fn drop_timer(&mut self, id: ConnId, timer: TimerId) {
        if let Some(found) = self.get_mut(id) {
            found.change_rare(|rare| {
                rare.timers.remove(&timer);
            });
        }
    }

    /// Frees the slot, with all that the loop keeps for it.
    pub(crate) fn remove(&mut self, id: ConnId, core: &mut Core) {
        if self.get(id).is_none() {
            return;
        }
        let gone = self.connections.remove(id.slot());
        let token = Token::connection(self.service, id);
        if gone.deadline != 0 {
            self.timers.disarm(gone.deadline, token);
        }
        for timer in gone.rare.into_iter().flat_map(|rare| rare.timers) {
            self.timers.cancel(timer, token);
        }
        core.freed += 1;
        if self.connections.is_empty() && self.connections.capacity() > SLOTS_KEPT {
            // Broadcasts walk over all slots, and the memory is of use to others.
            self.connections.shrink_to_fit();
        }
        // Dropping a session runs the embedder's code too.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(gone.session)));
        core.caught(dropped, &self.name);
    }
}
