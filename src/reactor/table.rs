//! The connections of one service.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::{fmt, io};

use slab::Slab;

use super::fairness::SLOTS_KEPT;
use super::hand_over::Destination;
use super::loop_state::LoopState;
use super::peers::{Peers, SharedBooks};
use super::places::{Places, SharedPlaces};
use super::queues::Queues;
use super::timers::Timers;
use super::token::Token;
use super::usage::Accounts;
use crate::connection::ConnId;
use crate::connection::clock::Nanos;
use crate::connection::connection::{Connection, Stage};
use crate::error::Error;
use crate::limits::Limits;
use crate::net::stream::Stream;

/// One slot of the table.
pub(crate) struct Slot<S> {
    /// The state of the connection.
    pub(crate) conn: Connection,
    /// What it runs over.
    pub(crate) stream: Stream,
    /// What the handler keeps of it.
    pub(crate) session: S,
}

/// A service as the log names it and as it is counted.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    /// Its number in the reactor.
    pub(crate) service: usize,
    pub(crate) name: Arc<str>,
}

impl Label {
    pub(crate) fn new(service: usize, name: &str) -> Label {
        Label { service, name: name.into() }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// What the tables of one service have in common that runs on several cores.
#[derive(Clone, Debug)]
pub(crate) struct SharedLimits {
    pub(crate) places: SharedPlaces,
    pub(crate) peers: Arc<SharedBooks>,
}

pub(crate) struct Table<S> {
    /// The service's number in the reactor, as tokens have it.
    pub(crate) service: usize,
    /// What the service goes by in the log.
    pub(crate) name: Label,
    pub(crate) limits: Limits,
    /// All connections, from their first moment until they are freed.
    pub(crate) connections: Slab<Slot<S>>,
    /// All of them lie in slots below this one.
    pub(super) slots: usize,
    /// Which of them something is due for.
    pub(crate) queues: Queues,
    /// What is due later, for connections, for listeners and for the handler itself.
    pub(crate) timers: Timers,
    /// What each peer has and uses.
    pub(super) peers: Peers,
    /// There is a rate, of connections or of peers, that input is held to.
    pub(super) metered: bool,
    /// How many are in stage `Open`.
    pub(crate) open: usize,
    /// How many count for `max_connections`: the handler was told of them, dialled them or adopted
    /// them, or they are in their handshake; and it has not been told of their end.
    pub(super) places: Places,
    /// Bytes in the backlogs of all of them.
    pub(crate) backlog: usize,
    /// Where those that leave are to go.
    pub(super) leaving: BTreeMap<ConnId, Destination>,
    /// Memory that all of them keep of input; see [`Slot::kept`]. Those that have ended do not count.
    pub(crate) kept: usize,
    /// What each of them has done, where somebody wants to know.
    pub(crate) accounts: Accounts,
    /// When a shutdown closes them; none before its beginning, and once it has.
    pub(crate) kept_open: Option<Nanos>,
    /// Whether the service is being removed, so that it takes no new connections.
    pub(super) retired: bool,
}

impl<S> Slot<S> {
    /// How much memory it takes for what the handler has not taken, and for what layers keep.
    #[inline]
    pub(crate) fn kept(&self) -> usize {
        self.conn.input.kept() + self.stream.kept()
    }

    /// Does something that may change how much it keeps, and counts that in `kept`, the table's.
    /// Nothing may call a hook meanwhile.
    #[inline]
    pub(super) fn counted<R>(
        &mut self,
        kept: &mut usize,
        what: impl FnOnce(&mut Slot<S>) -> R,
    ) -> R {
        let before = self.kept();
        let outcome = what(self);
        *kept = *kept + self.kept() - before;
        outcome
    }
}

impl<S> Table<S> {
    /// As [`new`](Self::new), with limits that hold for several cores together.
    pub(crate) fn shared(service: usize, name: &str, limits: Limits, all: &SharedLimits) -> Self {
        let peers = Peers::shared(Arc::clone(&all.peers), &limits);
        let places = Places::shared(all.places.clone());
        Table { peers, places, ..Table::new(service, name, limits) }
    }

    pub(crate) fn new(service: usize, name: &str, limits: Limits) -> Self {
        Table {
            service,
            name: Label::new(service, name),
            connections: Slab::with_capacity(SLOTS_KEPT),
            slots: 0,
            queues: Queues::default(),
            timers: Timers::default(),
            peers: Peers::new(&limits),
            metered: Table::<S>::is_metered(&limits),
            open: 0,
            places: Places::default(),
            backlog: 0,
            leaving: BTreeMap::new(),
            kept: 0,
            accounts: Accounts::default(),
            kept_open: None,
            retired: false,
            limits,
        }
    }

    /// Whether a rate limits the input.
    pub(super) fn is_metered(limits: &Limits) -> bool {
        limits.rate.are_set() || limits.peer_rate.are_set()
    }

    /// Whether a new connection may begin, such as one that is dialled.
    pub(super) fn may_begin(&self, state: &LoopState) -> Result<(), Error> {
        match state.is_ending() {
            true => Err(Error::ShuttingDown),
            false if self.retired => Err(Error::Removed),
            false => Ok(()),
        }
    }

    /// Takes in a connection that is not open yet, and says whether the selector watches it.
    pub(super) fn insert(
        &mut self,
        mut stream: Stream,
        session: S,
        state: &mut LoopState,
    ) -> (ConnId, io::Result<()>) {
        let vacant = self.connections.vacant_entry();
        let id = ConnId::new(state.serials.next(), vacant.key());
        self.slots = self.slots.max(id.slot() + 1);
        let watched = match &state.registry {
            Some(registry) => stream.register(registry, Token::connection(self.service, id).into()),
            None => Ok(()),
        };
        self.accounts.begin(id, state.turn.now);
        let conn = Connection::new(id, stream.traits(), state.turn.now);
        self.kept += stream.kept();
        vacant.insert(Slot { conn, stream, session });
        (id, watched)
    }

    /// The connection, if it is still the one that the id was given to.
    pub(crate) fn get(&self, id: ConnId) -> Option<&Slot<S>> {
        self.connections.get(id.slot()).filter(|slot| slot.conn.id == id)
    }

    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Slot<S>> {
        find(&mut self.connections, id)
    }

    /// The connection that a token was made for, if it is still there.
    pub(super) fn get_by_token(&mut self, token: Token) -> Option<&mut Slot<S>> {
        self.connections.get_mut(token.slot()).filter(|slot| token.names(slot.conn.id))
    }

    /// All connections that a handler may speak of.
    pub(crate) fn everyone(&self) -> impl Iterator<Item = (ConnId, &Slot<S>)> {
        let open = self.connections.iter().filter(|(_, slot)| slot.conn.stage == Stage::Open);
        open.map(|(_, slot)| (slot.conn.id, slot))
    }

    /// The ids of all connections, in whatever stage.
    pub(super) fn ids(&self) -> Vec<ConnId> {
        self.connections.iter().map(|(_, slot)| slot.conn.id).collect()
    }

    /// Frees the slot, with all that the loop keeps for it.
    pub(super) fn remove(&mut self, id: ConnId, state: &mut LoopState) {
        state.freed += u64::from(self.take_out(id, state).is_some());
    }

    /// Frees the slot likewise, but for the stream and the connection's own part.
    pub(super) fn take_out(
        &mut self,
        id: ConnId,
        state: &mut LoopState,
    ) -> Option<(Connection, Stream)> {
        self.get(id)?;
        let mut gone = self.connections.remove(id.slot());
        if gone.conn.stage != Stage::Ended {
            self.kept -= gone.kept();
        }
        let token = Token::connection(self.service, id);
        if gone.conn.deadline != 0 {
            self.timers.disarm(gone.conn.deadline, token);
        }
        if let Some(extras) = gone.conn.extras.take() {
            for timer in extras.timers {
                self.timers.cancel(timer, token);
            }
        }
        self.leaving.remove(&id);
        self.forget_lingering();
        if self.connections.is_empty() {
            self.slots = 0;
            if self.connections.capacity() > SLOTS_KEPT {
                self.connections = Slab::with_capacity(SLOTS_KEPT);
                self.accounts.clear();
            }
        }
        // Dropping a session runs the embedder's code too.
        state.guard(&self.name, || drop(gone.session));
        Some((gone.conn, gone.stream))
    }
}

/// As [`Table::get_mut`], which borrows all of the table.
pub(super) fn find<S>(connections: &mut Slab<Slot<S>>, id: ConnId) -> Option<&mut Slot<S>> {
    connections.get_mut(id.slot()).filter(|slot| slot.conn.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_stays_small_with_its_stream() {
        // In debug builds mio adds 8 bytes to a socket, to see that it is registered with one
        // selector only.
        let size = size_of::<Slot<()>>() - 8 * usize::from(cfg!(debug_assertions));
        assert!(size <= 112, "{size} bytes");
    }
}
