//! The public methods: which service runs on which core. Another core gets its part as a task in its mail, whether its
//! thread runs already or not.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::answers;
use super::common::{Common, Mail};
use super::driver::Driver;
use super::peers::Core;
use super::remote::{Change, Remote};
use super::running::Planned;
use crate::error::Error;
use crate::handler::Handler;
use crate::limits::Limits;
use crate::net::newcomers::{Distributor, Load, channel};
use crate::net::{Address, Listen, ToListen};
use crate::reactor::handle::{Identity, Mailbox};
use crate::reactor::listening::Share;
use crate::reactor::peers::SharedBooks;
use crate::reactor::places::SharedPlaces;
use crate::reactor::table::SharedLimits;
use crate::reactor::{Handle, Reactor, Service, Status};

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
/// **Changes while they run.** [`run`](Self::run) borrows the cores, so take a [`Remote`] before: it has any
/// thread call every method of this type, for example to add a service or to change limits. A hook that
/// `on_hangup` sets can do the same at SIGHUP. Both also serve a program with one core, `Cores::new(1)`.
///
/// **Upgrades.** [`hand_on`](Self::hand_on) has the cores of another process go on with all services and connections,
/// and [`inherit`](Self::inherit) is the other side. There have to be as many cores: each goes on with what one had.
///
/// **Threads.** As a [`Reactor`], this stays on the thread that made it. Handlers are made in the threads that
/// run them.
///
/// **Limits.** [`max_connections`](Limits::max_connections), [`max_per_peer`](Limits::max_per_peer) and
/// [`peer_connect_rate`](Limits::peer_connect_rate) hold exactly. [`peer_rate`](Limits::peer_rate)
/// holds over time: where several connections of one peer are read by several cores in the very same
/// moment, each may use what is left. The bounds on the memory of all connections hold exactly for each
/// core, and for all of them one turn later.
pub struct Cores<'h> {
    pub(super) first: Reactor<'h>,
    pub(super) driver: Driver<'h>,
    pub(super) others: Vec<Planned<'h>>,
    pub(super) common: Arc<Common<'h>>,
    /// Changes to make between two turns of the first core; none once all cores have ended.
    pub(super) changes: Option<Mailbox<Change<'h>>>,
    remote: Remote<'h>,
    /// Called at SIGHUP.
    #[cfg(feature = "signals")]
    pub(super) hook: Option<Box<Hook<'h>>>,
    /// What was to be seen of the other cores when they ended.
    pub(super) ended: Vec<Status>,
}

#[cfg(feature = "signals")]
type Hook<'h> = dyn FnMut(&mut Cores<'h>) + 'h;

/// The key to a service that runs on all cores: where it listens, and the way to its handlers.
///
/// It can be cloned and sent to other threads, as for a [`Remote`]. Once the service was
/// [removed](Cores::remove), it is no key to any other: the methods of [`Cores`] give [`Error::Removed`].
pub struct Spread<M> {
    service: Service<M>,
    handles: Vec<Handle<M>>,
    /// How many connections each core has of it.
    loads: Vec<Load>,
}

impl<'h> Cores<'h> {
    /// Makes this many cores, without services.
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
        if count > 1 {
            first.join(0, count, first.started_at());
        }
        let mut mail = mail.into_iter();
        let own = mail.next().expect("there is one core at least");
        let start = first.started_at();
        let planned = |((core, seed), mail)| Planned { core, seed, mail, start };
        let (changes, remote) = Mailbox::new(&shared[0]);
        first.make_changes_before_stop(remote.identity());
        Ok(Cores {
            first,
            driver: Driver::new(0, &common, own),
            others: (1..).zip(seeds).zip(mail).map(planned).collect(),
            common,
            changes: Some(changes),
            remote: Remote(remote),
            #[cfg(feature = "signals")]
            hook: None,
            ended: Vec::new(),
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.common.len()
    }

    /// The first core, for what is bound to it: services whose state is one store, those of datagrams,
    /// and what else is about one reactor. Do not run it: [`run`](Self::run) does. Settings of the whole
    /// are set here, at the [cores](Self).
    pub fn first(&mut self) -> &mut Reactor<'h> {
        &mut self.first
    }

    /// Serves a protocol on all cores, as [`Reactor::listen`] does on one. The handler of each core is
    /// made in the thread that runs it, so it need not be [`Send`]. That of the first core is made now, those
    /// of the others when they [run](Self::run), or after their next turn if they run already. If the closure
    /// panics while they run, the log says so, and the service is not on that core.
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
    /// Those of [`Reactor::listen_with`]. If the address cannot be listened on, the service is
    /// [removed](Self::remove) again.
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
        match self.bind(&spread, listen) {
            Ok(local) => spread.service.address = Some(local),
            Err(error) => {
                if self.first.remove(&spread.service).is_ok() {
                    self.remove_from_others(&spread.identities());
                }
                return Err(error);
            }
        }
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
        let cores = 0..self.count();
        let (mailboxes, handles): (Vec<_>, Vec<_>) =
            cores.clone().map(|core| Mailbox::new(self.common.shared(core))).unzip();
        let mut mailboxes = mailboxes.into_iter();
        let books = Arc::new(SharedBooks::new(&limits));
        let taken = Load::default();
        let limits_of = |here: &Load| {
            let (taken, here) = (Arc::clone(&taken), Arc::clone(here));
            SharedLimits { places: SharedPlaces { taken, here }, peers: Arc::clone(&books) }
        };
        let loads: Vec<_> = cores.map(|_| Load::default()).collect();

        let own = (self.count() > 1).then(|| limits_of(&loads[0]));
        let first = make(Core::new(0, handles.clone(), &self.driver.others));
        let mailbox = mailboxes.next().expect("there is one core at least");
        let index = self.first.add_shared(first, limits.clone(), own.as_ref(), mailbox)?;
        self.driver.others.note(&handles);
        for ((core, mailbox), load) in (1..).zip(mailboxes).zip(&loads[1..]) {
            let (make, handles, limits) = (Arc::clone(&make), handles.clone(), limits.clone());
            let all = limits_of(load);
            self.post(core, move |reactor, driver| {
                let handler = make(Core::new(core, handles.clone(), &driver.others));
                match reactor.add_shared(handler, limits, Some(&all), mailbox) {
                    Ok(_) => driver.others.note(&handles),
                    Err(error) => log::error!("core {core}: {error}: the others serve without it"),
                }
            });
        }
        let service = Service { index, address: None, handle: handles[0].clone() };
        Ok(Spread { service, handles, loads })
    }

    /// Gives a service one more listener, as [`Reactor::bind`] does.
    ///
    /// # Errors
    /// Those of [`Reactor::bind`].
    pub fn bind<M>(
        &mut self,
        service: &Spread<M>,
        address: impl ToListen,
    ) -> Result<Address, Error> {
        let (place, listen) = (self.first.place(&service.service)?, address.to_listen()?);
        let bound = self.first.listen_at(place, listen.clone())?;
        self.share_out(service, place, &listen, bound.listeners);
        Ok(bound.local)
    }

    /// As [`Reactor::rebind`]. The new rules apply on all cores to clients that are accepted from now on. A
    /// client that was accepted before, and is on its way to another core, still comes by the old rules.
    ///
    /// # Errors
    /// Those of [`Reactor::rebind`].
    pub fn rebind<M>(&mut self, service: &Spread<M>, listen: impl ToListen) -> Result<(), Error> {
        let (place, listen) = (self.first.place(&service.service)?, listen.to_listen()?);
        let bound = self.first.rebind_at(place, listen.clone())?;
        self.share_out(service, place, &listen, bound.listeners);
        Ok(())
    }

    /// As [`Reactor::unbind`]. Clients on their way to another core are served there.
    ///
    /// # Errors
    /// Those of [`Reactor::unbind`].
    pub fn unbind<M>(&mut self, service: &Spread<M>, address: &Address) -> Result<(), Error> {
        // The queues of the other cores end by themselves once they are empty.
        self.first.unbind(&service.service, address)
    }

    /// Divides newcomers at these listeners of the first core among all cores, by new queues. The listeners of
    /// the old queues take what is left in those, and then end.
    fn share_out<M>(
        &mut self,
        service: &Spread<M>,
        place: usize,
        listen: &Listen,
        listeners: Vec<(usize, Address)>,
    ) {
        if self.count() == 1 {
            return;
        }
        for (number, address) in listeners {
            let mut outlets = Vec::new();
            for core in 1..self.count() {
                let shared = Arc::clone(self.common.shared(core));
                let load = Arc::clone(&service.loads[core]);
                let (outlet, arrivals) = channel(load, Arc::new(move || shared.wake()));
                let share = Share { listen: listen.elsewhere(address.clone()), arrivals };
                self.post_for(service, core, |reactor, place| reactor.take_over(place, share));
                outlets.push(outlet);
            }
            let among = Distributor::new(Arc::clone(&service.loads[0]), outlets);
            self.first.share_out(place, number, among);
        }
    }

    /// As [`Reactor::set_limits`], for all cores together. Each of the other cores applies the new limits after
    /// its next turn.
    ///
    /// # Errors
    /// Those of [`Reactor::set_limits`].
    pub fn set_limits<M>(&mut self, service: &Spread<M>, limits: Limits) -> Result<(), Error> {
        self.first.set_limits(&service.service, limits.clone())?;
        // The limits are checked, so this can only fail where a shutdown has begun.
        self.on_others(service, move |reactor, place| {
            let _ = reactor.set_limits_at(place, limits.clone());
        });
        Ok(())
    }

    /// As [`Reactor::remove`], on all cores; the others hear of it one turn later, so what the first core has
    /// said to them by then comes first. Newcomers on their way to another core are served until that hears of
    /// it, or closed. [`status`](Self::status) and reports show the service until it is gone everywhere.
    ///
    /// # Errors
    /// Those of [`Reactor::remove`].
    pub fn remove<M>(&mut self, service: &Spread<M>) -> Result<(), Error> {
        self.first.remove(&service.service)?;
        let gone = service.identities();
        // After the next turn here, as a shutdown is passed on: what comes of the messages from before is
        // said by then. That fails where all has ended.
        let _ = self.remote.post(move |cores| cores.remove_from_others(&gone));
        Ok(())
    }

    fn remove_from_others(&self, gone: &[Identity]) {
        self.driver.others.forget(gone);
        for core in 1..self.count() {
            let gone = gone.to_vec();
            self.post(core, move |reactor, driver| {
                driver.others.forget(&gone);
                if let Some(place) = reactor.place_of(&gone[core]) {
                    reactor.remove_at(place);
                }
            });
        }
    }

    /// As [`Reactor::reload`].
    pub fn reload(&mut self) {
        // Layers are shared by all cores.
        self.first.reload();
    }

    /// Names a service, as [`Reactor::set_name`] does.
    pub fn set_name<M>(&mut self, service: &Spread<M>, name: impl Into<String>) {
        let name = name.into();
        self.first.set_name(&service.service, name.clone());
        self.on_others(service, move |reactor, place| reactor.name_service(place, name.clone()));
    }

    /// As [`Reactor::set_max_total_output`], for all cores together.
    pub fn set_max_total_output(&mut self, bytes: usize) {
        self.everywhere(move |reactor| reactor.set_max_total_output(bytes));
    }

    /// As [`Reactor::set_max_total_input`], for all cores together.
    pub fn set_max_total_input(&mut self, bytes: usize) {
        self.everywhere(move |reactor| reactor.set_max_total_input(bytes));
    }

    /// As [`Reactor::set_shutdown_timeout`].
    pub fn set_shutdown_timeout(&mut self, timeout: Duration) {
        self.everywhere(move |reactor| reactor.set_shutdown_timeout(timeout));
    }

    /// As [`Reactor::set_accounting`].
    pub fn set_accounting(&mut self, on: bool) {
        self.everywhere(move |reactor| reactor.set_accounting(on));
    }

    /// Changes every core.
    fn everywhere(&mut self, change: impl Fn(&mut Reactor<'h>) + Clone + Send + 'h) {
        change(&mut self.first);
        for core in 1..self.count() {
            let change = change.clone();
            self.post(core, move |reactor, _| change(reactor));
        }
    }

    /// Posts a task to another core, which does it when it begins to run, or after its next turn. Nothing
    /// happens once that core is shutting down or has ended.
    pub(super) fn post(
        &self,
        core: usize,
        task: impl FnOnce(&mut Reactor<'h>, &mut Driver<'h>) + Send + 'h,
    ) {
        self.common.send(core, Mail::Do(Box::new(task)));
    }

    /// As `post`, with the place that a service has on that core. Nothing happens if it is not there.
    fn post_for<M>(
        &self,
        service: &Spread<M>,
        core: usize,
        task: impl FnOnce(&mut Reactor<'h>, usize) + Send + 'h,
    ) {
        let identity = service.handles[core].identity();
        self.post(core, move |reactor, _| {
            if let Some(place) = reactor.place_of(&identity) {
                task(reactor, place);
            }
        });
    }

    /// Changes a service on all cores but the first one.
    fn on_others<M>(
        &self,
        service: &Spread<M>,
        change: impl Fn(&mut Reactor<'h>, usize) + Clone + Send + 'h,
    ) {
        for core in 1..self.count() {
            self.post_for(service, core, change.clone());
        }
    }

    /// What changes the cores while they run, from any thread; see [`Remote`].
    pub fn remote(&self) -> Remote<'h> {
        self.remote.clone()
    }

    /// As [`Reactor::stop_on_signals`]: ends all cores. Needs the feature `signals`.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses.
    #[cfg(feature = "signals")]
    pub fn stop_on_signals(&mut self) -> Result<(), Error> {
        self.first.stop_on_signals()
    }

    /// As [`Reactor::reload_on_hangup`], for all cores. It replaces the hook of
    /// [`on_hangup`](Self::on_hangup). Needs the feature `signals`.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses.
    #[cfg(feature = "signals")]
    pub fn reload_on_hangup(&mut self) -> Result<(), Error> {
        self.first.reload_on_hangup()
    }

    /// Calls a hook at SIGHUP, which would otherwise end the process. The hook runs between two turns of the
    /// first core, which serves nobody meanwhile, so let a thread do what takes long and post the change to a
    /// [`Remote`]. Several signals that come before it runs may be one call.
    ///
    /// The hook replaces an earlier one, and [`reload_on_hangup`](Self::reload_on_hangup) too: call
    /// [`reload`](Self::reload) in it to read certificates again. A panic in it is logged, and the cores go
    /// on. Needs the feature `signals`.
    ///
    /// ```
    /// use reactor::{Callbacks, Cores, Limits};
    ///
    /// let mut cores = Cores::new(1)?;
    /// let service = cores.listen("127.0.0.1:0", |_| Callbacks::new())?;
    /// cores.on_hangup(move |cores| {
    ///     let limits = Limits { max_connections: 500, ..Limits::default() }; // from your settings
    ///     if let Err(error) = cores.set_limits(&service, limits) {
    ///         eprintln!("{error}"); // the old limits stay in force
    ///     }
    ///     cores.reload();
    /// })?;
    /// # cores.first().stop();
    /// cores.run()?;
    /// # Ok::<(), reactor::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses.
    #[cfg(feature = "signals")]
    pub fn on_hangup(&mut self, hook: impl FnMut(&mut Cores<'h>) + 'h) -> Result<(), Error> {
        self.first.leave_hangup()?;
        self.hook = Some(Box::new(hook));
        Ok(())
    }

    /// The state of all cores together, before and after they have [run](Self::run). While they run, it is
    /// that of the first core alone, since nobody waits for the others: a handler can
    /// [ask](crate::Context::request_report) for the state of all.
    pub fn status(&self) -> Status {
        let mut sum = self.first.status();
        self.ended.iter().for_each(|status| answers::add_status(&mut sum, status.clone()));
        sum
    }
}

impl<M> Spread<M> {
    /// Where `listen` has had it listen, with the real port; none for one that was [added](Cores::add) without
    /// a listener. Later changes do not show here.
    pub fn address(&self) -> Option<&Address> {
        self.service.address()
    }

    /// The port it listens on; 0 for a Unix socket and without a listener.
    pub fn port(&self) -> u16 {
        self.service.port()
    }

    /// Which service it is on each core.
    fn identities(&self) -> Vec<Identity> {
        self.handles.iter().map(Handle::identity).collect()
    }

    /// The handles of its handlers, that of the first core first.
    pub fn handles(&self) -> &[Handle<M>] {
        &self.handles
    }
}

impl<M> Clone for Spread<M> {
    fn clone(&self) -> Self {
        let Spread { service, handles, loads } = self;
        Spread { service: service.clone(), handles: handles.clone(), loads: loads.clone() }
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
