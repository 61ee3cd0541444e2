//! The library through its public API.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use reactor::services::{Echo, Presence, Time};
use reactor::{Limits, Reactor};

use super::Service;

pub(super) fn serve(service: Service, port: u16) -> io::Result<()> {
    run(service, port).map_err(io::Error::other)
}

fn run(service: Service, port: u16) -> Result<(), reactor::Error> {
    let mut reactor = Reactor::new()?;
    // Above the default: the clients are up to 10,100.
    let limits = Limits { max_connections: 20_000, ..Limits::default() };
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
