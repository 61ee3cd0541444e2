//! The library through its public API.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use reactor::services::{Echo, Presence, Time};
use reactor::{Limits, Rate, Reactor};

use super::Service;

pub(super) fn serve(service: Service, port: u16) -> io::Result<()> {
    run(service, port, limits()).map_err(io::Error::other)
}

/// With an idle timeout and a rate that nobody reaches.
pub(super) fn serve_limited(service: Service, port: u16) -> io::Result<()> {
    let limits = Limits {
        idle_timeout: Some(Duration::from_secs(600)),
        rate: Some(Rate { per_second: 100_000_000, burst: 100_000_000 }),
        ..limits()
    };
    run(service, port, limits).map_err(io::Error::other)
}

fn limits() -> Limits {
    // Above the default: the clients are up to 10,100.
    Limits { max_connections: 20_000, ..Limits::default() }
}

fn run(service: Service, port: u16, limits: Limits) -> Result<(), reactor::Error> {
    let mut reactor = Reactor::new()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let port = match service {
        Service::Echo => reactor.listen_with(address, Echo, limits)?.port(),
        Service::Presence => reactor.listen_with(address, Presence::default(), limits)?.port(),
        Service::Clock => {
            let time = Time::new(Duration::from_secs(1), 0);
            reactor.listen_with(address, time, limits)?.port()
        }
    };
    super::ready(port).expect("somebody listens");
    reactor.run().map(drop)
}
