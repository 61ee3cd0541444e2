use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
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
    /// Each with when it was last heard.
    known: BTreeMap<Announced, Instant>,
    tell: F,
    /// Set while somebody is known: somebody may have fallen silent then.
    check: Option<TimerId>,
    was_full: bool,
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
    /// A service has not been announced for too long.
    Went(&'a Announced),
}

impl<F: FnMut(Change<'_>)> Directory<F> {
    /// A directory that is empty, and tells this function of changes.
    pub fn new(tell: F) -> Directory<F> {
        Directory { known: BTreeMap::new(), tell, check: None, was_full: false }
    }

    /// Looks again when the one that has been silent the longest may be gone.
    fn check_later(&mut self, cx: &mut DatagramContext<'_>) {
        let oldest = self.known.values().min();
        self.check = oldest.map(|heard| cx.set_timer_at(*heard + SILENCE));
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
            *heard = cx.now();
        } else if self.known.len() < MOST {
            (self.tell)(Change::Came(&announced));
            self.known.insert(announced, cx.now());
            if self.check.is_none() {
                self.check_later(cx);
            }
        } else if !std::mem::replace(&mut self.was_full, true) {
            log::warn!("more than {MOST} services are announced: the others are not listed");
        }
    }

    fn on_timer(&mut self, cx: &mut DatagramContext<'_>, timer: TimerId) {
        let now = cx.now();
        if now > cx.due(timer) + INTERVAL {
            // It was us who did not listen, as on a machine that slept: they get another chance.
            self.known.values_mut().for_each(|heard| *heard = now);
            cx.send_to(cx.local_addr(), QUERY);
        }
        self.known.retain(|announced, heard| {
            let here = now < *heard + SILENCE;
            if !here {
                (self.tell)(Change::Went(announced));
            }
            here
        });
        self.check_later(cx);
    }
}

impl<F> fmt::Debug for Directory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("known", &self.known).finish_non_exhaustive()
    }
}
