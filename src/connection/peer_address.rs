//! The address of a connection's peer, packed.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::encoding::{Decoder, Encoder, Unreadable};

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

    /// Writes it down for another process of this machine.
    pub(crate) fn save(&self, to: &mut Encoder) {
        let PeerAddress { kind, ip, port, flow, scope } = self;
        to.put_number(match kind {
            Kind::None => 0,
            Kind::V4 => 4,
            Kind::V6 => 6,
        });
        to.put_bytes(&[&ip[..], port, flow, scope].concat());
    }

    /// Reads what [`save`](Self::save) has written.
    pub(crate) fn restore(from: &mut Decoder<'_>) -> Result<PeerAddress, Unreadable> {
        let kind = match from.number()? {
            0 => Kind::None,
            4 => Kind::V4,
            6 => Kind::V6,
            _ => return Err(Unreadable("an address of an unknown kind")),
        };
        let bytes: &[u8; 26] =
            from.bytes()?.try_into().map_err(|_| Unreadable("an address of another length"))?;
        let mut address = PeerAddress { kind, ..PeerAddress::default() };
        let PeerAddress { kind: _, ip, port, flow, scope } = &mut address;
        let mut rest = &bytes[..];
        for field in [&mut ip[..], port, flow, scope] {
            let (front, back) = rest.split_at(field.len());
            field.copy_from_slice(front);
            rest = back;
        }
        Ok(address)
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
            let mut saved = Encoder::default();
            PeerAddress::from(address).save(&mut saved);
            let restored = PeerAddress::restore(&mut Decoder::new(saved.as_bytes())).unwrap();
            assert_eq!(restored.get(), address);
        }
    }
}
