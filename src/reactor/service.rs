//! One service at work: its handler, its listeners and its connections. Static dispatch ends here:
//! the reactor sees a `dyn AnyService` and knows nothing of handlers and sessions.

use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::accepting::Listener;
use super::handle::Mailbox;
use super::loop_state::LoopState;
use super::readiness::Readiness;
use super::slow_hooks::SlowHooks;
use super::table::Table;
use super::token::Token;
use crate::connection::clock::Nanos;
use crate::connection::input::Scratch;
use crate::connection::{CloseReason, ConnId};
use crate::error::Error;
use crate::handler::{Context, Handler, ServiceContext};
use crate::net::{Address, Listen};

pub(crate) struct ActiveService<H: Handler> {
    pub(crate) handler: H,
    pub(crate) table: Table<H::Session>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) mailbox: Mailbox<H::Message>,
    /// The mailbox may have something.
    pub(crate) mail: bool,
    pub(crate) watch: SlowHooks,
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
            listeners: Vec::new(),
            mailbox,
            mail: false,
            watch: SlowHooks::default(),
        }
    }

    /// Calls a hook for a connection. A panic in it ends that connection and gives none.
    pub(crate) fn call<R>(
        &mut self,
        id: ConnId,
        own: bool,
        state: &mut LoopState,
        hook: impl FnOnce(&mut H, &mut Context<'_, H::Session>) -> R,
    ) -> Option<R> {
        let mut cx = Context::new(&mut self.table, state, id, own);
        let outcome = catch_unwind(AssertUnwindSafe(|| hook(&mut self.handler, &mut cx)));
        self.watch.called(&mut state.turn.clock, &self.table.name, self.table.limits.slow_call);
        self.table.commit(state);
        let outcome = state.caught(outcome, &self.table.name);
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
        let mut cx = ServiceContext::new(&mut self.table, state);
        let outcome = catch_unwind(AssertUnwindSafe(|| hook(&mut self.handler, &mut cx)));
        self.watch.called(&mut state.turn.clock, &self.table.name, self.table.limits.slow_call);
        state.caught(outcome, &self.table.name);
    }
}

/// A service of whatever handler, as the reactor sees it.
pub(crate) trait AnyService {
    fn listen(&mut self, listen: Listen, state: &mut LoopState) -> Result<Address, Error>;
    fn dial(&mut self, address: &Address, state: &mut LoopState) -> Result<ConnId, Error>;
    fn adopt(
        &mut self,
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
        state: &mut LoopState,
    ) -> Result<ConnId, Error>;
    /// What it goes by in the log.
    fn name(&self) -> &str;
    fn set_name(&mut self, name: Box<str>);
    /// How many descriptors the selector watches for it, at the most.
    fn sources(&self) -> usize;
    /// Notes an event; nothing is done about it yet.
    fn ready(&mut self, token: Token, what: Readiness);
    /// Accepts, reads, frames, handles, fires timers, takes messages, each within its budget.
    fn work(&mut self, state: &mut LoopState, scratch: &mut Scratch);
    /// Writes what the turn has gathered.
    fn flush(&mut self, state: &mut LoopState);
    /// Tells the handler of those that ended, and frees them.
    fn reap(&mut self, state: &mut LoopState);
    /// Bytes of output in memory, the arena's not counted.
    fn backlog(&self) -> usize;
    /// Adds who has how many of them.
    fn backlogs(&self, all: &mut Vec<(usize, Token)>);
    /// Ends a connection for the others' sake.
    fn relieve(&mut self, token: Token);
    /// Ends the connection that has lingered longest; says whether there is one.
    fn cut_lingering(&mut self) -> bool;
    /// More could be done now, without any event.
    fn is_busy(&self, state: &LoopState) -> bool;
    fn next_deadline(&self) -> Option<Nanos>;
    /// Messages may be waiting.
    fn mail(&mut self);
    /// A shutdown was asked for: nobody else may come.
    fn stop_listening(&mut self);
    /// There are messages that have to be handled before the shutdown.
    fn holds_up(&self) -> bool;
    /// Messages that were posted and not handled.
    fn waiting(&self) -> u64;
    /// Shuts down: everybody is closed gracefully.
    fn shut_down(&mut self, state: &mut LoopState);
    /// Ends everybody at once; says how many there were that had not got all their output.
    fn cut(&mut self, state: &mut LoopState) -> usize;
    /// No connection is left.
    fn is_empty(&self) -> bool;
}

impl<H: Handler> AnyService for ActiveService<H> {
    fn listen(&mut self, listen: Listen, state: &mut LoopState) -> Result<Address, Error> {
        let (service, first) = (self.table.service, self.listeners.len());
        let token = |number| Token::listener(service, first + number);
        let (local, listeners) = Listener::bind(listen, token, &self.table.limits, state)?;
        self.listeners.extend(listeners);
        for number in first..self.listeners.len() {
            let local = self.listeners[number].address().clone();
            self.call_service(state, |handler, cx| handler.on_listening(cx, &local));
        }
        Ok(local)
    }

    fn dial(&mut self, address: &Address, state: &mut LoopState) -> Result<ConnId, Error> {
        self.table.dial(None, address, H::Session::default(), state)
    }

    fn adopt(
        &mut self,
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
        state: &mut LoopState,
    ) -> Result<ConnId, Error> {
        self.table.adopt(input, output, H::Session::default(), state)
    }

    fn name(&self) -> &str {
        &self.table.name
    }

    fn set_name(&mut self, name: Box<str>) {
        self.table.name = name;
    }

    fn sources(&self) -> usize {
        // A connection may be made of two.
        self.listeners.len() + 2 * self.table.connections.len()
    }

    fn backlog(&self) -> usize {
        self.table.backlog
    }

    fn backlogs(&self, all: &mut Vec<(usize, Token)>) {
        let service = self.table.service;
        let each = self.table.connections.iter();
        let each = each.map(|(_, slot)| (slot.conn.output.backlog(), slot.conn.id));
        all.extend(each.map(|(backlog, id)| (backlog, Token::connection(service, id))));
    }

    fn relieve(&mut self, token: Token) {
        if let Some(slot) = self.table.named(token) {
            let id = slot.conn.id;
            self.table.end(id, CloseReason::TotalOutput);
        }
    }

    fn cut_lingering(&mut self) -> bool {
        self.table.cut_lingering()
    }

    fn is_busy(&self, state: &LoopState) -> bool {
        self.mail
            || !self.table.is_idle()
            || self.listeners.iter().any(|listener| listener.wants(state))
    }

    fn next_deadline(&self) -> Option<Nanos> {
        self.table.next_deadline()
    }

    fn mail(&mut self) {
        self.mail = true;
    }

    fn stop_listening(&mut self) {
        for mut listener in std::mem::take(&mut self.listeners) {
            listener.disarm(&mut self.table.timers);
        }
        // Those posted by this very thread have not woken it yet.
        self.mail = true;
    }

    fn holds_up(&self) -> bool {
        self.mailbox.holds_up()
    }

    fn waiting(&self) -> u64 {
        self.mailbox.waiting()
    }

    fn is_empty(&self) -> bool {
        self.table.connections.is_empty()
    }

    fn ready(&mut self, token: Token, what: Readiness) {
        self.mark_ready(token, what)
    }

    fn work(&mut self, state: &mut LoopState, scratch: &mut Scratch) {
        self.take_turn(state, scratch)
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

    fn cut(&mut self, state: &mut LoopState) -> usize {
        self.cut_all(state)
    }
}

/// A service's name in the log until it gets another: its handler's type without path and parameters.
pub(crate) fn type_name_of<H>() -> &'static str {
    let name = std::any::type_name::<H>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}
