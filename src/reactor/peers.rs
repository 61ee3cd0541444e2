//! How many connections each address has: `max_per_peer`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::connection::connection::Connection;
use crate::connection::flags::Flag;

/// Counts the connections that were accepted from each address, where they are limited. It is told
/// of each that comes and goes, and asked whether one more may come.
#[derive(Debug)]
pub(crate) struct Peers {
    /// How many each address may have. Without a limit nothing is counted.
    most: Option<usize>,
    /// How many each has. An address without any is not in the map.
    open: HashMap<IpAddr, usize>,
}

impl Peers {
    pub(super) fn new(most: Option<usize>) -> Peers {
        Peers { most, open: HashMap::new() }
    }

    /// The limit, if the newcomer's address has as many connections as that already.
    pub(super) fn limit_reached(&self, peer: Option<SocketAddr>) -> Option<usize> {
        let most = self.most?;
        self.open.get(&peer_key(peer?)).is_some_and(|open| *open >= most).then_some(most)
    }

    pub(super) fn add(&mut self, conn: &Connection) {
        if let Some(peer) = self.counted(conn) {
            *self.open.entry(peer).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, conn: &Connection) {
        if let Some(peer) = self.counted(conn)
            && let Some(open) = self.open.get_mut(&peer)
        {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&peer);
            }
        }
    }

    /// What the connection counts under, if it does: those that were dialled do not.
    fn counted(&self, conn: &Connection) -> Option<IpAddr> {
        self.most?;
        let peer = conn.peer.get().filter(|_| !conn.flags.has(Flag::Outbound))?;
        Some(peer_key(peer))
    }
}

/// What counts as one peer: an IPv4 address, or the 64 bits of an IPv6 address that name a network,
/// since a client that has one such address has the whole network.
fn peer_key(peer: SocketAddr) -> IpAddr {
    match peer.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_peer() {
        let home = |text: &str| peer_key(text.parse().unwrap()).to_string();
        assert_eq!(home("[2001:db8:1:2:3:4:5:6]:7"), "2001:db8:1:2::");
        assert_eq!(home("[::ffff:127.0.0.2]:7"), "127.0.0.2");
        assert_eq!(home("127.0.0.3:7"), "127.0.0.3");
    }
}
