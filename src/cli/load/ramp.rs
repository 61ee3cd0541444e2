//! Which client is connected next, and when: `--ramp`.

use std::collections::VecDeque;

/// Connections that are being opened at once. More would only wait in the server's backlog, or
/// overflow it, and TCP tries again only after a second.
const MOST_IN_FLIGHT: u32 = 256;
const SECOND: f64 = 1e9;

/// The clients that wait to be connected. Moments are nanoseconds.
#[derive(Debug)]
pub(crate) struct Ramp {
    clients: u32,
    /// Clients that have been dialled at least once.
    dialled: u32,
    /// Clients that are to be connected again.
    again: VecDeque<u32>,
    /// Clients that are dialled and neither greeted nor lost.
    pub(crate) in_flight: u32,
    /// How many may still be dialled altogether.
    left: u64,
    /// Connections per second, if they are limited.
    per_second: Option<f64>,
    /// When the next one may be dialled.
    next: f64,
    stopped: bool,
}

impl Ramp {
    pub(crate) fn new(clients: u32, per_second: Option<f64>, most: u64) -> Ramp {
        Ramp {
            clients,
            dialled: 0,
            again: VecDeque::new(),
            in_flight: 0,
            left: most,
            per_second,
            next: 0.0,
            stopped: false,
        }
    }

    /// The client to be connected now, if there is one; it counts as in flight.
    pub(crate) fn next(&mut self, now: u64) -> Option<u32> {
        if self.stopped || self.left == 0 || self.in_flight >= MOST_IN_FLIGHT {
            return None;
        }
        if let Some(per_second) = self.per_second {
            let now = now as f64;
            if now < self.next {
                return None;
            }
            // Unused time beyond 5 ms is not made up for in a burst.
            let base = self.next.max(now - SECOND / 200.0);
            if self.dialled < self.clients || !self.again.is_empty() {
                self.next = base + SECOND / per_second;
            }
        }
        let number = if self.dialled < self.clients {
            self.dialled += 1;
            self.dialled - 1
        } else {
            self.again.pop_front()?
        };
        self.in_flight += 1;
        self.left -= 1;
        Some(number)
    }

    /// A client is to be connected once more.
    pub(crate) fn again(&mut self, number: u32) {
        if !self.stopped {
            self.again.push_back(number);
        }
    }

    /// A connection was not made, for want of a port here, and is to be tried once more.
    pub(crate) fn retry(&mut self, number: u32) {
        self.left = self.left.saturating_add(1);
        self.again(number);
    }

    /// No more connections.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether a client waits to be connected.
    fn is_waiting(&self) -> bool {
        !self.stopped && self.left > 0 && (self.dialled < self.clients || !self.again.is_empty())
    }

    /// Whether no client waits and none is in flight.
    pub(crate) fn is_done(&self) -> bool {
        !self.is_waiting() && self.in_flight == 0
    }

    /// Whether clients wait for time to pass.
    pub(crate) fn is_paced(&self) -> bool {
        self.per_second.is_some() && self.is_waiting()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_once_and_then_those_that_come_back() {
        let mut ramp = Ramp::new(3, None, u64::MAX);
        assert_eq!((ramp.next(0), ramp.next(0)), (Some(0), Some(1)));
        ramp.again(0);
        assert_eq!((ramp.next(0), ramp.next(0), ramp.next(0)), (Some(2), Some(0), None));
        assert!(!ramp.is_waiting() && !ramp.is_done());
        ramp.in_flight = 0;
        assert!(ramp.is_done());
    }

    #[test]
    fn a_few_hundred_at_once() {
        let mut ramp = Ramp::new(10_000, None, u64::MAX);
        assert_eq!((0..1000).filter_map(|_| ramp.next(0)).count(), 256);
        ramp.in_flight -= 1;
        assert_eq!((ramp.next(0), ramp.next(0)), (Some(256), None));
    }

    #[test]
    fn a_ramp_is_even() {
        let mut ramp = Ramp::new(10_000, Some(1000.0), u64::MAX);
        let millis: Vec<_> = (0..10)
            .map(|milli| (0..9).filter_map(|_| ramp.next(milli * 1_000_000)).count())
            .collect();
        assert_eq!(millis, [1; 10]);
        // After a pause there are a few more, not all that were missed.
        let after = (0..100).filter_map(|_| ramp.next(1_000_000_000)).count();
        assert!((2..10).contains(&after), "{after}");
    }

    #[test]
    fn no_more_than_that_altogether() {
        let mut ramp = Ramp::new(2, None, 3);
        assert_eq!((ramp.next(0), ramp.next(0)), (Some(0), Some(1)));
        ramp.retry(0);
        ramp.again(1);
        assert_eq!((ramp.next(0), ramp.next(0)), (Some(0), Some(1)));
        ramp.again(0);
        assert_eq!((ramp.next(0), ramp.is_waiting()), (None, false));
    }

    #[test]
    fn after_a_stop_nobody() {
        let mut ramp = Ramp::new(2, None, u64::MAX);
        ramp.next(0);
        ramp.stop();
        ramp.again(0);
        assert_eq!(ramp.next(0), None);
        assert!(!ramp.is_waiting());
    }
}
