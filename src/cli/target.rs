use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net as unix;
use std::sync::mpsc::channel;
use std::time::Duration;

use reactor::{Address, Host};

use super::failure::{Failure, start_thread};
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
    pub(crate) fn spot(&self, host: &Address) -> Spot {
        let address = match (&self.place, host) {
            (Place::At(address), _) | (Place::Port(_), address @ Address::Unix(_)) => {
                address.clone()
            }
            (Place::Port(port), Address::Host(host)) => Host::new(host.name(), *port).into(),
            (Place::Port(port), Address::Tcp(addr)) => {
                let mut addr = *addr;
                addr.set_port(*port);
                Address::Tcp(addr)
            }
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

impl Spot {
    /// Each address of a host that was looked up is one.
    pub(crate) fn each(&self) -> Vec<Spot> {
        match &self.address {
            Address::Host(host) => {
                let addresses = host.addresses().iter().copied().map(Address::Tcp);
                addresses.map(|address| Spot { address, ..*self }).collect()
            }
            _ => vec![self.clone()],
        }
    }

    /// The same with the host looked up, if it is one.
    pub(crate) fn look_up(self, within: Duration) -> Result<Spot, Failure> {
        Ok(Spot { address: look_up(&self.address, within)?, ..self })
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.tls { TLS } else { "" }, self.address)
    }
}

/// Reads where to listen without a port.
pub(crate) fn host(text: &str) -> Result<Address, String> {
    let address = if text.contains(':') { format!("[{text}]:0") } else { format!("{text}:0") };
    address.parse().map_err(|_| {
        "write an IP address or a host, as 127.0.0.1, ::1, fe80::1%eth0 or localhost".to_owned()
    })
}

/// Reads where to listen: a bare port is for this machine alone.
pub(crate) fn listener(text: &str) -> Result<Spot, String> {
    let (tls, place) = Place::parse_tls(text).map_err(|why| {
        // As after ssh -L.
        let colons = text.match_indices(':').map(|(at, _)| (&text[..at], &text[at + 1..]));
        let both = |(listen, target): &(&str, &str)| {
            Place::parse_tls(listen).is_ok() && target.contains(':') && server(target).is_ok()
        };
        match colons.into_iter().find(both) {
            Some((listen, target)) => format!("write them as two: {listen} {target}"),
            None => why,
        }
    })?;
    Ok(Spot { tls, address: place.local() })
}

/// Reads the address of a server to connect to: a bare port is on this machine, and so is a service
/// of ours.
pub(crate) fn server(text: &str) -> Result<Address, String> {
    if text.starts_with(TLS) {
        return Err("TLS is for listening only; see openssl s_client -connect".to_owned());
    }
    let address = match service::named(text) {
        Some(service) => Place::Port(service.port).local(),
        None => {
            let meant = |why| match service::nearest(text) {
                Some(name) => format!("{why}; or did you mean {name}?"),
                None => why,
            };
            Place::parse(text).map_err(meant)?.local()
        }
    };
    let port = match &address {
        Address::Tcp(addr) => addr.port(),
        Address::Host(host) => host.port(),
        Address::Unix(_) => return Ok(address),
    };
    match port {
        0 => Err("nobody can be reached at port 0".to_owned()),
        _ => Ok(address),
    }
}

/// Looks a server up, and says if it can never be connected to.
pub(crate) fn look_up_server(address: &Address, within: Duration) -> Result<Address, Failure> {
    if let Address::Unix(path) = address
        && unix::SocketAddr::from_pathname(path).is_err()
    {
        let length = path.as_os_str().len();
        return Err(Failure::Runtime(format!(
            "cannot connect to {address}: a path of {length} bytes is too long for a socket"
        )));
    }
    look_up(address, within)
}

/// Looks a host up, before there is a loop that it could hold up.
pub(crate) fn look_up(address: &Address, within: Duration) -> Result<Address, Failure> {
    let Address::Host(host) = address else { return Ok(address.clone()) };
    let (tell, told) = channel();
    let wanted = address.clone();
    // It cannot be stopped, and ends by itself or with the program.
    start_thread("lookup", move || tell.send(wanted.resolve()))?;
    let silent =
        |_| Failure::Runtime(format!("cannot look up {host}: no answer within {within:?}"));
    Ok(told.recv_timeout(within).map_err(silent)??)
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
        match text.parse() {
            Err(_) if text.is_empty() => {
                Err("the address is missing: write PORT, HOST:PORT or unix:PATH".to_owned())
            }
            // The value itself is named by whoever asks.
            Err(reactor::Error::Address { why, .. }) => Err(why),
            outcome => outcome.map(Place::At).map_err(|error: reactor::Error| error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(target.spot(&host).to_string(), address, "{text}");
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
            assert_eq!(echo.spot(&host(text).unwrap()).to_string(), address);
        }
        for text in ["", "fe80::1", "127.0.0.1:80", "http://a", "unix:/a", "80"] {
            assert!(host(text).unwrap_err().contains("127.0.0.1, ::1"), "{text}");
        }
    }

    #[test]
    fn addresses_without_a_service() {
        for (text, address) in [
            ("2323", "127.0.0.1:2323"),
            ("[::1]:80", "[::1]:80"),
            ("unix:/tmp/a", "unix:/tmp/a"),
            ("localhost:80", "localhost:80"),
            ("presence", "127.0.0.1:9907"),
        ] {
            assert_eq!(server(text).unwrap().to_string(), address);
        }
        for text in ["0", "127.0.0.1:0", "a:0", "tls:127.0.0.1:1", "host", "unix:", "65536"] {
            assert!(server(text).is_err(), "{text}");
        }
        assert_eq!(listener("0").unwrap().to_string(), "127.0.0.1:0");
    }

    #[test]
    fn the_habits_of_other_programs() {
        let said = |text: &str| listener(text).unwrap_err();
        assert_eq!(said("4207:127.0.0.1:9907"), "write them as two: 4207 127.0.0.1:9907");
        assert_eq!(said("4207:[::1]:9907"), "write them as two: 4207 [::1]:9907");
        assert_eq!(said("127.0.0.1:7:a.org:9"), "write them as two: 127.0.0.1:7 a.org:9");
        assert_eq!(server("127.0.0.1").unwrap_err(), "the port is missing: write 127.0.0.1:PORT");
        assert_eq!(server("tcp://[::1]:9/").unwrap_err(), "it is no URL: write [::1]:9");
    }

    #[test]
    fn a_host_is_looked_up_within_its_time() {
        let look_up = |text: &str| look_up(&server(text).unwrap(), Duration::from_secs(30));
        let found = look_up("localhost:7").unwrap();
        assert!(!found.as_sockets().is_empty() && found.to_string() == "localhost:7");
        assert_eq!(look_up("7").unwrap().to_string(), "127.0.0.1:7");
        let spot = Spot { tls: false, address: found.clone() };
        let each: Vec<_> = spot.each().into_iter().map(|spot| spot.address.as_socket()).collect();
        assert_eq!(each, found.as_sockets().iter().copied().map(Some).collect::<Vec<_>>());
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
