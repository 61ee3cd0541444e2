use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Host;
use crate::error::Error;

/// Where to listen or to connect to: an IP address or a host's name, and a port, or the path of a
/// Unix socket.
///
/// Written `127.0.0.1:2323`, `[::1]:2323`, `[fe80::1%eth0]:2323`, `localhost:2323` or
/// `unix:/run/reactor.sock`. To read one never blocks: see [`resolve`](Self::resolve).
///
/// ```
/// use reactor::Address;
///
/// let address: Address = "unix:/tmp/echo.sock".parse()?;
/// assert_eq!(address.to_string(), "unix:/tmp/echo.sock");
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and port, for TCP and for datagrams; port 0 asks the system for a free one.
    Tcp(SocketAddr),
    /// A host by its name, which stands for as many addresses as the system knows for it.
    Host(Host),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl Address {
    /// The IP address and port, the first one of a host that [was looked up](Self::resolve); none
    /// for one that was not, and for a Unix socket.
    pub fn as_socket(&self) -> Option<SocketAddr> {
        self.as_sockets().first().copied()
    }

    /// All of them: a host that was looked up may have several.
    pub fn as_sockets(&self) -> &[SocketAddr] {
        match self {
            Address::Tcp(addr) => std::slice::from_ref(addr),
            Address::Host(host) => host.addresses(),
            Address::Unix(_) => &[],
        }
    }

    /// Looks a host's name up, which blocks for as long as the system's resolver takes: seconds,
    /// where its servers do not answer. What is no name, or was looked up already, stays as it is.
    ///
    /// Nobody has to: listening looks a name up, and dialling does so for each connection, on a
    /// thread. Who dials the same name by the hundred does it once.
    ///
    /// # Errors
    /// [`Error::Lookup`].
    pub fn resolve(&self) -> Result<Address, Error> {
        match self {
            Address::Host(host) => host.clone().resolve().map(Address::Host),
            known => Ok(known.clone()),
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address, Error> {
        read(text).map_err(|why| Error::Address { text: text.to_owned(), why })
    }
}

/// Reads an address, or says why it is none and how it is written.
pub(crate) fn read(text: &str) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            "" => Err("the path after `unix:` is missing".to_owned()),
            _ => Ok(Address::Unix(PathBuf::from(path))),
        };
    }
    if text.starts_with("tls:") {
        return Err("an address says nothing of TLS; see `Listen::tls`".to_owned());
    }
    if text.strip_prefix("proxy:").is_some_and(|rest| read(rest).is_ok()) {
        let why = "an address says nothing of a proxy; see `Listen::proxy` and `Connect::proxy`";
        return Err(why.to_owned());
    }
    if let Some(why) = habit(text) {
        return Err(why);
    }
    let (host, port) = text.rsplit_once(':').ok_or("write HOST:PORT or unix:PATH")?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port.parse().ok().filter(|_| digits);
    let port: u16 = number.ok_or("the port must be a number from 0 to 65535")?;
    if let Ok(addr) = text.parse() {
        return check_zone(addr).map(Address::Tcp);
    }
    if host.is_empty() {
        return Err(format!(
            "the host is missing: write 127.0.0.1:{port}, or 0.0.0.0:{port} to listen on every \
             address"
        ));
    }
    if let Some(inside) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return read_zone(inside, port);
    }
    if host.contains(':') {
        return Err("one colon, between host and port: write HOST:PORT, or [IPV6]:PORT".to_owned());
    }
    if host.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("the host is but a number: write HOST:PORT".to_owned());
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || "[]/@".contains(c)) {
        return Err("no host is called so: write HOST:PORT".to_owned());
    }
    Ok(Address::Host(Host::new(host, port)))
}

/// What is written otherwise elsewhere, and how it is written here.
fn habit(text: &str) -> Option<String> {
    if text.contains(char::is_control) {
        // It could not be shown as it is.
        return None;
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let place = &rest[..end];
        return Some(match (read(place), scheme) {
            (Ok(_), _) => format!("it is no URL: write {place}"),
            (Err(_), "http" | "ws") if read(&format!("{place}:80")).is_ok() => {
                format!("it is no URL: write {place}:80")
            }
            _ => "it is no URL: write HOST:PORT".to_owned(),
        });
    }
    if text.contains('/') {
        return Some(format!("write HOST:PORT, or unix:{text} for that path"));
    }
    let ipv6 = |text: &str| split_zone(text).0.parse::<Ipv6Addr>().is_ok();
    let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if inside.is_some_and(ipv6) {
        return Some(format!("the port is missing: write {text}:PORT"));
    }
    // `::1:80` is an address of its own as much as port 80 of `::1`.
    if let Some((host, port)) = text.rsplit_once(':')
        && ipv6(host)
        && port.parse::<u16>().is_ok()
    {
        return Some(format!("write an IPv6 address in brackets: [{host}]:{port}"));
    }
    if ipv6(text) {
        return Some(format!("write an IPv6 address in brackets: [{text}]:PORT"));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(format!("the host is missing: write 127.0.0.1:{text}"));
    }
    let named = |c: char| c.is_alphanumeric() || ".-_".contains(c);
    if text.starts_with(char::is_alphanumeric) && text.chars().all(named) {
        return Some(format!("the port is missing: write {text}:PORT"));
    }
    None
}

/// The address, and the interface after a `%` (RFC 4007).
fn split_zone(text: &str) -> (&str, Option<&str>) {
    match text.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone)),
        None => (text, None),
    }
}

/// What stood in brackets and is not simply an address: one with the name of an interface.
fn read_zone(inside: &str, port: u16) -> Result<Address, String> {
    let (ip, zone) = split_zone(inside);
    let Ok(ip) = ip.parse::<Ipv6Addr>() else {
        return Err(format!("brackets are for IPv6 addresses: write {inside}:{port}"));
    };
    match zone {
        // What the system takes the name of an interface for.
        Some(zone) if !zone.is_empty() && (ip.is_unicast_link_local() || ip.is_multicast()) => {
            Ok(Address::Host(Host::new(inside, port)))
        }
        Some(zone) if !zone.is_empty() => {
            Err(format!("only link-local addresses have an interface: write [{ip}]:{port}"))
        }
        _ => Err(format!("the interface after `%` is missing: write [{ip}%eth0]:{port}")),
    }
}

/// Each interface has the same link-local addresses.
fn check_zone(addr: SocketAddr) -> Result<SocketAddr, String> {
    match needs_zone(addr) {
        Some(why) => Err(why),
        None => Ok(addr),
    }
}

/// How to write the address, if it does not say which interface it is at.
pub(crate) fn needs_zone(addr: SocketAddr) -> Option<String> {
    let SocketAddr::V6(v6) = addr else { return None };
    let (ip, port) = (v6.ip(), v6.port());
    (ip.is_unicast_link_local() && v6.scope_id() == 0).then(|| {
        format!("a link-local address needs its interface: write [{ip}%eth0]:{port}, if it is eth0")
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(addr) => write!(f, "{addr}"),
            Address::Host(host) => write!(f, "{host}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<Host> for Address {
    fn from(host: Host) -> Address {
        Address::Host(host)
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Address {
        Address::Tcp(addr)
    }
}

/// What [`Reactor::listen`](crate::Reactor::listen) and `connect` take for an address: text, a
/// [`SocketAddr`], a [`Host`], a [`Path`] (a Unix socket) or an [`Address`].
pub trait ToAddress {
    /// The address itself.
    ///
    /// # Errors
    /// [`Error::Address`] where text is not an address.
    fn to_address(&self) -> Result<Address, Error>;
}

impl<T: ToAddress + ?Sized> ToAddress for &T {
    fn to_address(&self) -> Result<Address, Error> {
        (**self).to_address()
    }
}

impl ToAddress for str {
    fn to_address(&self) -> Result<Address, Error> {
        self.parse()
    }
}

impl ToAddress for String {
    fn to_address(&self) -> Result<Address, Error> {
        self.parse()
    }
}

impl ToAddress for SocketAddr {
    fn to_address(&self) -> Result<Address, Error> {
        Ok(Address::Tcp(*self))
    }
}

impl ToAddress for Host {
    fn to_address(&self) -> Result<Address, Error> {
        Ok(Address::Host(self.clone()))
    }
}

impl ToAddress for Path {
    fn to_address(&self) -> Result<Address, Error> {
        Ok(Address::Unix(self.to_owned()))
    }
}

impl ToAddress for Address {
    fn to_address(&self) -> Result<Address, Error> {
        Ok(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_every_form() {
        for text in [
            "127.0.0.1:2323",
            "[::1]:80",
            "[fe80::1%2]:80",
            "[fe80::1%eth0]:80",
            "0.0.0.0:0",
            "localhost:7",
            "a-b.c_d.:7",
            "proxy:7",
            "unix:/tmp/a b.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let local = "localhost:7".parse::<Address>().unwrap();
        assert_eq!(local.as_socket(), None, "nobody has looked it up");
        let local = local.resolve().unwrap();
        assert!(local.as_sockets().iter().all(|addr| addr.ip().is_loopback() && addr.port() == 7));
        assert_eq!(
            (local.to_string(), local.resolve().unwrap()),
            ("localhost:7".to_owned(), local)
        );
    }

    #[test]
    fn a_host_is_an_address_wherever_one_is_taken() {
        let host = Host::new("localhost", 7);
        assert_eq!(host.to_address().unwrap().to_string(), "localhost:7");
        assert_eq!(host.to_address().unwrap(), Address::from(host));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, word) in [
            ("", "HOST:PORT"),
            ("127.0.0.1:65536", "65535"),
            ("127.0.0.1:", "port"),
            ("127.0.0.1:+5", "port"),
            ("1:2:3", "one colon"),
            ("8080:80", "but a number"),
            ("a b:80", "called so"),
            ("[fe80::1%]:80", "write [fe80::1%eth0]:80"),
            ("[fe80::1]:80", "write [fe80::1%eth0]:80"),
            ("https://example.org", "no URL: write HOST:PORT"),
            ("unix:", "path"),
            ("tls:127.0.0.1:80", "Listen::tls"),
            ("proxy:127.0.0.1:80", "Listen::proxy"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }

    #[test]
    fn what_it_tells_to_write_can_be_read() {
        for (text, remedy) in [
            (":80", "127.0.0.1:80"),
            ("80", "127.0.0.1:80"),
            ("localhost", "localhost:PORT"),
            ("127.0.0.1", "127.0.0.1:PORT"),
            ("::1:80", "[::1]:80"),
            ("::1", "[::1]:PORT"),
            ("[::1]", "[::1]:PORT"),
            ("fe80::1%eth0:80", "[fe80::1%eth0]:80"),
            ("[localhost]:80", "localhost:80"),
            ("[127.0.0.1]:80", "127.0.0.1:80"),
            ("[::1%lo]:80", "[::1]:80"),
            ("tcp://127.0.0.1:80/", "127.0.0.1:80"),
            ("tcp://[::1]:80", "[::1]:80"),
            ("http://example.org/index.html", "example.org:80"),
            ("http://example.org:8080?a", "example.org:8080"),
            ("/run/a.sock", "unix:/run/a.sock"),
            ("./a.sock", "unix:./a.sock"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(remedy), "{text:?}: {error}");
            remedy.replace("PORT", "80").parse::<Address>().unwrap();
        }
    }
}
