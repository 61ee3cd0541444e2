//! What a loop that is one of several [cores](crate::Cores) lends to what holds them together. A loop
//! that is alone comes by none of this.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Poll, Registry};

use super::handle::{Identity, Mailbox, Shared};
use super::listening::{Bound, Share};
use super::loop_state::{ForCores, ServiceEntry};
use super::reports::Asked;
use super::service::{ActiveService, type_name_of};
use super::table::{SharedLimits, Table};
use super::total_memory::{self, Memory};
use super::{Ask, Reactor, Report};
use crate::connection::ConnId;
use crate::connection::clock::nanos;
use crate::error::Error;
use crate::handler::Handler;
use crate::limits::Limits;
use crate::net::Listen;
use crate::net::newcomers::Distributor;

/// What another thread makes a reactor of: its selector and what wakes it are there before it is, so that
/// others can post to it already.
pub(crate) struct Seed {
    pub(super) poll: Poll,
    /// Made along with it: once clients come there may be no descriptor left.
    pub(super) registry: Registry,
    pub(crate) shared: Arc<Shared>,
}

impl Reactor<'_> {
    /// Makes it one of so many cores, which count time from the same moment and have numbers of their own.
    pub(crate) fn join(&mut self, core: usize, cores: usize, start: Instant) {
        self.state.join(core, cores, start);
    }

    /// Whether there are other cores.
    pub(crate) fn is_one_of_several(&self) -> bool {
        self.state.for_cores.is_some()
    }

    pub(crate) fn started_at(&self) -> Instant {
        self.state.start()
    }

    /// Sets the clock to so much after [`started_at`](Self::started_at). It goes on from there.
    pub(crate) fn set_clock(&mut self, passed: Duration) {
        self.state.set_start(Instant::now() - passed);
    }

    /// Whether something is left over from the last turn, or a deadline has come.
    pub(crate) fn is_due(&self, passed: Duration) -> bool {
        let now = nanos(passed).saturating_add(1).max(self.state.turn.now);
        self.next_moment().is_some_and(|moment| moment <= now)
    }

    /// What others wake it by.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.state.shared
    }

    /// Makes a shutdown wait for the changes that were posted before it.
    pub(crate) fn make_changes_before_stop(&mut self, changes: Identity) {
        self.state.changes = Some(changes);
    }

    /// The place of a service; none if this reactor does not have it.
    pub(crate) fn place_of(&self, service: &Identity) -> Option<usize> {
        self.state.place_of(service)
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.state.is_ending()
    }

    /// What the last turn has noted for the other cores.
    pub(crate) fn for_cores(&mut self) -> Option<&mut ForCores> {
        self.state.for_cores.as_deref_mut()
    }

    pub(crate) fn name_service(&mut self, service: usize, name: String) {
        let name = name.into_boxed_str();
        self.state.services[service].name.clone_from(&name);
        self.services[service].set_name(name);
    }

    /// Waits for whatever wakes the loop although it has ended, such as a second signal. It calls nothing
    /// that a turn does: that would cost the turn the inlining.
    pub(crate) fn idle(&mut self) -> Result<(), Error> {
        match self.poll.poll(&mut self.events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(Error::io("the selector failed")(error));
            }
            _ => self.state.shared.awake(),
        }
        #[cfg(feature = "signals")]
        {
            let caught = self.signals.take();
            self.handle_signals(&caught);
        }
        Ok(())
    }

    /// Whether a second signal has asked for an end at once.
    pub(crate) fn is_hurried(&self) -> bool {
        #[cfg(feature = "signals")]
        return self.signals.is_hurried();
        #[cfg(not(feature = "signals"))]
        false
    }

    /// Takes in newcomers of a service that another core accepts.
    pub(crate) fn take_over(&mut self, service: usize, share: Share) {
        self.services[service].take_over(share, &mut self.state);
    }

    /// Gives a service one more listener, or several for a host. Says where it listens.
    pub(crate) fn listen_at(&mut self, service: usize, listen: Listen) -> Result<Bound, Error> {
        self.may_begin()?;
        self.services[service].listen(listen, &mut self.state)
    }

    /// Divides the newcomers of one listener among cores. The number is that of
    /// [`Bound::listeners`].
    pub(crate) fn share_out(&mut self, service: usize, number: usize, among: Distributor) {
        self.services[service].share_out(number, among);
    }

    /// Has a connection go on that was ahead of the other cores.
    pub(crate) fn go_on(&mut self, service: usize, id: ConnId) {
        self.services[service].go_on(id, &mut self.state);
    }

    /// Has a handler told what it has asked for, in the next turn.
    pub(crate) fn answer(&mut self, service: usize, id: ConnId, report: Report) {
        let (what, answer) = (Ask::Overview { watch: false }, Some(report));
        self.state.asked.push_back(Asked { service, id, what, answer });
    }

    /// Measures the steps of turns for a while.
    pub(crate) fn watch(&mut self) {
        self.state.meter.watch(self.state.turn.now);
    }

    /// How many messages wait for the handler that is furthest behind.
    pub(crate) fn backlog(&mut self) -> u64 {
        self.services.iter_mut().map(|service| service.inbox().waiting()).max().unwrap_or(0)
    }

    /// How many newcomers are on their way here from the first core.
    pub(crate) fn awaited(&self) -> usize {
        self.services.iter().map(|service| service.awaited()).sum()
    }

    /// How much memory the connections take.
    pub(crate) fn total(&self, memory: Memory) -> usize {
        total_memory::total(&self.services, memory)
    }

    /// How much they may take, on all cores together.
    pub(crate) fn most(&self, memory: Memory) -> usize {
        self.state.most(memory)
    }

    /// Ends so many of the largest that an eighth of `most` is free again.
    pub(crate) fn reset_largest(&mut self, memory: Memory, most: usize) {
        total_memory::reset(&mut self.services, memory, most, &mut self.state);
    }
}

impl<'h> Reactor<'h> {
    /// Adds a handler with a mailbox that is there already, and with limits that hold for all cores
    /// together if there are others. Gives its place.
    pub(crate) fn add_shared<H: Handler + 'h>(
        &mut self,
        handler: H,
        limits: Limits,
        all: Option<&SharedLimits>,
        mut mailbox: Mailbox<H::Message>,
    ) -> Result<usize, Error> {
        limits.check()?;
        // What was posted before it was here may have woken the loop already.
        mailbox.inbox.marked = mailbox.inbox.waiting() > 0;
        let index = self.next_index()?;
        let name = type_name_of::<H>();
        let mut table = match all {
            None => Table::new(index, name, limits),
            Some(all) => Table::shared(index, name, limits, all),
        };
        table.accounts.keep(self.state.accounting, 0, self.state.turn.now);
        self.state.enter(index, ServiceEntry::new(name, true, mailbox.identity()));
        self.put(index, Box::new(ActiveService::new(handler, table, mailbox)));
        Ok(index)
    }
}
