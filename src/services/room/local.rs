//! What the server's own clients do, and in which order each of them is answered.

use std::collections::VecDeque;
use std::time::Instant;

use super::entry::Event;
use super::{Action, Room, pop_front_if};

/// A client with so many lines not read back is not read.
const MOST_LINES: usize = 64;
/// A client with so many bytes not read back is not read.
const MOST_BYTES: usize = 64 << 10;

/// What a client waits for.
#[derive(Debug)]
enum Waiting {
    /// An event of its own, of so many bytes, is to be heard.
    Heard(usize),
    /// It wants to know who is there.
    Who,
    /// It is to be told this.
    Told(String),
}

/// One client of this server.
#[derive(Debug, Default)]
pub(super) struct Local {
    /// What it waits for, in the order in which it asked.
    waiting: VecDeque<Waiting>,
    /// How many bytes that is.
    bytes: usize,
    /// It is not read for now.
    held: bool,
    /// What it has called itself last.
    name: Option<String>,
}

impl Local {
    fn push(&mut self, waiting: Waiting) {
        self.bytes += waiting.size();
        self.waiting.push_back(waiting);
    }

    /// Whether it is to be held: from the limit on, until half of it has gone.
    fn is_full(&self) -> bool {
        let half = if self.held { 2 } else { 1 };
        self.waiting.len() * half >= MOST_LINES || self.bytes * half >= MOST_BYTES
    }
}

impl Waiting {
    fn size(&self) -> usize {
        match self {
            Waiting::Heard(size) => *size,
            Waiting::Who => 16,
            Waiting::Told(line) => line.len(),
        }
    }
}

impl Room {
    /// A client has connected; no two ever have the same number.
    pub fn arrive(&mut self, member: u64, now: Instant) {
        self.locals.insert(member, Local::default());
        // A newcomer has not been told yet.
        self.told_missing = None;
        self.event(Event::Arrive { member, order: 0 }, now);
    }

    /// A client has told its name, which is fit to be shown.
    pub fn hello(&mut self, member: u64, name: Option<String>, now: Instant) {
        if let Some(local) = self.locals.get_mut(&member) {
            local.name.clone_from(&name);
        }
        self.event(Event::Hello { member, name }, now);
    }

    /// A client has said something, which is fit to be shown.
    pub fn says(&mut self, member: u64, text: String, now: Instant) {
        let name = self.name_of(member);
        self.event(Event::Say { member, name, text }, now);
    }

    /// A client has said that it is about to leave.
    pub fn bye(&mut self, member: u64, now: Instant) {
        let name = self.name_of(member);
        self.event(Event::Bye { member, name }, now);
    }

    fn name_of(&self, member: u64) -> Option<String> {
        self.locals.get(&member).and_then(|local| local.name.clone())
    }

    /// A client is gone.
    pub fn leave(&mut self, member: u64, now: Instant) {
        if self.locals.remove(&member).is_none() {
            return;
        }
        if self.has_never_been(member) {
            return self.sending.queue.retain(|event| event.member() != Some(member));
        }
        self.event(Event::Leave { member }, now);
    }

    /// Whether all that a client has done is to come and to tell its name, and nobody has been told.
    fn has_never_been(&self, member: u64) -> bool {
        let mut its = self.sending.queue.iter().filter(|event| event.member() == Some(member));
        let arrival = its.next();
        matches!(arrival, Some(Event::Arrive { .. }))
            && its.all(|event| matches!(event, Event::Hello { .. }))
    }

    /// A client wants to know who is there.
    pub fn who(&mut self, member: u64, now: Instant) {
        self.asks(member, Waiting::Who, now);
    }

    /// A client is to be told something when it has heard what it did before.
    pub fn answer(&mut self, member: u64, line: String, now: Instant) {
        self.asks(member, Waiting::Told(line), now);
    }

    fn asks(&mut self, member: u64, what: Waiting, now: Instant) {
        self.advance(now);
        if let Some(local) = self.locals.get_mut(&member) {
            local.push(what);
        }
        self.answer_waiting(member);
        self.pump();
    }

    /// Something happens here: it is on its way to the stream, or said at once if there is no way.
    fn event(&mut self, event: Event, now: Instant) {
        self.advance(now);
        if self.stop_by.is_some() {
            return;
        }
        if let Some(id) = event.member()
            && let Some(local) = self.locals.get_mut(&id)
        {
            local.push(Waiting::Heard(event.size()));
            if local.is_full() && !std::mem::replace(&mut local.held, true) {
                self.actions.push_back(Action::Hold(id));
            }
        }
        if self.cut {
            self.happens_here(event);
        } else {
            self.sending.queue.push_back(event);
        }
        self.pump();
    }

    /// An event of ours is heard: read in the stream, or nobody else will hear it.
    pub(super) fn apply_own(&mut self, event: &Event) {
        match event {
            Event::Gone { server, life, last } => return self.bury(*server, *life, *last),
            Event::Ask | Event::Here(_) => return,
            _ => {}
        }
        let outcome = self.table.apply(self.keys.server, event);
        for line in outcome.lines {
            self.speech.push_back(match event {
                Event::Arrive { member, .. } => Action::ToOthers(*member, line),
                _ => Action::ToAll(line),
            });
        }
        let Some(id) = event.member() else { return };
        if let Some(name) = outcome.taken {
            let line = format!("The name {name} is taken; choose another with 'HELLO name'\n");
            self.speech.push_back(Action::To(id, line));
            let own = self.table.servers.get(&self.keys.server);
            let kept = own.and_then(|own| own.members.get(&id)).and_then(|it| it.name.clone());
            self.locals.entry(id).and_modify(|local| local.name = kept);
            // The record in Redis has that name.
            self.resync();
        }
        if let Some(local) = self.locals.get_mut(&id)
            && let Some(heard) = local.waiting.pop_front()
        {
            local.bytes -= heard.size();
        }
        self.answer_waiting(id);
    }

    /// Answers a client until it waits for an event of its own.
    fn answer_waiting(&mut self, id: u64) {
        let Some(local) = self.locals.get_mut(&id) else { return };
        while let Some(what) =
            pop_front_if(&mut local.waiting, |it| !matches!(it, Waiting::Heard(_)))
        {
            local.bytes -= what.size();
            let line = match what {
                Waiting::Told(line) => line,
                _ => self.table.who(),
            };
            self.speech.push_back(Action::To(id, line));
        }
        let full = local.is_full();
        if full != std::mem::replace(&mut local.held, full) {
            self.actions.push_back(if full { Action::Hold(id) } else { Action::Release(id) });
        }
    }
}
