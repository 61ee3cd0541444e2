//! The service of a datagram socket: a handler with its endpoint, and the steps of a turn that the
//! reactor asks of every service.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::endpoint::{Endpoint, ROOM};
use super::{DatagramContext, DatagramHandler};
use crate::connection::clock::Nanos;
use crate::connection::input::Scratch;
use crate::net::Address;
use crate::reactor::fairness::{MESSAGES_PER_TURN, TIMERS_PER_TURN};
use crate::reactor::handle::{Inbox, Mailbox};
use crate::reactor::loop_state::LoopState;
use crate::reactor::readiness::Readiness;
use crate::reactor::reports::Inspect;
use crate::reactor::service::AnyService;
use crate::reactor::slow_hooks::SlowHooks;
use crate::reactor::status::{ListenerStatus, ServiceStatus};
use crate::reactor::timers::{Due, Timers};
use crate::reactor::token::Token;
use crate::reactor::total_memory::{Holding, Memory};
use crate::reactor::turns::Step;
use crate::reactor::upgrade::{Listening, Succession};

/// One datagram socket with its handler. What it begins with is told when it is bound, so nothing is
/// told at the start.
pub(crate) struct Datagrams<H: DatagramHandler> {
    pub(crate) handler: H,
    endpoint: Endpoint,
    mailbox: Mailbox<H::Message>,
    /// The handler has been called for the last time; only what waits is still sent.
    over: bool,
    slow_hooks: SlowHooks,
}

impl<H: DatagramHandler> Datagrams<H> {
    pub(crate) fn new(
        handler: H,
        endpoint: Endpoint,
        mailbox: Mailbox<H::Message>,
    ) -> Datagrams<H> {
        Datagrams { handler, endpoint, mailbox, over: false, slow_hooks: SlowHooks::default() }
    }

    /// Calls a hook. A panic in it is counted and ends nothing.
    pub(crate) fn call(
        &mut self,
        state: &mut LoopState,
        hook: impl FnOnce(&mut H, &mut DatagramContext<'_>),
    ) {
        let step = state.meter.step(Step::Handlers);
        let mut cx = DatagramContext::new(&mut self.endpoint, state);
        let outcome = catch_unwind(AssertUnwindSafe(|| hook(&mut self.handler, &mut cx)));
        state.meter.step(step);
        self.slow_hooks.called(state, &self.endpoint.name, self.endpoint.options.slow_call);
        state.unless_panicked(outcome, &self.endpoint.name);
    }

    fn receive(&mut self, state: &mut LoopState, scratch: &mut Scratch) {
        let buffer = scratch.room(ROOM);
        for _ in 0..self.endpoint.options.datagrams_per_turn {
            if !self.endpoint.may_receive() {
                return;
            }
            if let Some((count, from)) = self.endpoint.receive(buffer, state) {
                self.call(state, |handler, cx| handler.on_datagram(cx, from, &buffer[..count]));
            }
        }
    }

    fn fire(&mut self, state: &mut LoopState) {
        for _ in 0..TIMERS_PER_TURN {
            match self.endpoint.timers.pop(state.turn.now) {
                None => return,
                Some(Due::Deadline(_)) => self.endpoint.resting = false,
                Some(Due::Timer(timer, _)) => {
                    self.call(state, |handler, cx| handler.on_timer(cx, timer));
                }
            }
        }
    }

    fn take_messages(&mut self, state: &mut LoopState) {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(message) = self.mailbox.next() else { return };
            self.call(state, |handler, cx| handler.on_message(cx, message));
        }
    }
}

impl<H: DatagramHandler> Inspect for Datagrams<H> {
    fn status(&self, state: &LoopState) -> Option<ServiceStatus> {
        let name = &self.endpoint.name;
        let listener =
            ListenerStatus { address: Address::Tcp(self.endpoint.local), layers: Vec::new() };
        Some(ServiceStatus {
            name: name.to_string(),
            listeners: if self.over { Vec::new() } else { vec![listener] },
            counters: state.counted_for(name.service),
            connections: 0,
            unsent: self.endpoint.outbox.bytes(),
            limits: None,
        })
    }
}

/// The socket goes, and nothing of the handler: another one begins anew with it. This one is told nothing,
/// since the service goes on.
impl<H: DatagramHandler> Succession for Datagrams<H> {
    fn listening(&self) -> Vec<Listening<'_>> {
        let address = Address::Tcp(self.endpoint.local);
        let socket = self.endpoint.passed().filter(|_| !self.over);
        let listening =
            socket.map(|socket| Listening { address, datagrams: true, socket, path: None });
        listening.into_iter().collect()
    }

    fn give_up_listening(&mut self, state: &mut LoopState) {
        self.over = true;
        self.endpoint.timers = Timers::default();
        self.endpoint.leave(state);
    }
}

impl<H: DatagramHandler> AnyService for Datagrams<H> {
    fn name(&self) -> &str {
        &self.endpoint.name.name
    }

    fn set_name(&mut self, name: Box<str>) {
        self.endpoint.name.name = name.into();
    }

    fn sources(&self) -> usize {
        1
    }

    fn ready(&mut self, _token: Token, what: Readiness) {
        // The next call on the socket gives the error, whether it receives or sends.
        self.endpoint
            .ready(what.readable || what.read_on || what.error, what.writable || what.error);
    }

    fn work(&mut self, state: &mut LoopState, scratch: &mut Scratch) {
        if self.over {
            return;
        }
        state.meter.step(Step::Read);
        self.receive(state, scratch);
        state.meter.step(Step::Timers);
        self.fire(state);
        state.meter.step(Step::Messages);
        if self.mailbox.inbox.marked {
            self.take_messages(state);
        }
        self.slow_hooks.check(state, &self.endpoint.name, self.endpoint.options.slow_call);
    }

    fn flush(&mut self, state: &mut LoopState) {
        if self.endpoint.may_flush() {
            self.endpoint.flush(state);
        }
    }

    fn reap(&mut self, state: &mut LoopState) {
        if self.over && self.endpoint.outbox.is_empty() {
            self.endpoint.close(state);
        }
    }

    /// None: what waits in the outbox has a small bound of its own, and there is no connection to end.
    fn total(&self, _memory: Memory) -> usize {
        0
    }

    fn list_holdings(&self, _memory: Memory, _all: &mut Vec<Holding>) {}

    fn end_for_total(&mut self, _memory: Memory, _token: Token) {}

    fn is_busy(&self, _state: &LoopState) -> bool {
        self.endpoint.may_flush()
            || !self.over && (self.mailbox.inbox.marked || self.endpoint.may_receive())
    }

    fn next_deadline(&self) -> Option<Nanos> {
        self.endpoint.timers.next()
    }

    fn inbox(&mut self) -> &mut Inbox {
        &mut self.mailbox.inbox
    }

    fn shut_down(&mut self, state: &mut LoopState) {
        self.call(state, H::on_shutdown);
        self.slow_hooks.check(state, &self.endpoint.name, self.endpoint.options.slow_call);
        self.over = true;
        self.endpoint.timers = Timers::default();
        self.reap(state);
    }

    fn cut_off(&mut self, state: &mut LoopState) -> usize {
        self.over = true;
        self.endpoint.timers = Timers::default();
        self.endpoint.close(state);
        // Only connections are counted.
        0
    }

    fn is_empty(&self) -> bool {
        self.endpoint.outbox.is_empty()
    }
}
