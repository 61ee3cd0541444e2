//! A model of Redis 7, as far as a shared room needs it: connections with `MULTI`, `WATCH` and blocking
//! reads, streams with ids, keys that expire, no memory, lost data.

use std::collections::{BTreeMap, BTreeSet};

use reactor::services::room::Reply;

type Bytes = Vec<u8>;
pub type Command = Vec<Bytes>;
/// Milliseconds, and which in that millisecond.
type Id = (u64, u64);

#[derive(Clone)]
enum Value {
    Text(Bytes),
    Hash(BTreeMap<Bytes, Bytes>),
    Set(BTreeSet<Bytes>),
    Stream(BTreeMap<Id, Vec<Bytes>>, Id),
}

/// All that a file of Redis's has.
#[derive(Clone, Default)]
pub struct Data {
    keys: BTreeMap<Bytes, Value>,
    expires: BTreeMap<Bytes, u64>,
}

impl Data {
    /// What is in the streams that somebody says.
    fn said(&self) -> BTreeSet<String> {
        let streams = self.keys.values().filter_map(|value| match value {
            Value::Stream(entries, _) => Some(entries.values()),
            _ => None,
        });
        let fields = streams.flatten().flat_map(|fields| fields.chunks_exact(2));
        fields.filter(|pair| pair[0] == b"text").map(|pair| text(&pair[1])).collect()
    }
}

/// What Redis knows of a connection.
#[derive(Default)]
pub struct Client {
    /// What was queued since `MULTI`.
    queued: Option<Vec<Command>>,
    /// One of those was refused.
    refused: bool,
    /// The keys that it watches, and how often each had changed by then.
    watched: Vec<(Bytes, u64)>,
}

#[derive(Default)]
pub struct Redis {
    pub data: Data,
    /// Keys that had expired, or were never there, until an older state came back: nobody has set them since.
    revived: BTreeSet<Bytes>,
    /// How often each key has changed.
    changes: BTreeMap<Bytes, u64>,
    /// Milliseconds since 1970.
    pub clock: u64,
    pub out_of_memory: bool,
    /// Of which servers, and which of their lives, it was written that they are gone since somebody looked.
    pub gone: Vec<(String, String)>,
    /// What was written that somebody says.
    pub said: Vec<String>,
    /// What was written that somebody says, and was lost.
    pub lost: Vec<String>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.as_bytes().to_vec())
}

fn error(text: &str) -> Reply {
    Reply::Error(text.to_owned())
}

fn shown(id: Id) -> Reply {
    bulk(&format!("{}-{}", id.0, id.1))
}

fn parsed(id: &[u8]) -> Id {
    let id = text(id);
    let (milliseconds, sequence) = id.split_once('-').unwrap();
    (milliseconds.parse().unwrap(), sequence.parse().unwrap())
}

/// How many fields, members, entries a command has changed.
fn changed(count: usize) -> Reply {
    Reply::Integer(count as i64)
}

fn listed(entries: impl Iterator<Item = (Id, Vec<Bytes>)>) -> Reply {
    let entry = |(id, fields): (Id, Vec<Bytes>)| {
        let fields = fields.into_iter().map(Reply::Bulk).collect();
        Reply::Array(vec![shown(id), Reply::Array(fields)])
    };
    Reply::Array(entries.map(entry).collect())
}

impl Redis {
    /// An empty one, whose clock says that.
    pub fn at(clock: u64) -> Redis {
        Redis { clock, ..Redis::default() }
    }

    fn expire(&mut self) {
        let clock = self.clock;
        let over: Vec<_> =
            self.data.expires.iter().filter(|it| *it.1 <= clock).map(|it| it.0.clone()).collect();
        for key in over {
            self.remove(&key);
        }
    }

    fn touch(&mut self, key: &[u8]) {
        *self.changes.entry(key.to_vec()).or_default() += 1;
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        self.data.expires.remove(key);
        let was_there = self.data.keys.remove(key).is_some();
        if was_there {
            self.touch(key);
        }
        was_there
    }

    /// Executes a command of a client. None if it waits.
    pub fn execute(&mut self, client: &mut Client, command: &Command) -> Option<Reply> {
        self.expire();
        let name = text(&command[0]);
        match name.as_str() {
            "MULTI" => {
                client.queued = Some(Vec::new());
                client.refused = false;
            }
            "WATCH" => {
                for key in &command[1..] {
                    let count = self.changes.get(key).copied().unwrap_or(0);
                    client.watched.push((key.clone(), count));
                }
            }
            "EXEC" => return Some(self.exec(client)),
            _ => {
                // What is queued takes memory, whatever it is.
                let takes = wants_memory(command) || client.queued.is_some();
                let denied = self.out_of_memory && takes;
                let Some(queued) = &mut client.queued else {
                    return if denied { Some(no_memory()) } else { self.plain(command) };
                };
                if denied {
                    client.refused = true;
                    return Some(no_memory());
                }
                // Of what will not be executed nothing more is queued.
                let changed = |(key, count): &(Bytes, u64)| {
                    self.changes.get(key).copied().unwrap_or(0) != *count
                };
                if !client.refused && !client.watched.iter().any(changed) {
                    queued.push(command.clone());
                }
                return Some(Reply::Status("QUEUED".to_owned()));
            }
        }
        Some(Reply::Status("OK".to_owned()))
    }

    fn exec(&mut self, client: &mut Client) -> Reply {
        let watched = std::mem::take(&mut client.watched);
        let queued = client.queued.take().expect("EXEC without MULTI");
        if self.out_of_memory && queued.iter().any(wants_memory) {
            return error(&format!("EXECABORT Transaction discarded because of: {NO_MEMORY}"));
        }
        if client.refused {
            return error("EXECABORT Transaction discarded because of previous errors.");
        }
        let changed =
            |(key, count): &(Bytes, u64)| self.changes.get(key).copied().unwrap_or(0) != *count;
        if watched.iter().any(changed) {
            return Reply::Nil;
        }
        Reply::Array(queued.iter().map(|command| self.plain(command).unwrap()).collect())
    }

    fn plain(&mut self, command: &Command) -> Option<Reply> {
        let key = command.get(1).cloned().unwrap_or_default();
        let values = command.get(2..).unwrap_or_default();
        Some(match text(&command[0]).as_str() {
            "SET" => {
                assert_eq!(values[1], b"PX");
                let time: u64 = text(&values[2]).parse().unwrap();
                self.data.keys.insert(key.clone(), Value::Text(values[0].clone()));
                self.data.expires.insert(key.clone(), self.clock + time);
                self.revived.remove(&key);
                self.touch(&key);
                Reply::Status("OK".to_owned())
            }
            "MGET" => Reply::Array(command[1..].iter().map(|key| self.get(key)).collect()),
            "DEL" => Reply::Integer(i64::from(self.remove(&key))),
            "HSET" | "HDEL" | "HMGET" | "HGETALL" => self.hash(command, &key, values),
            "SADD" | "SREM" | "SMEMBERS" => self.set(command, &key, values),
            "XADD" | "XRANGE" | "XREVRANGE" | "XTRIM" => self.stream(command, &key, values),
            "XREAD" => return self.read(command),
            "MEMORY" => match self.data.keys.get(&command[2]) {
                Some(_) => Reply::Integer(self.bytes() as i64),
                None => Reply::Nil,
            },
            other => error(&format!("ERR unknown command '{other}'")),
        })
    }

    fn get(&self, key: &[u8]) -> Reply {
        match self.data.keys.get(key) {
            Some(Value::Text(value)) => Reply::Bulk(value.clone()),
            _ => Reply::Nil,
        }
    }

    fn hash(&mut self, command: &Command, key: &[u8], values: &[Bytes]) -> Reply {
        let mut hash = match self.data.keys.get(key) {
            Some(Value::Hash(hash)) => hash.clone(),
            _ => BTreeMap::new(),
        };
        match text(&command[0]).as_str() {
            "HMGET" => {
                let value = |it| hash.get(it).map_or(Reply::Nil, |it| Reply::Bulk(it.clone()));
                Reply::Array(values.iter().map(value).collect())
            }
            "HGETALL" => {
                let pairs = hash.into_iter().flat_map(|(field, value)| [field, value]);
                Reply::Array(pairs.map(Reply::Bulk).collect())
            }
            "HSET" => {
                let pairs = values.chunks_exact(2);
                assert!(!values.is_empty() && pairs.remainder().is_empty());
                let before = hash.len();
                hash.extend(pairs.map(|pair| (pair[0].clone(), pair[1].clone())));
                let (count, value) = (hash.len() - before, Value::Hash(hash));
                self.put(key, value, false);
                changed(count)
            }
            _ => {
                let before = hash.len();
                values.iter().for_each(|field| _ = hash.remove(field));
                let count = before - hash.len();
                if count > 0 {
                    let empty = hash.is_empty();
                    self.put(key, Value::Hash(hash), empty);
                }
                changed(count)
            }
        }
    }

    fn put(&mut self, key: &[u8], value: Value, empty: bool) {
        if empty {
            self.data.keys.remove(key);
        } else {
            self.data.keys.insert(key.to_vec(), value);
        }
        self.touch(key);
    }

    fn set(&mut self, command: &Command, key: &[u8], values: &[Bytes]) -> Reply {
        let mut set = match self.data.keys.get(key) {
            Some(Value::Set(set)) => set.clone(),
            _ => BTreeSet::new(),
        };
        let before = set.len();
        match text(&command[0]).as_str() {
            "SMEMBERS" => return Reply::Array(set.into_iter().map(Reply::Bulk).collect()),
            "SADD" => set.extend(values.iter().cloned()),
            _ => values.iter().for_each(|value| _ = set.remove(value)),
        }
        let count = set.len().abs_diff(before);
        if count > 0 {
            let empty = set.is_empty();
            self.put(key, Value::Set(set), empty);
        }
        changed(count)
    }

    fn stream(&mut self, command: &Command, key: &[u8], values: &[Bytes]) -> Reply {
        if text(&command[0]) == "XADD" {
            assert_eq!(values[0], b"*");
            return self.add(key, values[1..].to_vec());
        }
        let Some(Value::Stream(entries, _)) = self.data.keys.get_mut(key) else {
            let trimmed = command[0] == b"XTRIM";
            return if trimmed { changed(0) } else { Reply::Array(Vec::new()) };
        };
        match text(&command[0]).as_str() {
            "XRANGE" => {
                let all = values[0] == b"-";
                let bounds = if all {
                    ((0, 0), (u64::MAX, 0))
                } else {
                    (parsed(&values[0]), parsed(&values[1]))
                };
                let range = entries.range(bounds.0..=bounds.1);
                listed(range.take(1).map(|(id, fields)| (*id, fields.clone())))
            }
            "XREVRANGE" => {
                assert_eq!(values, [&b"+"[..], b"-", b"COUNT", b"1"]);
                listed(entries.iter().next_back().map(|it| (*it.0, it.1.clone())).into_iter())
            }
            _ => {
                assert_eq!(values[0], b"MINID");
                let rest = entries.split_off(&parsed(&values[1]));
                let count = std::mem::replace(entries, rest).len();
                if count > 0 {
                    self.touch(key);
                }
                changed(count)
            }
        }
    }

    fn add(&mut self, key: &[u8], fields: Vec<Bytes>) -> Reply {
        let field = |name: &[u8]| {
            fields.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| text(&pair[1]))
        };
        self.gone.extend(field(b"gone").zip(field(b"its_life")));
        self.said.extend(field(b"text"));
        let clock = self.clock;
        let empty = || Value::Stream(BTreeMap::new(), (0, 0));
        let stream = self.data.keys.entry(key.to_vec()).or_insert_with(empty);
        let Value::Stream(entries, last) = stream else { panic!("no stream") };
        let id = if clock > last.0 { (clock, 0) } else { (last.0, last.1 + 1) };
        *last = id;
        entries.insert(id, fields);
        self.touch(key);
        shown(id)
    }

    /// `XREAD COUNT n BLOCK ms STREAMS key id`: none if there is nothing.
    fn read(&mut self, command: &Command) -> Option<Reply> {
        let count = text(&command[2]).parse().unwrap();
        let (key, after) = (&command[6], parsed(&command[7]));
        let Some(Value::Stream(entries, _)) = self.data.keys.get(key) else { return None };
        let later = entries.range((after.0, after.1 + 1)..).take(count);
        let later: Vec<_> = later.map(|(id, fields)| (*id, fields.clone())).collect();
        if later.is_empty() {
            return None;
        }
        let stream = Reply::Array(vec![Reply::Bulk(key.clone()), listed(later.into_iter())]);
        Some(Reply::Array(vec![stream]))
    }

    /// Whether the key is there, since somebody has set it, and has not expired.
    pub fn has(&self, key: &str) -> bool {
        self.is_there(key.as_bytes()) && !self.revived.contains(key.as_bytes())
    }

    fn is_there(&self, key: &[u8]) -> bool {
        let expired = self.data.expires.get(key).is_some_and(|at| *at <= self.clock);
        self.data.keys.contains_key(key) && !expired
    }

    /// The members of a set.
    pub fn members_of(&self, set: &str) -> Vec<String> {
        match self.data.keys.get(set.as_bytes()) {
            Some(Value::Set(members)) => members.iter().map(|member| text(member)).collect(),
            _ => Vec::new(),
        }
    }

    /// What follows in the names of those keys that begin with that.
    pub fn keys_below(&self, prefix: &str) -> Vec<String> {
        let below = self.data.keys.keys().filter_map(|key| key.strip_prefix(prefix.as_bytes()));
        below.map(text).collect()
    }

    /// How many bytes the streams have.
    pub fn bytes(&self) -> u64 {
        let streams = self.data.keys.values().filter_map(|value| match value {
            Value::Stream(entries, _) => Some(entries.values().flatten()),
            _ => None,
        });
        streams.flatten().map(|field| field.len() as u64).sum()
    }

    /// Redis starts again with an older state, or with none.
    pub fn restart(&mut self, data: Data) {
        // What was lost before may be there again.
        let (before, now) = (self.data.said(), data.said());
        self.said.extend(now.difference(&before).cloned());
        self.lost.extend(before.difference(&now).cloned());
        let set = |key: &&Bytes| self.is_there(key) && !self.revived.contains(*key);
        self.revived = data.expires.keys().filter(|key| !set(key)).cloned().collect();
        self.data = data;
        self.changes.clear();
    }

    /// Somebody trims all streams to their last entries.
    pub fn trim_all(&mut self, keep: usize) {
        for value in self.data.keys.values_mut() {
            if let Value::Stream(entries, _) = value {
                while entries.len() > keep {
                    entries.pop_first();
                }
            }
        }
    }
}

const NO_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";

fn no_memory() -> Reply {
    error(NO_MEMORY)
}

fn wants_memory(command: &Command) -> bool {
    matches!(command[0].as_slice(), b"XADD" | b"SET" | b"HSET" | b"SADD")
}
