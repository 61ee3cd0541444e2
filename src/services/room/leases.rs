//! Who is still there: each server renews a key every second, and looks at the others'.

use std::time::Instant;

use super::Room;
use super::entry::{Content, ServerId};
use crate::services::redis::{EntryId, Reply};

/// Who is still there.
#[derive(Debug)]
pub(super) struct Leases {
    /// When the next look is due.
    pub due: Instant,
    /// When the last look that was answered was sent; none if too much has happened since.
    looked: Option<Instant>,
    /// When the look under way was sent.
    sent: Instant,
    /// Whose leases it is about.
    asked: Vec<ServerId>,
    /// Where the reader was then.
    position: EntryId,
}

impl Leases {
    pub(super) fn new(now: Instant) -> Leases {
        let (asked, position) = (Vec::new(), EntryId::default());
        Leases { due: now, looked: None, sent: now, asked, position }
    }

    /// Nothing goes over: whoever goes on renews the lease at once, and begins to look anew, as after any time
    /// that was lost.
    pub(super) fn save(&self) {
        let Leases { due: _, looked: _, sent: _, asked: _, position: _ } = self;
    }

    /// What was missing before counts for nothing.
    pub(super) fn forgive(&mut self) {
        self.looked = None;
    }
}

impl Room {
    /// Renews our lease and looks at the others'.
    pub(super) fn beat(&mut self) -> Vec<super::Command> {
        if self.is_refused_by_nobody_else() {
            self.ask();
        }
        let others = self.table.servers().iter();
        let others = others.filter(|(id, server)| server.alive && **id != self.keys.server);
        self.leases.asked = others.map(|(id, _)| *id).collect();
        self.leases.due = self.now + self.settings.beat();
        self.leases.sent = self.now;
        self.leases.position = self.reading.position;
        let lease = (self.settings.lease / 2).as_millis();
        let mut commands = self.keys.beat(lease, &self.leases.asked, self.reading.position);
        if let Some(id) = self.reading.cut_at(self.settings.keep) {
            commands.push(self.keys.trim(id));
        }
        commands
    }

    /// The answer: a server whose lease was missing each time for half a lease is gone.
    pub(super) fn beat_answered(&mut self, replies: &[Reply]) {
        let (half, sent) = (self.settings.lease / 2, self.leases.sent);
        // When Redis looks is not known, but that it is between question and answer. If the last question and
        // this answer are no further apart than a lease's key lasts, none was there in between unseen.
        let gap = |looked| self.now.saturating_duration_since(looked) > half;
        let in_a_row = !self.cut && self.leases.looked.is_some_and(|looked| !gap(looked));
        self.leases.looked = Some(sent);
        let asked = std::mem::take(&mut self.leases.asked);
        let leases = replies.get(2).map_or(&[][..], Reply::parts);
        for (id, lease) in asked.into_iter().zip(leases) {
            let Some(server) = self.table.server(id) else { continue };
            if *lease != Reply::Nil {
                server.missing = None;
            } else if !in_a_row {
                server.missing = Some(self.now);
            } else {
                let missing = *server.missing.get_or_insert(self.now);
                if sent.saturating_duration_since(missing) >= half && self.links.is_open() {
                    let (life, last) = (server.life, server.last);
                    self.declare_gone(Content::Gone { server: id, life, last });
                }
            }
        }
        let position = self.leases.position;
        let there = replies.get(1).is_some_and(|entries| !entries.parts().is_empty());
        if position != EntryId::default() && !there && !self.reading.discard {
            self.reading.discard = self.links.is_reading();
            self.lost_place();
        }
    }

    /// Once for each life.
    pub(super) fn declare_gone(&mut self, gone: Content) {
        let same = |content: &Content| match (content, &gone) {
            (Content::Gone { server, life, .. }, Content::Gone { server: id, life: of, .. }) => {
                server == id && life == of
            }
            _ => false,
        };
        let awaiting = self.sending.awaiting.iter().map(|entry| &entry.content);
        if !awaiting.chain(self.sending.queue.values()).any(same) {
            self.sending.push(gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Failure, Link, Settings};
    use super::*;

    const OTHER: ServerId = ServerId(2);

    /// A room that another server is in. A lease is 10 s, its key there for 5.
    fn room() -> Room {
        let mut room = Room::new(Settings::default(), ServerId(1), Instant::now());
        room.table.join(OTHER, 1, &Reply::Array(Vec::new()));
        room.links.open();
        room
    }

    /// A look, sent and answered at these milliseconds, does not find the other's lease.
    fn look(room: &mut Room, begun: Instant, (sent, answered): (u64, u64)) {
        room.now = begun + Duration::from_millis(sent);
        room.beat();
        room.now = begun + Duration::from_millis(answered);
        let lease = Reply::Array(vec![Reply::Nil]);
        room.beat_answered(&[Reply::Status("OK".to_owned()), Reply::Nil, lease]);
    }

    fn is_said_to_be_gone(room: &Room) -> bool {
        let gone = |content: &Content| matches!(content, Content::Gone { server: OTHER, .. });
        room.sending.queue.values().any(gone)
    }

    fn is_gone_after(looks: &[(u64, u64)]) -> bool {
        let mut room = room();
        let begun = room.now;
        looks.iter().for_each(|times| look(&mut room, begun, *times));
        is_said_to_be_gone(&room)
    }

    #[test]
    fn who_is_missing_at_each_look_for_half_a_lease_is_gone() {
        let looks = |to: u64| (0..=to).map(|second| (second * 1_000, second * 1_000 + 5));
        assert!(!is_gone_after(&looks(5).collect::<Vec<_>>()));
        assert!(is_gone_after(&looks(6).collect::<Vec<_>>()));
        // Also where Redis is far away, and something else is asked between two looks.
        let far: Vec<_> = (0..5).map(|look| (look * 2_800, look * 2_800 + 1_400)).collect();
        assert!(is_gone_after(&far));
    }

    #[test]
    fn a_lease_that_was_there_between_two_looks_is_no_missing_one() {
        // Redis was frozen from 0.1 s on. A lease that was set behind the first look ran out before the second.
        assert!(!is_gone_after(&[(0, 5), (1_000, 5_100), (5_200, 5_205)]));
        // The first look was answered late: from its execution at 0 to that of the second the lease was there, and
        // missing for 4 s since.
        assert!(!is_gone_after(&[(0, 4_000), (4_100, 6_000), (7_000, 7_005), (9_000, 9_005)]));
        assert!(!is_gone_after(&[(0, 5), (6_000, 6_005)]));
    }

    #[test]
    fn leases_may_be_lost_with_a_connection() {
        let mut room = room();
        let begun = room.now;
        look(&mut room, begun, (0, 5));
        room.down(Link::Commands, Failure::Other);
        room.links.open();
        look(&mut room, begun, (4_000, 4_005));
        look(&mut room, begun, (5_100, 5_105));
        assert!(!is_said_to_be_gone(&room));
    }
}
