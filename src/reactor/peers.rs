//! How many connections each address has: `max_per_peer`.

use std::net::{IpAddr, SocketAddr};

use super::table::Table;
use crate::connection::ConnId;
use crate::connection::flags::Flag;

/// What counts as one peer: an IPv4 address, or the 64 bits of an IPv6 address that name a network,
/// since whoever has one such address has all of the network.
pub(crate) fn peer_key(peer: SocketAddr) -> IpAddr {
    match peer.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        ip => ip,
    }
}

impl<S> Table<S> {
    /// The newcomer's address has as many connections as it may.
    pub(crate) fn peer_is_full(&self, peer: Option<SocketAddr>) -> bool {
        let Some((most, peer)) = self.limits.max_per_peer.zip(peer) else { return false };
        self.peers.get(&peer_key(peer)).is_some_and(|open| *open >= most)
    }

    pub(super) fn limited_peer(&self, id: ConnId) -> Option<IpAddr> {
        self.limits.max_per_peer?;
        let slot = self.get(id).filter(|slot| !slot.conn.flags.has(Flag::Outbound))?;
        slot.conn.peer.get().map(peer_key)
    }

    pub(crate) fn count_peer(&mut self, id: ConnId) {
        if let Some(peer) = self.limited_peer(id) {
            *self.peers.entry(peer).or_default() += 1;
        }
    }

    pub(crate) fn discount_peer(&mut self, id: ConnId) {
        if let Some(peer) = self.limited_peer(id)
            && let Some(open) = self.peers.get_mut(&peer)
        {
            *open -= 1;
            if *open == 0 {
                self.peers.remove(&peer);
            }
        }
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
