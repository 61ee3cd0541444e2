//! The side that tells: sends the header once the stream below is connected, and gives way to it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;

use mio::Registry;

use super::header;
use crate::connection::clock::Nanos;
use crate::limits::Limits;
use crate::net::Host;
use crate::net::layer::{Layer, Opened};
use crate::net::stream::{Failed, Stream};

/// Whom a header is to name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whom {
    /// This end of the connection.
    Ourselves,
    /// A client: where it came from, and where it connected to; none where it has no such addresses.
    Client(Option<(SocketAddr, SocketAddr)>),
}

/// A stream that is being dialled, and the header that goes first.
pub(crate) struct Sending {
    below: Stream,
    whom: Whom,
    /// Where to, as far as that is known beforehand.
    target: Option<SocketAddr>,
    /// The stream below is connected.
    connected: bool,
    /// Which of a host's addresses that was.
    peer: Option<SocketAddr>,
    /// What is left of the header.
    unsent: Vec<u8>,
}

impl Sending {
    pub(in crate::net) fn new(below: Stream, whom: Whom, target: Option<SocketAddr>) -> Sending {
        Sending { below, whom, target, connected: false, peer: None, unsent: Vec::new() }
    }

    /// The stream that is being dialled.
    pub(crate) fn below(&self) -> &Stream {
        &self.below
    }
}

impl Layer for Sending {
    fn register(&mut self, registry: &Rc<Registry>, token: mio::Token) -> io::Result<()> {
        self.below.register(registry, token)
    }

    fn has_handshake(&self) -> bool {
        self.below.has_handshake()
    }

    fn handshake(&mut self, now: Nanos, spent: &mut Nanos) -> io::Result<Option<Opened>> {
        if !self.connected {
            let Some(opened) = self.below.handshake(now, spent)? else { return Ok(None) };
            (self.connected, self.peer) = (true, opened.peer);
            let target = self.peer.or(self.target);
            self.unsent = header::write(match self.whom {
                Whom::Ourselves => self.below.local_end().zip(target),
                Whom::Client(client) => client,
            });
        }
        while !self.unsent.is_empty() {
            match self.below.write(&self.unsent) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let below = std::mem::replace(&mut self.below, Stream::layer(Failed));
        Ok(Some(Opened { peer: self.peer, instead: Some(below) }))
    }

    fn due(&self) -> Option<Nanos> {
        self.below.due()
    }

    fn host(&self) -> Option<&Host> {
        self.below.host()
    }

    fn set_options(&mut self, limits: &Limits) {
        self.below.set_options(limits);
    }

    fn local_end(&self) -> Option<SocketAddr> {
        self.below.local_end()
    }

    fn has_unread(&mut self) -> bool {
        self.below.has_unread()
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.below.shutdown_write()
    }

    fn noted_error(&self) -> Option<io::Error> {
        self.below.noted_error()
    }

    fn fails_as_one(&self) -> bool {
        self.below.fails_as_one()
    }

    fn is_socket(&self) -> bool {
        self.below.is_socket()
    }

    fn reset(&mut self) {
        self.below.reset();
    }

    fn turn_away(&mut self, _notice: &[u8]) {
        self.below.turn_away(b"");
    }
}

impl Read for Sending {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::NotConnected.into())
    }
}

impl Write for Sending {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::NotConnected.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
