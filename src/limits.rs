use std::time::Duration;

use crate::error::Error;

/// What one service's connections may use: the settings of a listener.
///
/// Every limit holds for one service (one handler with its listeners and connections), so the
/// memory of a service is bounded by `max_connections` times what one connection may hold.
///
/// ```
/// use reactor::Limits;
///
/// let limits = Limits { max_line: 1024, max_connections: 500, ..Limits::default() };
/// # assert!(limits.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; dialled and adopted ones count from the beginning. A newcomer past it
    /// is told so in one line ([`Handler::farewell`](crate::Handler::farewell)) and closed.
    /// Connections that only [linger](Self::linger) do not count, but when there are as many
    /// sockets as this in all, a newcomer costs the oldest of them its place, and so does one that
    /// finds no descriptor. Default 10,000.
    pub max_connections: usize,
    /// Bytes in one line, its end not counted; for a protocol on
    /// [`on_bytes`](crate::Handler::on_bytes), the bytes it may leave untaken from call to call. Past it the client
    /// is told so and closed with [`CloseReason::LineTooLong`](crate::CloseReason::LineTooLong).
    /// Default 64 KiB.
    pub max_line: usize,
    /// Unsent bytes that *others* caused (a broadcast, a timer, a message); see
    /// [`Context::send`](crate::Context::send). Must not be below `soft_output`. Past it the
    /// connection is reset with [`CloseReason::SlowConsumer`](crate::CloseReason::SlowConsumer).
    /// Default 1 MiB.
    pub max_output: usize,
    /// A lower bound than `max_output`, which may be passed for a while: a connection above it
    /// without a break for `soft_output_for` is a slow consumer too. Must not be above
    /// `max_output`. Default 256 KiB.
    pub soft_output: usize,
    /// How long `soft_output` may be passed. Default 10 s.
    pub soft_output_for: Duration,
    /// Unsent bytes that the connection's *own* requests caused. Past it the connection is no
    /// longer read, so that TCP holds the client back, until `low_water`, which must be below it.
    /// So is one that was dialled: a client that sends ahead of the replies must stay below it,
    /// request by request ([`request_drain`](crate::Context::request_drain) tells when), or raise
    /// it. Else a server that does the same waits for us to read, and we for it to read, for ever.
    /// Default 256 KiB.
    pub high_water: usize,
    /// A connection that was held back at `high_water` is read again once its unsent bytes are
    /// no more than this. Must be below `high_water`. Default 64 KiB.
    pub low_water: usize,
    /// A connection on which nothing moved in either direction for this long is told so and
    /// closed with [`CloseReason::IdleTimeout`](crate::CloseReason::IdleTimeout), unless the
    /// handler has [paused](crate::Context::pause) it for other reasons than to wait until it
    /// [takes its output](crate::Context::request_drain). Default none.
    pub idle_timeout: Option<Duration>,
    /// A client that has begun a line must finish it within this time, however it drips bytes in:
    /// past it the client is told so and closed with
    /// [`CloseReason::LineTimeout`](crate::CloseReason::LineTimeout). On
    /// [`on_bytes`](crate::Handler::on_bytes) it counts from the first byte that the handler left
    /// untaken, wanting more. Outbound connections are exempt: a server's prompt ends in no line
    /// feed; a timer for each request is the client's means. Default 60 s; none for never.
    pub line_timeout: Option<Duration>,
    /// How fast one connection's lines are handled. One that is faster is not read meanwhile, so
    /// that TCP holds it back; nothing is lost, and a client that waits for its replies never
    /// notices. Default none.
    pub rate: Option<Rate>,
    /// Connections open at once from one IP address, which for IPv6 means one network of 64 bits; a
    /// newcomer past it is told so and closed. Unix sockets and dialled connections do not count.
    /// Default none.
    pub max_per_peer: Option<usize>,
    /// After how long without traffic TCP asks a peer whether it is still there; a third of it
    /// later again, and after three questions without an answer the connection ends with
    /// [`ErrorKind::TimedOut`](std::io::ErrorKind::TimedOut). Finds peers that lost their power
    /// or their network; tcp(7), `TCP_KEEPIDLE`. In whole seconds, 32,767 at the most. Default 5 min; none for never.
    pub keepalive: Option<Duration>,
    /// How long output may stay without the peer's acknowledgement, or its window closed, before
    /// the connection ends with [`ErrorKind::TimedOut`](std::io::ErrorKind::TimedOut); tcp(7),
    /// `TCP_USER_TIMEOUT`. Where it is unset, Linux tries for some 15 minutes. A peer that is
    /// there but does not read for so long is cut off too, which is why the default is none. Only
    /// Linux, Android and Fuchsia have it; elsewhere it does nothing. In whole milliseconds,
    /// 2,147,483,647 (24 days) at the most.
    pub user_timeout: Option<Duration>,
    /// An outbound connection that is not there after this long, looking up the
    /// [host](crate::Host) and trying all its addresses included, ends with
    /// [`CloseReason::ConnectTimeout`](crate::CloseReason::ConnectTimeout). Default 10 s.
    pub connect_timeout: Duration,
    /// A TLS handshake that is not done this long after the client was accepted is given up, with
    /// whatever it drips in. Default 10 s.
    pub handshake_timeout: Duration,
    /// A closing connection whose peer takes less than 16 KiB of the remaining output for this
    /// long, and not all of it, is reset with
    /// [`CloseReason::Stalled`](crate::CloseReason::Stalled). So long, too, what has come
    /// from one to which a write has failed waits for a handler that has
    /// [paused](crate::Context::pause) it, or for its `rate`. Default 30 s.
    pub flush_timeout: Duration,
    /// After the last byte went out, how long input is still read and thrown away until the
    /// peer closes too, so that no reset destroys the last reply. Default 5 s; half a second at
    /// the most while the reactor shuts down.
    pub linger: Duration,
    /// Bytes read from one connection in one turn; what is left waits behind the others.
    /// Default 64 KiB.
    pub bytes_per_turn: usize,
    /// Lines handled for one connection in one turn; a call of
    /// [`on_bytes`](crate::Handler::on_bytes) that takes bytes without cutting lines counts as
    /// one. What is left waits behind the others. Default 1,024.
    pub lines_per_turn: usize,
    /// Newcomers accepted in one turn. Default 64.
    pub accepts_per_turn: usize,
    /// Callbacks that hold the loop for this long are logged as a warning: nobody else is served
    /// meanwhile. Default 100 ms.
    pub slow_call: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: 10_000,
            max_line: 64 * 1024,
            max_output: 1024 * 1024,
            soft_output: 256 * 1024,
            soft_output_for: Duration::from_secs(10),
            high_water: 256 * 1024,
            low_water: 64 * 1024,
            idle_timeout: None,
            line_timeout: Some(Duration::from_secs(60)),
            rate: None,
            max_per_peer: None,
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

/// The largest value of a limit in bytes: 1 GiB.
const MOST_BYTES: usize = 1 << 30;
/// Linux refuses more: `MAX_TCP_KEEPIDLE` in its include/net/tcp.h.
const MOST_KEEPALIVE: Duration = Duration::from_secs(32_767);
/// As that: the option is an int of milliseconds.
const MOST_USER_TIMEOUT: Duration = Duration::from_millis(i32::MAX as u64);

impl Limits {
    /// Says whether the values can be kept together; [`Reactor`](crate::Reactor) asks it too.
    ///
    /// # Errors
    /// [`Error::Limit`] names the first field that is zero where it must not be, above 1 GiB or
    /// what TCP takes, or at odds with another.
    pub fn check(&self) -> Result<(), Error> {
        let within = |name, value: usize, most: usize| match value {
            0 => Err(Error::limit(name, "must not be 0")),
            _ if value > most => Err(Error::limit(name, &format!("must not be above {most}"))),
            _ => Ok(()),
        };
        within("max_connections", self.max_connections, crate::connection::id::MOST_SLOTS)?;
        within("max_line", self.max_line, MOST_BYTES)?;
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
        if let Some(rate) = self.rate {
            within("rate.per_second", rate.per_second as usize, usize::MAX)?;
            within("rate.burst", rate.burst as usize, usize::MAX)?;
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

/// How many lines a second, and how many at once after a pause: a token bucket of `burst` tokens
/// that fills with `per_second`. A protocol that is not lines has its calls of
/// [`on_bytes`](crate::Handler::on_bytes) counted that took something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Lines a second in the long run; at least 1.
    pub per_second: u32,
    /// Lines that may come at once; at least 1.
    pub burst: u32,
}
