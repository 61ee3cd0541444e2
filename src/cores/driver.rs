//! Runs the loop of one core, and does after each turn what the others have to do with it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::answers;
use super::common::{Common, Mail, Task};
use super::peers::Others;
use crate::connection::ConnId;
use crate::error::Error;
use crate::reactor::reports::Asked;
use crate::reactor::total_memory::Memory;
use crate::reactor::{Ask, Exit, Reactor, Report};

/// The first turn does not wait for an event: what handlers said to others while they were made would wait with
/// it.
pub(super) const FIRST_TURN: Option<Duration> = Some(Duration::ZERO);

/// What drives one core.
pub(super) struct Driver<'h> {
    core: usize,
    common: Arc<Common<'h>>,
    mail: Receiver<Mail<'h>>,
    /// What this core's handlers have said to others in this turn.
    pub(super) others: Rc<Others>,
    /// What was asked of all cores and not all have answered.
    asked: Vec<Collecting>,
    tickets: u64,
    /// Connections that wait until other cores have caught up.
    ahead: Vec<(usize, ConnId)>,
    /// The others know that the shutdown has begun.
    told: bool,
    /// The others know that nobody is left here.
    deserted: bool,
    /// What the others know that the connections here have of each [`Memory`].
    published: [usize; 2],
}

/// What a handler has asked for, and the answers so far.
struct Collecting {
    ticket: u64,
    asked: Asked,
    /// How many cores are still to answer.
    left: usize,
}

impl<'h> Driver<'h> {
    pub(super) fn new(
        core: usize,
        common: &Arc<Common<'h>>,
        mail: Receiver<Mail<'h>>,
    ) -> Driver<'h> {
        Driver {
            core,
            mail,
            others: Rc::new(Others::new(common.len())),
            common: Arc::clone(common),
            asked: Vec::new(),
            tickets: 0,
            ahead: Vec::new(),
            told: false,
            deserted: false,
            published: [0; 2],
        }
    }

    /// Does the tasks that were posted before this core runs. A panic ends this core, and with it all others.
    pub(super) fn begin(&mut self, reactor: &mut Reactor<'h>) {
        while let Ok(mail) = self.mail.try_recv() {
            match mail {
                // After a stop, the first turn of this core ends it.
                Mail::Do(task) if !reactor.is_ending() => task(reactor, self),
                mail => self.read(mail, reactor),
            }
        }
    }

    /// Runs the loop to its end.
    pub(super) fn run(&mut self, reactor: &mut Reactor<'h>) -> Result<Exit, Error> {
        let mut timeout = FIRST_TURN;
        loop {
            if let Some(exit) = reactor.exit() {
                return Ok(exit);
            }
            self.turn(reactor, timeout.take())?;
        }
    }

    /// One turn of the loop, which waits for so long at most, and what comes after it.
    pub(super) fn turn(
        &mut self,
        reactor: &mut Reactor<'h>,
        timeout: Option<Duration>,
    ) -> Result<(), Error> {
        reactor.turn(timeout)?;
        self.end_turn(reactor);
        Ok(())
    }

    /// The first core waits for the others, since a second signal is to end them too.
    pub(super) fn wait_for_others(&mut self, reactor: &mut Reactor<'h>) -> Result<(), Error> {
        self.end(reactor);
        while self.common.running.load(SeqCst) > 0 {
            reactor.idle()?;
            self.end(reactor);
        }
        Ok(())
    }

    /// What comes after each turn.
    pub(super) fn end_turn(&mut self, reactor: &mut Reactor<'h>) {
        self.ask(reactor);
        while let Ok(mail) = self.mail.try_recv() {
            self.read(mail, reactor);
        }
        self.hold_to_totals(reactor);
        self.let_go_on(reactor);
        if self.common.is_awaited(self.core) && Others::has_caught_up(reactor.backlog()) {
            self.common.catch_up(self.core);
        }
        self.end_with_others(reactor);
        // Before a shutdown is passed on: it comes after what was said.
        self.others.to_wake().for_each(|core| self.common.wake(core));
        self.end(reactor);
    }

    /// After an upgrade, ends this core once nobody is left on any: until then others may post to it.
    fn end_with_others(&mut self, reactor: &mut Reactor<'_>) {
        // In this order: what one has posted before it was deserted is seen here.
        let all = self.common.are_deserted();
        let deserted = reactor.is_deserted();
        if deserted != self.deserted {
            self.deserted = deserted;
            self.common.set_deserted(deserted);
        }
        if all && deserted {
            reactor.end_deserted();
        }
    }

    /// Passes a shutdown on, or an end at once.
    fn end(&mut self, reactor: &mut Reactor<'_>) {
        if reactor.is_ending() && !self.told {
            self.told = true;
            self.common.stop();
        }
        if reactor.is_hurried() {
            self.common.cut();
        }
        if self.common.is_cut() && reactor.exit().is_none() {
            reactor.cut_off();
        }
    }

    /// Asks all cores what handlers here have asked for in the turn.
    fn ask(&mut self, reactor: &mut Reactor<'h>) {
        let asked = reactor.for_cores().map(|noted| std::mem::take(&mut noted.asked));
        for asked in asked.unwrap_or_default() {
            self.tickets += 1;
            let (ticket, from) = (self.tickets, self.core);
            let own = answer(answers::part(&asked.what, from), reactor);
            let others = (0..self.common.len()).filter(|core| *core != from);
            let left = others.filter(|core| {
                let what = answers::part(&asked.what, *core);
                self.common.send(*core, Mail::Ask { from, ticket, what })
            });
            // One more, for the own answer.
            let left = left.count() + 1;
            self.asked.push(Collecting { ticket, asked, left });
            self.collect(ticket, from, own, reactor);
        }
    }

    fn read(&mut self, mail: Mail<'h>, reactor: &mut Reactor<'h>) {
        match mail {
            Mail::Ask { from, ticket, what } => {
                let report = Box::new(answer(what, reactor));
                self.common.send(from, Mail::Answer { ticket, core: self.core, report });
            }
            Mail::Answer { ticket, core, report } => self.collect(ticket, core, *report, reactor),
            // A core that is shutting down takes no tasks.
            Mail::Do(_) if reactor.is_ending() => {}
            Mail::Do(task) => self.attempt(task, reactor),
        }
    }

    /// Does a task while clients are served. A panic is logged, and the loop goes on: a service that could not
    /// be made here runs on the other cores alone.
    fn attempt(&mut self, task: Box<Task<'h>>, reactor: &mut Reactor<'h>) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| task(reactor, self))) {
            log::error!("core {}: {}: going on without that", self.core, words(&*panic));
        }
    }

    /// A core has answered. If it was the last one, the handler is told.
    fn collect(&mut self, ticket: u64, core: usize, report: Report, reactor: &mut Reactor<'_>) {
        let Some(place) = self.asked.iter().position(|one| one.ticket == ticket) else { return };
        let Collecting { asked, left, .. } = &mut self.asked[place];
        let sum = asked.answer.take();
        let sum = answers::add(sum, core, report, &asked.what, self.common.len());
        *left -= 1;
        if *left > 0 {
            asked.answer = Some(sum);
        } else {
            reactor.answer(asked.service, asked.id, sum);
            self.asked.swap_remove(place);
        }
    }

    /// Says what the connections here have of memory. If all cores together have too much, the one with
    /// most ends some of its connections: here now, elsewhere in the next turn.
    fn hold_to_totals(&mut self, reactor: &mut Reactor<'_>) {
        for memory in [Memory::Output, Memory::Input] {
            let (bound, own) = (reactor.most(memory), reactor.total(memory));
            // Who has nothing has nothing to end: in most turns no core looks at what others write.
            if std::mem::replace(&mut self.published[memory as usize], own) == 0 && own == 0 {
                continue;
            }
            let (sum, largest) = self.common.publish(self.core, memory, own);
            if sum > bound && largest == self.core {
                // An eighth is to be free again; but no core gives more than its equal share of what is
                // too much, since then another one has most.
                let enough = bound / 8 * 7;
                let rest = own.saturating_sub(sum - enough).max(enough / self.common.len());
                reactor.reset_largest(memory, rest / 7 * 8);
            } else if sum > bound {
                self.common.wake(largest);
            }
        }
    }

    /// Has connections go on for which other cores have caught up.
    pub(super) fn let_go_on(&mut self, reactor: &mut Reactor<'_>) {
        if let Some(noted) = reactor.for_cores() {
            self.ahead.append(&mut noted.ahead);
        }
        if self.ahead.is_empty() {
            return;
        }
        let behind = self.others.behind();
        // Its own messages it takes in the next turns.
        for core in behind.iter().filter(|core| **core != self.core) {
            // Woken after that, since it may have caught up just before.
            self.common.await_core(*core);
            self.others.wake(*core);
        }
        if behind.is_empty() {
            self.ahead.drain(..).for_each(|(service, id)| reactor.go_on(service, id));
        }
    }
}

/// The message of a panic.
pub(super) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a panic: {}", text.unwrap_or("without words"))
}

/// What one core has to say.
fn answer(what: Ask, reactor: &mut Reactor<'_>) -> Report {
    match what {
        Ask::Overview { watch } => {
            if watch {
                reactor.watch();
            }
            Report::Overview(reactor.status())
        }
        Ask::Connections(which) => Report::Connections(reactor.connections(&which)),
        Ask::Close { number, why } => Report::Closed(reactor.close(number, &why)),
    }
}
