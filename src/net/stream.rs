//! The one module that touches sockets: everything else sees a [`Stream`] or a [`Socket`].

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry};
use rustix::io::ioctl_fionread;

use crate::dial::Dialling;
use crate::duplex::Duplex;
use crate::id::Token;
use crate::pipe::Pipe;
#[cfg(feature = "tls")]
use crate::tls::TlsStream;
use crate::unix_path::{self, UnixPath};
use crate::{Address, Error, Limits};

/// Newcomers that the kernel completes while the loop is busy; it caps this at `somaxconn`.
const BACKLOG: i32 = 4096;
/// Bytes that the kernel takes of a connection before the peer's window has room for them. It would
/// take megabytes, where no limit of ours counts them: a thousand readers that never read would
/// cost gigabytes. What the window has room for is not bounded by this.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT_IN_KERNEL: u32 = 128 * 1024;

/// The two ends of a connection's bytes, non-blocking.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// One of the others, encrypted.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
    /// No socket but two descriptors.
    Duplex(Box<Duplex>),
    /// No socket but a test's.
    Pipe(Pipe),
    /// A host's addresses, before one of them is connected.
    Dialling(Box<Dialling>),
    /// Connecting failed at once; the connection exists only to be told of it.
    Failed,
}

impl Stream {
    /// Begins to connect; the socket becomes writable when that is done or has failed.
    pub(crate) fn connect(source: Option<IpAddr>, address: &Address) -> io::Result<Stream> {
        match (address, source) {
            (Address::Tcp(addr), None) => TcpStream::connect(*addr).map(Stream::Tcp),
            (Address::Tcp(addr), Some(source)) => connect_tcp(source, *addr).map(Stream::Tcp),
            (Address::Host(host), source) => {
                Ok(Stream::Dialling(Box::new(Dialling::new(host, source))))
            }
            (Address::Unix(path), None) => UnixStream::connect(path).map(Stream::Unix),
            (Address::Unix(_), Some(_)) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Makes one of two descriptors, which stay what they are.
    pub(crate) fn adopt(input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> io::Result<Stream> {
        Duplex::new(input, output).map(|duplex| Stream::Duplex(Box::new(duplex)))
    }

    /// Registers once, for both directions; under edge triggers nothing has to change later.
    pub(crate) fn register(&mut self, registry: &Rc<Registry>, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        // Tells of urgent data, at which a read stops short.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let both = both | Interest::PRIORITY;
        match self {
            Stream::Tcp(stream) => stream.register(registry, token.into(), both),
            Stream::Unix(stream) => stream.register(registry, token.into(), both),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.inner_mut().register(registry, token),
            Stream::Duplex(duplex) => duplex.register(registry, token),
            Stream::Dialling(dialling) => {
                dialling.register(registry, token);
                Ok(())
            }
            Stream::Pipe(_) | Stream::Failed => Ok(()),
        }
    }

    /// Whether its input is this connection's alone, to be thrown away at a close, lest a reset
    /// destroy what was sent. Descriptors know no resets, and what is unread in them is for whoever
    /// reads them next.
    pub(crate) fn is_socket(&self) -> bool {
        !matches!(self, Stream::Duplex(_))
    }

    /// Whether connecting is done, or the handshake: an error when it failed, false while it is
    /// under way.
    pub(crate) fn connected(&mut self) -> io::Result<bool> {
        let (error, peer) = match self {
            Stream::Tcp(stream) if is_itself(stream) => {
                // Its port is the one that somebody is to listen at: no remains of it may stay.
                self.reset();
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Stream::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Stream::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => return tls.shake_hands(),
            Stream::Duplex(_) => return Ok(true),
            Stream::Pipe(pipe) => return pipe.connected(),
            Stream::Dialling(_) => return Ok(false),
            Stream::Failed => return Err(io::ErrorKind::NotConnected.into()),
        };
        match (error, peer) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(true),
            (None, Err(e)) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
            (None, Err(e)) => Err(e),
        }
    }

    /// The error that the system has noted for it.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        match self {
            Stream::Tcp(stream) => stream.take_error().ok().flatten(),
            Stream::Unix(stream) => stream.take_error().ok().flatten(),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.inner().take_error(),
            Stream::Duplex(duplex) => duplex.take_error(),
            Stream::Pipe(pipe) => pipe.take_error(),
            Stream::Dialling(_) | Stream::Failed => None,
        }
    }

    /// For an outbound connection; accepted ones inherit all this from their listener, which
    /// saves system calls for each.
    pub(crate) fn set_options(&self, limits: &Limits) {
        if let Stream::Tcp(stream) = self {
            // It fails only for a socket that is gone already, which the next read will tell.
            let _ = set_options(&socket2::SockRef::from(stream), limits);
        }
    }

    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Stream::Tcp(stream) => stream.local_addr().ok(),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.inner().local_addr(),
            Stream::Unix(_)
            | Stream::Duplex(_)
            | Stream::Pipe(_)
            | Stream::Dialling(_)
            | Stream::Failed => None,
        }
    }

    pub(crate) fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.shutdown_write(),
            Stream::Duplex(duplex) => {
                duplex.shut();
                Ok(())
            }
            Stream::Pipe(pipe) => pipe.shut(),
            Stream::Dialling(_) | Stream::Failed => Ok(()),
        }
    }

    /// Makes dropping it throw the unsent bytes away and send a reset: without this the kernel
    /// would keep up to megabytes for a peer that does not read, long after the close.
    pub(crate) fn reset(&mut self) {
        match self {
            Stream::Tcp(stream) => {
                let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
            }
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.inner_mut().reset(),
            Stream::Unix(_) | Stream::Duplex(_) | Stream::Dialling(_) | Stream::Failed => {}
            Stream::Pipe(pipe) => pipe.reset(),
        }
    }

    /// The same stream under TLS, the handshake still to be done.
    #[cfg(feature = "tls")]
    pub(crate) fn over_tls(self, config: Arc<rustls::ServerConfig>) -> io::Result<Stream> {
        TlsStream::new(self, config).map(|tls| Stream::Tls(Box::new(tls)))
    }

    /// What it is before one of a host's addresses is connected.
    pub(crate) fn dialling(&self) -> Option<&Dialling> {
        match self {
            Stream::Dialling(dialling) => Some(dialling),
            _ => None,
        }
    }

    /// It is not open before its [`connected`](Self::connected) says so.
    pub(crate) fn shakes_hands(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Stream::Tls(_) => true,
            _ => false,
        }
    }

    /// A read that gives less than was asked for may leave some behind.
    pub(crate) fn may_read_short(&self) -> bool {
        matches!(self, Stream::Unix(_) | Stream::Duplex(_)) || self.shakes_hands()
    }

    /// Input has come that no read has given yet.
    pub(crate) fn has_unread(&mut self) -> bool {
        let some = |count: rustix::io::Result<u64>| count.is_ok_and(|count| count > 0);
        match self {
            Stream::Tcp(stream) => some(ioctl_fionread(stream)),
            Stream::Unix(stream) => some(ioctl_fionread(stream)),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.has_unread(),
            Stream::Pipe(pipe) => pipe.has_unread(),
            Stream::Duplex(_) | Stream::Dialling(_) | Stream::Failed => false,
        }
    }

    /// There may be more to read although the last read said `WouldBlock`.
    pub(crate) fn has_more(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.has_more(),
            _ => false,
        }
    }

    /// What `count` bytes of input, just read, cost of a turn's share: at least themselves.
    pub(crate) fn cost(&mut self, count: usize) -> usize {
        match self {
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.take_pulled().max(count),
            _ => count,
        }
    }

    /// Where to read what is thrown away, which need not be decrypted first.
    pub(crate) fn raw(&mut self) -> &mut Stream {
        match self {
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.inner_mut(),
            _ => self,
        }
    }

    /// [`flush`](Write::flush) has something to do.
    pub(crate) fn unsent(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.unsent(),
            Stream::Pipe(pipe) => pipe.unsent(),
            _ => false,
        }
    }

    /// Whether a flush has sent something since this was last asked.
    pub(crate) fn take_moved(&mut self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.take_moved(),
            Stream::Pipe(pipe) => pipe.take_moved(),
            _ => false,
        }
    }

    /// Says no to a newcomer. What it has sent already is read first, since unread input would
    /// turn the close into a reset; nobody waits for more, so a busy client may miss the line.
    /// Over TLS it has no words: they would cost a handshake.
    pub(crate) fn turn_away(mut self, notice: &[u8]) {
        #[cfg(feature = "tls")]
        if let Stream::Tls(tls) = self {
            return tls.into_inner().turn_away(b"");
        }
        let mut unread = [0; 4096];
        let _ = self.write(notice);
        let _ = self.shutdown_write();
        let _ = self.read(&mut unread);
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buf),
            Stream::Unix(stream) => stream.read(buf),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.read(buf),
            Stream::Duplex(duplex) => duplex.read(buf),
            Stream::Pipe(pipe) => pipe.read(buf),
            Stream::Dialling(_) | Stream::Failed => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(buf),
            Stream::Unix(stream) => stream.write(buf),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.write(buf),
            Stream::Duplex(duplex) => duplex.write(buf),
            Stream::Pipe(pipe) => pipe.write(buf),
            Stream::Dialling(_) | Stream::Failed => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    #[cfg(feature = "tls")] // Which writes several records at once.
    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(bufs),
            Stream::Unix(stream) => stream.write_vectored(bufs),
            _ => self.write(bufs.iter().find(|buf| !buf.is_empty()).map_or(&[], |buf| buf)),
        }
    }

    /// Sends what was taken for writing and is not out yet; `WouldBlock` if some must wait.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.flush(),
            Stream::Pipe(pipe) => pipe.flush(),
            _ => Ok(()),
        }
    }
}

/// Whether the system gave it, as its own port, the very one that it was to connect to. Where
/// nobody listens there, TCP connects such a socket to itself.
fn is_itself(stream: &TcpStream) -> bool {
    let place = |addr: SocketAddr| (addr.ip(), addr.port());
    let peer = stream.peer_addr().map(place);
    peer.is_ok_and(|peer| stream.local_addr().is_ok_and(|local| place(local) == peer))
}

fn connect_tcp(source: IpAddr, addr: SocketAddr) -> io::Result<TcpStream> {
    use socket2::{Domain, Protocol, Type};
    let socket =
        socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A port is taken here, before the target is known; none left is not said as connect says it.
    socket.bind(&SocketAddr::new(source, 0).into()).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => io::ErrorKind::AddrNotAvailable.into(),
        _ => error,
    })?;
    match socket.connect(&addr.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// A listening socket. Dropping a Unix one removes its path.
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, UnixPath),
}

impl Socket {
    pub(crate) fn bind(
        address: &Address,
        unix_mode: Option<u32>,
        limits: &Limits,
    ) -> Result<Socket, Error> {
        let failed = |error| Error::listen(address, error);
        match address {
            Address::Tcp(addr) => bind_tcp(*addr, limits).map_err(failed),
            // Each of its addresses has a listener of its own.
            Address::Host(_) => Err(failed(io::ErrorKind::InvalidInput.into())),
            Address::Unix(path) => {
                check_unix_mode(address, unix_mode)?;
                // Before anything is made: one that is too long is none.
                let name = socket2::SockAddr::unix(path).map_err(failed)?;
                let path = UnixPath::lock(address, path)?;
                clear_unix_path(address, path.path())?;
                bind_unix(&name, path, unix_mode).map_err(failed)
            }
        }
    }

    /// The address in force: the real port where 0 was asked for.
    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            Socket::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Socket::Unix(_, path) => Ok(Address::Unix(path.path().to_owned())),
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE;
        match self {
            Socket::Tcp(listener) => registry.register(listener, token.into(), interest),
            Socket::Unix(listener, _) => registry.register(listener, token.into(), interest),
        }
    }

    /// One newcomer and its address, none where it has no IP address. The address is kept from
    /// here on: asking later fails once the peer is gone.
    pub(crate) fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Socket::Tcp(listener) => {
                listener.accept().map(|(stream, peer)| (Stream::Tcp(stream), Some(peer)))
            }
            Socket::Unix(listener, _) => {
                listener.accept().map(|(stream, _)| (Stream::Unix(stream), None))
            }
        }
    }
}

/// Output leaves at once rather than waiting for more; dead peers are found out; a byte that is
/// urgent keeps its place among the others, since nobody else asks for it.
fn set_options(socket: &socket2::Socket, limits: &Limits) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    if let Some(idle) = limits.keepalive {
        // In whole seconds, at least one.
        let again = (idle / 3).max(Duration::from_secs(1));
        let keepalive = socket2::TcpKeepalive::new().with_time(idle);
        socket.set_tcp_keepalive(&keepalive.with_interval(again).with_retries(3))?;
    }
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket.set_tcp_user_timeout(limits.user_timeout)?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    socket.set_tcp_notsent_lowat(UNSENT_IN_KERNEL)?;
    Ok(())
}

fn bind_tcp(addr: SocketAddr, limits: &Limits) -> io::Result<Socket> {
    use socket2::{Domain, Protocol, Type};
    let socket =
        socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    set_options(&socket, limits)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(Socket::Tcp(TcpListener::from_std(socket.into())))
}

/// The mode is kept from the first moment on: nobody can connect to what does not listen yet.
fn bind_unix(
    name: &socket2::SockAddr,
    mut path: UnixPath,
    mode: Option<u32>,
) -> io::Result<Socket> {
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
    Ok(Socket::Unix(UnixListener::from_std(OwnedFd::from(socket).into()), path))
}

/// Removes what a server of ours that is gone has left at a path that is locked, and says what else
/// stands in the way: bind's own "address in use" does not.
///
/// A server of another kind, which takes no lock, is seen once it listens; between its bind and its
/// listen it looks as one that is gone.
fn clear_unix_path(address: &Address, path: &Path) -> Result<(), Error> {
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

fn check_unix_mode(address: &Address, mode: Option<u32>) -> Result<(), Error> {
    let Some(mode) = mode.filter(|mode| *mode > 0o777) else { return Ok(()) };
    let why = format!("the mode {mode:#o} has more than permissions; write one up to 0o777");
    let source = io::ErrorKind::InvalidInput.into();
    Err(Error::Listen { address: address.clone(), why, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_and_dialled_sockets_have_the_options_of_the_limits() {
        let limits = Limits {
            keepalive: Some(Duration::from_secs(77)),
            user_timeout: Some(Duration::from_millis(12_345)),
            ..Limits::default()
        };
        let address = Address::Tcp(([127, 0, 0, 1], 0).into());
        let server = Socket::bind(&address, None, &limits).unwrap();
        let dialled = Stream::connect(None, &server.local_addr().unwrap()).unwrap();
        dialled.set_options(&limits);
        let accepted = loop {
            match server.accept() {
                Ok((stream, _)) => break stream,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        for stream in [accepted, dialled] {
            let Stream::Tcp(stream) = stream else { panic!("not TCP") };
            let socket = socket2::SockRef::from(&stream);
            assert!(socket.tcp_nodelay().unwrap() && socket.out_of_band_inline().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(77));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(25));
            #[cfg(target_os = "linux")]
            {
                assert_eq!(socket.tcp_user_timeout().unwrap(), limits.user_timeout);
                assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_IN_KERNEL);
            }
        }
    }
}
