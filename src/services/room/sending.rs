//! What goes to the stream: numbered batches, one in flight, until they are read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::Room;
use super::encoding::{all, put_all, put_until, until};
use super::entry::{Content, Entry, Here};
use crate::{Decoder, Encoder, Unreadable};

/// The most entries of a batch.
const BATCH: usize = 256;
/// About the most bytes of a batch.
const BATCH_BYTES: usize = 64 << 10;
/// How long to wait after an error.
const RETRY: Duration = Duration::from_secs(1);

/// What goes to the stream.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// What has no number yet, by the tickets that it was given.
    pub queue: BTreeMap<u64, Content>,
    /// The last ticket.
    ticket: u64,
    /// Every server shall write its `Here`.
    pub asks: bool,
    /// Members of whom our record has a name that they were refused.
    pub misnamed: BTreeSet<u64>,
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
    pub uncertain: BTreeSet<u64>,
    /// Our record is no longer there, or the others were told that we are gone: another life begins once
    /// all that there is of this one has been read.
    pub dead: bool,
    /// The others were told that we are gone: from there on nothing of this life is heard.
    pub over: bool,
    /// Our record is not there any more, or is an older one: since we are gone, or since data were lost.
    pub lost: bool,
    /// Other lives of ours that Redis has records of.
    pub other_lives: Vec<u64>,
    /// Not before then, since there was an error.
    pub retry_at: Option<Instant>,
    /// There was no memory for the last one.
    pub out_of_memory: bool,
}

impl Sending {
    /// Queues what is to go to the stream; its ticket.
    pub(super) fn push(&mut self, content: Content) -> u64 {
        self.ticket += 1;
        self.queue.insert(self.ticket, content);
        self.ticket
    }

    pub(super) fn save(&self, now: Instant, to: &mut Encoder) {
        let Sending {
            queue,
            ticket,
            asks,
            misnamed,
            awaiting,
            number,
            sent,
            needs_here,
            here_in_doubt,
            heres,
            said_here,
            uncertain,
            dead,
            over,
            lost,
            other_lives,
            retry_at,
            out_of_memory,
        } = self;
        put_all(to, queue.iter(), |to, (ticket, content)| {
            to.put_number(*ticket);
            content.save(to);
        });
        put_all(to, misnamed.iter().copied(), Encoder::put_number);
        put_all(to, awaiting.iter(), |to, entry| entry.save(to));
        put_all(to, uncertain.iter().copied(), Encoder::put_number);
        put_all(to, other_lives.iter().copied(), Encoder::put_number);
        let numbers = [ticket, number, sent, heres, said_here];
        numbers.into_iter().for_each(|number| to.put_number(*number));
        let flags = [asks, needs_here, here_in_doubt, dead, over, lost, out_of_memory];
        flags.into_iter().for_each(|flag| to.put_flag(*flag));
        to.put_option(*retry_at, |to, at| put_until(to, at, now));
    }

    pub(super) fn restore(from: &mut Decoder<'_>, now: Instant) -> Result<Sending, Unreadable> {
        Ok(Sending {
            queue: all(from, |from| Ok((from.number()?, Content::restore(from)?)))?,
            misnamed: all(from, Decoder::number)?,
            awaiting: all(from, Entry::restore)?,
            uncertain: all(from, Decoder::number)?,
            other_lives: all(from, Decoder::number)?,
            ticket: from.number()?,
            number: from.number()?,
            sent: from.number()?,
            heres: from.number()?,
            said_here: from.number()?,
            asks: from.flag()?,
            needs_here: from.flag()?,
            here_in_doubt: from.flag()?,
            dead: from.flag()?,
            over: from.flag()?,
            lost: from.flag()?,
            out_of_memory: from.flag()?,
            retry_at: from.option(|from| until(from, now))?,
        })
    }

    /// Takes back what a client has done, if all of that is that it came and told its name, and none of
    /// it has been sent.
    pub(super) fn take_back(&mut self, tickets: &[u64]) -> bool {
        let queued = |ticket: &u64| self.queue.get(ticket);
        let Some((arrival, rest)) = tickets.split_first() else { return false };
        let never_told = matches!(queued(arrival), Some(Content::Arrive { .. }))
            && rest.iter().all(|it| matches!(queued(it), Some(Content::Hello { .. })));
        if never_told {
            tickets.iter().for_each(|ticket| _ = self.queue.remove(ticket));
        }
        never_told
    }

    /// How many of those under way have been sent.
    fn already_sent(&self) -> usize {
        self.awaiting.partition_point(|entry| entry.number <= self.sent)
    }

    /// Those of whom our record has a wrong name; but for those that are about to be heard of with another
    /// one, since which of the two counts is not known yet.
    fn surely_misnamed(&mut self) -> Vec<u64> {
        if self.misnamed.is_empty() {
            return Vec::new();
        }
        let under_way = self.awaiting.iter().filter_map(|entry| match entry.content {
            Content::Hello { member, .. } => Some(member),
            _ => None,
        });
        let under_way: BTreeSet<_> = under_way.collect();
        let sure: Vec<_> = self.misnamed.difference(&under_way).take(BATCH).copied().collect();
        sure.iter().for_each(|member| _ = self.misnamed.remove(member));
        sure
    }

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
        let own = &self.table.servers()[&self.keys.server];
        let members = own.members.iter().map(|(id, member)| (*id, member.clone())).collect();
        let sending = &mut self.sending;
        sending.misnamed.clear();
        let base = sending.awaiting.front().map_or(sending.number, |entry| entry.number - 1);
        let (after, said) = (self.reading.seen, sending.said_here);
        let content = Content::Here(Here { after, base, said, members });
        Entry { server: self.keys.server, life: self.life, number: sending.heres, content }
    }

    /// Gives numbers to what is to go next.
    fn number_more(&mut self) {
        let sending = &mut self.sending;
        let own = self.keys.server;
        let names = sending.surely_misnamed().into_iter().filter_map(|member| {
            let name = self.table.member(own, member)?.name.clone();
            Some(Content::Name { member, name })
        });
        let ask = std::mem::take(&mut sending.asks).then_some(Content::Ask);
        let mut first = names.collect::<Vec<_>>().into_iter().chain(ask);
        let (mut bytes, mut count) = (0, 0);
        while bytes < BATCH_BYTES
            && let Some(mut content) = first.next().or_else(|| {
                let more = count < BATCH;
                more.then(|| sending.queue.pop_first())?.map(|(_, content)| content)
            })
        {
            if let Content::Arrive { order, .. } = &mut content {
                *order = self.table.next_order();
            }
            sending.number += 1;
            bytes += content.size();
            count += 1;
            let number = sending.number;
            sending.awaiting.push_back(Entry { server: own, life: self.life, number, content });
        }
    }

    /// What goes next: what was not executed, or else more of the queue.
    pub(super) fn make_batch(&mut self) -> Vec<Entry> {
        let sending = &mut self.sending;
        let none_new = sending.needs_here || sending.dead;
        if !none_new && sending.already_sent() == sending.awaiting.len() {
            self.number_more();
        }
        let sending = &mut self.sending;
        let sent = sending.already_sent();
        let unsent = sending.awaiting.range_mut(sent..).take(BATCH);
        let batch = unsent.map(|entry| {
            if let Content::Gone { server, .. } = entry.content
                && server != self.keys.server
                && self.table.server(server).is_none_or(|it| it.alive && it.missing.is_none())
            {
                // It has come back while that could not be written. The number is needed.
                entry.content = Content::Ask;
            }
            Entry { life: self.life, ..entry.clone() }
        });
        batch.collect()
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
        // Also one that was answered may be lost with the data before anybody has read it.
        let executed = last.is_some() && here == sending.heres;
        self.established |= std::mem::take(&mut sending.here_in_doubt) && executed;
        sending.needs_here |= !executed;
        sending.heres = sending.heres.max(here);
        let seen = self.reading.seen;
        sending.lost |= self.established && last.is_none_or(|last| last < seen);
        sending.dead |= self.established && last.is_none();
        sending.sent = last.map_or(seen, |last| last.min(sending.number));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::links::Request;
    use super::super::{Failure, Link, Reply, ServerId, Settings};
    use super::*;

    /// Redis answers all that is asked, with our record's last number and last `Here`; how many times a `Here` is
    /// written meanwhile.
    fn answers(room: &mut Room, last: u64, here: u64) -> usize {
        let ok = || Reply::Status("OK".to_owned());
        let number = |number: u64| Reply::Bulk(number.to_string().into_bytes());
        let mut heres = 0;
        while let Some(request) = room.links.get(Link::Commands).request {
            heres += usize::from(request == Request::Here);
            let replies = match request {
                Request::Look => vec![
                    ok(),
                    Reply::Array(vec![number(last), number(here)]),
                    Reply::Array(Vec::new()),
                ],
                // What `EXEC` answers, and the `WATCH` behind it.
                _ => vec![Reply::Array(vec![Reply::Array(Vec::new())]), ok()],
            };
            room.replies(Link::Commands, &replies, room.now);
        }
        heres
    }

    /// The connection is lost, if it was there, and there again.
    fn reconnect(room: &mut Room) {
        room.lost(Link::Commands, Failure::Other, room.now);
        room.connected(Link::Commands, room.now);
    }

    #[test]
    fn a_here_that_was_answered_is_written_again_if_it_is_lost() {
        let mut room = Room::new(Settings::default(), ServerId(1), Instant::now());
        room.links.joined = true;
        reconnect(&mut room);
        assert_eq!(answers(&mut room, 0, 0), 1);
        assert!(room.is_whole() && room.established);
        room.resync();
        room.pump();
        assert_eq!(answers(&mut room, 0, 1), 1);
        // The record has both: nothing was lost with the connection.
        reconnect(&mut room);
        assert_eq!(answers(&mut room, 0, 2), 0);
        // The record is one from before the second, which nobody may have read.
        reconnect(&mut room);
        assert_eq!(answers(&mut room, 0, 1), 1);
        assert_eq!(room.sending.heres, 3);
        assert!(room.is_whole());
    }
}
