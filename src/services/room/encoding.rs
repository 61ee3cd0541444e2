//! How what happens in a room is written down for the process that goes on with it.

use std::time::{Duration, Instant};

use super::bus::{Action, News, Told};
use super::entry::{Content, Entry, Here, Member, ServerId};
use crate::services::redis::EntryId;
use crate::{Decoder, Encoder, Unreadable};

const UNKNOWN: Unreadable = Unreadable("of an unknown kind");

/// Many of one sort, with their number.
pub(super) fn put_all<T>(
    to: &mut Encoder,
    all: impl ExactSizeIterator<Item = T>,
    mut put: impl FnMut(&mut Encoder, T),
) {
    to.put_number(all.len() as u64);
    all.for_each(|it| put(to, it));
}

pub(super) fn all<'b, T, C: FromIterator<T>>(
    from: &mut Decoder<'b>,
    mut read: impl FnMut(&mut Decoder<'b>) -> Result<T, Unreadable>,
) -> Result<C, Unreadable> {
    (0..from.number()?).map(|_| read(from)).collect()
}

pub(super) fn put_name(to: &mut Encoder, name: &Option<String>) {
    to.put_option(name.as_deref(), Encoder::put_text);
}

pub(super) fn name(from: &mut Decoder<'_>) -> Result<Option<String>, Unreadable> {
    Ok(from.option(Decoder::text)?.map(str::to_owned))
}

/// A moment that has come, as the time since.
pub(super) fn put_since(to: &mut Encoder, at: Instant, now: Instant) {
    to.put_duration(now.saturating_duration_since(at));
}

pub(super) fn since(from: &mut Decoder<'_>, now: Instant) -> Result<Instant, Unreadable> {
    let passed = from.duration()?;
    Ok(now.checked_sub(passed).unwrap_or(now))
}

/// A moment to come, as the time until then.
pub(super) fn put_until(to: &mut Encoder, at: Instant, now: Instant) {
    to.put_duration(at.saturating_duration_since(now));
}

pub(super) fn until(from: &mut Decoder<'_>, now: Instant) -> Result<Instant, Unreadable> {
    const LONGEST: Duration = Duration::from_secs(3600);
    Ok(now + from.duration()?.min(LONGEST))
}

impl ServerId {
    pub(super) fn save(self, to: &mut Encoder) {
        to.put_number((self.0 >> 64) as u64);
        to.put_number(self.0 as u64);
    }

    pub(super) fn restore(from: &mut Decoder<'_>) -> Result<ServerId, Unreadable> {
        let (high, low) = (u128::from(from.number()?), u128::from(from.number()?));
        Ok(ServerId(high << 64 | low))
    }
}

pub(super) fn put_place(to: &mut Encoder, place: EntryId) {
    to.put_text(&place.to_string());
}

pub(super) fn place(from: &mut Decoder<'_>) -> Result<EntryId, Unreadable> {
    from.text()?.parse().map_err(|()| Unreadable("no place in a stream"))
}

impl Member {
    pub(super) fn save(&self, to: &mut Encoder) {
        let Member { name, order } = self;
        put_name(to, name);
        to.put_number(*order);
    }

    pub(super) fn restore(from: &mut Decoder<'_>) -> Result<Member, Unreadable> {
        Ok(Member { name: name(from)?, order: from.number()? })
    }
}

impl Here {
    fn save(&self, to: &mut Encoder) {
        let Here { after, base, said, members } = self;
        [after, base, said].into_iter().for_each(|number| to.put_number(*number));
        put_all(to, members.iter(), |to, (id, member)| {
            to.put_number(*id);
            member.save(to);
        });
    }

    fn restore(from: &mut Decoder<'_>) -> Result<Here, Unreadable> {
        let (after, base, said) = (from.number()?, from.number()?, from.number()?);
        let members = all(from, |from| Ok((from.number()?, Member::restore(from)?)))?;
        Ok(Here { after, base, said, members })
    }
}

impl Content {
    pub(super) fn save(&self, to: &mut Encoder) {
        let mut kind = |kind: u64, numbers: &[u64]| {
            [&[kind], numbers].concat().into_iter().for_each(|number| to.put_number(number));
        };
        match self {
            Content::Arrive { member, order } => kind(0, &[*member, *order]),
            Content::Hello { member, name } => {
                kind(1, &[*member]);
                put_name(to, name);
            }
            Content::Say { member, name, text } => {
                kind(2, &[*member]);
                put_name(to, name);
                to.put_text(text);
            }
            Content::Bye { member, name } => {
                kind(3, &[*member]);
                put_name(to, name);
            }
            Content::Leave { member } => kind(4, &[*member]),
            Content::Gone { server, life, last } => {
                kind(5, &[*life, *last]);
                server.save(to);
            }
            Content::Name { member, name } => {
                kind(6, &[*member]);
                put_name(to, name);
            }
            Content::Ask => kind(7, &[]),
            Content::Here(here) => {
                kind(8, &[]);
                here.save(to);
            }
        }
    }

    pub(super) fn restore(from: &mut Decoder<'_>) -> Result<Content, Unreadable> {
        Ok(match from.number()? {
            0 => Content::Arrive { member: from.number()?, order: from.number()? },
            1 => Content::Hello { member: from.number()?, name: name(from)? },
            2 => {
                let (member, name) = (from.number()?, name(from)?);
                Content::Say { member, name, text: from.text()?.to_owned() }
            }
            3 => Content::Bye { member: from.number()?, name: name(from)? },
            4 => Content::Leave { member: from.number()? },
            5 => {
                let (life, last) = (from.number()?, from.number()?);
                Content::Gone { server: ServerId::restore(from)?, life, last }
            }
            6 => Content::Name { member: from.number()?, name: name(from)? },
            7 => Content::Ask,
            8 => Content::Here(Here::restore(from)?),
            _ => return Err(UNKNOWN),
        })
    }
}

impl Entry {
    pub(super) fn save(&self, to: &mut Encoder) {
        let Entry { server, life, number, content } = self;
        server.save(to);
        to.put_number(*life);
        to.put_number(*number);
        content.save(to);
    }

    pub(super) fn restore(from: &mut Decoder<'_>) -> Result<Entry, Unreadable> {
        let (server, life) = (ServerId::restore(from)?, from.number()?);
        Ok(Entry { server, life, number: from.number()?, content: Content::restore(from)? })
    }
}

impl News {
    fn save(&self, to: &mut Encoder) {
        let mut kind = |kind: u64, name: Option<&Option<String>>| {
            to.put_number(kind);
            name.into_iter().for_each(|name| put_name(to, name));
        };
        match self {
            News::Arrived => kind(0, None),
            News::Named { name } => kind(1, Some(name)),
            News::Said { name, text } => {
                kind(2, Some(name));
                to.put_text(text);
            }
            News::Leaving { name } => kind(3, Some(name)),
            News::Left { name } => kind(4, Some(name)),
            News::CutOff => kind(5, None),
            News::Whole => kind(6, None),
            News::SaidElsewhere(lines) => {
                kind(7, None);
                to.put_number(*lines);
            }
            News::Missing => kind(8, None),
        }
    }

    fn restore(from: &mut Decoder<'_>) -> Result<News, Unreadable> {
        Ok(match from.number()? {
            0 => News::Arrived,
            1 => News::Named { name: name(from)? },
            2 => News::Said { name: name(from)?, text: from.text()?.to_owned() },
            3 => News::Leaving { name: name(from)? },
            4 => News::Left { name: name(from)? },
            5 => News::CutOff,
            6 => News::Whole,
            7 => News::SaidElsewhere(from.number()?),
            8 => News::Missing,
            _ => return Err(UNKNOWN),
        })
    }
}

impl Told {
    fn save(&self, to: &mut Encoder) {
        match self {
            Told::Who(names) => {
                to.put_number(0);
                put_all(to, names.iter(), put_name);
            }
            Told::NameTaken(name) => {
                to.put_number(1);
                to.put_text(name);
            }
            Told::Line(line) => {
                to.put_number(2);
                to.put_text(line);
            }
        }
    }

    fn restore(from: &mut Decoder<'_>) -> Result<Told, Unreadable> {
        Ok(match from.number()? {
            0 => Told::Who(all(from, name)?),
            1 => Told::NameTaken(from.text()?.to_owned()),
            2 => Told::Line(from.text()?.to_owned()),
            _ => return Err(UNKNOWN),
        })
    }
}

impl Action {
    pub(super) fn save(&self, to: &mut Encoder) {
        match self {
            Action::ToAll { news, by } => {
                to.put_number(0);
                news.save(to);
                to.put_option(*by, Encoder::put_number);
            }
            Action::ToOthers(member, news) => {
                to.put_number(1);
                to.put_number(*member);
                news.save(to);
            }
            Action::To(member, told) => {
                to.put_number(2);
                to.put_number(*member);
                told.save(to);
            }
            Action::Hold(member) => {
                to.put_number(3);
                to.put_number(*member);
            }
            Action::Release(member) => {
                to.put_number(4);
                to.put_number(*member);
            }
            Action::Drain => to.put_number(5),
        }
    }

    pub(super) fn restore(from: &mut Decoder<'_>) -> Result<Action, Unreadable> {
        Ok(match from.number()? {
            0 => Action::ToAll { news: News::restore(from)?, by: from.option(Decoder::number)? },
            1 => Action::ToOthers(from.number()?, News::restore(from)?),
            2 => Action::To(from.number()?, Told::restore(from)?),
            3 => Action::Hold(from.number()?),
            4 => Action::Release(from.number()?),
            5 => Action::Drain,
            _ => return Err(UNKNOWN),
        })
    }
}
