//! Several cores in one thread, where a test says which of them runs next.

use std::fmt;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::Cores;
use super::common::Common;
use super::driver::Driver;
use super::running::{count, guard};
use super::upgrade::{failed, settle, take_on_all_or_none};
use crate::error::Error;
use crate::reactor::upgrade::come_to_rest;
use crate::reactor::{Exit, Reactor, Status, Successor};

/// Both ends of an upgrade are in one thread, so nothing that is waited for is still to come.
const SILENCE: Duration = Duration::from_secs(1);

/// Several [`Cores`] in one thread, turned by hand: the test says which one runs next, and with that
/// when what others have posted, asked and handed over arrives. The clock stands still until the test
/// moves it.
///
/// All else is real, the sockets too. With Unix sockets, of which the clients are in the same thread,
/// nothing depends on anything but the order of the turns, so that the same order gives the same run.
///
/// A [`Remote`](crate::Remote) that was taken before works here too: the first core makes the change in its next
/// turn, and each other core follows in its own.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::TcpStream;
/// use reactor::{Context, Core, Cores, Handler, testing::CoresByHand};
///
/// struct Where(usize);
///
/// impl Handler for Where {
///     type Session = ();
///     type Message = ();
///
///     fn on_open(&mut self, cx: &mut Context<'_, ()>) {
///         writeln!(cx, "{}", self.0);
///     }
/// }
///
/// let mut cores = Cores::new(2)?;
/// let port = cores.listen("127.0.0.1:0", |core: Core<()>| Where(core.index()))?.port();
/// let mut cores = CoresByHand::new(cores)?;
/// let clients = [port; 8].map(|port| TcpStream::connect(("127.0.0.1", port)).unwrap());
/// while let Some(core) = (0..2).find(|core| cores.is_due(*core)) {
///     cores.turn(core);
/// }
/// let on = clients.map(|mut client| {
///     let mut line = [0; 2];
///     client.read_exact(&mut line).unwrap();
///     line[0] - b'0'
/// });
/// assert_eq!(on.iter().filter(|core| **core == 1).count(), 4);
/// # Ok::<(), reactor::Error>(())
/// ```
pub struct CoresByHand<'h> {
    common: Arc<Common<'h>>,
    cores: Vec<Turned<'h>>,
    /// How much time has passed.
    clock: Duration,
    /// Those that have [handed on](Self::upgrade), and still have somebody.
    former: Vec<CoresByHand<'h>>,
}

/// One of them.
enum Turned<'h> {
    Running(Box<Running<'h>>),
    Failed(Error),
}

struct Running<'h> {
    turns: Turns<'h>,
    /// Watches the selector of the reactor.
    selector: Poll,
    events: Events,
    /// That one has had events since the last turn.
    woken: bool,
}

/// Runs the turns of one core.
enum Turns<'h> {
    OfFirst(Cores<'h>),
    OfOther(Reactor<'h>, Driver<'h>),
}

impl<'h> Turns<'h> {
    fn reactor(&self) -> &Reactor<'h> {
        match self {
            Turns::OfFirst(cores) => &cores.first,
            Turns::OfOther(reactor, _) => reactor,
        }
    }

    fn parts(&mut self) -> (&mut Reactor<'h>, &mut Driver<'h>) {
        match self {
            Turns::OfFirst(cores) => (&mut cores.first, &mut cores.driver),
            Turns::OfOther(reactor, driver) => (reactor, driver),
        }
    }

    fn turn(&mut self) -> Result<(), Error> {
        let timeout = Some(Duration::ZERO);
        match self {
            Turns::OfFirst(cores) => cores.turn_first(timeout),
            Turns::OfOther(reactor, driver) => driver.turn(reactor, timeout),
        }
    }
}

impl<'h> Turned<'h> {
    fn new(turns: Turns<'h>) -> Result<Turned<'h>, Error> {
        let selector = Poll::new().map_err(Error::io("cannot make a selector"))?;
        let registry = selector.registry();
        registry
            .register(&mut SourceFd(&turns.reactor().as_raw_fd()), Token(0), Interest::READABLE)
            .map_err(Error::io("cannot watch a selector"))?;
        let events = Events::with_capacity(1);
        Ok(Turned::Running(Box::new(Running { turns, selector, events, woken: false })))
    }
}

impl Running<'_> {
    fn is_due(&mut self, clock: Duration) -> bool {
        // An interruption is no event. Whatever else it fails with, the turn will as well.
        let polled = self.selector.poll(&mut self.events, Some(Duration::ZERO));
        self.woken |= polled.is_ok() && !self.events.is_empty();
        let reactor = self.turns.reactor();
        reactor.exit().is_none() && (self.woken || reactor.is_due(clock))
    }

    fn turn(&mut self, clock: Duration) -> Result<(), Error> {
        if self.turns.reactor().exit().is_none() {
            self.woken = false;
            self.turns.parts().0.set_clock(clock);
            self.turns.turn()?;
        }
        Ok(())
    }
}

impl<'h> CoresByHand<'h> {
    /// Makes the reactors and the handlers of all cores.
    ///
    /// # Errors
    /// What a core's [run](Cores::run) may end with before its first turn.
    pub fn new(cores: Cores<'h>) -> Result<Self, Error> {
        let mut cores = cores;
        let (common, others) = (Arc::clone(&cores.common), std::mem::take(&mut cores.others));
        let mut all = vec![Turned::new(Turns::OfFirst(cores))?];
        for planned in others {
            let (reactor, driver) = planned.make(&common);
            all.push(Turned::new(Turns::OfOther(reactor, driver))?);
        }
        Ok(CoresByHand { common, cores: all, clock: Duration::ZERO, former: Vec::new() })
    }

    /// Whether the core has something to do now; else it would sleep. Never once it has ended.
    pub fn is_due(&mut self, core: usize) -> bool {
        let own = match &mut self.cores[core] {
            Turned::Running(running) => running.is_due(self.clock),
            Turned::Failed(_) => false,
        };
        own || self.former.iter_mut().any(|former| former.is_due(core))
    }

    /// Runs one turn of a core. It does not wait, and does nothing once the core has ended.
    pub fn turn(&mut self, core: usize) {
        self.former.iter_mut().for_each(|former| former.turn(core));
        self.former.retain(|former| former.exit().is_none());
        let clock = self.clock;
        self.run(core, |running| running.turn(clock));
    }

    /// Has a core fail as by a panic outside of a hook: it is gone with all its connections, and the
    /// others shut down.
    pub fn fail(&mut self, core: usize) {
        self.run(core, |_| resume_unwind(Box::new("on purpose")));
    }

    /// Does something with a core; if it fails, what its thread owns is gone.
    fn run(&mut self, core: usize, what: impl FnOnce(&mut Running<'h>) -> Result<(), Error>) {
        // In its place meanwhile; nobody sees it.
        let taken = std::mem::replace(&mut self.cores[core], Turned::Failed(Error::ShuttingDown));
        self.cores[core] = match taken {
            Turned::Failed(error) => Turned::Failed(error),
            Turned::Running(running) => guard(core, &self.common, move || {
                let mut running = running;
                what(&mut running)?;
                Ok(running)
            })
            .map_or_else(Turned::Failed, Turned::Running),
        };
    }

    /// Lets time pass, for all cores. What comes due meanwhile is due then.
    pub fn advance(&mut self, time: Duration) {
        self.clock += time;
        self.former.iter_mut().for_each(|former| former.advance(time));
    }

    /// Has as many new cores go on with what these have, as those of another process do after
    /// [`Cores::hand_on`], between two turns of each core. `set_up` adds the services of the new ones. From
    /// then on all here is about these; the former cores serve whom they still have in the same turns, for `patience` at
    /// most.
    ///
    /// # Errors
    /// Those of [`Cores::hand_on`] and of `set_up`. Then the cores go on as if nothing had happened.
    pub fn upgrade<T>(
        &mut self,
        patience: Duration,
        set_up: impl FnOnce(&mut Cores<'h>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // What was posted before is done before.
        (0..self.cores.len()).for_each(|core| self.turn(core));
        let pair = UnixStream::pair().map_err(Error::io("cannot make a pair of sockets"))?;
        let (mut to, mut cores) = (Successor::new(pair.0, SILENCE)?, Cores::new(self.cores.len())?);
        let count = self.cores.len();
        self.reactor(0)?.offer_of(&mut to, count)?;
        cores.inherit(pair.1, SILENCE)?;
        let made = set_up(&mut cores)?;
        let mut next = CoresByHand::new(cores)?;
        next.clock = self.clock;
        self.come_to_rest()?;
        let mut gone = Vec::new();
        let mut all = Vec::new();
        for core in 0..count {
            // One after the other, so that little is on the way at once.
            gone.push(self.reactor(core)?.write_down(&to)?);
            let parcel = next.reactor(0)?.receive_parcels(1)?.pop().unwrap_or_default();
            let restored = next.reactor(core)?.restore(parcel);
            all.push(restored.map_err(|why| failed(why.to_string()))?);
        }
        take_on_all_or_none(&mut all);
        for (core, (going, restored)) in gone.into_iter().zip(&all).enumerate() {
            let refusals = restored.iter().map(|one| one.refused.clone()).collect();
            self.reactor(core)?.leave(going, refusals, patience);
            next.reactor(core)?.go_on_with(restored);
        }
        let mut old = std::mem::replace(self, next);
        self.former = std::mem::take(&mut old.former);
        self.former.push(old);
        Ok(made)
    }

    /// The reactor of that core, for which no more time has passed than for all.
    fn reactor(&mut self, core: usize) -> Result<&mut Reactor<'h>, Error> {
        match &mut self.cores[core] {
            Turned::Running(running) => {
                let (reactor, _) = running.turns.parts();
                reactor.set_clock(self.clock);
                Ok(reactor)
            }
            Turned::Failed(_) => Err(Error::ShuttingDown),
        }
    }

    /// Has the cores take what they have sent each other until nothing is left.
    fn come_to_rest(&mut self) -> Result<(), Error> {
        come_to_rest(Duration::MAX, |newcomers| {
            let mut taken = 0;
            for turned in &mut self.cores {
                let Turned::Running(running) = turned else { return Err(Error::ShuttingDown) };
                let (reactor, driver) = running.turns.parts();
                reactor.set_clock(self.clock);
                reactor.may_begin()?;
                taken += settle(reactor, driver, newcomers)?;
            }
            Ok(taken)
        })
    }

    /// The state of one core; none if it has failed.
    pub fn status(&self, core: usize) -> Option<Status> {
        match &self.cores[core] {
            Turned::Running(running) => Some(running.turns.reactor().status()),
            Turned::Failed(_) => None,
        }
    }

    /// How all of them ended, as [`Cores::run`] says it: the error is that of the first core that failed.
    /// None while one is running.
    pub fn exit(&self) -> Option<Result<Exit, &Error>> {
        if self.former.iter().any(|former| former.exit().is_none()) {
            return None;
        }
        let (mut cut, mut failed) = (0, None);
        for turned in &self.cores {
            match turned {
                Turned::Running(running) => cut += count(running.turns.reactor().exit()?),
                Turned::Failed(error) => failed = failed.or(Some(error)),
            }
        }
        Some(match (failed, cut) {
            (Some(error), _) => Err(error),
            (None, 0) => Ok(Exit::Clean),
            (None, connections) => Ok(Exit::Cut { connections }),
        })
    }
}

impl fmt::Debug for CoresByHand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoresByHand").field("count", &self.cores.len()).finish_non_exhaustive()
    }
}
