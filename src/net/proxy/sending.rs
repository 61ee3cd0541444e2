//! The side that tells: sends the header once the stream below is connected, and gives way to it.

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;

use super::header;
use crate::connection::clock::Nanos;
use crate::net::layer::{Layer, Opened, refuse_input_and_output};
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
}

impl Layer for Sending {
    fn below(&self) -> Option<&Stream> {
        Some(&self.below)
    }

    fn below_mut(&mut self) -> Option<&mut Stream> {
        Some(&mut self.below)
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
}

refuse_input_and_output!(Sending);
