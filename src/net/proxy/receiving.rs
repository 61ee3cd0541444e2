//! The side that is told: reads the header and gives way to the stream below.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;

use mio::Registry;

use super::header::{self, Progress};
use super::{Rejected, Rules};
use crate::connection::clock::Nanos;
use crate::limits::Limits;
use crate::net::Host;
use crate::net::layer::{Layer, Opened};
use crate::net::stream::{Failed, Stream};

/// A newcomer whose header is still to be read.
pub(super) struct Receiving {
    below: Stream,
    /// The handshake of the stream below is not done.
    opening: bool,
    /// What that handshake says of the peer.
    peer: Option<SocketAddr>,
    /// What has come of the header.
    header: Vec<u8>,
    rules: Rc<Rules>,
}

impl Receiving {
    pub(super) fn new(below: Stream, rules: Rc<Rules>) -> Receiving {
        let opening = below.has_handshake();
        Receiving { below, opening, peer: None, header: Vec::new(), rules }
    }
}

impl Layer for Receiving {
    fn register(&mut self, registry: &Rc<Registry>, token: mio::Token) -> io::Result<()> {
        self.below.register(registry, token)
    }

    fn has_handshake(&self) -> bool {
        true
    }

    fn handshake(&mut self, now: Nanos, spent: &mut Nanos) -> io::Result<Option<Opened>> {
        if self.opening {
            let Some(opened) = self.below.handshake(now, spent)? else { return Ok(None) };
            (self.opening, self.peer) = (false, opened.peer);
        }
        let origin = loop {
            let wanted = match header::read(&self.header).map_err(Rejected::Header)? {
                Progress::Complete(origin) => break origin,
                Progress::Wants(count) => count,
            };
            // Not one byte more: what follows the header is for the stream below.
            let mut buf = [0; header::LONGEST];
            match self.below.read(&mut buf[..wanted]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.header.extend(&buf[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        };
        let peer = self.rules.judge_peer(origin)?.or(self.peer);
        let below = std::mem::replace(&mut self.below, Stream::layer(Failed));
        Ok(Some(Opened { peer, instead: Some(below) }))
    }

    fn names_peer(&self) -> bool {
        true
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

    /// There is no header in this direction, so the client hears it.
    fn turn_away(&mut self, notice: &[u8]) {
        self.below.turn_away(notice);
    }
}

impl Read for Receiving {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::NotConnected.into())
    }
}

impl Write for Receiving {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::NotConnected.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
