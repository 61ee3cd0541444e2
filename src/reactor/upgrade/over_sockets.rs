//! The two sides over a Unix socket: two processes, or two reactors of one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;

use super::{Frozen, Listening, departing::freeze, install, restore};
use crate::connection::{Decoder, Encoder, Unreadable};
use crate::error::Error;
use crate::handler::text::printable;
use crate::limits::Limits;
use crate::net::listener::ListeningSocket;
use crate::net::passed::{self, Passed, Received, is_as_asked};
use crate::net::passing::{Channel, Frame, LONGEST_FRAME, MOST_DESCRIPTORS};
use crate::net::{Address, Listen};
use crate::reactor::Reactor;
use crate::reactor::loop_state::LoopState;

/// What the first frame begins with: whoever says something else is no reactor.
const MAGIC: &str = "line-reactor";

/// What follows is of this version. Another one is refused, and the old loop goes on.
const PROTOCOL: u64 = 1;

/// Bytes of all that is handed on, at the most: more than the limits of a loop let its connections have.
const LONGEST_PARCEL: usize = 4 << 30;

// The kinds of frames, in their order.
const OFFER: u8 = 1;
const LISTENER: u8 = 2;
const READY: u8 = 3;
const PIECE: u8 = 4;
const END: u8 = 5;
const TAKEN: u8 = 6;
const COMMIT: u8 = 7;
/// In the place of `READY` or `TAKEN`: why not.
const REFUSED: u8 = 8;

/// The loop that is to go on with what this one has, as it is seen from here: one end of a Unix socket.
///
/// It can be polled: once there is something to read, the other loop is ready, and
/// [`Reactor::hand_on`] does not wait for it to start.
#[derive(Debug)]
pub struct Successor {
    channel: Channel,
    /// How many listening sockets it was offered.
    offered: usize,
}

/// What has become of the connections at an [upgrade](Reactor::hand_on).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandedOn {
    /// Those that the other loop has taken over.
    pub connections: usize,
    /// Those that are still here. The loop serves them to their end, or has begun to close them.
    pub left: usize,
}

/// What a loop has from the one before it.
pub(crate) struct Inheritance {
    channel: Channel,
    /// Listening sockets that no service has asked for yet.
    offers: Vec<(Address, Offered)>,
}

fn failed(why: impl Into<String>) -> Error {
    Error::Upgrade { why: why.into() }
}

/// What the other side says, fit for a line of the log.
fn shown(text: &str) -> String {
    printable(text.chars().take(1000).collect::<String>().as_bytes())
}

/// Why the other side has not said what was due.
fn silent(error: &io::Error) -> Error {
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
    fn say(&self, kind: u8, body: &Encoder) -> Result<(), Error> {
        self.step();
        self.send(kind, body.as_bytes(), &[]).map_err(|error| silent(&error))
    }

    /// The next frame, which must be of this kind.
    fn hear(&self, kind: u8) -> Result<Frame, Error> {
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
    /// Whoever has the other end of this socket, as the process that was started with it. It is waited for no
    /// longer than `patience`, for each thing that it has to say.
    ///
    /// # Errors
    /// [`Error::Io`] if the socket is none that can be used.
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
enum Offered {
    Connections(ListeningSocket),
    Datagrams(UdpSocket),
}

fn put_listener(listening: &Listening<'_>, to: &Channel) -> io::Result<()> {
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

fn take_listener(frame: Frame) -> Result<(Address, Offered), Error> {
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
fn send_parcel(channel: &Channel, parcel: &Encoder, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
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

fn receive_parcel(channel: &Channel) -> Result<(Vec<u8>, Vec<OwnedFd>), Error> {
    let (mut parcel, mut sockets) = (Vec::new(), Vec::new());
    loop {
        channel.step();
        let frame = channel.receive().map_err(|error| silent(&error))?;
        match frame.kind {
            PIECE if parcel.len() <= LONGEST_PARCEL => {
                parcel.extend(frame.body);
                sockets.extend(frame.descriptors);
            }
            END if frame.body.is_empty() => return Ok((parcel, sockets)),
            _ => return Err(silent(&io::ErrorKind::InvalidData.into())),
        }
    }
}

impl Reactor<'_> {
    /// Offers the listening sockets to the loop that is to go on with what this one has, so that it can
    /// listen where this one does. This one goes on, until [`hand_on`](Self::hand_on).
    ///
    /// # Errors
    /// [`Error::Upgrade`] if that one does not take them, [`Error::ShuttingDown`]. This loop goes on as if
    /// nothing had happened.
    pub fn offer(&mut self, to: &mut Successor) -> Result<(), Error> {
        if self.state.is_ending() {
            return Err(Error::ShuttingDown);
        }
        let listeners: Vec<_> = self.services.iter().flat_map(|it| it.listening()).collect();
        let mut offer = Encoder::default();
        offer.put_text(MAGIC);
        offer.put_number(PROTOCOL);
        offer.put_number(self.state.nanos(Instant::now()));
        offer.put_number(listeners.len() as u64);
        to.channel.say(OFFER, &offer)?;
        to.offered = listeners.len();
        for listening in &listeners {
            put_listener(listening, &to.channel).map_err(|error| silent(&error))?;
        }
        Ok(())
    }

    /// Hands all services on to the loop that was [offered](Self::offer) the listening sockets, with
    /// their connections. It waits until that one is ready and has restored what it was given; meanwhile
    /// nobody is served. Then this loop listens no more, and serves those connections to their end that
    /// could not go: [stop](Self::stop) it when it has been long enough.
    ///
    /// A service goes if its handler [saves](crate::Handler::save) it and the other loop has one of the same
    /// name that can read that; otherwise all its connections are closed, with a line that says
    /// [why](crate::Farewell::Upgrade). Of one that goes, those connections stay that are not open, that were
    /// dialled or adopted, or that run over more than a TCP or Unix socket: TLS, WebSocket. If the
    /// connections belong [together](crate::Saved::together), these are closed as well. A handler may have all
    /// its connections [stay](crate::Saved::stay). Of a service of datagrams the socket goes, and nothing that
    /// its handler knows.
    ///
    /// # Errors
    /// [`Error::Upgrade`]: the other loop has gone, has refused, or does not answer. This loop then goes on as
    /// if nothing had happened, whatever the other one has come to. [`Error::ShuttingDown`].
    pub fn hand_on(&mut self, to: Successor) -> Result<HandedOn, Error> {
        if self.state.is_ending() {
            return Err(Error::ShuttingDown);
        }
        to.channel.hear(READY)?;
        if self.services.iter().map(|it| it.listening().len()).sum::<usize>() != to.offered {
            return Err(failed("where it listens has changed meanwhile; offer it again"));
        }
        let Frozen { parcel, going } = freeze(&mut self.services, &mut self.state);
        let mut sockets = Vec::new();
        for (service, going) in self.services.iter().zip(&going) {
            let passed = going.iter().flat_map(|going| service.passed(going));
            sockets.extend(passed.filter_map(|passed| match passed {
                Passed::Socket(socket) => Some(socket),
                Passed::Wire(_) => None,
            }));
        }
        send_parcel(&to.channel, &parcel, &sockets).map_err(|error| silent(&error))?;
        let taken = to.channel.hear(TAKEN)?;
        let mut from = Decoder::new(&taken.body);
        let mut refusals = Vec::new();
        for _ in &self.services {
            refusals.push(from.option(|from| Ok(shown(from.text()?)))?);
        }
        from.finish()?;
        to.channel.say(COMMIT, &Encoder::default())?;
        // Nothing below can fail.
        let mut handed_on = HandedOn::default();
        for ((service, going), refusal) in self.services.iter_mut().zip(going).zip(refusals) {
            let why = refusal.as_deref().or(going.is_none().then_some("its handler saves nothing"));
            if let Some(why) = why
                && service.connection_count() > 0
            {
                log::warn!("{}: its connections are not taken over: {why}", service.name());
            }
            let going = going.filter(|_| refusal.is_none());
            handed_on.connections += going.as_ref().map_or(0, |going| going.connections.len());
            service.give_up_listening(&mut self.state);
            service.leave(going, &mut self.state);
            handed_on.left += service.connection_count();
        }
        Ok(handed_on)
    }

    /// Has this loop go on with what another one has, which has the other end of the socket and is about to
    /// [offer](Self::offer) its listening sockets. From now on services are added to it as ever: those that
    /// listen where the other one does are given the same socket, so that no client is refused. Then
    /// comes [`succeed`](Self::succeed).
    ///
    /// # Errors
    /// [`Error::Upgrade`]: the other loop has gone, does not answer within `patience`, or is one of a program
    /// that this one does not understand.
    pub fn inherit(&mut self, from: UnixStream, patience: Duration) -> Result<(), Error> {
        let channel = Channel::new(from, patience).map_err(Error::io("cannot use the socket"))?;
        let channel = channel.crash_for_tests();
        let offer = channel.hear(OFFER)?;
        let mut from = Decoder::new(&offer.body);
        let refuse = |why: &str| {
            let _ = channel.send(REFUSED, why.as_bytes(), &[]);
            failed(why)
        };
        if from.text() != Ok(MAGIC) || from.number() != Ok(PROTOCOL) {
            return Err(refuse("the two are of different versions; restart it instead"));
        }
        let (clock, count) = (from.number()?, from.size()?);
        from.finish()?;
        let mut offers = Vec::new();
        for _ in 0..count {
            offers.push(take_listener(channel.hear(LISTENER)?)?);
        }
        // Ages are counted from moments that may lie far back.
        if let Some(start) = Instant::now().checked_sub(Duration::from_nanos(clock)) {
            self.state.set_start(start);
            self.state.tick();
        }
        self.state.inherited = Some(Box::new(Inheritance { channel, offers }));
        Ok(())
    }

    /// Tells the loop that has the other end of the socket why this process does not go on with what that one has, if
    /// it knows so before it can [inherit](Self::inherit): [`hand_on`](Self::hand_on) fails there with these words.
    ///
    /// # Errors
    /// [`Error::Upgrade`] if that loop has gone.
    pub fn refuse(from: UnixStream, why: &str) -> Result<(), Error> {
        const PATIENCE: Duration = Duration::from_secs(1);
        let channel = Channel::new(from, PATIENCE).map_err(Error::io("cannot use the socket"))?;
        channel.send(REFUSED, why.as_bytes(), &[]).map_err(|error| silent(&error))
    }

    /// Takes over what the other loop has handed on: connections where they were, each in the service of the
    /// same name. [`on_restored`](crate::Handler::on_restored) tells of them. When it returns, the other loop
    /// serves them no more, and this one does, from its next turn on.
    ///
    /// # Errors
    /// [`Error::Upgrade`]: the other loop has not handed on, for whatever reason, and goes on. This one has to
    /// end without another turn, since the sockets it listens on are the other one's.
    pub fn succeed(&mut self) -> Result<(), Error> {
        let Some(inherited) = &self.state.inherited else {
            return Err(failed("there is nothing to take over"));
        };
        inherited.channel.say(READY, &Encoder::default())?;
        let (parcel, sockets) = receive_parcel(&inherited.channel)?;
        let sockets = sockets.into_iter().map(Received::Socket).collect();
        let restored = restore(&parcel, sockets, &mut self.services, &mut self.state);
        let Some(inherited) = &self.state.inherited else { return Err(failed("")) };
        let outcomes = restored.map_err(|why| {
            let _ = inherited.channel.send(REFUSED, why.to_string().as_bytes(), &[]);
            Error::from(why)
        })?;
        drop(parcel);
        let mut taken = Encoder::default();
        for outcome in outcomes {
            taken.put_option(outcome.err(), |taken, why| taken.put_text(&why));
        }
        inherited.channel.say(TAKEN, &taken)?;
        inherited.channel.hear(COMMIT)?;
        if let Some(mut inherited) = self.state.inherited.take() {
            for (_, offered) in &mut inherited.offers {
                if let Offered::Connections(socket) = offered {
                    socket.own(true);
                }
            }
        }
        self.services.iter_mut().for_each(|service| service.own_listeners());
        install(&mut self.services, &mut self.state);
        self.start();
        self.services.iter_mut().for_each(|service| service.tell_restored(&mut self.state));
        Ok(())
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
