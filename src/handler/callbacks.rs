use std::fmt;

use super::{Context, Handler, ServiceContext};
use crate::connection::CloseReason;
use crate::net::Address;

/// A [`Handler`] made of closures, as in Node.js, without a type of its own.
///
/// `S` is the session of a connection; it is `()` unless the callbacks are made by
/// [`with_session`](Callbacks::with_session). Closures share state by borrowing it from the caller,
/// for instance a [`Cell`](std::cell::Cell): they run on one thread, one after the other.
///
/// ```
/// use reactor::{Callbacks, Reactor};
///
/// let mut reactor = Reactor::new()?;
/// reactor.listen(
///     "127.0.0.1:0",
///     Callbacks::new()
///         .on_listening(|address| println!("listening on {address}"))
///         .on_connection(|cx| writeln!(cx, "hello"))
///         .on_line(|cx, line| {
///             cx.send(line.to_ascii_uppercase());
///             cx.send("\n");
///         })
///         .on_close(|_, reason| println!("gone: {reason}")),
/// )?;
/// # reactor.stop();
/// reactor.run()?;
/// # Ok::<(), reactor::Error>(())
/// ```
pub struct Callbacks<'f, S = ()> {
    listening: Box<dyn FnMut(&Address) + 'f>,
    connection: Box<Connection<'f, S>>,
    line: Box<Line<'f, S>>,
    drain: Box<Connection<'f, S>>,
    close: Box<Close<'f, S>>,
}

type Connection<'f, S> = dyn FnMut(&mut Context<'_, S>) + 'f;

type Line<'f, S> = dyn FnMut(&mut Context<'_, S>, &[u8]) + 'f;

type Close<'f, S> = dyn FnMut(&mut Context<'_, S>, CloseReason) + 'f;

impl<'f> Callbacks<'f> {
    /// Callbacks that do nothing yet, without sessions.
    pub fn new() -> Self {
        Self::with_session()
    }
}

impl Default for Callbacks<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'f, S: Default> Callbacks<'f, S> {
    /// Callbacks that do nothing yet. Every connection has a session: `cx.session()`.
    pub fn with_session() -> Self {
        Callbacks {
            listening: Box::new(|_| {}),
            connection: Box::new(|_| {}),
            line: Box::new(|_, _| {}),
            drain: Box::new(|_| {}),
            close: Box::new(|_, _| {}),
        }
    }

    /// Called when a listener is bound, with its address and the real port. See
    /// [`Handler::on_listening`].
    pub fn on_listening(mut self, callback: impl FnMut(&Address) + 'f) -> Self {
        self.listening = Box::new(callback);
        self
    }

    /// Called when a client has connected. See [`Handler::on_open`].
    pub fn on_connection(mut self, callback: impl FnMut(&mut Context<'_, S>) + 'f) -> Self {
        self.connection = Box::new(callback);
        self
    }

    /// Called for each line, without its LF or CRLF. See [`Handler::on_line`]. The pieces of a
    /// [block](Context::take_block) pass unseen; for these, write a handler.
    pub fn on_line(mut self, callback: impl FnMut(&mut Context<'_, S>, &[u8]) + 'f) -> Self {
        self.line = Box::new(callback);
        self
    }

    /// Called once for each [`request_drain`](Context::request_drain), when there is room for more
    /// output. See [`Handler::on_drain`].
    pub fn on_drain(mut self, callback: impl FnMut(&mut Context<'_, S>) + 'f) -> Self {
        self.drain = Box::new(callback);
        self
    }

    /// Called when a connection has ended, however that came about. See [`Handler::on_close`].
    pub fn on_close(mut self, callback: impl FnMut(&mut Context<'_, S>, CloseReason) + 'f) -> Self {
        self.close = Box::new(callback);
        self
    }
}

impl<S: Default> Handler for Callbacks<'_, S> {
    type Session = S;
    type Message = ();

    fn on_listening(&mut self, _cx: &mut ServiceContext<'_, S>, address: &Address) {
        (self.listening)(address);
    }

    fn on_open(&mut self, cx: &mut Context<'_, S>) {
        (self.connection)(cx);
    }

    fn on_line(&mut self, cx: &mut Context<'_, S>, line: &[u8]) {
        (self.line)(cx, line);
    }

    fn on_drain(&mut self, cx: &mut Context<'_, S>) {
        (self.drain)(cx);
    }

    fn on_close(&mut self, cx: &mut Context<'_, S>, reason: CloseReason) {
        (self.close)(cx, reason);
    }
}

impl<S> fmt::Debug for Callbacks<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}
