//! WebSocket (RFC 6455), under a listener and towards servers: a line is a text message, and the
//! handler does not notice.
//!
//! `reading` turns frames into bytes and `writing` bytes into frames; neither knows a stream.
//! `handshake` says what is asked for in HTTP and what is answered. `stream` is the layer, and `opening`
//! its way through the handshake. The types of headers and codes are tungstenite's. Its stream is not
//! used: it keeps whole messages, and buffers for clients that are idle.

mod handshake;
mod opening;
mod reading;
mod stream;
#[cfg(test)]
mod tests;
mod writing;

use std::any::Any;
use std::cell::Cell;
use std::rc::Rc;
use std::{fmt, io};

pub use self::handshake::{Refusal, Upgrade};
pub(super) use self::stream::WebSocketStream;
use super::Address;
use super::http::{Request, Sites};
use super::layer::Acceptor;
use super::stream::Stream;

/// A buffer for frames is not kept above this size: what came was one byte a line.
const SPARE: usize = 64 * 1024;

/// What the layer is called in front of an address.
const NAME: &str = "ws";

/// WebSocket, for [`Listen::web_socket`](crate::Listen::web_socket) and
/// [`Connect::web_socket`](crate::Connect::web_socket): browsers can take part in a protocol of lines.
/// A clone is the same one, and stays in its thread.
///
/// A message is a line: its end ends the line, unless an LF did. A message that holds LFs is as many
/// lines. A line goes out as one text message without its LF, or CR LF; bytes that are not UTF-8 are
/// replaced by U+FFFD. Compression is not offered. Needs the feature `websocket`.
///
/// ```
/// use reactor::{Listen, Reactor, WebSocket};
///
/// let mut reactor = Reactor::new()?;
/// let room = reactor.listen("127.0.0.1:0", reactor::Callbacks::new())?;
/// // The same room for browsers.
/// reactor.bind(&room, Listen::at("127.0.0.1:0")?.web_socket(&WebSocket::new()))?;
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct WebSocket {
    sites: Rc<Sites>,
    binary: bool,
    spare: Spare,
}

/// A buffer for frames, which whoever writes takes for as long as they are not out.
#[derive(Clone, Default)]
struct Spare(Rc<Cell<Vec<u8>>>);

/// Which end of a connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

impl Spare {
    /// Gives the buffer away, unless `frames` has one.
    fn lend(&self, frames: &mut Vec<u8>) {
        if frames.capacity() == 0 {
            *frames = self.0.take();
        }
    }

    /// Takes a buffer back whose frames are out.
    fn take_back(&self, frames: &mut Vec<u8>) {
        let mut buffer = std::mem::take(frames);
        // Without others that use it, it would be one that an idle connection owns.
        if (1..=SPARE).contains(&buffer.capacity()) && self.is_shared() {
            buffer.clear();
            self.0.set(buffer);
        }
    }

    fn is_shared(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }
}

impl WebSocket {
    /// Messages are lines, and pages may come that are of the very host and port that they connect to.
    pub fn new() -> WebSocket {
        WebSocket::default()
    }

    /// Which hosts and which pages are ours; the others get 403. Towards servers it says nothing.
    pub fn sites(self, sites: Sites) -> WebSocket {
        WebSocket { sites: Rc::new(sites), ..self }
    }

    /// Carries bytes as they come, in binary messages whose borders mean nothing: for what is no
    /// protocol of lines, or is only passed on. Messages of text are taken too.
    pub fn binary(self) -> WebSocket {
        WebSocket { binary: true, ..self }
    }

    /// What to answer to a request whose head somebody else has read.
    ///
    /// # Errors
    /// If it asks for no WebSocket, or may not: the answer is [`Refusal::response`].
    pub fn answer(&self, request: &Request<'_>) -> Result<Upgrade, Refusal> {
        handshake::answer(self, request)
    }

    pub(crate) fn acceptor(&self) -> Rc<dyn Acceptor> {
        Rc::new(self.clone())
    }

    pub(crate) fn towards(&self) -> Towards {
        Towards { binary: self.binary }
    }
}

/// Whether this layer is WebSocket.
pub(super) fn is_web_socket(layer: &dyn Acceptor) -> bool {
    (layer as &dyn Any).is::<WebSocket>()
}

impl Acceptor for WebSocket {
    fn name(&self) -> &'static str {
        NAME
    }

    fn accept(&self, newcomer: Stream) -> io::Result<Stream> {
        Ok(Stream::layer(WebSocketStream::server(newcomer, self)))
    }
}

/// WebSocket towards a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Towards {
    binary: bool,
}

impl Towards {
    /// Puts WebSocket over a stream that is being dialled.
    pub(crate) fn over(self, stream: Stream, address: &Address) -> Stream {
        Stream::layer(WebSocketStream::client(stream, address, self.binary))
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WebSocket { sites, binary, spare: _ } = self;
        f.debug_struct("WebSocket").field("sites", sites).field("binary", binary).finish()
    }
}
