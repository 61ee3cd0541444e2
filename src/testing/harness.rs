use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io::ErrorKind;
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
use crate::net::stream::Stream;
use crate::net::{Address, Fault};
use crate::reactor::handle::{Mailbox, Shared};
use crate::reactor::loop_state::LoopState;
use crate::reactor::readiness::Readiness;
use crate::reactor::service::{ActiveService, AnyService, type_name_of};
use crate::reactor::table::Table;
use crate::reactor::token::Token;
use crate::reactor::turn::{Look, look_at_all};
use crate::reactor::{Counters, Handle};

/// Turns that one call may take before the handler is taken to run for ever.
pub(crate) const MOST_TURNS: usize = 10_000;

/// One client of a [`Harness`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Client(ConnId);

/// A handler with its service, in memory. Every call runs the loop until nothing is left to do,
/// unless it is run [by hand](Harness::by_hand).
///
/// To ask for a client that was [forgotten](Harness::forget) panics.
pub struct Harness<H: Handler> {
    service: ActiveService<H>,
    state: LoopState,
    scratch: Scratch,
    /// In the order of their arrival.
    clients: BTreeMap<ConnId, PeerAddress>,
    dialled: Rc<RefCell<Vec<(Address, SharedWire)>>>,
    adopted: Rc<RefCell<Vec<SharedWire>>>,
    handle: Handle<H::Message>,
    /// Events that one look at the selector has room for.
    room: usize,
    /// Whose event the last look gave last, where that filled it.
    looked_at: Option<ConnId>,
    /// The loop does not run by itself.
    by_hand: bool,
    /// Hooks may panic.
    panics: bool,
    /// The shutdown has begun for those that are here.
    shut_down: bool,
}

/// What the harness knows of one client.
pub(crate) struct PeerAddress {
    wire: SharedWire,
    closed: Option<CloseReason>,
}

impl<H: Handler> Harness<H> {
    /// A service with the default limits. It is told that it listens on `127.0.0.1:0`.
    pub fn new(handler: H) -> Self {
        Self::with_limits(handler, Limits::default())
    }

    /// A service with limits of your own. Those of newcomers (`max_connections`, `max_per_peer`)
    /// say nothing here, as [`connect`](Self::connect) does.
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

    /// From now on the loop runs only when [`turn`](Self::turn) says so, or
    /// [`advance`](Self::advance): what clients do falls between two turns of a loop that is busy,
    /// as it does in life.
    pub fn by_hand(mut self) -> Self {
        self.by_hand = true;
        self
    }

    /// From now on one look at the selector gives so many events at most, as where thousands are
    /// ready at once; the others wait for the next look.
    ///
    /// # Panics
    /// If that is none.
    pub fn with_events_per_look(mut self, most: usize) -> Self {
        assert!(most > 0, "a selector without room gives no event at all");
        self.room = most;
        self
    }

    /// From now on a panic in a hook is caught, as a reactor does, and counted. Without this it
    /// fails the test: it may well be one of the test's own assertions.
    pub fn catching_panics(mut self) -> Self {
        self.panics = true;
        self
    }

    /// One turn of the loop. False, and nothing happens, when there is nothing to do now.
    ///
    /// # Panics
    /// If a hook did, unless they [are caught](Self::catching_panics).
    pub fn turn(&mut self) -> bool {
        if self.state.is_ending() && !self.state.stopping {
            self.state.stopping = true;
            self.service.stop_listening();
        }
        if self.state.stopping && !self.shut_down && !self.service.holds_up() {
            self.shut_down = true;
            self.service.shut_down(&mut self.state);
        }
        let due = self.service.next_deadline().is_some_and(|next| next <= self.state.turn.now);
        let mut events = self.look().events;
        if due {
            let Ok(()) = look_at_all(self.service.sources(), || {
                let look = self.look();
                events += look.events;
                Ok::<_, Infallible>(look)
            });
        }
        if events == 0 && !due && !self.service.is_busy(&self.state) {
            return false;
        }
        // Time that the test itself took is not the handler's.
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

    /// A client connects. The limit of connections does not apply here, and as over a Unix
    /// socket, the client has no address.
    pub fn connect(&mut self) -> Client {
        let wire = Rc::new(RefCell::new(Wire { connected: true, ..Wire::default() }));
        let stream = Stream::layer(Pipe::new(Rc::clone(&wire)));
        let id = self.service.adopt(stream, None, &mut self.state);
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

    /// The client ends its side, as `nc -N` does; it still reads.
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

    /// From now on the client takes `room` more bytes of output and then no more; none lifts it.
    pub fn take_only(&mut self, client: Client, room: Option<usize>) {
        self.wire(client, |wire| {
            wire.room = room;
            wire.writable = true;
        });
    }

    /// From now on the client's stream takes up to `most` bytes of output more than it can send,
    /// and sends them when it can, as one under TLS does. Zero is a plain one again.
    pub fn hold(&mut self, client: Client, most: usize) {
        self.wire(client, |wire| wire.holds = most);
    }

    /// Bytes that its stream holds, taken and not sent.
    pub fn held(&self, client: Client) -> usize {
        self.peer(client).wire.borrow().held.len()
    }

    /// What the next reads from the client and the next writes to it do; after these they work
    /// without faults.
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

    /// What the client has got since it was last asked.
    pub fn sent(&mut self, client: Client) -> Vec<u8> {
        std::mem::take(&mut self.peer(client).wire.borrow_mut().outbound)
    }

    /// How often the loop has read from the client: system calls, were it a socket.
    pub fn reads(&self, client: Client) -> usize {
        self.peer(client).wire.borrow().reads
    }

    /// How often the loop has written to the client: system calls, were it a socket.
    pub fn writes(&self, client: Client) -> usize {
        self.peer(client).wire.borrow().writes
    }

    /// The client has been sent the end of output: nothing more will come.
    pub fn is_shut(&self, client: Client) -> bool {
        self.peer(client).wire.borrow().shut
    }

    /// The connection has broken, and the loop has been told: nothing more reaches the client, and
    /// what it sent before is all there is.
    pub fn is_broken(&self, client: Client) -> bool {
        self.peer(client).wire.borrow().told
    }

    /// Why the connection ended, once the handler has been told.
    pub fn closed(&self, client: Client) -> Option<CloseReason> {
        self.peer(client).closed
    }

    /// Gives back what is kept here of a client whose connection is gone. False, and nothing
    /// happens, while the loop still has it.
    pub fn forget(&mut self, client: Client) -> bool {
        let gone = self.service.table.get(client.0).is_none();
        if gone {
            self.clients.remove(&client.0);
        }
        gone
    }

    /// The connection's identity, as the handler knows it.
    pub fn id(&self, client: Client) -> ConnId {
        client.0
    }

    /// The handler's session of this client, while it is open.
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

    /// Lets time pass. Timers fire in order, each at its own moment.
    pub fn advance(&mut self, time: Duration) {
        let until = self.state.after(time);
        while let Some(next) = self.service.next_deadline().filter(|next| *next <= until) {
            self.state.turn.now = self.state.turn.now.max(next);
            self.settle();
        }
        self.state.turn.now = until;
        self.settle();
    }

    /// Lets time pass in one leap, as after a suspended machine: all that came due meanwhile
    /// fires at the end of it.
    pub fn jump(&mut self, time: Duration) {
        self.jump_with(time, |_| {});
    }

    /// As [`jump`](Self::jump), and `meanwhile` happens while the loop is not looking: when it
    /// does, both are there at once.
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
        self.service.mail();
        self.run();
    }

    /// Dials out from outside the handler, as [`Reactor::connect`](crate::Reactor::connect) does.
    /// The other side must [`answer`](Self::answer) or [`refuse`](Self::refuse).
    ///
    /// # Panics
    /// If a shutdown is under way.
    pub fn dial(&mut self) -> Client {
        let address = Address::Tcp(([127, 0, 0, 1], 0).into());
        let id = self.service.dial(&address, &mut self.state);
        let id = id.expect("nothing is dialled during a shutdown");
        let (_, wire) = self.dialled.borrow_mut().pop().expect("dialling makes a wire");
        self.know(id, wire);
        self.run();
        Client(id)
    }

    /// Where the handler has dialled since this was last asked. The other side must
    /// [`answer`](Self::answer) or [`refuse`](Self::refuse).
    pub fn dialled(&mut self) -> Vec<(Address, Client)> {
        let new = std::mem::take(&mut *self.dialled.borrow_mut());
        let client = |(address, wire)| Some((address, self.holder(wire)?));
        new.into_iter().filter_map(client).collect()
    }

    /// Stand-ins for the descriptors that the handler has adopted since this was last asked, which
    /// are not touched: what they are fed is input, and what is written to the output they are
    /// sent.
    pub fn adopted(&mut self) -> Vec<Client> {
        let new = std::mem::take(&mut *self.adopted.borrow_mut());
        new.into_iter().filter_map(|wire| self.holder(wire)).collect()
    }

    /// Makes the other side of a connection a client; one that has ended already is nobody's.
    fn holder(&mut self, wire: SharedWire) -> Option<Client> {
        let mut connections = self.service.table.connections.iter().map(|(_, slot)| slot);
        let this = |stream: &Stream| stream.downcast::<Pipe>().is_some_and(|pipe| pipe.is(&wire));
        let id = connections.find(|slot| this(&slot.stream))?.conn.id;
        self.know(id, wire);
        Some(Client(id))
    }

    /// The other side of an outbound connection accepts it.
    pub fn answer(&mut self, client: Client) {
        self.wire(client, |wire| {
            wire.connected = true;
            wire.writable = true;
        });
    }

    /// The connection fails with this error, while dialling or later.
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

    /// Whether a shutdown is under way, by whomever.
    pub fn is_stopping(&self) -> bool {
        self.state.stopping
    }

    /// What the loop has done so far.
    pub fn counters(&self) -> &Counters {
        &self.state.counters
    }

    /// Connections that the loop still knows, lingering ones too; timers that are still to come,
    /// its own deadlines too. Both are 0 when everybody is gone.
    pub fn left_over(&self) -> (usize, usize) {
        (self.service.table.connections.len(), self.service.table.timers.len())
    }

    /// Bytes of output that the loop keeps, of all connections together, because the clients have
    /// not taken them: after a turn that is all the output there is.
    pub fn unsent(&self) -> usize {
        self.service.table.backlog
    }

    /// As [`Reactor::set_max_total_output`](crate::Reactor::set_max_total_output).
    pub fn set_max_total_output(&mut self, bytes: usize) {
        self.state.max_total_output = bytes;
    }

    fn know(&mut self, id: ConnId, wire: SharedWire) {
        self.clients.insert(id, PeerAddress { wire, closed: None });
    }

    fn peer(&self, client: Client) -> &PeerAddress {
        self.clients.get(&client.0).expect("this client was forgotten")
    }

    fn wire(&mut self, client: Client, change: impl FnOnce(&mut Wire)) {
        change(&mut self.peer(client).wire.borrow_mut());
        self.run();
    }

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

    /// Delivers the edges that the pipes have raised, as the selector would: as many as it has
    /// room for, whoever was given one last behind the others.
    fn look(&mut self) -> Look {
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
        Look { events, full: events == self.room }
    }

    fn reap(&mut self) {
        for id in &self.service.table.ending {
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
