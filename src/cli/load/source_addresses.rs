//! Which local address each client connects from.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use reactor::Address;

/// On Linux, all of 127.0.0.0/8 is this machine. So many addresses are enough for 7 million
/// connections.
const MOST: u8 = 254;
/// Linux's own default, 32768 to 60999.
const USUAL_PORTS: u32 = 28_232;

/// An address has a limited number of ports for one target, but a server on the same machine can
/// be reached from many addresses. As long as the ports of the usual one suffice, no other is used.
#[derive(Debug)]
pub(crate) struct SourceAddresses {
    /// How many addresses there are.
    all: u8,
    /// How many of them are used by turns.
    window: u8,
    /// The first one of those.
    first: u8,
    turn: u8,
    /// How many in a row were found to have no port left.
    used_up: u8,
}

impl SourceAddresses {
    pub(crate) fn new(target: &Address, clients: u32) -> SourceAddresses {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let ports = range.ok().and_then(|text| ports(&text)).unwrap_or(USUAL_PORTS);
        SourceAddresses::with_ports(target, clients, ports)
    }

    fn with_ports(target: &Address, clients: u32, ports: u32) -> SourceAddresses {
        let loopback = |addr: &SocketAddr| addr.is_ipv4() && addr.ip().is_loopback();
        let loopback = target.as_sockets().iter().any(loopback);
        let all = if loopback { MOST } else { 1 };
        // Others use ports too.
        let window = clients.div_ceil((ports - ports / 8).max(1)).min(u32::from(all)) as u8;
        SourceAddresses { all, window: window.max(1), first: 0, turn: 0, used_up: 0 }
    }

    /// The next address and its number. There is none where the system chooses.
    pub(crate) fn next(&mut self) -> (u8, Option<IpAddr>) {
        self.turn = (self.turn + 1) % self.window;
        let number = ((u16::from(self.first) + u16::from(self.turn)) % u16::from(self.all)) as u8;
        let address = Ipv4Addr::new(127, 0, 0, number + 1);
        (number, (number > 0).then_some(address.into()))
    }

    /// An address has no port left. Returns whether another one may have some.
    pub(crate) fn used_up(&mut self, number: u8) -> bool {
        if number == self.first {
            self.used_up = self.used_up.saturating_add(1);
            self.first = (self.first + 1) % self.all;
        }
        self.used_up < self.all
    }

    /// A connection was made, so the other addresses may have ports again later.
    pub(crate) fn worked(&mut self) {
        self.used_up = 0;
    }
}

/// How many ports `32768 60999` are.
fn ports(range: &str) -> Option<u32> {
    let mut ends = range.split_whitespace().map(str::parse::<u16>);
    let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
    last.checked_sub(first).map(|between| u32::from(between) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Address {
        "127.0.0.1:80".parse().unwrap()
    }

    fn ip(last: u8) -> Option<IpAddr> {
        Some(Ipv4Addr::new(127, 0, 0, last).into())
    }

    #[test]
    fn the_ports_of_a_range() {
        assert_eq!(ports("32768\t60999\n"), Some(28_232));
        assert_eq!(ports("0 65535"), Some(65_536));
        assert_eq!([ports("9 8"), ports("0 4294967295")], [None, None]);
        assert_eq!(ports(""), None);
    }

    #[test]
    fn one_is_enough_as_long_as_it_has_ports() {
        let mut sources = SourceAddresses::with_ports(&local(), 20_000, 28_232);
        assert_eq!(sources.next(), (0, None));
        assert_eq!(sources.next(), (0, None));
        assert!(sources.used_up(0));
        // Told twice of the same one.
        assert!(sources.used_up(0));
        assert_eq!(sources.next(), (1, ip(2)));
    }

    #[test]
    fn many_clients_take_turns() {
        let mut sources = SourceAddresses::with_ports(&local(), 60_000, 28_232);
        let numbers: Vec<_> = (0..6).map(|_| sources.next().0).collect();
        assert_eq!(numbers, [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn elsewhere_there_is_but_one() {
        for target in ["10.0.0.1:80", "[::1]:80", "unix:/tmp/a"] {
            let mut sources = SourceAddresses::with_ports(&target.parse().unwrap(), 60_000, 28_232);
            assert_eq!(sources.next(), (0, None), "{target}");
            assert!(!sources.used_up(0), "{target}");
        }
    }

    #[test]
    fn it_gives_up_once_all_are_used_up_and_starts_over_if_one_is_not() {
        let mut sources = SourceAddresses::with_ports(&local(), 10, 10);
        let mut tries = 0;
        while sources.used_up(sources.first) {
            tries += 1;
        }
        assert_eq!(tries, 253);
        sources.worked();
        assert!(sources.used_up(sources.first));
    }
}
