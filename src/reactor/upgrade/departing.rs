//! The old side: what goes, and what becomes of the rest once it has gone.

use std::ops::DerefMut;
use std::panic::{AssertUnwindSafe, catch_unwind};

use slab::Slab;

use super::{Going, Listening, Succession};
use crate::connection::connection::{Connection, Stage};
use crate::connection::flags::Flag;
use crate::connection::{CloseReason, ConnId, Decoder, Encoder, Extent};
use crate::handler::{Farewell, Handler, ServiceContext};
use crate::net::passed::{Passed, Received};
use crate::reactor::accepting::Listener;
use crate::reactor::loop_state::LoopState;
use crate::reactor::peers::Peers;
use crate::reactor::service::{ActiveService, AnyService};
use crate::reactor::table::{Slot, Table};

/// What a loop has written down of its services.
pub(crate) struct Frozen {
    pub(crate) parcel: Encoder,
    /// What goes of each of them.
    pub(crate) going: Vec<Option<Going>>,
}

/// Writes down all services, between two turns. They go on as if that had not been.
pub(crate) fn freeze<S>(services: &mut [S], state: &mut LoopState) -> Frozen
where
    S: DerefMut<Target: AnyService>,
{
    take_posted(services, state);
    write_down(services, state)
}

/// Has the handlers take the messages that were posted before. Says how many there were.
pub(super) fn take_posted<S>(services: &mut [S], state: &mut LoopState) -> u64
where
    S: DerefMut<Target: AnyService>,
{
    services.iter_mut().map(|service| service.take_posted(state)).sum()
}

/// Writes down all services without a look at their messages.
pub(super) fn write_down<S>(services: &mut [S], state: &mut LoopState) -> Frozen
where
    S: DerefMut<Target: AnyService>,
{
    let mut parcel = Encoder::default();
    // Those are let in later and are served here, under numbers that nobody else is to have.
    let accepted = services.iter().map(|service| service.accepted_before()).sum();
    parcel.put_number(state.serials.last_after(accepted));
    let mut going = Vec::new();
    for service in services {
        parcel.put_text(service.name());
        let start = parcel.as_bytes().len();
        parcel.put_flag(true);
        // How many connections go and how long the record is, which are known at its end. It is written in its
        // place: it may be as large as all unsent output.
        let [count, length] = [(); 2].map(|()| parcel.put_number_later());
        let record = parcel.as_bytes().len();
        let goes = service.save(state, &mut parcel);
        match (&goes, parcel.as_bytes().len() - record) {
            (None, _) | (_, 0) => {
                parcel.truncate(start);
                parcel.put_flag(false);
            }
            (Some(goes), bytes) => {
                parcel.set_number(count, goes.connections.len() as u64);
                parcel.set_number(length, bytes as u64);
            }
        }
        going.push(goes);
    }
    Frozen { parcel, going }
}

/// Whether the handler knows of it and has not been told of its end.
fn is_known(conn: &Connection) -> bool {
    let dialled = conn.stage == Stage::Connecting && !conn.flags.has(Flag::Handshaking);
    conn.flags.has(Flag::Open) || conn.flags.has(Flag::Failed) || dialled
}

impl Listener {
    /// Where it listens, and what its socket goes by.
    fn passed(&self) -> Option<Listening<'_>> {
        let (socket, path) = self.socket.passed()?;
        Some(Listening { address: self.address().clone(), datagrams: false, socket, path })
    }

    /// Its path is this loop's from now on, and has the mode that is asked for here.
    fn own(&mut self) {
        self.socket.own(true);
        if let Err(error) = self.socket.set_mode(self.unix_mode()) {
            log::warn!("the mode of {} stays as it is: {error}", self.address());
        }
    }
}

/// What of a service is written down, here or by its parts. Whoever adds something decides what becomes of it.
fn written<H: Handler>(service: &ActiveService<H>) -> (&Slab<Slot<H::Session>>, &Peers) {
    let ActiveService {
        // It writes down what it wants.
        handler: _,
        table,
        // These were offered before, and what was posted is taken before.
        listeners: _,
        mailbox: _,
        slow_hooks: _,
        arriving: _,
        gone: _,
    } = service;
    let Table {
        service: _,
        name: _,
        limits: _,
        connections,
        peers,
        // With each connection.
        accounts: _,
        // What is due, and sums: found out again.
        slots: _,
        queues: _,
        timers: _,
        metered: _,
        open: _,
        places: _,
        backlog: _,
        kept: _,
        // Those that leave do not go, and what is about to end does not go over.
        leaving: _,
        kept_open: _,
        retired: _,
    } = table;
    (connections, peers)
}

impl<S> Slot<S> {
    fn goes(&self) -> bool {
        self.conn.is_portable() && self.stream.passed().is_some()
    }
}

impl<H: Handler> ActiveService<H> {
    /// Asks the handler for something that it must not change anything for. None if it panics.
    fn ask<R>(
        &mut self,
        state: &mut LoopState,
        hook: impl FnOnce(&H, &ServiceContext<'_, H::Session>) -> R,
    ) -> Option<R> {
        let cx = ServiceContext::new(&mut self.table, state);
        let outcome = catch_unwind(AssertUnwindSafe(|| hook(&self.handler, &cx)));
        state.unless_panicked(outcome, &self.table.name)
    }

    /// Writes one connection down, with its session.
    fn save_one(
        &mut self,
        id: ConnId,
        goes: bool,
        state: &mut LoopState,
        to: &mut Encoder,
    ) -> Option<()> {
        // What it runs over is lent, and the session is the handler's to write down.
        let Slot { conn, stream: _, session: _ } = &self.table.connections[id.slot()];
        conn.save(&state.turn.arena, state.turn.now, to);
        to.put_option((!goes).then_some(conn), |to, conn| {
            let reason =
                if conn.stage < Stage::Leaving { CloseReason::Upgrade } else { conn.reason };
            to.put_flag(conn.flags.has(Flag::Open));
            to.put_flag(conn.flags.has(Flag::Outbound));
            to.put_number(reason.index() as u64);
        });
        self.table.accounts.save(id, state.turn.now, to);
        let mut saved = Encoder::default();
        self.ask(state, |handler, cx| {
            if let Some(session) = cx.session_of(id) {
                handler.save_session(cx, id, session, &mut saved);
            }
        })?;
        to.put_bytes(saved.as_bytes());
        Some(())
    }

    /// Another loop goes on with the connection: forgets it, and tells nobody.
    fn let_go(&mut self, id: ConnId, state: &mut LoopState) {
        let Some(slot) = self.table.get(id) else { return };
        let backlog = slot.conn.output.backlog();
        self.table.backlog -= backlog;
        self.table.open -= 1;
        self.uncount(id, state);
        self.table.leave_line(id);
        let Some((_, mut stream)) = self.table.take_out(id, state) else { return };
        // The selector would go on to watch a socket that another process has, too.
        if let Some(registry) = &state.registry
            && let Err(error) = stream.deregister(registry)
        {
            log::debug!("{}: {id} is watched although it has gone: {error}", self.table.name);
        }
        state.freed += 1;
    }

    /// It does not count here any more.
    fn uncount(&mut self, id: ConnId, state: &mut LoopState) {
        let conn = &self.table.connections[id.slot()].conn;
        self.table.peers.remove(conn);
        self.table.places.free();
        state.counters(self.table.service).open -= 1;
    }

    /// The new handler is told of the end of one that could not go: here nobody is.
    pub(in crate::reactor) fn dismiss(&mut self, id: ConnId, state: &mut LoopState) {
        let Some(slot) = self.table.get_mut(id) else { return };
        let (stage, was_open) = (slot.conn.stage, slot.conn.flags.has(Flag::Open));
        if was_open {
            self.uncount(id, state);
        } else {
            self.table.places.free();
        }
        let conn = &mut self.table.connections[id.slot()].conn;
        conn.flags.set(Flag::Open, false);
        conn.flags.set(Flag::Failed, false);
        match stage {
            Stage::Connecting => self.table.end(id, CloseReason::Upgrade),
            Stage::Open => self.farewell(id, Farewell::Upgrade, CloseReason::Upgrade, state),
            // It is on its way out.
            Stage::Leaving | Stage::Closing | Stage::Lingering | Stage::Ended => {}
        }
    }

    /// Nobody goes on with the connections: all are closed, as at a shutdown, and told why.
    fn close_for_upgrade(&mut self, state: &mut LoopState) {
        for id in self.table.ids() {
            match self.table.connections[id.slot()].conn.stage {
                Stage::Open => self.farewell(id, Farewell::Upgrade, CloseReason::Upgrade, state),
                _ => self.table.close(id, CloseReason::Upgrade, state),
            }
        }
    }
}

impl<H: Handler> Succession for ActiveService<H> {
    fn take_posted(&mut self, state: &mut LoopState) -> u64 {
        // No more than wait now: others may post meanwhile.
        let waiting = self.mailbox.inbox.waiting();
        for taken in 0..waiting {
            let Some(message) = self.mailbox.next() else { return taken };
            self.call_service(state, |handler, cx| handler.on_message(cx, message));
        }
        waiting
    }

    fn awaited(&self) -> usize {
        self.table.places.awaited()
    }

    fn accepted_before(&self) -> usize {
        let left = self.listeners.iter().map(|(_, listener)| listener.socket.left());
        self.awaited() + left.sum::<usize>()
    }

    fn save(&mut self, state: &mut LoopState, to: &mut Encoder) -> Option<Going> {
        if self.table.retired {
            // It is on its way out.
            return None;
        }
        let saved = self.ask(state, |handler, cx| handler.save(cx))??;
        if saved.extent == Extent::Nobody {
            return Some(Going::NOBODY);
        }
        let together = saved.extent == Extent::Together;
        to.put_number(saved.version.into());
        to.put_bytes(saved.state.as_bytes());
        let (connections, peers) = written(self);
        peers.save(state.is_first_core(), state.turn.now, to);
        let mut ids = self.table.ids();
        ids.sort_unstable();
        let slot = |id: &ConnId| &connections[id.slot()];
        let (connections, rest): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| slot(id).goes());
        let known = rest.into_iter().filter(|id| together && is_known(&slot(id).conn));
        let going = Going { absent: known.collect(), connections, together };
        to.put_number((going.connections.len() + going.absent.len()) as u64);
        for id in &going.connections {
            self.save_one(*id, true, state, to)?;
        }
        for id in &going.absent {
            self.save_one(*id, false, state, to)?;
        }
        Some(going)
    }

    fn passed(&self, going: &Going) -> Vec<Passed<'_>> {
        let stream = |id: &ConnId| self.table.get(*id)?.stream.passed();
        going.connections.iter().filter_map(stream).collect()
    }

    fn leave(&mut self, going: Option<Going>, state: &mut LoopState) {
        let Some(Going { connections, absent, together }) = going else {
            return self.close_for_upgrade(state);
        };
        connections.into_iter().for_each(|id| self.let_go(id, state));
        absent.into_iter().for_each(|id| self.dismiss(id, state));
        if together {
            self.table.timers.forget_service();
            self.gone = true;
        } else {
            self.call_service(state, H::on_handed_on);
        }
    }

    fn listening(&self) -> Vec<Listening<'_>> {
        self.listeners.iter().filter_map(|(_, listener)| listener.passed()).collect()
    }

    fn give_up_listening(&mut self, state: &mut LoopState) {
        // Those stay that have no socket any more: somebody may wait there who was let in before.
        self.listeners.retain(|_, listener| {
            let goes = listener.passed().is_some();
            if goes {
                listener.socket.own(false);
                listener.deregister(state);
                listener.disarm(&mut self.table.timers);
            } else {
                // Where numbers are kept for them.
                listener.keep_newcomers();
            }
            !goes
        });
    }

    fn own_listeners(&mut self) {
        self.listeners.iter_mut().for_each(|(_, listener)| listener.own());
    }

    fn restore(
        &mut self,
        from: &mut Decoder<'_>,
        received: Vec<Received>,
        state: &mut LoopState,
    ) -> Result<Result<(), String>, String> {
        self.restore_all(from, received, state)
    }

    fn install(&mut self, state: &mut LoopState) {
        self.install_all(state);
    }

    fn lose_restored(&mut self, state: &mut LoopState) {
        self.lose_arriving(state);
    }

    fn tell_restored(&mut self, state: &mut LoopState) {
        self.tell_of_restored(state);
    }
}
