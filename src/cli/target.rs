//! An argument of `serve`: `SERVICE[=ADDR]`.

use reactor::{Address, Host};

use super::address::{Endpoint, PortOrAddress};
use super::service::{self, Service};

/// A service and where it listens.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) service: &'static Service,
    pub(crate) tls: bool,
    place: PortOrAddress,
}

impl Target {
    /// The service at its default port.
    pub(crate) fn usual(service: &'static Service) -> Target {
        Target { service, tls: false, place: PortOrAddress::Port(service.port) }
    }

    /// Reads `SERVICE[=ADDR]`.
    pub(crate) fn parse(text: &str) -> Result<Target, String> {
        let (name, place) = match text.split_once('=') {
            Some((name, place)) => (name, Some(place)),
            None => (text, None),
        };
        let service = service::named(name).ok_or_else(|| service::unknown(text))?;
        let usual = (false, PortOrAddress::Port(service.port));
        let (tls, place) = place.map_or(Ok(usual), PortOrAddress::parse_tls)?;
        Ok(Target { service, tls, place })
    }

    /// Whether it listens on `--host`.
    pub(crate) fn goes_by_host(&self) -> bool {
        matches!(self.place, PortOrAddress::Port(_))
    }

    /// Where it is to listen.
    pub(crate) fn endpoint(&self, host: &Address) -> Endpoint {
        let address = match (&self.place, host) {
            (PortOrAddress::At(address), _)
            | (PortOrAddress::Port(_), address @ Address::Unix(_)) => address.clone(),
            (PortOrAddress::Port(port), Address::Host(host)) => {
                Host::new(host.name(), *port).into()
            }
            (PortOrAddress::Port(port), Address::Tcp(addr)) => {
                let mut addr = *addr;
                addr.set_port(*port);
                Address::Tcp(addr)
            }
        };
        Endpoint { tls: self.tls, address }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::address::host;

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
            let host = host("127.0.0.1").unwrap();
            assert_eq!(target.endpoint(&host).to_string(), address, "{text}");
        }
    }

    #[test]
    fn a_port_goes_to_the_host() {
        let echo = Target::parse("echo").unwrap();
        for (text, address) in [
            ("::", "[::]:2323"),
            ("localhost", "localhost:2323"),
            ("fe80::1%2", "[fe80::1%2]:2323"),
            ("fe80::1%eth0", "[fe80::1%eth0]:2323"),
        ] {
            assert_eq!(echo.endpoint(&host(text).unwrap()).to_string(), address);
        }
        for text in ["", "fe80::1", "127.0.0.1:80", "http://a", "unix:/a", "80"] {
            assert!(host(text).unwrap_err().contains("127.0.0.1, ::1"), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, words) in [
            ("", "unknown service; the services are echo, time, presence"),
            ("echo=", "the address is missing: write PORT"),
            ("echo=localhost", "write localhost:PORT"),
            ("echo=/tmp/socket", "unix:/tmp/socket"),
            ("echo=65536", "from 0 to 65535"),
            ("echo=-1", "write HOST:PORT"),
            ("echo=localhost:x", "from 0 to 65535"),
            ("echo=unix:", "path"),
        ] {
            let error = Target::parse(text).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
