//! What the server's own clients do, and in which order each of them is answered.

use std::collections::VecDeque;

use super::bus::{Action, Event, Told};
use super::entry::Content;
use super::{Room, pop_front_if};

/// A client with so many lines not read back is not read.
const MOST_LINES: usize = 64;
/// A client with so many bytes not read back is not read.
const MOST_BYTES: usize = 64 << 10;

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
        let ticket = self.sending.push(content);
        if let Some(local) = self.locals.get_mut(&member) {
            local.push(Waiting::Heard(size, ticket));
        }
        self.hold_or_release(member);
    }

    fn leaves(&mut self, member: u64) {
        let Some(local) = self.locals.remove(&member) else { return };
        let tickets = local.waiting.iter().filter_map(|it| match it {
            Waiting::Heard(_, ticket) => Some(*ticket),
            _ => None,
        });
        if !self.sending.take_back(&tickets.collect::<Vec<_>>()) {
            self.happens(member, Content::Leave { member });
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
        local.lines -= 1;
        local.bytes -= waited;
        self.hold_or_release(id);
    }

    fn hold_or_release(&mut self, id: u64) {
        let Some(local) = self.locals.get_mut(&id) else { return };
        let full = local.is_full();
        if full != std::mem::replace(&mut local.held, full) {
            self.actions.push_back(if full { Action::Hold(id) } else { Action::Release(id) });
        }
    }
}
