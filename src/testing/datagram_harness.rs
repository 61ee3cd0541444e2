use std::cell::RefCell;
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::harness::MOST_TURNS;
use crate::connection::input::Scratch;
use crate::datagram::endpoint::Endpoint;
use crate::datagram::service::Datagrams;
use crate::datagram::socket::{SharedWire, Socket, Wire};
use crate::datagram::{DatagramHandler, DatagramOptions};
use crate::reactor::handle::{Mailbox, Shared};
use crate::reactor::loop_state::LoopState;
use crate::reactor::readiness::Readiness;
use crate::reactor::service::{AnyService, type_name_of};
use crate::reactor::token::Token;
use crate::reactor::{Counters, Handle};

/// A [`DatagramHandler`] with its socket, in memory: what [`Harness`](crate::testing::Harness) is
/// for connections. Each method that changes something then runs the loop until nothing is left to do.
///
/// ```
/// use std::net::SocketAddr;
/// use reactor::{DatagramContext, DatagramHandler, testing::DatagramHarness};
///
/// struct Shout;
///
/// impl DatagramHandler for Shout {
///     type Message = ();
///
///     fn on_datagram(&mut self, cx: &mut DatagramContext<'_>, from: SocketAddr, bytes: &[u8]) {
///         cx.send_to(from, bytes.to_ascii_uppercase());
///     }
/// }
///
/// let mut socket = DatagramHarness::new(Shout);
/// let ann = SocketAddr::from(([127, 0, 0, 1], 5000));
/// socket.deliver(ann, "hello");
/// assert_eq!(socket.sent(), [(ann, b"HELLO".to_vec())]);
/// ```
pub struct DatagramHarness<H: DatagramHandler> {
    service: Datagrams<H>,
    state: LoopState,
    scratch: Scratch,
    wire: SharedWire,
    handle: Handle<H::Message>,
    /// The loop does not run: see [`DatagramHarness::jump_with`].
    asleep: bool,
}

impl<H: DatagramHandler> DatagramHarness<H> {
    /// A handler whose socket is bound to `127.0.0.1:1`, with the default options.
    pub fn new(handler: H) -> Self {
        let local = SocketAddr::from(([127, 0, 0, 1], 1));
        Self::with_options(local, handler, DatagramOptions::default())
    }

    /// A handler whose socket is bound to this address, with options of your own. Of the options only
    /// the limits have an effect here.
    ///
    /// # Panics
    /// If a socket at that address could not have these options.
    pub fn with_options(local: SocketAddr, handler: H, options: DatagramOptions) -> Self {
        if let Err(error) = options.check(local) {
            panic!("{error}");
        }
        let shared = Arc::new(Shared::default());
        let (mailbox, handle) = Mailbox::new(&shared);
        let state = LoopState::new(None, shared);
        let wire = Rc::new(RefCell::new(Wire::default()));
        let socket = Socket::Wire(Rc::clone(&wire));
        let endpoint = Endpoint::new(0, type_name_of::<H>(), socket, local, options);
        let service = Datagrams::new(handler, endpoint, mailbox);
        let scratch = Scratch::default();
        let mut harness = DatagramHarness { service, state, scratch, wire, handle, asleep: false };
        harness.service.call(&mut harness.state, H::on_bound);
        harness.run();
        harness
    }

    /// A datagram arrives.
    pub fn deliver(&mut self, from: SocketAddr, bytes: impl AsRef<[u8]>) {
        self.arrive(Ok((from, bytes.as_ref().to_vec())));
    }

    /// Has receiving fail once, as when a machine answers that nobody listens at an address.
    pub fn deliver_error(&mut self, error: ErrorKind) {
        self.arrive(Err(error));
    }

    /// What was sent since this was last called, and where to.
    pub fn sent(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.wire.borrow_mut().outbound)
    }

    /// From now on the kernel takes `room` more datagrams and then no more; none is any number.
    pub fn take_only(&mut self, room: Option<usize>) {
        let mut wire = self.wire.borrow_mut();
        wire.room = room;
        wire.writable = true;
        drop(wire);
        self.run();
    }

    /// From now on sending fails with this error; with none it works again.
    pub fn refuse(&mut self, error: Option<ErrorKind>) {
        self.wire.borrow_mut().refusal = error;
    }

    /// Lets time pass. Timers fire in order, each at its own moment.
    pub fn advance(&mut self, time: Duration) {
        let until = self.state.after(time);
        while let Some(next) = self.service.next_deadline().filter(|next| *next <= until) {
            self.state.turn.now = self.state.turn.now.max(next);
            self.run();
        }
        self.state.turn.now = until;
        self.run();
    }

    /// Lets time pass in one leap, as when a machine was suspended. What `meanwhile` does happens
    /// while the loop does not run: when it runs again, it finds that and all that came due at once.
    pub fn jump_with(&mut self, time: Duration, meanwhile: impl FnOnce(&mut Self)) {
        self.asleep = true;
        meanwhile(self);
        self.asleep = false;
        self.state.turn.now = self.state.after(time);
        self.run();
    }

    /// Posts a message, as another thread would. False if it is refused, since a shutdown has come to
    /// its end.
    pub fn post(&mut self, message: H::Message) -> bool {
        let posted = self.handle.post(message).is_ok();
        self.service.mark_mailbox();
        self.run();
        posted
    }

    /// Begins a graceful shutdown.
    pub fn stop(&mut self) {
        self.state.stop();
        self.run();
    }

    /// Whether a shutdown is under way, whoever asked for it.
    pub fn is_stopping(&self) -> bool {
        self.state.stopping
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.service.handler
    }

    /// The handler, to be changed.
    pub fn handler_mut(&mut self) -> &mut H {
        &mut self.service.handler
    }

    /// What the loop has done so far.
    pub fn counters(&self) -> &Counters {
        &self.state.counters
    }

    fn arrive(&mut self, what: Result<(SocketAddr, Vec<u8>), ErrorKind>) {
        let mut wire = self.wire.borrow_mut();
        wire.inbound.push_back(what);
        wire.readable = true;
        drop(wire);
        self.run();
    }

    /// Takes turns until nothing is left to do.
    fn run(&mut self) {
        for _ in 0..MOST_TURNS {
            if self.asleep {
                return;
            }
            self.state.stopping |= self.state.is_ending();
            if self.state.stopping && !self.service.is_over() && !self.service.delays_shutdown() {
                self.service.shut_down(&mut self.state);
            }
            if self.service.is_over() && self.service.is_empty() {
                self.state.shared.end();
            }
            let edge = self.edge();
            if let Some(what) = edge {
                self.service.ready(Token::listener(0, 0), what);
            }
            let due = self.service.next_deadline().is_some_and(|next| next <= self.state.turn.now);
            if edge.is_none() && !due && !self.service.is_busy(&self.state) {
                return;
            }
            // The time that the test itself took does not count as the handler's.
            self.state.turn.clock = Instant::now();
            self.service.work(&mut self.state, &mut self.scratch);
            self.service.flush(&mut self.state);
            self.service.reap(&mut self.state);
            self.state.counters.turns += 1;
        }
        panic!("the handler keeps the loop busy for ever");
    }

    /// The event that the wire has raised, as the selector would deliver it.
    fn edge(&mut self) -> Option<Readiness> {
        let mut wire = self.wire.borrow_mut();
        let readable = std::mem::take(&mut wire.readable);
        let writable = std::mem::take(&mut wire.writable);
        let what = Readiness { readable, writable, ..Readiness::default() };
        (readable || writable).then_some(what)
    }
}

impl<H: DatagramHandler> fmt::Debug for DatagramHarness<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramHarness").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DatagramContext;

    struct Polite(SocketAddr);

    impl DatagramHandler for Polite {
        type Message = ();

        fn on_datagram(&mut self, _: &mut DatagramContext<'_>, _: SocketAddr, _: &[u8]) {}

        fn on_shutdown(&mut self, cx: &mut DatagramContext<'_>) {
            cx.send_to(self.0, "goodbye");
        }
    }

    /// The reactor waits for it for as long as the shutdown may take.
    #[test]
    fn what_waits_is_work_left_until_it_is_sent_or_cut() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 5000));
        for cut in [false, true] {
            let mut harness = DatagramHarness::new(Polite(peer));
            harness.take_only(Some(0));
            harness.stop();
            assert!(!harness.service.is_empty() && !harness.service.is_busy(&harness.state));
            if cut {
                assert_eq!(harness.service.cut_off(&mut harness.state), 0);
            } else {
                harness.take_only(None);
            }
            assert!(harness.service.is_empty());
            assert_eq!(harness.state.counters.datagrams_lost, u64::from(cut));
        }
    }
}
