//! The public methods: what is to run on which core, and the threads that run it.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use super::answers;
use super::common::{Common, Mail};
use super::driver::Driver;
use super::peers::Core;
use crate::error::Error;
use crate::handler::Handler;
use crate::limits::{Limits, MAX_TOTAL_INPUT, MAX_TOTAL_OUTPUT, SHUTDOWN_TIMEOUT};
use crate::net::newcomers::{Distributor, Load, channel};
use crate::net::{Address, ToListen};
use crate::reactor::for_cores::Seed;
use crate::reactor::handle::{Mailbox, Shared};
use crate::reactor::listening::{Bound, Share};
use crate::reactor::peers::SharedBooks;
use crate::reactor::places::SharedPlaces;
use crate::reactor::table::SharedLimits;
use crate::reactor::{Exit, Handle, Reactor, Service, Status};

/// The most cores: far more than any machine has, and each takes some descriptors and a thread.
const MOST_CORES: usize = 1024;

/// A reactor on each of several threads, and services over all of them.
///
/// Each connection is served by one core, whose handler knows nothing of the others; what they have to
/// say to each other they say in messages, through [`Peers`](crate::Peers). What the program sets and
/// sees is that of the whole: limits are those of the service and hold exactly, reports and counters are
/// the sums, a stop or a signal ends all cores.
///
/// ```
/// use reactor::{Context, Core, Cores, Handler, Peers, ServiceContext};
///
/// /// A room: what one says everybody hears, whichever core has them.
/// struct Room(Peers<Vec<u8>>);
///
/// impl Handler for Room {
///     type Session = ();
///     type Message = Vec<u8>;
///
///     fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
///         let said = [line, b"\n"].concat();
///         cx.broadcast(&said);
///         self.0.post_all(cx, &said);
///     }
///
///     fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, said: Vec<u8>) {
///         cx.broadcast(&said);
///     }
/// }
///
/// let mut cores = Cores::new(2)?;
/// let room = cores.listen("127.0.0.1:0", |core: Core<_>| Room(core.peers()))?;
/// println!("try: nc 127.0.0.1 {}", room.port());
/// # room.handles()[1].stop();
/// cores.run()?;
/// # Ok::<(), reactor::Error>(())
/// ```
///
/// The first core runs in the thread that calls [`run`](Self::run), and the others in threads that it
/// starts. One core alone is a [`Reactor`], and costs nothing more.
///
/// **Who gets a newcomer.** The first core accepts; of two cores chosen at random, the one with fewer
/// connections gets it. That is so for TCP and Unix sockets alike. Its layers, as TLS, are the work of the
/// core that gets it.
///
/// **What is bound to one core.** A service whose state is one store, and one of datagrams, is added to
/// the [first](Self::first) core, which serves all its clients.
///
/// **Limits.** [`max_connections`](Limits::max_connections), [`max_per_peer`](Limits::max_per_peer) and
/// [`peer_connect_rate`](Limits::peer_connect_rate) hold exactly. [`peer_rate`](Limits::peer_rate)
/// holds over time: where several connections of one peer are read by several cores in the very same
/// moment, each may use what is left. The bounds on the memory of all connections hold exactly for each
/// core, and for all of them one turn later.
pub struct Cores<'h> {
    pub(super) first: Reactor<'h>,
    pub(super) driver: Driver,
    pub(super) others: Vec<Planned<'h>>,
    /// What wakes each core.
    shared: Vec<Arc<Shared>>,
    pub(super) common: Arc<Common>,
    pub(super) settings: Settings,
    /// What was to be seen of the other cores when they ended.
    ended: Vec<Status>,
}

/// A core of which the thread is still to be started.
pub(super) struct Planned<'h> {
    core: usize,
    seed: Seed,
    mail: Receiver<Mail>,
    services: Vec<PlannedService<'h>>,
}

/// A service on such a core.
struct PlannedService<'h> {
    name: Option<String>,
    shares: Vec<Share>,
    /// Makes the handler and adds it; gives its place.
    add: Box<Add<'h>>,
}

type Add<'h> = dyn FnOnce(&mut Reactor<'h>, &Driver) -> Result<usize, Error> + Send + 'h;

/// What every core is set to.
#[derive(Clone, Copy)]
pub(super) struct Settings {
    shutdown_timeout: Duration,
    max_total_output: usize,
    max_total_input: usize,
    accounting: bool,
    start: Instant,
}

/// The key to a service that runs on all cores: where it listens, and the way to its handlers.
pub struct Spread<M> {
    service: Service<M>,
    handles: Vec<Handle<M>>,
    /// How many connections each core has of it.
    loads: Vec<Load>,
    /// Its place among those of the other cores.
    place: usize,
}

impl<'h> Cores<'h> {
    /// Makes so many, without services.
    ///
    /// # Errors
    /// [`Error::Limit`] for none, or more than 1,024. [`Error::Io`] when the system gives no selectors.
    pub fn new(count: usize) -> Result<Self, Error> {
        if count == 0 || count > MOST_CORES {
            return Err(Error::limit("threads", "must be from 1 to 1024"));
        }
        let mut first = Reactor::new()?;
        let seeds = (1..count).map(|_| Reactor::seed()).collect::<Result<Vec<_>, _>>()?;
        let seeded = seeds.iter().map(|seed| &seed.shared);
        let shared: Vec<_> = [first.shared()].into_iter().chain(seeded).map(Arc::clone).collect();
        let (common, mail) = Common::new(&shared);
        let start = first.started_at();
        if count > 1 {
            first.join(0, count, start);
        }
        let mut mail = mail.into_iter();
        let own = mail.next().expect("there is one core at least");
        let planned = |((core, seed), mail)| Planned { core, seed, mail, services: Vec::new() };
        let settings = Settings {
            shutdown_timeout: SHUTDOWN_TIMEOUT,
            max_total_output: MAX_TOTAL_OUTPUT,
            max_total_input: MAX_TOTAL_INPUT,
            accounting: false,
            start,
        };
        Ok(Cores {
            first,
            driver: Driver::new(0, &common, own),
            others: (1..).zip(seeds).zip(mail).map(planned).collect(),
            shared,
            common,
            settings,
            ended: Vec::new(),
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.shared.len()
    }

    /// The first core, for what is bound to it: services whose state is one store, those of datagrams,
    /// and what else is about one reactor. Do not run it: [`run`](Self::run) does. Settings of the whole
    /// are set here, at the [cores](Self).
    pub fn first(&mut self) -> &mut Reactor<'h> {
        &mut self.first
    }

    /// Serves a protocol on all cores, as [`Reactor::listen`] does on one. The handler of each core is
    /// made in the thread that runs it, so it need not be [`Send`]: that of the first one now, those of
    /// the others when they [run](Self::run).
    ///
    /// # Errors
    /// Those of [`Reactor::listen`].
    pub fn listen<H, F>(
        &mut self,
        address: impl ToListen,
        handler: F,
    ) -> Result<Spread<H::Message>, Error>
    where
        H: Handler + 'h,
        H::Message: Send + 'static,
        F: Fn(Core<H::Message>) -> H + Send + Sync + 'h,
    {
        self.listen_with(address, handler, Limits::default())
    }

    /// As [`listen`](Self::listen), with limits of your own. They are those of the service, on all cores
    /// together.
    ///
    /// # Errors
    /// Those of [`Reactor::listen_with`]. If the address cannot be listened on, the service is there all
    /// the same, without a listener.
    pub fn listen_with<H, F>(
        &mut self,
        address: impl ToListen,
        handler: F,
        limits: Limits,
    ) -> Result<Spread<H::Message>, Error>
    where
        H: Handler + 'h,
        H::Message: Send + 'static,
        F: Fn(Core<H::Message>) -> H + Send + Sync + 'h,
    {
        let listen = address.to_listen()?;
        let mut spread = self.add(handler, limits)?;
        let local = self.bind(&spread, listen)?;
        spread.service.address = Some(local);
        Ok(spread)
    }

    /// Adds a service without a listener; see [`bind`](Self::bind).
    ///
    /// # Errors
    /// Those of [`Reactor::add`].
    pub fn add<H, F>(&mut self, handler: F, limits: Limits) -> Result<Spread<H::Message>, Error>
    where
        H: Handler + 'h,
        H::Message: Send + 'static,
        F: Fn(Core<H::Message>) -> H + Send + Sync + 'h,
    {
        limits.check()?;
        let make = Arc::new(handler);
        let (mailboxes, handles): (Vec<_>, Vec<_>) = self.shared.iter().map(Mailbox::new).unzip();
        let mut mailboxes = mailboxes.into_iter();
        let books = Arc::new(SharedBooks::new(&limits));
        let taken = Load::default();
        let limits_of = |here: &Load| {
            let (taken, here) = (Arc::clone(&taken), Arc::clone(here));
            SharedLimits { places: SharedPlaces { taken, here }, peers: Arc::clone(&books) }
        };
        let loads: Vec<_> = self.shared.iter().map(|_| Load::default()).collect();

        let alone = self.others.is_empty();
        let own = (!alone).then(|| limits_of(&loads[0]));
        let first = make(Core::new(0, handles.clone(), &self.driver.others));
        let mailbox = mailboxes.next().expect("there is one core at least");
        let index = self.first.add_shared(first, limits.clone(), own.as_ref(), mailbox)?;

        let place = self.others.first().map_or(0, |other| other.services.len());
        for ((other, mailbox), load) in self.others.iter_mut().zip(mailboxes).zip(&loads[1..]) {
            let (make, handles, limits) = (Arc::clone(&make), handles.clone(), limits.clone());
            let (core, all) = (other.core, limits_of(load));
            let add = Box::new(move |reactor: &mut Reactor<'h>, driver: &Driver| {
                let handler = make(Core::new(core, handles, &driver.others));
                reactor.add_shared(handler, limits, Some(&all), mailbox)
            });
            other.services.push(PlannedService { name: None, shares: Vec::new(), add });
        }
        let service = Service { index, address: None, handle: handles[0].clone() };
        Ok(Spread { service, handles, loads, place })
    }

    /// Gives a service one more listener, as [`Reactor::bind`] does.
    ///
    /// # Errors
    /// Those of [`Reactor::bind`].
    ///
    /// # Panics
    /// If the service is of other cores.
    pub fn bind<M>(
        &mut self,
        service: &Spread<M>,
        address: impl ToListen,
    ) -> Result<Address, Error> {
        let listen = address.to_listen()?;
        let index = self.first.place_of(&service.service.handle)?;
        let Bound { local, listeners } = self.first.listen_at(index, listen.clone())?;
        if self.others.is_empty() {
            return Ok(local);
        }
        for (number, address) in listeners {
            let mut outlets = Vec::new();
            for other in &mut self.others {
                let shared = Arc::clone(&other.seed.shared);
                let load = Arc::clone(&service.loads[other.core]);
                let (outlet, arrivals) = channel(load, Arc::new(move || shared.wake()));
                let listen = listen.elsewhere(address.clone());
                other.services[service.place].shares.push(Share { listen, arrivals });
                outlets.push(outlet);
            }
            let distributor = Distributor::new(Arc::clone(&service.loads[0]), outlets);
            self.first.share_out(index, number, distributor);
        }
        Ok(local)
    }

    /// Names a service, as [`Reactor::set_name`] does.
    ///
    /// # Panics
    /// If the service is of other cores.
    pub fn set_name<M>(&mut self, service: &Spread<M>, name: impl Into<String>) {
        let name = name.into();
        for other in &mut self.others {
            other.services[service.place].name = Some(name.clone());
        }
        self.first.set_name(&service.service, name);
    }

    /// As [`Reactor::set_max_total_output`], for all cores together. Before they [run](Self::run).
    pub fn set_max_total_output(&mut self, bytes: usize) {
        self.settings.max_total_output = bytes;
        self.first.set_max_total_output(bytes);
    }

    /// As [`Reactor::set_max_total_input`], for all cores together. Before they [run](Self::run).
    pub fn set_max_total_input(&mut self, bytes: usize) {
        self.settings.max_total_input = bytes;
        self.first.set_max_total_input(bytes);
    }

    /// As [`Reactor::set_shutdown_timeout`]. Before they [run](Self::run).
    pub fn set_shutdown_timeout(&mut self, timeout: Duration) {
        self.settings.shutdown_timeout = timeout;
        self.first.set_shutdown_timeout(timeout);
    }

    /// As [`Reactor::set_accounting`]. Before they [run](Self::run).
    pub fn set_accounting(&mut self, on: bool) {
        self.settings.accounting = on;
        self.first.set_accounting(on);
    }

    /// As [`Reactor::stop_on_signals`]: ends all cores. Needs the feature `signals`.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses.
    #[cfg(feature = "signals")]
    pub fn stop_on_signals(&mut self) -> Result<(), Error> {
        self.first.stop_on_signals()
    }

    /// As [`Reactor::reload_on_hangup`]: what is read again is read for all cores. Needs the feature
    /// `signals`.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses.
    #[cfg(feature = "signals")]
    pub fn reload_on_hangup(&mut self) -> Result<(), Error> {
        self.first.reload_on_hangup()
    }

    /// Runs all cores until a handler on any of them, a [`Handle`] or a signal stops it.
    ///
    /// # Errors
    /// [`Error::Io`] when a selector fails or a thread cannot be started, and [`Error::Core`] for a
    /// panic outside of a hook, such as one while a handler is made. Then the other cores have been
    /// shut down gracefully.
    pub fn run(&mut self) -> Result<Exit, Error> {
        if self.shared.len() == 1 {
            return self.first.run();
        }
        let (settings, common) = (self.settings, Arc::clone(&self.common));
        let others = std::mem::take(&mut self.others);
        let (first, others) = thread::scope(|scope| {
            let (mut threads, mut failed) = (Vec::new(), None);
            for planned in others {
                let (core, common) = (planned.core, Arc::clone(&common));
                common.running.fetch_add(1, SeqCst);
                let counted = Arc::clone(&common);
                let thread = thread::Builder::new().name(format!("core-{core}")).spawn_scoped(
                    scope,
                    move || {
                        let outcome = guard(core, &common, || planned.run(&common, settings));
                        common.leave();
                        outcome
                    },
                );
                match thread {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        counted.leave();
                        counted.stop();
                        failed = Some(Error::io(
                            "there is no thread to be had (ulimit -u), or fewer will do",
                        )(error));
                        break;
                    }
                }
            }
            let (reactor, driver) = (&mut self.first, &mut self.driver);
            let first = guard(0, &common, || {
                let exit = driver.run(reactor)?;
                driver.wait_for_others(reactor)?;
                Ok(exit)
            });
            let joined = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread
                    .join()
                    .unwrap_or_else(|panic| Err(Error::Core { core: 0, why: words(&*panic) }))
            };
            let others: Vec<_> = threads.into_iter().map(joined).collect();
            (failed.map_or(first, Err), others)
        });
        let mut cut = count(first?);
        for outcome in others {
            let (exit, status) = outcome?;
            cut += count(exit);
            self.ended.push(answers::of_core(self.ended.len() + 1, status));
        }
        Ok(if cut == 0 { Exit::Clean } else { Exit::Cut { connections: cut } })
    }

    /// The state of all cores together, before and after they have [run](Self::run). While they run,
    /// handlers can [ask](crate::Context::request_report).
    pub fn status(&self) -> Status {
        let mut sum = self.first.status();
        self.ended.iter().for_each(|status| answers::add_status(&mut sum, status.clone()));
        sum
    }
}

impl<'h> Planned<'h> {
    /// Makes the reactor, in its thread, and runs it.
    fn run(self, common: &Arc<Common>, settings: Settings) -> Result<(Exit, Status), Error> {
        let (mut reactor, mut driver) = self.make(common, settings)?;
        let exit = driver.run(&mut reactor)?;
        Ok((exit, reactor.status()))
    }

    /// Makes the reactor, and what drives it.
    pub(super) fn make(
        self,
        common: &Arc<Common>,
        settings: Settings,
    ) -> Result<(Reactor<'h>, Driver), Error> {
        let driver = Driver::new(self.core, common, self.mail);
        let mut reactor = Reactor::grow(self.seed);
        reactor.join(self.core, common.len(), settings.start);
        reactor.set_shutdown_timeout(settings.shutdown_timeout);
        reactor.set_max_total_output(settings.max_total_output);
        reactor.set_max_total_input(settings.max_total_input);
        reactor.set_accounting(settings.accounting);
        for service in self.services {
            // A stop that came before this ends it in its first turn.
            if reactor.is_ending() {
                break;
            }
            let index = (service.add)(&mut reactor, &driver)?;
            if let Some(name) = service.name {
                reactor.name_service(index, name);
            }
            reactor.take_over(index, service.shares);
        }
        Ok((reactor, driver))
    }
}

/// Runs a core. If it fails, the others are shut down.
pub(super) fn guard<R>(
    core: usize,
    common: &Common,
    run: impl FnOnce() -> Result<R, Error>,
) -> Result<R, Error> {
    let outcome = catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|panic| Err(Error::Core { core, why: words(&*panic) }));
    if let Err(error) = &outcome {
        log::error!("core {core}: {error}: shutting down");
        common.stop();
    }
    outcome
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a panic: {}", text.unwrap_or("without words"))
}

/// How many connections were cut off.
pub(super) fn count(exit: Exit) -> usize {
    match exit {
        Exit::Clean => 0,
        Exit::Cut { connections } => connections,
    }
}

impl<M> Spread<M> {
    /// Where it listens; none for one that was [added](Cores::add) without a listener.
    pub fn address(&self) -> Option<&Address> {
        self.service.address()
    }

    /// The port it listens on; 0 for a Unix socket and without a listener.
    pub fn port(&self) -> u16 {
        self.service.port()
    }

    /// The handles of its handlers, that of the first core first.
    pub fn handles(&self) -> &[Handle<M>] {
        &self.handles
    }
}

/// Where it listens, as `127.0.0.1:2323`.
impl<M> fmt::Display for Spread<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.service.fmt(f)
    }
}

impl<M> fmt::Debug for Spread<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spread({}, {} cores)", self.service, self.handles.len())
    }
}

impl fmt::Debug for Cores<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cores").field("count", &self.count()).finish_non_exhaustive()
    }
}
