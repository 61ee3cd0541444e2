use std::fmt;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use super::Context;
use crate::connection::connection::Stage;
use crate::connection::{ConnId, TimerId};
use crate::error::Error;
use crate::limits::Limits;
use crate::net::ToConnect;
use crate::reactor::Counters;
use crate::reactor::loop_state::LoopState;
use crate::reactor::table::Table;
use crate::reactor::token::Token;

/// What a handler can do with its service as a whole: with all its connections, and with the loop.
/// Hooks that are about no connection get it in place of a [`Context`].
///
/// An id may be that of a connection that is gone: the call says so and changes nothing.
pub struct ServiceContext<'a, S> {
    pub(super) table: &'a mut Table<S>,
    pub(super) state: &'a mut LoopState,
}

impl<'a, S> ServiceContext<'a, S> {
    pub(crate) fn new(table: &'a mut Table<S>, state: &'a mut LoopState) -> Self {
        ServiceContext { table, state }
    }

    /// The context of another connection of this handler: to resume or close it, to set its timers,
    /// to look at its session. None if the connection is gone or closing.
    ///
    /// What is sent through it counts as caused by others, as with [`send_to`](Self::send_to). A
    /// connection that was dialled can be had before its `on_open`, but takes no output until then.
    pub fn connection(&mut self, id: ConnId) -> Option<Context<'_, S>> {
        self.table.commit(self.state);
        self.table.get(id).filter(|slot| slot.conn.stage <= Stage::Open)?;
        Some(Context::new(self.table, self.state, id, false))
    }

    /// Appends bytes to the output of any connection of this handler. False, and nothing is sent, if
    /// it is gone, closing, half-closed, or not open yet.
    ///
    /// The client did not ask for this, so it must keep up: above
    /// [`max_output`](Limits::max_output) unsent bytes, the connection is closed with
    /// [`CloseReason::SlowConsumer`](crate::CloseReason::SlowConsumer). A connection that was dialled is
    /// not closed but full: the call gives false while [`connection`](Self::connection) still has it and
    /// it [takes output](Context::takes_output), and [`request_drain`](Context::request_drain) tells when
    /// to go on.
    pub fn send_to(&mut self, id: ConnId, bytes: impl AsRef<[u8]>) -> bool {
        self.send_bytes(id, bytes.as_ref(), false)
    }

    /// As [`send_to`](Self::send_to), for the answer to a request of that connection which was worked
    /// out elsewhere, for instance on another thread. If the client does not read it, the connection
    /// is not read either, instead of being closed: see [`high_water`](Limits::high_water).
    pub fn reply_to(&mut self, id: ConnId, bytes: impl AsRef<[u8]>) -> bool {
        self.send_bytes(id, bytes.as_ref(), true)
    }

    fn send_bytes(&mut self, id: ConnId, bytes: &[u8], own: bool) -> bool {
        self.table.commit(self.state);
        self.table.get(id).is_some() && self.table.send(id.slot(), bytes, own, self.state)
    }

    /// Appends bytes to the output of every open connection of this handler. For each of them they
    /// count as caused by others, as with [`send_to`](Self::send_to).
    pub fn broadcast(&mut self, bytes: impl AsRef<[u8]>) {
        self.broadcast_if(bytes, |_, _| true);
    }

    /// As [`broadcast`](Self::broadcast), to the connections that `wanted` picks by id and session.
    pub fn broadcast_if(
        &mut self,
        bytes: impl AsRef<[u8]>,
        wanted: impl FnMut(ConnId, &S) -> bool,
    ) {
        self.table.broadcast(bytes.as_ref(), None, self.state, wanted);
    }

    /// All open connections of this handler and their sessions, in no particular order. Ids sort by
    /// arrival.
    ///
    /// To walk over all costs as many steps as there have been connections at once. It borrows the
    /// context: to send to some of them, collect their ids first, or use
    /// [`broadcast_if`](Self::broadcast_if).
    pub fn connections(&self) -> impl Iterator<Item = (ConnId, &S)> {
        self.table.everyone().map(|(id, slot)| (id, &slot.session))
    }

    /// The session of one of them, in whatever stage it is.
    pub(crate) fn session_of(&self, id: ConnId) -> Option<&S> {
        self.table.get(id).map(|slot| &slot.session)
    }

    /// How many connections of this handler are open.
    pub fn connection_count(&self) -> usize {
        self.table.open
    }

    /// Dials out. The new connection belongs to this handler like an accepted one. A
    /// [`Connect`](crate::Connect) says more than an address: that a PROXY header goes first.
    ///
    /// When it is connected, [`on_open`](crate::Handler::on_open) is called. When it cannot be,
    /// [`on_close`](crate::Handler::on_close) is called with the error, without an `on_open`.
    /// Neither is called before the current hook has returned.
    ///
    /// The name of a [host](crate::Host) is looked up on another thread, and its addresses are tried
    /// in turn. If it cannot be looked up, the error is
    /// [`NotFound`](std::io::ErrorKind::NotFound), and [`Context::error`] says why. A Unix socket whose
    /// queue of newcomers is full cannot be waited for, since the system has no event for that
    /// (connect(2), `EAGAIN`). The error is then [`WouldBlock`](std::io::ErrorKind::WouldBlock); set a
    /// timer to try again, or leave that to [`Redial`](crate::client::Redial).
    ///
    /// # Errors
    /// [`Error::Address`] if a text is not an address, and [`Error::ShuttingDown`].
    pub fn connect(&mut self, target: impl ToConnect, session: S) -> Result<ConnId, Error> {
        self.table.dial(None, &target.to_connect()?, session, self.state)
    }

    /// As [`connect`](Self::connect), from one of this machine's addresses; the system chooses the
    /// port.
    ///
    /// One source address has about 28,000 ports for connections to the same target. To have more
    /// connections than that, or to dial faster than the ports of closed ones are released, use
    /// several source addresses. When the ports are used up, `on_close` is called with
    /// [`AddrNotAvailable`](std::io::ErrorKind::AddrNotAvailable). So it is if a host has no address
    /// of the source's family. If the target is a Unix socket, the error is
    /// [`InvalidInput`](std::io::ErrorKind::InvalidInput).
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    pub fn connect_from(
        &mut self,
        source: IpAddr,
        target: impl ToConnect,
        session: S,
    ) -> Result<ConnId, Error> {
        self.table.dial(Some(source), &target.to_connect()?, session, self.state)
    }

    /// Makes a connection of two descriptors, such as standard input and output, a child's pipes
    /// or a terminal. What can be read from `input` is its input, and what it is sent is written to
    /// `output`.
    ///
    /// It belongs to this handler like the others. [`on_open`](crate::Handler::on_open) is called in
    /// the next turn. If the descriptors cannot be used, [`on_close`](crate::Handler::on_close) is
    /// called with the error, without an `on_open`. For input alone, give `/dev/null`, opened for writing,
    /// as the output.
    ///
    /// ```no_run
    /// # fn f(cx: &mut reactor::Context<'_, ()>) -> Result<(), reactor::Error> {
    /// cx.adopt(std::io::stdin(), std::io::stdout(), ())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The loop works on duplicates. The descriptors themselves stay as they are, and open. They may
    /// be blocking: others may share them, so the loop does not change them, but asks before each
    /// read and write whether it would block. So the loop blocks only if another process reads the
    /// same input and is faster, or on a disk or network file system that is slow. A regular file,
    /// which is always ready, has its share of each turn like other connections.
    ///
    /// At a close, unread input is left to whoever reads it next, and there is no
    /// [`linger`](Limits::linger). The reader of the output sees its end once everybody who has the
    /// descriptor has closed it. If nobody reads the output any more, the connection ends at the
    /// next write with [`BrokenPipe`](std::io::ErrorKind::BrokenPipe).
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

    /// Has [`on_service_timer`](crate::Handler::on_service_timer) called once. `after` counts from
    /// [`now`](Self::now), the beginning of the turn; resolution is a millisecond.
    pub fn set_service_timer(&mut self, after: Duration) -> TimerId {
        let when = self.state.after(after);
        self.table.timers.set(when, self.token())
    }

    /// As [`set_service_timer`](Self::set_service_timer), at a given moment: for a rhythm that does
    /// not drift. A moment that has passed is due at once.
    pub fn set_service_timer_at(&mut self, when: Instant) -> TimerId {
        let when = self.state.nanos(when);
        self.table.timers.set(when, self.token())
    }

    /// Cancels a timer of the service. False if it has fired already, or belongs to a connection.
    pub fn cancel_service_timer(&mut self, timer: TimerId) -> bool {
        self.table.timers.cancel(timer, self.token())
    }

    /// The token of the service's own timers.
    fn token(&self) -> Token {
        Token::listener(self.table.service, 0)
    }

    /// The moment at which this turn began. To read it costs no system call.
    pub fn now(&self) -> Instant {
        self.state.instant(self.state.turn.now)
    }

    /// The time of day, for dates that people read. It may jump in both directions, so measure with
    /// [`now`](Self::now).
    ///
    /// This is [`SystemTime::now`]: it asks the system at each call, also twice in one turn. In a test
    /// [`Harness::set_wall_clock`](crate::testing::Harness::set_wall_clock) sets it.
    pub fn wall_clock(&self) -> SystemTime {
        self.state.wall_clock()
    }

    /// The moment at which a timer is due, or was: for setting the next one without drift.
    pub fn due(&self, timer: TimerId) -> Instant {
        self.state.instant(timer.when)
    }

    /// The limits of this service.
    pub fn limits(&self) -> &Limits {
        &self.table.limits
    }

    /// What the loop has done so far, for all services together.
    pub fn counters(&self) -> Counters {
        self.state.counted()
    }

    /// In [`on_shutdown`](crate::Handler::on_shutdown): the connections of this handler are not closed
    /// now, but after this time, unless it closes them itself before. Until then they are served as ever,
    /// timers fire and messages come, those of other services too; only nothing is accepted or dialled.
    /// The shutdown takes as long, but no longer than its
    /// [timeout](crate::Reactor::set_shutdown_timeout).
    ///
    /// It is for a connection to a server that has to hear of the end, and confirm it. Called again while
    /// they are kept open, it replaces the time. Before [`on_shutdown`](crate::Handler::on_shutdown), and
    /// once they are being closed, it does nothing.
    pub fn keep_open(&mut self, time: Duration) {
        if let Some(until) = &mut self.table.kept_open {
            *until = self.state.after(time);
        }
    }

    /// Asks for a graceful shutdown of the whole reactor. Messages that were posted to its services
    /// before are handled first. See [`Handle::stop`](crate::Handle::stop).
    pub fn stop(&mut self) {
        self.state.stop();
    }
}

impl<S> fmt::Debug for ServiceContext<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceContext").field("service", &self.table.name).finish_non_exhaustive()
    }
}
