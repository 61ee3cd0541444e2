use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::announcer::{INTERVAL, QUERY};
use crate::text::printable;
use crate::{DatagramContext, DatagramHandler, TimerId};

/// A service that was not announced for this long is gone: three announcements in a row were missed.
const SILENCE: Duration = Duration::from_millis(3500);
/// The most services that are kept, since anybody can announce as many as they like.
const MOST: usize = 1024;
/// How many characters of a service's name are kept.
const NAME_LENGTH: usize = 64;

/// Knows which services there are, from what [`Announcer`](super::Announcer)s send. It tells a function
/// of each service that comes, and of each that was not announced for three and a half seconds.
///
/// Bind it to the announcers' group. It asks there who is present, and listens from then on. What it
/// hears is not verified: on a network, anybody can announce anything. At most 1,024 services are kept.
/// Their names are cut at 64 characters and safe to print.
///
/// If there is no room for a newcomer, a service of the sender with the most services gives up its
/// place. So a sender that announces thousands takes the room from its own services. Senders are told
/// apart by their IP address, and those at the same address by their port. Both can be forged, so
/// somebody with a thousand addresses can still fill the table.
///
/// ```
/// use reactor::services::{Announcer, Change, Directory};
/// use reactor::{DatagramOptions, Reactor};
///
/// # fn listen() -> Result<(), reactor::Error> {
/// let mut reactor = Reactor::new()?;
/// let directory = Directory::new(|change| match change {
///     Change::Came(service) => println!("+ {service}"),
///     Change::Went(service) => println!("- {service}"),
/// });
/// reactor.datagrams(Announcer::GROUP, directory)?;
/// reactor.run()?;
/// # Ok(())
/// # }
/// ```
pub struct Directory<F> {
    known: BTreeMap<Announced, Heard>,
    /// How many of the known services each sender was the first to announce.
    senders: BTreeMap<SocketAddr, usize>,
    /// The function that is told of changes.
    tell: F,
    /// When to look for services that have fallen silent. None while no service is known.
    check: Option<TimerId>,
    /// The log has been told that the table is full.
    was_full: bool,
}

/// When and from whom a service was heard.
#[derive(Debug)]
struct Heard {
    /// When it was last announced.
    when: Instant,
    /// Who announced it first.
    from: SocketAddr,
}

/// A service that was announced. It is displayed as `echo 127.0.0.1:2323`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Announced {
    /// Its name, safe to print.
    pub service: String,
    /// Where it listens.
    pub address: SocketAddr,
}

impl fmt::Display for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.service, self.address)
    }
}

/// What a [`Directory`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A service that was not known is announced.
    Came(&'a Announced),
    /// A service has not been announced for too long, or had to make room for another sender's.
    Went(&'a Announced),
}

impl<F: FnMut(Change<'_>)> Directory<F> {
    /// An empty directory that tells this function of changes. The function is called within the loop,
    /// so it must not block.
    pub fn new(tell: F) -> Directory<F> {
        Directory {
            known: BTreeMap::new(),
            senders: BTreeMap::new(),
            tell,
            check: None,
            was_full: false,
        }
    }

    /// Sets the timer for when the service that has been silent longest is gone.
    fn check_later(&mut self, cx: &mut DatagramContext<'_>) {
        let oldest = self.known.values().map(|heard| heard.when).min();
        self.check = oldest.map(|when| cx.set_timer_at(when + SILENCE));
    }

    /// The service whose place a newcomer from this sender may have: among those of the sender with
    /// the most, the one that has been silent longest. None if the newcomer's sender would then have
    /// as many as that sender.
    fn least_wanted(&self, from: SocketAddr) -> Option<Announced> {
        let mut machines = BTreeMap::<IpAddr, usize>::new();
        for (sender, count) in &self.senders {
            *machines.entry(sender.ip()).or_default() += count;
        }
        let own = machines.get(&from.ip()).copied().unwrap_or(0);
        let (&greediest, &most) = machines.iter().max_by_key(|(_, count)| **count)?;
        let ip = if own + 1 < most { greediest } else { from.ip() };
        let those = self.senders.iter().filter(|(sender, _)| sender.ip() == ip);
        let (sender, most) = those.max_by_key(|(_, count)| **count)?;
        let own = self.senders.get(&from).copied().unwrap_or(0);
        if ip == from.ip() && own + 1 >= *most {
            return None;
        }
        let theirs = self.known.iter().filter(|(_, heard)| heard.from == *sender);
        theirs.min_by_key(|(_, heard)| heard.when).map(|(announced, _)| announced.clone())
    }

    /// Makes room for a newcomer from this sender. False if it may have none.
    fn make_room(&mut self, from: SocketAddr) -> bool {
        if self.known.len() < MOST {
            return true;
        }
        if !std::mem::replace(&mut self.was_full, true) {
            log::warn!("more than {MOST} services are announced: not all of them are listed");
        }
        let Some(announced) = self.least_wanted(from) else { return false };
        self.known.remove(&announced);
        self.count();
        (self.tell)(Change::Went(&announced));
        true
    }

    /// Counts the services of each sender.
    fn count(&mut self) {
        self.senders.clear();
        for heard in self.known.values() {
            *self.senders.entry(heard.from).or_default() += 1;
        }
    }
}

/// Reads `SERVICE ADDR`. A service at `0.0.0.0` or `[::]` is taken to be where it was heard from.
fn read(from: SocketAddr, bytes: &[u8]) -> Option<Announced> {
    let (service, address) = str::from_utf8(bytes).ok()?.trim_ascii_end().split_once(' ')?;
    // Numbers only, since to look up a name would block the loop.
    let mut address: SocketAddr = address.parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(from.ip());
    }
    let service: String = service.chars().take(NAME_LENGTH).collect();
    let service = printable(service.as_bytes());
    (!service.is_empty() && address.port() > 0).then_some(Announced { service, address })
}

impl<F: FnMut(Change<'_>)> DatagramHandler for Directory<F> {
    type Message = ();

    fn on_bound(&mut self, cx: &mut DatagramContext<'_>) {
        cx.send_to(cx.local_addr(), QUERY);
    }

    fn on_datagram(&mut self, cx: &mut DatagramContext<'_>, from: SocketAddr, bytes: &[u8]) {
        let Some(announced) = read(from, bytes) else { return };
        if let Some(heard) = self.known.get_mut(&announced) {
            heard.when = cx.now();
        } else if self.make_room(from) {
            (self.tell)(Change::Came(&announced));
            self.known.insert(announced, Heard { when: cx.now(), from });
            *self.senders.entry(from).or_default() += 1;
            if self.check.is_none() {
                self.check_later(cx);
            }
        }
    }

    fn on_timer(&mut self, cx: &mut DatagramContext<'_>, timer: TimerId) {
        let now = cx.now();
        if now > cx.due(timer) + INTERVAL {
            // This machine did not listen, for instance because it slept: ask again before judging.
            self.known.values_mut().for_each(|heard| heard.when = now);
            cx.send_to(cx.local_addr(), QUERY);
        }
        self.known.retain(|announced, heard| {
            let here = now < heard.when + SILENCE;
            if !here {
                (self.tell)(Change::Went(announced));
            }
            here
        });
        self.count();
        self.check_later(cx);
    }
}

impl<F> fmt::Debug for Directory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("known", &self.known).finish_non_exhaustive()
    }
}
