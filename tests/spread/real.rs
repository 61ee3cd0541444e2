//! The model of Redis beside a real one: the same commands must have the same answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command as Process, Stdio};

use reactor::services::room::Reply;

use super::redis::{Client, Command, Redis};

/// A redis-server that keeps nothing, killed when dropped.
struct Real {
    process: Child,
    port: u16,
}

impl Real {
    /// None where it is not installed.
    fn start() -> Option<Real> {
        Process::new("redis-server").arg("--version").stdout(Stdio::null()).status().ok()?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut command = Process::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--save", "", "--dir", "/"]);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut real = Real { process, port };
        while real.dial().is_none() {
            assert_eq!(real.process.try_wait().unwrap(), None, "redis-server has ended");
            std::thread::yield_now();
        }
        Some(real)
    }

    fn dial(&self) -> Option<Connection> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        stream.set_nodelay(true).unwrap();
        Some(Connection(BufReader::new(stream)))
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// RESP2, as far as these commands need it.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn ask(&mut self, command: &Command) -> Reply {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            bytes.extend(format!("${}\r\n", word.len()).bytes());
            bytes.extend([word, &b"\r\n"[..]].concat());
        }
        self.0.get_mut().write_all(&bytes).unwrap();
        self.reply()
    }

    fn reply(&mut self) -> Reply {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let (kind, text) = line.trim_end().split_at(1);
        let number = || text.parse::<i64>().unwrap();
        match kind {
            "+" => Reply::Status(text.to_owned()),
            "-" => Reply::Error(text.to_owned()),
            ":" => Reply::Integer(number()),
            "$" | "*" if number() < 0 => Reply::Nil,
            "$" => {
                let mut bytes = vec![0; number() as usize + 2];
                self.0.read_exact(&mut bytes).unwrap();
                bytes.truncate(bytes.len() - 2);
                Reply::Bulk(bytes)
            }
            "*" => Reply::Array((0..number()).map(|_| self.reply()).collect()),
            other => panic!("{other}"),
        }
    }
}

/// The ids of entries by when they were seen first: each side has ids of its own.
#[derive(Default)]
struct Ids(Vec<String>);

impl Ids {
    /// The answer with the ids' numbers in their place; of a set or a hash, with its words in order.
    fn without(&mut self, reply: Reply, unordered: bool) -> Reply {
        match reply {
            Reply::Bulk(bytes) => {
                let text = String::from_utf8(bytes).unwrap();
                if text.len() < 15 || !text.contains('-') {
                    return Reply::Bulk(text.into_bytes());
                }
                let known = self.0.iter().position(|id| *id == text);
                let number = known.unwrap_or_else(|| {
                    self.0.push(text);
                    self.0.len() - 1
                });
                Reply::Bulk(format!("entry {number}").into_bytes())
            }
            Reply::Array(parts) => {
                let strings = parts.iter().all(|part| matches!(part, Reply::Bulk(_)));
                let mut parts: Vec<_> =
                    parts.into_iter().map(|part| self.without(part, unordered)).collect();
                if unordered && strings {
                    parts.sort_by_key(|part| format!("{part:?}"));
                }
                Reply::Array(parts)
            }
            other => other,
        }
    }
}

/// The next command of a client, with an id's number where `@` stands.
fn choose(random: &mut fastrand::Rng, queueing: bool) -> String {
    let mut some = |words: &[&str]| words[random.usize(..words.len())].to_owned();
    let (hash, field) = (some(&["hash:1", "hash:2"]), some(&["a", "b", "c"]));
    let (set, member) = (some(&["set:1", "set:2"]), some(&["x:1", "y:1"]));
    let stream = "room";
    match random.usize(..if queueing { 20 } else { 25 }) {
        0 => format!("SET lease:{field} 1 PX 100000"),
        1 => "MGET lease:a lease:b lease:c".to_owned(),
        2 => format!("DEL {hash}"),
        3 => format!("HSET {hash} {field} {member}"),
        4 => format!("HSET {hash} {field} 1 d 2"),
        5 => format!("HDEL {hash} {field} d"),
        6 => format!("HMGET {hash} {field} a"),
        7 => format!("HGETALL {hash}"),
        8 => format!("SADD {set} {member}"),
        9 => format!("SREM {set} {member}"),
        10 => format!("SMEMBERS {set}"),
        11..14 => format!("XADD {stream} * server {field} kind {member}"),
        14 => format!("XRANGE {stream} @ @ COUNT 1"),
        15 => format!("XREVRANGE {stream} + - COUNT 1"),
        16 if random.u8(..3) == 0 => format!("XTRIM {stream} MINID @"),
        16 if queueing => "EXEC".to_owned(),
        16 => format!("XREAD COUNT 256 BLOCK 1 STREAMS {stream} @"),
        17 => format!("XRANGE {stream} - + COUNT 1"),
        18 => format!("MEMORY USAGE {stream}"),
        19 if random.u8(..4) == 0 => "reset".to_owned(),
        19 => "MEMORY USAGE nothing".to_owned(),
        20 => format!("XREAD COUNT 256 BLOCK 1 STREAMS {stream} 0-0"),
        21 => format!("WATCH {hash} {set} {stream}"),
        22 => "memory".to_owned(),
        _ => "MULTI".to_owned(),
    }
}

/// How much memory something takes is not compared, only whether it is there: the answers to these
/// commands, or to the `EXEC` of them.
fn without_sizes(reply: Reply, commands: &[String]) -> Reply {
    let is_there = |(reply, command): (Reply, &String)| match reply {
        Reply::Integer(_) if command.starts_with("MEMORY") => Reply::Integer(1),
        other => other,
    };
    match reply {
        Reply::Array(replies) if replies.len() == commands.len() => {
            Reply::Array(replies.into_iter().zip(commands).map(is_there).collect())
        }
        other => commands.first().map_or(other.clone(), |command| is_there((other, command))),
    }
}

/// One sequence of commands of two clients on each side.
fn compare(seed: u64, redis: &Real, real: &mut [Connection; 2]) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut model = Redis::at(1_700_000_000_000);
    let mut clients = [Client::default(), Client::default()];
    let (mut real_ids, mut model_ids) = (Ids::default(), Ids::default());
    let (mut queueing, mut history) = ([false; 2], Vec::new());
    let mut queued = [Vec::new(), Vec::new()];
    let words =
        |text: &str| -> Command { text.split(' ').map(|it| it.as_bytes().to_vec()).collect() };
    for _ in 0..120 {
        model.clock += random.u64(..2);
        let who = random.usize(..2);
        let text = choose(&mut random, queueing[who]);
        history.push(format!("{who}: {text}"));
        if text == "memory" {
            model.out_of_memory = !model.out_of_memory && random.u8(..4) == 0;
            let most = u8::from(model.out_of_memory);
            let set = words(&format!("CONFIG SET maxmemory {most}"));
            real[who].ask(&set);
            continue;
        }
        if text == "reset" {
            // What was queued and watched is forgotten.
            real[who] = redis.dial().unwrap();
            clients[who] = Client::default();
            queueing[who] = false;
            queued[who].clear();
            continue;
        }
        let id = random.usize(..real_ids.0.len().max(1));
        let of = |ids: &Ids| words(&text.replace('@', ids.0.get(id).map_or("1-1", String::as_str)));
        let unordered =
            text.starts_with("EXEC") || text.starts_with("HGET") || text.starts_with("SMEM");
        let theirs = real[who].ask(&of(&real_ids));
        let ours = model.execute(&mut clients[who], &of(&model_ids)).unwrap_or(Reply::Nil);
        let theirs = real_ids.without(theirs, unordered);
        let ours = model_ids.without(ours, unordered);
        let asked = match text.as_str() {
            "EXEC" => std::mem::take(&mut queued[who]),
            _ => vec![text.clone()],
        };
        let (ours, theirs) = (without_sizes(ours, &asked), without_sizes(theirs, &asked));
        assert_eq!(ours, theirs, "seed {seed}: the model, and Redis, after {history:#?}");
        match text.as_str() {
            "MULTI" => queueing[who] = true,
            "EXEC" => queueing[who] = false,
            _ if queueing[who] => queued[who].push(text),
            _ => {}
        }
    }
    real[0].ask(&words("EXEC"));
    real[0].ask(&words("CONFIG SET maxmemory 0"));
    real[1].ask(&words("EXEC"));
    for connection in real {
        connection.ask(&words("UNWATCH"));
        connection.ask(&words("FLUSHALL"));
    }
}

/// False where there is no redis-server.
pub fn compare_all() -> bool {
    let Some(real) = Real::start() else { return false };
    let mut connections = [real.dial().unwrap(), real.dial().unwrap()];
    (0..200).for_each(|seed| compare(seed, &real, &mut connections));
    true
}
