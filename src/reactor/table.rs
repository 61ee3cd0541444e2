//! The connections of one service.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use slab::Slab;

use super::fairness::SLOTS_KEPT;
use super::loop_state::LoopState;
use super::timers::Timers;
use super::token::Token;
use crate::connection::clock::Nanos;
use crate::connection::connection::{Connection, Stage};
use crate::connection::deadlines::Wait;
use crate::connection::flags::Flag;
use crate::connection::{CloseReason, ConnId};
use crate::limits::Limits;
use crate::net::happy_eyeballs::Dialling;
use crate::net::stream::Stream;

/// One slot of the table: the state of a connection, what it runs over, and the handler's session.
pub(crate) struct Slot<S> {
    pub(crate) conn: Connection,
    pub(crate) stream: Stream,
    pub(crate) session: S,
}

pub(crate) struct Table<S> {
    pub(crate) service: usize,
    pub(crate) name: Box<str>,
    pub(crate) limits: Limits,
    pub(crate) connections: Slab<Slot<S>>,
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
    pub(super) peers: HashMap<IpAddr, usize>,
    /// Copies of broadcasts queued in this step of the turn.
    pub(super) delivered: usize,
    /// Length of the arena when this step began.
    pub(super) step_began: usize,
}

impl<S> Table<S> {
    pub(crate) fn new(service: usize, name: &str, limits: Limits) -> Self {
        Table {
            service,
            name: name.into(),
            limits,
            connections: Slab::with_capacity(SLOTS_KEPT),
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
        state: &mut LoopState,
    ) -> (ConnId, io::Result<()>) {
        let vacant = self.connections.vacant_entry();
        let id = ConnId::new(state.serials.next(), vacant.key());
        let watched = match &state.registry {
            Some(registry) => stream.register(registry, Token::connection(self.service, id).into()),
            None => Ok(()),
        };
        let conn = Connection::new(id, stream.traits(), state.turn.now);
        vacant.insert(Slot { conn, stream, session });
        (id, watched)
    }

    /// The connection, if it is still the one that the id was given to.
    pub(crate) fn get(&self, id: ConnId) -> Option<&Slot<S>> {
        self.connections.get(id.slot()).filter(|slot| slot.conn.id == id)
    }

    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Slot<S>> {
        self.connections.get_mut(id.slot()).filter(|slot| slot.conn.id == id)
    }

    /// The connection that a token was made for, if it is still there.
    pub(crate) fn named(&mut self, token: Token) -> Option<&mut Slot<S>> {
        self.connections.get_mut(token.slot()).filter(|slot| token.names(slot.conn.id))
    }

    /// Everyone a handler may speak of.
    pub(crate) fn everyone(&self) -> impl Iterator<Item = (ConnId, &Slot<S>)> {
        let open = self.connections.iter().filter(|(_, slot)| slot.conn.stage == Stage::Open);
        open.map(|(_, slot)| (slot.conn.id, slot))
    }

    /// Frees the slot, with all that the loop keeps for it.
    pub(crate) fn remove(&mut self, id: ConnId, state: &mut LoopState) {
        if self.get(id).is_none() {
            return;
        }
        let gone = self.connections.remove(id.slot());
        let token = Token::connection(self.service, id);
        if gone.conn.deadline != 0 {
            self.timers.disarm(gone.conn.deadline, token);
        }
        if let Some(extras) = gone.conn.extras {
            for timer in extras.timers {
                self.timers.cancel(timer, token);
            }
        }
        self.forget_lingering();
        state.freed += 1;
        if self.connections.is_empty() && self.connections.capacity() > SLOTS_KEPT {
            // Broadcasts walk over all slots, and the memory is of use to others.
            self.connections = Slab::with_capacity(SLOTS_KEPT);
        }
        // Dropping a session runs the embedder's code too.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(gone.session)));
        state.caught(dropped, &self.name);
    }
}

impl<S> Slot<S> {
    /// Input has come that the handler has not been offered.
    pub(crate) fn is_unheard(&mut self) -> bool {
        let unread = !self.conn.flags.has(Flag::Eof) && self.stream.has_unread();
        self.conn.stage == Stage::Open && (self.conn.input.has_work() || unread)
    }

    /// The end of input that a read gave is not the peer's: once a socket has told of its error it
    /// gives that instead. It tells of a broken pipe where the peer had ended before.
    pub(crate) fn is_cut(&self) -> bool {
        let ended = self.conn.reason == CloseReason::Error(ErrorKind::BrokenPipe);
        self.conn.flags.has(Flag::Gone) && !ended && !self.stream.has_handshake()
    }

    /// The error that its socket has.
    pub(crate) fn take_error(&self) -> io::Error {
        self.stream.take_error().unwrap_or(ErrorKind::ConnectionReset.into())
    }

    /// When the loop must look at it again if nothing moves until then, and what for.
    pub(crate) fn due(&self, limits: &Limits) -> Option<(Nanos, Wait)> {
        self.conn.due(limits, self.stream.dialling().and_then(Dialling::due))
    }
}
