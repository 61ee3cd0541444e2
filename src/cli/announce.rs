//! `serve --announce`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use reactor::services::Announcer;
use reactor::{Address, Reactor, Service};

use super::address::Endpoint;
use super::failure::Failure;
use super::multicast::{at, group, interface};

/// The options of `serve` about announcements.
#[derive(Debug, clap::Args)]
pub(crate) struct Announce {
    /// Announce the services by multicast, for `reactor discover`: every second, and at once when
    /// somebody asks.
    ///
    /// Announcements do not leave the local network (their TTL is 1), nor this machine with the
    /// default --host. Services on Unix sockets are not announced, nor services on loopback to
    /// another interface, nor services behind TLS or a proxy, for which the announcements have no
    /// word.
    #[arg(long)]
    announce: bool,

    /// The multicast group to announce to, IPv4.
    #[arg(long, value_name = "GROUP:PORT", default_value_t = Announcer::GROUP)]
    #[arg(value_parser = group, requires = "announce")]
    announce_group: SocketAddr,

    /// The interface to announce at, by its IPv4 address; 127.0.0.1 for this machine alone,
    /// 0.0.0.0 for the one that the system's routes lead to [default: --host].
    #[arg(long, value_name = "IP", value_parser = interface, requires = "announce")]
    announce_interface: Option<Ipv4Addr>,
}

impl Announce {
    /// Whether the interface follows from `--host`.
    pub(crate) fn goes_by_host(&self) -> bool {
        self.announce && self.announce_interface.is_none()
    }

    /// Begins to announce the services that can be reached, if that was asked for; gives what announces
    /// them.
    pub(crate) fn start(
        &self,
        host: &Address,
        services: &[(&'static str, Endpoint)],
        reactor: &mut Reactor<'_>,
    ) -> Result<Option<Service<()>>, Failure> {
        if !self.announce {
            return Ok(None);
        }
        let interface = self.announce_interface.unwrap_or_else(|| interface_of(host));
        let reachable = |endpoint: &Endpoint| {
            let address = endpoint.address.as_socket().filter(|_| endpoint.layers.is_empty())?;
            (interface.is_loopback() || !address.ip().is_loopback()).then_some(address)
        };
        let found = services.iter().filter_map(|(name, at)| Some((*name, reachable(at)?)));
        let announced: Vec<_> = found.collect();
        if announced.is_empty() {
            return Err(Failure::Usage(format!(
                "--announce: none of the services could be reached without TLS, a proxy or WebSocket from \
                 {interface}; see --host"
            )));
        }
        let announcer = Announcer::new(announced);
        let service = reactor.datagrams_with(self.announce_group, announcer, at(interface))?;
        reactor.set_name(&service, "announce");
        // Not earlier: a failure must be one line, and alone.
        log::info!("announcing to {} at {interface}", self.announce_group);
        for (name, endpoint) in services.iter().filter(|(_, at)| reachable(at).is_none()) {
            log::warn!(
                "not announced, since nobody at {interface} could reach it without TLS, a proxy or WebSocket: \
                 {name} {endpoint}"
            );
        }
        Ok(Some(service))
    }
}

/// The interface at which a service on this host can be reached.
fn interface_of(host: &Address) -> Ipv4Addr {
    let interface = |addr: &SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let addresses = host.as_sockets();
    let first = addresses.iter().find(|addr| addr.is_ipv4()).or(addresses.first());
    first.map_or(Ipv4Addr::UNSPECIFIED, interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_follows_the_host() {
        for (host, interface) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("0.0.0.0:0", "0.0.0.0"),
            ("10.0.0.7:0", "10.0.0.7"),
            ("[::1]:0", "127.0.0.1"),
            ("[::]:0", "0.0.0.0"),
        ] {
            assert_eq!(interface_of(&host.parse().unwrap()).to_string(), interface);
        }
    }
}
