//! Listening sockets that another program has opened, such as systemd.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::{fs, io, net};

use mio::net::{TcpListener, UnixListener};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use socket2::SockRef;

use super::Address;
use super::newcomers::Newcomer;
use super::stream::Socket;
use super::tcp::set_options;
use crate::error::Error;
use crate::limits::Limits;

/// An inherited socket. All clones of a [`Listen`] share it.
#[derive(Debug)]
pub(crate) enum Inherited {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Inherited {
    pub(super) fn from_tcp(listener: net::TcpListener) -> Result<(Inherited, Address), Error> {
        let address = listener.local_addr().map_err(unusable)?;
        check(&SockRef::from(&listener))?;
        listener.set_nonblocking(true).map_err(unusable)?;
        Ok((Inherited::Tcp(TcpListener::from_std(listener)), Address::Tcp(address)))
    }

    pub(super) fn from_unix(
        listener: std::os::unix::net::UnixListener,
    ) -> Result<(Inherited, Address), Error> {
        let address = listener.local_addr().map_err(unusable)?;
        check(&SockRef::from(&listener))?;
        let Some(path) = address.as_pathname() else {
            let why = "it has an abstract name; bind it to a path";
            return Err(unusable(io::Error::new(io::ErrorKind::Unsupported, why)));
        };
        listener.set_nonblocking(true).map_err(unusable)?;
        let address = Address::Unix(path.to_owned());
        Ok((Inherited::Unix(UnixListener::from_std(listener)), address))
    }

    fn as_raw_fd(&self) -> RawFd {
        match self {
            Inherited::Tcp(listener) => listener.as_raw_fd(),
            Inherited::Unix(listener) => listener.as_raw_fd(),
        }
    }
}

/// The permissions of the Unix socket at a path; none if they cannot be read.
pub(super) fn unix_mode(address: &Address) -> Option<u32> {
    let Address::Unix(path) = address else { return None };
    fs::metadata(path).ok().map(|found| found.permissions().mode() & 0o777)
}

/// Refuses a socket that does not listen. Otherwise nobody would notice, since it is never ready.
fn check(socket: &socket2::Socket) -> Result<(), Error> {
    #[cfg(any(target_os = "android", target_os = "freebsd", target_os = "linux"))]
    if !socket.is_listener().map_err(unusable)? {
        let why = "it does not listen, as a connection does not; give one that does";
        return Err(unusable(io::Error::new(io::ErrorKind::InvalidInput, why)));
    }
    let _ = socket;
    Ok(())
}

fn unusable(source: io::Error) -> Error {
    Error::Io { what: "cannot use the socket that was given to listen", source }
}

/// An inherited socket at which a loop accepts. Dropping this leaves the socket open for its other owners.
pub(crate) struct InheritedListener {
    socket: Rc<Inherited>,
    address: Address,
    /// The selector that watches the socket. It has to be deregistered, since the socket stays open elsewhere.
    registry: Option<Rc<Registry>>,
}

impl InheritedListener {
    pub(super) fn new(
        socket: &Rc<Inherited>,
        address: &Address,
        limits: &Limits,
    ) -> io::Result<InheritedListener> {
        let (socket, address) = (Rc::clone(socket), address.clone());
        let listener = InheritedListener { socket, address, registry: None };
        listener.set_options(limits)?;
        Ok(listener)
    }

    pub(super) fn set_options(&self, limits: &Limits) -> io::Result<()> {
        match &*self.socket {
            Inherited::Tcp(listener) => set_options(&SockRef::from(listener), limits),
            Inherited::Unix(_) => Ok(()),
        }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        match &*self.socket {
            Inherited::Tcp(listener) => listener.as_fd(),
            Inherited::Unix(listener) => listener.as_fd(),
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn register(
        &mut self,
        registry: &Rc<Registry>,
        token: mio::Token,
    ) -> io::Result<()> {
        let fd = self.socket.as_raw_fd();
        let outcome = registry.register(&mut SourceFd(&fd), token, Interest::READABLE);
        outcome.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                io::Error::new(error.kind(), "a service listens there already")
            }
            _ => error,
        })?;
        self.registry = Some(Rc::clone(registry));
        Ok(())
    }

    pub(super) fn deregister(&mut self) -> io::Result<()> {
        let fd = self.socket.as_raw_fd();
        self.registry.take().map_or(Ok(()), |registry| registry.deregister(&mut SourceFd(&fd)))
    }

    pub(super) fn accept(&self) -> io::Result<Newcomer> {
        match &*self.socket {
            Inherited::Tcp(listener) => {
                listener.accept().map(|(stream, peer)| (Socket::Tcp(stream), Some(peer)))
            }
            Inherited::Unix(listener) => {
                listener.accept().map(|(stream, _)| (Socket::Unix(stream), None))
            }
        }
    }
}

impl Drop for InheritedListener {
    fn drop(&mut self) {
        let _ = self.deregister();
    }
}
