use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Waker};

use crate::budget;
use crate::core::Core;
use crate::handle::{Mailbox, Shared};
use crate::id::{MOST_SERVICES, Token};
use crate::input::Scratch;
use crate::pool::Pool;
use crate::serve::{Look, Serve, look_at_all};
use crate::server::Server;
#[cfg(feature = "signals")]
use crate::signals::{Caught, Signals};
use crate::timer::Nanos;
use crate::{
    Address, ConnId, Counters, Error, Exit, Handler, Limits, Service, ToAddress, ToListen,
};

/// Events fetched in one wait to begin with; a wait that fills the buffer doubles it.
const EVENTS: usize = 1024;
const MOST_EVENTS: usize = 64 * 1024;
/// The waker and the signals.
const OWN_SOURCES: usize = 2;

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
/// A reactor is not `Send`: make it on the thread that runs it, and send a [`Service`] or a
/// [`Handle`](crate::Handle) of it to the others. What it has to say it logs through the crate
/// `log`; without a logger, the warning about callbacks that block goes unseen.
pub struct Reactor<'h> {
    pub(crate) poll: Poll,
    events: Events,
    /// The last wait filled the buffer: there may be more, of which a foreign loop that watches
    /// our descriptor under edge triggers would not hear.
    full: bool,
    pub(crate) services: Vec<Box<dyn Serve + 'h>>,
    pub(crate) core: Core,
    scratch: Scratch,
    shutdown_timeout: Duration,
    phase: Phase,
    #[cfg(feature = "signals")]
    pub(crate) signals: Signals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Nobody else may come, and what was posted before the shutdown is handled before it.
    Stopping(Nanos),
    /// Everybody is being closed; what is not gone by then is cut.
    Draining(Nanos),
    Done(Exit),
}

impl<'h> Reactor<'h> {
    /// Makes a reactor without services.
    ///
    /// # Errors
    /// [`Error::Io`] when the system gives no selector (out of descriptors).
    pub fn new() -> Result<Self, Error> {
        let poll = Poll::new().map_err(Error::io("cannot make a selector"))?;
        let waker = Waker::new(poll.registry(), Token::WAKER.into())
            .map_err(Error::io("cannot make a waker"))?;
        let registry = poll.registry().try_clone().map_err(Error::io("cannot use the selector"))?;
        Ok(Reactor {
            poll,
            events: Events::with_capacity(EVENTS),
            full: false,
            services: Vec::new(),
            core: Core::new(Some(Rc::new(registry)), Arc::new(Shared::new(waker))),
            scratch: Scratch::default(),
            shutdown_timeout: Duration::from_secs(10),
            phase: Phase::Running,
            #[cfg(feature = "signals")]
            signals: Signals::default(),
        })
    }

    /// Serves a protocol at an address, with the default [`Limits`]. Port 0 asks for a free
    /// port; [`Service::address`] has the real one. A [`Listen`](crate::Listen) says more than an
    /// address: who may come. The name of a [host](crate::Host) is looked up, which blocks, and
    /// listened on at all its addresses.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Lookup`], [`Error::Listen`] (with the remedy), [`Error::TooManyServices`],
    /// [`Error::ShuttingDown`]. The reactor goes on as if it had not been asked.
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
        match self.services[service.index].listen(listen, &mut self.core) {
            Ok(local) => service.address = Some(local),
            Err(error) => {
                self.services.pop();
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
        limits.check()?;
        let index = self.vacancy()?;
        let pool = Pool::new(index, short_name::<H>(), limits);
        let (mailbox, handle) = Mailbox::new(&self.core.shared);
        self.services.push(Box::new(Server::new(handler, pool, mailbox)));
        Ok(Service { index, address: None, handle })
    }

    /// The number of the next service.
    pub(crate) fn vacancy(&self) -> Result<usize, Error> {
        match self.services.len() {
            _ if self.core.is_ending() => Err(Error::ShuttingDown),
            MOST_SERVICES.. => Err(Error::TooManyServices),
            index => Ok(index),
        }
    }

    /// Gives a service one more listener: the same handler, connections and limits. Says where
    /// it listens: the addresses of a [host](crate::Host) are
    /// [`as_sockets`](Address::as_sockets) of what it gives.
    ///
    /// # Errors
    /// Those of [`listen`](Self::listen), and [`Error::Datagrams`].
    ///
    /// # Panics
    /// If the service is of another reactor with more services than this one.
    pub fn bind<M>(
        &mut self,
        service: &Service<M>,
        address: impl ToListen,
    ) -> Result<Address, Error> {
        if self.core.is_ending() {
            return Err(Error::ShuttingDown);
        }
        self.services[service.index].listen(address.to_listen()?, &mut self.core)
    }

    /// Names a service in the log. Until then it goes by its handler's type, which two services may
    /// have in common; so name it before it is [bound](Self::bind).
    ///
    /// # Panics
    /// If the service is of another reactor with more services than this one.
    pub fn set_name<M>(&mut self, service: &Service<M>, name: impl Into<String>) {
        self.services[service.index].set_name(name.into().into_boxed_str());
    }

    /// What a service goes by in the log.
    ///
    /// # Panics
    /// If the service is of another reactor with more services than this one.
    pub fn name<M>(&self, service: &Service<M>) -> &str {
        self.services[service.index].name()
    }

    /// Dials out in the name of a service, with a default session; see
    /// [`ServiceContext::connect`](crate::ServiceContext::connect).
    ///
    /// # Errors
    /// [`Error::Address`] where text is no address, [`Error::Datagrams`], [`Error::ShuttingDown`].
    /// That nobody answers is told to the handler.
    ///
    /// # Panics
    /// If the service is of another reactor with more services than this one.
    pub fn connect<M>(
        &mut self,
        service: &Service<M>,
        address: impl ToAddress,
    ) -> Result<ConnId, Error> {
        self.services[service.index].dial(&address.to_address()?, &mut self.core)
    }

    /// Makes a connection of two descriptors in the name of a service, with a default session; see
    /// [`ServiceContext::adopt`](crate::ServiceContext::adopt).
    ///
    /// # Errors
    /// [`Error::Datagrams`], [`Error::ShuttingDown`].
    ///
    /// # Panics
    /// If the service is of another reactor with more services than this one.
    pub fn adopt<M>(
        &mut self,
        service: &Service<M>,
        input: impl AsFd,
        output: impl AsFd,
    ) -> Result<ConnId, Error> {
        self.services[service.index].adopt(input.as_fd(), output.as_fd(), &mut self.core)
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
    /// Once the reactor has [ended](Self::exit), it does nothing.
    ///
    /// # Errors
    /// [`Error::Io`] when the selector fails.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        if self.exit().is_some() {
            return Ok(());
        }
        self.wait(timeout)?;
        let began = self.core.clock;
        if self.exit().is_some() {
            // A second signal: nobody is to be let in or called any more.
            return Ok(());
        }
        for service in &mut self.services {
            service.work(&mut self.core, &mut self.scratch);
        }
        self.settle();
        self.advance();
        let counters = &mut self.core.counters;
        counters.turns += 1;
        counters.longest_turn = counters.longest_turn.max(began.elapsed());
        Ok(())
    }

    /// When [`turn`](Self::turn) must be called next even if the descriptor stays silent: the
    /// earliest timer, or a moment that has passed when there is work left over. None for never.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.next_moment().map(|when| self.core.instant(when))
    }

    /// Begins a graceful shutdown: no newcomers, `on_shutdown` once the messages posted before are
    /// handled, everybody closed, and half a second for those who do not close their side too. It takes turns to complete;
    /// [`exit`](Self::exit) says when it has.
    pub fn stop(&mut self) {
        self.core.stop();
    }

    /// How it ended; none while there is something left to do.
    pub fn exit(&self) -> Option<Exit> {
        match self.phase {
            Phase::Done(exit) => Some(exit),
            Phase::Running | Phase::Stopping(_) | Phase::Draining(_) => None,
        }
    }

    /// How long a graceful shutdown may take; whoever has not got its output by then is cut off,
    /// and messages that are not handled by then are lost.
    /// Default 10 s.
    pub fn set_shutdown_timeout(&mut self, timeout: Duration) {
        self.shutdown_timeout = timeout;
    }

    /// Unsent bytes of all connections together, replies and broadcasts alike. Past it those with
    /// the largest backlogs are reset with
    /// [`CloseReason::TotalOutput`](crate::CloseReason::TotalOutput), until an eighth of it is
    /// free again: each may be within its own limits and all together too much. It holds at any
    /// moment for each service, and for all of them at the end of a turn. Default 1 GiB.
    pub fn set_max_total_output(&mut self, bytes: usize) {
        self.core.max_total_output = bytes;
    }

    /// What the loop has done so far.
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    // ---- The steps of a turn ----

    /// Waits for events and tells the services. Where a deadline has come, all that happened
    /// before is fetched too: time may have passed unnoticed since the wait gave what it had room
    /// for, and nobody is to be judged by what we have not looked at.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        self.sleep(timeout)?;
        self.dispatch();
        if self.deadline().is_none_or(|when| when > self.core.now) {
            return Ok(());
        }
        let sources = self.services.iter().map(|service| service.sources()).sum::<usize>();
        look_at_all(OWN_SOURCES + sources, || {
            while !self.poll(Some(Duration::ZERO))? {}
            Ok(self.dispatch())
        })
    }

    /// Waits for events. A signal that interrupts it does not lengthen the wait.
    fn sleep(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        self.core.tick();
        let until = timeout.map(|timeout| self.core.after(timeout));
        loop {
            let next = [until, self.next_moment()].into_iter().flatten().min();
            let left = next.map(|when| Duration::from_nanos(when.saturating_sub(self.core.now)));
            let done = self.poll(left)?;
            self.core.tick();
            if done {
                return Ok(());
            }
        }
    }

    /// Fetches events. False, and there are none, when a signal interrupted it.
    fn poll(&mut self, timeout: Option<Duration>) -> Result<bool, Error> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(Error::io("the selector failed")(error)),
        }
    }

    fn next_moment(&self) -> Option<Nanos> {
        let stop = self.phase == Phase::Running && self.core.is_ending();
        if stop || self.full || self.services.iter().any(|service| service.is_busy(&self.core)) {
            return Some(self.core.now);
        }
        self.deadline()
    }

    /// The earliest timer or deadline.
    fn deadline(&self) -> Option<Nanos> {
        let drained = match self.phase {
            Phase::Stopping(deadline) | Phase::Draining(deadline) => Some(deadline),
            Phase::Running | Phase::Done(_) => None,
        };
        self.services.iter().filter_map(|service| service.next_deadline()).chain(drained).min()
    }

    /// Tells every service what the selector said; work is done later, in turn.
    fn dispatch(&mut self) -> Look {
        let mut count = 0;
        #[cfg(feature = "signals")]
        let mut caught = Caught::default();
        for event in &self.events {
            count += 1;
            match Token::from(event.token()) {
                Token::WAKER => {
                    self.core.shared.awake();
                    self.services.iter_mut().for_each(|service| service.mail());
                }
                #[cfg(feature = "signals")]
                Token::SIGNALS => caught = self.signals.take(),
                token => {
                    if let Some(service) = self.services.get_mut(token.service()) {
                        service.ready(token, event.into());
                    }
                }
            }
        }
        #[cfg(feature = "signals")]
        self.signalled(&caught);
        self.full = count == self.events.capacity();
        if self.full && count < MOST_EVENTS {
            // Quiet connections must not wait for the busy ones to leave room.
            self.events = Events::with_capacity(count * 2);
        }
        Look { events: count, full: self.full }
    }

    /// Ends those that are over and flushes, in this order, so that what handlers say of the
    /// one goes out with the other. What the flush itself ended is reported last; what is said
    /// of that leaves in the next turn.
    fn settle(&mut self) {
        let Reactor { services, core, .. } = self;
        if std::mem::take(&mut core.starving) {
            services.iter_mut().any(|service| service.cut_lingering());
        }
        services.iter_mut().for_each(|service| service.reap(core));
        services.iter_mut().for_each(|service| service.flush(core));
        core.arena.clear();
        budget::relieve(services, core);
        services.iter_mut().for_each(|service| service.reap(core));
    }

    /// Begins a shutdown that was asked for, and moves it on.
    fn advance(&mut self) {
        if self.phase == Phase::Running && self.core.is_ending() {
            log::debug!("shutting down");
            // A long turn must not use up the time that the shutdown has.
            self.core.tick();
            self.core.stopping = true;
            self.phase = Phase::Stopping(self.core.after(self.shutdown_timeout));
            self.services.iter_mut().for_each(|service| service.stop_listening());
        }
        if let Phase::Stopping(deadline) = self.phase
            && (deadline <= self.core.now || !self.services.iter().any(|one| one.holds_up()))
        {
            self.phase = Phase::Draining(deadline);
            self.services.iter_mut().for_each(|service| service.shut_down(&mut self.core));
        }
        if let Phase::Draining(deadline) = self.phase {
            if self.services.iter().all(|service| service.is_empty()) {
                self.done(Exit::Clean);
            } else if deadline <= self.core.now {
                log::warn!("shutdown timeout: cutting off those that do not take their output");
                self.cut();
            }
        }
    }

    pub(crate) fn cut(&mut self) {
        self.core.stopping = true;
        let connections = self.services.iter_mut().map(|service| service.cut(&mut self.core)).sum();
        self.done(match connections {
            0 => Exit::Clean,
            _ => Exit::Cut { connections },
        });
    }

    fn done(&mut self, exit: Exit) {
        self.phase = Phase::Done(exit);
        self.core.shared.end();
        for service in &self.services {
            let lost = service.waiting();
            if lost > 0 {
                self.core.counters.messages_lost += lost;
                log::warn!("{}: {lost} messages were not handled before the end", service.name());
            }
        }
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
            self.cut();
        }
    }
}

impl fmt::Debug for Reactor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("services", &self.services.len())
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

/// A service's name in the log until it gets another: its handler's type without path and parameters.
pub(crate) fn short_name<H>() -> &'static str {
    let name = std::any::type_name::<H>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpStream;

    use super::*;
    use crate::Callbacks;

    /// Away for longer than the timeouts, as after SIGSTOP, while more have sent than one wait
    /// tells of.
    #[test]
    fn nobody_is_judged_before_all_events_from_before_are_fetched() {
        let away = Duration::from_millis(100);
        for (limits, sent) in [
            (Limits { idle_timeout: Some(away), ..Limits::default() }, &b"hello\n"[..]),
            (Limits { line_timeout: Some(away), ..Limits::default() }, b"lo\n"),
        ] {
            let mut reactor = Reactor::new().unwrap();
            let service = reactor.listen_with("127.0.0.1:0", Callbacks::new(), limits).unwrap();
            let addr = service.address().and_then(Address::as_socket).unwrap();
            let mut clients: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
            clients.iter_mut().for_each(|client| client.write_all(b"hel").unwrap());
            while reactor.counters().bytes_in < 20 * 3 {
                reactor.turn(None).unwrap();
            }
            reactor.events = Events::with_capacity(4);
            clients.iter_mut().rev().for_each(|client| client.write_all(sent).unwrap());
            std::thread::sleep(2 * away);
            while reactor.counters().bytes_in < (20 * (3 + sent.len())) as u64 {
                reactor.turn(Some(Duration::ZERO)).unwrap();
                assert_eq!(reactor.counters().closed_in_all(), 0);
            }
            assert_eq!(reactor.counters().lines_in, 20);
        }
    }

    #[test]
    fn a_wait_that_fills_the_event_buffer_doubles_it() {
        let mut reactor = Reactor::new().unwrap();
        // Small, so that a test needs few sockets.
        reactor.events = Events::with_capacity(4);
        let service = reactor.listen("127.0.0.1:0", Callbacks::new()).unwrap();
        let addr = service.address().and_then(Address::as_socket).unwrap();
        let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
        while reactor.counters().accepted < 20 {
            reactor.turn(None).unwrap();
        }
        for _ in 0..10 {
            reactor.turn(Some(Duration::ZERO)).unwrap();
        }
        drop(clients);
        reactor.turn(None).unwrap();
        reactor.turn(Some(Duration::ZERO)).unwrap();
        reactor.turn(Some(Duration::ZERO)).unwrap();
        assert!(reactor.events.capacity() >= 16, "{}", reactor.events.capacity());
    }
}
