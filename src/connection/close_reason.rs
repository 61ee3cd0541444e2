use std::fmt;
use std::io::ErrorKind;

pub(crate) const REASONS: usize = 13;

/// Each at its [`index`](CloseReason::index).
pub(crate) const ALL: [CloseReason; REASONS] = [
    CloseReason::PeerClosed,
    CloseReason::Closed,
    CloseReason::Aborted,
    CloseReason::LineTooLong,
    CloseReason::LineTimeout,
    CloseReason::IdleTimeout,
    CloseReason::SlowConsumer,
    CloseReason::TotalOutput,
    CloseReason::Stalled,
    CloseReason::ConnectTimeout,
    CloseReason::Error(ErrorKind::Other),
    CloseReason::Panicked,
    CloseReason::Shutdown,
];

/// Why a connection ended; [`Handler::on_close`](crate::Handler::on_close) is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer ended its side, all it had sent was handled and all the replies went out.
    PeerClosed,
    /// The handler called [`close`](crate::Context::close).
    Closed,
    /// The handler called [`abort`](crate::Context::abort).
    Aborted,
    /// A line above [`max_line`](crate::Limits::max_line).
    LineTooLong,
    /// A line begun and not finished within [`line_timeout`](crate::Limits::line_timeout).
    LineTimeout,
    /// Nothing moved for [`idle_timeout`](crate::Limits::idle_timeout).
    IdleTimeout,
    /// It did not read what others had for it: above [`max_output`](crate::Limits::max_output),
    /// or above [`soft_output`](crate::Limits::soft_output) for too long.
    SlowConsumer,
    /// All connections together had too much unsent output, and this one's was among the largest:
    /// [`Reactor::set_max_total_output`](crate::Reactor::set_max_total_output).
    TotalOutput,
    /// It was closing and took next to nothing of the rest for
    /// [`flush_timeout`](crate::Limits::flush_timeout).
    Stalled,
    /// An outbound connection was not there within
    /// [`connect_timeout`](crate::Limits::connect_timeout).
    ConnectTimeout,
    /// The operating system reported an error: a reset, a refused connect, a broken pipe. What the
    /// peer had sent before was handled, but for a last line without its end.
    /// For people, [`Context::error`](crate::Context::error) says more.
    Error(ErrorKind),
    /// One of the handler's hooks panicked while it served this connection.
    Panicked,
    /// The reactor shuts down.
    Shutdown,
}

impl CloseReason {
    pub(crate) fn index(self) -> usize {
        match self {
            CloseReason::PeerClosed => 0,
            CloseReason::Closed => 1,
            CloseReason::Aborted => 2,
            CloseReason::LineTooLong => 3,
            CloseReason::LineTimeout => 4,
            CloseReason::IdleTimeout => 5,
            CloseReason::SlowConsumer => 6,
            CloseReason::TotalOutput => 7,
            CloseReason::Stalled => 8,
            CloseReason::ConnectTimeout => 9,
            CloseReason::Error(_) => 10,
            CloseReason::Panicked => 11,
            CloseReason::Shutdown => 12,
        }
    }

    /// How loudly an ending is logged. A reset is a client's everyday way of leaving.
    pub(crate) fn level(self) -> log::Level {
        match self {
            CloseReason::PeerClosed
            | CloseReason::Closed
            | CloseReason::Aborted
            | CloseReason::Shutdown
            | CloseReason::Error(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                log::Level::Debug
            }
            CloseReason::SlowConsumer
            | CloseReason::TotalOutput
            | CloseReason::Stalled
            | CloseReason::Panicked => log::Level::Warn,
            CloseReason::LineTooLong
            | CloseReason::LineTimeout
            | CloseReason::IdleTimeout
            | CloseReason::ConnectTimeout
            | CloseReason::Error(_) => log::Level::Info,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::PeerClosed => f.write_str("closed by the peer"),
            CloseReason::Closed => f.write_str("closed by the handler"),
            CloseReason::Aborted => f.write_str("aborted by the handler"),
            CloseReason::LineTooLong => f.write_str("line too long"),
            CloseReason::LineTimeout => f.write_str("line not finished in time"),
            CloseReason::TotalOutput => f.write_str("too much unsent output in all"),
            CloseReason::IdleTimeout => f.write_str("idle for too long"),
            CloseReason::SlowConsumer => f.write_str("slow consumer"),
            CloseReason::Stalled => f.write_str("did not take the last replies"),
            CloseReason::ConnectTimeout => f.write_str("connect timed out"),
            CloseReason::Error(kind) => write!(f, "{kind}"),
            CloseReason::Panicked => f.write_str("handler panicked"),
            CloseReason::Shutdown => f.write_str("shutdown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_at_its_index() {
        for (index, reason) in ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index, "{reason}");
        }
    }
}
