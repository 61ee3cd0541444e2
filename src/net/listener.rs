//! A socket that listens, whatever its kind.

use std::io;
use std::rc::Rc;

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry};
use socket2::SockRef;

use super::inherited::InheritedListener;
use super::newcomers::{Arrivals, Newcomer};
use super::stream::Socket;
use super::tcp::{bind_tcp, set_options};
use super::unix::{bind_unix, check_uids, check_unix_mode, clear_unix_path};
use super::unix_path::UnixPath;
use super::{Address, Listen};
use crate::error::Error;
use crate::limits::Limits;

/// A listening socket. Dropping a Unix one removes its path.
pub(crate) enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener, UnixPath),
    Inherited(InheritedListener),
    /// What another core accepts and hands over. No selector watches it: that core wakes the loop.
    Handed(Arrivals),
}

impl ListeningSocket {
    pub(crate) fn bind(listen: &Listen, limits: &Limits) -> Result<ListeningSocket, Error> {
        let Listen { address, unix_mode, uids, .. } = listen;
        let failed = |error| Error::listen(address, error);
        if let Some(socket) = &listen.socket {
            check_uids(address, uids.as_deref())?;
            let inherited = InheritedListener::new(socket, address, limits);
            return inherited.map(ListeningSocket::Inherited).map_err(failed);
        }
        match address {
            Address::Tcp(addr) => bind_tcp(*addr, limits).map_err(failed),
            // Each of its addresses has a listener of its own.
            Address::Host(_) => Err(failed(io::ErrorKind::InvalidInput.into())),
            Address::Unix(path) => {
                check_unix_mode(address, *unix_mode)?;
                check_uids(address, uids.as_deref())?;
                // Before anything is made: one that is too long is none.
                let name = socket2::SockAddr::unix(path).map_err(failed)?;
                let path = UnixPath::lock(address, path)?;
                clear_unix_path(address, path.path())?;
                bind_unix(&name, path, *unix_mode).map_err(failed)
            }
        }
    }

    /// The address in force: the real port where 0 was asked for.
    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            ListeningSocket::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            ListeningSocket::Unix(_, path) => Ok(Address::Unix(path.path().to_owned())),
            ListeningSocket::Inherited(listener) => Ok(listener.address().clone()),
            ListeningSocket::Handed(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Applies what a rebind changes on the socket itself, which is the mode of its file. A socket without a
    /// file has none.
    pub(crate) fn set_rules(&self, old: &Listen, new: &Listen) -> Result<(), Error> {
        let (address, mode) = (&old.address, new.unix_mode);
        if !matches!(address, Address::Unix(_)) {
            return Ok(());
        }
        check_uids(address, new.uids.as_deref())?;
        let ListeningSocket::Unix(_, path) = self else { return Ok(()) };
        check_unix_mode(address, mode)?;
        match (old.unix_mode, mode) {
            (old, new) if old == new => Ok(()),
            // The mode that the umask would have given is not known any more.
            (Some(old), None) => {
                let why = format!("its mode is {old:#o}, which goes on; name one (unix_mode)");
                let source = io::ErrorKind::InvalidInput.into();
                Err(Error::Listen { address: address.clone(), why, source })
            }
            (_, mode) => path.set_mode(mode).map_err(|error| Error::listen(address, error)),
        }
    }

    /// Sets the socket options of the limits, which newcomers inherit from the listener.
    pub(crate) fn set_options(&self, limits: &Limits) {
        // They do not fail for an open socket.
        let _ = match self {
            ListeningSocket::Tcp(listener) => set_options(&SockRef::from(listener), limits),
            ListeningSocket::Inherited(listener) => listener.set_options(limits),
            ListeningSocket::Unix(..) | ListeningSocket::Handed(_) => Ok(()),
        };
    }

    /// Takes the socket out of the selector. Dropping it is not enough, since other owners may have it open.
    pub(crate) fn deregister(&mut self, registry: &Registry) {
        let deregistered = match self {
            ListeningSocket::Tcp(listener) => registry.deregister(listener),
            ListeningSocket::Unix(listener, _) => registry.deregister(listener),
            ListeningSocket::Inherited(listener) => listener.deregister(),
            ListeningSocket::Handed(_) => Ok(()),
        };
        if let Err(error) = deregistered {
            log::warn!("cannot stop watching a listener: {error}");
        }
    }

    /// Whether nobody comes from here any more: all that were handed over are taken, and no more will be.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, ListeningSocket::Handed(arrivals) if arrivals.are_over())
    }

    /// How many were accepted before it was unbound, and are not let in yet.
    pub(crate) fn left(&self) -> usize {
        if let ListeningSocket::Handed(arrivals) = self { arrivals.left() } else { 0 }
    }

    pub(crate) fn register(
        &mut self,
        registry: &Rc<Registry>,
        token: mio::Token,
    ) -> io::Result<()> {
        let interest = Interest::READABLE;
        match self {
            ListeningSocket::Tcp(listener) => registry.register(listener, token, interest),
            ListeningSocket::Unix(listener, _) => registry.register(listener, token, interest),
            ListeningSocket::Inherited(listener) => listener.register(registry, token),
            ListeningSocket::Handed(_) => Ok(()),
        }
    }

    /// One newcomer and its address, none where it has no IP address. The address is kept from
    /// here on: asking later fails once the peer is gone.
    pub(crate) fn accept(&mut self) -> io::Result<Newcomer> {
        match self {
            ListeningSocket::Tcp(listener) => {
                listener.accept().map(|(stream, peer)| (Socket::Tcp(stream), Some(peer)))
            }
            ListeningSocket::Unix(listener, _) => {
                listener.accept().map(|(stream, _)| (Socket::Unix(stream), None))
            }
            ListeningSocket::Inherited(listener) => listener.accept(),
            ListeningSocket::Handed(arrivals) => arrivals.accept(),
        }
    }
}
