//! What a connection runs over: a plain socket, or a [`Layer`].

use std::any::Any;
use std::io::{self, IoSlice, Read, Write};
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::os::fd::BorrowedFd;

use mio::Interest;
use mio::net::{TcpStream, UnixStream};

use super::Address;
use super::descriptors::Descriptors;
use super::happy_eyeballs::Dialling;
use super::layer::{Layer, Opened, refuse_input_and_output};
use super::tcp::connect_tcp;
use crate::connection::clock::Nanos;
use crate::connection::connection::StreamTraits;
use crate::connection::rate::Share;

/// The two ends of a connection's bytes, non-blocking. It keeps the contract of [`Layer`].
///
/// Plain sockets lie inline and are called directly. Everything else is boxed and called through
/// its table, so that another layer is nothing new here. One level of `enum` more keeps it at 16
/// bytes: a fat pointer leaves room for one other variant and no tag.
pub(crate) enum Stream {
    Socket(Socket),
    Layer(Box<dyn Layer>),
}

/// A socket without anything over it.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Nothing: connecting failed at once, and the connection exists only to be told of it.
pub(crate) struct Failed;

/// What a socket is registered for.
pub(super) const BOTH: Interest = {
    let both = Interest::READABLE.add(Interest::WRITABLE);
    // Tells of urgent data, at which a read stops short.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let both = both.add(Interest::PRIORITY);
    both
};

/// Asks whichever it is, without a detour by its table.
macro_rules! ask {
    ($stream:expr, $it:ident => $question:expr) => {
        match $stream {
            Stream::Socket(Socket::Tcp($it)) => $question,
            Stream::Socket(Socket::Unix($it)) => $question,
            Stream::Layer($it) => $question,
        }
    };
}

impl Stream {
    /// Begins to connect; the socket becomes writable when that is done or has failed.
    pub(crate) fn connect(source: Option<IpAddr>, address: &Address) -> io::Result<Stream> {
        match (address, source) {
            (Address::Tcp(addr), None) => TcpStream::connect(*addr).map(Stream::from),
            (Address::Tcp(addr), Some(source)) => connect_tcp(source, *addr).map(Stream::from),
            (Address::Host(host), source) => Ok(Stream::layer(Dialling::new(host, source))),
            (Address::Unix(path), None) => UnixStream::connect(path).map(Stream::from),
            (Address::Unix(_), Some(_)) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Makes one of two descriptors, which stay what they are.
    pub(crate) fn adopt(input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> io::Result<Stream> {
        Descriptors::new(input, output).map(Stream::layer)
    }

    pub(crate) fn layer(layer: impl Layer) -> Stream {
        Stream::Layer(Box::new(layer))
    }

    /// The layer itself, for whoever knows what it is.
    pub(crate) fn downcast<L: Layer>(&self) -> Option<&L> {
        (&**self as &dyn Any).downcast_ref()
    }

    /// What a connection over it has to know of it.
    pub(crate) fn traits(&self) -> StreamTraits {
        StreamTraits { read_on: self.may_read_short(), descriptors: !self.is_socket() }
    }

    /// As [`Layer::handshake`]; what is to take its place has done so.
    pub(crate) fn handshake(
        &mut self,
        now: Nanos,
        spent: &mut Nanos,
    ) -> io::Result<Option<Opened>> {
        let Some(opened) = ask!(self, it => it.handshake(now, spent))? else { return Ok(None) };
        if let Some(stream) = opened.instead {
            *self = stream;
        }
        Ok(Some(Opened { peer: opened.peer, instead: None }))
    }

    /// Whether a layer lies over a socket, or in the place of one.
    #[inline]
    pub(crate) fn is_layer(&self) -> bool {
        matches!(self, Stream::Layer(_))
    }

    /// What `count` bytes of input, just read, cost of a turn's share: at least themselves.
    #[inline]
    pub(crate) fn cost(&mut self, count: usize) -> Share {
        let cost = ask!(self, it => it.take_cost());
        Share { bytes: cost.bytes.max(count), ..cost }
    }

    /// Where to read what is thrown away.
    pub(crate) fn raw(&mut self) -> Raw<'_> {
        Raw(self)
    }
}

/// The questions of [`Layer`] that are asked for every read or write.
impl Stream {
    pub(crate) fn unfinished_since(&self) -> Option<Nanos> {
        ask!(self, it => it.unfinished_since())
    }

    #[inline]
    pub(crate) fn kept(&self) -> usize {
        ask!(self, it => it.kept())
    }
}

/// The other questions.
impl Deref for Stream {
    type Target = dyn Layer;

    fn deref(&self) -> &dyn Layer {
        match self {
            Stream::Socket(Socket::Tcp(socket)) => socket,
            Stream::Socket(Socket::Unix(socket)) => socket,
            Stream::Layer(layer) => &**layer,
        }
    }
}

impl DerefMut for Stream {
    fn deref_mut(&mut self) -> &mut dyn Layer {
        match self {
            Stream::Socket(Socket::Tcp(socket)) => socket,
            Stream::Socket(Socket::Unix(socket)) => socket,
            Stream::Layer(layer) => &mut **layer,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        ask!(self, it => it.read(buf))
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        ask!(self, it => it.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        ask!(self, it => it.write_vectored(bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        ask!(self, it => it.flush())
    }
}

/// The input of a stream as [`Layer::read_raw`] gives it.
pub(crate) struct Raw<'s>(&'s mut Stream);

impl Read for Raw<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_raw(buf)
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Stream {
        Stream::Socket(Socket::Tcp(stream))
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Stream {
        Stream::Socket(Socket::Unix(stream))
    }
}

impl Layer for Failed {
    fn handshake(&mut self, _now: Nanos, _spent: &mut Nanos) -> io::Result<Option<Opened>> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

refuse_input_and_output!(Failed);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_makes_a_plain_socket_no_larger() {
        // In debug builds mio adds 8 bytes to a socket.
        let size = size_of::<Stream>();
        assert!(size <= if cfg!(debug_assertions) { 24 } else { 16 }, "{size} bytes");
    }
}
