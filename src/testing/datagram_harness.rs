use std::cell::RefCell;
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::memory_loop::{MemoryLoop, Wires};
use crate::datagram::endpoint::Endpoint;
use crate::datagram::service::Datagrams;
use crate::datagram::socket::{SharedWire, Socket, Wire};
use crate::datagram::{DatagramHandler, DatagramOptions};
use crate::reactor::Counters;
use crate::reactor::readiness::Readiness;
use crate::reactor::service::{AnyService, type_name_of};
use crate::reactor::token::Token;
use crate::reactor::turn::Fetched;

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
    inner: MemoryLoop<Datagrams<H>, SharedWire, H::Message>,
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
        let wire = Rc::new(RefCell::new(Wire::default()));
        let socket = Socket::Wire(Rc::clone(&wire));
        let endpoint = Endpoint::new(0, type_name_of::<H>(), socket, local, options);
        let service = |mailbox| Datagrams::new(handler, endpoint, mailbox);
        let mut inner = MemoryLoop::new(wire, service);
        // As in a reactor, a panic in a hook is only caught and counted.
        inner.panics = true;
        inner.service.call(&mut inner.state, H::on_bound);
        inner.run();
        DatagramHarness { inner }
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
        std::mem::take(&mut self.inner.wires.borrow_mut().outbound)
    }

    /// From now on the kernel takes `room` more datagrams and then no more; none is any number.
    pub fn take_only(&mut self, room: Option<usize>) {
        let mut wire = self.inner.wires.borrow_mut();
        wire.room = room;
        wire.writable = true;
        drop(wire);
        self.inner.run();
    }

    /// From now on sending fails with this error; with none it works again.
    pub fn refuse(&mut self, error: Option<ErrorKind>) {
        self.inner.wires.borrow_mut().refusal = error;
    }

    /// Lets time pass. Timers fire in order, each at its own moment.
    pub fn advance(&mut self, time: Duration) {
        self.inner.advance(time);
    }

    /// Lets time pass in one leap, as when a machine was suspended. What `meanwhile` does happens
    /// while the loop does not run: when it runs again, it finds that and all that came due at once.
    pub fn jump_with(&mut self, time: Duration, meanwhile: impl FnOnce(&mut Self)) {
        self.inner.by_hand = true;
        meanwhile(self);
        self.inner.by_hand = false;
        self.inner.jump(time);
    }

    /// Posts a message, as another thread would. False if it is refused, since a shutdown has come to
    /// its end.
    pub fn post(&mut self, message: H::Message) -> bool {
        self.inner.post(message)
    }

    /// Begins a graceful shutdown.
    pub fn stop(&mut self) {
        self.inner.stop();
    }

    /// Whether a shutdown is under way, whoever asked for it.
    pub fn is_stopping(&self) -> bool {
        self.inner.state.stopping
    }

    /// The handler.
    pub fn handler(&self) -> &H {
        &self.inner.service.handler
    }

    /// The handler, to be changed.
    pub fn handler_mut(&mut self) -> &mut H {
        &mut self.inner.service.handler
    }

    /// What the loop has done so far.
    pub fn counters(&self) -> Counters {
        self.inner.state.counted()
    }

    fn arrive(&mut self, what: Result<(SocketAddr, Vec<u8>), ErrorKind>) {
        let mut wire = self.inner.wires.borrow_mut();
        wire.inbound.push_back(what);
        wire.readable = true;
        drop(wire);
        self.inner.run();
    }
}

impl<H: DatagramHandler> Wires<Datagrams<H>> for SharedWire {
    fn look(&mut self, service: &mut Datagrams<H>) -> Fetched {
        let mut wire = self.borrow_mut();
        let readable = std::mem::take(&mut wire.readable);
        let writable = std::mem::take(&mut wire.writable);
        drop(wire);
        let any = readable || writable;
        if any {
            let what = Readiness { readable, writable, ..Readiness::default() };
            service.ready(Token::listener(0, 0), what);
        }
        Fetched { events: any.into(), full: false }
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
            let MemoryLoop { service, state, .. } = &mut harness.inner;
            assert!(!service.is_empty() && !service.is_busy(state));
            if cut {
                assert_eq!(service.cut_off(state), 0);
            } else {
                harness.take_only(None);
            }
            assert!(harness.inner.service.is_empty());
            assert_eq!(harness.counters().datagrams_lost, u64::from(cut));
        }
    }
}
