//! How all cores go over to those of another process, or come from there: each its own part, and all at one moment.
//!
//! ```text
//!  old:  first core                        another core
//!        hand_on -- Mail::Do ----------->  stops between two turns, and does what it is told:
//!        Settle  ----------------------->  takes newcomers that are on their way, and messages
//!             (again, until no core has anything to take: that is the moment)
//!        Send    ----------------------->  writes itself down, sends its parcel, lends its sockets
//!             (one core after the other, since there is one socket)
//!        TAKEN, COMMIT
//!        Leave   ----------------------->  lets go of what has gone
//!
//!  new:  begin_to_succeed -- Mail::Do -->  says so once it has its services, and waits
//!        READY, parcels  ------------->    restores, says what goes on
//!        TAKEN, COMMIT   ------------->    goes on
//! ```
//!
//! The two sides are those of one loop, step by step (`reactor/upgrade/steps.rs`). A core that is told nothing more,
//! since the first one has given up or is gone, goes on as if nothing had happened; on the new side it ends.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::Cores;
use super::driver::Driver;
use crate::error::Error;
use crate::reactor::upgrade::{Parcel, Refusals, Restored, come_to_rest};
use crate::reactor::{HandedOn, Reactor, Successor};

pub(super) fn failed(why: impl Into<String>) -> Error {
    Error::Upgrade { why: why.into() }
}

/// One step of another core on the old side.
enum Step {
    /// With newcomers, it runs turns of the loop to let them in. Hooks are called in these, so the cores are not at
    /// rest after it.
    Settle {
        newcomers: bool,
    },
    /// The baton: who has it sends.
    Send(Successor),
    Leave(Refusals, Duration),
}

/// What has come of it.
enum Done {
    /// How much there was to take.
    Settled(Result<u64, Error>),
    /// The baton, and how many services it has.
    Sent(Successor, Result<usize, Error>),
    Left(HandedOn),
}

/// Another core, as the first one sees it. It goes on when this is dropped.
struct Stopped {
    core: usize,
    steps: Sender<Step>,
    done: Receiver<Done>,
    /// How long it may take to come to the end of its turn, or for a step.
    patience: Duration,
}

impl Stopped {
    fn tell(&self, step: Step) -> Result<(), Error> {
        self.steps.send(step).map_err(|_| self.gone())
    }

    fn hear(&self) -> Result<Done, Error> {
        self.done.recv_timeout(self.patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                failed(format!("core {} does not come to the end of its turn", self.core))
            }
            RecvTimeoutError::Disconnected => self.gone(),
        })
    }

    fn gone(&self) -> Error {
        failed(format!("core {} has failed or is shutting down", self.core))
    }
}

/// Stands between two turns, and does what the first core says.
fn obey(
    reactor: &mut Reactor<'_>,
    driver: &mut Driver<'_>,
    steps: &Receiver<Step>,
    done: &Sender<Done>,
) {
    let mut going = Vec::new();
    while let Ok(step) = steps.recv() {
        let outcome = match step {
            Step::Settle { newcomers } => Done::Settled(settle(reactor, driver, newcomers)),
            Step::Send(to) => {
                let sent = reactor.write_down(&to).map(|all| {
                    going = all;
                    going.len()
                });
                Done::Sent(to, sent)
            }
            Step::Leave(refusals, patience) => {
                let _ = done.send(Done::Left(reactor.leave(going, refusals, patience)));
                return;
            }
        };
        if done.send(outcome).is_err() {
            return;
        }
    }
}

/// Takes what others have sent here. Says how many messages it took.
pub(super) fn settle(
    reactor: &mut Reactor<'_>,
    driver: &mut Driver<'_>,
    newcomers: bool,
) -> Result<u64, Error> {
    let mut before = usize::MAX;
    // The first core accepts nobody meanwhile, so this comes to an end. Those who are not let in by then are let in
    // after the upgrade, by this process.
    while newcomers && !reactor.is_ending() && (1..before).contains(&reactor.awaited()) {
        before = reactor.awaited();
        reactor.turn(Some(Duration::ZERO))?;
    }
    if reactor.is_ending() {
        return Err(Error::ShuttingDown);
    }
    let taken = reactor.take_posted();
    driver.let_go_on(reactor);
    Ok(taken)
}

impl<'h> Cores<'h> {
    /// As [`Reactor::offer`], for all cores.
    ///
    /// # Errors
    /// Those of [`Reactor::offer`].
    pub fn offer(&mut self, to: &mut Successor) -> Result<(), Error> {
        self.first.offer_of(to, self.count())
    }

    /// As [`Reactor::hand_on`], for all cores at one moment: each stops between two turns, takes what others have
    /// posted to it, and hands on its part. A service goes with all its connections, whichever core they are on, or
    /// not at all. The cores must [run](Self::run), so a [`Remote`](crate::Remote) does this.
    ///
    /// # Errors
    /// Those of [`Reactor::hand_on`]. [`Error::Upgrade`] also if a core does not come to the end of its turn within
    /// the patience of the [`Successor`], or if the cores do not come to rest within it, since their handlers answer
    /// every message with another one, or threads post to them without a pause.
    pub fn hand_on(&mut self, to: Successor, patience: Duration) -> Result<HandedOn, Error> {
        if self.count() == 1 {
            return self.first.hand_on(to, patience);
        }
        self.first.may_begin()?;
        to.await_ready()?;
        self.first.offers_still(&to)?;
        let others = self.stop_others(to.patience())?;
        self.come_to_rest(&others, to.patience())?;
        let own = self.first.write_down(&to)?;
        let (mut to, mut services) = (to, vec![own.len()]);
        for other in &others {
            other.tell(Step::Send(to))?;
            let Done::Sent(back, sent) = other.hear()? else { return Err(other.gone()) };
            to = back;
            services.push(sent?);
        }
        let mut refusals = to.hear_taken(&services)?.into_iter();
        to.commit()?;
        // A core that does not hear of it has ended, and with that its connections.
        let handed_on = self.first.leave(own, refusals.next().unwrap_or_default(), patience);
        Ok(others.iter().zip(refusals).fold(handed_on, |sum, (other, refusals)| {
            let left = other.tell(Step::Leave(refusals, patience)).and_then(|()| other.hear());
            match left {
                Ok(Done::Left(left)) => HandedOn {
                    connections: sum.connections + left.connections,
                    left: sum.left + left.left,
                },
                _ => sum,
            }
        }))
    }

    /// Has each other core stop between two turns.
    fn stop_others(&self, patience: Duration) -> Result<Vec<Stopped>, Error> {
        if self.common.running.load(SeqCst) + 1 < self.count() {
            return Err(failed("not all cores run"));
        }
        let stop = |core| {
            let ((steps, told), (tell, done)) = (channel(), channel());
            self.post(core, move |reactor, driver| {
                obey(reactor, driver, &told, &tell);
                // Whatever there was to do meanwhile is done in the next turn.
                reactor.shared().wake();
            });
            Stopped { core, steps, done, patience }
        };
        Ok((1..self.count()).map(stop).collect())
    }

    /// Has all cores take what they have sent each other until nothing is left.
    fn come_to_rest(&mut self, others: &[Stopped], patience: Duration) -> Result<(), Error> {
        come_to_rest(patience, |newcomers| {
            for other in others {
                other.tell(Step::Settle { newcomers })?;
            }
            let mut taken = settle(&mut self.first, &mut self.driver, newcomers)?;
            for other in others {
                let Done::Settled(settled) = other.hear()? else { return Err(other.gone()) };
                taken += settled?;
            }
            Ok(taken)
        })
    }

    /// As [`Reactor::inherit`], for all cores; there have to be as many as on the other side. To be called before
    /// services are added. [`run`](Self::run) takes over what is handed on.
    ///
    /// # Errors
    /// Those of [`Reactor::inherit`].
    pub fn inherit(&mut self, from: UnixStream, patience: Duration) -> Result<(), Error> {
        self.first.inherit_of(from, patience, self.count())?;
        let start: Instant = self.first.started_at();
        self.others.iter_mut().for_each(|planned| planned.start = start);
        Ok(())
    }

    /// Has each other core wait for its part once it has its services.
    pub(super) fn begin_to_succeed(&self, patience: Duration) -> Vec<Heir> {
        let begin = |core| {
            let ((parcels, parcel), (tell, restored)) = (channel(), channel());
            let (verdicts, verdict) = channel();
            self.post(core, move |reactor, _| {
                if take_over(reactor, &parcel, &tell, &verdict).is_none() {
                    // Its connections belong to the other process.
                    reactor.cut_off();
                }
            });
            Heir { core, parcels, restored, verdicts, patience }
        };
        (1..self.count()).map(begin).collect()
    }

    /// Takes over what was handed on, on all cores.
    pub(super) fn succeed(&mut self, heirs: Vec<Heir>) -> Result<(), Error> {
        // The other side stops once it hears READY, and is not to stand still until the last handler is made here.
        let ready = heirs.iter().try_for_each(|heir| heir.hear().map(drop));
        ready.map_err(|why| self.first.refuse_parcel(&why))?;
        let mut parcels = self.first.receive_parcels(self.count())?.into_iter();
        let own = parcels.next().unwrap_or_default();
        let restored = self.restore_all(own, parcels, &heirs);
        let mut all = restored.map_err(|why| self.first.refuse_parcel(&why))?;
        take_on_all_or_none(&mut all);
        self.first.confirm(&all.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let mut all = all.into_iter();
        let own = all.next().unwrap_or_default();
        for (heir, restored) in heirs.iter().zip(all) {
            let _ = heir.verdicts.send(restored);
        }
        self.first.go_on_with(&own);
        for heir in &heirs {
            // Nobody is accepted before all have counted whom they have. One that has failed ends the others.
            let _ = heir.hear();
        }
        Ok(())
    }

    fn restore_all(
        &mut self,
        own: Parcel,
        parcels: impl Iterator<Item = Parcel>,
        heirs: &[Heir],
    ) -> Result<Vec<Vec<Restored>>, String> {
        for (heir, parcel) in heirs.iter().zip(parcels) {
            // Who has failed is missed below.
            let _ = heir.parcels.send(parcel);
        }
        let mut all = vec![self.first.restore(own)?];
        for heir in heirs {
            all.push(heir.hear()?);
        }
        Ok(all)
    }
}

/// Another core of the new side, as the first one sees it.
pub(super) struct Heir {
    core: usize,
    parcels: Sender<Parcel>,
    /// Nothing once it has its services, then what it can go on with, and nothing once it does.
    restored: Receiver<Result<Vec<Restored>, String>>,
    /// What it does go on with.
    verdicts: Sender<Vec<Restored>>,
    /// How long it may take for a step.
    patience: Duration,
}

impl Heir {
    fn hear(&self) -> Result<Vec<Restored>, String> {
        self.restored.recv_timeout(self.patience).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => format!("core {} is not ready in time", self.core),
                // Perhaps not this one: a core that fails ends the others.
                RecvTimeoutError::Disconnected => "a core has failed; the log says why".to_owned(),
            })
        })
    }
}

/// Takes over the part of another core. None if that was not handed on.
fn take_over(
    reactor: &mut Reactor<'_>,
    parcel: &Receiver<Parcel>,
    tell: &Sender<Result<Vec<Restored>, String>>,
    verdict: &Receiver<Vec<Restored>>,
) -> Option<()> {
    tell.send(Ok(Vec::new())).ok()?;
    let restored = reactor.restore(parcel.recv().ok()?);
    tell.send(restored).ok()?;
    reactor.go_on_with(&verdict.recv().ok()?);
    // Nobody listens any more if the first core has failed meanwhile.
    let _ = tell.send(Ok(Vec::new()));
    Some(())
}

/// If one core cannot go on with a service, no core does. Services of the same name are told apart by their order.
pub(super) fn take_on_all_or_none(all: &mut [Vec<Restored>]) {
    let mut outcomes: HashMap<(String, usize), (bool, Option<String>)> = HashMap::new();
    let keys: Vec<Vec<_>> = all.iter().map(|restored| keys(restored)).collect();
    for (key, one) in keys.iter().flatten().zip(all.iter().flatten()) {
        let first = || (one.saved, None);
        let (saved, refused) = outcomes.entry(key.clone()).or_insert_with(first);
        let differs = *saved != one.saved;
        let why = one.refused.clone();
        let why = why.or_else(|| differs.then(|| "a core has saved nothing of it".to_owned()));
        *refused = refused.take().or(why);
    }
    for (key, one) in keys.iter().flatten().zip(all.iter_mut().flatten()) {
        one.refused = outcomes[key].1.clone();
    }
}

fn keys(restored: &[Restored]) -> Vec<(String, usize)> {
    let mut seen = HashMap::new();
    let key = |one: &Restored| {
        let count = seen.entry(one.name.clone()).or_insert(0);
        *count += 1;
        (one.name.clone(), *count)
    };
    restored.iter().map(key).collect()
}
