//! What the server's own clients do, and in which order each of them is answered.

use std::collections::VecDeque;

use super::bus::{Action, Event, Told};
use super::encoding::{all, name, put_all, put_name};
use super::entry::Content;
use super::seat::{MOST_BYTES, MOST_LINES};
use super::{Room, pop_front_if};
use crate::{Decoder, Encoder, Unreadable};

/// With so many bytes of all clients not read back nobody is read who does something: who says a line and
/// goes, again and again, leaves it behind, which no bound of one client holds back.
const MOST_UNHEARD: usize = 16 << 20;

/// What a client waits for.
#[derive(Debug)]
enum Waiting {
    /// Something of its own, of so many bytes, is to be heard. It has, or had, that ticket in the queue.
    Heard(usize, u64),
    /// It wants to know who is there.
    Who,
    /// It is to be told this.
    Told(String),
}

impl Waiting {
    fn size(&self) -> usize {
        match self {
            Waiting::Heard(size, _) => *size,
            Waiting::Who => 16,
            Waiting::Told(line) => 1 + line.len(),
        }
    }

    fn save(&self, to: &mut Encoder) {
        match self {
            Waiting::Heard(size, ticket) => {
                to.put_number(0);
                to.put_number(*size as u64);
                to.put_number(*ticket);
            }
            Waiting::Who => to.put_number(1),
            Waiting::Told(line) => {
                to.put_number(2);
                to.put_text(line);
            }
        }
    }

    fn restore(from: &mut Decoder<'_>) -> Result<Waiting, Unreadable> {
        Ok(match from.number()? {
            0 => Waiting::Heard(from.size()?, from.number()?),
            1 => Waiting::Who,
            2 => Waiting::Told(from.text()?.to_owned()),
            _ => return Err(Unreadable("it waits for something unknown")),
        })
    }
}

/// One client of this server.
#[derive(Debug, Default)]
pub(super) struct Local {
    /// What it waits for, in the order in which it asked.
    waiting: VecDeque<Waiting>,
    /// How many lines those are, and those that wait to be given out.
    lines: usize,
    /// How many bytes.
    bytes: usize,
    /// It is not read for now.
    held: bool,
    /// What it has called itself last.
    name: Option<String>,
}

impl Local {
    fn push(&mut self, waiting: Waiting) {
        self.lines += 1;
        self.bytes += waiting.size();
        self.waiting.push_back(waiting);
    }

    pub(super) fn save(&self, to: &mut Encoder) {
        let Local { waiting, lines, bytes, held, name } = self;
        put_all(to, waiting.iter(), |to, waiting| waiting.save(to));
        to.put_number(*lines as u64);
        to.put_number(*bytes as u64);
        to.put_flag(*held);
        put_name(to, name);
    }

    pub(super) fn restore(from: &mut Decoder<'_>) -> Result<Local, Unreadable> {
        Ok(Local {
            waiting: all(from, Waiting::restore)?,
            lines: from.size()?,
            bytes: from.size()?,
            held: from.flag()?,
            name: name(from)?,
        })
    }

    /// Whether it is to be held: from the limit on, until half of it has gone.
    fn is_full(&self) -> bool {
        let half = if self.held { 2 } else { 1 };
        self.lines * half >= MOST_LINES || self.bytes * half >= MOST_BYTES
    }
}

impl Room {
    /// A member has done something; see [`Bus`](super::bus::Bus).
    pub(super) fn does(&mut self, member: u64, event: Event) {
        if event == Event::Arrive {
            // A newcomer has not been told yet.
            self.told_missing = None;
            if self.locals.insert(member, Local::default()).is_none() {
                self.happens(member, Content::Arrive { member, order: 0 });
            }
            return;
        }
        let Some(local) = self.locals.get_mut(&member) else { return };
        let name = || local.name.clone();
        let content = match event {
            Event::Arrive => return,
            Event::Hello(name) => {
                local.name.clone_from(&name);
                Content::Hello { member, name }
            }
            Event::Say(text) => Content::Say { member, name: name(), text },
            Event::Bye => Content::Bye { member, name: name() },
            Event::Leave => return self.leaves(member),
            Event::Who => return self.asks(member, Waiting::Who),
            Event::Answer(line) => return self.asks(member, Waiting::Told(line)),
        };
        self.happens(member, content);
    }

    /// It is on its way to the stream, or to be said at home if there is no way.
    fn happens(&mut self, member: u64, content: Content) {
        let size = content.size();
        self.unheard += size;
        self.crowded |= self.unheard > MOST_UNHEARD;
        let ticket = self.sending.push(content);
        if let Some(local) = self.locals.get_mut(&member) {
            local.push(Waiting::Heard(size, ticket));
        }
        self.hold_or_release(member);
    }

    fn leaves(&mut self, member: u64) {
        let Some(local) = self.locals.remove(&member) else { return };
        let unheard = local.waiting.iter().filter_map(|it| match it {
            Waiting::Heard(size, ticket) => Some((*size, *ticket)),
            _ => None,
        });
        let (sizes, tickets): (Vec<usize>, Vec<u64>) = unheard.unzip();
        if self.sending.take_back(&tickets) {
            self.is_heard(sizes.iter().sum());
        } else {
            self.happens(member, Content::Leave { member });
        }
    }

    /// So many bytes of what clients have done were heard, or never will be.
    fn is_heard(&mut self, bytes: usize) {
        self.unheard = self.unheard.saturating_sub(bytes);
        if self.crowded && self.unheard * 2 <= MOST_UNHEARD {
            self.crowded = false;
            let held = self.locals.iter().filter(|(_, local)| local.held);
            let held: Vec<_> = held.map(|(id, _)| *id).collect();
            held.into_iter().for_each(|id| self.hold_or_release(id));
        }
    }

    fn asks(&mut self, member: u64, what: Waiting) {
        if let Some(local) = self.locals.get_mut(&member) {
            local.push(what);
        }
        self.answer_waiting(member);
    }

    /// Something of our own is heard: read in the stream, or nobody else will hear it.
    pub(super) fn apply_own(&mut self, content: &Content) {
        if let Content::Gone { server, life, last } = content {
            return self.bury(*server, *life, *last);
        }
        let Some(id) = content.member() else { return };
        let server = self.keys.server;
        self.is_heard(content.size());
        if let Content::Leave { .. } = content {
            self.sending.misnamed.remove(&id);
        }
        let heard = self.locals.get_mut(&id).and_then(|local| local.waiting.pop_front());
        let waited = heard.as_ref().map_or(0, Waiting::size);
        let outcome = self.table.apply(server, content);
        let action = match (outcome.news, outcome.taken) {
            (_, Some(name)) => {
                let kept = self.table.member(server, id).and_then(|member| member.name.clone());
                self.locals.get_mut(&id).into_iter().for_each(|it| it.name.clone_from(&kept));
                self.sending.misnamed.insert(id);
                Some(Action::To(id, Told::NameTaken(name)))
            }
            (Some(news), _) if matches!(content, Content::Arrive { .. }) => {
                Some(Action::ToOthers(id, news))
            }
            (Some(news), _) => Some(Action::ToAll { news, by: heard.map(|_| id) }),
            (None, None) => None,
        };
        match action {
            Some(action) => self.speech.push_back((action, waited)),
            None => self.is_told(id, waited),
        }
        self.answer_waiting(id);
    }

    /// Answers a client until it waits for something of its own.
    fn answer_waiting(&mut self, id: u64) {
        let Some(local) = self.locals.get_mut(&id) else { return };
        while let Some(what) =
            pop_front_if(&mut local.waiting, |it| !matches!(it, Waiting::Heard(..)))
        {
            let size = what.size();
            let told = match what {
                Waiting::Told(line) => Told::Line(line),
                _ => Told::Who(self.table.who()),
            };
            self.speech.push_back((Action::To(id, told), size));
        }
        self.hold_or_release(id);
    }

    /// A client is told what it has waited for with so many bytes.
    pub(super) fn is_told(&mut self, id: u64, waited: usize) {
        let Some(local) = self.locals.get_mut(&id).filter(|_| waited > 0) else { return };
        local.lines = local.lines.saturating_sub(1);
        local.bytes = local.bytes.saturating_sub(waited);
        self.hold_or_release(id);
    }

    fn hold_or_release(&mut self, id: u64) {
        let Some(local) = self.locals.get_mut(&id) else { return };
        let full = self.crowded || local.is_full();
        if full != std::mem::replace(&mut local.held, full) {
            self.actions.push_back(if full { Action::Hold(id) } else { Action::Release(id) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::bus::{Bus, News};
    use super::super::{ServerId, Settings};
    use super::*;

    /// A room that has no connection, and the time.
    fn room(unique_names: bool) -> (Room, Instant) {
        let now = Instant::now();
        let settings = Settings { unique_names, ..Settings::default() };
        (Room::new(settings, ServerId::random(), now), now)
    }

    /// What the room asks for now; everybody takes it.
    fn take_all(room: &mut Room, now: Instant) -> Vec<Action> {
        let mut taken = Vec::new();
        loop {
            let before = taken.len();
            taken.extend(std::iter::from_fn(|| room.poll()));
            if taken.len() == before {
                return taken;
            }
            room.drained(now);
        }
    }

    fn cut_off(room: &mut Room, began: Instant) -> Instant {
        (1..=3).for_each(|step| room.tick(began + Duration::from_secs(2 * step)));
        assert!(room.is_cut_off());
        began + Duration::from_secs(6)
    }

    #[test]
    fn who_was_refused_a_name_and_has_left_is_forgotten_also_while_the_room_is_cut_off() {
        let (mut room, began) = room(true);
        let now = cut_off(&mut room, began);
        for member in 1..10 {
            room.event(member, Event::Arrive, now);
            room.event(member, Event::Hello(Some("Ann".to_owned())), now);
            take_all(&mut room, now);
        }
        assert_eq!(room.sending.misnamed.len(), 8);
        for member in 2..10 {
            room.event(member, Event::Leave, now);
            take_all(&mut room, now);
        }
        assert!(room.sending.misnamed.is_empty());
    }

    #[test]
    fn an_answer_is_heard_right_behind_what_its_client_did_before() {
        let (mut room, began) = room(false);
        for member in [1, 2] {
            room.event(member, Event::Arrive, began);
        }
        room.event(1, Event::Bye, began);
        room.event(1, Event::Answer(String::new()), began);
        room.event(2, Event::Say("hello".to_owned()), began);
        let now = cut_off(&mut room, began);
        let heard = take_all(&mut room, now);
        let bye = Action::ToAll { news: News::Leaving { name: None }, by: Some(1) };
        let place = heard.iter().position(|action| *action == bye).unwrap();
        assert_eq!(heard[place + 1], Action::To(1, Told::Line(String::new())));
        assert!(heard.len() > place + 2);
    }

    #[test]
    fn what_waits_of_clients_that_are_gone_is_bounded() {
        const LINE: usize = 60_000;
        let (mut room, began) = room(false);
        let mut said = 0;
        for member in 1..=1_000 {
            room.event(member, Event::Arrive, began);
            if !take_all(&mut room, began).contains(&Action::Hold(member)) {
                said += 1;
                room.event(member, Event::Say("x".repeat(LINE)), began);
            }
            room.event(member, Event::Leave, began);
        }
        assert!(said * LINE <= MOST_UNHEARD + LINE, "{said} lines wait");
        // Who came to the crowd goes on once it is heard.
        room.event(2_000, Event::Arrive, began);
        assert!(take_all(&mut room, began).contains(&Action::Hold(2_000)));
        let now = cut_off(&mut room, began);
        assert!(take_all(&mut room, now).contains(&Action::Release(2_000)));
        room.event(2_001, Event::Arrive, now);
        assert!(!take_all(&mut room, now).contains(&Action::Hold(2_001)));
        assert_eq!(room.unheard, 0);
    }
}
