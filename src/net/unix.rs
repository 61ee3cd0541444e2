//! Unix sockets: when a path may be taken, and whose it is.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::{fs, io};

use mio::Registry;
use mio::net::{UnixListener, UnixStream};
use rustix::io::ioctl_fionread;

use super::credentials;
use super::layer::{Layer, Opened};
use super::listener::ListeningSocket;
use super::stream::BOTH;
use super::tcp::{BACKLOG, opened};
use super::unix_path::{self, UnixPath};
use super::{Address, Credentials};
use crate::connection::clock::Nanos;
use crate::error::Error;

impl Layer for UnixStream {
    fn register(&mut self, registry: &Rc<Registry>, token: mio::Token) -> io::Result<()> {
        registry.register(self, token, BOTH)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(self)
    }

    fn handshake(&mut self, _now: Nanos, _spent: &mut Nanos) -> io::Result<Option<Opened>> {
        opened(self.take_error()?, self.peer_addr().map(drop))
    }

    /// The kernel stops a read in front of a descriptor that was sent along.
    fn may_read_short(&self) -> bool {
        true
    }

    fn credentials(&self) -> Option<Credentials> {
        Credentials::of(self).ok()
    }

    fn has_unread(&mut self) -> bool {
        ioctl_fionread(self).is_ok_and(|count| count > 0)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn shuts_with_drop(&self) -> bool {
        true
    }

    fn noted_error(&self) -> Option<io::Error> {
        self.take_error().ok().flatten()
    }
}

/// The mode is kept from the first moment on: nobody can connect to what does not listen yet.
pub(super) fn bind_unix(
    name: &socket2::SockAddr,
    mut path: UnixPath,
    mode: Option<u32>,
) -> io::Result<ListeningSocket> {
    use socket2::{Domain, Type};
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    if let Some(mode) = mode {
        // Linux then makes the file with this mode less the umask; others refuse.
        let file = fs::File::from(OwnedFd::from(socket.try_clone()?));
        let _ = file.set_permissions(fs::Permissions::from_mode(mode));
    }
    socket.bind(name)?;
    path.bound(mode)?;
    socket.listen(BACKLOG)?;
    Ok(ListeningSocket::Unix(UnixListener::from_std(OwnedFd::from(socket).into()), path))
}

/// Removes what a server of ours that is gone has left at a path that is locked, and says what else
/// stands in the way: bind's own "address in use" does not.
///
/// A server of another kind, which takes no lock, is seen once it listens; between its bind and its
/// listen it looks as one that is gone.
pub(super) fn clear_unix_path(address: &Address, path: &Path) -> Result<(), Error> {
    let failed = |error| Error::listen(address, error);
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        let why = "something that is not a socket is there; choose another path";
        return Err(unix_path::taken(address, why));
    }
    let why = match UnixStream::connect(path) {
        Err(error) => match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::NotFound, _) => return Ok(()),
            (io::ErrorKind::ConnectionRefused, _) if unix_path::is_ours(&found) => {
                return fs::remove_file(path).map_err(failed);
            }
            (io::ErrorKind::ConnectionRefused | io::ErrorKind::PermissionDenied, _) => {
                "another user's socket is there; choose another path"
            }
            // It has no room for one more just now, or is one of datagrams.
            (io::ErrorKind::WouldBlock, _) | (_, Some(libc::EPROTOTYPE)) => {
                "another server is listening there; choose another path"
            }
            _ => return Err(failed(error)),
        },
        Ok(_) => "another server is listening there; choose another path",
    };
    Err(unix_path::taken(address, why))
}

/// Where nobody could be told from anybody else, nobody can be kept out either.
pub(super) fn check_uids(address: &Address, uids: Option<&[u32]>) -> Result<(), Error> {
    if uids.is_none() || credentials::KNOWN {
        return Ok(());
    }
    let why =
        "this system does not tell who connects; use unix_mode instead of allow_uids".to_owned();
    let source = io::ErrorKind::Unsupported.into();
    Err(Error::Listen { address: address.clone(), why, source })
}

pub(super) fn check_unix_mode(address: &Address, mode: Option<u32>) -> Result<(), Error> {
    let Some(mode) = mode.filter(|mode| *mode > 0o777) else { return Ok(()) };
    let why = format!("the mode {mode:#o} has more than permissions; write one up to 0o777");
    let source = io::ErrorKind::InvalidInput.into();
    Err(Error::Listen { address: address.clone(), why, source })
}
