//! How one service is removed while the loop runs: a shutdown of that service alone. The steps are those of
//! `shutdown`, and at the end the place of the service is free.

use super::Reactor;
use super::handle::Inbox;
use super::loop_state::LoopState;
use super::readiness::Readiness;
use super::reports::Inspect;
use super::service::AnyService;
use super::shutdown::lose_messages;
use super::status::ServiceStatus;
use super::table::Label;
use super::token::Token;
use super::total_memory::{Holding, Memory};
use super::upgrade::Succession;
use crate::connection::clock::Nanos;
use crate::connection::input::Scratch;

/// A service that is being removed.
#[derive(Debug)]
pub(super) struct Removal {
    place: usize,
    /// When the connections that are left are cut off.
    pub(super) until: Nanos,
    /// Its handler knows: its connections are being closed.
    pub(super) told: bool,
}

impl Removal {
    /// Whether it is of the service in this place, and its handler knows already.
    pub(super) fn has_told(&self, place: usize) -> bool {
        self.place == place && self.told
    }
}

impl Reactor<'_> {
    /// Begins to remove the service in a place.
    pub(crate) fn remove_at(&mut self, place: usize) {
        // Its timeout counts from now.
        self.state.tick();
        let until = self.state.after(self.shutdown_timeout);
        self.state.services[place].identity = None;
        self.unstarted.retain(|unstarted| *unstarted != place);
        let service = &mut self.services[place];
        log::debug!("{}: removing it", service.name());
        service.retire(&mut self.state);
        self.removals.push(Removal { place, until, told: false });
    }

    /// Advances all removals.
    pub(super) fn advance_removals(&mut self) {
        let (now, mut told) = (self.state.turn.now, false);
        for removal in self.removals.iter_mut().filter(|removal| !removal.told) {
            let service = &mut self.services[removal.place];
            if removal.until <= now || !service.inbox().delays_shutdown() {
                (removal.told, told) = (true, true);
                service.shut_down(&mut self.state);
            }
        }
        if told {
            // Messages may have used up the time. What the handler has just sent leaves before the cut.
            self.settle();
        }
        for removal in std::mem::take(&mut self.removals) {
            let service = &mut self.services[removal.place];
            if removal.told && removal.until <= now && !service.is_empty() {
                log::warn!(
                    "{}: shutdown timeout: cutting off those that do not take their output",
                    service.name()
                );
                service.cut_off(&mut self.state);
            }
            if removal.told && service.is_empty() {
                self.vacate(removal.place);
            } else {
                self.removals.push(removal);
            }
        }
    }

    /// Drops the service in a place, which is free then.
    pub(super) fn vacate(&mut self, place: usize) {
        lose_messages(&mut *self.services[place], place, &mut self.state);
        let vacant = Box::new(Vacant(Inbox::of_nobody()));
        let service = std::mem::replace(&mut self.services[place], vacant);
        let name = Label::new(place, service.name());
        self.state.services[place].identity = None;
        self.unstarted.retain(|unstarted| *unstarted != place);
        self.vacant.push(place);
        // Dropping a handler runs code of the embedder, which may panic.
        self.state.guard(&name, || drop(service));
    }
}

/// Stands in the place of a service that was removed, and does nothing.
struct Vacant(Inbox);

impl Inspect for Vacant {
    fn status(&self, _state: &LoopState) -> Option<ServiceStatus> {
        None
    }
}

impl Succession for Vacant {}

impl AnyService for Vacant {
    fn name(&self) -> &str {
        ""
    }

    fn set_name(&mut self, _name: Box<str>) {}

    fn sources(&self) -> usize {
        0
    }

    fn ready(&mut self, _token: Token, _what: Readiness) {}

    fn work(&mut self, _state: &mut LoopState, _scratch: &mut Scratch) {}

    fn flush(&mut self, _state: &mut LoopState) {}

    fn reap(&mut self, _state: &mut LoopState) {}

    fn total(&self, _memory: Memory) -> usize {
        0
    }

    fn list_holdings(&self, _memory: Memory, _all: &mut Vec<Holding>) {}

    fn end_for_total(&mut self, _memory: Memory, _token: Token) {}

    fn is_busy(&self, _state: &LoopState) -> bool {
        false
    }

    fn next_deadline(&self) -> Option<Nanos> {
        None
    }

    fn inbox(&mut self) -> &mut Inbox {
        &mut self.0
    }

    fn woken(&mut self) {}

    fn shut_down(&mut self, _state: &mut LoopState) {}

    fn cut_off(&mut self, _state: &mut LoopState) -> usize {
        0
    }

    fn is_empty(&self) -> bool {
        true
    }
}
