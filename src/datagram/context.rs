use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::DatagramOptions;
use super::endpoint::Endpoint;
use crate::connection::TimerId;
use crate::reactor::Counters;
use crate::reactor::loop_state::LoopState;

/// What a [`DatagramHandler`](crate::DatagramHandler) can do with its socket and with the loop.
pub struct DatagramContext<'a> {
    endpoint: &'a mut Endpoint,
    state: &'a mut LoopState,
}

impl<'a> DatagramContext<'a> {
    pub(crate) fn new(endpoint: &'a mut Endpoint, state: &'a mut LoopState) -> Self {
        DatagramContext { endpoint, state }
    }

    /// Sends one datagram at once, with a system call of its own. While the kernel takes no more, it
    /// waits in a queue of [`max_unsent`](DatagramOptions::max_unsent) bytes.
    ///
    /// False if the datagram is lost already: the queue is full, the datagram is too large (65,507
    /// bytes fit into IPv4), there is no route to the address, or it is a broadcast address and
    /// [`broadcast`](DatagramOptions::broadcast) is not set. The datagram is then counted in
    /// [`datagrams_lost`](Counters::datagrams_lost), and the reason is logged, once in ten seconds at
    /// the most. True does not mean that the datagram arrives.
    pub fn send_to(&mut self, to: SocketAddr, bytes: impl AsRef<[u8]>) -> bool {
        self.endpoint.send(to, bytes.as_ref(), self.state)
    }

    /// The address that the socket is bound to, with the real port. If it is bound to a multicast
    /// address, this is the group.
    pub fn local_addr(&self) -> SocketAddr {
        self.endpoint.local
    }

    /// How many datagrams wait because the kernel takes no more.
    pub fn unsent(&self) -> usize {
        self.endpoint.outbox.len()
    }

    /// Has [`on_timer`](crate::DatagramHandler::on_timer) called once. `after` counts from
    /// [`now`](Self::now), the beginning of the turn. Timers fire in the order in which they are due,
    /// with a resolution of a millisecond.
    pub fn set_timer(&mut self, after: Duration) -> TimerId {
        self.endpoint.timers.set(self.state.after(after), self.endpoint.token())
    }

    /// As [`set_timer`](Self::set_timer), at a given moment: for a rhythm that does not drift. A
    /// moment that has passed is due at once.
    pub fn set_timer_at(&mut self, when: Instant) -> TimerId {
        self.endpoint.timers.set(self.state.nanos(when), self.endpoint.token())
    }

    /// Cancels a timer. False if it has fired already.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.endpoint.timers.cancel(timer, self.endpoint.token())
    }

    /// The moment at which this turn began. To read it costs no system call.
    pub fn now(&self) -> Instant {
        self.state.instant(self.state.turn.now)
    }

    /// The moment at which a timer is due, or was: for setting the next one without drift.
    pub fn due(&self, timer: TimerId) -> Instant {
        self.state.instant(timer.when)
    }

    /// How this socket was set up.
    pub fn options(&self) -> &DatagramOptions {
        &self.endpoint.options
    }

    /// What the loop has done so far, for all services together.
    pub fn counters(&self) -> Counters {
        self.state.counted()
    }

    /// Asks for a graceful shutdown of the whole reactor. Messages that were posted to its services
    /// before are handled first. See [`Handle::stop`](crate::Handle::stop).
    pub fn stop(&mut self) {
        self.state.stop();
    }
}

impl fmt::Debug for DatagramContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramContext")
            .field("service", &self.endpoint.name)
            .finish_non_exhaustive()
    }
}
