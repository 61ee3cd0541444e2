use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::DatagramOptions;
use super::endpoint::Endpoint;
use crate::connection::TimerId;
use crate::reactor::Counters;
use crate::reactor::loop_state::LoopState;

/// What a [`DatagramHandler`](crate::DatagramHandler) can do with its socket and with the loop.
/// Made by the loop, one for each call.
pub struct DatagramContext<'a> {
    endpoint: &'a mut Endpoint,
    state: &'a mut LoopState,
}

impl<'a> DatagramContext<'a> {
    pub(crate) fn new(endpoint: &'a mut Endpoint, state: &'a mut LoopState) -> Self {
        DatagramContext { endpoint, state }
    }

    /// Sends one datagram, with a system call of its own. When the kernel takes no more it waits
    /// in a queue of [`max_unsent`](DatagramOptions::max_unsent) bytes. False when it is lost
    /// already: the queue is full, it is too large (65,507 bytes fit into IPv4), there is no way
    /// to the address, or the address is a broadcast address without
    /// [`broadcast`](DatagramOptions::broadcast). It is counted in
    /// [`datagrams_lost`](Counters::datagrams_lost) then, and the reason logged every ten seconds
    /// at the most. That it arrives is said by nothing but an answer.
    pub fn send_to(&mut self, to: SocketAddr, bytes: impl AsRef<[u8]>) -> bool {
        self.endpoint.send(to, bytes.as_ref(), self.state)
    }

    /// The address that the socket is bound to, with the real port; for one bound to a multicast
    /// address, the group's.
    pub fn local_addr(&self) -> SocketAddr {
        self.endpoint.local
    }

    /// Datagrams that wait because the kernel took no more.
    pub fn unsent(&self) -> usize {
        self.endpoint.outbox.len()
    }

    /// Calls [`on_timer`](crate::DatagramHandler::on_timer) once, `after` from
    /// [`now`](Self::now). A turn's timers fire in order; resolution is a millisecond.
    pub fn set_timer(&mut self, after: Duration) -> TimerId {
        self.endpoint.timers.set(self.state.after(after), self.endpoint.token())
    }

    /// As [`set_timer`](Self::set_timer), at a moment: for a rhythm that does not drift. One that
    /// has passed is due at once.
    pub fn set_timer_at(&mut self, when: Instant) -> TimerId {
        self.endpoint.timers.set(self.state.nanos(when), self.endpoint.token())
    }

    /// Cancels a timer. False when it has fired already.
    pub fn cancel_timer(&mut self, timer: TimerId) -> bool {
        self.endpoint.timers.cancel(timer, self.endpoint.token())
    }

    /// The moment this turn began; reading it costs nothing.
    pub fn now(&self) -> Instant {
        self.state.instant(self.state.turn.now)
    }

    /// The moment a timer is due: for setting the next one without drift.
    pub fn due(&self, timer: TimerId) -> Instant {
        self.state.instant(timer.when)
    }

    /// How this socket was set up.
    pub fn options(&self) -> &DatagramOptions {
        &self.endpoint.options
    }

    /// What the loop has done so far.
    pub fn counters(&self) -> &Counters {
        &self.state.counters
    }

    /// Asks for a graceful shutdown of the whole reactor, which comes after all that has been
    /// posted to its services; see [`Handle::stop`](crate::Handle::stop).
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
