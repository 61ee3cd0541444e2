//! One service, seen from three sides. [`ActiveService`] is the service at work, inside the
//! reactor: its handler, its listeners and its connections. [`AnyService`] is what the reactor sees
//! of that, as a `dyn` that knows nothing of handlers and sessions. [`Service`](crate::Service), in
//! `handle.rs`, is the key that the embedder holds.

use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use slab::Slab;

use super::accepting::Listener;
use super::hand_over::Traveller;
use super::handle::{Inbox, Mailbox};
use super::listening::{Bound, Share};
use super::loop_state::LoopState;
use super::readiness::Readiness;
use super::reload::add_layers;
use super::reports::Inspect;
use super::slow_hooks::SlowHooks;
use super::table::Table;
use super::token::Token;
use super::total_memory::{Holding, Memory};
use super::turns::Step;
use super::upgrade::{Arriving, Succession};
use crate::connection::clock::Nanos;
use crate::connection::input::Scratch;
use crate::connection::{CloseReason, ConnId};
use crate::error::Error;
use crate::handler::{Context, Handler, ServiceContext};
use crate::limits::Limits;
use crate::net::layer::Acceptor;
use crate::net::newcomers::Distributor;
use crate::net::{Address, Connect, Listen};

/// One service at work: everything that belongs to a handler. Calls below it are static.
pub(crate) struct ActiveService<H: Handler> {
    pub(crate) handler: H,
    /// Its connections, and what is due for them.
    pub(crate) table: Table<H::Session>,
    /// Where newcomers are accepted; a token has a listener's place in this list.
    pub(super) listeners: Slab<Listener>,
    /// What other threads have posted.
    pub(super) mailbox: Mailbox<H::Message>,
    pub(super) slow_hooks: SlowHooks,
    /// What has come from another loop, while it is not sure that it stays.
    pub(super) arriving: Option<Box<Arriving<H::Session>>>,
    /// All of it is another loop's: nothing is told to the handler any more.
    pub(super) gone: bool,
}

impl<H: Handler> ActiveService<H> {
    pub(crate) fn new(
        handler: H,
        table: Table<H::Session>,
        mailbox: Mailbox<H::Message>,
    ) -> ActiveService<H> {
        ActiveService {
            handler,
            table,
            listeners: Slab::new(),
            mailbox,
            slow_hooks: SlowHooks::default(),
            arriving: None,
            gone: false,
        }
    }

    /// Calls a hook for a connection; `own` says that its own request is handled. A panic in the
    /// hook closes that connection and gives none.
    pub(crate) fn call<R>(
        &mut self,
        id: ConnId,
        own: bool,
        state: &mut LoopState,
        hook: impl FnOnce(&mut H, &mut Context<'_, H::Session>) -> R,
    ) -> Option<R> {
        let step = state.meter.step(Step::Handlers);
        let mut cx = Context::new(&mut self.table, state, id, own);
        let outcome = catch_unwind(AssertUnwindSafe(|| hook(&mut self.handler, &mut cx)));
        state.meter.step(step);
        self.slow_hooks.called(state, &self.table.name, self.table.limits.slow_call);
        self.table.commit(state);
        let outcome = state.unless_panicked(outcome, &self.table.name);
        if outcome.is_none() {
            self.table.close(id, CloseReason::Panicked, state);
        }
        outcome
    }

    /// Calls a hook that is about no connection.
    pub(crate) fn call_service(
        &mut self,
        state: &mut LoopState,
        hook: impl FnOnce(&mut H, &mut ServiceContext<'_, H::Session>),
    ) {
        if self.gone {
            return;
        }
        let step = state.meter.step(Step::Handlers);
        let mut cx = ServiceContext::new(&mut self.table, state);
        let outcome = catch_unwind(AssertUnwindSafe(|| hook(&mut self.handler, &mut cx)));
        state.meter.step(step);
        self.slow_hooks.called(state, &self.table.name, self.table.limits.slow_call);
        state.unless_panicked(outcome, &self.table.name);
    }
}

/// A service as the reactor sees it, whatever its handler: one of lines or one of datagrams. The
/// default bodies are those of datagrams, which have no connections.
pub(crate) trait AnyService: Inspect + Succession {
    fn listen(&mut self, _listen: Listen, _state: &mut LoopState) -> Result<Bound, Error> {
        Err(Error::Datagrams)
    }
    /// As [`Reactor::unbind`](crate::Reactor::unbind).
    fn unbind(&mut self, _address: &Address, _state: &mut LoopState) -> Result<(), Error> {
        Err(Error::Datagrams)
    }
    /// As [`Reactor::rebind`](crate::Reactor::rebind), at an address that is known.
    fn rebind(&mut self, _listen: Listen, _state: &mut LoopState) -> Result<Bound, Error> {
        Err(Error::Datagrams)
    }
    /// As [`Reactor::set_limits`](crate::Reactor::set_limits).
    fn set_limits(&mut self, _limits: Limits, _state: &mut LoopState) -> Result<(), Error> {
        Err(Error::Datagrams)
    }
    fn dial(&mut self, _target: &Connect, _state: &mut LoopState) -> Result<ConnId, Error> {
        Err(Error::Datagrams)
    }
    fn adopt(
        &mut self,
        _input: BorrowedFd<'_>,
        _output: BorrowedFd<'_>,
        _state: &mut LoopState,
    ) -> Result<ConnId, Error> {
        Err(Error::Datagrams)
    }
    /// Takes in a connection that another service has handed over.
    fn arrive(&mut self, _traveller: Traveller, _state: &mut LoopState) {}
    /// What the service goes by in the log.
    fn name(&self) -> &str;
    fn set_name(&mut self, name: Box<str>);
    /// How many descriptors the selector watches for the service, at the most.
    fn sources(&self) -> usize;
    /// Marks what an event is about; no hook is called yet.
    fn ready(&mut self, token: Token, what: Readiness);
    /// Tells the handler that the loop begins to run.
    fn start(&mut self, _state: &mut LoopState) {}
    /// Accepts, reads, frames, handles, fires timers, takes messages, each within its budget.
    fn work(&mut self, state: &mut LoopState, scratch: &mut Scratch);
    /// Moves one handshake a step on, if one is waiting; says whether one was.
    fn move_handshake(&mut self, _state: &mut LoopState, _scratch: &mut Scratch) -> bool {
        false
    }
    /// Writes what the turn has gathered.
    fn flush(&mut self, state: &mut LoopState);
    /// Tells the handler of the connections that have ended, and frees them.
    fn reap(&mut self, state: &mut LoopState);
    /// How much memory the service's connections take.
    fn total(&self, memory: Memory) -> usize;
    /// Adds which connection takes how much of it.
    fn list_holdings(&self, memory: Memory, all: &mut Vec<Holding>);
    /// Ends a connection since all together take too much.
    fn end_for_total(&mut self, memory: Memory, token: Token);
    /// Ends the connection that has lingered longest; says whether there is one.
    fn cut_lingering(&mut self) -> bool {
        false
    }
    /// Ends the connection whose peer has been gone longest; says whether there is one.
    fn cut_gone(&mut self) -> bool {
        false
    }
    /// More could be done now, without any event.
    fn is_busy(&self, state: &LoopState) -> bool;
    fn next_deadline(&self) -> Option<Nanos>;
    /// What is known of the messages that wait.
    fn inbox(&mut self) -> &mut Inbox;
    /// Another thread has woken the loop: something may have come from there.
    fn woken(&mut self) {
        self.inbox().marked = true;
    }
    /// Listens by taking in what another core has accepted.
    fn take_over(&mut self, _share: Share, _state: &mut LoopState) {}
    /// Divides the newcomers at the listener with this number among cores.
    fn share_out(&mut self, _number: usize, _among: Distributor) {}
    /// Adds the layers of all listeners.
    fn list_layers(&self, _all: &mut Vec<Rc<dyn Acceptor>>) {}
    /// Connections may go on that were [ahead](super::loop_state::ForCores::ahead) of other cores.
    fn go_on(&mut self, _id: ConnId, _state: &mut LoopState) {}
    /// A shutdown was asked for: no newcomer is accepted any more.
    fn stop_listening(&mut self) {}
    /// Begins the removal: from now on the service accepts and dials nobody.
    fn retire(&mut self, _state: &mut LoopState) {
        self.inbox().retire();
    }
    /// Tells the handler of the shutdown and closes every connection gracefully.
    fn shut_down(&mut self, state: &mut LoopState);
    /// Ends every connection at once. Says how many had not got all their output.
    fn cut_off(&mut self, state: &mut LoopState) -> usize;
    /// No connection is left.
    fn is_empty(&self) -> bool;
}

impl<H: Handler> AnyService for ActiveService<H> {
    fn listen(&mut self, listen: Listen, state: &mut LoopState) -> Result<Bound, Error> {
        self.begin_to_listen(listen, state)
    }

    fn unbind(&mut self, address: &Address, state: &mut LoopState) -> Result<(), Error> {
        self.end_listening(address, state)
    }

    fn rebind(&mut self, listen: Listen, state: &mut LoopState) -> Result<Bound, Error> {
        self.listen_otherwise(&listen, state)
    }

    fn set_limits(&mut self, limits: Limits, state: &mut LoopState) -> Result<(), Error> {
        self.change_limits(limits, state);
        Ok(())
    }

    fn dial(&mut self, target: &Connect, state: &mut LoopState) -> Result<ConnId, Error> {
        self.table.dial(None, target, H::Session::default(), state)
    }

    fn adopt(
        &mut self,
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
        state: &mut LoopState,
    ) -> Result<ConnId, Error> {
        self.table.adopt(input, output, H::Session::default(), state)
    }

    fn arrive(&mut self, traveller: Traveller, state: &mut LoopState) {
        self.take_in(traveller, state)
    }

    fn name(&self) -> &str {
        &self.table.name.name
    }

    fn set_name(&mut self, name: Box<str>) {
        self.table.name.name = name.into();
    }

    fn sources(&self) -> usize {
        // A connection may be made of two.
        self.listeners.len() + 2 * self.table.connections.len()
    }

    fn total(&self, memory: Memory) -> usize {
        self.table.total(memory)
    }

    fn list_holdings(&self, memory: Memory, all: &mut Vec<Holding>) {
        self.table.list_holdings(memory, all);
    }

    fn end_for_total(&mut self, memory: Memory, token: Token) {
        self.table.end_for_total(memory, token);
    }

    fn cut_lingering(&mut self) -> bool {
        self.table.cut_lingering()
    }

    fn cut_gone(&mut self) -> bool {
        self.table.cut_gone()
    }

    fn is_busy(&self, state: &LoopState) -> bool {
        self.mailbox.inbox.marked
            || !self.table.queues.is_empty()
            || self.listeners.iter().any(|(_, listener)| listener.may_accept(state))
    }

    fn next_deadline(&self) -> Option<Nanos> {
        self.table.next_deadline()
    }

    fn inbox(&mut self) -> &mut Inbox {
        &mut self.mailbox.inbox
    }

    fn woken(&mut self) {
        self.mailbox.inbox.marked = true;
        self.listeners.iter_mut().for_each(|(_, listener)| listener.woken());
    }

    fn take_over(&mut self, share: Share, state: &mut LoopState) {
        self.take_over_listener(share, state)
    }

    fn share_out(&mut self, number: usize, among: Distributor) {
        self.listeners[number].share_out(among);
    }

    fn list_layers(&self, all: &mut Vec<Rc<dyn Acceptor>>) {
        self.listeners.iter().for_each(|(_, listener)| add_layers(all, listener.layers()));
    }

    fn go_on(&mut self, id: ConnId, state: &mut LoopState) {
        self.table.go_on(id, state)
    }

    fn stop_listening(&mut self) {
        for (_, mut listener) in std::mem::take(&mut self.listeners) {
            listener.disarm(&mut self.table.timers);
        }
    }

    fn retire(&mut self, state: &mut LoopState) {
        self.listeners.iter_mut().for_each(|(_, listener)| listener.deregister(state));
        AnyService::stop_listening(self);
        self.table.retired = true;
        self.mailbox.inbox.retire();
    }

    fn is_empty(&self) -> bool {
        self.table.connections.is_empty()
    }

    fn ready(&mut self, token: Token, what: Readiness) {
        self.mark_ready(token, what)
    }

    fn start(&mut self, state: &mut LoopState) {
        self.call_service(state, H::on_start);
        self.slow_hooks.check(state, &self.table.name, self.table.limits.slow_call);
    }

    fn work(&mut self, state: &mut LoopState, scratch: &mut Scratch) {
        self.take_part(state, scratch)
    }

    fn move_handshake(&mut self, state: &mut LoopState, scratch: &mut Scratch) -> bool {
        self.move_oldest_handshake(state, scratch)
    }

    fn flush(&mut self, state: &mut LoopState) {
        self.flush_dirty(state)
    }

    fn reap(&mut self, state: &mut LoopState) {
        self.reap_ended(state)
    }

    fn shut_down(&mut self, state: &mut LoopState) {
        self.begin_shutdown(state)
    }

    fn cut_off(&mut self, state: &mut LoopState) -> usize {
        self.cut_off_all(state)
    }
}

/// A service's name in the log until it gets another: its handler's type without path and
/// parameters.
pub(crate) fn type_name_of<H>() -> &'static str {
    let name = std::any::type_name::<H>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}
