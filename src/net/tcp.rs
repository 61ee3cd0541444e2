//! TCP sockets: their options, dialled and bound.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use mio::Registry;
use mio::net::{TcpListener, TcpStream};
use rustix::io::ioctl_fionread;
use socket2::SockRef;

use super::layer::{Layer, Opened};
use super::listener::ListeningSocket;
use super::stream::BOTH;
use crate::connection::clock::Nanos;
use crate::limits::Limits;

/// Connections that the kernel completes while the loop is busy; it caps this at `somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// Bytes that the kernel takes of a connection before the peer's window has room for them. It would
/// take megabytes, where no limit of ours counts them: a thousand readers that never read would
/// cost gigabytes. What the window has room for is not bounded by this.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT_IN_KERNEL: u32 = 128 * 1024;

pub(super) fn connect_tcp(source: IpAddr, addr: SocketAddr) -> io::Result<TcpStream> {
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

impl Layer for TcpStream {
    fn register(&mut self, registry: &Rc<Registry>, token: mio::Token) -> io::Result<()> {
        registry.register(self, token, BOTH)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(self)
    }

    fn handshake(&mut self, _now: Nanos, _spent: &mut Nanos) -> io::Result<Option<Opened>> {
        if is_itself(self) {
            // Its port is the one that somebody is to listen at: no remains of it may stay.
            self.reset();
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        opened(self.take_error()?, self.peer_addr().map(drop))
    }

    fn set_options(&mut self, limits: &Limits) {
        // It fails only for a socket that is gone already, which the next read will tell.
        let _ = set_options(&SockRef::from(&*self), limits);
    }

    fn local_end(&self) -> Option<SocketAddr> {
        self.local_addr().ok()
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

    fn reset(&mut self) {
        let _ = SockRef::from(&*self).set_linger(Some(Duration::ZERO));
    }
}

/// Whether a socket that was told to connect has done so: neither an error nor a peer says that it
/// is still at it.
pub(super) fn opened(error: Option<io::Error>, peer: io::Result<()>) -> io::Result<Option<Opened>> {
    match (error, peer) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(Some(Opened::default())),
        (None, Err(e)) if e.kind() == io::ErrorKind::NotConnected => Ok(None),
        (None, Err(e)) => Err(e),
    }
}

/// Whether the system gave it, as its own port, the very one that it was to connect to. If nobody
/// listens there, TCP connects such a socket to itself.
fn is_itself(stream: &TcpStream) -> bool {
    let place = |addr: SocketAddr| (addr.ip(), addr.port());
    let peer = stream.peer_addr().map(place);
    peer.is_ok_and(|peer| stream.local_addr().is_ok_and(|local| place(local) == peer))
}

/// Output leaves at once rather than waiting for more; dead peers are found out; a byte that is
/// urgent keeps its place among the others, since nobody else asks for it.
pub(super) fn set_options(socket: &socket2::Socket, limits: &Limits) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    match limits.keepalive {
        Some(idle) => {
            // In whole seconds, at least one.
            let again = (idle / 3).max(Duration::from_secs(1));
            let keepalive = socket2::TcpKeepalive::new().with_time(idle);
            socket.set_tcp_keepalive(&keepalive.with_interval(again).with_retries(3))?;
        }
        // An earlier setting may be on.
        None => socket.set_keepalive(false)?,
    }
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket.set_tcp_user_timeout(limits.user_timeout)?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    socket.set_tcp_notsent_lowat(UNSENT_IN_KERNEL)?;
    Ok(())
}

pub(super) fn bind_tcp(addr: SocketAddr, limits: &Limits) -> io::Result<ListeningSocket> {
    use socket2::{Domain, Protocol, Type};
    let socket =
        socket2::Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    set_options(&socket, limits)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(ListeningSocket::Tcp(TcpListener::from_std(socket.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Listen;
    use crate::net::listener::ListeningSocket;
    use crate::net::stream::{Socket, Stream};

    #[test]
    fn accepted_and_dialled_sockets_have_the_options_of_the_limits() {
        let limits = Limits {
            keepalive: Some(Duration::from_secs(77)),
            user_timeout: Some(Duration::from_millis(12_345)),
            ..Limits::default()
        };
        let listen = Listen::at("127.0.0.1:0").unwrap();
        let mut server = ListeningSocket::bind(&listen, &limits).unwrap();
        let mut dialled = Stream::connect(None, &server.local_addr().unwrap()).unwrap();
        dialled.set_options(&limits);
        let accepted = loop {
            match server.accept() {
                Ok((stream, _)) => break stream,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        };
        for stream in [Stream::Socket(accepted), dialled] {
            let Stream::Socket(Socket::Tcp(stream)) = stream else { panic!("not TCP") };
            let socket = SockRef::from(&stream);
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
