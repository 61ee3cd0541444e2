//! One turn of the loop, from top to bottom: wait, mark what is ready, let each service work, move
//! handshakes on, settle.

use std::io::ErrorKind;
use std::ops::DerefMut;
use std::time::Duration;

use mio::Events;

use super::fairness::{MESSAGES_PER_TURN, MOST_EVENTS, SERVED_PER_TURN};
use super::hand_over;
use super::handshakes;
use super::loop_state::LoopState;
use super::reactor::OWN_SOURCES;
use super::service::{ActiveService, AnyService};
use super::shutdown::Phase;
use super::token::Token;
use super::turn_trace::Happened;
use super::turns::Step;
use super::{Reactor, reports, total_memory};
use crate::connection::clock::{Nanos, earlier, nanos};
use crate::connection::input::Scratch;
use crate::error::Error;
use crate::handler::Handler;

impl Reactor<'_> {
    pub(super) fn take_turn(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        if self.exit().is_some() {
            return Ok(());
        }
        if !self.unstarted.is_empty() {
            self.start();
        }
        self.begin_trace();
        self.wait(timeout)?;
        let (began, now) = (self.state.turn.clock, self.state.turn.now);
        if self.exit().is_some() {
            // A second signal has ended the loop: no hook is called any more.
            return Ok(());
        }
        self.state.meter.begin(began, now);
        for service in &mut self.services {
            service.work(&mut self.state, &mut self.scratch);
        }
        self.state.meter.step(Step::Accept);
        handshakes::move_on(&mut self.services, &mut self.state, &mut self.scratch);
        self.settle();
        if !self.removals.is_empty() {
            self.advance_removals();
        }
        self.advance_shutdown();
        let took = nanos(began.elapsed());
        self.state.meter.end(took, now + took);
        self.end_trace();
        Ok(())
    }

    /// Tells handlers that are new here that the loop runs.
    pub(super) fn start(&mut self) {
        while self.is_startable()
            && let Some(place) = self.unstarted.pop_front()
        {
            self.state.tick();
            self.services[place].start(&mut self.state);
        }
    }

    fn is_startable(&self) -> bool {
        !self.unstarted.is_empty() && !self.state.is_ending()
    }

    /// Waits for events and marks what they are about. Where a deadline has come, all that happened
    /// before is fetched too: time may have passed unnoticed since the wait gave what it had room
    /// for, and no connection is to be judged by what we have not looked at.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        self.sleep(timeout)?;
        self.dispatch();
        if self.deadline().is_none_or(|when| when > self.state.turn.now) {
            return Ok(());
        }
        let sources = self.services.iter().map(|service| service.sources()).sum::<usize>();
        fetch_all(OWN_SOURCES + sources, || {
            while !self.poll(Some(Duration::ZERO))? {}
            Ok(self.dispatch())
        })
    }

    /// Sleeps until there are events, or the time is over. A signal that interrupts the sleep does
    /// not make it longer.
    fn sleep(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        self.state.tick();
        let until = timeout.map(|timeout| self.state.after(timeout));
        loop {
            let next = earlier(until, self.next_moment());
            let left =
                next.map(|when| Duration::from_nanos(when.saturating_sub(self.state.turn.now)));
            let before = self.state.turn.now;
            let done = self.poll(left)?;
            self.state.tick();
            if left != Some(Duration::ZERO) {
                self.state.meter.slept(self.state.turn.now - before);
            }
            if done {
                return Ok(());
            }
        }
    }

    /// When the next turn is due without any event: now, if the last one has left something over.
    pub(super) fn next_moment(&self) -> Option<Nanos> {
        let open = matches!(self.phase, Phase::Running | Phase::HandedOn(_));
        let stop = open && self.state.is_ending();
        let due = stop || self.full || self.is_startable() || !self.state.asked.is_empty();
        if due || self.services.iter().any(|service| service.is_busy(&self.state)) {
            return Some(self.state.turn.now);
        }
        self.deadline()
    }

    /// The earliest timer or deadline.
    fn deadline(&self) -> Option<Nanos> {
        let drained = match self.phase {
            Phase::HandedOn(deadline) | Phase::Stopping(deadline) | Phase::Draining(deadline) => {
                Some(deadline)
            }
            Phase::Running | Phase::Done(_) => None,
        };
        let removed = self.removals.iter().map(|removal| removal.until);
        let services = self.services.iter().filter_map(|service| service.next_deadline());
        services.chain(drained).chain(removed).min()
    }

    /// Fetches events. False, and there are none, when a signal interrupted it.
    fn poll(&mut self, timeout: Option<Duration>) -> Result<bool, Error> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(Error::io("the selector failed")(error)),
        }
    }

    /// Marks what the events are about; no hook is called yet.
    fn dispatch(&mut self) -> Fetched {
        self.trace_events();
        let mut count = 0;
        #[cfg(feature = "signals")]
        let mut caught = Vec::new();
        for event in &self.events {
            count += 1;
            match Token::from(event.token()) {
                Token::WAKER => {
                    self.state.shared.awake();
                    self.services.iter_mut().for_each(|service| service.woken());
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
        if !caught.is_empty() {
            self.handle_signals(&caught);
        }
        self.full = count == self.events.capacity();
        if self.full && count < MOST_EVENTS {
            // Quiet connections must not wait for the busy ones to leave room.
            self.events = Events::with_capacity(count * 2);
        }
        Fetched { events: count, full: self.full }
    }
}

/// What one look at the selector gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetched {
    pub(crate) events: usize,
    /// As many as there is room for: there may be more.
    pub(crate) full: bool,
}

/// Fetches until there is less than there is room for, or as much as there are sources: those that
/// become ready meanwhile wait behind the others, so all that was ready before is known then.
pub(crate) fn fetch_all<E>(
    sources: usize,
    mut fetch: impl FnMut() -> Result<Fetched, E>,
) -> Result<(), E> {
    let mut events = 0;
    loop {
        let fetched = fetch()?;
        events += fetched.events;
        if !fetched.full || events >= sources {
            return Ok(());
        }
    }
}

impl<H: Handler> ActiveService<H> {
    /// A service's part of the turn. Each step has a bound, and what exceeds it waits for the next
    /// turn.
    pub(super) fn take_part(&mut self, state: &mut LoopState, scratch: &mut Scratch) {
        state.meter.step(Step::Accept);
        self.accept_all(state);
        state.meter.step(Step::Read);
        self.serve_ready(state, scratch);
        state.meter.step(Step::Timers);
        self.fire_timers(state);
        state.meter.step(Step::Messages);
        self.take_messages(state);
        self.slow_hooks.check(state, &self.table.name, self.table.limits.slow_call);
    }

    fn accept_all(&mut self, state: &mut LoopState) {
        state.turn.begin_step();
        let ready = self.listeners.iter().filter(|(_, listener)| listener.may_accept(state));
        // In most turns there is none, which takes no memory.
        let ready: Vec<_> = ready.map(|(number, _)| number).collect();
        for number in ready {
            self.accept(number, state);
            if let Some(listener) = self.listeners.get_mut(number) {
                listener.wake_others();
            }
        }
    }

    fn serve_ready(&mut self, state: &mut LoopState, scratch: &mut Scratch) {
        state.turn.begin_step();
        for _ in 0..self.table.queues.ready.len().min(SERVED_PER_TURN) {
            if state.turn.step_is_spent() {
                return;
            }
            if let Some(id) = self.table.queues.ready.pop_front() {
                self.serve(id, state, scratch);
                state.trace(self.table.service, Some(id), Happened::Served);
            }
        }
    }

    fn take_messages(&mut self, state: &mut LoopState) {
        if !self.mailbox.inbox.marked {
            return;
        }
        state.turn.begin_step();
        for _ in 0..MESSAGES_PER_TURN {
            if state.turn.step_is_spent() {
                return;
            }
            let Some(message) = self.mailbox.next() else { return };
            self.call_service(state, |handler, cx| handler.on_message(cx, message));
            state.trace(self.table.service, None, Happened::Message);
        }
    }
}

impl Reactor<'_> {
    pub(super) fn settle(&mut self) {
        settle(&mut self.services, &mut self.state, |service, state| service.reap(state));
    }
}

/// Gives handlers the reports that they have asked for and tells of the connections that have ended,
/// then flushes, so that what handlers say to that leaves with everything else. What the flush itself
/// has ended is told last; what is said of that leaves in the next turn. Those that have left one
/// service are then taken in by another.
///
/// `reap` is [`AnyService::reap`], and what a harness does before that.
pub(crate) fn settle<S: DerefMut<Target: AnyService>>(
    services: &mut [S],
    state: &mut LoopState,
    mut reap: impl FnMut(&mut S::Target, &mut LoopState),
) {
    state.meter.step(Step::Flush);
    if !state.asked.is_empty() {
        reports::answer(services, state);
    }
    if std::mem::take(&mut state.starving)
        && !services.iter_mut().any(|service| service.cut_lingering())
    {
        services.iter_mut().any(|service| service.cut_gone());
    }
    services.iter_mut().for_each(|service| reap(service, state));
    services.iter_mut().for_each(|service| service.flush(state));
    state.turn.arena.clear();
    total_memory::enforce(services, state);
    services.iter_mut().for_each(|service| reap(service, state));
    hand_over::deliver(services, state);
}

#[cfg(test)]
mod tests {
    use crate::limits::Limits;
    use crate::net::Address;
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
