//! Where services are announced: the multicast group, and the interface to reach it at.

use std::net::{Ipv4Addr, SocketAddr};

use reactor::DatagramOptions;
use reactor::services::Announcer;

/// Reads a multicast group and its port.
pub(crate) fn group(text: &str) -> Result<SocketAddr, String> {
    match text.parse() {
        Ok(SocketAddr::V4(group)) if group.ip().is_multicast() && group.port() > 0 => {
            Ok(group.into())
        }
        _ => Err(format!("write an IPv4 multicast address and a port, as {}", Announcer::GROUP)),
    }
}

/// Reads the address of an interface.
pub(crate) fn interface(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| "write the interface's IPv4 address, as 127.0.0.1".to_owned())
}

/// Multicast at this interface.
pub(crate) fn at(interface: Ipv4Addr) -> DatagramOptions {
    DatagramOptions { interface: Some(interface), ..DatagramOptions::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups() {
        assert_eq!(group("239.255.23.23:9908"), Ok(Announcer::GROUP));
        for text in ["", "239.255.23.23", "239.255.23.23:0", "127.0.0.1:9908", "[ff02::1]:9908"] {
            assert!(group(text).unwrap_err().contains("as 239.255.23.23:9908"), "{text}");
        }
    }
}
