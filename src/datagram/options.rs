use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::error::Error;

/// How a datagram socket is set up, and what it may use. Give it to
/// [`Reactor::datagrams_with`](crate::Reactor::datagrams_with).
///
/// A socket that is bound to a multicast address joins that group by itself and receives nothing
/// else:
///
/// ```
/// use std::net::Ipv4Addr;
/// use reactor::DatagramOptions;
///
/// // For `reactor.datagrams_with("239.255.1.2:7000", handler, options)`, on this machine alone.
/// let options =
///     DatagramOptions { interface: Some(Ipv4Addr::LOCALHOST), ..DatagramOptions::default() };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatagramOptions {
    /// Groups to join besides the one that the socket is bound to, of the same family as the address
    /// that it is bound to. A socket that is bound to `0.0.0.0:PORT` receives their datagrams and
    /// whatever else comes to that port. Default none.
    pub groups: Vec<IpAddr>,
    /// The address of the IPv4 interface on which groups are joined and multicast is sent; none
    /// leaves the choice to the system's routes. For IPv6 this is ignored, and the interface is the
    /// scope of the address that the socket is bound to, as in `[ff02::1234%2]:7000`. Default none.
    pub interface: Option<Ipv4Addr>,
    /// How far multicast that is sent may go: 0 is this machine, 1 the local network, and each more
    /// one router further. Default 1.
    pub multicast_ttl: u8,
    /// Whether multicast that is sent is also received on this machine, by this socket too if it has
    /// joined the group. Default true.
    pub multicast_loop: bool,
    /// Whether datagrams may be sent to broadcast addresses, which the system otherwise refuses. To
    /// receive broadcasts, bind to `0.0.0.0`; this is not needed for it. Default false.
    pub broadcast: bool,
    /// Whether other sockets of this machine may be bound to the same address, if they allow it too.
    /// Each of them receives every multicast and broadcast; any other datagram is received by one of
    /// them. A socket that is bound to a multicast address always allows it. Default false.
    pub shared: bool,
    /// How many datagrams are handled in one turn; at least 1. What is left waits in the kernel,
    /// behind the other services. Default 256.
    pub datagrams_per_turn: usize,
    /// How many bytes may wait while the kernel takes no more; each datagram counts 64 bytes more
    /// than it has. A datagram that does not fit is lost, and counted in
    /// [`datagrams_lost`](crate::Counters::datagrams_lost). Default 256 KiB.
    pub max_unsent: usize,
    /// How long a hook may hold the loop before that is logged as a warning, since nobody else is
    /// served meanwhile. Default 100 ms.
    pub slow_call: Duration,
}

impl Default for DatagramOptions {
    fn default() -> Self {
        DatagramOptions {
            groups: Vec::new(),
            interface: None,
            multicast_ttl: 1,
            multicast_loop: true,
            broadcast: false,
            shared: false,
            datagrams_per_turn: 256,
            max_unsent: 256 * 1024,
            slow_call: Duration::from_millis(100),
        }
    }
}

impl DatagramOptions {
    /// All groups to join by a socket that is bound to this address.
    pub(crate) fn groups_at(&self, address: SocketAddr) -> impl Iterator<Item = IpAddr> {
        let own = Some(address.ip()).filter(IpAddr::is_multicast);
        let others = self.groups.iter().copied().filter(move |group| Some(*group) != own);
        own.into_iter().chain(others)
    }

    /// Says whether a socket that is bound to this address can have these options.
    pub(crate) fn check(&self, address: SocketAddr) -> Result<(), Error> {
        if self.datagrams_per_turn == 0 {
            return Err(Error::limit("datagrams_per_turn", "must not be 0"));
        }
        for group in &self.groups {
            let why = if !group.is_multicast() {
                "it is no multicast address (224.0.0.0 to 239.255.255.255, or ff00::/8)"
            } else if group.is_ipv4() != address.is_ipv4() {
                "a group must be of the same family, IPv4 or IPv6, as the address bound to"
            } else {
                continue;
            };
            return Err(Error::Address { text: group.to_string(), why: why.to_owned() });
        }
        Ok(())
    }
}
