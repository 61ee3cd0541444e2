//! The address of a connection's peer, packed.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// An `Option<SocketAddr>` in 27 bytes instead of 32, and without alignment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerAddress {
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

impl From<Option<SocketAddr>> for PeerAddress {
    fn from(address: Option<SocketAddr>) -> PeerAddress {
        let Some(address) = address else { return PeerAddress::default() };
        let port = address.port().to_ne_bytes();
        match address {
            SocketAddr::V4(v4) => {
                let ip = v4.ip().to_ipv6_mapped().octets();
                PeerAddress { kind: Kind::V4, ip, port, ..PeerAddress::default() }
            }
            SocketAddr::V6(v6) => {
                let (flow, scope) = (v6.flowinfo().to_ne_bytes(), v6.scope_id().to_ne_bytes());
                PeerAddress { kind: Kind::V6, ip: v6.ip().octets(), port, flow, scope }
            }
        }
    }
}

impl PeerAddress {
    /// The address; none over a Unix socket and for descriptors.
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
            assert_eq!(PeerAddress::from(address).get(), address);
        }
    }
}
