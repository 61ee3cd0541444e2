use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::{fmt, io};

use crate::error::Error;

/// A host by its name, and a port. A name may have several addresses, as `localhost` has one of
/// IPv4 and one of IPv6 on most machines.
///
/// * Connecting tries them in turn: the next one 250 ms after the one before, or as soon as one has
///   failed. The others go on meanwhile, and the first that is there is taken (RFC 8305);
///   [`connect_timeout`](crate::Limits::connect_timeout) bounds it all, looking up too.
/// * Listening binds them all, with one port where port 0 was asked for. Those that this machine
///   lacks are passed over with a warning in the log, as long as there is one that it has.
///
/// An IPv6 address with the name of its interface is one too, as `fe80::1%eth0` (RFC 4007).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    name: String,
    port: u16,
    /// None before it is looked up.
    found: Option<Arc<[SocketAddr]>>,
}

impl Host {
    /// Does not look it up yet.
    pub fn new(name: impl Into<String>, port: u16) -> Host {
        Host { name: name.into(), port, found: None }
    }

    /// With the addresses that a resolver of your own has found, in the order in which they are to
    /// be tried. It is not looked up any more.
    pub fn found_at(self, addresses: impl IntoIterator<Item = SocketAddr>) -> Host {
        Host { found: Some(addresses.into_iter().collect()), ..self }
    }

    /// Its name, without the port.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The addresses that were found for it; none before it is looked up.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.found.as_deref().unwrap_or_default()
    }

    pub(crate) fn is_known(&self) -> bool {
        self.found.is_some()
    }

    /// The same, listening at these addresses.
    pub(crate) fn bound_at(&self, addresses: Vec<SocketAddr>) -> Host {
        let port = addresses.first().map_or(self.port, SocketAddr::port);
        Host { port, ..self.clone() }.found_at(addresses)
    }

    /// Asks the system for its addresses, which blocks.
    pub(crate) fn resolve(self) -> Result<Host, Error> {
        if self.is_known() {
            return Ok(self);
        }
        match (self.name.as_str(), self.port).to_socket_addrs().map(in_turn) {
            Ok(found) if !found.is_empty() => Ok(self.found_at(found)),
            Ok(_) => Err(self.unknown(io::ErrorKind::NotFound.into())),
            Err(error) => Err(self.unknown(error)),
        }
    }

    fn unknown(&self, source: io::Error) -> Error {
        let said = source.to_string();
        let why = match self.name.split_once('%') {
            Some((_, zone)) => format!("this machine has no interface {zone}; see ip link"),
            // What precedes it says the same as we do.
            None => said.rsplit(": ").next().unwrap_or(&said).to_owned(),
        };
        Error::Lookup { host: self.to_string(), why, source }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            ip if ip.contains(':') => write!(f, "[{ip}]:{}", self.port),
            name => write!(f, "{name}:{}", self.port),
        }
    }
}

/// The families by turns, beginning with the system's first choice, and each address once: one
/// that lacks a whole family need not try all of that first.
fn in_turn(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut each: Vec<(usize, SocketAddr)> = Vec::new();
    for addr in found {
        if !each.iter().any(|(_, known)| *known == addr) {
            let turn = each.iter().filter(|(_, known)| known.is_ipv4() == addr.is_ipv4()).count();
            each.push((turn, addr));
        }
    }
    each.sort_by_key(|(turn, _)| *turn);
    each.into_iter().map(|(_, addr)| addr).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_nothing_comes_twice() {
        let found = ["[::1]:7", "[::2]:7", "[::1]:7", "[::3]:7", "1.1.1.1:7", "1.1.1.2:7"];
        let turns = in_turn(found.iter().map(|text| text.parse().unwrap()));
        let turns: Vec<_> = turns.iter().map(SocketAddr::to_string).collect();
        assert_eq!(turns, ["[::1]:7", "1.1.1.1:7", "[::2]:7", "1.1.1.2:7", "[::3]:7"]);
    }
}
