//! The side that is told: reads the header and gives way to the stream below.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::rc::Rc;

use super::header::{self, Progress};
use super::{NAME, Rejected, Rules};
use crate::connection::clock::Nanos;
use crate::net::layer::{Layer, Opened, refuse_input_and_output};
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
    fn below(&self) -> Option<&Stream> {
        Some(&self.below)
    }

    fn below_mut(&mut self) -> Option<&mut Stream> {
        Some(&mut self.below)
    }

    fn has_handshake(&self) -> bool {
        true
    }

    fn handshaking(&self) -> Option<&'static str> {
        self.below.handshaking().or(Some(NAME))
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
}

refuse_input_and_output!(Receiving);
