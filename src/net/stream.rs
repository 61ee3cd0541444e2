//! The contract for what a connection can be over: a [`Stream`].

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry};
use rustix::io::ioctl_fionread;

use super::Address;
use super::descriptors::Descriptors;
use super::happy_eyeballs::Dialling;
use super::memory::Pipe;
use super::tcp::{connect_tcp, set_options};
#[cfg(feature = "tls")]
use super::tls::TlsStream;
use crate::connection::connection::Traits;
use crate::limits::Limits;

/// The two ends of a connection's bytes, non-blocking.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// One of the others, encrypted.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream>),
    /// No socket but two descriptors.
    Descriptors(Box<Descriptors>),
    /// No socket but a test's.
    Pipe(Pipe),
    /// A host's addresses, before one of them is connected.
    Dialling(Box<Dialling>),
    /// Connecting failed at once; the connection exists only to be told of it.
    Failed,
}

impl Stream {
    /// What a connection over it has to know of it.
    pub(crate) fn traits(&self) -> Traits {
        Traits {
            read_on: self.may_read_short(),
            handshake: self.has_handshake(),
            descriptors: !self.is_socket(),
        }
    }

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
        Descriptors::new(input, output)
            .map(|descriptors| Stream::Descriptors(Box::new(descriptors)))
    }

    /// Registers once, for both directions; under edge triggers nothing has to change later.
    pub(crate) fn register(
        &mut self,
        registry: &Rc<Registry>,
        token: mio::Token,
    ) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        // Tells of urgent data, at which a read stops short.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let both = both | Interest::PRIORITY;
        match self {
            Stream::Tcp(stream) => stream.register(registry, token, both),
            Stream::Unix(stream) => stream.register(registry, token, both),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.inner_mut().register(registry, token),
            Stream::Descriptors(descriptors) => descriptors.register(registry, token),
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
        !matches!(self, Stream::Descriptors(_))
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
            Stream::Descriptors(_) => return Ok(true),
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
            Stream::Descriptors(descriptors) => descriptors.take_error(),
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
            | Stream::Descriptors(_)
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
            Stream::Descriptors(descriptors) => {
                descriptors.shut();
                Ok(())
            }
            Stream::Pipe(pipe) => pipe.shut(),
            Stream::Dialling(_) | Stream::Failed => Ok(()),
        }
    }

    /// Dropping it tells the peer of the end as [`shutdown_write`](Self::shutdown_write) does, which
    /// then would be a system call for nothing.
    pub(crate) fn shuts_with_drop(&self) -> bool {
        matches!(self, Stream::Tcp(_) | Stream::Unix(_))
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
            Stream::Unix(_) | Stream::Descriptors(_) | Stream::Dialling(_) | Stream::Failed => {}
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
    pub(crate) fn has_handshake(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Stream::Tls(_) => true,
            _ => false,
        }
    }

    /// A read that gives less than was asked for may leave some behind.
    pub(crate) fn may_read_short(&self) -> bool {
        matches!(self, Stream::Unix(_) | Stream::Descriptors(_)) || self.has_handshake()
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
            Stream::Descriptors(_) | Stream::Dialling(_) | Stream::Failed => false,
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
            Stream::Descriptors(descriptors) => descriptors.read(buf),
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
            Stream::Descriptors(descriptors) => descriptors.write(buf),
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
