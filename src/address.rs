use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::Error;

/// Where to listen or to connect to: an IP address and port, or the path of a Unix socket.
///
/// Written `127.0.0.1:2323`, `[::1]:2323`, `localhost:2323` or `unix:/run/reactor.sock`.
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
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl Address {
    /// The IP address and port, none for a Unix socket.
    pub fn as_socket(&self) -> Option<SocketAddr> {
        match self {
            Address::Tcp(addr) => Some(*addr),
            Address::Unix(_) => None,
        }
    }
}

/// A host name is looked up, which blocks: use numbers inside a handler. The first address wins.
impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Address, Error> {
        let bad = |why: &str| Error::Address { text: text.to_owned(), why: why.to_owned() };
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(bad("the path after `unix:` is missing")),
                _ => Ok(Address::Unix(PathBuf::from(path))),
            };
        }
        if text.starts_with("tls:") {
            return Err(bad("an address says nothing of TLS; see `Listen::tls`"));
        }
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| bad("write HOST:PORT or unix:PATH"))?;
        if !port.bytes().all(|byte| byte.is_ascii_digit()) || port.parse::<u16>().is_err() {
            return Err(bad("the port must be a number from 0 to 65535"));
        }
        if let Ok(addr) = text.parse() {
            return Ok(Address::Tcp(addr));
        }
        if host.is_empty() {
            return Err(bad("the host is missing: write 0.0.0.0 for every address"));
        }
        // `::1:80` is an address of its own as much as port 80 of `::1`.
        if host.contains(':') {
            return Err(bad("write an IPv6 address in brackets: [::1]:80"));
        }
        let mut found = text.to_socket_addrs().map_err(|error| bad(&error.to_string()))?;
        found.next().map(Address::Tcp).ok_or_else(|| bad("no address found for that host"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(addr) => write!(f, "{addr}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Address {
        Address::Tcp(addr)
    }
}

/// What [`Reactor::listen`](crate::Reactor::listen) and `connect` take for an address: text, a
/// [`SocketAddr`], a [`Path`] (a Unix socket) or an [`Address`].
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
        for text in ["127.0.0.1:2323", "[::1]:80", "0.0.0.0:0", "unix:/tmp/a b.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let local = "localhost:7".parse::<Address>().unwrap();
        assert!(local.as_socket().unwrap().ip().is_loopback());
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, word) in [
            ("", "HOST:PORT"),
            ("localhost", "HOST:PORT"),
            ("127.0.0.1:65536", "65535"),
            ("127.0.0.1:", "port"),
            ("127.0.0.1:+5", "port"),
            (":80", "host"),
            ("::1:80", "brackets"),
            ("1:2:3", "brackets"),
            ("unix:", "path"),
            ("tls:127.0.0.1:80", "Listen::tls"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }
}
