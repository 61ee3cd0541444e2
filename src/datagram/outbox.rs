//! Datagrams that the kernel did not take at once and that wait for room.

use std::collections::VecDeque;
use std::net::SocketAddr;

/// What a datagram in the queue costs besides its bytes, so that empty ones are bounded too.
const OVERHEAD: usize = 64;

/// A queue of datagrams with a bound in bytes.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<(SocketAddr, Box<[u8]>)>,
    /// What the datagrams in the queue cost.
    bytes: usize,
}

impl Outbox {
    /// Appends a datagram if it fits under a bound of `most` bytes; says whether it did.
    pub(crate) fn push(&mut self, to: SocketAddr, bytes: &[u8], most: usize) -> bool {
        let cost = bytes.len() + OVERHEAD;
        let fits = cost <= most.saturating_sub(self.bytes);
        if fits {
            self.bytes += cost;
            self.queue.push_back((to, bytes.into()));
        }
        fits
    }

    /// The datagram that waits longest.
    pub(crate) fn first(&self) -> Option<(SocketAddr, &[u8])> {
        self.queue.front().map(|(to, bytes)| (*to, &**bytes))
    }

    /// Drops the datagram that waits longest.
    pub(crate) fn pop(&mut self) {
        if let Some((_, bytes)) = self.queue.pop_front() {
            self.bytes -= bytes.len() + OVERHEAD;
        }
        if self.queue.is_empty() {
            // An idle socket keeps no buffer.
            self.queue = VecDeque::new();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How much they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many datagrams wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_and_the_bound() {
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut outbox = Outbox::default();
        assert!(outbox.push(to, b"12345", 2 * OVERHEAD + 8));
        assert!(!outbox.push(to, b"1234", 2 * OVERHEAD + 8));
        assert!(outbox.push(to, b"123", 2 * OVERHEAD + 8));
        assert!(!outbox.push(to, b"", 2 * OVERHEAD + 8));
        assert_eq!((outbox.first(), outbox.len()), (Some((to, &b"12345"[..])), 2));
        outbox.pop();
        assert!(outbox.push(to, b"", 2 * OVERHEAD + 8));
        outbox.pop();
        outbox.pop();
        outbox.pop();
        assert_eq!((outbox.first(), outbox.bytes, outbox.is_empty()), (None, 0, true));
    }
}
