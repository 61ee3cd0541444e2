//! What the loop counts.

use std::fmt;
use std::time::Duration;

use super::loop_state::LoopState;
use crate::connection::CloseReason;
use crate::connection::close_reason::{ALL, REASONS};

/// What the loop has done since it was made: plain integers, kept as it goes.
///
/// Read them with [`Reactor::counters`](crate::Reactor::counters), or inside a handler with
/// `cx.counters()`: they speak for all services of the reactor together. Those of one service are in
/// [`Reactor::counters_of`](crate::Reactor::counters_of) and in its
/// [`ServiceStatus`](crate::ServiceStatus).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections accepted. The refused ones are not counted, unless it was their handshake that said
    /// who they are.
    pub accepted: u64,
    /// Outbound connections begun.
    pub dialled: u64,
    /// Newcomers turned away: past `max_connections`, `max_per_peer` or `peer_connect_rate`, out of
    /// file descriptors, from an address or a user that is not [allowed](crate::Listen::allow), or whose
    /// [PROXY header](crate::Listen::proxy) is not believed. [`refused_for`](Self::refused_for) tells
    /// these apart.
    pub refused: u64,
    /// TLS handshakes and PROXY headers that failed or took too long; those connections are among
    /// the accepted ones, and no handler was told of them.
    /// [`handshakes_failed_by_layer`](Self::handshakes_failed_by_layer) tells these apart.
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
    /// How often hooks held the loop for [`slow_call`](crate::Limits::slow_call) or longer. Hooks that
    /// were called in a row between two readings of the clock count as one.
    pub slow_calls: u64,
    /// Turns of the loop, whatever services they were for.
    pub turns: u64,
    /// The longest of them, waiting not counted.
    pub longest_turn: Duration,
    closed: [u64; REASONS],
    refused_for: [u64; Refused::ALL.len()],
    handshakes_failed_by_layer: [u64; LAYERS.len()],
}

/// The layers whose handshakes can fail, from the outside in.
const LAYERS: [&str; 3] = ["proxy", "tls", "ws"];

/// Why a newcomer was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// [`max_connections`](crate::Limits::max_connections) were there.
    Full,
    /// [`max_per_peer`](crate::Limits::max_per_peer) connections of its peer were there.
    PerPeer,
    /// Its peer has connected too often for
    /// [`peer_connect_rate`](crate::Limits::peer_connect_rate).
    ConnectRate,
    /// The process had no file descriptor left.
    NoDescriptor,
    /// It comes from an address that is not [allowed](crate::Listen::allow), or from a
    /// [user](crate::Listen::allow_uids) that is not.
    NotAllowed,
    /// It comes from an address whose [PROXY headers](crate::Listen::proxy) are not believed.
    NotProxied,
    /// It is a page in a browser that is not from here.
    Origin,
}

impl Refused {
    /// All of them, each at its place in the counters.
    pub(super) const ALL: [Refused; 7] = [
        Refused::Full,
        Refused::PerPeer,
        Refused::ConnectRate,
        Refused::NoDescriptor,
        Refused::NotAllowed,
        Refused::NotProxied,
        Refused::Origin,
    ];

    /// A word for it, as a metric has it: `full`, `per-peer`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::Full => "full",
            Refused::PerPeer => "per-peer",
            Refused::ConnectRate => "connect-rate",
            Refused::NoDescriptor => "no-descriptor",
            Refused::NotAllowed => "not-allowed",
            Refused::NotProxied => "not-proxied",
            Refused::Origin => "origin",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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

    /// Newcomers that were turned away for this.
    pub fn refused_for(&self, why: Refused) -> u64 {
        self.refused_for[why as usize]
    }

    /// Every reason to turn newcomers away, and how many it has met.
    pub fn refused_by_why(&self) -> impl Iterator<Item = (Refused, u64)> + use<> {
        Refused::ALL.into_iter().zip(self.refused_for)
    }

    /// The layers that have handshakes, `proxy`, `tls` and `ws`, and how many of these have failed.
    pub fn handshakes_failed_by_layer(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        LAYERS.into_iter().zip(self.handshakes_failed_by_layer)
    }

    pub(super) fn close(&mut self, reason: CloseReason) {
        self.closed[reason.index()] += 1;
    }

    pub(super) fn refuse(&mut self, why: Refused) {
        self.refused += 1;
        self.refused_for[why as usize] += 1;
    }

    /// Counts a handshake that has failed in this layer.
    pub(super) fn fail_handshake(&mut self, layer: Option<&'static str>) {
        self.handshakes_failed += 1;
        if let Some(place) = LAYERS.iter().position(|name| Some(*name) == layer) {
            self.handshakes_failed_by_layer[place] += 1;
        }
    }

    /// Adds what another service has counted.
    pub(crate) fn add(&mut self, other: &Counters) {
        macro_rules! add {
            ($($field:ident)*) => {
                // All fields, so that none is forgotten. Turns are the loop's.
                let Counters {
                    $($field,)*
                    turns: _,
                    longest_turn: _,
                    closed,
                    refused_for,
                    handshakes_failed_by_layer,
                } = other;
                $(self.$field += $field;)*
                add_each(&mut self.closed, closed);
                add_each(&mut self.refused_for, refused_for);
                add_each(&mut self.handshakes_failed_by_layer, handshakes_failed_by_layer);
            };
        }
        add! {
            accepted dialled refused handshakes_failed open peers_forgotten
            lines_in bytes_in bytes_out datagrams_in datagrams_out datagrams_lost datagram_errors
            messages_lost panics slow_calls
        }
    }
}

fn add_each(sums: &mut [u64], counts: &[u64]) {
    sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}

impl LoopState {
    /// What a service counts in.
    #[inline]
    pub(crate) fn counters(&mut self, service: usize) -> &mut Counters {
        &mut self.services[service].counters
    }

    /// What one service has counted.
    pub(crate) fn counted_for(&self, service: usize) -> Counters {
        let (turns, longest_turn) = (self.meter.count(), self.meter.longest_ever());
        Counters { turns, longest_turn, ..self.services[service].counters.clone() }
    }

    /// What all services have counted together.
    pub(crate) fn counted(&self) -> Counters {
        let (turns, longest_turn) = (self.meter.count(), self.meter.longest_ever());
        let mut sum = Counters { turns, longest_turn, ..self.past.clone() };
        self.services.iter().for_each(|service| sum.add(&service.counters));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_at_its_place() {
        for (place, why) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place, "{why}");
        }
    }
}
