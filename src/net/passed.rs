//! What a stream or a listening socket goes by on its way to another loop, and how it becomes one again.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use mio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use socket2::{Domain, SockRef, Type};

use super::Address;
use super::inherited::{Inherited, InheritedListener};
use super::listener::ListeningSocket;
use super::memory::{Pipe, SharedWire};
use super::stream::{Socket, Stream};
use super::tcp::BACKLOG;
use super::unix_path::UnixPath;
use crate::limits::Limits;

/// What is lent to the other loop of a stream, which stays what it is.
pub(crate) enum Passed<'s> {
    Socket(BorrowedFd<'s>),
    /// In a harness.
    Wire(SharedWire),
}

/// The same, as it has come.
pub(crate) enum Received {
    Socket(OwnedFd),
    Wire(SharedWire),
}

impl Stream {
    /// What another loop can make the same stream of; none of what has a state of its own, as layers do.
    pub(crate) fn passed(&self) -> Option<Passed<'_>> {
        match self {
            Stream::Socket(Socket::Tcp(socket)) => Some(Passed::Socket(socket.as_fd())),
            Stream::Socket(Socket::Unix(socket)) => Some(Passed::Socket(socket.as_fd())),
            Stream::Layer(_) => {
                self.downcast::<Pipe>()?.wire().map(|wire| Passed::Wire(wire.clone()))
            }
        }
    }
}

impl Received {
    /// Makes a stream of it.
    pub(crate) fn into_stream(self) -> io::Result<Stream> {
        let fd = match self {
            Received::Socket(fd) => fd,
            Received::Wire(wire) => return Ok(Stream::layer(Pipe::again(wire))),
        };
        match kind(&fd)? {
            Kind::Tcp => {
                let socket = std::net::TcpStream::from(fd);
                socket.set_nonblocking(true)?;
                Ok(TcpStream::from_std(socket).into())
            }
            Kind::Unix => {
                let socket = std::os::unix::net::UnixStream::from(fd);
                socket.set_nonblocking(true)?;
                Ok(UnixStream::from_std(socket).into())
            }
        }
    }
}

enum Kind {
    Tcp,
    Unix,
}

/// Which kind of socket it is, if it is one that a connection can run over.
fn kind(fd: &OwnedFd) -> io::Result<Kind> {
    let socket = SockRef::from(fd);
    if socket.r#type()? != Type::STREAM {
        return Err(ErrorKind::InvalidData.into());
    }
    match socket.local_addr()?.domain() {
        Domain::IPV4 | Domain::IPV6 => Ok(Kind::Tcp),
        Domain::UNIX => Ok(Kind::Unix),
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

/// The file of a Unix socket: its device and its number.
pub(crate) type Inode = (u64, u64);

impl ListeningSocket {
    /// The socket, and what it takes to own its path; none of one that no selector watches.
    pub(crate) fn passed(&self) -> Option<(BorrowedFd<'_>, Option<(Inode, BorrowedFd<'_>)>)> {
        match self {
            ListeningSocket::Tcp(listener) => Some((listener.as_fd(), None)),
            ListeningSocket::Unix(listener, path) => Some((listener.as_fd(), Some(path.passed()?))),
            ListeningSocket::Inherited(listener) => Some((listener.as_fd(), None)),
            ListeningSocket::Handed(_) => None,
        }
    }

    /// Makes a listening socket of what has come. A path is [owned](Self::own) later; that of a Unix socket
    /// without one is somebody else's.
    pub(crate) fn received(
        fd: OwnedFd,
        path: Option<(PathBuf, Inode, OwnedFd)>,
    ) -> io::Result<ListeningSocket> {
        // It listens already, which only one that does can do again.
        match (kind(&fd)?, path) {
            (Kind::Tcp, None) => {
                let listener = std::net::TcpListener::from(fd);
                SockRef::from(&listener).listen(BACKLOG)?;
                listener.set_nonblocking(true)?;
                Ok(ListeningSocket::Tcp(TcpListener::from_std(listener)))
            }
            (Kind::Unix, Some((path, inode, lock))) => {
                let listener = std::os::unix::net::UnixListener::from(fd);
                SockRef::from(&listener).listen(BACKLOG)?;
                listener.set_nonblocking(true)?;
                let path = UnixPath::received(path, inode, lock);
                Ok(ListeningSocket::Unix(UnixListener::from_std(listener), path))
            }
            (Kind::Unix, None) => {
                let listener = std::os::unix::net::UnixListener::from(fd);
                SockRef::from(&listener).listen(BACKLOG)?;
                let (socket, address) = Inherited::from_unix(listener).map_err(io::Error::other)?;
                InheritedListener::new(&Rc::new(socket), &address, &Limits::default())
                    .map(ListeningSocket::Inherited)
            }
            (Kind::Tcp, Some(_)) => Err(ErrorKind::InvalidData.into()),
        }
    }

    /// From now on its path is removed with it, or not: then it is another process's.
    pub(crate) fn own(&mut self, owns: bool) {
        if let ListeningSocket::Unix(_, path) = self {
            path.own(owns);
        }
    }

    /// Gives its file this mode, unless it is none.
    pub(crate) fn set_mode(&self, mode: Option<u32>) -> io::Result<()> {
        match self {
            ListeningSocket::Unix(_, path) => path.set_mode(mode),
            _ => Ok(()),
        }
    }
}

/// A socket of datagrams, as it has come.
pub(crate) fn datagrams(fd: OwnedFd) -> io::Result<UdpSocket> {
    let socket = SockRef::from(&fd);
    let internet = matches!(socket.local_addr()?.domain(), Domain::IPV4 | Domain::IPV6);
    if socket.r#type()? != Type::DGRAM || !internet {
        return Err(ErrorKind::InvalidData.into());
    }
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(fd.into()))
}

/// Whether a socket that listens there will do where this address is asked for: port 0 asks for any.
pub(crate) fn is_as_asked(asked: &Address, there: &Address) -> bool {
    match (asked.as_socket(), there.as_socket()) {
        (Some(asked), Some(there)) if asked.port() == 0 => asked.ip() == there.ip(),
        _ => asked == there,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_socket_is_the_same_one_in_another_place() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let stream = listener.accept().unwrap().0;
        let (mut one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        for (fd, client) in
            [(OwnedFd::from(stream), &mut client as &mut dyn Both), (other.into(), &mut one)]
        {
            let mut again = Received::Socket(fd).into_stream().unwrap();
            assert!(matches!(again.passed(), Some(Passed::Socket(_))));
            assert_eq!(again.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            again.write_all(b"hello").unwrap();
            let mut got = [0; 5];
            client.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"hello");
        }
    }

    trait Both: Read + Write {}
    impl<T: Read + Write> Both for T {}

    #[test]
    fn what_is_no_socket_for_it_is_refused() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(datagrams(udp.try_clone().unwrap().into()).is_ok());
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(datagrams(tcp.into()).is_err());
        let (pipe, _writer) = io::pipe().unwrap();
        for fd in [OwnedFd::from(udp), pipe.into()] {
            let again = fd.try_clone().unwrap();
            assert!(Received::Socket(fd).into_stream().is_err());
            assert!(ListeningSocket::received(again, None).is_err());
        }
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(ListeningSocket::received(one.into(), None).is_err(), "it does not listen");
        let path = Some(("/nowhere".into(), (0, 0), io::pipe().unwrap().0.into()));
        assert!(ListeningSocket::received(other.into(), path).is_err(), "it does not listen");
    }

    #[test]
    fn any_port_is_one_of_that_address() {
        let address = |text: &str| Address::Tcp(text.parse().unwrap());
        let there = address("127.0.0.1:9");
        assert!(is_as_asked(&address("127.0.0.1:0"), &there) && is_as_asked(&there, &there));
        assert!(!is_as_asked(&address("127.0.0.2:0"), &there));
        assert!(!is_as_asked(&address("127.0.0.1:8"), &there));
        assert!(!is_as_asked(&Address::Unix("/a".into()), &there));
    }
}
