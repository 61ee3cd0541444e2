//! What one peer may take up: connections at once (`max_per_peer`), connections a second
//! (`peer_connect_rate`), and with all its connections together lines and bytes a second
//! (`peer_rate`).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::counters::Counters;
use super::loop_state::LoopState;
use super::peer_accounts::PeerAccounts;
use super::peer_lines::PeerLines;
use crate::connection::ConnId;
use crate::connection::clock::Nanos;
use crate::connection::connection::Connection;
use crate::connection::flags::Flag;
use crate::connection::rate::Share;
use crate::limits::Limits;

/// Counts the connections that were accepted from each peer and keeps what they have used, where that
/// is limited. It is told of each connection that comes and goes, and asked whether one more may come.
#[derive(Debug)]
pub(crate) struct Peers {
    /// How many each address may have. Without a limit nothing is counted.
    most: Option<usize>,
    /// How many each has. An address without any is not in the map.
    open: HashMap<IpAddr, usize>,
    /// What each has used of its rates; none where there are none.
    accounts: Option<Box<PeerAccounts>>,
    /// Those that wait until their peer has something left.
    lines: PeerLines,
}

/// Why a newcomer may not come, in the words of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("full with {0} connections (max_connections)")]
    Full(usize),
    #[error("{0} has {1} connections (max_per_peer)")]
    TooMany(IpAddr, usize),
    #[error("{0} connects too fast (peer_connect_rate)")]
    TooFast(IpAddr),
}

impl Peers {
    pub(super) fn new(limits: &Limits) -> Peers {
        let accounts = Peers::remembers(limits).then(|| Box::new(PeerAccounts::new(limits)));
        let lines = PeerLines::default();
        Peers { most: limits.max_per_peer, open: HashMap::new(), accounts, lines }
    }

    /// Whether anything depends on what a peer has used before.
    fn remembers(limits: &Limits) -> bool {
        limits.peer_rate.are_set() || limits.peer_connect_rate.is_some()
    }

    /// Whether there is any limit by peer.
    pub(crate) fn are_limited(limits: &Limits) -> bool {
        limits.max_per_peer.is_some() || Peers::remembers(limits)
    }

    /// Asks all limits by peer whether one more may come from there; then it counts as begun.
    pub(super) fn judge(
        &mut self,
        peer: Option<SocketAddr>,
        service: usize,
        state: &mut LoopState,
    ) -> Option<Refusal> {
        if self.most.is_none() && self.accounts.is_none() {
            return None;
        }
        let peer = peer?;
        let key = peer_key(peer);
        let ip = peer.ip().to_canonical();
        if let Some(most) = self.most
            && self.open.get(&key).is_some_and(|open| *open >= most)
        {
            return Some(Refusal::TooMany(ip, most));
        }
        let accounts = self.accounts.as_mut()?;
        let may = accounts.begin(key, state.turn.now, state.counters(service));
        (!may).then_some(Refusal::TooFast(ip))
    }

    pub(super) fn add(&mut self, conn: &Connection) {
        if let Some(peer) = self.counted(conn) {
            *self.open.entry(peer).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, conn: &Connection) {
        if let Some(peer) = self.counted(conn)
            && let Some(open) = self.open.get_mut(&peer)
        {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&peer);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn are_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What the connection counts under, if it does.
    fn counted(&self, conn: &Connection) -> Option<IpAddr> {
        self.most?;
        key(conn)
    }

    /// What the connection may have as far as its peer goes: nothing while others of its peer wait,
    /// unless it has waited with them and was woken.
    pub(super) fn allow(&self, conn: &Connection, now: Nanos) -> Share {
        let account = self.accounts.as_ref().zip(key(conn));
        account.map_or(Share::UNBOUNDED, |(accounts, peer)| {
            let last = conn.place() == 0 && self.lines.first(peer).is_some();
            if last { Share::default() } else { accounts.allow(peer, now) }
        })
    }

    /// Has the connection wait in the line of its peer, where it may stand already. Gives when its turn
    /// comes; none while others are before it.
    pub(super) fn wait(&mut self, conn: &mut Connection) -> Option<Nanos> {
        let peer = key(conn)?;
        if conn.place() == 0 {
            let gone = conn.flags.has(Flag::Gone);
            conn.extras().place = self.lines.join(peer, conn.id, gone);
        }
        let first = self.lines.first(peer) == Some(conn.id);
        first.then(|| self.ready(conn))
    }

    /// The connection waits no longer. Gives the one of its peer whose turn is next now, if that was
    /// the turn of this one.
    pub(super) fn leave(&mut self, conn: &mut Connection) -> Option<ConnId> {
        let place = conn.take_place()?;
        self.lines.leave(key(conn)?, place)
    }

    /// Those that wait with the first one, and for whom there is enough now as well, one after the
    /// other. `reads` says of each whether it has to read first.
    pub(super) fn for_whom_there_is(
        &self,
        first: &Connection,
        now: Nanos,
        reads: impl Fn(ConnId) -> bool,
    ) -> Vec<ConnId> {
        let Some((accounts, peer)) = self.accounts.as_ref().zip(key(first)) else {
            return Vec::new();
        };
        let mut left = accounts.allow(peer, now);
        let enough = |id: &ConnId| {
            let after = left.without(accounts.wanted(reads(*id)));
            after.inspect(|after| left = *after).is_some()
        };
        self.lines.of(peer).take_while(enough).filter(|id| *id != first.id).collect()
    }

    /// When its peer has enough left for the connection to go on.
    pub(super) fn ready(&self, conn: &Connection) -> Nanos {
        let account = self.accounts.as_ref().zip(key(conn));
        // No deadline is 0.
        account.map_or(1, |(accounts, peer)| accounts.ready(peer, conn.reads()).max(1))
    }

    /// Counts what the connection has used.
    pub(super) fn spend(
        &mut self,
        conn: &Connection,
        used: Share,
        now: Nanos,
        counters: &mut Counters,
    ) {
        if !used.is_nothing()
            && let Some((accounts, peer)) = self.accounts.as_mut().zip(key(conn))
        {
            accounts.spend(peer, used, now, counters);
        }
    }
}

/// What the connection's peer goes by. Those that were dialled have none, and neither have those
/// whose peer is still to be named.
pub(super) fn key(conn: &Connection) -> Option<IpAddr> {
    let exempt = conn.flags.has(Flag::Outbound) || conn.flags.has(Flag::Unjudged);
    conn.peer.get().filter(|_| !exempt).map(peer_key)
}

/// What counts as one peer: an IPv4 address, or the 64 bits of an IPv6 address that name a network,
/// since a client that has one such address has the whole network.
fn peer_key(peer: SocketAddr) -> IpAddr {
    match peer.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_peer() {
        let home = |text: &str| peer_key(text.parse().unwrap()).to_string();
        assert_eq!(home("[2001:db8:1:2:3:4:5:6]:7"), "2001:db8:1:2::");
        assert_eq!(home("[::ffff:127.0.0.2]:7"), "127.0.0.2");
        assert_eq!(home("127.0.0.3:7"), "127.0.0.3");
    }
}
