use std::time::Duration;

use crate::error::Error;

/// What the connections of one service may use.
///
/// A service is one handler with its listeners and connections, and each service has limits of its
/// own. So the memory of a service is bounded by `max_connections` times what one connection may
/// hold. What all connections of all services hold together has bounds of its own:
/// [`set_max_total_input`](crate::Reactor::set_max_total_input) and
/// [`set_max_total_output`](crate::Reactor::set_max_total_output).
///
/// ```
/// use reactor::Limits;
///
/// let limits = Limits { max_line: 1024, max_connections: 500, ..Limits::default() };
/// # assert!(limits.check().is_ok());
/// ```
///
/// Give them to [`Reactor::listen_with`](crate::Reactor::listen_with) or
/// [`Reactor::add`](crate::Reactor::add), which [check](Self::check) them: a value out of its range is
/// [`Error::Limit`]. [`Reactor::set_limits`](crate::Reactor::set_limits) changes them while the loop runs.
///
/// A duration for which no range is given may have any length, and is over at once if it is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many connections there may be at once, from 1 to 16,777,216. Dialled and adopted ones
    /// count too, from the moment they are begun.
    ///
    /// A newcomer above it is told so in one line ([`Handler::farewell`](crate::Handler::farewell))
    /// and closed, unless it can have the place of a connection whose peer is gone: a read or a write
    /// has failed, and only what that peer sent before still waits, for the handler or for the
    /// [`rate`](Self::rate). Whoever has been gone longest gives up its place first; its input is
    /// lost then. Connections that only [linger](Self::linger) do not count. But if there are as
    /// many sockets as this in all, or no file descriptor is left, then a newcomer takes the place
    /// of the connection that has lingered longest. Where none lingers and no descriptor is left, it
    /// takes that of whoever has been gone longest. Default 10,000.
    pub max_connections: usize,
    /// How many bytes a line may have, without its LF or CRLF; from 1 to 1 GiB.
    ///
    /// A client whose line is longer is told so and closed with
    /// [`CloseReason::LineTooLong`](crate::CloseReason::LineTooLong). Default 64 KiB.
    pub max_line: usize,
    /// How many bytes a handler with an [`on_bytes`](crate::Handler::on_bytes) of its own may leave
    /// untaken because it needs more, apart from an unfinished line that it has looked for by
    /// [`Lines`](crate::Lines); from 1 to 1 GiB. So it has to be as large as the largest frame.
    ///
    /// A client whose frame is longer is told so
    /// ([`Farewell::FrameTooLong`](crate::Farewell::FrameTooLong)) and closed with
    /// [`CloseReason::LineTooLong`](crate::CloseReason::LineTooLong). Of a
    /// [block](crate::Context::take_block) nothing is kept, so blocks need no bound. Default none,
    /// which is as many as `max_line`.
    pub max_frame: Option<usize>,
    /// How many unsent bytes a connection may have that *others* caused (a broadcast, a timer, a
    /// message: see [`Context::send`](crate::Context::send)); from 1 to 1 GiB.
    ///
    /// A connection above it is reset with
    /// [`CloseReason::SlowConsumer`](crate::CloseReason::SlowConsumer). One that was dialled is not:
    /// with more than this unsent, whoever caused it, it is full, and what it is sent is refused until
    /// no more than this is left ([`client`](crate::client) says how to go on). Whoever lowers it below
    /// 256 KiB has to lower `soft_output` too. Default 1 MiB.
    pub max_output: usize,
    /// As `max_output`, but this many may be exceeded for up to `soft_output_for` at a time. At
    /// least 1 and at most `max_output`. It does not apply to connections that were dialled. Default
    /// 256 KiB.
    pub soft_output: usize,
    /// How long `soft_output` may be exceeded without a break. Default 10 s.
    pub soft_output_for: Duration,
    /// How many unsent bytes a connection may have that its *own* requests caused; from 1 to 1 GiB, and
    /// above `low_water`.
    ///
    /// Above it, the connection is not read until no more than `low_water` bytes are unsent, so that
    /// TCP holds the client back. A connection that was dialled is always read: a server that holds
    /// its client back likewise would wait for ever for it to read, and it for the server.
    /// Default 256 KiB.
    pub high_water: usize,
    /// How many unsent bytes there may be for a connection that was held back at `high_water` to be
    /// read again, and for [`on_drain`](crate::Handler::on_drain) to be called. From 0 up, and below
    /// `high_water`. Default 64 KiB.
    pub low_water: usize,
    /// How long nothing may move on a connection, in either direction, before its client is told so
    /// and closed with [`CloseReason::IdleTimeout`](crate::CloseReason::IdleTimeout). More than zero.
    ///
    /// Connections that were dialled or adopted are closed too; a server that was dialled is not told.
    /// It does not apply while the handler has [paused](crate::Context::pause) the connection,
    /// unless the handler waits until the client
    /// [takes its output](crate::Context::request_drain). Default none, which is for ever.
    pub idle_timeout: Option<Duration>,
    /// How long a client may take to finish a line that it has begun, however it drips bytes in,
    /// before it is told so and closed with
    /// [`CloseReason::LineTimeout`](crate::CloseReason::LineTimeout). More than zero.
    ///
    /// For a protocol on [`on_bytes`](crate::Handler::on_bytes) the time counts from the first byte
    /// that the handler left untaken because it needs more; where it takes every byte as it comes,
    /// nothing is timed, so set a timer. In a
    /// [block](crate::Context::take_block) it counts from the last piece that came. Over TLS it
    /// counts from the first byte of a record that is not complete, whatever that holds. Outbound
    /// connections are exempt, since
    /// the prompt of a server does not end with an LF; to time a reply, set a timer for each request.
    /// Default 60 s; none is for ever.
    pub line_timeout: Option<Duration>,
    /// How fast the input of one connection is read and handled: its lines, its bytes, or both.
    ///
    /// A connection that is faster is not read for a while, so that TCP holds it back. No line is
    /// lost, and a client that waits for each reply is just answered later. Lines alone do not bound
    /// what a room is sent, since a line may have [`max_line`](Self::max_line) bytes. Default none,
    /// which is without a bound.
    pub rate: Rates,
    /// As `rate`, for all connections of one peer together: those of this service from one IP address;
    /// for IPv6, from one network of 64 bits. Behind a [proxy](crate::Listen::proxy) it is the address
    /// of the client that counts. What a peer has used up stays used up when it comes again, so
    /// reconnecting gains it nothing. Connections that wait for the same rate go on one after the
    /// other, in the order in which they began to wait.
    ///
    /// If there is a `rate` too, the smaller of both counts. Unix sockets, descriptors and dialled
    /// connections are exempt. A service remembers what 65,536 peers have used, in some 10 MB at the
    /// most, and each of them only until its burst is free again; beyond that, it forgets the one whose
    /// burst is free soonest, and counts that in
    /// [`Counters::peers_forgotten`](crate::Counters::peers_forgotten). Default none, which is
    /// without a bound, and remembers nobody.
    pub peer_rate: Rates,
    /// How many connections may be open at once from one IP address; for IPv6, from one network of
    /// 64 bits. At least 1.
    ///
    /// A newcomer above it is told so and closed. Unix sockets and dialled connections do not count.
    /// Default none, which is without a bound.
    pub max_per_peer: Option<usize>,
    /// How many connections a second one peer may begin, in the long run and at once; a peer is
    /// the same as for `peer_rate`, and remembered in the same way.
    ///
    /// A newcomer above it is told so and closed. Those that are refused do not count, and neither do
    /// Unix sockets and dialled connections. Default none, which is without a bound.
    pub peer_connect_rate: Option<Rate>,
    /// How long there may be no traffic before TCP asks the peer whether it is still there; tcp(7),
    /// `TCP_KEEPIDLE`. In whole seconds, from 1 to 32,767.
    ///
    /// TCP asks three times, each a third of this time after the last. Without an answer the
    /// connection ends with [`ErrorKind::TimedOut`](std::io::ErrorKind::TimedOut). This finds peers
    /// that lost their power or their network. Default 5 min; none is never.
    pub keepalive: Option<Duration>,
    /// How long output may stay unacknowledged by the peer, or the peer's window closed, before the
    /// connection ends with [`ErrorKind::TimedOut`](std::io::ErrorKind::TimedOut); tcp(7),
    /// `TCP_USER_TIMEOUT`. In whole milliseconds, from 1 to 2,147,483,647 (24 days).
    ///
    /// If it is none, Linux tries for some 15 minutes. A peer that is there and does not read for so
    /// long is cut off too, which is why the default is none. Only Linux, Android and Fuchsia have
    /// it; elsewhere it does nothing.
    pub user_timeout: Option<Duration>,
    /// How long an outbound connection may take to be established, with the look-up of a
    /// [host](crate::Host), all its addresses, and the handshake of TLS, before it ends with
    /// [`CloseReason::ConnectTimeout`](crate::CloseReason::ConnectTimeout). Default 10 s.
    pub connect_timeout: Duration,
    /// How long a TLS handshake and a PROXY header may take together, counted from when the client was
    /// accepted, however the client drips bytes in. After that the connection is closed; the handler is
    /// not told of it. Default 10 s.
    pub handshake_timeout: Duration,
    /// In this time the peer of a closing connection must take 16 KiB of the remaining output, or
    /// all of it, again and again. Otherwise the connection is reset with
    /// [`CloseReason::Stalled`](crate::CloseReason::Stalled).
    ///
    /// It is also how long input may wait after a read or a write has failed, while the handler has
    /// [paused](crate::Context::pause) the connection or a rate is used up. It waits for less where a
    /// newcomer needs the place; see [`max_connections`](Self::max_connections). Default 30 s.
    pub flush_timeout: Duration,
    /// How long input is read and discarded after the last byte went out, until the peer closes
    /// too, so that no reset destroys the last reply. While the reactor shuts down, half a second at
    /// the most. Default 5 s.
    pub linger: Duration,
    /// How many bytes are read from one connection in one turn, from 1 to 1 GiB. What is left waits
    /// behind the other connections. Default 64 KiB.
    pub bytes_per_turn: usize,
    /// How many lines of one connection are handled in one turn; at least 1. What is left waits
    /// behind the other connections. A call of [`on_bytes`](crate::Handler::on_bytes) that takes
    /// bytes without cutting lines counts as one, and so does each piece of a
    /// [block](crate::Context::take_block). Default 1,024.
    pub lines_per_turn: usize,
    /// How many newcomers are accepted in one turn; at least 1. Default 64.
    pub accepts_per_turn: usize,
    /// How long a hook may hold the loop before that is logged as a warning, since nobody else is
    /// served meanwhile. Default 100 ms.
    pub slow_call: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: 10_000,
            max_line: 64 * 1024,
            max_frame: None,
            max_output: 1024 * 1024,
            soft_output: 256 * 1024,
            soft_output_for: Duration::from_secs(10),
            high_water: 256 * 1024,
            low_water: 64 * 1024,
            idle_timeout: None,
            line_timeout: Some(Duration::from_secs(60)),
            rate: Rates::default(),
            peer_rate: Rates::default(),
            max_per_peer: None,
            peer_connect_rate: None,
            keepalive: Some(Duration::from_secs(300)),
            user_timeout: None,
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            flush_timeout: Duration::from_secs(30),
            linger: Duration::from_secs(5),
            bytes_per_turn: 64 * 1024,
            lines_per_turn: 1024,
            accepts_per_turn: 64,
            slow_call: Duration::from_millis(100),
        }
    }
}

// The defaults of what a reactor has for all its services together.

/// The default of [`set_max_total_output`](crate::Reactor::set_max_total_output).
pub(crate) const MAX_TOTAL_OUTPUT: usize = 1 << 30;
/// The default of [`set_max_total_input`](crate::Reactor::set_max_total_input).
pub(crate) const MAX_TOTAL_INPUT: usize = 128 << 20;
/// The default of [`set_shutdown_timeout`](crate::Reactor::set_shutdown_timeout).
pub(crate) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

// How far a limit may be set.

/// The largest value of a limit in bytes: 1 GiB.
const MOST_BYTES: usize = 1 << 30;
/// Linux refuses more: `MAX_TCP_KEEPIDLE` in its include/net/tcp.h.
const MOST_KEEPALIVE: Duration = Duration::from_secs(32_767);
/// Linux refuses more: the option is an int, in milliseconds.
const MOST_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

impl Limits {
    /// How many bytes `on_bytes` may leave untaken.
    pub(crate) fn longest_frame(&self) -> usize {
        self.max_frame.unwrap_or(self.max_line)
    }

    /// Says whether the limits can be kept. The [`Reactor`](crate::Reactor) checks those that it is
    /// given, so call this to learn of a mistake sooner.
    ///
    /// # Errors
    /// [`Error::Limit`] names the first field that is out of its range or at odds with another.
    pub fn check(&self) -> Result<(), Error> {
        let within = |name, value: usize, most: usize| match value {
            0 => Err(Error::limit(name, "must not be 0")),
            _ if value > most => Err(Error::limit(name, &format!("must not be above {most}"))),
            _ => Ok(()),
        };
        within("max_connections", self.max_connections, crate::connection::id::MOST_SLOTS)?;
        within("max_line", self.max_line, MOST_BYTES)?;
        within("max_frame", self.longest_frame(), MOST_BYTES)?;
        within("max_output", self.max_output, MOST_BYTES)?;
        within("soft_output", self.soft_output, usize::MAX)?;
        if self.soft_output > self.max_output {
            let why = format!("must not be above max_output, which is {}", self.max_output);
            return Err(Error::limit("soft_output", &why));
        }
        within("high_water", self.high_water, MOST_BYTES)?;
        within("bytes_per_turn", self.bytes_per_turn, MOST_BYTES)?;
        within("lines_per_turn", self.lines_per_turn, usize::MAX)?;
        within("accepts_per_turn", self.accepts_per_turn, usize::MAX)?;
        if self.low_water >= self.high_water {
            let why = format!("must be below high_water, which is {}", self.high_water);
            return Err(Error::limit("low_water", &why));
        }
        if let Some(most) = self.max_per_peer {
            within("max_per_peer", most, usize::MAX)?;
        }
        for (per_second, burst, rate) in [
            ("rate.lines.per_second", "rate.lines.burst", self.rate.lines),
            ("rate.bytes.per_second", "rate.bytes.burst", self.rate.bytes),
            ("peer_rate.lines.per_second", "peer_rate.lines.burst", self.peer_rate.lines),
            ("peer_rate.bytes.per_second", "peer_rate.bytes.burst", self.peer_rate.bytes),
            ("peer_connect_rate.per_second", "peer_connect_rate.burst", self.peer_connect_rate),
        ] {
            if let Some(rate) = rate {
                within(per_second, rate.per_second as usize, usize::MAX)?;
                within(burst, rate.burst as usize, usize::MAX)?;
            }
        }
        let lasts = |name, value: Option<Duration>, least: Duration, most: Duration| match value {
            Some(value) if value < least => {
                Err(Error::limit(name, &format!("must not be below {least:?}")))
            }
            Some(value) if value > most => {
                Err(Error::limit(name, &format!("must not be above {most:?}")))
            }
            _ => Ok(()),
        };
        lasts("idle_timeout", self.idle_timeout, Duration::from_nanos(1), Duration::MAX)?;
        lasts("line_timeout", self.line_timeout, Duration::from_nanos(1), Duration::MAX)?;
        lasts("keepalive", self.keepalive, Duration::from_secs(1), MOST_KEEPALIVE)?;
        lasts("user_timeout", self.user_timeout, Duration::from_millis(1), MOST_USER_TIMEOUT)
    }
}

/// How fast something may come: a token bucket of `burst` tokens that fills with `per_second` tokens
/// a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// So many a second in the long run; at least 1.
    pub per_second: u32,
    /// So many at once after a pause; at least 1.
    pub burst: u32,
}

/// How fast input may come: [`rate`](Limits::rate) and [`peer_rate`](Limits::peer_rate).
///
/// ```
/// use reactor::{Limits, Rate, Rates};
///
/// let lines = Rate { per_second: 10, burst: 20 };
/// let bytes = Rate { per_second: 64 * 1024, burst: 64 * 1024 };
/// let limits = Limits {
///     rate: lines.into(),
///     peer_rate: Rates { lines: Some(lines), bytes: Some(bytes) },
///     ..Limits::default()
/// };
/// # assert!(limits.check().is_ok());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rates {
    /// Lines. In a protocol that is not lines, each call of
    /// [`on_bytes`](crate::Handler::on_bytes) that takes bytes counts as one.
    pub lines: Option<Rate>,
    /// Bytes, counted as they are read; over TLS, at least as many as came in encrypted. No read asks
    /// for more than is allowed. Once all are used up, nothing is read until an eighth of the burst is free.
    pub bytes: Option<Rate>,
}

/// A rate of lines alone.
impl From<Rate> for Rates {
    fn from(lines: Rate) -> Rates {
        Rates { lines: Some(lines), bytes: None }
    }
}
