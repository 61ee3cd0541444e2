use std::borrow::Cow;

use super::{Context, Farewell, ServiceContext};
use crate::connection::{CloseReason, TimerId};
use crate::limits::Limits;
use crate::net::Address;

/// A protocol: what to do when a client connects, when a line comes, when it leaves.
///
/// The handler owns the state that its connections share; what belongs to one connection is its
/// [`Session`](Handler::Session). All hooks run on the loop's one thread, so nothing has to be
/// locked, and none may block: while a hook runs, nobody else is served. Work that takes longer
/// than a few milliseconds belongs on a thread, which [posts](crate::Handle::post) its answer.
///
/// The contract:
/// 1. [`on_close`](Self::on_close) comes exactly once for every [`on_open`](Self::on_open), and
///    once for one that was dialled or adopted and could not be had; nothing comes for a connection
///    after it.
/// 2. Lines come in the order they were sent, none twice, none lost before the connection's end.
/// 3. A hook is never called from inside another: what a call to the context causes in other
///    connections happens after the hook has returned.
/// 4. A panic in a hook ends the connection it was called for, with
///    [`CloseReason::Panicked`]; the others go on, with the handler's shared state as the panic
///    left it. In a hook that is about no connection it ends nothing; a timer that the hook would
///    have set again is gone. (Not where the program is built with `panic = "abort"`.)
///
/// A handler need be neither `Send` nor `'static`: it may hold an `Rc`, or borrow what the
/// caller keeps, such as a `RefCell` that two services share.
pub trait Handler {
    /// The state of one connection, made when it arrives and dropped after `on_close`; `()` if
    /// there is none. It lies inline in the loop's table: keep it small.
    type Session: Default;
    /// What other threads may post; `()` if nothing.
    type Message;

    /// A listener is bound; `address` has the real port. It comes within
    /// [`listen`](crate::Reactor::listen) or [`bind`](crate::Reactor::bind), once for each
    /// listener (a [host](crate::Host) has one for each of its addresses), and never for a service without one. A place to set a first service timer or to
    /// dial out; a service without a listener dials with
    /// [`Reactor::connect`](crate::Reactor::connect).
    fn on_listening(&mut self, cx: &mut ServiceContext<'_, Self::Session>, address: &Address) {
        let _ = (cx, address);
    }

    /// A client has connected, or an outbound connection is there.
    fn on_open(&mut self, cx: &mut Context<'_, Self::Session>) {
        let _ = cx;
    }

    /// A line came; its LF or CRLF is cut off. It may hold any bytes, UTF-8 or not.
    fn on_line(&mut self, cx: &mut Context<'_, Self::Session>, line: &[u8]) {
        let _ = (cx, line);
    }

    /// Bytes came. Returns how many were taken; the rest is offered again in front of what comes
    /// next. Called again at once after taking some but not all, until none are taken or the
    /// connection is paused, held back, closing, or has had its share of the turn: so a protocol
    /// that takes one frame a call gets pauses and backpressure right by itself. At the end of
    /// the input the untaken rest is offered once more, with [`at_eof`](Context::at_eof).
    ///
    /// The default cuts lines and calls [`on_line`](Self::on_line). Override it for a protocol
    /// that is not lines, or not always: see [`Lines`](crate::Lines).
    ///
    /// At most [`max_line`](Limits::max_line) bytes may be left untaken, so it must be as large
    /// as the largest frame. Check announced lengths all the same: a larger frame passes if no more
    /// than that of it had to wait. Larger bodies are to be taken piece by piece. Where it is not
    /// text, override [`farewell`](Self::farewell) too.
    ///
    /// To take more than there is counts as a panic.
    ///
    /// ```
    /// use reactor::{Context, Handler};
    ///
    /// /// Sends every frame back: a length of four bytes, big-endian, then so many bytes.
    /// struct Frames;
    ///
    /// const LONGEST: usize = 60_000; // max_line must be at least 4 more
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

    /// Called once for a [`request_drain`](Context::request_drain), when no more than
    /// [`low_water`](Limits::low_water) bytes of the output are unsent: the place to send the next
    /// piece of a long reply, and to ask again. Each piece leaves before the next is asked for, so
    /// memory stays at about `low_water` and a piece, however slow the client; and the others have
    /// their turns in between. A piece of 64 KiB is a good size. It is a reply: a client that does
    /// not read it is waited for, not taken for a slow consumer.
    ///
    /// It is about output alone: it comes as well while the connection is
    /// [paused](Context::pause), held back, or at the end of its input. After a close it does not
    /// come any more, not even for what was asked before; a shutdown closes too, so the reply ends
    /// with the piece that was sent last.
    ///
    /// **[Pause](Context::pause) the connection until the last piece.** Else its next commands are
    /// handled in between, and their replies mix with the pieces; and a client that asks and ends
    /// its side (`printf ... | nc -N`) gets but the first ones, since the default
    /// [`on_eof`](Self::on_eof) closes.
    ///
    /// ```
    /// use reactor::{Context, Handler};
    ///
    /// /// Counts to a million for everybody who says anything.
    /// struct Count;
    ///
    /// /// The numbers that are still to be sent to one client.
    /// type Left = std::ops::Range<u32>;
    ///
    /// fn send_piece(cx: &mut Context<'_, Left>) {
    ///     let piece: String = cx.session().take(5_000).map(|n| format!("{n}\n")).collect();
    ///     cx.send(piece);
    ///     if cx.session().is_empty() {
    ///         cx.resume(); // the next command, or the end
    ///     } else {
    ///         cx.pause();
    ///         cx.request_drain();
    ///     }
    /// }
    ///
    /// impl Handler for Count {
    ///     type Session = Left;
    ///     type Message = ();
    ///
    ///     fn on_line(&mut self, cx: &mut Context<'_, Left>, _line: &[u8]) {
    ///         *cx.session() = 0..1_000_000;
    ///         send_piece(cx);
    ///     }
    ///
    ///     fn on_drain(&mut self, cx: &mut Context<'_, Left>) {
    ///         send_piece(cx);
    ///     }
    /// }
    ///
    /// let mut server = reactor::testing::Harness::new(Count);
    /// let client = server.connect();
    /// server.feed(client, "go");
    /// server.end(client);
    /// assert!(server.sent(client).ends_with(b"\n999998\n999999\n"));
    /// ```
    fn on_drain(&mut self, cx: &mut Context<'_, Self::Session>) {
        let _ = cx;
    }

    /// The client has ended its side (it may still read), and all it sent has been handled. The
    /// default closes after the replies have gone out; without a close the connection stays open
    /// for output, until [`half_close`](Context::half_close) ends that too. Where an answer is
    /// still being worked out elsewhere, or [streamed](Self::on_drain), [pause](Context::pause)
    /// the connection until it is there: that delays this hook too.
    fn on_eof(&mut self, cx: &mut Context<'_, Self::Session>) {
        cx.close();
    }

    /// The connection is over for the handler. What is sent to it here goes nowhere; its
    /// session is still there.
    fn on_close(&mut self, cx: &mut Context<'_, Self::Session>, reason: CloseReason) {
        let _ = (cx, reason);
    }

    /// A timer of this connection is due.
    fn on_timer(&mut self, cx: &mut Context<'_, Self::Session>, timer: TimerId) {
        let _ = (cx, timer);
    }

    /// A timer of the service is due.
    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, Self::Session>, timer: TimerId) {
        let _ = (cx, timer);
    }

    /// Another thread has posted a message.
    fn on_message(&mut self, cx: &mut ServiceContext<'_, Self::Session>, message: Self::Message) {
        let _ = (cx, message);
    }

    /// The reactor begins to shut down, and the messages posted before have been handled: the last chance to say something to the clients. After
    /// it all are closed gracefully, those too that wait, paused, for an answer from elsewhere or
    /// for the next piece of a streamed one.
    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, Self::Session>) {
        let _ = cx;
    }

    /// The last words to a client that the loop closes for a limit. Override it with nothing for
    /// a protocol that is not text.
    fn farewell(&self, why: Farewell, limits: &Limits) -> Cow<'static, [u8]> {
        let text = match why {
            Farewell::TooManyConnections => "Too many connections, try again later\n".to_owned(),
            Farewell::TooManyFromPeer => {
                "Too many connections from your address, close one first\n".to_owned()
            }
            Farewell::LineTimeout => {
                let seconds = limits.line_timeout.unwrap_or_default().as_secs_f64();
                format!("Line not finished in time (limit {seconds} s)\n")
            }
            Farewell::LineTooLong => {
                format!("Line too long (limit {} bytes)\n", limits.max_line)
            }
            Farewell::IdleTimeout => {
                let seconds = limits.idle_timeout.unwrap_or_default().as_secs_f64();
                format!("Idle for too long (limit {seconds} s)\n")
            }
        };
        Cow::Owned(text.into_bytes())
    }
}
