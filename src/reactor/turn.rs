//! One turn of the loop: wait, mark what is ready, let each service work, settle.

use std::time::Duration;

use mio::Events;

use super::fairness::{HANDSHAKES_PER_TURN, MESSAGES_PER_TURN, MOST_EVENTS, SERVED_PER_TURN};
use super::loop_state::LoopState;
use super::reactor::OWN_SOURCES;
use super::service::ActiveService;
use super::shutdown::Phase;
#[cfg(feature = "signals")]
use super::signals::Caught;
use super::token::Token;
use super::{Reactor, total_output};
use crate::connection::clock::Nanos;
use crate::connection::input::Scratch;
use crate::error::Error;
use crate::handler::Handler;

/// What one look at the selector gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) events: usize,
    /// It gave as many as it has room for: there may be more.
    pub(crate) full: bool,
}

/// Looks until a look finds less than it has room for, or as much as there are sources: those that
/// become ready meanwhile wait behind the others, so that all that was ready before is known then.
pub(crate) fn look_at_all<E>(
    sources: usize,
    mut look: impl FnMut() -> Result<Look, E>,
) -> Result<(), E> {
    let mut events = 0;
    loop {
        let found = look()?;
        events += found.events;
        if !found.full || events >= sources {
            return Ok(());
        }
    }
}

impl<H: Handler> ActiveService<H> {
    pub(super) fn take_turn(&mut self, state: &mut LoopState, scratch: &mut Scratch) {
        self.table.begin_step(state);
        for number in 0..self.listeners.len() {
            if self.listeners[number].wants(state) {
                self.accept(number, state);
            }
        }
        self.table.begin_step(state);
        for _ in 0..self.table.ready.len().min(SERVED_PER_TURN) {
            if self.table.step_is_spent(state) {
                break;
            }
            if let Some(id) = self.table.ready.pop_front() {
                self.serve(id, state, scratch);
            }
        }
        for _ in 0..self.table.handshakes.len().min(HANDSHAKES_PER_TURN) {
            if let Some(id) = self.table.handshakes.pop_front() {
                self.serve(id, state, scratch);
            }
        }
        self.fire(state);
        if self.mail {
            self.table.begin_step(state);
            for _ in 0..MESSAGES_PER_TURN {
                if self.table.step_is_spent(state) {
                    break;
                }
                let Some(message) = self.mailbox.next() else {
                    self.mail = false;
                    break;
                };
                self.call_service(state, |handler, cx| handler.on_message(cx, message));
            }
        }
        self.watch.check(&mut state.turn.clock, &self.table.name, self.table.limits.slow_call);
    }
}

impl Reactor<'_> {
    /// Waits for events and tells the services. Where a deadline has come, all that happened
    /// before is fetched too: time may have passed unnoticed since the wait gave what it had room
    /// for, and nobody is to be judged by what we have not looked at.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        self.sleep(timeout)?;
        self.dispatch();
        if self.deadline().is_none_or(|when| when > self.state.turn.now) {
            return Ok(());
        }
        let sources = self.services.iter().map(|service| service.sources()).sum::<usize>();
        look_at_all(OWN_SOURCES + sources, || {
            while !self.poll(Some(Duration::ZERO))? {}
            Ok(self.dispatch())
        })
    }

    pub(super) fn next_moment(&self) -> Option<Nanos> {
        let stop = self.phase == Phase::Running && self.state.is_ending();
        if stop || self.full || self.services.iter().any(|service| service.is_busy(&self.state)) {
            return Some(self.state.turn.now);
        }
        self.deadline()
    }

    /// Tells every service what the selector said; work is done later, in turn.
    pub(super) fn dispatch(&mut self) -> Look {
        let mut count = 0;
        #[cfg(feature = "signals")]
        let mut caught = Caught::default();
        for event in &self.events {
            count += 1;
            match Token::from(event.token()) {
                Token::WAKER => {
                    self.state.shared.awake();
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
    pub(super) fn settle(&mut self) {
        let Reactor { services, state, .. } = self;
        if std::mem::take(&mut state.starving) {
            services.iter_mut().any(|service| service.cut_lingering());
        }
        services.iter_mut().for_each(|service| service.reap(state));
        services.iter_mut().for_each(|service| service.flush(state));
        state.turn.arena.clear();
        total_output::relieve(services, state);
        services.iter_mut().for_each(|service| service.reap(state));
    }
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
