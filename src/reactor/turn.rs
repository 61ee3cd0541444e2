//! The steps of a turn, as the reactor asks each service for them. Static dispatch ends here: the
//! reactor sees a `dyn Serve` and knows nothing of handlers and sessions.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::accept::Listener;
use crate::connection::State;
use crate::core::Core;
use crate::flags::Flag;
use crate::id::Token;
use crate::input::Scratch;
use crate::server::Server;
use crate::timer::Nanos;
use crate::{Address, CloseReason, ConnId, Error, Handler, Listen};

/// Connections that one service serves in a turn; the rest wait for the next one.
const SERVED_PER_TURN: usize = 256;
/// TLS handshakes that one service moves on in a turn: at a millisecond each for the largest usual
/// keys, the others wait for no more than that.
const HANDSHAKES_PER_TURN: usize = 8;
/// Messages that one service takes in a turn.
pub(crate) const MESSAGES_PER_TURN: usize = 1024;
/// While shutting down nobody is waited for as long as [`linger`](crate::Limits::linger) says.
const LINGER_AT_SHUTDOWN: Duration = Duration::from_millis(500);

/// What the selector said of a socket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Readiness {
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// See [`Flag::ReadOn`].
    pub(crate) read_on: bool,
    pub(crate) error: bool,
}

impl From<&mio::event::Event> for Readiness {
    fn from(event: &mio::event::Event) -> Readiness {
        Readiness {
            readable: event.is_readable(),
            writable: event.is_writable(),
            read_on: event.is_read_closed() || event.is_priority(),
            error: event.is_error(),
        }
    }
}

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

/// A service of whatever handler, as the reactor sees it.
pub(crate) trait Serve {
    fn listen(&mut self, listen: Listen, core: &mut Core) -> Result<Address, Error>;
    fn dial(&mut self, address: &Address, core: &mut Core) -> Result<ConnId, Error>;
    fn adopt(
        &mut self,
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
        core: &mut Core,
    ) -> Result<ConnId, Error>;
    /// What it goes by in the log.
    fn name(&self) -> &str;
    fn set_name(&mut self, name: Box<str>);
    /// How many descriptors the selector watches for it, at the most.
    fn sources(&self) -> usize;
    /// Notes an event; nothing is done about it yet.
    fn ready(&mut self, token: Token, what: Readiness);
    /// Accepts, reads, frames, handles, fires timers, takes messages, each within its budget.
    fn work(&mut self, core: &mut Core, scratch: &mut Scratch);
    /// Writes what the turn has gathered.
    fn flush(&mut self, core: &mut Core);
    /// Tells the handler of those that ended, and frees them.
    fn reap(&mut self, core: &mut Core);
    /// Bytes of output in memory, the arena's not counted.
    fn backlog(&self) -> usize;
    /// Adds who has how many of them.
    fn backlogs(&self, all: &mut Vec<(usize, Token)>);
    /// Ends a connection for the others' sake.
    fn relieve(&mut self, token: Token);
    /// Ends the connection that has lingered longest; says whether there is one.
    fn cut_lingering(&mut self) -> bool;
    /// More could be done now, without any event.
    fn is_busy(&self, core: &Core) -> bool;
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
    fn shut_down(&mut self, core: &mut Core);
    /// Ends everybody at once; says how many there were that had not got all their output.
    fn cut(&mut self, core: &mut Core) -> usize;
    /// No connection is left.
    fn is_empty(&self) -> bool;
}

impl<H: Handler> Serve for Server<H> {
    fn listen(&mut self, listen: Listen, core: &mut Core) -> Result<Address, Error> {
        let (service, first) = (self.pool.service, self.listeners.len());
        let token = |number| Token::listener(service, first + number);
        let (local, listeners) = Listener::bind(listen, token, &self.pool.limits, core)?;
        self.listeners.extend(listeners);
        for number in first..self.listeners.len() {
            let local = self.listeners[number].address().clone();
            self.call_service(core, |handler, cx| handler.on_listening(cx, &local));
        }
        Ok(local)
    }

    fn dial(&mut self, address: &Address, core: &mut Core) -> Result<ConnId, Error> {
        self.pool.dial(None, address, H::Session::default(), core)
    }

    fn adopt(
        &mut self,
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
        core: &mut Core,
    ) -> Result<ConnId, Error> {
        self.pool.adopt(input, output, H::Session::default(), core)
    }

    fn name(&self) -> &str {
        &self.pool.name
    }

    fn set_name(&mut self, name: Box<str>) {
        self.pool.name = name;
    }

    fn sources(&self) -> usize {
        // A connection may be made of two.
        self.listeners.len() + 2 * self.pool.connections.len()
    }

    fn ready(&mut self, token: Token, what: Readiness) {
        if !token.is_connection() {
            if let Some(listener) = self.listeners.get_mut(token.slot()) {
                listener.ready();
            }
            return;
        }
        let Some(found) = self.pool.named(token) else { return };
        let (id, connecting) = (found.id, found.state == State::Connecting);
        let flags = &mut found.flags;
        let read_on = what.read_on || what.error;
        flags.set(Flag::Readable, what.readable || read_on || flags.has(Flag::Readable));
        flags.set(Flag::ReadOn, read_on || flags.has(Flag::ReadOn));
        // Where only the output of two descriptors is gone, there may be input yet.
        // One of a host's addresses that fails leaves the others.
        let broken = what.error && found.stream.is_socket() && found.stream.dialling().is_none();
        flags.set(Flag::Broken, broken || flags.has(Flag::Broken));
        let unread = found.is_broken_unread();
        if (unread || what.error && found.flags.has(Flag::Eof)) && !found.is_unheard() {
            let error = found.take_error();
            return self.pool.fail(id, &error);
        }
        let flags = &mut found.flags;
        if flags.has(Flag::Blocked) && (what.writable || what.error) {
            flags.set(Flag::Blocked, false);
            self.pool.mark_dirty(id.slot());
        }
        if connecting || unread {
            self.pool.visit(id);
        } else {
            self.pool.queue(id);
        }
    }

    fn work(&mut self, core: &mut Core, scratch: &mut Scratch) {
        self.pool.begin_step(core);
        for number in 0..self.listeners.len() {
            if self.listeners[number].wants(core) {
                self.accept(number, core);
            }
        }
        self.pool.begin_step(core);
        for _ in 0..self.pool.ready.len().min(SERVED_PER_TURN) {
            if self.pool.is_sated(core) {
                break;
            }
            if let Some(id) = self.pool.ready.pop_front() {
                self.serve(id, core, scratch);
            }
        }
        for _ in 0..self.pool.handshakes.len().min(HANDSHAKES_PER_TURN) {
            if let Some(id) = self.pool.handshakes.pop_front() {
                self.serve(id, core, scratch);
            }
        }
        self.fire(core);
        if self.mail {
            self.pool.begin_step(core);
            for _ in 0..MESSAGES_PER_TURN {
                if self.pool.is_sated(core) {
                    break;
                }
                let Some(message) = self.mailbox.next() else {
                    self.mail = false;
                    break;
                };
                self.call_service(core, |handler, cx| handler.on_message(cx, message));
            }
        }
        self.watch.check(&mut core.clock, &self.pool.name, self.pool.limits.slow_call);
    }

    fn flush(&mut self, core: &mut Core) {
        // Those that become dirty meanwhile have used up their budget: they are for next turn.
        let mut dirty = std::mem::take(&mut self.pool.dirty);
        for id in dirty.drain(..) {
            self.flush_one(id, core);
            self.pool.keep_budget(core);
        }
        dirty.append(&mut self.pool.dirty);
        self.pool.dirty = dirty;
    }

    fn reap(&mut self, core: &mut Core) {
        if self.pool.ending.is_empty() {
            return;
        }
        core.clock = Instant::now();
        self.pool.begin_step(core);
        // Thousands that leave a room at once are thousands of broadcasts: not all in one turn.
        // Those that end meanwhile are told in the next round.
        for _ in 0..self.pool.ending.len() {
            if self.pool.is_sated(core) {
                break;
            }
            if let Some(id) = self.pool.ending.pop_front() {
                self.reap_one(id, core);
            }
        }
        self.watch.check(&mut core.clock, &self.pool.name, self.pool.limits.slow_call);
    }

    fn backlog(&self) -> usize {
        self.pool.backlog
    }

    fn backlogs(&self, all: &mut Vec<(usize, Token)>) {
        let service = self.pool.service;
        let each = self.pool.connections.iter();
        let each = each.map(|(_, found)| (found.output.backlog(), found.id));
        all.extend(each.map(|(backlog, id)| (backlog, Token::connection(service, id))));
    }

    fn relieve(&mut self, token: Token) {
        if let Some(found) = self.pool.named(token) {
            let id = found.id;
            self.pool.end(id, CloseReason::TotalOutput);
        }
    }

    fn cut_lingering(&mut self) -> bool {
        self.pool.cut_lingering()
    }

    fn is_busy(&self, core: &Core) -> bool {
        self.mail
            || !self.pool.is_idle()
            || self.listeners.iter().any(|listener| listener.wants(core))
    }

    fn next_deadline(&self) -> Option<Nanos> {
        self.pool.timers.next()
    }

    fn mail(&mut self) {
        self.mail = true;
    }

    fn stop_listening(&mut self) {
        for mut listener in std::mem::take(&mut self.listeners) {
            listener.disarm(&mut self.pool.timers);
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

    fn shut_down(&mut self, core: &mut Core) {
        self.mailbox.stop();
        self.mail = true;
        self.call_service(core, H::on_shutdown);
        self.watch.check(&mut core.clock, &self.pool.name, self.pool.limits.slow_call);
        self.pool.limits.linger = self.pool.limits.linger.min(LINGER_AT_SHUTDOWN);
        let everybody: Vec<_> = self.pool.connections.iter().map(|(_, found)| found.id).collect();
        for id in everybody {
            self.pool.close(id, CloseReason::Shutdown, core);
            self.pool.arm(id);
        }
    }

    fn cut(&mut self, core: &mut Core) -> usize {
        self.stop_listening();
        let everybody: Vec<_> = self.pool.connections.iter().map(|(_, found)| found.id).collect();
        let mut unsent = 0;
        for id in everybody {
            let found = &self.pool.connections[id.slot()];
            unsent += usize::from(!found.output.is_empty() || found.stream.unsent());
            self.pool.end(id, CloseReason::Shutdown);
        }
        while !self.pool.ending.is_empty() {
            self.reap(core);
        }
        unsent
    }

    fn is_empty(&self) -> bool {
        self.pool.connections.is_empty()
    }
}
