//! Who waits for the rate of its peer. Those of one peer stand in a line, and go on one after the
//! other.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::connection::ConnId;

/// The lines of all peers.
#[derive(Debug, Default)]
pub(super) struct PeerLines {
    /// By peer, and in the order in which they go on.
    waiting: BTreeMap<(IpAddr, u64), ConnId>,
    /// How many have come to wait so far. No place is 0.
    come: u64,
}

/// Added to the places of those that have lost their peer: nobody waits for their answers, so they go
/// on behind all that are there.
const GONE: u64 = 1 << 63;

impl PeerLines {
    /// Those of the peer, in their order.
    pub(super) fn of(&self, peer: IpAddr) -> impl Iterator<Item = ConnId> {
        self.waiting.range((peer, 0)..=(peer, u64::MAX)).map(|(_, id)| *id)
    }

    /// The one of the peer that is next.
    pub(super) fn first(&self, peer: IpAddr) -> Option<ConnId> {
        self.of(peer).next()
    }

    /// Has one more wait, behind the others of its peer, or of those that are `gone`; gives its place.
    pub(super) fn join(&mut self, peer: IpAddr, id: ConnId, gone: bool) -> u64 {
        self.come += 1;
        let place = if gone { GONE + self.come } else { self.come };
        self.waiting.insert((peer, place), id);
        place
    }

    /// Whoever has this place waits no longer. Gives the one that is next now, if it was not before.
    pub(super) fn leave(&mut self, peer: IpAddr, place: u64) -> Option<ConnId> {
        let before = self.first(peer);
        self.waiting.remove(&(peer, place));
        self.first(peer).filter(|first| Some(*first) != before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_a_line_of_its_own() {
        let (mut lines, peers) =
            (PeerLines::default(), [1, 2].map(|last| [192, 0, 2, last].into()));
        let ids: Vec<_> = (1..7).map(|serial| ConnId::new(serial, 0)).collect();
        let join = |(number, id): (usize, &ConnId)| lines.join(peers[number % 2], *id, number == 0);
        let places: Vec<_> = ids.iter().enumerate().map(join).collect();
        assert_eq!(peers.map(|peer| lines.first(peer)), [Some(ids[2]), Some(ids[1])]);
        // The first to come is gone.
        assert!(lines.of(peers[0]).eq([ids[2], ids[4], ids[0]]));
        assert_eq!(lines.leave(peers[0], places[4]), None);
        assert_eq!(lines.leave(peers[0], places[2]), Some(ids[0]));
        assert_eq!(lines.leave(peers[0], places[0]), None);
        assert_eq!(peers.map(|peer| lines.first(peer)), [None, Some(ids[1])]);
    }
}
