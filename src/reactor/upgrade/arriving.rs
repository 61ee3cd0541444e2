//! The new side: what has come is read, and put into its place once it is sure that it stays.

use std::collections::HashSet;
use std::ops::DerefMut;

use slab::Slab;

use super::Succession;
use crate::connection::close_reason;
use crate::connection::connection::{Connection, Stage};
use crate::connection::flags::Flag;
use crate::connection::{CloseReason, ConnId, Decoder, Unreadable};
use crate::handler::Handler;
use crate::net::passed::Received;
use crate::net::stream::{Failed, Stream};
use crate::reactor::fairness::SLOTS_KEPT;
use crate::reactor::loop_state::LoopState;
use crate::reactor::peer_accounts::Used;
use crate::reactor::service::{ActiveService, AnyService};
use crate::reactor::table::{Slot, Table};
use crate::reactor::token::Token;
use crate::reactor::usage::{Account, Accounts};

const PANICKED: Unreadable = Unreadable("its handler panicked");

/// What a service has restored and not put into its place.
pub(crate) struct Arriving<S> {
    connections: Vec<Slot<S>>,
    /// What each of them has done, as far as anybody has kept that.
    usages: Vec<Option<Account>>,
    accounts: Vec<Used>,
}

/// What has become here of a service of the other loop.
pub(crate) struct Restored {
    pub(crate) name: String,
    /// Which service goes on with it.
    pub(crate) place: Option<usize>,
    /// The handler there has saved something.
    pub(crate) saved: bool,
    /// Why nobody goes on with it.
    pub(crate) refused: Option<String>,
}

/// Reads what another loop has [frozen](super::freeze). For each service that it had, says whether it goes on
/// here, or else why not. An error says why the upgrade cannot take place.
pub(crate) fn restore<S>(
    parcel: &[u8],
    received: Vec<Received>,
    services: &mut [S],
    state: &mut LoopState,
) -> Result<Vec<Restored>, String>
where
    S: DerefMut<Target: AnyService>,
{
    let mut from = Decoder::new(parcel);
    state.serials.go_on_after(from.number()?);
    let (mut received, mut outcomes) = (received.into_iter(), Vec::new());
    let mut known = vec![false; services.len()];
    while !from.is_empty() {
        let name = from.text()?.to_owned();
        let record = from.option(|from| Ok((from.size()?, from.bytes()?)))?;
        let Some((count, record)) = record else {
            outcomes.push(Restored { name, place: None, saved: false, refused: None });
            continue;
        };
        let own: Vec<_> = received.by_ref().take(count).collect();
        if own.len() < count {
            return Err(Unreadable("fewer sockets than connections").into());
        }
        let same =
            |(number, service): &(usize, &mut S)| !known[*number] && service.name() == &*name;
        let found = services.iter_mut().enumerate().find(same);
        let (place, refused) = match found {
            None => (None, Some("there is no such service any more".to_owned())),
            Some((number, service)) => {
                known[number] = true;
                let outcome = service.restore(&mut Decoder::new(record), own, state);
                (Some(number), outcome.map_err(|why| format!("{name}: {why}"))?.err())
            }
        };
        outcomes.push(Restored { name, place, saved: true, refused });
    }
    match received.next() {
        None => Ok(outcomes),
        Some(_) => Err(Unreadable("more sockets than connections").into()),
    }
}

/// The old loop has let go: what was restored is this one's.
pub(crate) fn install<S>(services: &mut [S], state: &mut LoopState)
where
    S: DerefMut<Target: AnyService>,
{
    services.iter_mut().for_each(|service| service.install(state));
}

impl<H: Handler> ActiveService<H> {
    pub(super) fn restore_all(
        &mut self,
        from: &mut Decoder<'_>,
        received: Vec<Received>,
        state: &mut LoopState,
    ) -> Result<Result<(), String>, String> {
        if !self.table.connections.is_empty() {
            return Ok(Err("it has connections already".to_owned()));
        }
        let version = u32::try_from(from.number()?).map_err(|_| Unreadable("no version"))?;
        let mut own = Decoder::new(from.bytes()?);
        let (handler, name) = (&mut self.handler, &self.table.name);
        let restored = state.guard(name, || handler.restore(version, &mut own)).ok_or(PANICKED)?;
        if let Err(why) = restored {
            return Ok(Err(why.to_string()));
        }
        own.finish()?;
        let arriving = self.read_connections(version, from, received, state)?;
        self.arriving = Some(Box::new(self.watch(arriving, state)?));
        Ok(Ok(()))
    }

    /// Reads the connections, and has the handler read their sessions.
    fn read_connections(
        &mut self,
        version: u32,
        from: &mut Decoder<'_>,
        received: Vec<Received>,
        state: &mut LoopState,
    ) -> Result<Arriving<H::Session>, Unreadable> {
        let accounts = self.table.peers.read_accounts(from, state.turn.now)?;
        let (mut slots, mut sockets) = (HashSet::new(), received.into_iter());
        let (mut connections, mut usages) = (Vec::new(), Vec::new());
        for _ in 0..from.size()? {
            let mut conn = Connection::restore(from, state.turn.now)?;
            let id = conn.id;
            if !slots.insert(id.slot()) || id.number() > state.serials.last() {
                return Err(Unreadable("two connections are one"));
            }
            if !Token::connection(self.table.service, id).is_connection() {
                return Err(Unreadable("an id that no connection has"));
            }
            let gone = from.option(|from| Ok((from.flag()?, from.flag()?, from.size()?)))?;
            usages.push(Accounts::read(from, state.turn.now)?);
            let mut own = Decoder::new(from.bytes()?);
            let (handler, name) = (&mut self.handler, &self.table.name);
            let session = state.guard(name, || handler.restore_session(id, version, &mut own));
            let session = session.ok_or(PANICKED)??;
            own.finish()?;
            let stream = match gone {
                None => {
                    let socket = sockets.next().ok_or(Unreadable("a socket is missing"))?;
                    socket.into_stream().map_err(|_| Unreadable("no socket of a connection"))?
                }
                Some((was_open, outbound, reason)) => {
                    conn.reason =
                        *close_reason::ALL.get(reason).ok_or(Unreadable("an unknown reason"))?;
                    conn.flags.set(Flag::Outbound, outbound);
                    end(&mut conn, was_open);
                    Stream::layer(Failed)
                }
            };
            conn.runs_over(stream.traits());
            connections.push(Slot { conn, stream, session });
        }
        from.clone().finish()?;
        match sockets.next() {
            None => Ok(Arriving { connections, usages, accounts }),
            Some(_) => Err(Unreadable("a socket too many")),
        }
    }

    /// Has the selector watch them. Its events wait until the loop takes its next turn.
    fn watch(
        &self,
        mut arriving: Arriving<H::Session>,
        state: &LoopState,
    ) -> Result<Arriving<H::Session>, String> {
        let Some(registry) = &state.registry else { return Ok(arriving) };
        for number in 0..arriving.connections.len() {
            let slot = &mut arriving.connections[number];
            let token = Token::connection(self.table.service, slot.conn.id);
            if let Err(error) = slot.stream.register(registry, token.into()) {
                forget(&mut arriving.connections[..number], registry);
                return Err(format!("a socket cannot be watched: {error}"));
            }
        }
        Ok(arriving)
    }

    /// Another core cannot go on with its part of the service, so the old loop closes these as well. The handler
    /// has restored them, and hears of their end.
    pub(super) fn lose_arriving(&mut self, state: &mut LoopState) {
        let Some(arriving) = &mut self.arriving else { return };
        if let Some(registry) = &state.registry {
            forget(&mut arriving.connections, registry);
        }
        for Slot { conn, stream, .. } in &mut arriving.connections {
            if conn.stage < Stage::Ended {
                conn.reason = CloseReason::Upgrade;
                end(conn, true);
                *stream = Stream::layer(Failed);
            }
        }
    }

    pub(super) fn install_all(&mut self, state: &mut LoopState) {
        let Some(arriving) = self.arriving.take() else { return };
        let Arriving { connections, usages, accounts } = *arriving;
        let (now, counters) = (state.turn.now, state.counters(self.table.service));
        self.table.peers.charge_accounts(accounts, now, counters);
        for (slot, usage) in connections.iter().zip(usages) {
            let open = slot.conn.flags.has(Flag::Open);
            self.table.places.add();
            if open && !slot.conn.flags.has(Flag::Outbound) {
                self.table.peers.count(slot.conn.peer.get());
            }
            self.table.open += usize::from(slot.conn.stage == Stage::Open);
            state.counters(self.table.service).open += u64::from(open);
            self.table.backlog += slot.conn.output.backlog();
            self.table.kept += slot.kept();
            self.table.accounts.go_on(slot.conn.id, usage, state.turn.now);
        }
        let ids: Vec<_> = connections.iter().map(|slot| slot.conn.id).collect();
        let at = |slot: Slot<H::Session>| (slot.conn.id.slot(), slot);
        self.table.connections = connections.into_iter().map(at).collect::<Slab<_>>();
        let count = self.table.connections.len();
        self.table.connections.reserve(SLOTS_KEPT.saturating_sub(count));
        self.table.slots = ids.iter().map(|id| id.slot() + 1).max().unwrap_or(0);
        ids.into_iter().for_each(|id| self.table.take_up(id));
    }

    pub(super) fn tell_of_restored(&mut self, state: &mut LoopState) {
        let mut ids: Vec<ConnId> = self.table.everyone().map(|(id, _)| id).collect();
        ids.sort_unstable();
        for id in ids {
            // An earlier one may have had this one closed.
            if self.table.get(id).is_some_and(|slot| slot.conn.stage == Stage::Open) {
                self.call(id, true, state, H::on_restored);
                self.table.arm(id);
            }
        }
    }
}

/// The selector is not to watch them any more. Another process has them, too, so dropping them would not end that.
fn forget<S>(slots: &mut [Slot<S>], registry: &mio::Registry) {
    for slot in slots {
        let _ = slot.stream.deregister(registry);
    }
}

/// It could not come along: all that is left is to tell the handler.
fn end(conn: &mut Connection, was_open: bool) {
    conn.stage = Stage::Ended;
    conn.flags.set(Flag::Open, was_open);
    conn.flags.set(Flag::Failed, !was_open);
    conn.input.discard();
    conn.output.discard();
}

impl<S> Table<S> {
    /// Has done for the connection what is due, as far as nobody remembers it.
    fn take_up(&mut self, id: ConnId) {
        let conn = &self.connections[id.slot()].conn;
        if conn.stage == Stage::Ended {
            return self.enqueue_ending(id);
        }
        // The flush looks whether it is still held back, is to be asked for more, or has ended its side.
        self.mark_dirty(id.slot());
        self.arm(id);
        self.enqueue_if_work(id);
    }
}
