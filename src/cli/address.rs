//! Addresses as they are written on the command line.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net as unix;
use std::sync::mpsc::channel;
use std::time::Duration;

use reactor::Address;

use super::failure::{Failure, start_thread};
use super::service;

/// Stands in front of an address to listen on with TLS.
const TLS: &str = "tls:";

/// How long the lookup of a host to listen on may take.
pub(crate) const LISTENER_LOOKUP: Duration = Duration::from_secs(10);

/// An address as it is written, if need be without a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortOrAddress {
    /// On `--host`, or on this machine.
    Port(u16),
    At(Address),
}

/// Where to listen and whether with TLS, written `tls:ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) tls: bool,
    pub(crate) address: Address,
}

impl Endpoint {
    /// The endpoints of a host that was looked up: one for each of its addresses.
    pub(crate) fn each(&self) -> Vec<Endpoint> {
        match &self.address {
            Address::Host(host) => {
                let addresses = host.addresses().iter().copied().map(Address::Tcp);
                addresses.map(|address| Endpoint { address, ..*self }).collect()
            }
            _ => vec![self.clone()],
        }
    }

    /// The same, with the host looked up if there is one.
    pub(crate) fn look_up(self, within: Duration) -> Result<Endpoint, Failure> {
        Ok(Endpoint { address: look_up(&self.address, within)?, ..self })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.tls { TLS } else { "" }, self.address)
    }
}

/// Reads a host to listen on, without a port.
pub(crate) fn host(text: &str) -> Result<Address, String> {
    let address = if text.contains(':') { format!("[{text}]:0") } else { format!("{text}:0") };
    address.parse().map_err(|_| {
        "write an IP address or a host, as 127.0.0.1, ::1, fe80::1%eth0 or localhost".to_owned()
    })
}

/// Reads where to listen. A bare port is on 127.0.0.1.
pub(crate) fn listener(text: &str) -> Result<Endpoint, String> {
    let (tls, place) = PortOrAddress::parse_tls(text).map_err(|why| {
        // As `ssh -L` takes them.
        let colons = text.match_indices(':').map(|(at, _)| (&text[..at], &text[at + 1..]));
        let both = |(listen, target): &(&str, &str)| {
            PortOrAddress::parse_tls(listen).is_ok()
                && target.contains(':')
                && server(target).is_ok()
        };
        match colons.into_iter().find(both) {
            Some((listen, target)) => format!("write them as two: {listen} {target}"),
            None => why,
        }
    })?;
    Ok(Endpoint { tls, address: place.local() })
}

/// Reads the address of a server to connect to. A bare port is on 127.0.0.1, and so is the default
/// port of a service, for which its name stands.
pub(crate) fn server(text: &str) -> Result<Address, String> {
    if text.starts_with(TLS) {
        return Err("TLS is for listening only; see openssl s_client -connect".to_owned());
    }
    let address = match service::named(text) {
        Some(service) => PortOrAddress::Port(service.port).local(),
        None => {
            let meant = |why| match service::nearest(text) {
                Some(name) => format!("{why}; or did you mean {name}?"),
                None => why,
            };
            PortOrAddress::parse(text).map_err(meant)?.local()
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

/// Looks a server up, and refuses a path that no socket can have.
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

/// Looks a host up, before there is a loop that it could block.
pub(crate) fn look_up(address: &Address, within: Duration) -> Result<Address, Failure> {
    let Address::Host(host) = address else { return Ok(address.clone()) };
    let (tell, told) = channel();
    let wanted = address.clone();
    // A lookup cannot be stopped; it ends by itself or with the program.
    start_thread("lookup", move || tell.send(wanted.resolve()))?;
    let silent =
        |_| Failure::Runtime(format!("cannot look up {host}: no answer within {within:?}"));
    Ok(told.recv_timeout(within).map_err(silent)??)
}

impl PortOrAddress {
    /// Reads one that may begin with `tls:`.
    pub(crate) fn parse_tls(text: &str) -> Result<(bool, PortOrAddress), String> {
        match text.strip_prefix(TLS) {
            Some(_) if !cfg!(feature = "tls") => {
                Err("this program was built without TLS: build it with --features tls".to_owned())
            }
            Some(rest) => Ok((true, PortOrAddress::parse(rest)?)),
            None => Ok((false, PortOrAddress::parse(text)?)),
        }
    }

    /// A bare port is on this machine.
    fn local(self) -> Address {
        match self {
            PortOrAddress::Port(port) => {
                Address::Tcp(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
            }
            PortOrAddress::At(address) => address,
        }
    }

    fn parse(text: &str) -> Result<PortOrAddress, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let port = text.parse().map(PortOrAddress::Port);
            return port.map_err(|_| "the port must be a number from 0 to 65535".to_owned());
        }
        match text.parse() {
            Err(_) if text.is_empty() => {
                Err("the address is missing: write PORT, HOST:PORT or unix:PATH".to_owned())
            }
            // The caller names the value.
            Err(reactor::Error::Address { why, .. }) => Err(why),
            outcome => {
                outcome.map(PortOrAddress::At).map_err(|error: reactor::Error| error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let endpoint = Endpoint { tls: false, address: found.clone() };
        let each: Vec<_> =
            endpoint.each().into_iter().map(|endpoint| endpoint.address.as_socket()).collect();
        assert_eq!(each, found.as_sockets().iter().copied().map(Some).collect::<Vec<_>>());
    }
}
