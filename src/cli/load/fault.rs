use std::io::ErrorKind;

use reactor::CloseReason;

/// What can be wrong with a server, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody listens.
    Refused,
    ConnectTimeout,
    /// This machine has no port left to connect from.
    NoPorts,
    /// The connection failed for another reason.
    Connect,
    /// The connection was closed, or went silent, before the greeting was complete.
    NoGreeting,
    WrongGreeting,
    WrongReply,
    /// The reply to a line did not come in time.
    MissingReply,
    /// Something came that was not asked for.
    Unexpected,
    /// The server closed the connection too early.
    ClosedEarly,
    /// The server did not close the connection after BYE.
    NotClosed,
    /// The connection was reset or broke.
    Lost,
    /// The server sent one client more or fewer lines than another.
    LineCount,
}

impl Fault {
    pub(crate) const ALL: [Fault; 13] = [
        Fault::Refused,
        Fault::ConnectTimeout,
        Fault::NoPorts,
        Fault::Connect,
        Fault::NoGreeting,
        Fault::WrongGreeting,
        Fault::WrongReply,
        Fault::MissingReply,
        Fault::Unexpected,
        Fault::ClosedEarly,
        Fault::NotClosed,
        Fault::Lost,
        Fault::LineCount,
    ];

    /// Its name in the JSON result; people get it with blanks.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Fault::Refused => "connection_refused",
            Fault::ConnectTimeout => "connect_timed_out",
            Fault::NoPorts => "out_of_local_ports",
            Fault::Connect => "connect_failed",
            Fault::NoGreeting => "no_greeting",
            Fault::WrongGreeting => "wrong_greeting",
            Fault::WrongReply => "wrong_reply",
            Fault::MissingReply => "missing_reply",
            Fault::Unexpected => "unexpected_data",
            Fault::ClosedEarly => "closed_early",
            Fault::NotClosed => "not_closed",
            Fault::Lost => "connection_lost",
            Fault::LineCount => "wrong_line_count",
        }
    }

    /// Why a connection failed. One that we gave up was late.
    pub(crate) fn of_connect(reason: CloseReason) -> Fault {
        match reason {
            CloseReason::ConnectTimeout | CloseReason::Aborted => Fault::ConnectTimeout,
            CloseReason::Error(ErrorKind::ConnectionRefused) => Fault::Refused,
            CloseReason::Error(ErrorKind::AddrNotAvailable) => Fault::NoPorts,
            _ => Fault::Connect,
        }
    }

    /// Why a connection was lost, unless we ended it ourselves.
    pub(crate) fn of_close(reason: CloseReason) -> Option<Fault> {
        match reason {
            CloseReason::Closed | CloseReason::Aborted | CloseReason::Shutdown => None,
            CloseReason::PeerClosed => Some(Fault::ClosedEarly),
            // No reply is as long as what came without an LF.
            CloseReason::LineTooLong => Some(Fault::WrongReply),
            _ => Some(Fault::Lost),
        }
    }
}
