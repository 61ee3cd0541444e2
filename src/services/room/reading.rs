//! What comes from the stream: which entries count, and what is heard of them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::encoding::{all, place, put_all, put_place, put_since, since};
use super::entry::{Content, Entry, Here, ServerId};
use super::{Room, pop_front_if};
use crate::services::redis::{EntryId, Reply};
use crate::{Decoder, Encoder, Unreadable};

/// In about so many places what is kept of the stream may be cut.
const STRIDES: u64 = 64;

/// What comes from the stream.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The last entry that was read. All zeros: from the beginning.
    pub position: EntryId,
    /// Up to there all has been read before, if it is read again.
    pub known_to: EntryId,
    /// Read, and not yet heard.
    pub inbox: VecDeque<(EntryId, Entry)>,
    /// What is being read now is not to be heeded, since we read from the beginning again.
    pub discard: bool,
    /// The entry at the position is to be looked at before anything is read.
    pub unsure: bool,
    /// The last number of ours that was read, or that was executed and is lost.
    pub seen: u64,
    /// Members of other servers that have told a name which somebody else has here, and when: their
    /// servers say which name they keep.
    refused: BTreeMap<(ServerId, u64), Instant>,
    /// How many bytes were read.
    bytes: u64,
    /// Where the stream may be cut: entries, with the bytes that were read up to them.
    places: VecDeque<(u64, EntryId)>,
}

impl Reading {
    /// Begins behind the last of the entries of a stream of so many bytes. Where it is cut before that is
    /// guessed: as if always as much had been said as at other times.
    pub(super) fn begin_at(&mut self, first: EntryId, last: EntryId, bytes: i64) {
        self.position = last;
        self.bytes = u64::try_from(bytes).unwrap_or(0);
        let places = (0..=STRIDES).map(|part| {
            let at = u128::from(self.bytes) * u128::from(part) / u128::from(STRIDES);
            (at as u64, first.between(last, part, STRIDES))
        });
        self.places = places.collect();
    }

    /// Where to cut the stream so that no more than so many bytes are kept; once for each place.
    pub(super) fn cut_at(&mut self, keep: u64) -> Option<EntryId> {
        let (mut found, bytes) = (None, self.bytes);
        while let Some((_, id)) = pop_front_if(&mut self.places, |(at, _)| bytes - *at > keep) {
            found = Some(id);
        }
        found
    }

    pub(super) fn save(&self, now: Instant, to: &mut Encoder) {
        let Reading {
            position,
            known_to,
            inbox,
            // The connection is lost with what it was about to bring, and whoever has another looks.
            discard: _,
            unsure: _,
            seen,
            refused,
            bytes,
            places,
        } = self;
        put_place(to, *position);
        put_place(to, *known_to);
        put_all(to, inbox.iter(), |to, (at, entry)| {
            put_place(to, *at);
            entry.save(to);
        });
        to.put_number(*seen);
        put_all(to, refused.iter(), |to, ((server, member), at)| {
            server.save(to);
            to.put_number(*member);
            put_since(to, *at, now);
        });
        to.put_number(*bytes);
        put_all(to, places.iter(), |to, (at, id)| {
            to.put_number(*at);
            put_place(to, *id);
        });
    }

    pub(super) fn restore(from: &mut Decoder<'_>, now: Instant) -> Result<Reading, Unreadable> {
        Ok(Reading {
            position: place(from)?,
            known_to: place(from)?,
            inbox: all(from, |from| Ok((place(from)?, Entry::restore(from)?)))?,
            discard: false,
            unsure: false,
            seen: from.number()?,
            refused: all(from, |from| {
                Ok(((ServerId::restore(from)?, from.number()?), since(from, now)?))
            })?,
            bytes: from.number()?,
            places: all(from, |from| Ok((from.number()?, place(from)?)))?,
        })
    }

    fn count(&mut self, id: EntryId, fields: &Reply, keep: u64) {
        self.bytes +=
            fields.pairs().map(|(name, value)| (name.len() + value.len()) as u64).sum::<u64>();
        if self.places.back().is_none_or(|(at, _)| self.bytes - at > keep / STRIDES) {
            self.places.push_back((self.bytes, id));
        }
    }
}

impl Room {
    /// What an `XREAD` has brought.
    pub(super) fn take_in(&mut self, reply: &Reply) {
        if std::mem::take(&mut self.reading.discard) {
            return;
        }
        let streams = reply.parts().iter().filter_map(|stream| stream.parts().get(1));
        for (id, fields) in streams.flat_map(Reply::entries) {
            self.reading.position = self.reading.position.max(id);
            self.reading.count(id, fields, self.settings.keep);
            if let Some(entry) = Entry::from_reply(fields) {
                self.reading.inbox.push_back((id, entry));
            }
        }
    }

    /// The entry where the reader was is not there any more: entries may have gone unread.
    pub(super) fn lost_place(&mut self) {
        self.say_missing();
        let reading = &mut self.reading;
        // All that there is will be counted again.
        (reading.bytes, reading.places) = (0, VecDeque::new());
        reading.known_to = reading.known_to.max(std::mem::take(&mut reading.position));
        self.ask();
        self.resync();
    }

    /// Has every server write all that the others have to know of it.
    pub(super) fn ask(&mut self) {
        self.sending.asks = true;
    }

    /// All that the others have to know of us will be written again.
    pub(super) fn resync(&mut self) {
        self.sending.needs_here = true;
        self.links.start_over();
    }

    /// What is said of servers counts whoever says it, and does nothing the second time. Of members an
    /// entry counts if its server is known, it is of the current life, and it has not been there.
    pub(super) fn admit(&mut self, at: EntryId, entry: Entry) {
        let Entry { server: id, life, number, content } = entry;
        if at <= self.reading.known_to && !self.table.servers().contains_key(&id) {
            // It was gone before we came, or will write its `Here` again.
            return;
        }
        match &content {
            Content::Here(here) => return self.read_here(id, life, number, here),
            Content::Gone { server, life, last } => {
                self.bury(*server, *life, *last);
                if *server != id && *server != self.keys.server {
                    self.tell_of_more(*server, *life, *last);
                }
            }
            Content::Ask if id != self.keys.server => self.resync(),
            _ => {}
        }
        if id == self.keys.server {
            return self.read_own(life, number);
        }
        let server = self.table.server(id);
        let Some(server) = server.filter(|server| server.life >= life) else {
            // What told of it was lost; or there are too many.
            if !self.table.is_full() {
                self.say_missing();
                self.ask();
            }
            return;
        };
        if !server.alive || life != server.life || number <= server.last {
            return;
        }
        let skipped = number - server.last > 1;
        server.last = number;
        if skipped {
            self.say_missing();
            self.ask();
        }
        let outcome = self.table.apply(id, &content);
        match content {
            Content::Hello { member, .. } if outcome.taken.is_some() => {
                self.reading.refused.insert((id, member), self.now);
            }
            Content::Hello { member, .. } | Content::Name { member, .. } => {
                self.reading.refused.remove(&(id, member));
            }
            _ => {}
        }
        self.say(outcome.news);
    }

    /// Whether a member of another server was refused its name here, and its server does not say so.
    pub(super) fn is_refused_by_nobody_else(&mut self) -> bool {
        let (now, timeout) = (self.now, self.settings.timeout);
        let count = self.reading.refused.len();
        self.reading.refused.retain(|_, at| now.duration_since(*at) < timeout);
        self.reading.refused.len() < count
    }

    /// One of ours: the others hear it here. What it says is what we know, and not what is there.
    fn read_own(&mut self, life: u64, number: u64) {
        let sending = &mut self.sending;
        if life != self.life
            || sending.over
            || number > sending.number
            || number <= self.reading.seen
        {
            return;
        }
        self.reading.seen = number;
        sending.uncertain.remove(&number);
        if self.sending.awaiting.front().is_some_and(|first| first.number < number) {
            // Those below were lost before we could read them; they are heard here all the same.
            self.say_missing();
            self.ask();
        }
        while let Some(entry) = pop_front_if(&mut self.sending.awaiting, |it| it.number <= number) {
            self.apply_own(&entry.content);
        }
    }

    fn read_here(&mut self, id: ServerId, life: u64, number: u64, here: &Here) {
        if id == self.keys.server {
            return;
        }
        let known = self.table.servers().get(&id);
        if known.is_some_and(|known| life < known.life || number <= known.here) {
            return;
        }
        if known.is_some_and(|known| life == known.life && here.base < known.last) {
            // What it wrote later has been heard: Redis has data again that were lost. What else it has
            // to tell is in a `Here` that it writes itself.
            return;
        }
        // Of a server that has said something, and of which nothing has been heard, all is missing.
        if known.map_or(0, |known| known.last) < here.after {
            self.say_missing();
        }
        let news = self.table.resync(id, life, number, here);
        self.say(news);
    }

    /// A server is gone, says an entry. Its members leave at the first one; another may tell that there was more.
    pub(super) fn bury(&mut self, id: ServerId, life: u64, last: u64) {
        if id == self.keys.server {
            if life == self.life && self.stop_by.is_none() {
                (self.sending.dead, self.sending.over) = (true, true);
            }
            return;
        }
        let Some(server) = self.table.servers().get(&id).filter(|server| server.life == life)
        else {
            return;
        };
        let alive = server.alive;
        if server.last < last {
            self.say_missing();
        }
        if alive {
            let news = self.table.bury(id);
            self.say(news);
        }
    }

    /// Another has written that a server is gone, and may have heard less of it than we have: what Redis has
    /// lost since. Those who have not heard that either are told so by a `gone` of ours.
    fn tell_of_more(&mut self, server: ServerId, life: u64, last: u64) {
        let known = self.table.servers().get(&server).filter(|known| known.life == life);
        if let Some(last) = known.map(|known| known.last).filter(|known| *known > last) {
            self.sending.push(Content::Gone { server, life, last });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::super::bus::{Action, Bus, News};
    use super::*;

    const WRITER: ServerId = ServerId(2);
    const GONE: ServerId = ServerId(3);

    /// A room with two other servers, which has heard five entries of the second.
    fn room() -> Room {
        let mut room = Room::new(Settings::default(), ServerId(1), Instant::now());
        room.table.join(WRITER, 1, &Reply::Array(Vec::new()));
        room.table.join(GONE, 1, &Reply::Array(Vec::new()));
        room.table.server(GONE).unwrap().last = 5;
        room
    }

    /// The first writes that the second is gone; how often messages may be missing then.
    fn reads_gone(room: &mut Room, number: u64, last: u64) -> usize {
        let content = Content::Gone { server: GONE, life: 1, last };
        let entry = Entry { server: WRITER, life: 1, number, content };
        room.admit(EntryId::default(), entry);
        let missing = |action: &Action| matches!(action, Action::ToAll { news: News::Missing, .. });
        std::iter::from_fn(|| room.poll()).filter(missing).count()
    }

    #[test]
    fn who_has_heard_more_of_a_server_that_is_gone_says_so() {
        let mut room = room();
        assert_eq!(reads_gone(&mut room, 1, 3), 0);
        let told = Content::Gone { server: GONE, life: 1, last: 5 };
        assert!(room.sending.queue.values().eq([&told]));
        room.sending.needs_here = false;
        assert_eq!(room.make_batch()[0].content, told);
        // Those who have heard as much have nothing to add.
        let mut room = self::room();
        assert_eq!(reads_gone(&mut room, 1, 5), 0);
        assert!(room.sending.queue.is_empty());
    }

    #[test]
    fn a_later_gone_tells_of_more_that_is_missing() {
        let mut room = room();
        assert_eq!(reads_gone(&mut room, 1, 5), 0);
        assert_eq!(reads_gone(&mut room, 2, 6), 1);
        assert!(room.sending.queue.is_empty());
    }
}
