use std::borrow::Cow;

use super::{Context, Farewell, ServiceContext};
use crate::connection::{CloseReason, ConnId, Decoder, Encoder, Saved, TimerId, Unreadable};
use crate::limits::Limits;
use crate::net::Address;
use crate::reactor::Report;

/// A protocol: what to do when a client connects, when a line comes, when the client leaves.
///
/// The handler owns the state that its connections share. What belongs to one connection is in its
/// [`Session`](Handler::Session). All hooks run on the loop's one thread, so nothing has to be
/// locked. No hook may block, since nobody else is served while it runs. Work that takes longer
/// than a few milliseconds belongs on another thread, which [posts](crate::Handle::post) its answer.
///
/// All hooks have a default body, so a handler has only those that it needs.
///
/// # The contract
///
/// 1. [`on_close`](Self::on_close) is called exactly once for every [`on_open`](Self::on_open). For
///    a connection that was dialled or adopted and failed, it is called once without an `on_open`.
///    After it no hook is called for that connection. One that is handed over to another service ends
///    in one and opens in the other, as two connections with an id each.
/// 2. Lines come in the order in which they were sent. None comes twice, and none is lost before
///    the end of the connection.
/// 3. A hook is never called from inside another. What a call to the context causes in other
///    connections happens after the hook has returned.
/// 4. A panic in a hook ends the connection that it was called for, with
///    [`CloseReason::Panicked`]. The others go on, with the handler's shared state as the panic
///    left it. A panic in a hook that is about no connection ends nothing; a timer that the hook
///    would have set again is gone. A program that is built with `panic = "abort"` ends instead.
/// 5. If another process [takes the connections over](Self::save), its handler is called with
///    [`on_restored`](Self::on_restored) instead of `on_open`. `on_close` is called once for each connection, in
///    one of the two processes.
///
/// A handler need be neither `Send` nor `'static`: it may hold an `Rc`, or borrow what the
/// caller keeps, such as a `RefCell` that two services share.
pub trait Handler {
    /// The state of one connection; `()` if there is none. It is made when the connection arrives
    /// and dropped after `on_close`. It lies inline in the loop's table, so keep it small.
    type Session: Default;
    /// What other threads may [post](crate::Handle::post); `()` if nothing.
    type Message;

    /// Called once, when the loop begins to run: in the first [turn](crate::Reactor::turn) after the
    /// service was added, before anything else of it is served. The place to set a first service
    /// timer, or to dial out, with or without a listener.
    ///
    /// Whatever the caller does between [`add`](crate::Reactor::add) and
    /// [`run`](crate::Reactor::run) is done by then, such as to [name](crate::Reactor::set_name) the
    /// service or to keep its [handle](crate::Service::handle). If the reactor is stopped before, it is
    /// not called.
    fn on_start(&mut self, cx: &mut ServiceContext<'_, Self::Session>) {
        let _ = cx;
    }

    /// Called when a listener is bound; `address` has the real port.
    ///
    /// It is called within [`listen`](crate::Reactor::listen) or [`bind`](crate::Reactor::bind),
    /// once for each listener: a [host](crate::Host) has one for each of its addresses. A service
    /// without a listener never gets this call: see [`on_start`](Self::on_start).
    fn on_listening(&mut self, cx: &mut ServiceContext<'_, Self::Session>, address: &Address) {
        let _ = (cx, address);
    }

    /// Called when a client has connected, and its TLS handshake is done if there is one; also when
    /// an outbound or adopted connection is ready. The place for a greeting.
    fn on_open(&mut self, cx: &mut Context<'_, Self::Session>) {
        let _ = cx;
    }

    /// Called for each line, without its LF or CRLF. A line may hold any other bytes, UTF-8 or not.
    /// At the end of the input, bytes without an LF count as a line.
    ///
    /// A protocol that must not act on a line that was cut off, or that must tell an LF from a CRLF,
    /// needs an [`on_bytes`](Self::on_bytes) of its own: [`Lines`](crate::Lines) has both.
    fn on_line(&mut self, cx: &mut Context<'_, Self::Session>, line: &[u8]) {
        let _ = (cx, line);
    }

    /// Called with the bytes of a [block](Context::take_block), piece by piece as they come; `end` says
    /// that the block ends with this piece. Then lines go on, unless this takes the next block.
    ///
    /// A piece is what one read has brought, so it has between one byte and
    /// [`bytes_per_turn`](Limits::bytes_per_turn), unless an unfinished line became a part of the block,
    /// which comes first and whole; only the end of a block of no bytes is an empty piece. [Pausing](Context::pause) or closing the connection here holds as in
    /// [`on_line`](Self::on_line). While a block is under way the client owes bytes: if none come for
    /// [`line_timeout`](Limits::line_timeout), it is closed with [`CloseReason::LineTimeout`]; a server
    /// that was dialled is not. Each piece counts as a line for [`rate`](Limits::rate) and
    /// [`lines_per_turn`](Limits::lines_per_turn).
    ///
    /// If the client ends its side within a block, there is no piece with `end`; what comes next is
    /// [`on_eof`](Self::on_eof), and then, or after an error, [`on_close`](Self::on_close). So keep in
    /// the session what the block is for until `end`: whatever is still there then was cut off.
    ///
    /// The default lets the bytes pass.
    fn on_block(&mut self, cx: &mut Context<'_, Self::Session>, piece: &[u8], end: bool) {
        let _ = (cx, piece, end);
    }

    /// Called when bytes have come, but for those of a [block](Self::on_block). Returns how many of
    /// them it took.
    ///
    /// The default cuts lines and calls [`on_line`](Self::on_line). Override it for a protocol
    /// that is not lines, or not always: see [`Lines`](crate::Lines). Lines with bodies do without it:
    /// see [`Context::take_block`], which can be called here too. The block then begins behind the
    /// bytes that this call takes.
    ///
    /// The bytes that were not taken are offered again, in front of those that come next. After
    /// some were taken but not all, the rest is offered again at once, until none is taken or the
    /// connection is paused, held back, closing, or has had its share of the turn. So a protocol
    /// that takes one frame in each call gets pauses and backpressure right by itself. At the end
    /// of the input the untaken rest is offered once more, with [`at_eof`](Context::at_eof) true.
    ///
    /// At most [`max_frame`](Limits::max_frame) bytes may be left untaken, or the connection is closed
    /// with [`CloseReason::LineTooLong`]. So `max_frame` must be as large as the largest frame. Check
    /// an announced length all the same: a larger frame passes if it came at once, so that no more
    /// than `max_frame` of it had to wait. Take larger bodies as blocks. If the protocol is not
    /// text, override [`farewell`](Self::farewell) too.
    ///
    /// # Panics
    /// The loop takes a number above `bytes.len()` for a panic of this hook.
    ///
    /// # Examples
    ///
    /// ```
    /// use reactor::{Context, Handler};
    ///
    /// /// Sends every frame back: a length of four bytes, big-endian, then so many bytes.
    /// struct Frames;
    ///
    /// const LONGEST: usize = 60_000; // max_frame must be at least 4 more
    ///
    /// impl Handler for Frames {
    ///     type Session = ();
    ///     type Message = ();
    ///
    ///     fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
    ///         let length = bytes.first_chunk().map(|head| u32::from_be_bytes(*head) as usize);
    ///         match length {
    ///             Some(length) if length > LONGEST => cx.abort(),
    ///             Some(length) if bytes.len() >= 4 + length => {
    ///                 cx.send(&bytes[..4 + length]);
    ///                 return 4 + length;
    ///             }
    ///             _ if cx.at_eof() => cx.abort(), // the last one is cut off
    ///             _ => {}
    ///         }
    ///         0
    ///     }
    /// }
    ///
    /// let mut server = reactor::testing::Harness::new(Frames);
    /// let client = server.connect();
    /// server.feed(client, b"\0\0\0\x02hi\0\0");
    /// server.feed(client, b"\0\x01!");
    /// assert_eq!(server.sent(client), b"\0\0\0\x02hi\0\0\0\x01!");
    /// ```
    fn on_bytes(&mut self, cx: &mut Context<'_, Self::Session>, bytes: &[u8]) -> usize {
        let mut lines = cx.lines(bytes);
        while let Some(line) = lines.next(cx) {
            self.on_line(cx, line);
        }
        lines.taken()
    }

    /// Called once for each [`request_drain`](Context::request_drain), when no more than
    /// [`low_water`](Limits::low_water) bytes of the output are unsent.
    ///
    /// This is the place to send the next piece of a long reply and to ask again. Each piece leaves
    /// before the next is made, so memory stays at about `low_water` and one piece, however slow the
    /// client is. Other connections have their turns in between. A piece of 64 KiB is a good size.
    /// What is sent here is a reply: a client that does not read it is waited for, not taken for a
    /// slow consumer.
    ///
    /// The hook is about output alone, so it is called also while the connection is
    /// [paused](Context::pause), held back, or at the end of its input. After a close it is not
    /// called any more, not even if it was asked for before. A shutdown closes too, so the reply
    /// then ends with the piece that was sent last.
    ///
    /// **[Pause](Context::pause) the connection until the last piece is sent.** Otherwise its next
    /// commands are handled in between, and their replies mix with the pieces. And a client that
    /// ends its side right after its request (`printf ... | nc -N`) gets only the first pieces,
    /// since the default [`on_eof`](Self::on_eof) closes the connection.
    ///
    /// [`Context::send_pieces`] does all that and has an example.
    fn on_drain(&mut self, cx: &mut Context<'_, Self::Session>) {
        let _ = cx;
    }

    /// Called when the client has ended its side and all it sent has been handled. It may still
    /// read.
    ///
    /// The default [closes](Context::close) the connection: the replies still go out. A handler that
    /// does not close keeps the connection open for output, until
    /// [`half_close`](Context::half_close) ends that too. While an answer is worked out on another
    /// thread, or [streamed](Self::on_drain), [pause](Context::pause) the connection: that delays
    /// this hook too.
    fn on_eof(&mut self, cx: &mut Context<'_, Self::Session>) {
        cx.close();
    }

    /// Called when the connection is over for the handler, with the reason. Its session is still
    /// there. What is sent to it here goes nowhere.
    fn on_close(&mut self, cx: &mut Context<'_, Self::Session>, reason: CloseReason) {
        let _ = (cx, reason);
    }

    /// Called when a timer is due that was set with [`Context::set_timer`].
    fn on_timer(&mut self, cx: &mut Context<'_, Self::Session>, timer: TimerId) {
        let _ = (cx, timer);
    }

    /// Called when a timer is due that was set with [`ServiceContext::set_service_timer`].
    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, Self::Session>, timer: TimerId) {
        let _ = (cx, timer);
    }

    /// Called for each message that another thread has [posted](crate::Handle::post), in the order
    /// in which they were posted.
    fn on_message(&mut self, cx: &mut ServiceContext<'_, Self::Session>, message: Self::Message) {
        let _ = (cx, message);
    }

    /// Called with what was asked for by [`Context::request_report`], on behalf of the connection that
    /// it was asked for. What is sent here is a reply.
    fn on_report(&mut self, cx: &mut Context<'_, Self::Session>, report: &Report) {
        let _ = (cx, report);
    }

    /// Called when the reactor begins to shut down, or this service is
    /// [removed](crate::Reactor::remove), after the messages that were posted before. It
    /// is the last chance to say something to the clients. After it all connections are closed
    /// gracefully, also those that are paused until an answer is there, or the next piece of one, unless
    /// they are to be [kept open](ServiceContext::keep_open) for a while.
    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, Self::Session>) {
        let _ = cx;
    }

    /// Saves the state that all connections share, for the process that takes the service over in an
    /// [upgrade](crate::Reactor::hand_on). The return value decides what happens to the connections:
    ///
    /// | returns | the connections | the new handler |
    /// |---|---|---|
    /// | [`Saved::new`] | all that [can](crate::Reactor::hand_on) move to the new process; the others are served here until they end | [restores](Self::restore) the state |
    /// | [`Saved::together`] | all that can move; the others are closed | restores the state; [`on_close`](Self::on_close) tells it of the others |
    /// | [`Saved::stay`] | all are served here until they end, unless [`on_handed_on`](Self::on_handed_on) closes them | starts with no state |
    /// | `None`, the default | all are closed, with [`Farewell::Upgrade`](crate::Farewell::Upgrade) | starts with no state |
    ///
    /// The listening sockets move in each of these cases.
    ///
    /// This is called between two turns, and followed by [`save_session`](Self::save_session) for each
    /// connection that moves. Neither may change anything: if the upgrade fails, this handler goes on with all of its
    /// connections, and is not told that there was an attempt. A panic counts as `None`.
    ///
    /// Do not save what the loop knows. It carries over the [id](crate::ConnId) and the addresses of a connection,
    /// input that no hook has taken, unsent output, whether the connection is paused, deadlines, and what is owed
    /// of rates. It does not carry over
    ///
    /// * timers: save the time that is left, and set them again in [`on_restored`](Self::on_restored);
    /// * what other threads have yet to post: save the question, and ask it again there. Messages that are in the queue
    ///   already are delivered to this handler before it saves.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use reactor::{
    ///     ConnId, Context, Decoder, Encoder, Handler, Saved, ServiceContext, TimerId, Unreadable,
    /// };
    ///
    /// /// Says after a minute how many lines there were, of all and of each.
    /// #[derive(Default)]
    /// struct Count {
    ///     lines: u64,
    /// }
    ///
    /// #[derive(Default)]
    /// struct Session {
    ///     lines: u64,
    ///     timer: Option<TimerId>,
    ///     left: Duration, // from when it is restored until its timer is set again
    /// }
    ///
    /// impl Handler for Count {
    ///     type Session = Session;
    ///     type Message = ();
    ///
    ///     fn on_open(&mut self, cx: &mut Context<'_, Session>) {
    ///         cx.session().timer = Some(cx.set_timer(Duration::from_secs(60)));
    ///     }
    ///
    ///     fn on_line(&mut self, cx: &mut Context<'_, Session>, _line: &[u8]) {
    ///         self.lines += 1;
    ///         cx.session().lines += 1;
    ///     }
    ///
    ///     fn on_timer(&mut self, cx: &mut Context<'_, Session>, _timer: TimerId) {
    ///         let (all, own) = (self.lines, cx.session().lines);
    ///         cx.session().timer = None;
    ///         writeln!(cx, "{own} of {all}");
    ///     }
    ///
    ///     fn save(&self, _cx: &ServiceContext<'_, Session>) -> Option<Saved> {
    ///         let mut saved = Saved::new(1);
    ///         saved.state().put_number(self.lines);
    ///         Some(saved)
    ///     }
    ///
    ///     fn save_session(
    ///         &self,
    ///         cx: &ServiceContext<'_, Session>,
    ///         _id: ConnId,
    ///         session: &Session,
    ///         to: &mut Encoder,
    ///     ) {
    ///         to.put_number(session.lines);
    ///         to.put_option(session.timer, |to, timer| {
    ///             to.put_duration(cx.due(timer).saturating_duration_since(cx.now()));
    ///         });
    ///     }
    ///
    ///     fn restore(&mut self, version: u32, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
    ///         if version != 1 {
    ///             return Err(Unreadable("an unknown version"));
    ///         }
    ///         self.lines = from.number()?;
    ///         Ok(())
    ///     }
    ///
    ///     fn restore_session(
    ///         &mut self,
    ///         _id: ConnId,
    ///         _version: u32,
    ///         from: &mut Decoder<'_>,
    ///     ) -> Result<Session, Unreadable> {
    ///         let (lines, left) = (from.number()?, from.option(Decoder::duration)?);
    ///         Ok(Session { lines, timer: None, left: left.unwrap_or_default() })
    ///     }
    ///
    ///     fn on_restored(&mut self, cx: &mut Context<'_, Session>) {
    ///         let left = std::mem::take(&mut cx.session().left);
    ///         if !left.is_zero() {
    ///             cx.session().timer = Some(cx.set_timer(left));
    ///         }
    ///     }
    /// }
    ///
    /// let mut server = reactor::testing::Harness::new(Count::default());
    /// let client = server.connect();
    /// server.feed(client, "one\ntw");
    /// server.advance(Duration::from_secs(20));
    /// assert!(server.upgrade(Count::default()).is_ok());
    /// server.feed(client, "o\n");
    /// server.advance(Duration::from_secs(39));
    /// assert_eq!(server.sent(client), b"");
    /// server.advance(Duration::from_secs(1));
    /// assert_eq!(server.sent(client), b"2 of 2\n");
    /// ```
    fn save(&self, cx: &ServiceContext<'_, Self::Session>) -> Option<Saved> {
        let _ = cx;
        None
    }

    /// Saves the session of one connection. The connections come in the order of their ids. If they
    /// [belong together](Saved::together), those that cannot move are among them: the new handler needs their sessions
    /// for [`on_close`](Self::on_close).
    ///
    /// The default saves nothing.
    fn save_session(
        &self,
        cx: &ServiceContext<'_, Self::Session>,
        id: ConnId,
        session: &Self::Session,
        to: &mut Encoder,
    ) {
        let _ = (cx, id, session, to);
    }

    /// Restores the state that [`save`](Self::save) has written in the old process, which may run an older or a newer
    /// version of the program: `version` is the one that it gave to [`Saved::new`]. All of `from` must be read. No other
    /// hook but [`on_listening`](Self::on_listening) is called before this one.
    ///
    /// There is no context, because the upgrade may still fail: the old process then goes on, and this one ends.
    /// Therefore, do nothing here that others can see, such as writing a file.
    ///
    /// # Errors
    /// [`Unreadable`] if the version is unknown or the state is invalid. The service is then not taken over: the old
    /// process logs the reason and closes the connections with [`Farewell::Upgrade`](crate::Farewell::Upgrade),
    /// and this handler serves new clients, so its state must be unchanged. If another [core](crate::Cores) fails
    /// where this one has restored, [`on_close`](Self::on_close) is called for each restored connection. The default
    /// fails.
    ///
    /// # Panics
    /// The whole upgrade fails after a panic, because the state of the handler is unknown then: the old process goes on.
    /// It also fails if bytes are left in `from`.
    fn restore(&mut self, version: u32, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        let _ = (version, from);
        Err(Unreadable("this handler takes nothing over"))
    }

    /// Restores the session that [`save_session`](Self::save_session) has written. As for
    /// [`restore`](Self::restore), all of `from` must be read, and nothing is decided yet. `id` is the same as in the old
    /// process.
    ///
    /// The default is an empty session.
    ///
    /// # Errors
    /// [`Unreadable`] if the session is invalid. The whole upgrade then fails, because the handler has the state of a
    /// service whose connections would not come: the old process goes on with all of them. A panic has the same effect.
    fn restore_session(
        &mut self,
        id: ConnId,
        version: u32,
        from: &mut Decoder<'_>,
    ) -> Result<Self::Session, Unreadable> {
        let _ = (id, version, from);
        Ok(Self::Session::default())
    }

    /// Called for each connection that was taken over, in the order of the ids, after
    /// [`on_start`](Self::on_start) and before any input of the connection. The upgrade has succeeded: the connection is
    /// this process's. Set its timers again here. [`on_open`](Self::on_open) is not called, since it was called
    /// in the old process.
    ///
    /// Connections that could not move have no `on_restored`. If they [belong together](Saved::together), they
    /// have an [`on_close`](Self::on_close).
    fn on_restored(&mut self, cx: &mut Context<'_, Self::Session>) {
        let _ = cx;
    }

    /// Called in the old process after a successful [upgrade](crate::Reactor::hand_on), if it serves those
    /// connections that did not move until they end. The new process serves all new clients. Close a
    /// connection here if its client is better served after it has connected again, such as one that asks for the state
    /// of the service again and again.
    ///
    /// It is not called if the loop itself closes what did not move: if the connections belong
    /// [together](Saved::together), or if the service was not taken over.
    fn on_handed_on(&mut self, cx: &mut ServiceContext<'_, Self::Session>) {
        let _ = cx;
    }

    /// The last words to a client that the loop turns away or closes for a limit. `limits` are those
    /// of the service.
    ///
    /// By default they are one line in English that says why, and an LF, such as
    /// `Line too long (limit 65536 bytes)`. A protocol whose replies look different should override
    /// this. What it returns is sent as it is, so it has to contain the end of the line. Nothing is sent
    /// if it is empty. Keep it short: to a newcomer it is written once, and what the system does not
    /// take at once is lost.
    ///
    /// It is not called for connections that were dialled, since a server would read the words as a
    /// request. Newcomers over TLS are not sent it, since that would take a handshake each.
    ///
    /// If this panics, nothing is said, and the client is closed all the same.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::borrow::Cow;
    ///
    /// use reactor::{Farewell, Handler, Limits};
    ///
    /// struct Mail;
    ///
    /// impl Handler for Mail {
    ///     type Session = ();
    ///     type Message = ();
    ///
    ///     fn farewell(&self, why: Farewell, _limits: &Limits) -> Cow<'static, [u8]> {
    ///         match why {
    ///             Farewell::LineTooLong => b"500 Line too long\r\n".into(),
    ///             Farewell::IdleTimeout => b"421 Idle for too long\r\n".into(),
    ///             _ => b"421 Try again later\r\n".into(),
    ///         }
    ///     }
    /// }
    /// ```
    fn farewell(&self, why: Farewell, limits: &Limits) -> Cow<'static, [u8]> {
        Cow::Owned(why.words(limits).into_bytes())
    }
}
