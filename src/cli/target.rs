use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use reactor::Address;

use super::service::{self, Service};

/// One argument of `serve`: a service and where it listens.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) service: &'static Service,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A port on `--host`.
    Port(u16),
    At(Address),
}

impl Target {
    /// The service at its default port.
    pub(crate) fn usual(service: &'static Service) -> Target {
        Target { service, place: Place::Port(service.port) }
    }

    /// Reads `SERVICE[=ADDR]`.
    pub(crate) fn parse(text: &str) -> Result<Target, String> {
        let (name, place) = match text.split_once('=') {
            Some((name, place)) => (name, Some(place)),
            None => (text, None),
        };
        let service = service::named(name).ok_or_else(|| {
            format!("unknown service {name:?}: the services are {}", service::names())
        })?;
        let place = place.map_or(Ok(Place::Port(service.port)), Place::parse)?;
        Ok(Target { service, place })
    }

    pub(crate) fn address(&self, host: IpAddr) -> Address {
        match &self.place {
            Place::Port(port) => Address::Tcp(SocketAddr::new(host, *port)),
            Place::At(address) => address.clone(),
        }
    }
}

/// Reads an address to listen on: a bare port is for this machine alone.
pub(crate) fn listener(text: &str) -> Result<Address, String> {
    Ok(match Place::parse(text)? {
        Place::Port(port) => Address::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        Place::At(address) => address,
    })
}

/// Reads the address of a server to connect to: a bare port is on this machine.
pub(crate) fn server(text: &str) -> Result<Address, String> {
    let address = listener(text)?;
    match address.as_socket() {
        Some(addr) if addr.port() == 0 => Err("nobody can be reached at port 0".to_owned()),
        _ => Ok(address),
    }
}

impl Place {
    fn parse(text: &str) -> Result<Place, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let port = text.parse().map(Place::Port);
            return port.map_err(|_| "the port must be a number from 0 to 65535".to_owned());
        }
        if !text.contains(':') {
            return Err(format!(
                "bad address {text:?}: write PORT, HOST:PORT, [IPV6]:PORT or unix:PATH"
            ));
        }
        text.parse().map(Place::At).map_err(|error: reactor::Error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn every_form_of_an_address() {
        for (text, name, address) in [
            ("echo", "echo", "127.0.0.1:2323"),
            ("time", "time", "127.0.0.1:2205"),
            ("presence", "presence", "127.0.0.1:9907"),
            ("echo=0", "echo", "127.0.0.1:0"),
            ("echo=65535", "echo", "127.0.0.1:65535"),
            ("time=0.0.0.0:80", "time", "0.0.0.0:80"),
            ("time=[::1]:80", "time", "[::1]:80"),
            ("presence=unix:/tmp/a=b:c", "presence", "unix:/tmp/a=b:c"),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!(target.service.name, name, "{text}");
            assert_eq!(target.address(HOST).to_string(), address, "{text}");
        }
    }

    #[test]
    fn addresses_without_a_service() {
        for (text, address) in
            [("2323", "127.0.0.1:2323"), ("[::1]:80", "[::1]:80"), ("unix:/tmp/a", "unix:/tmp/a")]
        {
            assert_eq!(server(text).unwrap().to_string(), address);
        }
        for text in ["0", "127.0.0.1:0", "host", "unix:", "65536"] {
            assert!(server(text).is_err(), "{text}");
        }
        assert_eq!(listener("0").unwrap().to_string(), "127.0.0.1:0");
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, words) in [
            ("", "unknown service \"\": the services are echo, time, presence"),
            ("Echo", "unknown service"),
            ("2323", "unknown service"),
            ("echo=", "bad address \"\": write PORT"),
            ("echo=localhost", "write PORT, HOST:PORT"),
            ("echo=/tmp/socket", "unix:PATH"),
            ("echo=65536", "from 0 to 65535"),
            ("echo=-1", "write PORT"),
            ("echo=localhost:x", "from 0 to 65535"),
            ("echo=unix:", "path"),
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
