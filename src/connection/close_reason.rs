use std::fmt;
use std::io::ErrorKind;

/// How many reasons are counted.
pub(crate) const REASONS: usize = 17;

/// The reasons, each at its [`index`](CloseReason::index), with some kind of error for all errors.
pub(crate) const ALL: [CloseReason; REASONS] = [
    CloseReason::PeerClosed,
    CloseReason::Closed,
    CloseReason::Aborted,
    CloseReason::LineTooLong,
    CloseReason::LineTimeout,
    CloseReason::IdleTimeout,
    CloseReason::SlowConsumer,
    CloseReason::TotalOutput,
    CloseReason::TotalInput,
    CloseReason::Stalled,
    CloseReason::ConnectTimeout,
    CloseReason::Error(ErrorKind::Other),
    CloseReason::Panicked,
    CloseReason::Shutdown,
    CloseReason::Administrator,
    CloseReason::HandedOver,
    CloseReason::Upgrade,
];

/// Why a connection ended, as [`Handler::on_close`](crate::Handler::on_close) is told.
///
/// It is displayed as a few words, such as `closed by the peer`.
/// [`Counters::closed`](crate::Counters::closed) has how many connections ended for each reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer ended its side. All it had sent was handled, and all replies went out.
    PeerClosed,
    /// The handler called [`close`](crate::Context::close).
    Closed,
    /// The handler called [`abort`](crate::Context::abort).
    Aborted,
    /// The peer sent a line above [`max_line`](crate::Limits::max_line), or a frame above
    /// [`max_frame`](crate::Limits::max_frame).
    LineTooLong,
    /// The peer began a line, or a record of TLS, and did not finish it within
    /// [`line_timeout`](crate::Limits::line_timeout), or sent nothing of a block for so long.
    LineTimeout,
    /// Nothing moved in either direction for [`idle_timeout`](crate::Limits::idle_timeout).
    IdleTimeout,
    /// The peer did not read what others sent it: more than
    /// [`max_output`](crate::Limits::max_output) bytes, or more than
    /// [`soft_output`](crate::Limits::soft_output) for too long. Never that of a connection that was
    /// dialled.
    SlowConsumer,
    /// All connections together had too much unsent output, and this one was among those with the
    /// most. See [`Reactor::set_max_total_output`](crate::Reactor::set_max_total_output).
    TotalOutput,
    /// All connections together had too much unfinished input, and this one was among those with the
    /// most. See [`Reactor::set_max_total_input`](crate::Reactor::set_max_total_input).
    TotalInput,
    /// The connection was closing, and the peer took next to nothing of the remaining output for
    /// [`flush_timeout`](crate::Limits::flush_timeout).
    Stalled,
    /// An outbound connection was not established within
    /// [`connect_timeout`](crate::Limits::connect_timeout).
    ConnectTimeout,
    /// The operating system reported an error: a reset, a refused connect, a broken pipe. What the
    /// peer had sent before was handled, except for a last line without an LF, and for what was not
    /// handled within [`flush_timeout`](crate::Limits::flush_timeout) of the error, or before a
    /// newcomer needed the [place](crate::Limits::max_connections).
    /// [`Context::error`](crate::Context::error) has the whole error, for a message to people.
    Error(ErrorKind),
    /// A hook panicked while it served this connection.
    Panicked,
    /// The reactor shut down, or its service was [removed](crate::Reactor::remove).
    Shutdown,
    /// Somebody looked inside and closed it: [`Reactor::close`](crate::Reactor::close) or
    /// [`Ask::Close`](crate::Ask::Close).
    Administrator,
    /// The handler has handed it over to another service (`Context::hand_over`): all that was sent has
    /// gone out, and the connection lives on there under another id, or was turned away.
    HandedOver,
    /// After an [upgrade](crate::Reactor::hand_on), another process has the service but could not take over this
    /// connection: the handler does not [save](crate::Handler::save) its state, the new handler could not read
    /// it, or the connection cannot move, such as one over TLS whose handler keeps its connections
    /// [together](crate::Saved::together).
    Upgrade,
}

impl CloseReason {
    /// Where it is counted.
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
            CloseReason::TotalInput => 8,
            CloseReason::Stalled => 9,
            CloseReason::ConnectTimeout => 10,
            CloseReason::Error(_) => 11,
            CloseReason::Panicked => 12,
            CloseReason::Shutdown => 13,
            CloseReason::Administrator => 14,
            CloseReason::HandedOver => 15,
            CloseReason::Upgrade => 16,
        }
    }

    /// A word for it, as a metric has it: `peer-closed`, `line-too-long`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::PeerClosed => "peer-closed",
            CloseReason::Closed => "closed",
            CloseReason::Aborted => "aborted",
            CloseReason::LineTooLong => "line-too-long",
            CloseReason::LineTimeout => "line-timeout",
            CloseReason::IdleTimeout => "idle-timeout",
            CloseReason::SlowConsumer => "slow-consumer",
            CloseReason::TotalOutput => "total-output",
            CloseReason::TotalInput => "total-input",
            CloseReason::Stalled => "stalled",
            CloseReason::ConnectTimeout => "connect-timeout",
            CloseReason::Error(_) => "error",
            CloseReason::Panicked => "panicked",
            CloseReason::Shutdown => "shutdown",
            CloseReason::Administrator => "administrator",
            CloseReason::HandedOver => "handed-over",
            CloseReason::Upgrade => "upgrade",
        }
    }

    /// At which level the end of a connection is logged. Many clients leave with a reset, or without the
    /// goodbye of their layer, so that is no news.
    pub(crate) fn level(self) -> log::Level {
        match self {
            CloseReason::PeerClosed
            | CloseReason::Closed
            | CloseReason::Aborted
            | CloseReason::Shutdown
            | CloseReason::HandedOver
            | CloseReason::Upgrade
            // That it is closed, and why, was logged before.
            | CloseReason::Administrator
            | CloseReason::Error(
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof,
            ) => log::Level::Debug,
            CloseReason::SlowConsumer
            | CloseReason::TotalOutput
            | CloseReason::TotalInput
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
            CloseReason::TotalInput => f.write_str("too much unfinished input in all"),
            CloseReason::IdleTimeout => f.write_str("idle for too long"),
            CloseReason::SlowConsumer => f.write_str("slow consumer"),
            CloseReason::Stalled => f.write_str("did not take the last replies"),
            CloseReason::ConnectTimeout => f.write_str("connect timed out"),
            CloseReason::Error(kind) => write!(f, "{kind}"),
            CloseReason::Panicked => f.write_str("handler panicked"),
            CloseReason::Shutdown => f.write_str("shutdown"),
            CloseReason::Administrator => f.write_str("closed by the administrator"),
            CloseReason::HandedOver => f.write_str("handed over to another service"),
            CloseReason::Upgrade => f.write_str("closed for an upgrade"),
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

    #[test]
    fn each_has_a_word_of_its_own() {
        let words: std::collections::HashSet<_> = ALL.map(CloseReason::as_str).into();
        assert_eq!(words.len(), ALL.len());
    }
}
