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
    /// When the last look was answered; none if too much has happened since.
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
        // What Redis answers late it may have looked at late: who was there in between is not known.
        let gap = |looked| self.now.saturating_duration_since(looked) > half / 2;
        let in_a_row = !self.cut && self.leases.looked.is_some_and(|looked| !gap(looked));
        self.leases.looked = Some(self.now);
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
