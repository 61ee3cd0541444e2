//! The side that tells: sends the header once the stream below is connected, and gives way to it.

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;

use super::header;
use crate::connection::clock::Nanos;
use crate::net::layer::{HandshakeBelow, Layer, Opened, refuse_input_and_output};
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
    /// It tells which of a host's addresses is connected.
    handshake_below: HandshakeBelow,
    /// What is left of the header; none until the stream below is connected.
    unsent: Option<Vec<u8>>,
}

impl Sending {
    pub(in crate::net) fn new(below: Stream, whom: Whom, target: Option<SocketAddr>) -> Sending {
        let handshake_below = HandshakeBelow::new(true);
        Sending { below, whom, target, handshake_below, unsent: None }
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
        if !self.handshake_below.move_on(&mut self.below, now, spent)? {
            return Ok(None);
        }
        let peer = self.handshake_below.peer;
        let unsent = self.unsent.get_or_insert_with(|| {
            header::write(match self.whom {
                Whom::Ourselves => self.below.local_end().zip(peer.or(self.target)),
                Whom::Client(client) => client,
            })
        });
        while !unsent.is_empty() {
            match self.below.write(unsent) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => drop(unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let below = std::mem::replace(&mut self.below, Stream::layer(Failed));
        Ok(Some(Opened { peer, instead: Some(below) }))
    }
}

refuse_input_and_output!(Sending);
