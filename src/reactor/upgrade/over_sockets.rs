//! The two sides over a Unix socket: two processes, or two reactors of one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use mio::net::UdpSocket;

use super::Listening;
use crate::connection::{Decoder, Encoder, Unreadable};
use crate::error::Error;
use crate::limits::Limits;
use crate::net::listener::ListeningSocket;
use crate::net::passed::{self, is_as_asked};
use crate::net::passing::{Channel, Frame, LONGEST_FRAME, MOST_DESCRIPTORS};
use crate::net::{Address, Listen};
use crate::reactor::loop_state::LoopState;

/// What the first frame begins with: whoever says something else is no reactor.
pub(super) const MAGIC: &str = "line-reactor";

/// What follows is of this version. Another one is refused, and the old loop goes on.
pub(super) const PROTOCOL: u64 = 1;

/// Bytes of all that is handed on, at the most: more than the limits of a loop let its connections have.
const LONGEST_PARCEL: usize = 4 << 30;

// The kinds of frames, in their order.
pub(super) const OFFER: u8 = 1;
pub(super) const LISTENER: u8 = 2;
pub(super) const READY: u8 = 3;
const PIECE: u8 = 4;
const END: u8 = 5;
pub(super) const TAKEN: u8 = 6;
pub(super) const COMMIT: u8 = 7;
/// In the place of `READY` or `TAKEN`: why not.
pub(super) const REFUSED: u8 = 8;

/// The loop that is to take over the services of this one, usually in another process. It is one end of a Unix socket.
///
/// An upgrade takes these steps; `examples/upgrading.rs` has them all.
///
/// 1. The old process makes a [pair of sockets](UnixStream::pair), starts the new process with one of them, for
///    instance as its standard input, and makes a `Successor` of the other. It [offers](crate::Reactor::offer) its
///    listening sockets.
/// 2. The new process [inherits](crate::Reactor::inherit), and then adds its services, which listen at the same
///    addresses.
/// 3. The old process [hands on](crate::Reactor::hand_on), and the new one [succeeds](crate::Reactor::succeed).
///
/// The old process must close its copy of the socket that it gave away (drop the [`Command`](std::process::Command)).
/// Otherwise it does not notice that the new process has died, and waits until its patience is over.
///
/// `Successor` can be polled for reading: it becomes readable when the new process is ready for
/// [`hand_on`](crate::Reactor::hand_on), or has failed. A loop that waits for this serves its clients while the new
/// process starts.
#[derive(Debug)]
pub struct Successor {
    pub(super) channel: Channel,
    /// How many listening sockets it was offered.
    pub(super) offered: usize,
}

/// The numbers of connections that an [upgrade](crate::Reactor::hand_on) has moved and left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandedOn {
    /// Connections that the other loop has taken over.
    pub connections: usize,
    /// Open connections that are still here. This loop serves them until they end, or has begun to close them.
    pub left: usize,
}

/// What one loop hands on: all that is written down, and what the connections run over.
#[derive(Default)]
pub(crate) struct Parcel {
    pub(super) bytes: Vec<u8>,
    pub(super) sockets: Vec<OwnedFd>,
}

/// What a loop has from the one before it.
pub(crate) struct Inheritance {
    pub(super) channel: Channel,
    /// Listening sockets that no service has asked for yet.
    pub(super) offers: Vec<(Address, Offered)>,
}

pub(super) fn failed(why: impl Into<String>) -> Error {
    Error::Upgrade { why: why.into() }
}

/// What the other side says, fit for a line of the log.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(1000).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Why the other side has not said what was due.
pub(super) fn silent(error: &io::Error) -> Error {
    failed(match error.kind() {
        // What it was told and has not read makes the difference.
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => "the other process has gone".to_owned(),
        io::ErrorKind::TimedOut => "the other process does not answer".to_owned(),
        io::ErrorKind::InvalidData => "the other process is none of this program".to_owned(),
        _ => error.to_string(),
    })
}

impl Channel {
    pub(super) fn say(&self, kind: u8, body: &Encoder) -> Result<(), Error> {
        self.step();
        self.send(kind, body.as_bytes(), &[]).map_err(|error| self.unheard(&error))
    }

    /// Why something could not be said. The other side may have refused before it went.
    pub(super) fn unheard(&self, error: &io::Error) -> Error {
        let gone =
            matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        let refused = gone.then(|| self.hear(READY).err()).flatten();
        refused.unwrap_or_else(|| silent(error))
    }

    /// The next frame, which must be of this kind.
    pub(super) fn hear(&self, kind: u8) -> Result<Frame, Error> {
        // What has been committed is not undone.
        let frame = if kind == COMMIT {
            self.receive_last()
        } else {
            self.step();
            self.receive()
        };
        let frame = frame.map_err(|error| silent(&error))?;
        match frame.kind {
            heard if heard == kind => Ok(frame),
            REFUSED => {
                let why = String::from_utf8_lossy(&frame.body);
                Err(failed(format!("the other process says: {}", shown(&why))))
            }
            _ => Err(silent(&io::ErrorKind::InvalidData.into())),
        }
    }
}

impl From<Unreadable> for Error {
    fn from(why: Unreadable) -> Error {
        failed(format!("what has come cannot be read: {why}"))
    }
}

impl Successor {
    /// The process that has the other end of this socket. `patience` is how long this loop waits for each message of
    /// the protocol to be read or written, and bounds how long its clients wait if the new process hangs.
    ///
    /// # Errors
    /// [`Error::Io`] if the socket cannot be made blocking.
    pub fn new(socket: UnixStream, patience: Duration) -> Result<Successor, Error> {
        let channel = Channel::new(socket, patience).map_err(Error::io("cannot use the socket"))?;
        Ok(Successor { channel, offered: 0 })
    }
}

impl AsFd for Successor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// What listens somewhere.
pub(super) enum Offered {
    Connections(ListeningSocket),
    Datagrams(UdpSocket),
}

pub(super) fn put_listener(listening: &Listening<'_>, to: &Channel) -> io::Result<()> {
    let Listening { address, datagrams, socket, path } = listening;
    let mut frame = Encoder::default();
    frame.put_flag(*datagrams);
    match (address, address.as_socket()) {
        (Address::Unix(path), _) => {
            frame.put_flag(true);
            frame.put_bytes(path.as_os_str().as_bytes());
        }
        (_, Some(address)) => {
            frame.put_flag(false);
            frame.put_text(&address.to_string());
        }
        // A listener has one of these.
        (_, None) => return Err(io::ErrorKind::Unsupported.into()),
    }
    frame.put_option(path.map(|(inode, _)| inode), |frame, (device, number)| {
        frame.put_number(device);
        frame.put_number(number);
    });
    let descriptors: Vec<_> = [*socket].into_iter().chain(path.map(|(_, lock)| lock)).collect();
    to.send(LISTENER, frame.as_bytes(), &descriptors)
}

pub(super) fn take_listener(frame: Frame) -> Result<(Address, Offered), Error> {
    let mut from = Decoder::new(&frame.body);
    let (datagrams, unix, address) = (from.flag()?, from.flag()?, from.bytes()?);
    let inode = from.option(|from| Ok((from.number()?, from.number()?)))?;
    from.finish()?;
    let mut descriptors = frame.descriptors.into_iter();
    let socket = descriptors.next().ok_or(Unreadable("a listener without a socket"))?;
    let path = || PathBuf::from(std::ffi::OsStr::from_bytes(address));
    let (address, path) = match (unix, inode, descriptors.next()) {
        (false, None, None) => {
            let text = str::from_utf8(address).map_err(|_| Unreadable("no address"))?;
            (Address::Tcp(text.parse().map_err(|_| Unreadable("no address"))?), None)
        }
        (true, Some(inode), Some(lock)) => (Address::Unix(path()), Some((path(), inode, lock))),
        // Somebody else has made it.
        (true, None, None) => (Address::Unix(path()), None),
        _ => return Err(Unreadable("a path without its lock").into()),
    };
    let offered = match datagrams {
        true => passed::datagrams(socket).map(Offered::Datagrams),
        false => ListeningSocket::received(socket, path).map(Offered::Connections),
    };
    match offered {
        Ok(offered) => Ok((address, offered)),
        Err(error) => Err(failed(format!("cannot go on listening on {address}: {error}"))),
    }
}

/// Sends the parcel, and what its connections run over, in as many frames as it takes.
pub(super) fn send_parcel(
    channel: &Channel,
    parcel: &Encoder,
    sockets: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut pieces = parcel.as_bytes().chunks(LONGEST_FRAME);
    let mut sockets = sockets.chunks(MOST_DESCRIPTORS);
    loop {
        let (piece, some) = (pieces.next(), sockets.next());
        if piece.is_none() && some.is_none() {
            return channel.send(END, &[], &[]);
        }
        channel.send(PIECE, piece.unwrap_or_default(), some.unwrap_or_default())?;
    }
}

pub(super) fn receive_parcel(channel: &Channel) -> Result<Parcel, Error> {
    let mut parcel = Parcel::default();
    loop {
        channel.step();
        let frame = channel.receive().map_err(|error| silent(&error))?;
        match frame.kind {
            PIECE if parcel.bytes.len() <= LONGEST_PARCEL => {
                parcel.bytes.extend(frame.body);
                parcel.sockets.extend(frame.descriptors);
            }
            END if frame.body.is_empty() => return Ok(parcel),
            _ => return Err(silent(&io::ErrorKind::InvalidData.into())),
        }
    }
}

impl Inheritance {
    /// The paths of sockets that nobody has asked for are this loop's to remove.
    pub(super) fn own_listeners(&mut self) {
        for (_, offered) in &mut self.offers {
            if let Offered::Connections(socket) = offered {
                socket.own(true);
            }
        }
    }
}

impl LoopState {
    /// A socket that listens there: the one that does so already in the loop before this one, or a new one.
    pub(in crate::reactor) fn listening_socket(
        &mut self,
        listen: &Listen,
        limits: &Limits,
    ) -> Result<ListeningSocket, Error> {
        let inherits = listen.socket.is_none();
        let offered = inherits.then(|| self.take_offer(&listen.address, false)).flatten();
        if let Some(Offered::Connections(socket)) = offered {
            socket.set_options(limits);
            return Ok(socket);
        }
        ListeningSocket::bind(listen, limits)
    }

    /// A socket that is bound there already, in the loop before this one.
    pub(crate) fn inherited_datagrams(&mut self, address: SocketAddr) -> Option<UdpSocket> {
        match self.take_offer(&Address::Tcp(address), true)? {
            Offered::Datagrams(socket) => Some(socket),
            Offered::Connections(_) => None,
        }
    }

    fn take_offer(&mut self, address: &Address, datagrams: bool) -> Option<Offered> {
        let offers = &mut self.inherited.as_mut()?.offers;
        let same = |(there, offered): &(Address, Offered)| {
            is_as_asked(address, there) && matches!(offered, Offered::Datagrams(_)) == datagrams
        };
        let found = offers.iter().position(same)?;
        Some(offers.remove(found).1)
    }
}
