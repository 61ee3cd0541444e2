//! The names of the keys, and the commands that are sent to Redis.

use std::time::Duration;

use super::entry::{Content, Entry, ServerId};
use crate::services::redis::{Command, EntryId};

pub(super) fn word(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// A command of which no argument has a blank in it.
fn command(text: &str) -> Command {
    text.split(' ').map(word).collect()
}

/// The keys of a room.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// The stream; what the other keys begin with.
    pub room: String,
    /// Who we are.
    pub server: ServerId,
}

impl Keys {
    /// The set of `SERVER:LIFE`: whose record is to be read.
    fn servers(&self) -> String {
        format!("{}:servers", self.room)
    }

    /// The record of a life of a server: its numbers, its members.
    fn record(&self, server: ServerId, life: u64) -> String {
        format!("{}:members:{server}:{life}", self.room)
    }

    /// Is there as long as the server is.
    fn lease(&self, server: ServerId) -> String {
        format!("{}:lease:{server}", self.room)
    }

    /// The next transaction is none if our record changes from here on.
    pub(super) fn watch(&self, life: u64) -> Command {
        command(&format!("WATCH {}", self.record(self.server, life)))
    }

    /// `SMEMBERS`: who is there.
    pub(super) fn list(&self) -> Command {
        command(&format!("SMEMBERS {}", self.servers()))
    }

    /// The last entry.
    fn end(&self) -> Command {
        command(&format!("XREVRANGE {} + - COUNT 1", self.room))
    }

    /// All that a server which joins has to know, at one moment.
    pub(super) fn snapshot(&self, known: &[(ServerId, u64)]) -> Vec<Command> {
        let records = known.iter().map(|(server, life)| self.record(*server, *life));
        let records = records.map(|record| command(&format!("HGETALL {record}")));
        let size = command(&format!("MEMORY USAGE {}", self.room));
        let begin = command(&format!("XRANGE {} - + COUNT 1", self.room));
        let first = [command("MULTI"), self.list(), self.end(), begin, size];
        first.into_iter().chain(records).chain([command("EXEC")]).collect()
    }

    /// What Redis has of us; a change from here on is noticed.
    pub(super) fn look(&self, life: u64) -> Vec<Command> {
        let record = self.record(self.server, life);
        vec![self.watch(life), command(&format!("HMGET {record} last here")), self.list()]
    }

    /// Changes our record, so that no batch that an earlier connection may still bring can be executed
    /// any more, and finds the end of what there is to read. A probe shows whether entries are taken.
    ///
    /// Nothing stays of that change: a record that is not there yet, and which its server may not live to
    /// write, would be listed nowhere, and so nobody would delete it.
    pub(super) fn fence(&self, life: u64, probe: bool) -> Vec<Command> {
        let record = self.record(self.server, life);
        let touch = command(&format!("HSET {record} fence 1"));
        let undo = command(&format!("HDEL {record} fence"));
        let mut commands = vec![command("MULTI"), self.end(), touch, undo];
        commands.extend(probe.then(|| command(&format!("XADD {} * kind probe", self.room))));
        commands.extend([command("EXEC"), self.watch(life)]);
        commands
    }

    /// Renews our lease, looks at those of the others and at the entry where the reader is.
    pub(super) fn beat(
        &self,
        milliseconds: u128,
        others: &[ServerId],
        at: EntryId,
    ) -> Vec<Command> {
        let lease = self.lease(self.server);
        let mut commands =
            vec![command(&format!("SET {lease} 1 PX {milliseconds}")), self.entry_at(at)];
        if !others.is_empty() {
            let leases = others.iter().map(|server| word(&self.lease(*server)));
            commands.push([word("MGET")].into_iter().chain(leases).collect());
        }
        commands
    }

    /// The entry of an id, if there is one.
    pub(super) fn entry_at(&self, at: EntryId) -> Command {
        command(&format!("XRANGE {} {at} {at} COUNT 1", self.room))
    }

    /// The next entries, or nothing after so long.
    pub(super) fn read(&self, after: EntryId, wait: Duration) -> Command {
        let wait = wait.as_millis().max(1);
        command(&format!("XREAD COUNT 256 BLOCK {wait} STREAMS {} {after}", self.room))
    }

    /// Forgets what lies before.
    pub(super) fn trim(&self, from: EntryId) -> Command {
        command(&format!("XTRIM {} MINID {from}", self.room))
    }

    /// Writes entries up to that number, and what they change in the records. A record that was lost comes
    /// to be by that, and is listed again: so an older state of Redis has none that nobody deletes.
    pub(super) fn batch(
        &self,
        life: u64,
        last: u64,
        entries: &[Entry],
        is_lost: bool,
    ) -> Vec<Command> {
        let record = self.record(self.server, life);
        let mut commands = vec![command("MULTI"), command(&format!("HSET {record} last {last}"))];
        commands.extend(is_lost.then(|| self.enlist(life)));
        for entry in entries {
            commands.push(entry.to_command(&self.room));
            self.change(&record, &entry.content, &mut commands);
        }
        commands.extend([command("EXEC"), self.watch(life)]);
        commands
    }

    /// What an entry changes in our record, or deletes another's.
    fn change(&self, record: &str, content: &Content, commands: &mut Vec<Command>) {
        let mut on_record = |text: String| commands.push(command(&text));
        match content {
            Content::Arrive { member, order } => {
                on_record(format!("HSET {record} {member} {order}"))
            }
            Content::Leave { member } => on_record(format!("HDEL {record} {member} {member}.name")),
            Content::Hello { member, name } | Content::Name { member, name } => {
                let mut set = command(&format!("HSET {record} {member}.name"));
                set.push(word(name.as_deref().unwrap_or("")));
                commands.push(set);
            }
            Content::Gone { server, life, .. } => self.forget(*server, *life, commands),
            _ => {}
        }
    }

    /// Has others read our record.
    fn enlist(&self, life: u64) -> Command {
        command(&format!("SADD {} {}:{life}", self.servers(), self.server))
    }

    /// Deletes the record of a life.
    fn forget(&self, server: ServerId, life: u64, commands: &mut Vec<Command>) {
        commands.push(command(&format!("DEL {}", self.record(server, life))));
        commands.push(command(&format!("SREM {} {server}:{life}", self.servers())));
    }

    /// Writes all that the others have to know of us, and our record anew; forgets our other lives.
    pub(super) fn here(&self, entry: &Entry, other_lives: &[u64]) -> Vec<Command> {
        let Content::Here(here) = &entry.content else { return Vec::new() };
        let record = self.record(self.server, entry.life);
        let mut commands = vec![command("MULTI")];
        for life in other_lives {
            self.forget(self.server, *life, &mut commands);
        }
        commands.push(command(&format!("DEL {record}")));
        let (base, said, number) = (here.base, here.said, entry.number);
        let mut set = command(&format!("HSET {record} last {base} said {said} here {number}"));
        for (id, member) in &here.members {
            set.extend([word(&id.to_string()), word(&member.order.to_string())]);
            if let Some(name) = &member.name {
                set.extend([word(&format!("{id}.name")), word(name)]);
            }
        }
        commands.push(set);
        commands.push(self.enlist(entry.life));
        commands.push(entry.to_command(&self.room));
        commands.extend([command("EXEC"), self.watch(entry.life)]);
        commands
    }
}
