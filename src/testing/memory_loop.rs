use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connection::input::Scratch;
use crate::reactor::Handle;
use crate::reactor::handle::{Mailbox, Shared};
use crate::reactor::handshakes;
use crate::reactor::loop_state::{LoopState, ServiceEntry};
use crate::reactor::service::AnyService;
use crate::reactor::shutdown;
use crate::reactor::turn::{Fetched, fetch_all, settle};

/// After so many turns in one call the handler is taken to keep the loop busy for ever.
const MOST_TURNS: usize = 10_000;

/// Our ends of what a service has for sockets.
pub(super) trait Wires<S: AnyService> {
    /// Delivers the events that the wires have raised, as the selector would.
    fn look(&mut self, service: &mut S) -> Fetched;

    /// Has the service tell of what has ended, and free it.
    fn reap(&mut self, service: &mut S, state: &mut LoopState) {
        service.reap(state);
    }
}

/// The loop of a harness: one service over wires in memory, with a clock that stands still until the
/// test moves it. The steps of a turn are the reactor's.
pub(super) struct MemoryLoop<S, W, M> {
    pub(super) service: S,
    pub(super) state: LoopState,
    pub(super) wires: W,
    scratch: Scratch,
    handle: Handle<M>,
    /// The loop does not run by itself.
    pub(super) by_hand: bool,
    /// Hooks may panic.
    pub(super) panics: bool,
    /// The handler knows of the shutdown.
    told: bool,
}

impl<S: AnyService, W: Wires<S>, M> MemoryLoop<S, W, M> {
    pub(super) fn new(wires: W, make: impl FnOnce(Mailbox<M>) -> S) -> Self {
        let shared = Arc::new(Shared::default());
        let (mailbox, handle) = Mailbox::new(&shared);
        let service = make(mailbox);
        let mut state = LoopState::new(None, shared);
        state.services.push(ServiceEntry::new(service.name(), true, handle.identity()));
        MemoryLoop {
            service,
            state,
            wires,
            scratch: Scratch::default(),
            handle,
            by_hand: false,
            panics: false,
            told: false,
        }
    }

    /// Runs one turn. False, and nothing happens, if there is nothing to do now.
    pub(super) fn turn(&mut self) -> bool {
        let MemoryLoop { service, state, wires, .. } = self;
        shutdown::begin(&mut [&mut *service], state);
        if state.stopping && !self.told && !service.inbox().delays_shutdown() {
            self.told = true;
            service.shut_down(state);
        }
        if self.told && service.is_empty() {
            state.shared.end();
        }
        let due = service.next_deadline().is_some_and(|next| next <= state.turn.now);
        let mut events = wires.look(service).events;
        if due {
            let Ok(()) = fetch_all(service.sources(), || {
                let look = wires.look(service);
                events += look.events;
                Ok::<_, Infallible>(look)
            });
        }
        if events == 0 && !due && !service.is_busy(state) && state.asked.is_empty() {
            self.end_if_over();
            return false;
        }
        // The time that the test itself took does not count as the handler's.
        state.turn.clock = Instant::now();
        service.work(state, &mut self.scratch);
        handshakes::move_on(&mut [&mut *service], state, &mut self.scratch);
        settle(&mut [&mut *service], state, |service, state| wires.reap(service, state));
        // The clock stands still meanwhile.
        state.meter.end(0, state.turn.now);
        assert!(self.panics || state.counted().panics == 0, "a hook of the handler panicked");
        self.end_if_over();
        true
    }

    /// Takes no more messages once a shutdown is over, which it may be without a turn.
    fn end_if_over(&self) {
        if self.told && self.service.is_empty() {
            self.state.shared.end();
        }
    }

    /// Takes turns until nothing is left to do, unless the loop is run by hand.
    pub(super) fn run(&mut self) {
        if !self.by_hand {
            self.finish();
        }
    }

    /// Takes turns until nothing is left to do.
    fn finish(&mut self) {
        let done = (0..MOST_TURNS).any(|_| !self.turn());
        assert!(done, "the handler keeps the loop busy for ever");
    }

    /// Lets time pass. What comes due fires in order, each at its own moment.
    pub(super) fn advance(&mut self, time: Duration) {
        let until = self.state.after(time);
        while let Some(next) = self.service.next_deadline().filter(|next| *next <= until) {
            self.state.turn.now = self.state.turn.now.max(next);
            self.finish();
        }
        self.state.turn.now = until;
        self.finish();
    }

    /// Lets time pass in one leap.
    pub(super) fn jump(&mut self, time: Duration) {
        self.state.turn.now = self.state.after(time);
        self.run();
    }

    /// Posts a message, as another thread would; says whether it was accepted.
    pub(super) fn post(&mut self, message: M) -> bool {
        let posted = self.handle.post(message).is_ok();
        self.service.inbox().marked = true;
        self.run();
        posted
    }

    /// Begins a graceful shutdown.
    pub(super) fn stop(&mut self) {
        self.state.stop();
        self.run();
    }
}
