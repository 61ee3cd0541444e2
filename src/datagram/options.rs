use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::error::Error;

/// How a datagram socket is set up, and what it may use.
///
/// A socket that is bound to a multicast address joins that group by itself and hears nothing
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
    /// Groups to join besides the one that the socket is bound to, of the address's own family.
    /// A socket bound to `0.0.0.0:PORT` hears them and whatever else comes to that port.
    /// Default none.
    pub groups: Vec<IpAddr>,
    /// The IPv4 interface, by its address, at which groups are joined and to which multicast is
    /// sent; none leaves it to the system's routes. In IPv6 it is the scope of the address bound
    /// to, as in `[ff02::1234%2]:7000`. Default none.
    pub interface: Option<Ipv4Addr>,
    /// How far multicast that is sent may go: 0 stays on this machine, 1 in the local network,
    /// each more passes one router. Default 1.
    pub multicast_ttl: u8,
    /// Whether multicast that is sent is also heard on this machine, by this socket too if it has
    /// joined the group. Default true.
    pub multicast_loop: bool,
    /// Allows sending to broadcast addresses, which the system otherwise refuses. Receiving them
    /// takes no permission, but an address bound to that includes them: `0.0.0.0`. Default false.
    pub broadcast: bool,
    /// Lets other sockets of this machine be bound to the same address, if they say so too: each
    /// gets every multicast and broadcast, one of them every other datagram. A socket bound to a
    /// multicast address always does. Default false.
    pub shared: bool,
    /// Datagrams handled in one turn; what is left waits behind the others. Default 256.
    pub datagrams_per_turn: usize,
    /// Bytes that may wait while the kernel takes no more, 64 for each datagram included. What
    /// does not fit is lost, and counted in
    /// [`datagrams_lost`](crate::Counters::datagrams_lost). Default 256 KiB.
    pub max_unsent: usize,
    /// Callbacks that hold the loop for this long are logged as a warning: nobody else is served
    /// meanwhile. Default 100 ms.
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
