//! What can be seen of the loop from outside, as plain values. `reports` collects them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::fairness::ROWS_PER_PAGE;
use super::{Counters, Turns};
use crate::connection::ConnId;
use crate::connection::connection::{Connection, Stage};
use crate::connection::flags::Flag;
use crate::limits::Limits;
use crate::net::{Address, Credentials};

/// The state of a reactor: what [`Reactor::status`](crate::Reactor::status) gives, and what a handler
/// gets for [`Ask::Overview`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// What the loop has done, for all services together.
    pub counters: Counters,
    /// How long ago the reactor was made.
    pub uptime: Duration,
    /// How long the turns take.
    pub turns: Turns,
    /// The services, in the order in which they were added, except that a new one takes the place of one that
    /// was [removed](crate::Reactor::remove). One that is being removed is listed until it is gone.
    pub services: Vec<ServiceStatus>,
    /// Bytes of output that the kernel has not taken, of all connections together.
    pub unsent: usize,
    /// A shutdown is under way.
    pub stopping: bool,
    /// The [cores](crate::Cores), the first of them first; one for a reactor that is alone.
    pub cores: Vec<CoreStatus>,
}

/// The state of one core, all its services together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoreStatus {
    /// Which one it is: the first is 0.
    pub index: usize,
    /// How many connections it has, in whatever stage.
    pub connections: usize,
    /// How long its loop has slept.
    pub slept: Duration,
    /// How long its turns took in all.
    pub busy: Duration,
}

/// The state of one service.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// What it goes by in the log.
    pub name: String,
    /// Where it listens; nowhere once it is shut down or removed.
    pub listeners: Vec<ListenerStatus>,
    /// What the loop has done for it.
    pub counters: Counters,
    /// How many connections it has, in whatever stage: also those in their handshake, and those that
    /// [linger](crate::Limits::linger).
    pub connections: usize,
    /// Bytes of output that the kernel has not taken, of all its connections.
    pub unsent: usize,
    /// Its limits; none for a service of datagrams.
    pub limits: Option<Limits>,
}

/// One listener of a service. It is displayed as its layers and its address, as
/// `tls:127.0.0.1:9907`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerStatus {
    /// Where it listens, with the real port.
    pub address: Address,
    /// The layers that its newcomers come through, from the outside in: `proxy`, `tls`, `ws`.
    pub layers: Vec<&'static str>,
}

impl fmt::Display for ListenerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layers.iter().try_for_each(|layer| write!(f, "{layer}:"))?;
        write!(f, "{}", self.address)
    }
}

/// The state of one connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// Its identity. [`number`](ConnId::number) is what [`Reactor::close`](crate::Reactor::close) takes.
    pub id: ConnId,
    /// The name of its service.
    pub service: Arc<str>,
    /// The peer's address; see [`Context::peer_addr`](crate::Context::peer_addr).
    pub peer: Option<SocketAddr>,
    /// Who the peer is, over a Unix socket.
    pub credentials: Option<Credentials>,
    /// It was dialled rather than accepted or adopted.
    pub outbound: bool,
    /// Bytes of its output that the kernel has not taken.
    pub unsent: usize,
    /// Memory that is kept of its input: what the handler has not taken, and what layers keep.
    pub kept: usize,
    /// How long ago something last moved.
    pub idle: Duration,
    /// What it has done so far; none unless
    /// [accounts are kept](crate::Reactor::set_accounting).
    pub usage: Option<Usage>,
    /// What it waits for.
    pub waits: Waits,
}

/// What one connection has done so far, for as long as
/// [accounts are kept](crate::Reactor::set_accounting).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// How long it has been there, or its account if that was opened later.
    pub age: Duration,
    /// Lines that it has sent.
    pub lines_in: u64,
    /// Bytes that were read from it.
    pub bytes_in: u64,
    /// Bytes of its output that the kernel has taken.
    pub bytes_out: u64,
}

/// What a connection waits for. Of several things it is the one without which the others are of no
/// use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Waits {
    /// For its peer to send something.
    Input,
    /// For its peer to read: the kernel takes no more of its output.
    Reader,
    /// For its [rate](crate::Limits::rate), or its [peer's](crate::Limits::peer_rate), to allow more.
    Rate,
    /// For its next turn: it has had its share of this one, or its handler has
    /// [asked](crate::Context::request_report) for a report.
    Turn,
    /// For its handler, which has [paused](crate::Context::pause) it, or has not closed it although its
    /// peer has ended.
    Paused,
    /// For its peer to read: it has more than [`high_water`](crate::Limits::high_water) unsent, and what
    /// it sends is not read until then. Or for other [cores](crate::Cores) to take what it has said.
    Held,
    /// It is closing, and waits for its peer to take the last of its output.
    Closing,
    /// It has been closed, and waits for its peer to end its side.
    Lingering,
    /// For the handshake of its layers.
    Handshake,
    /// To be connected.
    Connecting,
}

impl Waits {
    /// A word for it: `input`, `reader`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            Waits::Input => "input",
            Waits::Reader => "reader",
            Waits::Rate => "rate",
            Waits::Turn => "turn",
            Waits::Paused => "paused",
            Waits::Held => "held",
            Waits::Closing => "closing",
            Waits::Lingering => "lingering",
            Waits::Handshake => "handshake",
            Waits::Connecting => "connecting",
        }
    }

    /// As the connection's state has it at the end of a turn.
    pub(super) fn of(conn: &Connection) -> Waits {
        let has = |flag| conn.flags.has(flag);
        match conn.stage {
            Stage::Connecting if has(Flag::Handshaking) => Waits::Handshake,
            // Another service has handed it over.
            Stage::Connecting if has(Flag::Arrived) => Waits::Turn,
            Stage::Connecting => Waits::Connecting,
            Stage::Leaving | Stage::Closing | Stage::Ended => Waits::Closing,
            Stage::Lingering => Waits::Lingering,
            // First, since the handler may have paused it until the report is there.
            Stage::Open if has(Flag::Asked) => Waits::Turn,
            // The handler waits for room in the output.
            Stage::Open if has(Flag::Paused) && has(Flag::Drain) => Waits::Reader,
            Stage::Open if has(Flag::Paused) || has(Flag::EofTold) => Waits::Paused,
            Stage::Open if has(Flag::Held) || has(Flag::Ahead) => Waits::Held,
            Stage::Open if has(Flag::Throttled) => Waits::Rate,
            Stage::Open if has(Flag::Queued) => Waits::Turn,
            Stage::Open if has(Flag::Blocked) => Waits::Reader,
            Stage::Open => Waits::Input,
        }
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which connections to look at, for [`Reactor::connections`](crate::Reactor::connections).
#[derive(Clone, Debug)]
pub struct Selection {
    /// Those of the service of this name; none for all services.
    pub service: Option<String>,
    /// In which order.
    pub order: Order,
    /// How many at most.
    pub most: usize,
    /// Behind which of them to go on, in the order [`Table`](Order::Table).
    pub after: Option<Cursor>,
}

/// The first page of all connections.
impl Default for Selection {
    fn default() -> Selection {
        Selection { service: None, order: Order::Table, most: ROWS_PER_PAGE, after: None }
    }
}

/// An order of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// As they lie in memory, at most 256 at once. It is the cheapest order, and the one that can be
    /// [continued](Page::next).
    #[default]
    Table,
    /// Those that came first.
    Oldest,
    /// Those with most [`unsent`](ConnectionStatus::unsent) bytes.
    Unsent,
    /// Those that have been [`idle`](ConnectionStatus::idle) for longest.
    Idle,
    /// Those that have sent most bytes; without [accounts](crate::Reactor::set_accounting) all are the
    /// same.
    BytesIn,
    /// Those that have been sent most bytes, likewise.
    BytesOut,
    /// Those that have sent most lines, likewise.
    Lines,
}

/// Where a [`Page`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The core, the service and the slot that come next.
    pub(crate) core: usize,
    pub(crate) service: usize,
    pub(crate) slot: usize,
}

/// Some connections of a reactor.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Page {
    /// Their state, in the order that was asked for.
    pub connections: Vec<ConnectionStatus>,
    /// Where to go on; none if these were the last, or in an order that cannot be continued. A page
    /// may have fewer connections than were asked for, even none, and not be the last.
    pub next: Option<Cursor>,
    /// How many there are on all pages.
    pub total: usize,
}

/// What a handler can [ask for](crate::Context::request_report).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Ask {
    /// The state of the reactor and its services.
    Overview {
        /// Measures the [steps](Turns::steps) of turns for the next 5 seconds.
        watch: bool,
    },
    /// The state of connections.
    Connections(Selection),
    /// Closes a connection, as [`Reactor::close`](crate::Reactor::close) does.
    Close {
        /// Its [number](ConnId::number).
        number: u64,
        /// Why, for the log.
        why: String,
    },
}

/// What a handler [is told](crate::Handler::on_report).
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "it is lent to the handler and never moved")]
#[non_exhaustive]
pub enum Report {
    /// For [`Ask::Overview`].
    Overview(Status),
    /// For [`Ask::Connections`].
    Connections(Page),
    /// For [`Ask::Close`]: whether there is such a connection. If it is the one that has asked, it is
    /// closed after this.
    Closed(bool),
}
