//! Addresses as they are written on the command line.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net as unix;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use reactor::{Address, Connect, Host, WebSocket};

use super::failure::{Failure, start_thread};
use super::service;
use super::systemd::{Inherited, Socket};

/// How long the lookup of a host to listen on may take.
pub(crate) const LISTENER_LOOKUP: Duration = Duration::from_secs(10);

/// Where a service listens for this machine alone.
pub(crate) const LOCALHOST: Address =
    Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));

/// The prefix of the name of a socket that systemd has opened.
const SYSTEMD: &str = "systemd:";

/// An address as it is written, if need be without a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortOrAddress {
    /// On `--host`, or on this machine.
    Port(u16),
    At(Address),
}

/// Where to listen, as it is written: `[LAYER:]...ADDR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) layers: Layers,
    at: At,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Open(PortOrAddress),
    /// At the sockets of this name that systemd has opened.
    Systemd(String),
}

/// What goes below the lines of a connection; in the order of the bytes on the wire, from the
/// outside in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    /// A PROXY header comes first.
    Proxy,
    Tls,
    WebSocket,
}

impl Layer {
    const ALL: [Layer; 3] = [Layer::Proxy, Layer::Tls, Layer::WebSocket];

    /// What stands for it in front of an address.
    fn prefix(self) -> &'static str {
        match self {
            Layer::Proxy => "proxy:",
            Layer::Tls => "tls:",
            Layer::WebSocket => "ws:",
        }
    }
}

/// The layers of an address, each once at the most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layers([bool; Layer::ALL.len()]);

impl Layers {
    pub(crate) fn has(self, layer: Layer) -> bool {
        self.0[layer as usize]
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Layers::default()
    }

    /// Reads those in front of an address, and gives what is behind them. A host of such a name is
    /// written with a dot at its end.
    pub(crate) fn parse(text: &str) -> Result<(Layers, &str), String> {
        if let Some(why) = url_of_web_socket(text) {
            return Err(why);
        }
        let (mut layers, mut rest, mut last) = (Layers::default(), text, None);
        let mut in_order = true;
        let first = |rest: &str| Layer::ALL.into_iter().find(|it| rest.starts_with(it.prefix()));
        while let Some(layer) = first(rest) {
            in_order &= last < Some(layer);
            last = Some(layer);
            layers.0[layer as usize] = true;
            rest = &rest[layer.prefix().len()..];
        }
        if !in_order {
            return Err(format!(
                "layers stand in the order of the bytes on the wire: write {layers}{rest}"
            ));
        }
        if layers.has(Layer::Tls) && !cfg!(feature = "tls") {
            let why = "this program was built without TLS: build it with --features tls";
            return Err(why.to_owned());
        }
        Ok((layers, rest))
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let there = Layer::ALL.into_iter().filter(|layer| self.has(*layer));
        there.map(Layer::prefix).try_for_each(|prefix| f.write_str(prefix))
    }
}

/// What to write instead of a URL as browsers take it; none if it is no such URL.
fn url_of_web_socket(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let layers = match scheme {
        "ws" => "ws:",
        "wss" => "tls:ws:",
        _ => return None,
    };
    let place = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let place = if PortOrAddress::parse_bare(place).is_ok() { place } else { "HOST:PORT" };
    Some(format!("it is no URL: write {layers}{place}"))
}

/// Where to listen or to connect to, and under which layers: `[LAYER:]...ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) layers: Layers,
    pub(crate) address: Address,
    /// The sockets that listen there already.
    pub(crate) socket: Option<Arc<Socket>>,
}

impl Endpoint {
    pub(crate) fn new(layers: Layers, address: Address) -> Endpoint {
        Endpoint { layers, address, socket: None }
    }

    /// How many descriptors it takes to listen there.
    pub(crate) fn descriptors(&self) -> usize {
        match self.socket {
            // The descriptor that systemd has passed stays open too.
            Some(_) => 2,
            None => self.each().len(),
        }
    }

    /// The endpoints of a host that was looked up: one for each of its addresses.
    pub(crate) fn each(&self) -> Vec<Endpoint> {
        match &self.address {
            Address::Host(host) => {
                let addresses = host.addresses().iter().copied().map(Address::Tcp);
                addresses.map(|address| Endpoint::new(self.layers, address)).collect()
            }
            _ => vec![self.clone()],
        }
    }

    /// The same, with the host looked up if there is one.
    pub(crate) fn look_up(self, within: Duration) -> Result<Endpoint, Failure> {
        Ok(Endpoint { address: look_up(&self.address, within)?, ..self })
    }

    /// How to connect there, in our own name and without TLS.
    pub(crate) fn plainly(&self) -> Connect {
        let mut connect = Connect::from(self.address.clone());
        if self.layers.has(Layer::Proxy) {
            connect = connect.proxy();
        }
        if self.layers.has(Layer::WebSocket) {
            connect = connect.web_socket(&WebSocket::new());
        }
        connect
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.layers, self.address)
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
pub(crate) fn listener(text: &str) -> Result<Place, String> {
    Place::parse(text).map_err(|why| {
        // As `ssh -L` takes them.
        let colons = text.match_indices(':').map(|(at, _)| (&text[..at], &text[at + 1..]));
        let both = |(listen, target): &(&str, &str)| {
            Place::parse(listen).is_ok() && target.contains(':') && server(target).is_ok()
        };
        match colons.into_iter().find(both) {
            Some((listen, target)) => format!("write them as two: {listen} {target}"),
            None => why,
        }
    })
}

/// Reads the address of a server to connect to. A bare port is on 127.0.0.1, and so is the default
/// port of a service, for which its name stands.
pub(crate) fn server(text: &str) -> Result<Endpoint, String> {
    let (layers, text) = Layers::parse(text)?;
    let address = match service::named(text) {
        Some(service) => PortOrAddress::Port(service.port).local(),
        None => {
            let meant = |why| match service::nearest(text) {
                Some(name) => format!("{why}; or did you mean {name}?"),
                None => why,
            };
            PortOrAddress::parse_bare(text).map_err(meant)?.local()
        }
    };
    let port = match &address {
        Address::Tcp(addr) => Some(addr.port()),
        Address::Host(host) => Some(host.port()),
        Address::Unix(_) => None,
    };
    match port {
        Some(0) => Err("nobody can be reached at port 0".to_owned()),
        _ => Ok(Endpoint::new(layers, address)),
    }
}

/// Looks a server up, and refuses a path that no socket can have.
pub(crate) fn look_up_server(server: &Endpoint, within: Duration) -> Result<Endpoint, Failure> {
    if let Address::Unix(path) = &server.address
        && unix::SocketAddr::from_pathname(path).is_err()
    {
        let length = path.as_os_str().len();
        return Err(Failure::Runtime(format!(
            "cannot connect to {server}: a path of {length} bytes is too long for a socket"
        )));
    }
    server.clone().look_up(within)
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

impl fmt::Display for PortOrAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortOrAddress::Port(port) => port.fmt(f),
            PortOrAddress::At(address) => address.fmt(f),
        }
    }
}

impl Place {
    /// At this port of the host.
    pub(crate) fn port(port: u16) -> Place {
        Place { layers: Layers::default(), at: At::Open(PortOrAddress::Port(port)) }
    }

    /// Reads one. What systemd has opened is not looked for yet.
    pub(crate) fn parse(text: &str) -> Result<Place, String> {
        let (layers, rest) = Layers::parse(text)?;
        let Some(name) = rest.strip_prefix(SYSTEMD) else {
            return Ok(Place { layers, at: At::Open(PortOrAddress::parse_bare(rest)?) });
        };
        match name {
            "" => {
                Err("the name is missing: write systemd:NAME, as FileDescriptorName= has it".into())
            }
            _ if name.contains(':') => Err(format!(
                "no descriptor has a name with a colon: write systemd:NAME, or systemd.:{name} for a \
                 host called so"
            )),
            _ => Ok(Place { layers, at: At::Systemd(name.to_owned()) }),
        }
    }

    /// Whether the file of a Unix socket is made there.
    pub(crate) fn makes_file(&self) -> bool {
        matches!(self.at, At::Open(PortOrAddress::At(Address::Unix(_))))
    }

    /// Whether it may be a Unix socket, as any socket of systemd may.
    pub(crate) fn may_be_unix(&self) -> bool {
        self.makes_file() || matches!(self.at, At::Systemd(_))
    }

    pub(crate) fn may_be_tcp(&self) -> bool {
        !self.makes_file()
    }

    /// Whether the clients there may have addresses that can be judged.
    pub(crate) fn may_know_clients(&self) -> bool {
        self.may_be_tcp() || self.layers.has(Layer::Proxy)
    }

    /// Whether it is at a port of the host.
    pub(crate) fn goes_by_host(&self) -> bool {
        matches!(self.at, At::Open(PortOrAddress::Port(_)))
    }

    /// Where it is: at one address, or at all the sockets of the name.
    pub(crate) fn endpoints(
        &self,
        host: &Address,
        inherited: &Inherited,
    ) -> Result<Vec<Endpoint>, Failure> {
        let layers = self.layers;
        let opened = |socket: Arc<Socket>| Endpoint {
            layers,
            address: socket.address.clone(),
            socket: Some(socket),
        };
        match &self.at {
            At::Open(place) => Ok(vec![Endpoint::new(layers, place.on(host))]),
            At::Systemd(name) => Ok(inherited.named(name)?.into_iter().map(opened).collect()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layers.fmt(f)?;
        match &self.at {
            At::Open(place) => place.fmt(f),
            At::Systemd(name) => write!(f, "{SYSTEMD}{name}"),
        }
    }
}

impl PortOrAddress {
    /// A bare port is on this machine.
    fn local(&self) -> Address {
        self.on(&LOCALHOST)
    }

    /// A bare port is on this host.
    fn on(&self, host: &Address) -> Address {
        match (self, host) {
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
        }
    }

    fn parse_bare(text: &str) -> Result<PortOrAddress, String> {
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
            ("proxy:2323", "proxy:127.0.0.1:2323"),
            #[cfg(feature = "tls")]
            ("proxy:tls:echo", "proxy:tls:127.0.0.1:2323"),
            ("proxy:echo", "proxy:127.0.0.1:2323"),
            ("ws:presence", "ws:127.0.0.1:9907"),
            ("ws:unix:/a", "ws:unix:/a"),
            #[cfg(feature = "tls")]
            ("proxy:tls:ws:localhost:9", "proxy:tls:ws:localhost:9"),
            ("ws.:80", "ws.:80"),
            ("proxy:unix:/tmp/tls:a", "proxy:unix:/tmp/tls:a"),
            ("proxy.:3128", "proxy.:3128"),
            ("proxy:proxy.:3128", "proxy:proxy.:3128"),
        ] {
            assert_eq!(server(text).unwrap().to_string(), address);
        }
        for text in ["0", "127.0.0.1:0", "a:0", "tls:127.0.0.1:0", "host", "unix:", "65536"] {
            assert!(server(text).is_err(), "{text}");
        }
        let place = listener("0").unwrap().endpoints(&LOCALHOST, &Inherited::default()).unwrap();
        assert_eq!(place[0].to_string(), "127.0.0.1:0");
    }

    #[test]
    fn the_habits_of_other_programs() {
        let said = |text: &str| listener(text).unwrap_err();
        assert_eq!(said("4207:127.0.0.1:9907"), "write them as two: 4207 127.0.0.1:9907");
        assert_eq!(said("4207:[::1]:9907"), "write them as two: 4207 [::1]:9907");
        assert_eq!(said("127.0.0.1:7:a.org:9"), "write them as two: 127.0.0.1:7 a.org:9");
        assert_eq!(server("127.0.0.1").unwrap_err(), "the port is missing: write 127.0.0.1:PORT");
        assert_eq!(server("tcp://[::1]:9/").unwrap_err(), "it is no URL: write [::1]:9");
        assert_eq!(server("ws://a.org:9/").unwrap_err(), "it is no URL: write ws:a.org:9");
        assert_eq!(listener("ws://a.org:9/b").unwrap_err(), "it is no URL: write ws:a.org:9");
        #[cfg(feature = "tls")]
        assert_eq!(server("wss://a.org:9").unwrap_err(), "it is no URL: write tls:ws:a.org:9");
    }

    #[test]
    fn layers_stand_in_the_order_of_the_bytes() {
        let read = |text: &str| {
            let (layers, rest) = Layers::parse(text)?;
            Ok::<_, String>(format!("{layers} {rest}"))
        };
        assert_eq!(read("proxy:7").as_deref(), Ok("proxy: 7"));
        assert_eq!(read("7").as_deref(), Ok(" 7"));
        for (text, right) in [
            ("proxy:proxy:7", "write proxy:7"),
            ("ws:proxy:7", "write proxy:ws:7"),
            #[cfg(feature = "tls")]
            ("ws:tls:[::1]:7", "write tls:ws:[::1]:7"),
            #[cfg(feature = "tls")]
            ("ws:tls:proxy:7", "write proxy:tls:ws:7"),
            #[cfg(feature = "tls")]
            ("tls:proxy:[::1]:7", "write proxy:tls:[::1]:7"),
            #[cfg(feature = "tls")]
            ("proxy:tls:proxy:unix:/a", "write proxy:tls:unix:/a"),
            #[cfg(feature = "tls")]
            ("tls:tls:7", "write tls:7"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.ends_with(right), "{text}: {said}");
        }
        #[cfg(feature = "tls")]
        assert_eq!(read("proxy:tls:7").as_deref(), Ok("proxy:tls: 7"));
    }

    #[test]
    fn a_host_is_looked_up_within_its_time() {
        let look_up = |text: &str| look_up(&server(text).unwrap().address, Duration::from_secs(30));
        let found = look_up("localhost:7").unwrap();
        assert!(!found.as_sockets().is_empty() && found.to_string() == "localhost:7");
        assert_eq!(look_up("7").unwrap().to_string(), "127.0.0.1:7");
        let endpoint = Endpoint::new(Layers::default(), found.clone());
        let each: Vec<_> =
            endpoint.each().into_iter().map(|endpoint| endpoint.address.as_socket()).collect();
        assert_eq!(each, found.as_sockets().iter().copied().map(Some).collect::<Vec<_>>());
    }
}
