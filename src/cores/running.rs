//! The threads that run the cores, and what the first core does between its turns.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::Receiver;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::common::{Common, Mail};
use super::driver::{Driver, FIRST_TURN, words};
use super::{Cores, answers};
use crate::error::Error;
use crate::reactor::for_cores::Seed;
use crate::reactor::{Exit, Reactor, Status};

/// A core whose thread has not been started yet.
pub(super) struct Planned<'h> {
    pub(super) core: usize,
    pub(super) seed: Seed,
    pub(super) mail: Receiver<Mail<'h>>,
    /// All cores count time from there: when the first one was made.
    pub(super) start: Instant,
}

/// How a core has ended.
type Outcome = Result<(Exit, Status), Error>;

impl<'h> Cores<'h> {
    /// Runs all cores until a handler on any of them, a [`Handle`](crate::Handle) or a signal stops it. What they
    /// [inherit](Self::inherit) they take over before the first turn. After an [upgrade](Self::hand_on) they end by
    /// themselves once nobody is left.
    ///
    /// # Errors
    /// [`Error::Upgrade`] if there was something to inherit and it was not handed on: nobody was served here.
    /// [`Error::Io`] when a selector fails or a thread cannot be started, and [`Error::Core`] for a
    /// panic outside of a hook, such as one while a handler is made before they run. Then the other cores
    /// have been shut down gracefully.
    pub fn run(&mut self) -> Result<Exit, Error> {
        let exit = if self.count() == 1 { self.run_alone() } else { self.run_all() };
        // Changes that are still in the queue are dropped.
        let dropped = self.changes.take().map_or(0, |changes| changes.inbox.waiting());
        if dropped > 0 {
            log::warn!("{dropped} changes were not made before the end");
        }
        exit
    }

    fn run_alone(&mut self) -> Result<Exit, Error> {
        if self.first.heir_patience().is_some() {
            self.first.succeed()?;
        }
        self.run_first()
    }

    fn run_all(&mut self) -> Result<Exit, Error> {
        let common = Arc::clone(&self.common);
        let succeeding = self.first.heir_patience().map(|patience| self.begin_to_succeed(patience));
        let (first, others) = thread::scope(|scope| {
            let planned = std::mem::take(&mut self.others);
            let (mut threads, mut failed) = (Vec::new(), None);
            for planned in planned {
                match planned.spawn(scope, &common) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            let first = guard(0, &common, || {
                if let Some(all) = succeeding {
                    self.succeed(all)?;
                }
                let exit = self.run_first()?;
                self.driver.wait_for_others(&mut self.first)?;
                Ok(exit)
            });
            let joined = |thread: ScopedJoinHandle<'_, _>| {
                thread
                    .join()
                    .unwrap_or_else(|panic| Err(Error::Core { core: 0, why: words(&*panic) }))
            };
            let others: Vec<Outcome> = threads.into_iter().map(joined).collect();
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

    /// Runs the first core to its end.
    fn run_first(&mut self) -> Result<Exit, Error> {
        let mut timeout = FIRST_TURN;
        loop {
            if let Some(exit) = self.first.exit() {
                return Ok(exit);
            }
            self.turn_first(timeout.take())?;
        }
    }

    /// Runs one turn of the first core, which waits for `timeout` at most, and what comes after it.
    pub(super) fn turn_first(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        self.first.turn(timeout)?;
        if self.first.exit().is_none() {
            self.make_changes();
        }
        if self.count() > 1 {
            self.driver.end_turn(&mut self.first);
        }
        Ok(())
    }

    /// Makes the changes that were posted before this call, and calls the hook after a SIGHUP.
    fn make_changes(&mut self) {
        let waiting = self.changes.as_ref().map_or(0, |changes| changes.inbox.waiting());
        for _ in 0..waiting {
            let Some(change) = self.changes.as_mut().and_then(|changes| changes.next()) else {
                break;
            };
            self.unless_panicked("a change", change);
        }
        if waiting > 0 {
            // A shutdown may wait for that, and nothing else would wake it.
            self.common.wake(0);
        }
        #[cfg(feature = "signals")]
        if self.first.take_hangup()
            && let Some(mut hook) = self.hook.take()
        {
            self.unless_panicked("the hook for SIGHUP", &mut hook);
            // The hook may have set another one.
            self.hook.get_or_insert(hook);
        }
    }

    fn unless_panicked(&mut self, what: &str, change: impl FnOnce(&mut Cores<'h>)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| change(self))) {
            log::error!("{what}: {}: going on", words(&*panic));
        }
    }
}

impl<'h> Planned<'h> {
    /// Starts the thread of this core.
    fn spawn<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        common: &Arc<Common<'h>>,
    ) -> Result<ScopedJoinHandle<'scope, Outcome>, Error>
    where
        'h: 'scope,
    {
        let (core, own) = (self.core, Arc::clone(common));
        common.running.fetch_add(1, SeqCst);
        let run = move || {
            let outcome = guard(core, &own, || self.run(&own));
            own.leave();
            outcome
        };
        let thread = thread::Builder::new().name(format!("core-{core}"));
        thread.spawn_scoped(scope, run).map_err(|error| {
            common.leave();
            common.stop();
            Error::io("there is no thread to be had (ulimit -u), or fewer will do")(error)
        })
    }

    /// Makes the reactor, in its thread, and runs it.
    fn run(self, common: &Arc<Common<'h>>) -> Outcome {
        let (mut reactor, mut driver) = self.make(common);
        let exit = driver.run(&mut reactor)?;
        Ok((exit, reactor.status()))
    }

    /// Makes the reactor, and what drives it.
    pub(super) fn make(self, common: &Arc<Common<'h>>) -> (Reactor<'h>, Driver<'h>) {
        let mut driver = Driver::new(self.core, common, self.mail);
        let mut reactor = Reactor::grow(self.seed);
        reactor.join(self.core, common.len(), self.start);
        driver.begin(&mut reactor);
        (reactor, driver)
    }
}

/// Runs a core. If it fails, the others are shut down.
pub(super) fn guard<R>(
    core: usize,
    common: &Common<'_>,
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

/// How many connections were cut off.
pub(super) fn count(exit: Exit) -> usize {
    match exit {
        Exit::Clean => 0,
        Exit::Cut { connections } => connections,
    }
}
