//! What the loop counts.

use std::time::Duration;

use crate::connection::CloseReason;
use crate::connection::close_reason::{ALL, REASONS};

/// What the loop has done since it was made: plain integers, kept as it goes.
///
/// Read them with [`Reactor::counters`](crate::Reactor::counters), or inside a handler with
/// `cx.counters()`. They speak for all services of the reactor together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections accepted. The refused ones are not counted, unless it was their handshake that said
    /// who they are.
    pub accepted: u64,
    /// Outbound connections begun.
    pub dialled: u64,
    /// Newcomers turned away: past `max_connections`, `max_per_peer` or `peer_connect_rate`, out of
    /// file descriptors, from an address that is not [allowed](crate::Listen::allow), or whose
    /// [PROXY header](crate::Listen::proxy) is not believed.
    pub refused: u64,
    /// TLS handshakes and PROXY headers that failed or took too long; those connections are among
    /// the accepted ones, and no handler was told of them.
    pub handshakes_failed: u64,
    /// Connections that handlers have been told of (`on_open`) and not yet of their end.
    pub open: u64,
    /// Peers whose use of [`peer_rate`](crate::Limits::peer_rate) or
    /// [`peer_connect_rate`](crate::Limits::peer_connect_rate) was forgotten before it was paid for,
    /// since too many others were to be remembered.
    pub peers_forgotten: u64,
    /// Lines handled.
    pub lines_in: u64,
    /// Bytes read, including those of closing connections that were thrown away.
    pub bytes_in: u64,
    /// Bytes that the kernel took.
    pub bytes_out: u64,
    /// Datagrams handed to handlers.
    pub datagrams_in: u64,
    /// Datagrams that the kernel took.
    pub datagrams_out: u64,
    /// Datagrams that were not sent: too large, refused by the system, or one too many for
    /// [`max_unsent`](crate::DatagramOptions::max_unsent).
    pub datagrams_lost: u64,
    /// Errors in receiving datagrams, including datagrams that could not be had whole.
    pub datagram_errors: u64,
    /// Messages that were posted and not handled before the reactor ended.
    pub messages_lost: u64,
    /// Panics caught in handlers.
    pub panics: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// The longest turn, waiting not counted.
    pub longest_turn: Duration,
    pub(crate) closed: [u64; REASONS],
}

impl Counters {
    /// Connections that ended for this reason; the kind inside `Error(kind)` does not matter.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason.index()]
    }

    /// Every reason, and how many connections ended for it; `Error(ErrorKind::Other)` stands for
    /// errors of all kinds.
    pub fn closed_by_reason(&self) -> impl Iterator<Item = (CloseReason, u64)> {
        ALL.into_iter().zip(self.closed)
    }

    /// Connections that ended, for whatever reason.
    pub fn closed_in_all(&self) -> u64 {
        self.closed.iter().sum()
    }
}
