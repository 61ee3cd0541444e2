use std::net::SocketAddr;

use super::DatagramContext;
use crate::connection::TimerId;

/// A protocol of datagrams: what to do when one comes.
///
/// It is to UDP what [`Handler`](crate::Handler) is to connections. There is nobody to connect and
/// nothing to close: each datagram stands for itself and says who sent it. Give it to
/// [`Reactor::datagrams`](crate::Reactor::datagrams).
///
/// ```
/// use std::net::SocketAddr;
/// use reactor::{DatagramContext, DatagramHandler, Reactor};
///
/// struct Shout;
///
/// impl DatagramHandler for Shout {
///     type Message = (); // what other threads may post
///
///     fn on_datagram(&mut self, cx: &mut DatagramContext<'_>, from: SocketAddr, bytes: &[u8]) {
///         cx.send_to(from, bytes.to_ascii_uppercase());
///     }
/// }
///
/// # fn main() -> Result<(), reactor::Error> {
/// let mut reactor = Reactor::new()?;
/// let service = reactor.datagrams("127.0.0.1:0", Shout)?;
/// println!("try: nc -u 127.0.0.1 {}", service.port());
/// # reactor.stop();
/// reactor.run()?;
/// # Ok(())
/// # }
/// ```
///
/// # The contract
///
/// 1. Hooks run on the loop's one thread, one after the other, among those of all other services.
///    No hook may block.
/// 2. A datagram comes whole or not at all. Datagrams may be lost, doubled or out of order, and a
///    sender can claim to be anybody: that is UDP.
/// 3. A socket has its share of each turn ([`datagrams_per_turn`]). What is left waits in the kernel,
///    which drops what does not fit there.
/// 4. Errors of the socket, such as the answer that nobody listens at an address, are counted and
///    logged. The service goes on.
/// 5. A panic in a hook ends nothing. A timer that the hook would have set again is gone.
///
/// [`datagrams_per_turn`]: crate::DatagramOptions::datagrams_per_turn
pub trait DatagramHandler {
    /// What other threads may [post](crate::Handle::post); `()` if nothing.
    type Message;

    /// Called once, when the socket is bound. The place to set a first timer or to ask who is there.
    fn on_bound(&mut self, cx: &mut DatagramContext<'_>) {
        let _ = cx;
    }

    /// Called for each datagram, with its sender. It has from 0 to 65,527 bytes.
    fn on_datagram(&mut self, cx: &mut DatagramContext<'_>, from: SocketAddr, bytes: &[u8]);

    /// Called when a timer is due that was set with [`DatagramContext::set_timer`].
    fn on_timer(&mut self, cx: &mut DatagramContext<'_>, timer: TimerId) {
        let _ = (cx, timer);
    }

    /// Called for each message that another thread has [posted](crate::Handle::post), in the order
    /// in which they were posted.
    fn on_message(&mut self, cx: &mut DatagramContext<'_>, message: Self::Message) {
        let _ = (cx, message);
    }

    /// Called when the reactor begins to shut down, or this service is
    /// [removed](crate::Reactor::remove), after the messages that were posted before. It
    /// is the last hook, and the last chance to send something.
    fn on_shutdown(&mut self, cx: &mut DatagramContext<'_>) {
        let _ = cx;
    }
}
