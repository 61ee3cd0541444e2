//! Either end of TLS over another stream.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use rustls::Connection;

use super::NAME;
use super::records::{Counted, Records};
use super::sentences::Refused;
use crate::connection::clock::{Nanos, nanos};
use crate::connection::rate::Share;
use crate::net::layer::{Layer, Opened};
use crate::net::stream::Stream;

/// Reads of the socket, of 4 KiB, that may give no plaintext before the others have their turn: most
/// of a record of the largest size, which takes one more.
const FRUITLESS_READS: usize = 4;

/// Room that rustls makes for each read of the socket.
const READ: usize = 4096;

/// The largest buffer that rustls has for what is unfinished.
const LARGEST: usize = 64 * 1024;

/// A stream that speaks TLS over another one, as non-blocking as that is.
///
/// What is taken for writing and the stream below refuses waits in here, some 64 KiB at the most.
/// Reading can make something wait as well (an alert).
pub(crate) struct TlsStream {
    inner: Stream,
    tls: Connection,
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
    /// Bytes that came in and have led to nothing yet: of a record that is unfinished, of a message
    /// of the handshake that is.
    undone: usize,
    /// Bytes of plaintext that were not read.
    plain: usize,
    /// Bytes of ciphertext that are not out.
    cipher: usize,
    /// Since when a record has been unfinished, by the time that was told.
    since: Option<Nanos>,
    /// What is wrong with what came. The plaintext before it is still to be read.
    broken: Option<Box<str>>,
    /// Why the socket takes nothing any more. What came before that is still to be read.
    refused: Option<ErrorKind>,
}

impl TlsStream {
    /// Takes over a stream that was accepted, or is being dialled.
    pub(in crate::net) fn new(inner: Stream, tls: Connection) -> TlsStream {
        TlsStream {
            // A socket that is being dialled has none and is not open either.
            opening: inner.has_handshake() || matches!(tls, Connection::Client(_)),
            inner,
            tls,
            peer: None,
            more: false,
            moved: false,
            pulled: 0,
            records: Records::default(),
            undone: 0,
            plain: 0,
            cipher: 0,
            since: None,
            broken: None,
            refused: None,
        }
    }

    /// How many tickets for later sessions have come. They lead to nothing that could be read.
    fn tickets(&self) -> u32 {
        match &self.tls {
            Connection::Client(client) => client.tls13_tickets_received(),
            Connection::Server(_) => 0,
        }
    }

    /// Why the peer ended it before it began.
    fn cut_short(&self) -> io::Error {
        match (self.refused, &self.tls) {
            (Some(kind), _) => kind.into(),
            (None, Connection::Server(_)) => ErrorKind::UnexpectedEof.into(),
            (None, Connection::Client(_)) => {
                let why = "it ended the connection during the handshake; does it speak TLS?";
                io::Error::new(ErrorKind::UnexpectedEof, why)
            }
        }
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
                Ok(0) => return Err(self.cut_short()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.refused.map_or(Ok(false), |kind| Err(kind.into()));
                }
                // What is wrong came after it; the reads will find that out.
                Err(_) if self.broken.is_some() && !self.tls.is_handshaking() => {}
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
        self.undone += count;
        let (handshaking, tickets) = (self.tls.is_handshaking(), self.tickets());
        // In debug builds rustls panics over what is wrong after our goodbye, for it has no alert
        // left to send: https://github.com/rustls/rustls/issues/959.
        let error = match catch_unwind(AssertUnwindSafe(|| self.tls.process_new_packets())) {
            Ok(Ok(state)) => {
                let (plain, cipher) = (state.plaintext_bytes_to_read(), state.tls_bytes_to_write());
                let shaken = handshaking && !self.tls.is_handshaking();
                let ticket = self.tickets() > tickets;
                if shaken || ticket || plain > self.plain || cipher > self.cipher {
                    // What it keeps of messages between records it keeps in front of all others.
                    self.undone = self.records.unfinished();
                }
                (self.plain, self.cipher) = (plain, cipher);
                return Ok(count);
            }
            Ok(Err(error)) => Refused::told(&error),
            Err(_) => {
                io::Error::new(ErrorKind::InvalidData, "bad records after the goodbye of TLS")
            }
        };
        self.broken = Some(error.to_string().into());
        // The peer is to learn why, if it still listens.
        let _ = self.push().and_then(|()| self.inner.shutdown_write());
        Err(error)
    }

    /// Writes what waits, and notes how much is left.
    fn push(&mut self) -> io::Result<()> {
        let outcome = self.push_all();
        self.cipher = match self.tls.wants_write() {
            false => 0,
            // With nothing new to process this only says how much there is.
            true => match self.tls.process_new_packets() {
                Ok(state) => state.tls_bytes_to_write(),
                Err(_) => self.cipher,
            },
        };
        outcome
    }

    fn push_all(&mut self) -> io::Result<()> {
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
    fn below(&self) -> Option<&Stream> {
        Some(&self.inner)
    }

    fn below_mut(&mut self) -> Option<&mut Stream> {
        Some(&mut self.inner)
    }

    fn has_handshake(&self) -> bool {
        true
    }

    fn handshaking(&self) -> Option<&'static str> {
        let own = || self.tls.is_handshaking().then_some(NAME);
        self.inner.handshaking().or_else(own)
    }

    fn handshake(&mut self, now: Nanos, spent: &mut Nanos) -> io::Result<Option<Opened>> {
        if self.opening {
            let Some(opened) = self.inner.handshake(now, spent)? else { return Ok(None) };
            (self.opening, self.peer) = (false, opened.peer);
        }
        let began = Instant::now();
        let done = self.shake_hands();
        *spent = spent.saturating_add(nanos(began.elapsed()));
        Ok(done?.then(|| Opened { peer: self.peer.take(), instead: None }))
    }

    fn certificate(&self) -> Option<&[u8]> {
        self.tls.peer_certificates()?.first().map(|der| &**der)
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
    fn take_cost(&mut self) -> Share {
        let below = self.inner.take_cost();
        Share { bytes: std::mem::take(&mut self.pulled).max(below.bytes), ..below }
    }

    fn unfinished_since(&self) -> Option<Nanos> {
        // If the stream below has begun something, this layer may not have seen any of it.
        self.since.into_iter().chain(self.inner.unfinished_since()).min()
    }

    fn tell_time(&mut self, now: Nanos, anew: bool) {
        if self.records.is_unfinished() && (anew || self.since.is_none()) {
            self.since = Some(now);
        }
        self.inner.tell_time(now, anew);
    }

    /// rustls reads into a buffer that doubles.
    fn kept(&self) -> usize {
        let undone = match self.undone {
            0 => 0,
            count => (count + READ).next_power_of_two().min(LARGEST),
        };
        undone + self.plain + self.cipher + self.inner.kept()
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

    fn turn_away(&mut self, _notice: &[u8]) {
        self.inner.turn_away(b"");
    }
}

/// Plaintext; 0 after the peer has said that nothing more comes. An end of the socket without
/// that is `UnexpectedEof`: somebody may have cut the stream.
impl Read for TlsStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.more = false;
        for _ in 0..FRUITLESS_READS {
            match self.tls.reader().read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    let why = "it ended without the goodbye of TLS: somebody may have cut it off";
                    return Err(io::Error::new(ErrorKind::UnexpectedEof, why));
                }
                outcome => {
                    // Of broken records rustls does not tell what it had decoded before.
                    self.plain = self.plain.saturating_sub(*outcome.as_ref().unwrap_or(&0));
                    return outcome;
                }
            }
            if let Some(why) = &self.broken {
                return Err(io::Error::new(ErrorKind::InvalidData, why.to_string()));
            }
            match self.pull() {
                Err(_) if self.broken.is_some() => {}
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
