//! Many clients at once.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::util::PATIENCE;

/// Clients with one source address: each has some 28,000 ports, and some of them rest.
const PER_SOURCE: usize = 4000;
/// Descriptors that a test has for other things than its swarm.
const SPARE: usize = 600;

/// The size of an attack: the first one, or the other where `HOSTILE=full`.
pub fn size(short: usize, full: usize) -> usize {
    if std::env::var("HOSTILE").is_ok_and(|value| value == "full") { full } else { short }
}

/// So many connections at once, or as many as the limit of descriptors allows.
pub fn at_once(wanted: usize) -> usize {
    let limit = rlimit::increase_nofile_limit(20_000).unwrap() as usize;
    wanted.min(limit.saturating_sub(SPARE))
}

/// The `number`th client, from one of several addresses.
pub fn join(addr: SocketAddr, number: usize) -> TcpStream {
    let source = Ipv4Addr::new(127, 0, 1, (number / PER_SOURCE % 250) as u8 + 1);
    from(source, addr)
}

pub fn from(source: Ipv4Addr, addr: SocketAddr) -> TcpStream {
    dial(source, addr, None)
}

/// One for whom the kernel keeps little of what it does not read.
pub fn narrow(addr: SocketAddr, number: usize) -> TcpStream {
    let source = Ipv4Addr::new(127, 0, 2, (number / PER_SOURCE % 250) as u8 + 1);
    dial(source, addr, Some(4096))
}

fn dial(source: Ipv4Addr, addr: SocketAddr, receive: Option<usize>) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if let Some(bytes) = receive {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&addr.into()).unwrap_or_else(|error| panic!("{source} to {addr}: {error}"));
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Makes dropping it a reset.
pub fn will_reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}
