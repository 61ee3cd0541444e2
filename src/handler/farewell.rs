//! What a client is told when it is turned away or closed for a limit.

use crate::limits::Limits;

/// Why the loop turns a client away or closes it, as [`Handler::farewell`](crate::Handler::farewell)
/// is told. In all other cases the loop sends nothing of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Farewell {
    /// The newcomer is one too many for [`max_connections`](Limits::max_connections), or there
    /// is no file descriptor for it.
    TooManyConnections,
    /// The newcomer's address has [`max_per_peer`](Limits::max_per_peer) connections already.
    TooManyFromPeer,
    /// The newcomer's address connects faster than
    /// [`peer_connect_rate`](Limits::peer_connect_rate).
    ConnectingTooFast,
    /// The client did not finish a line within [`line_timeout`](Limits::line_timeout).
    LineTimeout,
    /// The client's line is above [`max_line`](Limits::max_line).
    LineTooLong,
    /// Nothing moved for [`idle_timeout`](Limits::idle_timeout).
    IdleTimeout,
}

impl Farewell {
    /// The words of the default [`Handler::farewell`](crate::Handler::farewell): one line.
    pub(super) fn words(self, limits: &Limits) -> String {
        match self {
            Farewell::TooManyConnections => "Too many connections, try again later\n".to_owned(),
            Farewell::TooManyFromPeer => {
                "Too many connections from your address, close one first\n".to_owned()
            }
            // A rate is at least one a second.
            Farewell::ConnectingTooFast => {
                "Connections from your address come too fast, wait a second\n".to_owned()
            }
            Farewell::LineTimeout => {
                let seconds = limits.line_timeout.unwrap_or_default().as_secs_f64();
                format!("Line not finished in time (limit {seconds} s)\n")
            }
            Farewell::LineTooLong => format!("Line too long (limit {} bytes)\n", limits.max_line),
            Farewell::IdleTimeout => {
                let seconds = limits.idle_timeout.unwrap_or_default().as_secs_f64();
                format!("Idle for too long (limit {seconds} s)\n")
            }
        }
    }
}
