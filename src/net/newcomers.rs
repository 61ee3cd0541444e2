//! Newcomers on their way from the core that has accepted them to the one that serves them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};

use super::stream::Socket;

/// A newcomer as the system gives it, and its address, none where it has no IP address.
pub(crate) type Newcomer = (Socket, Option<SocketAddr>);

/// How many connections a core has, along with the newcomers that are on their way to it.
pub(crate) type Load = Arc<AtomicUsize>;

/// Counts a newcomer on its way to a core as load of that core, until it is taken out of the queue or dropped
/// with it.
struct Counted(Load);

/// Wakes a core.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// The way to one core.
pub(crate) struct Outlet {
    queue: Sender<(Newcomer, Counted)>,
    load: Load,
    wake: Wake,
    /// Something has gone that way since it was last woken.
    used: bool,
}

/// Its other end: a listener of a core that is handed its newcomers.
pub(crate) struct Arrivals {
    queue: Receiver<(Newcomer, Counted)>,
    /// How many were there from the beginning and still are.
    left: usize,
    /// Whether the senders are gone and the queue is empty.
    over: bool,
}

/// Divides the newcomers of one listener among the cores: of two cores, chosen at random, the one with
/// fewer connections gets it. That is nearly as even as to look at all of them, and costs the same with
/// any number.
pub(crate) struct Distributor {
    /// That of the core which accepts.
    own: Load,
    others: Vec<Outlet>,
    /// The state of a generator of random numbers, which need be no better than fair.
    random: u64,
}

/// Makes the way to a core.
pub(crate) fn channel(load: Load, wake: Wake) -> (Outlet, Arrivals) {
    let (sender, receiver) = mpsc::channel();
    let outlet = Outlet { queue: sender, load, wake, used: false };
    (outlet, Arrivals { queue: receiver, left: 0, over: false })
}

impl Counted {
    fn new(load: &Load) -> Counted {
        load.fetch_add(1, Relaxed);
        Counted(Arc::clone(load))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Arrivals {
    /// These, and nobody after them.
    pub(crate) fn of(newcomers: Vec<Newcomer>) -> Arrivals {
        let (sender, queue) = mpsc::channel();
        let (load, left) = (Load::default(), newcomers.len());
        for newcomer in newcomers {
            // It cannot fail, since the other end is here.
            let _ = sender.send((newcomer, Counted::new(&load)));
        }
        Arrivals { queue, left, over: false }
    }

    /// The next newcomer; `WouldBlock` if there is none, as a socket says it.
    pub(crate) fn accept(&mut self) -> io::Result<Newcomer> {
        let (newcomer, _) = self.queue.try_recv().map_err(|error| {
            self.over = error == TryRecvError::Disconnected;
            io::ErrorKind::WouldBlock
        })?;
        self.left = self.left.saturating_sub(1);
        // From now on it counts, or does not, as the core decides.
        Ok(newcomer)
    }

    /// How many of [those](Self::of) are left.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Nobody comes any more.
    pub(crate) fn are_over(&self) -> bool {
        self.over
    }
}

/// Wakes the other ends, which find that no more will come.
impl Drop for Distributor {
    fn drop(&mut self) {
        for Outlet { queue, wake, .. } in self.others.drain(..) {
            drop(queue);
            wake();
        }
    }
}

impl Distributor {
    pub(crate) fn new(own: Load, others: Vec<Outlet>) -> Distributor {
        Distributor { own, others, random: 1 }
    }

    /// Wakes those that newcomers were sent to: each once, however many there were.
    pub(crate) fn wake(&mut self) {
        for outlet in self.others.iter_mut().filter(|outlet| outlet.used) {
            outlet.used = false;
            (outlet.wake)();
        }
    }

    /// Sends a newcomer where it is to go; gives it back if that is here. Who it goes to is to be
    /// [woken](Self::wake) then.
    pub(crate) fn distribute(&mut self, newcomer: Newcomer) -> Option<Newcomer> {
        let place = self.choose();
        let Some(outlet) = place.checked_sub(1).map(|other| &mut self.others[other]) else {
            return Some(newcomer);
        };
        // Count it first: it may be taken out of the queue at once.
        match outlet.queue.send((newcomer, Counted::new(&outlet.load))) {
            Ok(()) => {
                outlet.used = true;
                None
            }
            // That core accepts no more: it is shutting down, has failed, or never got the listener.
            Err(error) => Some(error.0.0),
        }
    }

    /// The core that gets the next one: 0 is this one.
    fn choose(&mut self) -> usize {
        let cores = self.others.len() as u64 + 1;
        // Knuth's constants for MMIX; the upper bits are the good ones.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let pair = (self.random >> 16) % (cores * (cores - 1));
        let (first, second) = (pair / (cores - 1), pair % (cores - 1));
        // The second is another one than the first.
        let second = second + u64::from(second >= first);
        let [first, second] = [first, second].map(|core| core as usize);
        if self.load(second) < self.load(first) { second } else { first }
    }

    fn load(&self, core: usize) -> usize {
        core.checked_sub(1).map_or(&self.own, |other| &self.others[other].load).load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_lost_in_a_queue_counts_no_more() {
        let load = Load::default();
        let (outlet, arrivals) = channel(Arc::clone(&load), Arc::new(|| ()));
        // The core that accepts has more connections, so the other one gets them.
        let own = Load::new(AtomicUsize::new(100));
        let mut distributor = Distributor::new(own, vec![outlet]);
        let newcomer = || {
            let (here, _) = mio::net::UnixStream::pair().unwrap();
            (Socket::Unix(here), None)
        };
        assert!((0..3).all(|_| distributor.distribute(newcomer()).is_none()));
        assert_eq!(load.load(Relaxed), 3);
        drop(arrivals);
        assert_eq!(load.load(Relaxed), 0);
        assert!(distributor.distribute(newcomer()).is_some());
        assert_eq!(load.load(Relaxed), 0);
    }

    #[test]
    fn newcomers_are_divided_evenly_whatever_the_number_of_cores() {
        for cores in [2, 3, 4, 16] {
            let loads: Vec<Load> = (0..cores).map(|_| Load::default()).collect();
            let others = loads[1..].iter().map(|load| channel(Arc::clone(load), Arc::new(|| ())).0);
            let mut distributor = Distributor::new(Arc::clone(&loads[0]), others.collect());
            for _ in 0..10_000 {
                let core = distributor.choose();
                loads[core].fetch_add(1, Relaxed);
            }
            let even = 10_000 / cores;
            for load in &loads {
                let load = load.load(Relaxed);
                assert!(load.abs_diff(even) <= even / 20, "{cores} cores: {load} of {even}");
            }
        }
    }
}
