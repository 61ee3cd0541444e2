use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::announcer::{INTERVAL, QUERY};
use crate::text::printable;
use crate::{DatagramContext, DatagramHandler, TimerId};

/// Who has not been heard for this long is gone: three announcements were lost, and a bit.
const SILENCE: Duration = Duration::from_millis(3500);
/// Services that are kept; anybody can announce as many as they like.
const MOST: usize = 1024;
/// Characters of a service's name that are kept.
const NAME_LENGTH: usize = 64;

/// Knows which services are there, by what [`Announcer`](super::Announcer)s say, and tells of
/// those that come and of those that fell silent for three and a half seconds.
///
/// It is to be bound to the announcers' group, asks there who is present, and listens from then
/// on. What it hears is taken as it is: on a network, anybody can announce anything. 1,024
/// services are kept at the most; names are cut at 64 characters and safe to print.
///
/// Where there is no room for a newcomer, one of the sender who has announced most gives up its
/// place, so that who announces thousands takes the room from their own. Senders are told apart by
/// their IP address, and those at the same one by their port. Both can be forged: who has a
/// thousand of them can still fill the table.
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
    /// How many of those each sender was the first to announce.
    senders: BTreeMap<SocketAddr, usize>,
    tell: F,
    /// Set while somebody is known: somebody may have fallen silent then.
    check: Option<TimerId>,
    was_full: bool,
}

#[derive(Debug)]
struct Heard {
    /// The last time.
    when: Instant,
    /// Who announced it first.
    from: SocketAddr,
}

/// A service that was announced; it is written `echo 127.0.0.1:2323`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Announced {
    /// Its name.
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
    /// A directory that is empty, and tells this function of changes.
    pub fn new(tell: F) -> Directory<F> {
        Directory {
            known: BTreeMap::new(),
            senders: BTreeMap::new(),
            tell,
            check: None,
            was_full: false,
        }
    }

    /// Looks again when the one that has been silent the longest may be gone.
    fn check_later(&mut self, cx: &mut DatagramContext<'_>) {
        let oldest = self.known.values().map(|heard| heard.when).min();
        self.check = oldest.map(|when| cx.set_timer_at(when + SILENCE));
    }

    /// Whose place a newcomer from there may have: of the sender who has most, the one that has been
    /// silent the longest. None if the newcomer's sender would then have as many as that one.
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

    /// Whether there is room for a newcomer from there now.
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

    fn count(&mut self) {
        self.senders.clear();
        for heard in self.known.values() {
            *self.senders.entry(heard.from).or_default() += 1;
        }
    }
}

/// Reads `SERVICE ADDR`. A service at every address of its machine is where it was heard from.
fn read(from: SocketAddr, bytes: &[u8]) -> Option<Announced> {
    let (service, address) = str::from_utf8(bytes).ok()?.trim_ascii_end().split_once(' ')?;
    // Numbers only: to look a name up would block the loop.
    let mut address: SocketAddr = address.parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(from.ip());
    }
    let service: String = printable(service.as_bytes()).chars().take(NAME_LENGTH).collect();
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
            // It was us who did not listen, as on a machine that slept: they get another chance.
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
