use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::memory_loop::{MemoryLoop, Wires};
use crate::connection::clock::nanos;
use crate::connection::connection::Stage;
use crate::connection::flags::Flag;
use crate::connection::{CloseReason, ConnId};
use crate::handler::Handler;
use crate::limits::Limits;
use crate::net::memory::{Pipe, SharedWire, Wire};
use crate::net::stream::Stream;
use crate::net::{Address, Fault, Listen};
use crate::reactor::Counters;
use crate::reactor::loop_state::LoopState;
use crate::reactor::peers::Peers;
use crate::reactor::readiness::Readiness;
use crate::reactor::reports::Inspect;
use crate::reactor::service::{ActiveService, AnyService, type_name_of};
use crate::reactor::table::Table;
use crate::reactor::token::Token;
use crate::reactor::turn::Fetched;

/// One client of a [`Harness`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Client(ConnId);

/// A [`Handler`] with its service, in memory. Each method that changes something then runs the loop
/// until nothing is left to do, unless the loop is run [by hand](Harness::by_hand).
///
/// There is no [`Handle`](crate::Handle) to it, since nothing wakes this loop. So let a handler that has
/// work done by a thread send it through a channel that it was given: the test receives what the
/// thread would, and [posts](Harness::post) its answer.
///
/// No other service is there. So `Context::hand_over` gives
/// [`Error::HandOver`](crate::Error::HandOver), a report tells of this service alone, which has no listener,
/// and both want a test with a [`Reactor`](crate::Reactor) and sockets.
///
/// # Panics
/// A method that is given a [`Client`] that was [forgotten](Harness::forget) panics, unless it can do
/// without what is kept of it.
pub struct Harness<H: Handler> {
    pub(super) inner: Loop<H>,
    /// Loops that have [handed on](Harness::upgrade), and still have a client that lingers.
    pub(super) former: Vec<Loop<H>>,
    /// What those have counted that are no more.
    pub(super) past: Counters,
    /// The service has a listener.
    pub(super) listens: bool,
    /// Where the handler has dialled, with our side of the connection.
    dialled: Rc<RefCell<Vec<(Address, SharedWire)>>>,
    /// Our sides of the connections that the handler has adopted.
    adopted: Rc<RefCell<Vec<SharedWire>>>,
}

pub(super) type Loop<H> = MemoryLoop<ActiveService<H>, Clients, <H as Handler>::Message>;

/// The clients, and the selector that watches them.
pub(super) struct Clients {
    /// In the order of their arrival.
    pub(super) peers: BTreeMap<ConnId, Peer>,
    /// How many events one look at the selector has room for.
    pub(super) room: usize,
    /// Whose event the last look gave last, if there was no room for more.
    looked_at: Option<ConnId>,
}

/// What the harness keeps of one client.
pub(super) struct Peer {
    /// Our side of the connection.
    wire: SharedWire,
    /// Why the connection ended, once it has.
    closed: Option<CloseReason>,
}

impl<H: Handler> Harness<H> {
    /// A service with the default limits. [`Handler::on_listening`] is called with `127.0.0.1:0`, then
    /// [`Handler::on_start`].
    pub fn new(handler: H) -> Self {
        Self::with_limits(handler, Limits::default())
    }

    /// A service with limits of your own. Those for newcomers, `max_connections`, `max_per_peer` and
    /// `peer_connect_rate`, do not apply to [`connect`](Self::connect).
    ///
    /// # Panics
    /// If the limits do not pass [`Limits::check`].
    pub fn with_limits(handler: H, limits: Limits) -> Self {
        let mut harness = Self::unstarted(handler, limits);
        harness.listens = true;
        harness.tell_of_listener();
        harness.start()
    }

    /// Tells the handler where it listens, if it does.
    pub(super) fn tell_of_listener(&mut self) {
        if self.listens {
            let address = Address::Tcp(([127, 0, 0, 1], 0).into());
            let MemoryLoop { service, state, .. } = &mut self.inner;
            service.call_service(state, |handler, cx| handler.on_listening(cx, &address));
        }
    }

    /// A service without a listener, as [`Reactor::add`](crate::Reactor::add) makes one for a
    /// [client](crate::client): [`Handler::on_listening`] is not called, only [`Handler::on_start`].
    ///
    /// # Panics
    /// If the limits do not pass [`Limits::check`].
    pub fn without_listener(handler: H, limits: Limits) -> Self {
        Self::unstarted(handler, limits).start()
    }

    /// Tells the handler that the loop runs, and runs it.
    fn start(mut self) -> Self {
        self.inner.service.start(&mut self.inner.state);
        self.inner.run();
        self
    }

    /// A service that was told nothing yet.
    pub(super) fn unstarted(handler: H, limits: Limits) -> Self {
        if let Err(error) = limits.check() {
            panic!("{error}");
        }
        let table = Table::new(0, type_name_of::<H>(), limits);
        let clients = Clients { peers: BTreeMap::new(), room: usize::MAX, looked_at: None };
        let service = |mailbox| ActiveService::new(handler, table, mailbox);
        let mut inner = MemoryLoop::new(clients, service);
        let dialled = Rc::new(RefCell::new(Vec::new()));
        let wires = Rc::clone(&dialled);
        inner.state.dial = Box::new(move |_, target| {
            let wire = Rc::new(RefCell::new(Wire::default()));
            wires.borrow_mut().push((target.address().clone(), Rc::clone(&wire)));
            Ok(target.over_plaintext(Stream::layer(Pipe::new(wire))))
        });
        let adopted = Rc::new(RefCell::new(Vec::new()));
        let wires = Rc::clone(&adopted);
        inner.state.adopt = Box::new(move |_, _| {
            let wire = Rc::new(RefCell::new(Wire { connected: true, ..Wire::default() }));
            wires.borrow_mut().push(Rc::clone(&wire));
            Ok(Stream::layer(Pipe::new(wire)))
        });
        let (former, past) = Default::default();
        Harness { inner, former, past, listens: false, dialled, adopted }
    }

    /// From now on the loop runs only in [`turn`](Self::turn) and [`advance`](Self::advance). So what
    /// several clients do can fall between two turns, as with a loop that is busy.
    pub fn by_hand(mut self) -> Self {
        self.inner.by_hand = true;
        self
    }

    /// From now on one look at the selector gives no more than `most` events, as when thousands of
    /// sockets are ready at once. The other events wait for the next look.
    ///
    /// # Panics
    /// If `most` is 0.
    pub fn with_events_per_look(mut self, most: usize) -> Self {
        assert!(most > 0, "a selector without room gives no event at all");
        self.inner.wires.room = most;
        self
    }

    /// From now on a panic in a hook is only caught and counted, as in a reactor. Without this it
    /// fails the test, since it may be one of the test's own assertions.
    pub fn catching_panics(mut self) -> Self {
        self.inner.panics = true;
        self
    }

    /// Runs one turn of the loop. False, and nothing happens, if there is nothing to do now.
    ///
    /// # Panics
    /// If a hook panicked, unless panics [are caught](Self::catching_panics).
    pub fn turn(&mut self) -> bool {
        let former = self.turn_former();
        self.inner.turn() || former
    }

    /// A client connects. The limits for newcomers do not apply, and the client has no address, as
    /// over a Unix socket.
    pub fn connect(&mut self) -> Client {
        self.admit(None, Wire::default(), |stream| stream)
    }

    /// As [`connect`](Self::connect), from this address, so that
    /// [`peer_rate`](Limits::peer_rate) applies.
    pub fn connect_from(&mut self, peer: SocketAddr) -> Client {
        self.admit(Some(peer), Wire::default(), |stream| stream)
    }

    /// A client connects whose stream has a handshake to do. Each step takes an event, which
    /// [`feed`](Self::feed) makes, and costs so much of a turn.
    #[doc(hidden)]
    pub fn connect_with_handshake(&mut self, steps: impl IntoIterator<Item = Duration>) -> Client {
        let steps = steps.into_iter().map(nanos).collect();
        self.admit(None, Wire { steps, ..Wire::default() }, |stream| stream)
    }

    /// A client connects through a listener like this one: what it is fed and what it is sent is what
    /// the layers make of it on the wire.
    ///
    /// # Panics
    /// If a layer fails for it.
    #[doc(hidden)]
    pub fn connect_through(&mut self, listen: &Listen) -> Client {
        let layers = listen.all_layers(Peers::are_limited(&self.inner.service.table.limits));
        self.admit(None, Wire::default(), |stream| {
            layers
                .iter()
                .fold(stream, |stream, layer| layer.accept(stream).expect("a layer failed"))
        })
    }

    /// A newcomer over this wire, under these layers.
    fn admit(
        &mut self,
        peer: Option<SocketAddr>,
        wire: Wire,
        layers: impl FnOnce(Stream) -> Stream,
    ) -> Client {
        let wire = Rc::new(RefCell::new(Wire { connected: true, ..wire }));
        let stream = layers(Stream::layer(Pipe::new(Rc::clone(&wire))));
        let id = self.inner.service.admit_unjudged(stream, peer, &mut self.inner.state);
        let id = id.expect("making the session panicked");
        self.know(id, wire);
        self.inner.run();
        Client(id)
    }

    /// The client sends these bytes.
    pub fn feed(&mut self, client: Client, bytes: impl AsRef<[u8]>) {
        self.wire(client, |wire| {
            wire.inbound.extend(bytes.as_ref());
            wire.readable = true;
        });
    }

    /// The client ends its side, as `nc -N` does. It still reads.
    pub fn end(&mut self, client: Client) {
        self.wire(client, |wire| {
            wire.end = true;
            wire.readable = true;
        });
    }

    /// The client resets the connection.
    pub fn reset(&mut self, client: Client) {
        self.refuse(client, ErrorKind::ConnectionReset);
    }

    /// From now on the client takes `room` more bytes of output and then no more; none is any number.
    pub fn take_only(&mut self, client: Client, room: Option<usize>) {
        self.wire(client, |wire| {
            wire.room = room;
            wire.writable = true;
        });
    }

    /// From now on the stream of the client takes up to `most` bytes of output more than the client
    /// takes, and holds them until it does, as TLS may. With 0 it is a plain stream again.
    pub fn hold(&mut self, client: Client, most: usize) {
        self.wire(client, |wire| wire.holds = most);
    }

    /// How many bytes the stream of the client [holds](Self::hold).
    pub fn held(&self, client: Client) -> usize {
        self.peer(client).wire.borrow().held.len()
    }

    /// Gives the faults of the next reads from the client and of the next writes to it, one for each.
    /// After these, reads and writes work again.
    pub fn disturb(
        &mut self,
        client: Client,
        reads: impl IntoIterator<Item = Fault>,
        writes: impl IntoIterator<Item = Fault>,
    ) {
        self.wire(client, |wire| {
            wire.read_faults.extend(reads);
            wire.write_faults.extend(writes);
        });
    }

    /// What the client has received since this was last called.
    pub fn sent(&mut self, client: Client) -> Vec<u8> {
        std::mem::take(&mut self.peer(client).wire.borrow_mut().outbound)
    }

    /// How often the loop has read from the client. With a socket these would be system calls.
    pub fn reads(&self, client: Client) -> usize {
        self.peer(client).wire.borrow().reads
    }

    /// How often the loop has written to the client. With a socket these would be system calls.
    pub fn writes(&self, client: Client) -> usize {
        self.peer(client).wire.borrow().writes
    }

    /// Whether the client has received the end of output: nothing more will come.
    pub fn is_shut(&self, client: Client) -> bool {
        self.peer(client).wire.borrow().shut
    }

    /// Whether the connection has broken and a read or write has told the loop. Then nothing more
    /// reaches the client, and nothing more comes from it.
    pub fn is_broken(&self, client: Client) -> bool {
        self.peer(client).wire.borrow().told
    }

    /// Why the connection ended, once the handler has been told; none before.
    pub fn closed(&self, client: Client) -> Option<CloseReason> {
        self.peer(client).closed
    }

    /// Frees what the harness keeps of a client whose connection is gone. False, and nothing happens,
    /// while the loop still has the connection.
    pub fn forget(&mut self, client: Client) -> bool {
        let gone = self.loops().all(|one| one.service.table.get(client.0).is_none());
        if gone {
            self.inner.wires.peers.remove(&client.0);
            self.former.iter_mut().for_each(|one| drop(one.wires.peers.remove(&client.0)));
        }
        gone
    }

    /// The identity of the client's connection, as the handler knows it.
    pub fn id(&self, client: Client) -> ConnId {
        client.0
    }

    /// The handler's session of this client; none unless the connection is open.
    pub fn session(&self, client: Client) -> Option<&H::Session> {
        let found = self.inner.service.table.get(self.id(client));
        found.filter(|slot| slot.conn.stage == Stage::Open).map(|slot| &slot.session)
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.inner.service.handler
    }

    /// The handler, to be changed.
    pub fn handler_mut(&mut self) -> &mut H {
        &mut self.inner.service.handler
    }

    /// Lets time pass. Timers and deadlines fire in order, each at its own moment.
    pub fn advance(&mut self, time: Duration) {
        self.former.iter_mut().for_each(|one| one.advance(time));
        self.inner.advance(time);
    }

    /// Lets time pass in one leap, as when a machine was suspended: all that came due meanwhile fires
    /// at the end of it.
    pub fn jump(&mut self, time: Duration) {
        self.jump_with(time, |_| {});
    }

    /// As [`jump`](Self::jump), and what `meanwhile` does happens while the loop does not run: when it
    /// runs again, it finds both at once.
    pub fn jump_with(&mut self, time: Duration, meanwhile: impl FnOnce(&mut Self)) {
        let by_hand = std::mem::replace(&mut self.inner.by_hand, true);
        meanwhile(self);
        self.inner.by_hand = by_hand;
        self.former.iter_mut().for_each(|one| one.jump(time));
        self.inner.jump(time);
    }

    /// Sets the time of day that [`wall_clock`](crate::ServiceContext::wall_clock) tells. It passes as
    /// the harness's time does. Until it is set, it is the system's.
    ///
    /// # Panics
    /// If the system's type cannot express a time so long ago.
    pub fn set_wall_clock(&mut self, time: SystemTime) {
        let passed = Duration::from_nanos(self.inner.state.turn.now - 1);
        self.inner.state.time_of_day = Some(time - passed);
    }

    /// Posts a message, as another thread would. False if it is refused, since a shutdown has come to
    /// its end.
    pub fn post(&mut self, message: H::Message) -> bool {
        self.inner.post(message)
    }

    /// Dials out from outside the handler, as [`Reactor::connect`](crate::Reactor::connect) does.
    /// [`answer`](Self::answer) or [`refuse`](Self::refuse) it then.
    ///
    /// # Panics
    /// If a shutdown is under way.
    pub fn dial(&mut self) -> Client {
        let address = Address::Tcp(([127, 0, 0, 1], 0).into());
        let id = self.inner.service.dial(&address.into(), &mut self.inner.state);
        let id = id.expect("nothing is dialled during a shutdown");
        let (_, wire) = self.dialled.borrow_mut().pop().expect("dialling makes a wire");
        self.know(id, wire);
        self.inner.run();
        Client(id)
    }

    /// Where the handler has dialled since this was last called. [`answer`](Self::answer) or
    /// [`refuse`](Self::refuse) each then. There is no TLS here: what a server is fed and sent is the
    /// plaintext.
    pub fn dialled(&mut self) -> Vec<(Address, Client)> {
        let new = std::mem::take(&mut *self.dialled.borrow_mut());
        let client = |(address, wire)| Some((address, self.holder(wire)?));
        new.into_iter().filter_map(client).collect()
    }

    /// One client for each pair of descriptors that the handler has adopted since this was last
    /// called. The descriptors themselves are not touched: what the client is fed stands for the
    /// input, and what it is sent for the output.
    pub fn adopted(&mut self) -> Vec<Client> {
        let new = std::mem::take(&mut *self.adopted.borrow_mut());
        new.into_iter().filter_map(|wire| self.holder(wire)).collect()
    }

    /// Makes our side of a connection a client; none if the connection has ended already.
    fn holder(&mut self, wire: SharedWire) -> Option<Client> {
        let mut connections = self.inner.service.table.connections.iter().map(|(_, slot)| slot);
        let this = |stream| {
            let mut down = std::iter::successors(Some(stream), |stream: &&Stream| stream.below());
            down.any(|stream| stream.downcast::<Pipe>().is_some_and(|pipe| pipe.is(&wire)))
        };
        let id = connections.find(|slot| this(&slot.stream))?.conn.id;
        self.know(id, wire);
        Some(Client(id))
    }

    /// Accepts a connection that was dialled.
    pub fn answer(&mut self, client: Client) {
        self.wire(client, |wire| {
            wire.connected = true;
            wire.writable = true;
        });
    }

    /// Has the connection fail with this error, while it is being dialled or later.
    pub fn refuse(&mut self, client: Client, error: ErrorKind) {
        self.wire(client, |wire| {
            wire.error = Some(error);
            (wire.readable, wire.writable) = (true, true);
        });
    }

    /// Begins a graceful shutdown.
    pub fn stop(&mut self) {
        self.inner.stop();
    }

    /// Whether a shutdown is under way, whoever asked for it.
    pub fn is_stopping(&self) -> bool {
        self.inner.state.stopping
    }

    /// What the loop has done so far.
    pub fn counters(&self) -> Counters {
        let mut all = self.inner.state.counted();
        self.former.iter().for_each(|one| all.add(&one.state.counted()));
        all.add(&self.past);
        all
    }

    /// How many connections the loop still has, lingering ones too, and how many timers are still to
    /// come, its own deadlines too. Both are 0 once all clients are gone.
    pub fn left_over(&self) -> (usize, usize) {
        let left = |table: &Table<H::Session>| (table.connections.len(), table.timers.len());
        let all = self.loops().map(|one| left(&one.service.table));
        all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// How many bytes of output the loop keeps because the clients have not taken them, of all
    /// connections together.
    pub fn unsent(&self) -> usize {
        self.loops().map(|one| one.service.table.backlog).sum()
    }

    /// How much memory the loop keeps of input that the handler has not taken, of all connections
    /// together.
    pub fn kept(&self) -> usize {
        self.loops().map(|one| one.service.table.kept).sum()
    }

    /// The part of [`kept`](Self::kept) that is this client's; none once its connection has ended.
    #[doc(hidden)]
    pub fn kept_of(&self, client: Client) -> Option<usize> {
        let slot = self.loops().find_map(|one| one.service.table.get(client.0))?;
        (slot.conn.stage != Stage::Ended).then(|| slot.kept())
    }

    /// As [`Reactor::set_limits`](crate::Reactor::set_limits).
    ///
    /// # Panics
    /// If the limits do not pass [`Limits::check`].
    pub fn set_limits(&mut self, limits: Limits) {
        if let Err(error) = limits.check() {
            panic!("{error}");
        }
        self.inner.service.change_limits(limits, &self.inner.state);
        self.inner.run();
    }

    /// As [`Reactor::set_max_total_input`](crate::Reactor::set_max_total_input).
    pub fn set_max_total_input(&mut self, bytes: usize) {
        self.inner.state.max_total_input = bytes;
    }

    /// As [`Reactor::set_max_total_output`](crate::Reactor::set_max_total_output).
    pub fn set_max_total_output(&mut self, bytes: usize) {
        self.inner.state.max_total_output = bytes;
    }

    /// As [`Reactor::set_accounting`](crate::Reactor::set_accounting).
    pub fn set_accounting(&mut self, on: bool) {
        self.inner.service.keep_accounts(on, self.inner.state.turn.now);
    }

    /// Keeps our side of a new connection.
    fn know(&mut self, id: ConnId, wire: SharedWire) {
        self.inner.wires.peers.insert(id, Peer { wire, closed: None });
    }

    /// All loops that there are, the one of today first.
    pub(super) fn loops(&self) -> impl Iterator<Item = &Loop<H>> {
        [&self.inner].into_iter().chain(&self.former)
    }

    fn peer(&self, client: Client) -> &Peer {
        let known = self.loops().find_map(|one| one.wires.peers.get(&client.0));
        known.expect("this client was forgotten")
    }

    /// Changes our side of a connection, and runs the loop.
    fn wire(&mut self, client: Client, change: impl FnOnce(&mut Wire)) {
        change(&mut self.peer(client).wire.borrow_mut());
        self.former.iter_mut().for_each(Loop::<H>::run);
        self.inner.run();
    }
}

impl<H: Handler> Wires<ActiveService<H>> for Clients {
    /// As many events as there is room for, beginning behind the client that had the last one.
    fn look(&mut self, service: &mut ActiveService<H>) -> Fetched {
        let behind = (self.looked_at.map_or(Unbounded, Excluded), Unbounded);
        let round = self.peers.range(behind).chain(&self.peers);
        let (mut events, mut last) = (0, None);
        for (id, peer) in round {
            let mut wire = peer.wire.borrow_mut();
            if wire.readable || wire.writable {
                let what = Readiness {
                    readable: std::mem::take(&mut wire.readable),
                    writable: std::mem::take(&mut wire.writable),
                    read_on: wire.end,
                    error: wire.error.is_some(),
                };
                drop(wire);
                service.ready(Token::connection(0, *id), what);
                events += 1;
                if events == self.room {
                    last = Some(*id);
                    break;
                }
            }
        }
        self.looked_at = last;
        Fetched { events, full: events == self.room }
    }

    /// Notes why connections ended, since their slots are freed.
    fn reap(&mut self, service: &mut ActiveService<H>, state: &mut LoopState) {
        let table = &service.table;
        let reason = |id: &ConnId| Some((*id, table.get(*id)?.conn.reason));
        let ending: Vec<_> = table.queues.ending.iter().filter_map(reason).collect();
        service.reap(state);
        for (id, reason) in ending {
            // The loop tells the handler of so many at once.
            let slot = service.table.get(id);
            let told = slot.is_none_or(|slot| !slot.conn.flags.has(Flag::Ending));
            if let Some(known) = self.peers.get_mut(&id).filter(|_| told) {
                known.closed.get_or_insert(reason);
            }
        }
        debug_assert_eq!(table_kept(&service.table), service.table.kept, "the counter is wrong");
    }
}

/// What the loop should have counted as kept.
fn table_kept<S>(table: &Table<S>) -> usize {
    let slots = table.connections.iter().map(|(_, slot)| slot);
    slots.filter(|slot| slot.conn.stage != Stage::Ended).map(|slot| slot.kept()).sum()
}

impl<H: Handler> fmt::Debug for Harness<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("clients", &self.inner.wires.peers.len())
            .finish_non_exhaustive()
    }
}
