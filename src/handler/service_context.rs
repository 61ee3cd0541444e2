use std::fmt;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::Context;
use crate::connection::connection::Stage;
use crate::connection::{ConnId, TimerId};
use crate::error::Error;
use crate::limits::Limits;
use crate::net::ToAddress;
use crate::reactor::Counters;
use crate::reactor::loop_state::LoopState;
use crate::reactor::table::Table;
use crate::reactor::token::Token;

/// What a handler can do with its service as a whole: all its connections, and the loop. Hooks
/// that are about no connection get it alone.
///
/// The id of a connection that is gone does no harm: the call says so and changes nothing.
pub struct ServiceContext<'a, S> {
    pub(crate) table: &'a mut Table<S>,
    pub(crate) state: &'a mut LoopState,
}

impl<'a, S> ServiceContext<'a, S> {
    pub(crate) fn new(table: &'a mut Table<S>, state: &'a mut LoopState) -> Self {
        ServiceContext { table, state }
    }

    /// Any connection of this handler, to be used as in its own hooks: to resume or close it, to
    /// set its timers, to look at its session. None when it is gone or closing. What is sent
    /// through it counts as caused by others, as with [`send_to`](Self::send_to). One that was
    /// dialled is there before its `on_open`, but takes no output yet.
    pub fn connection(&mut self, id: ConnId) -> Option<Context<'_, S>> {
        self.table.commit(self.state);
        self.table.get(id).filter(|slot| slot.conn.stage <= Stage::Open)?;
        Some(Context::new(self.table, self.state, id, false))
    }

    /// Appends to the output of any connection of this handler. False when it is gone, closing,
    /// or dialled and not there yet. It did not ask for this, so it must keep up: see
    /// [`max_output`](Limits::max_output).
    pub fn send_to(&mut self, id: ConnId, bytes: impl AsRef<[u8]>) -> bool {
        self.send_bytes(id, bytes.as_ref(), false)
    }

    /// As [`send_to`](Self::send_to), for an answer to the connection's own request that was
    /// worked out elsewhere, as on another thread: a client that does not read it is held back,
    /// not closed.
    pub fn reply_to(&mut self, id: ConnId, bytes: impl AsRef<[u8]>) -> bool {
        self.send_bytes(id, bytes.as_ref(), true)
    }

    fn send_bytes(&mut self, id: ConnId, bytes: &[u8], own: bool) -> bool {
        self.table.commit(self.state);
        self.table.get(id).is_some() && self.table.send(id.slot(), bytes, own, self.state)
    }

    /// Appends to the output of every open connection of this handler.
    pub fn broadcast(&mut self, bytes: impl AsRef<[u8]>) {
        self.broadcast_if(bytes, |_, _| true);
    }

    /// As [`broadcast`](Self::broadcast), to those that `wanted` picks by id and session.
    pub fn broadcast_if(
        &mut self,
        bytes: impl AsRef<[u8]>,
        wanted: impl FnMut(ConnId, &S) -> bool,
    ) {
        self.table.broadcast(bytes.as_ref(), None, self.state, wanted);
    }

    /// All open connections of this handler and their sessions, in no particular order; ids
    /// sort by arrival. Costs as many steps as there have ever been connections at once. It borrows
    /// the context: to send to some of them, collect their ids first, or
    /// [`broadcast_if`](Self::broadcast_if).
    pub fn connections(&self) -> impl Iterator<Item = (ConnId, &S)> {
        self.table.everyone().map(|(id, slot)| (id, &slot.session))
    }

    /// How many connections of this handler are open.
    pub fn connection_count(&self) -> usize {
        self.table.open
    }

    /// Dials out. The new connection belongs to this handler like an accepted one:
    /// [`on_open`](crate::Handler::on_open) comes when it is there, and when it cannot be had
    /// [`on_close`](crate::Handler::on_close) with the error and without an `on_open`. Nothing is
    /// called before this hook has returned. The name of a [host](crate::Host) is looked up on a
    /// thread, and its addresses are tried in turn; what cannot be looked up ends with
    /// [`NotFound`](std::io::ErrorKind::NotFound). A Unix socket whose queue of newcomers is full
    /// cannot be waited for, as the system has no event for it (connect(2), `EAGAIN`): `on_close`
    /// comes with [`WouldBlock`](std::io::ErrorKind::WouldBlock), and a timer may try again.
    ///
    /// # Errors
    /// [`Error::Address`] where text is no address, [`Error::ShuttingDown`].
    pub fn connect(&mut self, address: impl ToAddress, session: S) -> Result<ConnId, Error> {
        self.table.dial(None, &address.to_address()?, session, self.state)
    }

    /// As [`connect`](Self::connect), from a source address of this machine's; the system chooses
    /// the port. One source address has about 28,000 ports for connections to the same target:
    /// who needs more of them, or dials faster than closed ones are given free, uses several.
    /// When they are used up, `on_close` comes with
    /// [`AddrNotAvailable`](std::io::ErrorKind::AddrNotAvailable), as for a host that has no address of
    /// the source's family; with
    /// [`InvalidInput`](std::io::ErrorKind::InvalidInput) where the target is a Unix socket.
    ///
    /// # Errors
    /// Those of `connect`.
    pub fn connect_from(
        &mut self,
        source: IpAddr,
        address: impl ToAddress,
        session: S,
    ) -> Result<ConnId, Error> {
        self.table.dial(Some(source), &address.to_address()?, session, self.state)
    }

    /// Makes a connection of two descriptors, such as standard input and output, a child's pipes
    /// or a terminal: what can be read from `input` is its input, what it sends is written to
    /// `output`. It belongs to this handler like the others;
    /// [`on_open`](crate::Handler::on_open) comes in the next turn. Where the descriptors cannot be
    /// had, [`on_close`](crate::Handler::on_close) comes with the error and without an `on_open`.
    ///
    /// ```no_run
    /// # fn f(cx: &mut reactor::Context<'_, ()>) -> Result<(), reactor::Error> {
    /// cx.adopt(std::io::stdin(), std::io::stdout(), ())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The loop works on duplicates: the descriptors themselves stay as they are, and open. They
    /// may block; since others may share them they are not changed, but asked before each read and
    /// write. So the loop blocks only where another process reads the same input and is faster, or
    /// on a disk or network file system that is slow. A regular file, which is always ready, has
    /// its share of each turn like the others.
    ///
    /// At a close unread input is left to whoever reads it next, and there is no
    /// [`linger`](Limits::linger). Who reads the output sees the end once everybody has closed it;
    /// an output that nobody reads ends the connection at the next write, with
    /// [`BrokenPipe`](std::io::ErrorKind::BrokenPipe).
    ///
    /// # Errors
    /// [`Error::ShuttingDown`].
    pub fn adopt(
        &mut self,
        input: impl AsFd,
        output: impl AsFd,
        session: S,
    ) -> Result<ConnId, Error> {
        self.table.adopt(input.as_fd(), output.as_fd(), session, self.state)
    }

    /// Calls [`on_service_timer`](crate::Handler::on_service_timer) once, `after` from
    /// [`now`](Self::now).
    pub fn set_service_timer(&mut self, after: Duration) -> TimerId {
        let when = self.state.after(after);
        self.table.timers.set(when, Token::listener(self.table.service, 0))
    }

    /// As [`set_service_timer`](Self::set_service_timer), at a moment: for a rhythm that does
    /// not drift.
    pub fn set_service_timer_at(&mut self, when: Instant) -> TimerId {
        let when = self.state.nanos(when);
        self.table.timers.set(when, Token::listener(self.table.service, 0))
    }

    /// Cancels a timer of the service. False when it has fired already.
    pub fn cancel_service_timer(&mut self, timer: TimerId) -> bool {
        self.table.timers.cancel(timer, Token::listener(self.table.service, 0))
    }

    /// The moment this turn began; reading it costs nothing.
    pub fn now(&self) -> Instant {
        self.state.instant(self.state.turn.now)
    }

    /// The moment a timer is due: for setting the next one without drift.
    pub fn due(&self, timer: TimerId) -> Instant {
        self.state.instant(timer.when())
    }

    /// The limits of this service.
    pub fn limits(&self) -> &Limits {
        &self.table.limits
    }

    /// What the loop has done so far.
    pub fn counters(&self) -> &Counters {
        &self.state.counters
    }

    /// Asks for a graceful shutdown of the whole reactor, which comes after all that has been
    /// posted to its services; see [`Handle::stop`](crate::Handle::stop).
    pub fn stop(&mut self) {
        self.state.stop();
    }
}

impl<S> fmt::Debug for ServiceContext<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceContext").field("service", &self.table.name).finish_non_exhaustive()
    }
}
