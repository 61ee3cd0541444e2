use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};
use std::{fmt, io};

use super::{Lines, ServiceContext, Writer};
use crate::connection::connection::Stage;
use crate::connection::flags::Flag;
use crate::connection::framing::Search;
use crate::connection::{CloseReason, ConnId, TimerId};
use crate::error::{self, Error};
use crate::net::Credentials;
#[cfg(feature = "tls")]
use crate::net::tls::PeerCertificate;
use crate::reactor::Ask;
use crate::reactor::hand_over::PutOver;
use crate::reactor::loop_state::LoopState;
use crate::reactor::reports::Asked;
use crate::reactor::table::Table;
use crate::reactor::token::Token;

/// What a handler can do with one connection: the one that a hook is called for, or one that
/// [`ServiceContext::connection`] gives. All methods of [`ServiceContext`] can be called on it too.
pub struct Context<'a, S> {
    pub(super) service: ServiceContext<'a, S>,
    pub(super) id: ConnId,
    /// The connection's own request is being handled. So what it is sent is a reply: a client that
    /// does not read it is held back, not closed as a slow consumer.
    pub(super) own: bool,
}

impl<'a, S> Context<'a, S> {
    pub(crate) fn new(
        table: &'a mut Table<S>,
        state: &'a mut LoopState,
        id: ConnId,
        own: bool,
    ) -> Self {
        Context { service: ServiceContext::new(table, state), id, own }
    }

    /// The connection's identity, for instance to [send to](ServiceContext::send_to) it later.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The handler's own state of this connection. It borrows the context, so make what is to be
    /// sent of it first: `let line = format!("{}\n", cx.session().name); cx.send(line);`
    pub fn session(&mut self) -> &mut S {
        &mut self.service.table.connections[self.id.slot()].session
    }

    /// Appends bytes to this connection's output. All that a turn sends to it leaves in one write.
    ///
    /// Returns false, and sends nothing, after [`close`](Self::close) or
    /// [`half_close`](Self::half_close), or once a read or a write has failed. So it does while a
    /// connection that was dialled is full, that is above [`max_output`](crate::Limits::max_output)
    /// unsent bytes; see [`client`](crate::client).
    ///
    /// What happens to a client that does not read depends on who caused the output:
    ///
    /// * What a connection is sent in its own `on_open`, `on_line`, `on_bytes`, `on_drain` and
    ///   `on_eof`, or by [`reply_to`](ServiceContext::reply_to), is a reply. Above
    ///   [`high_water`](crate::Limits::high_water) unsent bytes of replies, the connection is not
    ///   read until its client has taken most of them.
    /// * What it is sent anywhere else, that is in `on_timer`, in the hooks of other connections and
    ///   in those of the service, comes from others. Above
    ///   [`max_output`](crate::Limits::max_output) unsent bytes of it, the connection is closed with
    ///   [`CloseReason::SlowConsumer`].
    #[inline]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let mut reply = self.writer();
        reply.put(bytes);
        reply.finish()
    }

    /// Appends formatted text to this connection's output: what `write!(cx, "…")` and
    /// `writeln!(cx, "hello {name}")` call. It cannot fail and returns nothing.
    pub fn write_fmt(&mut self, text: fmt::Arguments<'_>) {
        self.writer().write_fmt(text);
    }

    /// A writer that appends to this connection's output piece by piece, at a lower cost than a
    /// [`send`](Self::send) for each piece.
    #[inline]
    pub fn writer(&mut self) -> Writer<'_, 'a, S> {
        Writer::new(self)
    }

    /// Appends bytes to the output of every open connection of this handler, this one included.
    ///
    /// For this connection they count as a reply, as with [`send`](Self::send). Others that do not
    /// read them are closed as slow consumers above [`max_output`](crate::Limits::max_output); those
    /// that were dialled do not get it while they are full.
    pub fn broadcast(&mut self, bytes: impl AsRef<[u8]>) {
        self.broadcast_if(bytes, |_, _| true);
    }

    /// As [`broadcast`](Self::broadcast), to all connections but this one.
    pub fn broadcast_to_others(&mut self, bytes: impl AsRef<[u8]>) {
        let me = self.id;
        self.broadcast_if(bytes, |id, _| id != me);
    }

    /// As [`broadcast`](Self::broadcast), to the connections that `wanted` picks by id and session.
    pub fn broadcast_if(
        &mut self,
        bytes: impl AsRef<[u8]>,
        wanted: impl FnMut(ConnId, &S) -> bool,
    ) {
        let ServiceContext { table, state } = &mut self.service;
        table.broadcast(bytes.as_ref(), self.own.then_some(self.id), state, wanted);
    }

    /// Ends the connection gracefully.
    ///
    /// No more input is handled. What was sent goes out, then the write side is shut. After that,
    /// input is read and discarded until the client ends its side too, for at most
    /// [`linger`](crate::Limits::linger), so that no reset destroys the last reply. The reason is
    /// [`CloseReason::Closed`], or [`CloseReason::PeerClosed`] if the client had ended its side
    /// before.
    pub fn close(&mut self) {
        self.commit();
        let reason = if self.at_eof() { CloseReason::PeerClosed } else { CloseReason::Closed };
        self.service.table.close(self.id, reason, self.service.state);
    }

    /// Ends our side alone. No more output is taken, not even a [`broadcast`](Self::broadcast). What
    /// was sent goes out, then the write side is shut.
    ///
    /// Input is handled as before, up to its end. Then, after [`on_eof`](crate::Handler::on_eof),
    /// the connection closes by itself with [`CloseReason::PeerClosed`]. Called in `on_eof` or
    /// later, this is the same as [`close`](Self::close).
    ///
    /// A peer that never ends its side stays until [`idle_timeout`](crate::Limits::idle_timeout);
    /// no other deadline applies before a close.
    pub fn half_close(&mut self) {
        self.commit();
        let table = &mut self.service.table;
        let flags = &mut table.connections[self.id.slot()].conn.flags;
        if flags.has(Flag::EofTold) {
            return self.close();
        }
        flags.set(Flag::Finished, true);
        // The flush shuts the write side once all is sent.
        table.mark_dirty(self.id.slot());
    }

    /// Has the connection leave this service for the one of that [name](crate::Reactor::set_name) in the
    /// same reactor, where it goes on as a WebSocket.
    ///
    /// What was sent before goes out, and then the answer of the upgrade. Until that is out, the
    /// connection is neither read nor does it take output. Then this service is told with
    /// [`CloseReason::HandedOver`], and its session and its timers are gone; if the client is gone first,
    /// or does not take it all within [`flush_timeout`](crate::Limits::flush_timeout), the reason is
    /// that, and the connection goes nowhere.
    ///
    /// In the other service it is a newcomer with an id of its own: in the next turn
    /// [`on_open`](crate::Handler::on_open) is called, and the bytes that this service did not take are
    /// the first of its input. [`max_connections`](crate::Limits::max_connections) and the limits by peer
    /// are those of that service; one too many is told so by a close frame with code 1013. From
    /// which network one may come, as [`allow`](crate::Listen::allow) says, was judged at the listener of
    /// this service. Who somebody is cannot be judged so: a service all of whose listeners ask for that, by
    /// a [client certificate](crate::Tls::client_ca) or as Unix sockets that not every user may write to,
    /// takes nobody over. One without listeners does.
    ///
    /// The [counters](crate::Counters) have it as closed here and as accepted there. Needs the feature
    /// `websocket`.
    ///
    /// # Errors
    /// [`Error::HandOver`] if there is no such service, if it takes nobody over, if the connection is there
    /// already, or takes no output; [`Error::Datagrams`]; [`Error::ShuttingDown`]. Nothing has been sent then, and the
    /// connection goes on as before.
    #[cfg(feature = "websocket")]
    pub fn hand_over(
        &mut self,
        to: &str,
        upgrade: crate::net::websocket::Upgrade,
    ) -> Result<(), Error> {
        let answer = upgrade.response();
        self.hand_over_with(to, &answer, Box::new(|stream, input| upgrade.over(stream, input)))
    }

    /// As [`hand_over`](Self::hand_over): `words` go out last, and `over` makes what it runs over then.
    #[cfg_attr(not(feature = "websocket"), allow(dead_code, reason = "the first layer that can"))]
    pub(crate) fn hand_over_with(
        &mut self,
        to: &str,
        words: &[u8],
        over: PutOver,
    ) -> Result<(), Error> {
        self.commit();
        self.service.table.hand_over(self.id, to, words, over, self.service.state)
    }

    /// Ends the connection at once with a reset. Unsent output is lost.
    pub fn abort(&mut self) {
        self.commit();
        self.service.table.end(self.id, CloseReason::Aborted);
    }

    /// What the system said, if the connection ends with [`CloseReason::Error`]; none otherwise. To
    /// be called in [`on_close`](crate::Handler::on_close), for a message to people. The kind in the
    /// reason says less: the standard library has no kind for many errors, such as that no file
    /// descriptor is left.
    pub fn error(&self) -> Option<io::Error> {
        self.service.table.get(self.id).and_then(|slot| slot.conn.error())
    }

    /// Why the connection ended, if there is more to say than the reason does: what the system said,
    /// or what is wrong with a server's certificate, or why the server refuses ours. It is a sentence
    /// for people, as "its certificate expired at 2026-01-01T00:00:00Z; it needs a new one", where
    /// "it" is the peer. To be called in [`on_close`](crate::Handler::on_close).
    pub fn close_detail(&self) -> Option<String> {
        let error = self.error()?;
        let bare = error.raw_os_error().is_none() && error.get_ref().is_none();
        (!bare).then(|| error::why(&error))
    }

    /// The certificate that the peer has proved to be its own: that of a client behind
    /// [`Tls::client_ca`](crate::Tls::client_ca), or of a server that was connected to with
    /// [`Connect::tls`](crate::Connect::tls). None otherwise. Needs the feature `tls`.
    #[cfg(feature = "tls")]
    pub fn peer_certificate(&self) -> Option<PeerCertificate> {
        let der = self.service.table.connections[self.id.slot()].stream.certificate()?;
        Some(PeerCertificate::new(der))
    }

    /// Stops reading this connection until [`resume`](Self::resume), so that TCP holds the client
    /// back.
    ///
    /// Input that was already received waits too, and so does the end of input: a client that sent a
    /// request and ended its side is still there when the answer is. While the connection is paused,
    /// [`idle_timeout`](crate::Limits::idle_timeout) does not apply, since it is the handler that is
    /// waited for, unless it has [asked for a drain](Self::request_drain). Nor does
    /// [`line_timeout`](crate::Limits::line_timeout).
    ///
    /// Output goes out as before, and timers fire. To pause twice is the same as once. In the middle of
    /// `on_bytes` it keeps [`Lines`] from giving the next line; after the hook the untaken bytes wait.
    pub fn pause(&mut self) {
        self.commit();
        self.service.table.connections[self.id.slot()].conn.flags.set(Flag::Paused, true);
    }

    /// Reads again after [`pause`](Self::pause), however often that was called. Input that waited is
    /// handled first, once the current hook has returned.
    ///
    /// Without a pause this does nothing. It lifts a pause alone: a connection that is held back at
    /// [`high_water`](crate::Limits::high_water) or by a [rate](crate::Limits::rate) goes on waiting.
    /// [`idle_timeout`](crate::Limits::idle_timeout) and
    /// [`line_timeout`](crate::Limits::line_timeout) count from now.
    pub fn resume(&mut self) {
        self.commit();
        let ServiceContext { table, state } = &mut self.service;
        let slot = &mut table.connections[self.id.slot()];
        if slot.stop_waiting(Flag::Paused, state.turn.now) && slot.conn.stage == Stage::Open {
            slot.conn.active = state.turn.now;
            table.arm(self.id);
            // What has arrived meanwhile was told by an edge that does not repeat.
            table.enqueue_if_work(self.id);
        }
    }

    /// Has [`on_timer`](crate::Handler::on_timer) called once, unless the connection is closed by
    /// then. `after` counts from [`now`](ServiceContext::now), the beginning of the turn.
    ///
    /// Timers fire in the order in which they are due, with a resolution of a millisecond. What is
    /// sent in `on_timer` counts as caused by others, so a client that does not read what timers
    /// send it is closed above [`max_output`](crate::Limits::max_output). A connection that was dialled
    /// is not: it takes no more then.
    pub fn set_timer(&mut self, after: Duration) -> TimerId {
        let when = self.service.state.after(after);
        self.service.table.set_timer(self.id, when)
    }

    /// As [`set_timer`](Self::set_timer), at a given moment: for a rhythm that does not drift. A
    /// moment that has passed is due at once.
    pub fn set_timer_at(&mut self, when: Instant) -> TimerId {
        let when = self.service.state.nanos(when);
        self.service.table.set_timer(self.id, when)
    }

    /// Cancels a timer of this connection. False if it has fired already, or belongs to another
    /// connection or to the service.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        let table = &mut self.service.table;
        table.drop_timer(self.id, timer);
        table.timers.cancel(timer, Token::connection(table.service, self.id))
    }

    /// The peer's address: where the client connected from, or the address that was dialled. It is
    /// known also after the peer is gone. If a [host](crate::Host) was dialled, it is none until the
    /// connection is open. None over a Unix socket, where
    /// [`peer_credentials`](Self::peer_credentials) tell who it is, and for descriptors.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.service.table.connections[self.id.slot()].conn.peer.get()
    }

    /// Whose process is at the other end of a Unix socket, as it was when it connected; this makes a
    /// system call. For a connection that was dialled it is the server's. Behind a
    /// [proxy](crate::Listen::proxy) it is the proxy's. None over TCP and for descriptors, and on systems
    /// that do not tell.
    pub fn peer_credentials(&self) -> Option<Credentials> {
        self.service.table.connections[self.id.slot()].stream.credentials()
    }

    /// Our own address of this connection; this makes a system call. None over a Unix socket and for
    /// descriptors.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.service.table.connections[self.id.slot()].stream.local_end()
    }

    /// Whether this connection was dialled with [`connect`](ServiceContext::connect), rather than
    /// accepted or adopted.
    pub fn is_outbound(&self) -> bool {
        self.service.table.connections[self.id.slot()].conn.flags.has(Flag::Outbound)
    }

    /// Whether the client has ended its side. What [`on_bytes`](crate::Handler::on_bytes) is then
    /// given is all that will ever come.
    pub fn at_eof(&self) -> bool {
        self.service.table.connections[self.id.slot()].conn.flags.has(Flag::Eof)
    }

    /// Whether output is taken, now or once there is room. False after [`close`](Self::close) or
    /// [`half_close`](Self::half_close), and once a read or a write has failed: then
    /// [`send`](Self::send) gives false for good. What such a client has sent before is handled all the
    /// same, and nothing holds it back; an answer that takes long to make need not be made.
    ///
    /// It is true where `send` gives false for now, since a connection that was dialled is not open yet
    /// or [full](crate::client#backpressure). Then [`request_drain`](Self::request_drain) tells when to
    /// go on.
    pub fn takes_output(&self) -> bool {
        let conn = &self.service.table.connections[self.id.slot()].conn;
        conn.stage <= Stage::Open && !conn.flags.has(Flag::Finished)
    }

    /// How many bytes of this connection's output the kernel has not taken yet.
    pub fn unsent(&self) -> usize {
        let ServiceContext { table, state } = &self.service;
        let reply = state.turn.reply.of == Some(self.id);
        let writing = if reply { state.turn.arena.len() - state.turn.reply.start } else { 0 };
        table.connections[self.id.slot()].conn.output.len() + writing
    }

    /// Asks for one call of [`on_drain`](crate::Handler::on_drain), once no more than
    /// [`low_water`](crate::Limits::low_water) bytes of this connection's output are unsent, and a
    /// connection that was dialled is open and not [full](crate::client#backpressure). If that is so
    /// already, the call comes in the next turn. To ask twice before the call changes nothing.
    ///
    /// So a reply of any length is sent in bounded memory: send a piece, ask, send the next piece
    /// in `on_drain`, ask again. To ask again and again without sending keeps the loop busy: where
    /// nothing was taken, ask only if the connection still [takes output](Self::takes_output). Until
    /// the call it is the client that is waited for, so
    /// [`idle_timeout`](crate::Limits::idle_timeout) applies even while the connection is paused.
    pub fn request_drain(&mut self) {
        let ServiceContext { table, state } = &mut self.service;
        let slot = &mut table.connections[self.id.slot()];
        slot.conn.flags.set(Flag::Drain, true);
        if slot.conn.stage == Stage::Open {
            slot.conn.active = state.turn.now;
            table.arm(self.id);
        }
        // The flush at the end of the turn looks whether that is so already.
        table.mark_dirty(self.id.slot());
    }

    /// Sends what `next` makes of the session, piece by piece, until it gives none: a reply of any
    /// length in bounded memory.
    ///
    /// Call it where the reply begins and again in [`on_drain`](crate::Handler::on_drain), in the
    /// same way: so begin it by calling `on_drain`. Each call sends pieces until more than
    /// [`low_water`](crate::Limits::low_water) bytes are unsent. Then it [pauses](Self::pause) the
    /// connection, so that the client's next commands wait, asks for a
    /// [drain](Self::request_drain), and returns false. It does so at once, without calling `next`,
    /// where a connection that was dialled is not open yet or [full](crate::client#backpressure).
    ///
    /// It returns true when `next` has given none, or when the connection takes no more output because
    /// it is closing, half-closed or broken. Then it [resumes](Self::resume) the connection, also one
    /// that the handler had paused itself. True does not say that the client has taken all of it.
    ///
    /// A dialled connection that is paused does not hear its server either, such as a PING.
    ///
    /// # Examples
    ///
    /// ```
    /// use reactor::{Context, Handler};
    ///
    /// /// Counts to a million for everybody who says anything.
    /// struct Count;
    ///
    /// impl Handler for Count {
    ///     type Session = std::ops::Range<u32>; // the numbers that are still to be sent
    ///     type Message = ();
    ///
    ///     fn on_line(&mut self, cx: &mut Context<'_, Self::Session>, _line: &[u8]) {
    ///         *cx.session() = 0..1_000_000;
    ///         self.on_drain(cx);
    ///     }
    ///
    ///     fn on_drain(&mut self, cx: &mut Context<'_, Self::Session>) {
    ///         cx.send_pieces(|left| left.next().map(|n| format!("{n}\n")));
    ///     }
    /// }
    ///
    /// let mut server = reactor::testing::Harness::new(Count);
    /// let client = server.connect();
    /// server.feed(client, "go\n");
    /// server.end(client);
    /// assert!(server.sent(client).ends_with(b"\n999998\n999999\n"));
    /// ```
    pub fn send_pieces<P: AsRef<[u8]>>(
        &mut self,
        mut next: impl FnMut(&mut S) -> Option<P>,
    ) -> bool {
        let all = loop {
            if !self.send("") {
                // Nothing is made for a client that is gone. A server may be full, or not there yet.
                break !self.takes_output();
            }
            let Some(piece) = next(self.session()) else { break true };
            self.send(piece);
            if self.unsent() > self.limits().low_water {
                break false;
            }
        };
        if all {
            self.resume();
        } else {
            self.pause();
            self.request_drain();
        }
        all
    }

    /// The lines in `bytes`, which must be what [`on_bytes`](crate::Handler::on_bytes) was given, or
    /// what is left of that up to its last byte.
    #[inline]
    pub fn lines<'b>(&self, bytes: &'b [u8]) -> Lines<'b> {
        Lines::new(bytes, self.service.state.turn.search)
    }

    /// Makes a block of the next `count` bytes from this connection: they are not cut into lines, but
    /// given to [`on_block`](crate::Handler::on_block) in pieces as they come. Behind the block lines
    /// go on.
    ///
    /// The next bytes are those behind the line in [`on_line`](crate::Handler::on_line), those that
    /// [`on_bytes`](crate::Handler::on_bytes) does not take, and those behind the piece in `on_block`.
    /// Anywhere else they are what has come and was not taken, then what comes next. Called in the
    /// middle of a block, or twice in one hook, this sets how many bytes are still to come. From
    /// [`on_eof`](crate::Handler::on_eof) on it does nothing.
    ///
    /// A block may have any number of bytes, also none: of each the handler is told once that it
    /// ends. Nothing of a block is kept, so none is too long, and neither
    /// [`max_line`](crate::Limits::max_line) nor [`max_frame`](crate::Limits::max_frame) applies. Check
    /// an announced length only for what the handler itself keeps. What it does not want it can let
    /// pass: a request that is refused has its block all the same, and the next one is behind that. If
    /// a CRLF follows what was announced, as in memcached and RESP, count its two bytes in: otherwise
    /// it comes as an empty line.
    ///
    /// A client that sends nothing of a block for [`line_timeout`](crate::Limits::line_timeout) is
    /// closed. One that drips it in is not, so set a [timer](Self::set_timer) for the whole of it.
    ///
    /// # Examples
    ///
    /// ```
    /// use reactor::{Context, Handler, text};
    ///
    /// /// `PUT 5`, then five bytes of any kind and an LF; the answer is their sum.
    /// struct Sums;
    ///
    /// impl Handler for Sums {
    ///     type Session = u64;
    ///     type Message = ();
    ///
    ///     fn on_line(&mut self, cx: &mut Context<'_, u64>, line: &[u8]) {
    ///         match line.strip_prefix(b"PUT ").and_then(text::parse) {
    ///             Some(count) => cx.take_block(count),
    ///             None if line.is_empty() => {} // the LF behind a block
    ///             None => writeln!(cx, "PUT and a number, please"),
    ///         }
    ///     }
    ///
    ///     fn on_block(&mut self, cx: &mut Context<'_, u64>, piece: &[u8], end: bool) {
    ///         *cx.session() += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    ///         if end {
    ///             let sum = std::mem::take(cx.session());
    ///             writeln!(cx, "{sum}");
    ///         }
    ///     }
    /// }
    ///
    /// let mut server = reactor::testing::Harness::new(Sums);
    /// let client = server.connect();
    /// server.feed(client, b"PUT 5\n\x01\n");
    /// server.feed(client, b"\n\x02\x03\nPUT 0\n\nSUM\n");
    /// assert_eq!(server.sent(client), b"26\n0\nPUT and a number, please\n");
    /// ```
    pub fn take_block(&mut self, count: usize) {
        self.commit();
        let ServiceContext { table, state } = &mut self.service;
        let conn = &mut table.connections[self.id.slot()].conn;
        if conn.flags.has(Flag::EofTold) {
            return;
        }
        conn.begin_block(count, state.turn.now);
        if !self.own || count == 0 {
            // No event need come for what is here already.
            table.enqueue_if_work(self.id);
        }
        if !self.own {
            // After a hook of its own the loop does so if the block has not come by then.
            table.arm(self.id);
        }
    }

    /// Has [`on_report`](crate::Handler::on_report) called for this connection at the end of the turn,
    /// or of a later one if many ask: with the state of the loop, its services and their connections, or
    /// once a connection was closed. A handler cannot look at other services from within a hook.
    ///
    /// Until then the connection's input waits, so that its replies come in the order of its requests.
    /// If it is not open by then, or not any more, the call does not come. Who asks for several at once
    /// is told in that order, and the input waits for the first only.
    ///
    /// ```
    /// use reactor::{Ask, Context, Handler, Report};
    ///
    /// /// Says how many connections there are, of all services.
    /// struct Count;
    ///
    /// impl Handler for Count {
    ///     type Session = ();
    ///     type Message = ();
    ///
    ///     fn on_line(&mut self, cx: &mut Context<'_, ()>, _line: &[u8]) {
    ///         cx.request_report(Ask::Overview { watch: false });
    ///     }
    ///
    ///     fn on_report(&mut self, cx: &mut Context<'_, ()>, report: &Report) {
    ///         if let Report::Overview(status) = report {
    ///             let count: usize = status.services.iter().map(|one| one.connections).sum();
    ///             writeln!(cx, "{count}");
    ///         }
    ///     }
    /// }
    ///
    /// let mut server = reactor::testing::Harness::new(Count);
    /// let client = server.connect();
    /// server.feed(client, "how many?\n");
    /// assert_eq!(server.sent(client), b"1\n");
    /// ```
    pub fn request_report(&mut self, what: Ask) {
        self.commit();
        let ServiceContext { table, state } = &mut self.service;
        table.connections[self.id.slot()].conn.flags.set(Flag::Asked, true);
        state.asked.push_back(Asked { service: table.service, id: self.id, what, answer: None });
    }

    /// Handles no more input until other cores have taken what was said to them.
    pub(crate) fn wait_for_cores(&mut self) {
        self.commit();
        let ServiceContext { table, state } = &mut self.service;
        let (service, conn) = (table.service, &mut table.connections[self.id.slot()].conn);
        if let Some(cores) = &mut state.for_cores
            && !conn.flags.has(Flag::Ahead)
        {
            conn.flags.set(Flag::Ahead, true);
            cores.ahead.push((service, self.id));
        }
    }

    /// Whether the loop still wants input handled: false once this connection is paused, held
    /// back or closing, in a block, or has had its share of the turn.
    #[inline]
    pub(super) fn may_go_on(&mut self) -> bool {
        let state = &self.service.state;
        state.turn.lines < state.turn.most_lines && (reply_has_room(state) || self.takes_input())
    }

    /// Looks at the connection itself, once in a hook: from then on the length of its reply tells.
    /// A dialled connection is read although its reply has filled it.
    #[cold]
    fn takes_input(&mut self) -> bool {
        let ServiceContext { table, state } = &mut self.service;
        let conn = &table.connections[self.id.slot()].conn;
        if conn.flags.has(Flag::Outbound) && conn.takes_input() {
            table.commit(state);
        }
        let takes =
            state.turn.reply.of.is_none() && table.connections[self.id.slot()].conn.takes_lines();
        if takes && self.own {
            table.begin_reply(self.id, state);
        }
        takes
    }

    /// Whether what is written now becomes part of the connection's reply in this hook.
    #[inline]
    pub(super) fn joins_reply(&mut self) -> bool {
        let ServiceContext { table, state } = &mut self.service;
        self.own && (reply_has_room(state) || table.join_reply(self.id, state))
    }

    /// Gives the reply so far to the connection. Due before its state changes.
    fn commit(&mut self) {
        self.service.table.commit(self.service.state);
    }

    /// Counts a line against the connection's share of the turn.
    #[inline]
    pub(super) fn count_line(&mut self) {
        self.service.state.turn.lines += 1;
    }

    /// What the search for LF has found out.
    pub(super) fn search(&mut self) -> &mut Search {
        &mut self.service.state.turn.search
    }

    /// Takes no more input. After the hook, the loop says farewell and closes the connection.
    pub(super) fn line_too_long(&mut self) {
        self.service.state.turn.most_lines = 0;
        self.service.table.connections[self.id.slot()].conn.flags.set(Flag::Overlong, true);
    }
}

/// Whether there is a reply that has not come to its end.
#[inline]
pub(super) fn reply_has_room(state: &LoopState) -> bool {
    state.turn.arena.len() < state.turn.reply.end
}

impl<'a, S> Deref for Context<'a, S> {
    type Target = ServiceContext<'a, S>;

    fn deref(&self) -> &Self::Target {
        &self.service
    }
}

impl<S> DerefMut for Context<'_, S> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.service
    }
}

impl<S> fmt::Debug for Context<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("id", &self.id).finish_non_exhaustive()
    }
}
