//! What a client is told when it is turned away or closed for a limit.

use crate::limits::Limits;

/// Why the loop turns a client away or closes it, as [`Handler::farewell`](crate::Handler::farewell)
/// is told. In all other cases the loop sends nothing of its own.
///
/// Each variant shows the line that the default of `farewell` sends; the numbers are those of the limits
/// that are in force.
///
/// The first three are about newcomers. The handler hears nothing else of a newcomer that is turned
/// away: there is neither an `on_open` nor an `on_close`, and
/// [`Counters::refused`](crate::Counters::refused) counts it. After the others
/// [`on_close`](crate::Handler::on_close) comes with the [`CloseReason`](crate::CloseReason) of the same
/// name; that of a frame is `LineTooLong`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Farewell {
    /// The newcomer is one too many for [`max_connections`](Limits::max_connections), or there
    /// is no file descriptor for it. `Too many connections, try again later`
    TooManyConnections,
    /// The newcomer's address has [`max_per_peer`](Limits::max_per_peer) connections already.
    /// `Too many connections from your address, close one first`
    TooManyFromPeer,
    /// The newcomer's address connects faster than
    /// [`peer_connect_rate`](Limits::peer_connect_rate).
    /// `Connections from your address come too fast, wait a second`
    ConnectingTooFast,
    /// The client did not finish a line within [`line_timeout`](Limits::line_timeout), or sent nothing
    /// of a block for so long.
    /// `Line not finished in time (limit 60 s)`
    LineTimeout,
    /// The client's line is above [`max_line`](Limits::max_line).
    /// `Line too long (limit 65536 bytes)`
    LineTooLong,
    /// The client's frame is above [`max_frame`](Limits::max_frame).
    /// `Frame too long (limit 65536 bytes)`
    FrameTooLong,
    /// Nothing moved for [`idle_timeout`](Limits::idle_timeout).
    /// `Idle for too long (limit 300 s)`
    IdleTimeout,
    /// After an [upgrade](crate::Reactor::hand_on), another process has the service but could not take over this
    /// client's connection.
    /// `The server is being upgraded, please connect again`
    Upgrade,
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
            Farewell::FrameTooLong => {
                format!("Frame too long (limit {} bytes)\n", limits.longest_frame())
            }
            Farewell::IdleTimeout => {
                let seconds = limits.idle_timeout.unwrap_or_default().as_secs_f64();
                format!("Idle for too long (limit {seconds} s)\n")
            }
            Farewell::Upgrade => "The server is being upgraded, please connect again\n".to_owned(),
        }
    }
}
