use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use crate::net::stream::Stream;

/// Reads of the socket, of 4 KiB, that may give no plaintext before the others have their turn. The
/// largest records take one more.
const FRUITLESS_READS: usize = 4;

/// A stream that speaks TLS over another one, as non-blocking as that is.
///
/// What is taken for writing and the other one refuses waits in here, some 64 KiB at the most;
/// [`flush`](Write::flush) says `WouldBlock` for as long as something does. Reading can make
/// something wait as well (an alert).
pub(crate) struct TlsStream {
    inner: Stream,
    tls: ServerConnection,
    /// The last read gave nothing and there may be more all the same.
    more: bool,
    /// Something went out since this was last asked for.
    moved: bool,
    /// Bytes read of the socket since this was last asked for.
    pulled: usize,
    /// What came is no TLS. The plaintext before it is still to be read.
    broken: bool,
    /// Why the socket takes nothing any more. What came before that is still to be read.
    refused: Option<ErrorKind>,
}

impl TlsStream {
    pub(crate) fn new(inner: Stream, config: Arc<ServerConfig>) -> io::Result<TlsStream> {
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        let (more, moved, broken) = (false, false, false);
        Ok(TlsStream { inner, tls, more, moved, pulled: 0, broken, refused: None })
    }

    pub(crate) fn inner(&self) -> &Stream {
        &self.inner
    }

    pub(crate) fn inner_mut(&mut self) -> &mut Stream {
        &mut self.inner
    }

    pub(crate) fn into_inner(self) -> Stream {
        self.inner
    }

    /// Moves the handshake on; true when it is done. The client may say as much as a handshake
    /// has, so this ends.
    pub(crate) fn shake_hands(&mut self) -> io::Result<bool> {
        loop {
            // Where it fails, what has come may be the rest of the handshake and lines after it;
            // the tickets that the client did not wait for are not worth them.
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

    /// Something waits to go out.
    pub(crate) fn unsent(&self) -> bool {
        self.tls.wants_write() && self.refused.is_none()
    }

    /// Something came that no read has given yet, be it plaintext or not.
    pub(crate) fn has_unread(&mut self) -> bool {
        self.tls.reader().fill_buf().is_ok_and(|bytes| !bytes.is_empty()) || self.inner.has_unread()
    }

    /// That the last read gave nothing does not mean that there is nothing.
    pub(crate) fn has_more(&self) -> bool {
        self.more
    }

    /// Whether the socket has taken something since this was last asked.
    pub(crate) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Bytes read of the socket since this was last asked: a record of 23 may hold one of plaintext.
    pub(crate) fn take_pulled(&mut self) -> usize {
        std::mem::take(&mut self.pulled)
    }

    /// Says that nothing more will come, and ends the write side once that is out: `WouldBlock`
    /// until then.
    pub(crate) fn shutdown_write(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.push()?;
        self.inner.shutdown_write()
    }

    /// One read of the socket; 0 at its end.
    fn pull(&mut self) -> io::Result<usize> {
        let count = self.tls.read_tls(&mut self.inner)?;
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
        Ok(())
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring};

    use super::*;
    use crate::net::memory::{Pipe, SharedWire, Wire};

    /// What the wire has for the client, and back.
    fn carry(client: &mut ClientConnection, wire: &SharedWire) {
        let mut out = std::mem::take(&mut wire.borrow_mut().outbound);
        let mut from = out.as_slice();
        while !from.is_empty() {
            client.read_tls(&mut from).unwrap();
            client.process_new_packets().unwrap();
        }
        out.clear();
        while client.wants_write() {
            client.write_tls(&mut out).unwrap();
        }
        wire.borrow_mut().inbound.extend(out);
    }

    #[test]
    fn the_write_side_is_shut_only_after_the_goodbye_is_out() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let wire: SharedWire = Rc::new(RefCell::new(Wire::default()));
        let pipe = Stream::Pipe(Pipe::new(Rc::clone(&wire)));
        let mut stream = TlsStream::new(pipe, Arc::new(config)).unwrap();
        while !stream.shake_hands().unwrap() {
            carry(&mut client, &wire);
        }

        // Taken, but not all of it is out: nothing more is taken.
        wire.borrow_mut().room = Some(10);
        assert_eq!(stream.write(b"last words").unwrap(), 10);
        let blocked = |outcome: io::Result<()>| outcome.unwrap_err().kind();
        assert_eq!(blocked(stream.write(b"!").map(drop)), ErrorKind::WouldBlock);
        assert_eq!(blocked(stream.shutdown_write()), ErrorKind::WouldBlock);
        assert!(!wire.borrow().shut && stream.unsent());
        wire.borrow_mut().room = None;
        stream.shutdown_write().unwrap();
        assert!(wire.borrow().shut && !stream.unsent());
        carry(&mut client, &wire);
        let mut said = Vec::new();
        client.reader().read_to_end(&mut said).expect("an end without a goodbye");
        assert_eq!(said, b"last words");
    }
}
