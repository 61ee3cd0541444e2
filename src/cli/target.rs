use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use reactor::Address;

use super::service::{self, Service};

/// In front of an address to listen on.
const TLS: &str = "tls:";

/// One argument of `serve`: a service and where it listens.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) service: &'static Service,
    pub(crate) tls: bool,
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
        Target { service, tls: false, place: Place::Port(service.port) }
    }

    /// Reads `SERVICE[=ADDR]`.
    pub(crate) fn parse(text: &str) -> Result<Target, String> {
        let (name, place) = match text.split_once('=') {
            Some((name, place)) => (name, Some(place)),
            None => (text, None),
        };
        let service = service::named(name).ok_or_else(|| service::unknown(text))?;
        let usual = (false, Place::Port(service.port));
        let (tls, place) = place.map_or(Ok(usual), Place::parse_tls)?;
        Ok(Target { service, tls, place })
    }

    /// Whether it listens on `--host`.
    pub(crate) fn goes_by_host(&self) -> bool {
        matches!(self.place, Place::Port(_))
    }

    /// Where it is to listen.
    pub(crate) fn spot(&self, host: IpAddr) -> Spot {
        let address = match &self.place {
            Place::Port(port) => Address::Tcp(SocketAddr::new(host, *port)),
            Place::At(address) => address.clone(),
        };
        Spot { tls: self.tls, address }
    }
}

/// Where to listen and whether with TLS, written `tls:ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) tls: bool,
    pub(crate) address: Address,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.tls { TLS } else { "" }, self.address)
    }
}

/// Reads where to listen: a bare port is for this machine alone.
pub(crate) fn listener(text: &str) -> Result<Spot, String> {
    let (tls, place) = Place::parse_tls(text)?;
    Ok(Spot { tls, address: place.local() })
}

/// Reads the address of a server to connect to: a bare port is on this machine.
pub(crate) fn server(text: &str) -> Result<Address, String> {
    if text.starts_with(TLS) {
        return Err("TLS is for listening only; see openssl s_client -connect".to_owned());
    }
    let address = Place::parse(text)?.local();
    match address.as_socket() {
        Some(addr) if addr.port() == 0 => Err("nobody can be reached at port 0".to_owned()),
        _ => Ok(address),
    }
}

impl Place {
    /// Reads one that may begin with `tls:`.
    fn parse_tls(text: &str) -> Result<(bool, Place), String> {
        match text.strip_prefix(TLS) {
            Some(_) if !cfg!(feature = "tls") => {
                Err("this program was built without TLS: build it with --features tls".to_owned())
            }
            Some(rest) => Ok((true, Place::parse(rest)?)),
            None => Ok((false, Place::parse(text)?)),
        }
    }

    /// A bare port is on this machine.
    fn local(self) -> Address {
        match self {
            Place::Port(port) => Address::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
            Place::At(address) => address,
        }
    }

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
            #[cfg(feature = "tls")]
            ("echo=tls:2323", "echo", "tls:127.0.0.1:2323"),
            #[cfg(feature = "tls")]
            ("echo=tls:[::1]:0", "echo", "tls:[::1]:0"),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!(target.service.name, name, "{text}");
            assert_eq!(target.spot(HOST).to_string(), address, "{text}");
        }
    }

    #[test]
    fn addresses_without_a_service() {
        for (text, address) in
            [("2323", "127.0.0.1:2323"), ("[::1]:80", "[::1]:80"), ("unix:/tmp/a", "unix:/tmp/a")]
        {
            assert_eq!(server(text).unwrap().to_string(), address);
        }
        for text in ["0", "127.0.0.1:0", "tls:127.0.0.1:1", "host", "unix:", "65536"] {
            assert!(server(text).is_err(), "{text}");
        }
        assert_eq!(listener("0").unwrap().to_string(), "127.0.0.1:0");
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, words) in [
            ("", "unknown service; the services are echo, time, presence"),
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
