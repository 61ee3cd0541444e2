//! What goes to the stream: numbered batches, one in flight, until they are read.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::entry::{Entry, Event, Here};
use super::{Numbers, Room};

/// The most entries of a batch.
const BATCH: usize = 256;
/// About the most bytes of a batch.
const BATCH_BYTES: usize = 64 << 10;
/// How long to wait after an error.
const RETRY: Duration = Duration::from_secs(1);

/// What goes to the stream.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// What has no number yet.
    pub queue: VecDeque<Event>,
    /// What has a number and has not been read.
    pub awaiting: VecDeque<Entry>,
    /// The last number that was given.
    pub number: u64,
    /// The last number that is known to have been executed, or is in flight.
    pub sent: u64,
    /// What the others have to know of us is to be written.
    pub needs_here: bool,
    /// It has been sent, and may have been executed.
    pub here_in_doubt: bool,
    /// How many were sent.
    pub heres: u64,
    /// How many lines there were so far that the others have not heard.
    pub said_here: u64,
    /// Lines that were said here, and which the others may hear: they were sent before we were cut off.
    pub uncertain: Numbers,
    /// Our record is no longer there, or the others were told that we are gone: another life begins once
    /// all that there is of this one has been read.
    pub dead: bool,
    /// The others were told that we are gone: from there on nothing of this life is heard.
    pub over: bool,
    /// Other lives of ours that Redis has records of.
    pub other_lives: Vec<u64>,
    /// Not before then, since there was an error.
    pub retry_at: Option<Instant>,
    /// There was no memory for the last one.
    pub out_of_memory: bool,
}

impl Sending {
    /// Whether another life is to begin now. What the others may have heard of this one before data were
    /// lost goes again first, so that they know it by its numbers; unless they were told that we are gone.
    pub(super) fn may_begin_again(&self) -> bool {
        self.dead && (self.over || self.awaiting.is_empty())
    }
}

impl Room {
    /// Whether all that the others have to know of us can be told now: only at the beginning of another
    /// life may there be entries that are to follow.
    pub(super) fn may_tell_all(&self) -> bool {
        let sending = &self.sending;
        sending.needs_here && (sending.awaiting.is_empty() || !self.established)
    }

    /// All that the others have to know of us.
    pub(super) fn make_here(&mut self) -> Entry {
        let own = &self.table.servers[&self.keys.server];
        let members = own.members.iter().map(|(id, member)| (*id, member.clone())).collect();
        let sending = &self.sending;
        let base = sending.awaiting.front().map_or(sending.number, |entry| entry.number - 1);
        let (after, said) = (self.reading.seen, sending.said_here);
        let event = Event::Here(Here { after, base, said, members });
        Entry { server: self.keys.server, life: self.life, number: sending.heres, event }
    }

    /// What goes next: what was not executed, or else more of the queue.
    pub(super) fn make_batch(&mut self) -> Vec<Entry> {
        let sending = &mut self.sending;
        let none_new = sending.needs_here || sending.dead;
        if !none_new && sending.awaiting.back().is_none_or(|last| last.number <= sending.sent) {
            let mut bytes = 0;
            let mut count = 0;
            while count < BATCH
                && bytes < BATCH_BYTES
                && let Some(mut event) = sending.queue.pop_front()
            {
                if let Event::Arrive { order, .. } = &mut event {
                    *order = self.table.next_order();
                }
                sending.number += 1;
                bytes += event.size();
                count += 1;
                let (server, life) = (self.keys.server, self.life);
                let number = sending.number;
                sending.awaiting.push_back(Entry { server, life, number, event });
            }
        }
        let sent = sending.sent;
        for entry in sending.awaiting.iter_mut().filter(|entry| entry.number > sent) {
            if let Event::Gone { server, .. } = entry.event
                && server != self.keys.server
                && self.table.servers.get(&server).is_none_or(|it| it.missing.is_none())
            {
                // It has come back while that could not be written. The number is needed.
                entry.event = Event::Ask;
            }
        }
        let unsent = sending.awaiting.iter().filter(|entry| entry.number > sent);
        let unsent = unsent.take(BATCH).map(|entry| Entry { life: self.life, ..entry.clone() });
        unsent.collect()
    }

    /// Redis has refused something; it is asked again later.
    pub(super) fn failed(&mut self, out_of_memory: bool) {
        self.sending.retry_at = Some(self.now + RETRY);
        self.sending.out_of_memory |= out_of_memory;
        self.links.start_over();
    }

    /// What our own record says: the last number and the last `Here` that were executed.
    pub(super) fn looked(&mut self, last: Option<u64>, here: Option<u64>) {
        let sending = &mut self.sending;
        let here = here.unwrap_or(0);
        if std::mem::take(&mut sending.here_in_doubt) {
            if last.is_some() && here == sending.heres {
                self.established = true;
            } else {
                sending.needs_here = true;
            }
        }
        sending.heres = sending.heres.max(here);
        match last {
            Some(last) => sending.sent = last,
            None => {
                sending.dead |= self.established;
                sending.sent = self.reading.seen;
            }
        }
    }
}
