use std::time::Duration;

use crate::Error;

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
    /// Connections at once; dialled ones count too, from the moment they are dialled. A newcomer past it is told so in one line
    /// ([`Handler::farewell`](crate::Handler::farewell)) and closed. Connections that only
    /// [linger](Self::linger) do not count, but when there are as many sockets as this in all, a
    /// newcomer costs the oldest of them its place. Default 10,000.
    pub max_connections: usize,
    /// Bytes in one line, its end not counted; for a protocol on
    /// [`on_bytes`](crate::Handler::on_bytes), the bytes it may leave untaken. Past it the client
    /// is told so and closed with [`CloseReason::LineTooLong`](crate::CloseReason::LineTooLong).
    /// Default 64 KiB.
    pub max_line: usize,
    /// Unsent bytes that *others* caused (a broadcast, a timer, a message). Past it the
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
    /// longer read, so that TCP holds the client back, until `low_water`. Default 256 KiB.
    pub high_water: usize,
    /// A connection that was held back at `high_water` is read again once its unsent bytes are
    /// no more than this. Must be below `high_water`. Default 64 KiB.
    pub low_water: usize,
    /// A connection on which nothing moved in either direction for this long is told so and
    /// closed with [`CloseReason::IdleTimeout`](crate::CloseReason::IdleTimeout), unless the
    /// handler has [paused](crate::Context::pause) it for other reasons than to wait until it
    /// [takes its output](crate::Context::request_drain). Default none.
    pub idle_timeout: Option<Duration>,
    /// An outbound connection that is not there after this long ends with
    /// [`CloseReason::ConnectTimeout`](crate::CloseReason::ConnectTimeout). Default 10 s.
    pub connect_timeout: Duration,
    /// A closing connection whose peer takes none of the remaining output for this long is
    /// reset, with [`CloseReason::Stalled`](crate::CloseReason::Stalled). Default 30 s.
    pub flush_timeout: Duration,
    /// After the last byte went out, how long input is still read and thrown away until the
    /// peer closes too, so that no reset destroys the last reply. Default 5 s; half a second at
    /// the most while the reactor shuts down.
    pub linger: Duration,
    /// Bytes read from one connection in one turn; what is left waits behind the others.
    /// Default 64 KiB.
    pub bytes_per_turn: usize,
    /// Lines handled for one connection in one turn, or calls of
    /// [`on_bytes`](crate::Handler::on_bytes) that take none; what is left waits behind the
    /// others. Default 1,024.
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
            connect_timeout: Duration::from_secs(10),
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

impl Limits {
    /// Says whether the values can be kept together; [`Reactor`](crate::Reactor) asks it too.
    ///
    /// # Errors
    /// [`Error::Limit`] names the first field that is zero where it must not be, above 1 GiB, or
    /// at odds with another.
    pub fn check(&self) -> Result<(), Error> {
        let within = |name, value: usize, most: usize| match value {
            0 => Err(Error::limit(name, "must not be 0")),
            _ if value > most => Err(Error::limit(name, &format!("must not be above {most}"))),
            _ => Ok(()),
        };
        within("max_connections", self.max_connections, crate::id::MOST_SLOTS)?;
        within("max_line", self.max_line, MOST_BYTES)?;
        within("max_output", self.max_output, MOST_BYTES)?;
        within("soft_output", self.soft_output, self.max_output)?;
        within("high_water", self.high_water, MOST_BYTES)?;
        within("bytes_per_turn", self.bytes_per_turn, MOST_BYTES)?;
        within("lines_per_turn", self.lines_per_turn, usize::MAX)?;
        within("accepts_per_turn", self.accepts_per_turn, usize::MAX)?;
        if self.low_water >= self.high_water {
            return Err(Error::limit("low_water", "must be below high_water"));
        }
        if self.idle_timeout == Some(Duration::ZERO) {
            return Err(Error::limit("idle_timeout", "must not be 0; None switches it off"));
        }
        Ok(())
    }
}
