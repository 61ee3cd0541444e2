use std::{fmt, io};

use crate::net::Address;
use crate::net::address::needs_zone;

/// What can go wrong in setting up or running a reactor. Each one names the thing and, where
/// there is one, the remedy. Errors of single connections are no errors of the reactor: they
/// come to the handler as a [`CloseReason`](crate::CloseReason).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not an address.
    #[error("bad address {text:?}: {why}")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The host's name has no address, or nobody can say which.
    #[error("cannot look up {host}: {why}")]
    Lookup {
        /// What was given.
        host: String,
        /// The reason and the remedy.
        why: String,
        /// What the system said.
        source: io::Error,
    },
    /// A limit that cannot be kept.
    #[error("bad limit {name}: it {why}")]
    Limit {
        /// The field of [`Limits`](crate::Limits) or
        /// [`DatagramOptions`](crate::DatagramOptions).
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The address cannot be listened on; the reactor is as it was.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address asked for.
        address: Address,
        /// The reason and the remedy.
        why: String,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or its key cannot be used; the reactor is as it was.
    #[cfg(feature = "tls")]
    #[error("{}: {why}", path.display())]
    Certificate {
        /// The file.
        path: std::path::PathBuf,
        /// The reason and the remedy.
        why: String,
    },
    /// One reactor holds at most 250 services.
    #[error("too many services in one reactor (the limit is 250): use a second reactor")]
    TooManyServices,
    /// A datagram socket was asked to listen for connections, to dial, or to adopt descriptors.
    #[error("a service of datagrams has no connections: give them a handler of their own")]
    Datagrams,
    /// The reactor is shutting down and takes nothing new.
    #[error("the reactor is shutting down")]
    ShuttingDown,
    /// The selector failed; the reactor cannot go on.
    #[error("{what}: {}", why(source))]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The same line as `Display`, since this is what `fn main() -> Result<(), Error>` shows people.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    pub(crate) fn limit(name: &'static str, why: &str) -> Error {
        Error::Limit { name, why: why.to_owned() }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn certificate(path: &std::path::Path, why: &str) -> Error {
        Error::Certificate { path: path.to_owned(), why: why.to_owned() }
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { what, source }
    }

    /// Adds the remedy to what the system said of a listener.
    pub(crate) fn listen(address: &Address, source: io::Error) -> Error {
        use io::ErrorKind::{
            AddrInUse, AddrNotAvailable, InvalidInput, NotADirectory, NotFound, PermissionDenied,
        };
        let needs_zone = address.as_socket().and_then(needs_zone);
        let why = match (source.kind(), address) {
            (InvalidInput, _) if needs_zone.is_some() => needs_zone.unwrap_or_default(),
            (AddrInUse, Address::Tcp(_)) => "the port is in use; choose another one, or port 0 \
                                             for any free one"
                .to_owned(),
            (PermissionDenied, Address::Tcp(addr)) if addr.port() < 1024 => {
                "ports below 1024 need privileges; choose a higher one".to_owned()
            }
            (AddrNotAvailable, Address::Tcp(_) | Address::Host(_)) => {
                "this machine has no such address; try 127.0.0.1, or 0.0.0.0 for all".to_owned()
            }
            (NotFound, Address::Unix(_)) => "the folder does not exist; make it first".to_owned(),
            (PermissionDenied, Address::Unix(_)) => {
                "not allowed to write there; choose another path".to_owned()
            }
            (NotADirectory, Address::Unix(_)) => {
                "its folder is something else; choose another path".to_owned()
            }
            (InvalidInput, Address::Unix(path)) => {
                let length = path.as_os_str().len();
                format!("a path of {length} bytes is too long for a socket; choose a shorter one")
            }
            _ if source.raw_os_error() == Some(libc::ENODEV) => {
                "this machine has no such interface; see ip link".to_owned()
            }
            _ if source.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                "this machine has no IPv6; choose an IPv4 address".to_owned()
            }
            _ => why(&source),
        };
        Error::Listen { address: address.clone(), why, source }
    }
}

/// What the system said, with the remedy where whoever opens something may hear it.
pub(crate) fn why(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => format!("{error}; allow more of them (ulimit -n)"),
        Some(libc::ENFILE) => format!("{error}; close some elsewhere, it is all of the machine"),
        _ => error.to_string(),
    }
}
