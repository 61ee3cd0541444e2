//! TCP sockets: their options, dialled and bound.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};

use super::listener::ListeningSocket;
use crate::limits::Limits;

/// Newcomers that the kernel completes while the loop is busy; it caps this at `somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

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

/// Output leaves at once rather than waiting for more; dead peers are found out; a byte that is
/// urgent keeps its place among the others, since nobody else asks for it.
pub(super) fn set_options(socket: &socket2::Socket, limits: &Limits) -> io::Result<()> {
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
    use crate::net::Address;
    use crate::net::listener::ListeningSocket;
    use crate::net::stream::Stream;

    #[test]
    fn accepted_and_dialled_sockets_have_the_options_of_the_limits() {
        let limits = Limits {
            keepalive: Some(Duration::from_secs(77)),
            user_timeout: Some(Duration::from_millis(12_345)),
            ..Limits::default()
        };
        let address = Address::Tcp(([127, 0, 0, 1], 0).into());
        let server = ListeningSocket::bind(&address, None, &limits).unwrap();
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
