//! The reactor and its public methods; what a turn does is in `turn`.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Waker};

use super::fairness::FIRST_EVENTS;
use super::for_cores::Seed;
use super::handle::{Mailbox, Shared};
use super::loop_state::LoopState;
use super::removing::Removal;
use super::service::AnyService;
use super::shutdown::Phase;
#[cfg(feature = "signals")]
use super::signals::Signals;
use super::token::{MOST_SERVICES, Token};
use super::{Counters, Exit, Service};
use crate::connection::ConnId;
use crate::connection::input::Scratch;
use crate::error::Error;
use crate::handler::Handler;
use crate::limits::{Limits, SHUTDOWN_TIMEOUT};
use crate::net::{Address, ToConnect, ToListen};

/// Sources of events that belong to no service: the waker and the signals.
pub(super) const OWN_SOURCES: usize = 2;

/// The loop: one thread, one selector, any number of services.
///
/// ```text
///        +---------------------------- one turn ----------------------------+
/// wait ->| accept, read -> frame lines -> handler -> timers -> messages ->   |-> wait
/// (epoll)|                                             flush (one write each) |
///        +-------------------------------------------------------------------+
/// ```
///
/// The lifetime is that of what the handlers borrow; it is `'static` if they own all they use.
///
/// A reactor stays on the thread that made it, since its handlers may hold what no other thread may
/// touch. For one on another thread, make it there, and let that thread send a [`Service`] or a
/// [`Handle`](crate::Handle) of it back:
///
/// ```
/// use std::sync::mpsc::channel;
/// use reactor::{Callbacks, Error, Exit, Reactor};
///
/// let (tell, told) = channel();
/// let running = std::thread::spawn(move || -> Result<Exit, Error> {
///     let mut reactor = Reactor::new()?;
///     let _ = tell.send(reactor.listen("127.0.0.1:0", Callbacks::new())?);
///     reactor.run()
/// });
/// // An error on the way to the loop ends the thread, and with that the channel.
/// if let Ok(service) = told.recv() {
///     println!("try: nc 127.0.0.1 {}", service.port());
///     service.handle().stop();
/// }
/// let exit = running.join().expect("no panic")?;
/// # assert_eq!(exit, Exit::Clean);
/// # Ok::<(), Error>(())
/// ```
///
/// Moving it there is what the compiler refuses, with a message that begins with this remedy:
///
/// ```compile_fail,E0277
/// let mut reactor = reactor::Reactor::new().unwrap();
/// std::thread::spawn(move || reactor.run());
/// ```
///
/// **Changes while it runs.** [`run`](Self::run) borrows the reactor. To change limits, listeners and services
/// meanwhile, either call [`turn`](Self::turn) in a loop of your own and make the changes between two turns,
/// or run [`Cores::new(1)`](crate::Cores::new), which a [`Remote`](crate::Remote) changes from any thread.
///
/// What it has to say it logs through the crate
/// `log`; without a logger, the warning about callbacks that block goes unseen.
pub struct Reactor<'h> {
    /// Before all others that are not `Send`, so that what the compiler says of it comes first.
    _not_send: PhantomData<*const MakeTheReactorOnTheThreadThatRunsIt>,
    /// The selector: epoll or kqueue.
    pub(super) poll: Poll,
    /// What the last wait gave; in use only until it is dispatched.
    pub(super) events: Events,
    /// The last wait filled the buffer: there may be more, of which a foreign loop that watches
    /// our descriptor under edge triggers would not hear.
    pub(super) full: bool,
    /// A token has its service's place in this list, so it never changes.
    pub(crate) services: Vec<Box<dyn AnyService + 'h>>,
    /// Services whose `on_start` is still to be called.
    pub(super) unstarted: VecDeque<usize>,
    /// Services that are being removed.
    pub(super) removals: Vec<Removal>,
    /// Free places, of services that were removed.
    pub(super) vacant: Vec<usize>,
    /// What the services share. Apart from them, so that each may be lent it while it works.
    pub(crate) state: LoopState,
    /// The buffer that all connections are read into.
    pub(super) scratch: Scratch,
    pub(super) shutdown_timeout: Duration,
    /// How far the shutdown is.
    pub(super) phase: Phase,
    #[cfg(feature = "signals")]
    pub(super) signals: Signals,
}

/// Its name is what who moves a reactor to another thread is to read.
struct MakeTheReactorOnTheThreadThatRunsIt;

impl<'h> Reactor<'h> {
    /// Makes a reactor without services.
    ///
    /// # Errors
    /// [`Error::Io`] when the system gives no selector (out of descriptors).
    pub fn new() -> Result<Self, Error> {
        Ok(Reactor::grow(Reactor::seed()?))
    }

    /// What it is made of, in this thread or in another one.
    pub(crate) fn seed() -> Result<Seed, Error> {
        let poll = Poll::new().map_err(Error::io("cannot make a selector"))?;
        let waker = Waker::new(poll.registry(), Token::WAKER.into())
            .map_err(Error::io("cannot make a waker"))?;
        let registry = poll.registry().try_clone().map_err(Error::io("cannot use the selector"))?;
        Ok(Seed { poll, registry, shared: Arc::new(Shared::new(waker)) })
    }

    /// Makes it.
    pub(crate) fn grow(Seed { poll, registry, shared }: Seed) -> Self {
        Reactor {
            _not_send: PhantomData,
            poll,
            events: Events::with_capacity(FIRST_EVENTS),
            full: false,
            services: Vec::new(),
            unstarted: VecDeque::new(),
            removals: Vec::new(),
            vacant: Vec::new(),
            state: LoopState::new(Some(Rc::new(registry)), shared),
            scratch: Scratch::default(),
            shutdown_timeout: SHUTDOWN_TIMEOUT,
            phase: Phase::Running,
            #[cfg(feature = "signals")]
            signals: Signals::default(),
        }
    }

    /// Serves a protocol at an address, with the default [`Limits`]. Port 0 asks for a free
    /// port; [`Service::address`] has the real one. A [`Listen`](crate::Listen) says more than an
    /// address: who may come. The name of a [host](crate::Host) is looked up, which blocks, and
    /// listened on at all its addresses.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Lookup`], [`Error::Listen`] (with the remedy),
    /// [`Error::TooManyServices`], [`Error::ShuttingDown`]. The reactor goes on as if it had not
    /// been asked.
    pub fn listen<H>(
        &mut self,
        address: impl ToListen,
        handler: H,
    ) -> Result<Service<H::Message>, Error>
    where
        H: Handler + 'h,
    {
        self.listen_with(address, handler, Limits::default())
    }

    /// As [`listen`](Self::listen), with limits of your own.
    ///
    /// # Errors
    /// Those of `listen`, and [`Error::Limit`].
    pub fn listen_with<H>(
        &mut self,
        address: impl ToListen,
        handler: H,
        limits: Limits,
    ) -> Result<Service<H::Message>, Error>
    where
        H: Handler + 'h,
    {
        let listen = address.to_listen()?;
        let mut service = self.add(handler, limits)?;
        match self.listen_at(service.index, listen) {
            Ok(bound) => service.address = Some(bound.local),
            Err(error) => {
                self.vacate(service.index);
                return Err(error);
            }
        }
        Ok(service)
    }

    /// Adds a handler without a listener: for outbound connections alone, or to give it several
    /// listeners with [`bind`](Self::bind).
    ///
    /// # Errors
    /// [`Error::Limit`], [`Error::TooManyServices`], [`Error::ShuttingDown`].
    pub fn add<H>(&mut self, handler: H, limits: Limits) -> Result<Service<H::Message>, Error>
    where
        H: Handler + 'h,
    {
        let (mailbox, handle) = Mailbox::new(&self.state.shared);
        let index = self.add_shared(handler, limits, None, mailbox)?;
        Ok(Service { index, address: None, handle })
    }

    /// The place of the next service, if there may be one.
    pub(crate) fn next_index(&self) -> Result<usize, Error> {
        self.may_begin()?;
        match self.vacant.last().copied().unwrap_or(self.services.len()) {
            MOST_SERVICES.. => Err(Error::TooManyServices),
            index => Ok(index),
        }
    }

    /// Puts a service into that place.
    pub(crate) fn put(&mut self, index: usize, service: Box<dyn AnyService + 'h>) {
        self.unstarted.push_back(index);
        match self.vacant.pop() {
            None => self.services.push(service),
            Some(place) => self.services[place] = service,
        }
    }

    /// Where the service of a key is.
    pub(crate) fn place<M>(&self, service: &Service<M>) -> Result<usize, Error> {
        let entry = self.state.services.get(service.index);
        let identity = entry.and_then(|entry| entry.identity.as_ref());
        let there = identity == Some(&service.handle.identity());
        if there { Ok(service.index) } else { Err(Error::Removed) }
    }

    /// Gives a service one more listener: the same handler, connections and limits. Says where
    /// it listens: the addresses of a [host](crate::Host) are
    /// [`as_sockets`](Address::as_sockets) of what it gives.
    ///
    /// # Errors
    /// Those of [`listen`](Self::listen), [`Error::Datagrams`] and [`Error::Removed`].
    pub fn bind<M>(
        &mut self,
        service: &Service<M>,
        address: impl ToListen,
    ) -> Result<Address, Error> {
        let place = self.place(service)?;
        let listen = address.to_listen()?;
        self.listen_at(place, listen).map(|bound| bound.local)
    }

    /// Names a service in the log, and for those that hand connections over to it.
    /// Until then it goes by its handler's type, which two services may have in common; so name it
    /// before it is [bound](Self::bind). Nothing happens if it was [removed](Self::remove).
    pub fn set_name<M>(&mut self, service: &Service<M>, name: impl Into<String>) {
        if let Ok(place) = self.place(service) {
            self.name_service(place, name.into());
        }
    }

    /// What a service goes by in the log; empty if it was [removed](Self::remove).
    pub fn name<M>(&self, service: &Service<M>) -> &str {
        self.place(service).map_or("", |place| self.services[place].name())
    }

    /// Dials out in the name of a service, with a default session; see
    /// [`ServiceContext::connect`](crate::ServiceContext::connect). That one takes a session: a
    /// service's key does not know their type, so a handler that needs another one dials in
    /// [`on_start`](Handler::on_start).
    ///
    /// # Errors
    /// [`Error::Address`] where text is no address, [`Error::Datagrams`], [`Error::Removed`],
    /// [`Error::ShuttingDown`]. Of a target that does not answer the handler learns from its `on_close`.
    pub fn connect<M>(
        &mut self,
        service: &Service<M>,
        target: impl ToConnect,
    ) -> Result<ConnId, Error> {
        let place = self.place(service)?;
        self.services[place].dial(&target.to_connect()?, &mut self.state)
    }

    /// Makes a connection of two descriptors in the name of a service, with a default session; see
    /// [`ServiceContext::adopt`](crate::ServiceContext::adopt).
    ///
    /// # Errors
    /// [`Error::Datagrams`], [`Error::Removed`], [`Error::ShuttingDown`].
    pub fn adopt<M>(
        &mut self,
        service: &Service<M>,
        input: impl AsFd,
        output: impl AsFd,
    ) -> Result<ConnId, Error> {
        let place = self.place(service)?;
        self.services[place].adopt(input.as_fd(), output.as_fd(), &mut self.state)
    }

    /// Runs until a handler, a [`Handle`](crate::Handle) or a signal stops it.
    ///
    /// # Errors
    /// [`Error::Io`] when the selector fails.
    pub fn run(&mut self) -> Result<Exit, Error> {
        loop {
            if let Some(exit) = self.exit() {
                return Ok(exit);
            }
            self.turn(None)?;
        }
    }

    /// One turn: waits until something is ready, for `timeout` at most (none: as long as it
    /// takes), then does what is due, within the budgets of [`Limits`].
    ///
    /// A foreign loop watches [`as_raw_fd`](AsRawFd::as_raw_fd) for input, wakes up at
    /// [`next_deadline`](Self::next_deadline) at the latest, and calls this with a timeout of
    /// zero. If it minds only the descriptor, timers come late and leftovers of a busy turn wait
    /// for the next event.
    ///
    /// A signal does not end the wait. Another thread ends it with a [`Handle`](crate::Handle): it posts a
    /// message to any handler.
    ///
    /// Once the reactor has [ended](Self::exit), it does nothing.
    ///
    /// # Errors
    /// [`Error::Io`] when the selector fails.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        self.take_turn(timeout)
    }

    /// When [`turn`](Self::turn) must be called next even if the descriptor stays silent: the
    /// earliest timer, or a moment that has passed when there is work left over. None for never.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.next_moment().map(|when| self.state.instant(when))
    }

    /// Begins a graceful shutdown: no newcomers, then `on_shutdown` once the messages posted before
    /// are handled, every connection closed, and half a second for clients that do not close their
    /// side too. It takes some turns to complete; [`exit`](Self::exit) says when it has.
    pub fn stop(&mut self) {
        self.state.stop();
    }

    /// How it ended; none while there is something left to do.
    pub fn exit(&self) -> Option<Exit> {
        match self.phase {
            Phase::Done(exit) => Some(exit),
            Phase::Running | Phase::HandedOn(_) | Phase::Stopping(_) | Phase::Draining(_) => None,
        }
    }

    /// How long a graceful shutdown may take, or to [remove](Self::remove) a service. A client that has not
    /// got its output by then is cut off, and messages that are not handled by then are lost. Default 10 s.
    pub fn set_shutdown_timeout(&mut self, timeout: Duration) {
        self.shutdown_timeout = timeout;
    }

    /// Unsent bytes of all connections together, replies and broadcasts alike. Past it those with
    /// the largest backlogs are reset with
    /// [`CloseReason::TotalOutput`](crate::CloseReason::TotalOutput), until an eighth of it is
    /// free again: each may be within its own limits and all together too much. The first to go are
    /// those of the peer, as [`peer_rate`](Limits::peer_rate) has it, that has most in all. It holds at
    /// any moment for each service, and for all of them at the end of a turn. In bytes, any number; it
    /// may be changed at any time. Default 1 GiB.
    pub fn set_max_total_output(&mut self, bytes: usize) {
        self.state.max_total_output = bytes;
    }

    /// Memory for unfinished input of all connections together: what handlers have not taken yet,
    /// such as lines without an end, and what layers such as TLS keep: of unfinished records, of
    /// plaintext that was not read, of ciphertext that is not out. Past it those with the most are
    /// reset with [`CloseReason::TotalInput`](crate::CloseReason::TotalInput), those of the peer that has
    /// most in all before others, until an eighth of it is free again: each line may be within [`max_line`](Limits::max_line) and all together too
    /// much. It holds for each service after each connection that is served, and for all of them at
    /// the end of a turn.
    ///
    /// What a handler keeps in its sessions does not count, nor do the pieces of a
    /// [block](crate::Context::take_block), of which the loop keeps nothing. In bytes, any number; with 0
    /// nothing may be unfinished at the end of a turn. It may be changed at any time. Default 128 MiB.
    pub fn set_max_total_input(&mut self, bytes: usize) {
        self.state.max_total_input = bytes;
    }

    /// What the loop has done so far, for all services together.
    pub fn counters(&self) -> Counters {
        self.state.counted()
    }
}

/// The selector's descriptor: it is readable when the sockets have something to do. Timers and
/// leftovers do not show in it; see [`Reactor::turn`].
impl AsRawFd for Reactor<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }
}

/// Handlers are told of the end of every connection that is still open, as at a shutdown
/// without time to flush.
impl Drop for Reactor<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() && !matches!(self.phase, Phase::Done(_)) {
            self.cut_off();
        }
    }
}

impl fmt::Debug for Reactor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("services", &(self.services.len() - self.vacant.len()))
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}
