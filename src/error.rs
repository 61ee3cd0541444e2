use std::{fmt, io};

use crate::net::Address;
use crate::net::address::needs_zone;

/// What can go wrong in setting up or running a reactor.
///
/// It is displayed as one line that names the thing and, if there is one, the remedy. Unless a
/// variant says otherwise, the reactor is as it was before the call. Errors of single connections are
/// not among these: the handler is told of them by a [`CloseReason`](crate::CloseReason).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text is not an address, or an address cannot be used for this.
    #[error("bad address {text:?}: {why}")]
    Address {
        /// The text that was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// The name of a host has no address, or could not be looked up.
    #[error("cannot look up {host}: {why}")]
    Lookup {
        /// The name that was given.
        host: String,
        /// The reason and the remedy.
        why: String,
        /// What the system said.
        source: io::Error,
    },
    /// A limit has a value that cannot be kept.
    #[error("bad limit {name}: it {why}")]
    Limit {
        /// The field of [`Limits`](crate::Limits), of [`DatagramOptions`](crate::DatagramOptions) or of what
        /// else has such.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The address cannot be listened on, or a datagram socket cannot be bound to it.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address that was asked for.
        address: Address,
        /// The reason and the remedy.
        why: String,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or its key cannot be used. Needs the feature `tls`.
    #[cfg(feature = "tls")]
    #[error("{}: {why}", path.display())]
    Certificate {
        /// The file.
        path: std::path::PathBuf,
        /// The reason and the remedy.
        why: String,
    },
    /// The reactor has 250 services already, the most that it can hold.
    #[error("too many services in one reactor (the limit is 250): use a second reactor")]
    TooManyServices,
    /// A service of datagrams was asked to listen for connections, to dial, or to adopt descriptors.
    #[error("a service of datagrams has no connections: give them a handler of their own")]
    Datagrams,
    /// A connection cannot be handed over to the service.
    #[error("cannot hand over to {to:?}: {why}")]
    HandOver {
        /// The name of the service that was given.
        to: String,
        /// The reason.
        why: &'static str,
    },
    /// An [upgrade](crate::Reactor::hand_on) has failed: nothing was handed on to another process, or taken over
    /// from one.
    #[error("the upgrade has failed: {why}")]
    Upgrade {
        /// The reason.
        why: String,
    },
    /// The service was [removed](crate::Reactor::remove), even if its connections are still being closed, or
    /// it belongs to another reactor.
    #[error("the service was removed, or is one of another reactor")]
    Removed,
    /// The service does not listen there.
    #[error("not listening on {address}: {why}")]
    NotListening {
        /// The address that was given.
        address: Address,
        /// Where it does listen.
        why: String,
    },
    /// The reactor is shutting down, or has [handed on](crate::Reactor::hand_on) its services, and takes nothing new.
    #[error("the reactor is shutting down")]
    ShuttingDown,
    /// The loop of one of several [cores](crate::Cores) has failed, which ended the others too.
    #[error("core {core} has failed: {why}")]
    Core {
        /// Which one: the first is 0.
        core: usize,
        /// What has happened to it.
        why: String,
    },
    /// A system call failed that the loop itself needs, such as that of the selector. If the reactor
    /// was running, it cannot go on.
    #[error("{what}: {}", why(source))]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The same line as `Display`, since this is what `fn main() -> Result<(), Error>` prints.
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

    /// What the system said of an address to listen on, with the remedy.
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

/// What the system said, with the remedy if there are no file descriptors left.
pub(crate) fn why(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => format!("{error}; allow more of them (ulimit -n)"),
        Some(libc::ENFILE) => format!("{error}; close some elsewhere, it is all of the machine"),
        _ => error.to_string(),
    }
}
