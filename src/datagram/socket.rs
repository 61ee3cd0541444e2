//! A UDP socket, or what stands for it in a test: the rest of the wing sees a [`Socket`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use mio::net::UdpSocket;
use mio::{Interest, Registry};

use super::DatagramOptions;
use crate::error::Error;
use crate::net::Address;
use crate::reactor::token::Token;

/// The largest payload there is, that of IPv6; that of IPv4 is 65,507.
pub(crate) const LARGEST: usize = 65_527;

/// A non-blocking source and sink of datagrams.
pub(crate) enum Socket {
    Udp(UdpSocket),
    /// A test's, without a socket.
    Wire(SharedWire),
}

impl Socket {
    /// Binds a socket and has it join its groups. Gives it with its real port.
    pub(crate) fn bind(
        address: SocketAddr,
        options: &DatagramOptions,
    ) -> Result<(Socket, SocketAddr), Error> {
        let wrong = |error| Error::listen(&Address::Tcp(address), error);
        let socket = open(address, options).map_err(wrong)?;
        if let (true, Some(interface)) = (address.is_ipv4(), options.interface) {
            socket.set_multicast_if_v4(&interface).map_err(|source| Error::Listen {
                address: Address::Tcp(address),
                why: format!(
                    "this machine has no interface with the address {interface}; name another \
                     one, as 127.0.0.1 for this machine alone"
                ),
                source,
            })?;
        }
        for group in options.groups_at(address) {
            join(&socket, group, address, options).map_err(|source| Error::Listen {
                address: Address::Tcp(address),
                why: format!(
                    "cannot join the group {group}: {source}; name another interface, as \
                     127.0.0.1 for this machine alone"
                ),
                source,
            })?;
        }
        let socket = UdpSocket::from_std(socket.into());
        let local = socket.local_addr().map_err(wrong)?;
        Ok((Socket::Udp(socket), local))
    }

    /// One that another loop has bound. Its options and its groups are those of there.
    pub(crate) fn inherited(socket: UdpSocket) -> Result<(Socket, SocketAddr), Error> {
        let local = socket.local_addr().map_err(Error::io("cannot use an inherited socket"))?;
        Ok((Socket::Udp(socket), local))
    }

    /// What it goes by to another loop.
    pub(crate) fn passed(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Socket::Udp(socket) => Some(socket.as_fd()),
            Socket::Wire(_) => None,
        }
    }

    /// Takes it out of the selector, which would go on to watch it while another loop has it.
    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Socket::Udp(socket) => registry.deregister(socket),
            Socket::Wire(_) => Ok(()),
        }
    }

    /// Registers once, for both directions; under edge triggers nothing has to change later.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Socket::Udp(socket) => {
                registry.register(socket, token.into(), Interest::READABLE | Interest::WRITABLE)
            }
            Socket::Wire(_) => Ok(()),
        }
    }

    pub(crate) fn send_to(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Udp(socket) => socket.send_to(bytes, to).map(drop),
            Socket::Wire(wire) => wire.borrow_mut().send_to(to, bytes),
        }
    }

    /// Receives one datagram; gives its length and its sender. The system cuts off what does not fit
    /// into the buffer, and does not say so.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Socket::Udp(socket) => socket.recv_from(buffer),
            Socket::Wire(wire) => wire.borrow_mut().receive(buffer),
        }
    }
}

/// A bound socket with these options, which has not joined any group.
fn open(address: SocketAddr, options: &DatagramOptions) -> io::Result<socket2::Socket> {
    use socket2::{Domain, Protocol, Type};
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_broadcast(options.broadcast)?;
    if options.shared || address.ip().is_multicast() {
        socket.set_reuse_address(true)?;
        // Other systems need this one too. On Linux it would also spread unicast among the sockets.
        #[cfg(not(target_os = "linux"))]
        socket.set_reuse_port(true)?;
    }
    let ttl = u32::from(options.multicast_ttl);
    match address {
        SocketAddr::V4(_) => {
            socket.set_multicast_ttl_v4(ttl)?;
            socket.set_multicast_loop_v4(options.multicast_loop)?;
            // Otherwise it hears every group that any socket on this machine has joined.
            #[cfg(target_os = "linux")]
            socket.set_multicast_all_v4(false)?;
        }
        SocketAddr::V6(address) => {
            socket.set_multicast_hops_v6(ttl)?;
            socket.set_multicast_loop_v6(options.multicast_loop)?;
            #[cfg(target_os = "linux")]
            socket.set_multicast_all_v6(false)?;
            socket.set_multicast_if_v6(address.scope_id())?;
        }
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn join(
    socket: &socket2::Socket,
    group: IpAddr,
    address: SocketAddr,
    options: &DatagramOptions,
) -> io::Result<()> {
    match (group, address) {
        (IpAddr::V4(group), SocketAddr::V4(_)) => {
            let any = std::net::Ipv4Addr::UNSPECIFIED;
            socket.join_multicast_v4(&group, &options.interface.unwrap_or(any))
        }
        (IpAddr::V6(group), SocketAddr::V6(address)) => {
            socket.join_multicast_v6(&group, address.scope_id())
        }
        // `DatagramOptions::check` has refused such a group.
        _ => Err(ErrorKind::InvalidInput.into()),
    }
}

/// A wire that both ends hold: the loop and the test.
pub(crate) type SharedWire = Rc<RefCell<Wire>>;

/// Behaves as a socket does, in memory, for the harness.
#[derive(Default)]
pub(crate) struct Wire {
    /// What is to be received: datagrams, and errors between them.
    pub(crate) inbound: VecDeque<Result<(SocketAddr, Vec<u8>), ErrorKind>>,
    /// What was sent, and where to.
    pub(crate) outbound: Vec<(SocketAddr, Vec<u8>)>,
    /// How many more datagrams can be sent; none for any number.
    pub(crate) room: Option<usize>,
    /// The error that sending fails with.
    pub(crate) refusal: Option<ErrorKind>,
    /// The events that are to be delivered.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Wire {
    fn send_to(&mut self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        if let Some(refusal) = self.refusal {
            return Err(refusal.into());
        }
        if bytes.len() > LARGEST {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        match &mut self.room {
            Some(0) => return Err(ErrorKind::WouldBlock.into()),
            Some(room) => *room -= 1,
            None => {}
        }
        self.outbound.push((to, bytes.to_vec()));
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (from, bytes) = self.inbound.pop_front().ok_or(ErrorKind::WouldBlock)??;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok((count, from))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn options_reach_the_socket() {
        let options = DatagramOptions {
            interface: Some(Ipv4Addr::LOCALHOST),
            multicast_ttl: 7,
            multicast_loop: false,
            broadcast: true,
            ..DatagramOptions::default()
        };
        let bound = Socket::bind(SocketAddr::from(([127, 0, 0, 1], 0)), &options).unwrap();
        let (Socket::Udp(socket), _) = bound else { panic!("not UDP") };
        let socket = socket2::SockRef::from(&socket);
        assert_eq!(socket.multicast_if_v4().unwrap(), Ipv4Addr::LOCALHOST);
        assert_eq!(socket.multicast_ttl_v4().unwrap(), 7);
        assert!(!socket.multicast_loop_v4().unwrap() && socket.broadcast().unwrap());
        assert!(!socket.reuse_address().unwrap());

        let shared = DatagramOptions { shared: true, ..options };
        let socket = open("[::1]:0".parse().unwrap(), &shared).unwrap();
        assert_eq!(socket.multicast_hops_v6().unwrap(), 7);
        assert!(!socket.multicast_loop_v6().unwrap() && socket.broadcast().unwrap());
        assert!(socket.reuse_address().unwrap());

        let usual = DatagramOptions::default();
        let socket = open(SocketAddr::from(([127, 0, 0, 1], 0)), &usual).unwrap();
        assert_eq!(socket.multicast_ttl_v4().unwrap(), 1);
        assert!(socket.multicast_loop_v4().unwrap() && !socket.broadcast().unwrap());
    }
}
