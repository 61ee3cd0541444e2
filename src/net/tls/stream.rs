//! A server's end of TLS over another stream.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use mio::Registry;
use rustls::{ServerConfig, ServerConnection};

use super::records::{Counted, Records};
use crate::connection::clock::Nanos;
use crate::limits::Limits;
use crate::net::Host;
use crate::net::layer::{Layer, Opened};
use crate::net::stream::Stream;

/// Reads of the socket, of 4 KiB, that may give no plaintext before the others have their turn: most
/// of a record of the largest size, which takes one more.
const FRUITLESS_READS: usize = 4;

/// A stream that speaks TLS over another one, as non-blocking as that is.
///
/// What is taken for writing and the stream below refuses waits in here, some 64 KiB at the most.
/// Reading can make something wait as well (an alert).
pub(crate) struct TlsStream {
    inner: Stream,
    tls: ServerConnection,
    /// The handshake of the stream below is not done.
    opening: bool,
    /// What that handshake says of the peer.
    peer: Option<SocketAddr>,
    /// The last read gave nothing and there may be more all the same.
    more: bool,
    /// Something went out since this was last asked for.
    moved: bool,
    /// Bytes read of the socket since this was last asked for.
    pulled: usize,
    records: Records,
    /// Since when a record has been unfinished, as far as that was asked for.
    since: Option<Nanos>,
    /// What came is no TLS. The plaintext before it is still to be read.
    broken: bool,
    /// Why the socket takes nothing any more. What came before that is still to be read.
    refused: Option<ErrorKind>,
}

impl TlsStream {
    /// Takes over a stream that was accepted.
    pub(in crate::net) fn new(inner: Stream, config: Arc<ServerConfig>) -> io::Result<TlsStream> {
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(TlsStream {
            opening: inner.has_handshake(),
            inner,
            tls,
            peer: None,
            more: false,
            moved: false,
            pulled: 0,
            records: Records::default(),
            since: None,
            broken: false,
            refused: None,
        })
    }

    /// Moves TLS's own handshake on; true when it is done.
    fn shake_hands(&mut self) -> io::Result<bool> {
        loop {
            // If it fails, what has come may be the rest of the handshake and lines after it; the
            // tickets that the client did not wait for are not worth them.
            let _ = self.push();
            if !self.tls.is_handshaking() {
                return Ok(true);
            }
            match self.pull() {
                Ok(0) => return Err(self.refused.unwrap_or(ErrorKind::UnexpectedEof).into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.refused.map_or(Ok(false), |kind| Err(kind.into()));
                }
                // What is wrong came after it; the reads will find that out.
                Err(_) if self.broken && !self.tls.is_handshaking() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// One read of the socket; 0 at its end.
    fn pull(&mut self) -> io::Result<usize> {
        let (from, records) = (&mut self.inner, &mut self.records);
        let mut from = Counted { from, records, completed: false };
        let count = self.tls.read_tls(&mut from)?;
        if from.completed {
            self.since = None;
        }
        self.pulled += count;
        // In debug builds rustls panics over what is wrong after our goodbye, for it has no alert
        // left to send: https://github.com/rustls/rustls/issues/959.
        match catch_unwind(AssertUnwindSafe(|| self.tls.process_new_packets())) {
            Ok(Ok(_)) => return Ok(count),
            Ok(Err(error)) => log::debug!("TLS: {error}"),
            Err(_) => log::debug!("TLS: bad records after the goodbye"),
        }
        self.broken = true;
        // The client is to learn why, if it still listens.
        let _ = self.push().and_then(|()| self.inner.shutdown_write());
        Err(ErrorKind::InvalidData.into())
    }

    /// Writes what waits.
    fn push(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            let failed = match self.refused {
                Some(kind) => return Err(kind.into()),
                None => match self.tls.write_tls(&mut self.inner) {
                    Ok(0) => ErrorKind::WriteZero,
                    Ok(_) => {
                        self.moved = true;
                        continue;
                    }
                    Err(error) => error.kind(),
                },
            };
            match failed {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => return Err(failed.into()),
                _ => self.refused = Some(failed),
            }
        }
        // A layer below may hold some of it back.
        self.inner.flush()
    }
}

impl Layer for TlsStream {
    fn register(&mut self, registry: &Rc<Registry>, token: mio::Token) -> io::Result<()> {
        self.inner.register(registry, token)
    }

    fn has_handshake(&self) -> bool {
        true
    }

    fn handshake(&mut self, now: Nanos) -> io::Result<Option<Opened>> {
        if self.opening {
            let Some(opened) = self.inner.handshake(now)? else { return Ok(None) };
            (self.opening, self.peer) = (false, opened.peer);
        }
        let done = self.shake_hands()?;
        Ok(done.then(|| Opened { peer: self.peer.take(), instead: None }))
    }

    fn names_peer(&self) -> bool {
        self.inner.names_peer()
    }

    fn due(&self) -> Option<Nanos> {
        self.inner.due()
    }

    fn host(&self) -> Option<&Host> {
        self.inner.host()
    }

    fn set_options(&mut self, limits: &Limits) {
        self.inner.set_options(limits);
    }

    fn local_end(&self) -> Option<SocketAddr> {
        self.inner.local_end()
    }

    fn may_read_short(&self) -> bool {
        true
    }

    fn has_more(&self) -> bool {
        self.more
    }

    fn has_unread(&mut self) -> bool {
        self.tls.reader().fill_buf().is_ok_and(|bytes| !bytes.is_empty()) || self.inner.has_unread()
    }

    fn read_raw(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.raw().read(buf)
    }

    /// That is what `close_notify` is for.
    fn announces_end(&self) -> bool {
        true
    }

    /// A record of 23 bytes may hold one of plaintext.
    fn take_cost(&mut self) -> usize {
        let below = self.inner.cost(0);
        std::mem::take(&mut self.pulled).max(below)
    }

    fn unfinished_since(&mut self, now: Nanos) -> Option<Nanos> {
        let unfinished = self.records.is_unfinished();
        let since = unfinished.then(|| *self.since.get_or_insert(now));
        // If the stream below has begun something, this layer may not have seen any of it.
        since.into_iter().chain(self.inner.unfinished_since(now)).min()
    }

    fn unsent(&self) -> bool {
        (self.tls.wants_write() || self.inner.unsent()) && self.refused.is_none()
    }

    fn take_moved(&mut self) -> bool {
        // Both are to be asked.
        std::mem::take(&mut self.moved) | self.inner.take_moved()
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.push()?;
        self.inner.shutdown_write()
    }

    fn noted_error(&self) -> Option<io::Error> {
        self.inner.noted_error()
    }

    fn fails_as_one(&self) -> bool {
        self.inner.fails_as_one()
    }

    fn is_socket(&self) -> bool {
        self.inner.is_socket()
    }

    fn reset(&mut self) {
        self.inner.reset();
    }

    fn turn_away(&mut self, _notice: &[u8]) {
        self.inner.turn_away(b"");
    }
}

/// Plaintext; 0 after the client has said that nothing more comes. An end of the socket without
/// that is `UnexpectedEof`: somebody may have cut the stream.
impl Read for TlsStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.more = false;
        for _ in 0..FRUITLESS_READS {
            match self.tls.reader().read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            if self.broken {
                return Err(ErrorKind::InvalidData.into());
            }
            match self.pull() {
                Err(_) if self.broken => {}
                outcome => drop(outcome?),
            }
        }
        self.more = true;
        Err(ErrorKind::WouldBlock.into())
    }
}

impl Write for TlsStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // While something waits nothing more is taken, so that what waits is bounded.
        self.push()?;
        let count = self.tls.writer().write(buf)?;
        match self.push() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(count),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}
