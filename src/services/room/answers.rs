//! What Redis answers to what was sent, and what that shows of it.

use std::time::{Duration, Instant};

use super::entry::{Content, ServerId};
use super::links::{Failure, Link, Phase, Request};
use super::{Demand, Room};
use crate::services::redis::{EntryId, Reply};
use crate::text::printable;

/// How long an error is not logged again.
const REFUSAL_PAUSE: Duration = Duration::from_secs(60);
/// So many answers in a row that bring nothing further are chance; after more of them it is asked later.
const MOST_IN_VAIN: u32 = 3;

impl Room {
    /// All answers to what was sent.
    pub fn replies(&mut self, link: Link, replies: &[Reply], now: Instant) {
        self.advance(now);
        let Some(request) = self.links.get(link).request.take() else { return };
        let good = replies.iter().all(Reply::is_good);
        let in_vain = good && self.is_in_vain(request, replies);
        self.judge(link, request, good && !in_vain);
        self.log_refusal(replies);
        if good {
            self.answered(request, replies);
            self.links.in_vain += u32::from(in_vain);
            if self.links.in_vain > MOST_IN_VAIN {
                self.links.in_vain = 0;
                self.failed(false);
            }
        } else if request == Request::Read || request == Request::Place {
            // An error that does not go away by asking again at once.
            self.demands.push_back(Demand::Disconnect(link));
            self.down(link, Failure::Other);
        } else if request != Request::Beat {
            self.failed(replies.iter().any(Reply::is_out_of_memory));
        }
        self.pump();
    }

    /// Whether Redis does what the room needs, as far as an answer shows.
    fn judge(&mut self, link: Link, request: Request, well: bool) {
        let (now, links) = (self.now, &mut self.links);
        if let Request::Here | Request::Batch(_) | Request::Fence = request {
            // A fence has a probe in it if entries were not taken.
            let is_fence = request == Request::Fence;
            links.refuses_entries = !well && (!is_fence || links.refuses_entries);
        }
        let shows = match request {
            Request::Look | Request::List | Request::Trim | Request::Place => false,
            Request::Beat => !links.refuses_entries,
            _ => true,
        };
        if well && shows {
            if link == Link::Commands {
                links.in_vain = 0;
            }
            let connection = links.get(link);
            (connection.good, connection.attempts) = (now, 0);
        }
    }

    /// Whether an answer that is no error brings nothing: a transaction was not executed, or shows other
    /// servers than those that it is about.
    fn is_in_vain(&self, request: Request, replies: &[Reply]) -> bool {
        match (request, &self.links.phase) {
            (Request::Fence | Request::Here | Request::Batch(_), _) => *exec(replies) == Reply::Nil,
            (Request::Snapshot, Phase::Snapshot(asked)) => {
                let all = replies.last().map_or(&[][..], Reply::parts);
                all.len() < 4 || servers(&all[0]) != *asked
            }
            _ => false,
        }
    }

    /// Logs an error, the same one once a minute.
    fn log_refusal(&mut self, replies: &[Reply]) {
        let inside = replies.iter().flat_map(Reply::parts);
        let errors = replies.iter().chain(inside).filter_map(Reply::error);
        // What a transaction says when one of its commands was refused says less.
        let Some(error) = errors.min_by_key(|error| error.starts_with("EXECABORT")) else { return };
        let just = |(last, at): &(String, Instant)| {
            last == error && self.now.duration_since(*at) < REFUSAL_PAUSE
        };
        if !self.links.refused.as_ref().is_some_and(just) {
            let said: String = printable(error.as_bytes()).chars().take(200).collect();
            log::warn!("room {}: Redis refuses: it says: {said}", self.settings.key);
            self.links.refused = Some((error.to_owned(), self.now));
        }
    }

    fn answered(&mut self, request: Request, replies: &[Reply]) {
        let exec = exec(replies);
        match request {
            Request::List => {
                self.links.phase = Phase::Snapshot(servers(replies.first().unwrap_or(&Reply::Nil)));
            }
            Request::Snapshot => self.join(replies.last().unwrap_or(&Reply::Nil)),
            Request::Look => {
                let record = replies.get(1).map_or(&[][..], Reply::parts);
                let number = |place: usize| record.get(place).and_then(Reply::value);
                self.looked(number(0), number(1));
                let listed = servers(replies.get(2).unwrap_or(&Reply::Nil));
                let own = listed
                    .iter()
                    .filter(|(id, life)| *id == self.keys.server && *life != self.life);
                let before = (self.life > 1).then(|| self.life - 1);
                self.sending.other_lives = own.map(|(_, life)| *life).chain(before).collect();
                if matches!(self.links.phase, Phase::Look) {
                    self.links.phase = Phase::Fence;
                }
            }
            Request::Fence if matches!(self.links.phase, Phase::Fence) => {
                let end = exec.parts().first();
                let end = end.and_then(|end| end.entries().next()).map(|(id, _)| id);
                self.links.reader_answered = false;
                self.links.phase = match exec {
                    Reply::Nil => Phase::Look,
                    _ => Phase::CatchUp(end.unwrap_or_default()),
                };
            }
            // Our record has changed, and nothing was done.
            Request::Here | Request::Batch(_) if *exec == Reply::Nil => self.links.start_over(),
            Request::Here => {
                self.sending.here_in_doubt = false;
                self.established = true;
                // What follows may be known to somebody who has just been told otherwise.
                self.sending.needs_here |= !self.sending.awaiting.is_empty();
            }
            Request::Batch(last) => {
                self.sending.sent = last;
                let is_last = |content: &Content| matches!(content, Content::Gone { server, .. } if *server == self.keys.server);
                if self.stop_by.is_some() && !self.sending.queue.values().any(is_last) {
                    self.stopped();
                }
            }
            Request::Beat => self.beat_answered(replies),
            Request::Fence | Request::Trim => {}
            Request::Place => {
                if replies[0].parts().is_empty() {
                    self.lost_place();
                }
            }
            Request::Read => {
                self.links.reader_answered = true;
                let from = self.reading.position;
                let there = replies.get(1).is_none_or(|entries| !entries.parts().is_empty());
                let lost = from != EntryId::default() && !there;
                if lost && !self.reading.discard {
                    self.lost_place();
                } else {
                    self.take_in(&replies[0]);
                }
                if self.reading.position != from {
                    self.links.read_at = self.now;
                }
            }
        }
    }

    /// Takes in the snapshot, unless there are other servers by now than it has the members of.
    fn join(&mut self, exec: &Reply) {
        let Phase::Snapshot(asked) = &self.links.phase else { return };
        let [listed, end, begin, size, records @ ..] = exec.parts() else { return };
        let (asked, listed) = (asked.clone(), servers(listed));
        if listed != asked {
            self.links.phase = Phase::Snapshot(listed);
            return;
        }
        if self.cut {
            // What was said before we came, while there were clients here.
            self.say_missing();
        }
        for ((id, life), record) in asked.into_iter().zip(records) {
            let arrivals = self.table.join(id, life, record);
            if self.cut {
                self.say(arrivals);
            }
        }
        let place =
            |entries: &Reply| entries.entries().next().map(|(id, _)| id).unwrap_or_default();
        let size = if let Reply::Integer(size) = size { *size } else { 0 };
        self.reading.begin_at(place(begin), place(end), size);
        self.links.joined = true;
        self.links.start_over();
    }
}

/// What `EXEC` has answered, where `WATCH` is behind it.
fn exec(replies: &[Reply]) -> &Reply {
    replies.iter().rev().nth(1).unwrap_or(&Reply::Nil)
}

/// The servers and lives of the list, in one order.
fn servers(list: &Reply) -> Vec<(ServerId, u64)> {
    let servers = list.parts().iter().filter_map(|name| {
        let (id, life) = std::str::from_utf8(name.bytes()).ok()?.split_once(':')?;
        Some((id.parse().ok()?, life.parse().ok()?))
    });
    let mut servers: Vec<_> = servers.collect();
    servers.sort_unstable();
    servers
}
