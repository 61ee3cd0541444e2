//! A room that another process goes on with: the same server, whose connections are dialled anew.

use std::collections::VecDeque;
use std::time::Instant;

use super::bus::Action;
use super::commands::Keys;
use super::encoding::{all, put_all, put_since, put_until, since, until};
use super::entry::ServerId;
use super::leases::Leases;
use super::links::Links;
use super::local::Local;
use super::reading::Reading;
use super::sending::Sending;
use super::table::Table;
use super::{Room, Settings};
use crate::{Decoder, Encoder, Unreadable};

impl Room {
    /// What goes over; nothing of a room that is about to stop, or has stopped. Whether Redis has executed what is under
    /// way is as uncertain as when a connection is lost, and the same is done about it: Redis is asked what it has of
    /// it, and the rest is sent again with the same numbers.
    pub(super) fn write(&self, now: Instant, to: &mut Encoder) -> Option<()> {
        let Room {
            settings: Settings { key, timeout: _, lease: _, keep: _, unique_names: _ },
            keys: Keys { room: _, server },
            life,
            established,
            now: _,
            stop_by,
            cut,
            told_missing,
            table,
            locals,
            unheard,
            crowded,
            links,
            sending,
            reading,
            leases,
            // They are about connections that do not go over.
            demands: _,
            actions,
            speech,
            said,
            piece_due,
        } = self;
        if stop_by.is_some() || links.is_closed() {
            return None;
        }
        to.put_text(key);
        server.save(to);
        to.put_number(*life);
        [established, cut, crowded].into_iter().for_each(|flag| to.put_flag(*flag));
        to.put_number(*unheard as u64);
        to.put_number(*said as u64);
        to.put_option(*told_missing, |to, at| put_since(to, at, now));
        to.put_option(*piece_due, |to, at| put_until(to, at, now));
        table.save(now, to);
        put_all(to, locals.iter(), |to, (id, local)| {
            to.put_number(*id);
            local.save(to);
        });
        links.save(now, to);
        sending.save(now, to);
        reading.save(now, to);
        leases.save();
        put_all(to, actions.iter(), |to, action| action.save(to));
        put_all(to, speech.iter(), |to, (action, waited)| {
            action.save(to);
            to.put_number(*waited as u64);
        });
        Some(())
    }

    /// The room that has written that, with these settings.
    pub(super) fn read(
        settings: Settings,
        from: &mut Decoder<'_>,
        now: Instant,
    ) -> Result<Room, Unreadable> {
        if from.text()? != settings.key {
            return Err(Unreadable("the room has another key now"));
        }
        let server = ServerId::restore(from)?;
        Ok(Room {
            keys: Keys { room: settings.key.clone(), server },
            life: from.number()?,
            established: from.flag()?,
            cut: from.flag()?,
            crowded: from.flag()?,
            unheard: from.size()?,
            said: from.size()?,
            told_missing: from.option(|from| since(from, now))?,
            piece_due: from.option(|from| until(from, now))?,
            table: Table::restore(server, settings.unique_names, from, now)?,
            locals: all(from, |from| Ok((from.number()?, Local::restore(from)?)))?,
            links: Links::restore(from, now)?,
            sending: Sending::restore(from, now)?,
            reading: Reading::restore(from, now)?,
            leases: Leases::new(now),
            demands: VecDeque::new(),
            actions: all(from, Action::restore)?,
            speech: all(from, |from| Ok((Action::restore(from)?, from.size()?)))?,
            settings,
            now,
            stop_by: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::bus::{Bus, Event};
    use super::super::{Demand, Failure, Link};
    use super::*;

    fn saved(room: &Room, now: Instant) -> Encoder {
        let mut saved = Encoder::default();
        room.save(now, &mut saved).unwrap();
        saved
    }

    fn settings(key: &str) -> Settings {
        Settings { key: key.to_owned(), unique_names: true, ..Settings::default() }
    }

    /// One in which there is something of everything that a room without Redis can have.
    fn room(now: Instant) -> Room {
        let mut room = Room::new(settings("room"), ServerId(1 << 100 | 7), now);
        for member in 1..4 {
            room.event(member, Event::Arrive, now);
            room.event(member, Event::Hello(Some(format!("m{member}"))), now);
            room.event(member, Event::Who, now);
        }
        room.lost(Link::Reader, Failure::Password, now);
        room.sending.needs_here = false;
        assert_eq!(room.make_batch().len(), 6);
        room.sending.needs_here = true;
        room.event(1, Event::Say("said".to_owned()), now);
        room.bury(ServerId(9), 1, 0);
        room.say_missing();
        room
    }

    #[test]
    fn a_room_is_the_same_server_in_the_next_process() {
        let now = Instant::now();
        let room = room(now);
        let before = saved(&room, now);
        // The clock of the other process is another one; that much passes on the way, and counts for nobody.
        let later = now + std::time::Duration::from_secs(1);
        let mut new = Room::new(settings("room"), ServerId(2), later);
        let mut from = Decoder::new(before.as_bytes());
        new.restore(&mut from, later).unwrap();
        from.finish().unwrap();
        assert_eq!(saved(&new, later), before);
        assert_eq!((new.keys.server, new.sending.number), (ServerId(1 << 100 | 7), 6));
        // It dials what was not waited for, and renews its lease at once.
        new.pump();
        assert_eq!(new.poll_redis(), Some(Demand::Connect(Link::Commands)));
        assert_eq!((new.poll_redis(), new.leases.due), (None, later));
    }

    /// As of a whole server in `tests/services/upgrade.rs`, which says when the file is another one.
    #[test]
    fn what_is_written_down_is_what_the_last_release_has_written() {
        let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/release-0.1.room");
        let now = Instant::now();
        let bytes = saved(&room(now), now);
        if std::env::var_os("REACTOR_RECORD").is_some() {
            std::fs::write(recorded, bytes.as_bytes()).unwrap();
        }
        let wanted = std::fs::read(recorded).unwrap();
        assert_eq!(bytes.as_bytes().escape_ascii().to_string(), wanted.escape_ascii().to_string());
    }

    #[test]
    fn what_cannot_be_changes_nothing() {
        let now = Instant::now();
        let before = saved(&room(now), now);
        let bytes = before.as_bytes();
        let mut new = Room::new(settings("room"), ServerId(2), now);
        let as_it_was = saved(&new, now);
        for end in 0..bytes.len() {
            new.restore(&mut Decoder::new(&bytes[..end]), now).unwrap_err();
        }
        assert_eq!(saved(&new, now), as_it_was);
        let mut other = Room::new(settings("other"), ServerId(2), now);
        other.restore(&mut Decoder::new(bytes), now).unwrap_err();
    }

    #[test]
    fn a_room_that_stops_does_not_go_over() {
        let now = Instant::now();
        let mut room = room(now);
        room.stop(now);
        assert_eq!(room.save(now, &mut Encoder::default()), None);
        let now = now + super::super::STOP_WAIT;
        room.tick(now);
        assert!(std::iter::from_fn(|| room.poll_redis()).any(|it| it == Demand::Stopped));
        assert_eq!(room.save(now, &mut Encoder::default()), None);
    }
}
