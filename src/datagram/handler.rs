use std::net::SocketAddr;

use super::DatagramContext;
use crate::connection::TimerId;

/// A protocol of datagrams: what to do when one comes. The sibling of [`Handler`](crate::Handler)
/// for UDP, where there is nobody to connect and nothing to close: each datagram stands for
/// itself and says who sent it.
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
/// The contract:
/// 1. Hooks run on the loop's one thread, one after the other, among those of all other services;
///    none may block.
/// 2. A datagram comes whole or not at all. Datagrams may be lost, doubled or out of order, and
///    whoever sends one can claim to be anybody: that is UDP.
/// 3. One socket has its share of a turn ([`datagrams_per_turn`]); what is left waits behind the
///    others, in the kernel, which drops what does not fit.
/// 4. Errors of the socket (an answer that nobody listens, a datagram too large) are counted and
///    logged; the service goes on.
/// 5. A panic in a hook ends nothing; a timer that the hook would have set again is gone.
///
/// [`datagrams_per_turn`]: crate::DatagramOptions::datagrams_per_turn
pub trait DatagramHandler {
    /// What other threads may post; `()` if nothing.
    type Message;

    /// The socket is bound. The place to set a first timer or to ask who is there.
    fn on_bound(&mut self, cx: &mut DatagramContext<'_>) {
        let _ = cx;
    }

    /// A datagram came, of any length from none to 65,527 bytes.
    fn on_datagram(&mut self, cx: &mut DatagramContext<'_>, from: SocketAddr, bytes: &[u8]);

    /// A timer is due.
    fn on_timer(&mut self, cx: &mut DatagramContext<'_>, timer: TimerId) {
        let _ = (cx, timer);
    }

    /// Another thread has posted a message.
    fn on_message(&mut self, cx: &mut DatagramContext<'_>, message: Self::Message) {
        let _ = (cx, message);
    }

    /// The reactor begins to shut down, and the messages posted before have been handled: the last hook, and the last chance to send something.
    fn on_shutdown(&mut self, cx: &mut DatagramContext<'_>) {
        let _ = cx;
    }
}
