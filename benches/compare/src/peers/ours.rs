//! The library through its public API.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use reactor::services::{Echo, Presence, Time};
use reactor::{Context, Core, Cores, Handler, Limits, Rate, Reactor};

use super::Service;
use crate::protocol::GREETING;

pub(super) fn serve(service: Service, port: u16) -> io::Result<()> {
    run(service, port, limits()).map_err(io::Error::other)
}

/// With an idle timeout and a rate that nobody reaches.
pub(super) fn serve_limited(service: Service, port: u16) -> io::Result<()> {
    let limits = Limits {
        idle_timeout: Some(Duration::from_secs(600)),
        rate: Rate { per_second: 100_000_000, burst: 100_000_000 }.into(),
        ..limits()
    };
    run(service, port, limits).map_err(io::Error::other)
}

/// The echo as most handlers are written: a hook and a reply for each line.
struct OnLine;

impl Handler for OnLine {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send(GREETING);
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        let mut reply = cx.writer();
        reply.put("> ");
        if !line.is_ascii()
            && let Ok(text) = str::from_utf8(line)
        {
            reply.put(text.to_uppercase());
        } else {
            reply.put_ascii_uppercase(line);
        }
        reply.put("\n");
        drop(reply);
        if line.eq_ignore_ascii_case(b"bye") {
            cx.close();
        }
    }
}

pub(super) fn serve_lines(_: Service, port: u16) -> io::Result<()> {
    listen(port, |reactor, address| Ok(reactor.listen_with(address, OnLine, limits())?.port()))
        .map_err(io::Error::other)
}

/// On two threads.
pub(super) fn serve_threaded(service: Service, port: u16) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    threaded(service, address).map_err(io::Error::other)
}

fn threaded(service: Service, address: SocketAddr) -> Result<(), reactor::Error> {
    let mut cores = Cores::new(2)?;
    let port = match service {
        Service::Echo => cores.listen_with(address, |_| Echo, limits())?.port(),
        Service::Presence => {
            let room = |core: Core<_>| Presence::default().on(&core);
            cores.listen_with(address, room, limits())?.port()
        }
        Service::Clock => {
            let time = |_| Time::new(Duration::from_secs(1), 0);
            cores.listen_with(address, time, limits())?.port()
        }
    };
    super::ready(port).expect("somebody listens");
    cores.run().map(drop)
}

fn limits() -> Limits {
    // Above the default: the clients are up to 10,100.
    Limits { max_connections: 20_000, ..Limits::default() }
}

fn run(service: Service, port: u16, limits: Limits) -> Result<(), reactor::Error> {
    listen(port, |reactor, address| {
        Ok(match service {
            Service::Echo => reactor.listen_with(address, Echo, limits)?.port(),
            Service::Presence => reactor.listen_with(address, Presence::default(), limits)?.port(),
            Service::Clock => {
                let time = Time::new(Duration::from_secs(1), 0);
                reactor.listen_with(address, time, limits)?.port()
            }
        })
    })
}

fn listen(
    port: u16,
    bind: impl FnOnce(&mut Reactor<'_>, SocketAddr) -> Result<u16, reactor::Error>,
) -> Result<(), reactor::Error> {
    let mut reactor = Reactor::new()?;
    let port = bind(&mut reactor, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    super::ready(port).expect("somebody listens");
    reactor.run().map(drop)
}
