//! A connection's address on the other side, packed.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// As `Option<SocketAddr>`, in 27 bytes instead of 32 and without their alignment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peer {
    kind: Kind,
    ip: [u8; 16],
    port: [u8; 2],
    flow: [u8; 4],
    scope: [u8; 4],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    None,
    V4,
    V6,
}

impl From<Option<SocketAddr>> for Peer {
    fn from(address: Option<SocketAddr>) -> Peer {
        let Some(address) = address else { return Peer::default() };
        let port = address.port().to_ne_bytes();
        match address {
            SocketAddr::V4(v4) => {
                let ip = v4.ip().to_ipv6_mapped().octets();
                Peer { kind: Kind::V4, ip, port, ..Peer::default() }
            }
            SocketAddr::V6(v6) => {
                let (flow, scope) = (v6.flowinfo().to_ne_bytes(), v6.scope_id().to_ne_bytes());
                Peer { kind: Kind::V6, ip: v6.ip().octets(), port, flow, scope }
            }
        }
    }
}

impl Peer {
    pub(crate) fn get(&self) -> Option<SocketAddr> {
        let (ip, port) = (self.ip.into(), u16::from_ne_bytes(self.port));
        let (flow, scope) = (u32::from_ne_bytes(self.flow), u32::from_ne_bytes(self.scope));
        match self.kind {
            Kind::None => None,
            Kind::V4 => Some(SocketAddr::new(IpAddr::V6(ip).to_canonical(), port)),
            Kind::V6 => Some(SocketAddrV6::new(ip, port, flow, scope).into()),
        }
    }
}

/// What counts as one peer: an IPv4 address, or the 64 bits of an IPv6 address that name a network,
/// since whoever has one such address has all of the network.
pub(crate) fn home(peer: SocketAddr) -> IpAddr {
    match peer.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_comes_back_as_it_was() {
        let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 65_535, 7, 3);
        let addresses = [
            None,
            Some("127.0.0.1:2323".parse().unwrap()),
            Some("0.0.0.0:0".parse().unwrap()),
            Some("[::ffff:1.2.3.4]:5".parse().unwrap()),
            Some(SocketAddr::V6(scoped)),
        ];
        for address in addresses {
            assert_eq!(Peer::from(address).get(), address);
        }
    }

    #[test]
    fn an_ipv6_network_is_one_peer() {
        let home = |text: &str| home(text.parse().unwrap()).to_string();
        assert_eq!(home("[2001:db8:1:2:3:4:5:6]:7"), "2001:db8:1:2::");
        assert_eq!(home("[::ffff:127.0.0.2]:7"), "127.0.0.2");
        assert_eq!(home("127.0.0.3:7"), "127.0.0.3");
    }
}
