use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connection::connection::Stage;
use crate::connection::input::Scratch;
use crate::connection::{CloseReason, ConnId};
use crate::handler::Handler;
use crate::limits::Limits;
use crate::net::memory::{Pipe, SharedWire, Wire};
use crate::net::proxy::Sending;
use crate::net::stream::Stream;
use crate::net::{Address, Fault};
use crate::reactor::handle::{Mailbox, Shared};
use crate::reactor::loop_state::LoopState;
use crate::reactor::readiness::Readiness;
use crate::reactor::service::{ActiveService, AnyService, type_name_of};
use crate::reactor::table::Table;
use crate::reactor::token::Token;
use crate::reactor::turn::{Fetched, fetch_all};
use crate::reactor::{Counters, Handle};

/// After so many turns in one call the handler is taken to keep the loop busy for ever.
pub(super) const MOST_TURNS: usize = 10_000;

/// One client of a [`Harness`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Client(ConnId);

/// A [`Handler`] with its service, in memory. Each method that changes something then runs the loop
/// until nothing is left to do, unless the loop is run [by hand](Harness::by_hand).
///
/// # Panics
/// A method that is given a [`Client`] that was [forgotten](Harness::forget) panics, unless it can do
/// without what is kept of it.
pub struct Harness<H: Handler> {
    service: ActiveService<H>,
    state: LoopState,
    scratch: Scratch,
    /// In the order of their arrival.
    clients: BTreeMap<ConnId, Peer>,
    /// Where the handler has dialled, with our side of the connection.
    dialled: Rc<RefCell<Vec<(Address, SharedWire)>>>,
    /// Our sides of the connections that the handler has adopted.
    adopted: Rc<RefCell<Vec<SharedWire>>>,
    handle: Handle<H::Message>,
    /// How many events one look at the selector has room for.
    room: usize,
    /// Whose event the last look gave last, if there was no room for more.
    looked_at: Option<ConnId>,
    /// The loop does not run by itself.
    by_hand: bool,
    /// Hooks may panic.
    panics: bool,
    /// The service has begun to shut down.
    shut_down: bool,
}

/// What the harness keeps of one client.
struct Peer {
    /// Our side of the connection.
    wire: SharedWire,
    /// Why the connection ended, once it has.
    closed: Option<CloseReason>,
}

impl<H: Handler> Harness<H> {
    /// A service with the default limits. [`Handler::on_listening`] is called with `127.0.0.1:0`.
    pub fn new(handler: H) -> Self {
        Self::with_limits(handler, Limits::default())
    }

    /// A service with limits of your own. Those for newcomers, `max_connections`, `max_per_peer` and
    /// `peer_connect_rate`, do not apply to [`connect`](Self::connect).
    ///
    /// # Panics
    /// If the limits do not pass [`Limits::check`].
    pub fn with_limits(handler: H, limits: Limits) -> Self {
        if let Err(error) = limits.check() {
            panic!("{error}");
        }
        let shared = Arc::new(Shared::default());
        let (mailbox, handle) = Mailbox::new(&shared);
        let mut state = LoopState::new(None, shared);
        let dialled = Rc::new(RefCell::new(Vec::new()));
        let wires = Rc::clone(&dialled);
        state.dial = Box::new(move |_, address| {
            let wire = Rc::new(RefCell::new(Wire::default()));
            wires.borrow_mut().push((address.clone(), Rc::clone(&wire)));
            Ok(Stream::layer(Pipe::new(wire)))
        });
        let adopted = Rc::new(RefCell::new(Vec::new()));
        let wires = Rc::clone(&adopted);
        state.adopt = Box::new(move |_, _| {
            let wire = Rc::new(RefCell::new(Wire { connected: true, ..Wire::default() }));
            wires.borrow_mut().push(Rc::clone(&wire));
            Ok(Stream::layer(Pipe::new(wire)))
        });
        let table = Table::new(0, type_name_of::<H>(), limits);
        let service = ActiveService::new(handler, table, mailbox);
        let (scratch, clients) = (Scratch::default(), BTreeMap::new());
        let mut harness = Harness {
            service,
            state,
            scratch,
            clients,
            dialled,
            adopted,
            handle,
            room: usize::MAX,
            looked_at: None,
            by_hand: false,
            panics: false,
            shut_down: false,
        };
        let address = Address::Tcp(([127, 0, 0, 1], 0).into());
        harness.service.call_service(&mut harness.state, |handler, cx| {
            handler.on_listening(cx, &address);
        });
        harness.run();
        harness
    }

    /// From now on the loop runs only in [`turn`](Self::turn) and [`advance`](Self::advance). So what
    /// several clients do can fall between two turns, as with a loop that is busy.
    pub fn by_hand(mut self) -> Self {
        self.by_hand = true;
        self
    }

    /// From now on one look at the selector gives no more than `most` events, as when thousands of
    /// sockets are ready at once. The other events wait for the next look.
    ///
    /// # Panics
    /// If `most` is 0.
    pub fn with_events_per_look(mut self, most: usize) -> Self {
        assert!(most > 0, "a selector without room gives no event at all");
        self.room = most;
        self
    }

    /// From now on a panic in a hook is only caught and counted, as in a reactor. Without this it
    /// fails the test, since it may be one of the test's own assertions.
    pub fn catching_panics(mut self) -> Self {
        self.panics = true;
        self
    }

    /// Runs one turn of the loop. False, and nothing happens, if there is nothing to do now.
    ///
    /// # Panics
    /// If a hook panicked, unless panics [are caught](Self::catching_panics).
    pub fn turn(&mut self) -> bool {
        if self.state.is_ending() && !self.state.stopping {
            self.state.stopping = true;
            self.service.stop_listening();
        }
        if self.state.stopping && !self.shut_down && !self.service.delays_shutdown() {
            self.shut_down = true;
            self.service.shut_down(&mut self.state);
        }
        let due = self.service.next_deadline().is_some_and(|next| next <= self.state.turn.now);
        let mut events = self.look().events;
        if due {
            let Ok(()) = fetch_all(self.service.sources(), || {
                let look = self.look();
                events += look.events;
                Ok::<_, Infallible>(look)
            });
        }
        if events == 0 && !due && !self.service.is_busy(&self.state) {
            return false;
        }
        // The time that the test itself took does not count as the handler's.
        self.state.turn.clock = Instant::now();
        self.service.work(&mut self.state, &mut self.scratch);
        self.reap();
        self.service.flush(&mut self.state);
        self.state.turn.arena.clear();
        self.reap();
        self.state.counters.turns += 1;
        assert!(self.panics || self.state.counters.panics == 0, "a hook of the handler panicked");
        true
    }

    /// A client connects. The limits for newcomers do not apply, and the client has no address, as
    /// over a Unix socket.
    pub fn connect(&mut self) -> Client {
        self.connect_with(None)
    }

    /// As [`connect`](Self::connect), from this address, so that
    /// [`peer_rate`](Limits::peer_rate) applies.
    pub fn connect_from(&mut self, peer: SocketAddr) -> Client {
        self.connect_with(Some(peer))
    }

    fn connect_with(&mut self, peer: Option<SocketAddr>) -> Client {
        let wire = Rc::new(RefCell::new(Wire { connected: true, ..Wire::default() }));
        let stream = Stream::layer(Pipe::new(Rc::clone(&wire)));
        let id = self.service.admit(stream, peer, &mut self.state);
        let id = id.expect("making the session panicked");
        self.know(id, wire);
        self.run();
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
        let gone = self.service.table.get(client.0).is_none();
        if gone {
            self.clients.remove(&client.0);
        }
        gone
    }

    /// The identity of the client's connection, as the handler knows it.
    pub fn id(&self, client: Client) -> ConnId {
        client.0
    }

    /// The handler's session of this client; none unless the connection is open.
    pub fn session(&self, client: Client) -> Option<&H::Session> {
        let found = self.service.table.get(self.id(client));
        found.filter(|slot| slot.conn.stage == Stage::Open).map(|slot| &slot.session)
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.service.handler
    }

    /// The handler, to be changed.
    pub fn handler_mut(&mut self) -> &mut H {
        &mut self.service.handler
    }

    /// Lets time pass. Timers and deadlines fire in order, each at its own moment.
    pub fn advance(&mut self, time: Duration) {
        let until = self.state.after(time);
        while let Some(next) = self.service.next_deadline().filter(|next| *next <= until) {
            self.state.turn.now = self.state.turn.now.max(next);
            self.settle();
        }
        self.state.turn.now = until;
        self.settle();
    }

    /// Lets time pass in one leap, as when a machine was suspended: all that came due meanwhile fires
    /// at the end of it.
    pub fn jump(&mut self, time: Duration) {
        self.jump_with(time, |_| {});
    }

    /// As [`jump`](Self::jump), and what `meanwhile` does happens while the loop does not run: when it
    /// runs again, it finds both at once.
    pub fn jump_with(&mut self, time: Duration, meanwhile: impl FnOnce(&mut Self)) {
        let by_hand = std::mem::replace(&mut self.by_hand, true);
        meanwhile(self);
        self.by_hand = by_hand;
        self.state.turn.now = self.state.after(time);
        self.run();
    }

    /// Posts a message, as another thread would.
    pub fn post(&mut self, message: H::Message) {
        // The mailbox lives as long as this harness, so it cannot be gone.
        let _ = self.handle.post(message);
        self.service.mark_mailbox();
        self.run();
    }

    /// Dials out from outside the handler, as [`Reactor::connect`](crate::Reactor::connect) does.
    /// [`answer`](Self::answer) or [`refuse`](Self::refuse) it then.
    ///
    /// # Panics
    /// If a shutdown is under way.
    pub fn dial(&mut self) -> Client {
        let address = Address::Tcp(([127, 0, 0, 1], 0).into());
        let id = self.service.dial(&address.into(), &mut self.state);
        let id = id.expect("nothing is dialled during a shutdown");
        let (_, wire) = self.dialled.borrow_mut().pop().expect("dialling makes a wire");
        self.know(id, wire);
        self.run();
        Client(id)
    }

    /// Where the handler has dialled since this was last called. [`answer`](Self::answer) or
    /// [`refuse`](Self::refuse) each then.
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
        let mut connections = self.service.table.connections.iter().map(|(_, slot)| slot);
        let this = |stream: &Stream| {
            let dialled = stream.downcast().map_or(stream, Sending::below);
            dialled.downcast::<Pipe>().is_some_and(|pipe| pipe.is(&wire))
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
        self.state.stop();
        self.run();
    }

    /// Whether a shutdown is under way, whoever asked for it.
    pub fn is_stopping(&self) -> bool {
        self.state.stopping
    }

    /// What the loop has done so far.
    pub fn counters(&self) -> &Counters {
        &self.state.counters
    }

    /// How many connections the loop still has, lingering ones too, and how many timers are still to
    /// come, its own deadlines too. Both are 0 once all clients are gone.
    pub fn left_over(&self) -> (usize, usize) {
        (self.service.table.connections.len(), self.service.table.timers.len())
    }

    /// How many bytes of output the loop keeps because the clients have not taken them, of all
    /// connections together.
    pub fn unsent(&self) -> usize {
        self.service.table.backlog
    }

    /// As [`Reactor::set_max_total_output`](crate::Reactor::set_max_total_output).
    pub fn set_max_total_output(&mut self, bytes: usize) {
        self.state.max_total_output = bytes;
    }

    /// Keeps our side of a new connection.
    fn know(&mut self, id: ConnId, wire: SharedWire) {
        self.clients.insert(id, Peer { wire, closed: None });
    }

    fn peer(&self, client: Client) -> &Peer {
        self.clients.get(&client.0).expect("this client was forgotten")
    }

    /// Changes our side of a connection, and runs the loop.
    fn wire(&mut self, client: Client, change: impl FnOnce(&mut Wire)) {
        change(&mut self.peer(client).wire.borrow_mut());
        self.run();
    }

    /// Runs the loop, unless it is run by hand.
    fn run(&mut self) {
        if !self.by_hand {
            self.settle();
        }
    }

    /// Takes turns until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..MOST_TURNS {
            if !self.turn() {
                return;
            }
        }
        panic!("the handler keeps the loop busy for ever");
    }

    /// Delivers the events that the pipes have raised, as the selector would: as many as it has room
    /// for, beginning behind the client that had the last one.
    fn look(&mut self) -> Fetched {
        let behind = (self.looked_at.map_or(Unbounded, Excluded), Unbounded);
        let round = self.clients.range(behind).chain(&self.clients);
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
                self.service.ready(Token::connection(0, *id), what);
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

    /// Reaps, and notes why connections ended, since their slots are freed.
    fn reap(&mut self) {
        for id in &self.service.table.queues.ending {
            let known = self.clients.get_mut(id);
            if let (Some(known), Some(slot)) = (known, self.service.table.get(*id)) {
                known.closed.get_or_insert(slot.conn.reason);
            }
        }
        self.service.reap(&mut self.state);
    }
}

impl<H: Handler> fmt::Debug for Harness<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness").field("clients", &self.clients.len()).finish_non_exhaustive()
    }
}
