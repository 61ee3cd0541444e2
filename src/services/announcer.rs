use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::{DatagramContext, DatagramHandler, TimerId};

/// How often services are announced.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// The datagram that asks who is there.
pub(super) const QUERY: &[u8] = b"?\n";
/// The least time between two announcements. One answer will do for all who ask meanwhile.
const GAP: Duration = Duration::from_millis(100);

/// Tells by multicast which services there are: one datagram `SERVICE ADDR` for each service, every
/// second, and sooner when somebody asks with the datagram `?`. A [`Directory`](super::Directory)
/// listens to it.
///
/// Bind it to the group that it is to announce to:
///
/// ```
/// use std::net::Ipv4Addr;
/// use reactor::services::{Announcer, Echo};
/// use reactor::{Address, DatagramOptions, Reactor};
///
/// # fn announce() -> Result<(), reactor::Error> {
/// let mut reactor = Reactor::new()?;
/// let echo = reactor.listen("127.0.0.1:0", Echo)?;
/// let place = echo.address().and_then(Address::as_socket);
/// // On this machine alone.
/// let options =
///     DatagramOptions { interface: Some(Ipv4Addr::LOCALHOST), ..DatagramOptions::default() };
/// let announcer = Announcer::new(place.map(|place| ("echo", place)));
/// reactor.datagrams_with(Announcer::GROUP, announcer, options)?;
/// # Ok(())
/// # }
/// ```
///
/// A service at `0.0.0.0` is taken to be at the address that the datagram came from.
#[derive(Clone, Debug)]
pub struct Announcer {
    /// The datagrams.
    lines: Vec<String>,
    /// When the last announcement went out.
    last: Option<Instant>,
    /// When the next one will.
    next: Option<TimerId>,
}

impl Announcer {
    /// The usual group, 239.255.23.23:9908: a multicast address whose datagrams stay within a site
    /// (RFC 2365), and a port that is not registered.
    pub const GROUP: SocketAddr =
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(239, 255, 23, 23), 9908));

    /// An announcer of these services, by name and address.
    ///
    /// # Panics
    /// If a name is empty or has white space in it: listeners would cut it there.
    pub fn new<N: AsRef<str>>(services: impl IntoIterator<Item = (N, SocketAddr)>) -> Announcer {
        let line = |(name, address): (N, SocketAddr)| {
            let name = name.as_ref();
            let whole = !name.is_empty() && !name.contains(char::is_whitespace);
            assert!(whole, "a service cannot be announced as {name:?}");
            format!("{name} {address}\n")
        };
        Announcer { lines: services.into_iter().map(line).collect(), last: None, next: None }
    }

    fn announce(&mut self, cx: &mut DatagramContext<'_>) {
        let group = cx.local_addr();
        for line in &self.lines {
            cx.send_to(group, line);
        }
        self.last = Some(cx.now());
        self.next = Some(cx.set_timer(INTERVAL));
    }
}

impl DatagramHandler for Announcer {
    type Message = ();

    fn on_bound(&mut self, cx: &mut DatagramContext<'_>) {
        self.announce(cx);
    }

    fn on_datagram(&mut self, cx: &mut DatagramContext<'_>, _from: SocketAddr, bytes: &[u8]) {
        // Its own announcements come back too.
        if bytes.trim_ascii_end() == QUERY.trim_ascii_end() {
            // The answer is the next announcement, made sooner.
            if let Some(next) = self.next.take() {
                cx.cancel_timer(next);
            }
            let when = self.last.map_or(cx.now(), |last| last + GAP);
            self.next = Some(cx.set_timer_at(when));
        }
    }

    fn on_timer(&mut self, cx: &mut DatagramContext<'_>, _timer: TimerId) {
        self.announce(cx);
    }
}
