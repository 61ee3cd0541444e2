//! A Redis that says whatever it likes: what is read from it is as hostile as what a client sends.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use reactor::services::room::bus::{Action, Bus, Event, News, Told};
use reactor::services::room::{Command, Demand, Failure, Link, Reply, Room, ServerId, Settings};

/// The fields of an entry, and what may be in them.
const FIELDS: &[&str] = &[
    "server", "life", "number", "kind", "member", "order", "name", "text", "gone", "its_life",
    "last", "after", "base", "said", "members", "here", "1", "1.name", "x.name",
];
const KINDS: &[&str] =
    &["arrive", "hello", "name", "say", "bye", "leave", "ask", "gone", "here", "sing"];
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "+4",
    "18446744073709551615",
    "18446744073709551614",
    "18446744073709551616",
    "-1",
    "9223372036854775808",
    "",
    "x",
];
/// The longest name that is believed, in characters.
const NAME_LENGTH: usize = 64;

fn words(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut one_of = |words: &[&str]| words[random.usize(..words.len())].as_bytes().to_vec();
    let (number, field, kind) = (one_of(NUMBERS), one_of(FIELDS), one_of(KINDS));
    let server = format!("{:032x}", random.u8(..3)).into_bytes();
    match random.usize(..12) {
        0..3 => number,
        3 => field,
        4 => kind,
        5 => server,
        6 => [&server[..], b":", &number].concat(),
        7 => [&number[..], b"-", &number].concat(),
        8 => b"1700000000000-3".to_vec(),
        9 => [&number[..], b" ", &number, b" \x1b[2J\xff\n"].concat().repeat(random.usize(1..5)),
        10 => vec![random.u8(..); random.usize(..70_000)],
        _ => (0..random.usize(..90)).map(|_| random.u8(..)).collect(),
    }
}

/// An entry that may look like one.
fn entry(random: &mut fastrand::Rng) -> Reply {
    let mut fields = Vec::new();
    for field in FIELDS {
        if random.u8(..9) == 0 {
            continue;
        }
        let value = match *field {
            "server" | "gone" => format!("{:032x}", random.u8(..4)).into_bytes(),
            "kind" => KINDS[random.usize(..KINDS.len())].as_bytes().to_vec(),
            "members" => b"1 18446744073709551615 bob\n18446744073709551615 0 \nx".to_vec(),
            _ if random.u8(..4) > 0 => NUMBERS[random.usize(..6)].as_bytes().to_vec(),
            _ => words(random),
        };
        fields.extend([field.as_bytes().to_vec(), value].map(Reply::Bulk));
    }
    let id = format!("{}-{}", NUMBERS[random.usize(..6)], random.u8(..9));
    Reply::Array(vec![Reply::Bulk(id.into_bytes()), Reply::Array(fields)])
}

fn anything(random: &mut fastrand::Rng, depth: usize) -> Reply {
    match random.usize(..10) {
        0 => Reply::Nil,
        1 => Reply::Status("OK".to_owned()),
        2 if random.u8(..4) == 0 => Reply::Error("OOM command not allowed".to_owned()),
        3 => Reply::Integer([0, 1, -1, i64::MAX, i64::MIN][random.usize(..5)]),
        4..6 => entry(random),
        6..9 if depth > 0 => {
            let parts = random.usize(..7);
            Reply::Array((0..parts).map(|_| anything(random, depth - 1)).collect())
        }
        _ => Reply::Bulk(words(random)),
    }
}

/// An answer that has the shape that the command asks for, or not.
fn answer(random: &mut fastrand::Rng, command: &[Vec<u8>]) -> Reply {
    let entries = |random: &mut fastrand::Rng| {
        let count = random.usize(..6);
        Reply::Array((0..count).map(|_| entry(random)).collect())
    };
    match command[0].as_slice() {
        _ if random.u8(..8) == 0 => anything(random, 4),
        b"XREAD" => {
            let stream = vec![Reply::Bulk(b"room".to_vec()), entries(random)];
            Reply::Array(vec![Reply::Array(stream)])
        }
        b"XRANGE" => entries(random),
        b"EXEC" => {
            let servers = (0..random.usize(..4)).map(|it| format!("{it:032x}:1").into_bytes());
            let mut parts = vec![Reply::Array(servers.map(Reply::Bulk).collect())];
            parts.extend([entries(random), entries(random), Reply::Integer(random.i64(..))]);
            parts.extend((0..random.usize(..5)).map(|_| {
                let Reply::Array(mut entry) = entry(random) else { unreachable!() };
                entry.remove(1)
            }));
            Reply::Array(parts)
        }
        b"SMEMBERS" => {
            let servers = (0..random.usize(..4)).map(|it| format!("{it:032x}:1").into_bytes());
            Reply::Array(servers.map(Reply::Bulk).collect())
        }
        _ => Reply::Status("OK".to_owned()),
    }
}

fn must_be_fit_to_be_shown(name: Option<&str>, text: &str) {
    let name = name.unwrap_or_default();
    assert!(name.chars().count() <= NAME_LENGTH && text.len() <= 3 * (64 << 10));
    assert!(!name.chars().chain(text.chars()).any(char::is_control), "{name:?} {text:?}");
}

fn look_at(action: &Action) {
    let news = match action {
        Action::ToAll { news, .. } | Action::ToOthers(_, news) => news,
        Action::To(_, Told::Who(list)) => {
            list.iter().for_each(|name| must_be_fit_to_be_shown(name.as_deref(), ""));
            return;
        }
        _ => return,
    };
    match news {
        News::Said { name, text } => must_be_fit_to_be_shown(name.as_deref(), text),
        News::Named { name } | News::Leaving { name } | News::Left { name } => {
            must_be_fit_to_be_shown(name.as_deref(), "");
        }
        _ => {}
    }
}

/// A room lives with it for a while, and is well-behaved.
pub fn lives_with(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut now = Instant::now();
    let settings = Settings { unique_names: random.bool(), keep: 1 << 16, ..Settings::default() };
    let mut room = Room::new(settings, ServerId(1), now);
    let mut asked: VecDeque<(Link, Vec<Vec<Vec<u8>>>)> = VecDeque::new();
    let mut dialled = Vec::new();
    for step in 0..400 {
        now += Duration::from_millis(random.u64(..900));
        match random.usize(..6) {
            0 => {
                let member = random.u64(..5);
                let name = Some(format!("m{}", random.u8(..3)));
                let event = [Event::Arrive, Event::Hello(name), Event::Say("hi".to_owned())];
                let event = event.into_iter().chain([Event::Who, Event::Bye, Event::Leave]);
                room.event(member, event.collect::<Vec<_>>().swap_remove(random.usize(..6)), now);
            }
            1 => room.tick(now),
            2 if random.u8(..5) == 0 => {
                let link = [Link::Commands, Link::Reader][random.usize(..2)];
                asked.retain(|(of, _)| *of != link);
                if !dialled.contains(&link) {
                    room.lost(link, Failure::Other, now);
                }
            }
            3 if !dialled.is_empty() => {
                let link = dialled.remove(0);
                room.connected(link, now);
            }
            _ => {
                if let Some((link, commands)) = asked.pop_front() {
                    let replies = commands.iter().map(|command| answer(&mut random, command));
                    room.replies(link, &replies.collect::<Vec<_>>(), now);
                }
            }
        }
        let mut done = 0;
        loop {
            done += 1;
            assert!(done < 10_000, "seed {seed} spins at step {step}");
            if let Some(action) = room.poll() {
                look_at(&action);
                if action == Action::Drain {
                    room.drained(now);
                }
                continue;
            }
            match room.poll_redis() {
                Some(Demand::Connect(link)) => dialled.push(link),
                Some(Demand::Disconnect(link)) => {
                    asked.retain(|(of, _)| *of != link);
                    dialled.retain(|of| *of != link);
                }
                Some(Demand::Send(link, commands)) => asked.push_back((link, commands)),
                Some(Demand::Stopped) => {}
                None => break,
            }
        }
    }
}

/// How a Redis treats a request.
pub enum Treats {
    /// With what an empty one answers.
    Well,
    /// With these answers.
    With(Vec<Reply>),
    /// It drops the connection.
    Drops,
    /// Not at all.
    Not,
}

/// What was done within a time.
#[derive(Debug, Default)]
pub struct Effort {
    pub dialled: usize,
    pub sent: usize,
    pub woken: usize,
    pub cut_off: usize,
}

/// What a room does in a minute with a Redis that treats its requests in that way. Answers come after a
/// millisecond, those of a Redis that is well and of which a client waits after a second.
pub fn effort(mut treats: impl FnMut(&[Command]) -> Treats) -> Effort {
    let begin = Instant::now();
    let mut now = begin;
    let mut room = Room::new(Settings::default(), ServerId(1), now);
    room.event(7, Event::Arrive, now);
    let mut effort = Effort::default();
    let mut coming: VecDeque<(Instant, Link, Option<Vec<Reply>>)> = VecDeque::new();
    while now < begin + Duration::from_secs(60) {
        loop {
            if let Some(action) = room.poll() {
                let cut_off = matches!(action, Action::ToAll { news: News::CutOff, .. });
                effort.cut_off += usize::from(cut_off);
                continue;
            }
            let soon = now + Duration::from_millis(1);
            match room.poll_redis() {
                Some(Demand::Connect(link)) => {
                    effort.dialled += 1;
                    room.connected(link, now);
                }
                Some(Demand::Disconnect(link)) => coming.retain(|(_, of, _)| *of != link),
                Some(Demand::Send(link, commands)) => {
                    effort.sent += 1;
                    match treats(&commands) {
                        Treats::Well => {
                            let blocks = commands[0][0] == b"XREAD";
                            let at = if blocks { now + Duration::from_secs(1) } else { soon };
                            coming.push_back((at, link, Some(well(&commands))));
                        }
                        Treats::With(replies) => coming.push_back((soon, link, Some(replies))),
                        Treats::Drops => coming.push_back((soon, link, None)),
                        Treats::Not => {}
                    }
                }
                Some(Demand::Stopped) => {}
                None => break,
            }
        }
        let next = coming.iter().map(|(at, ..)| *at).min();
        let due = room.deadline().expect("it has something to do");
        if next.is_none_or(|next| due < next) {
            effort.woken += 1;
            now = due;
            room.tick(now);
            continue;
        }
        let place = coming.iter().position(|(at, ..)| Some(*at) == next).unwrap();
        let (at, link, replies) = coming.remove(place).unwrap();
        now = now.max(at);
        match replies {
            Some(replies) => room.replies(link, &replies, now),
            None => room.lost(link, Failure::Other, now),
        }
    }
    effort
}

/// What a Redis answers in which there is nothing.
pub fn well(commands: &[Command]) -> Vec<Reply> {
    let one = |command: &Command| match command[0].as_slice() {
        b"XREAD" => Reply::Nil,
        b"SMEMBERS" | b"XRANGE" | b"XREVRANGE" | b"HGETALL" => Reply::Array(Vec::new()),
        b"HMGET" | b"MGET" => Reply::Array(vec![Reply::Nil; command.len() - 2]),
        b"HSET" | b"DEL" | b"SADD" | b"SREM" | b"HDEL" | b"XTRIM" => Reply::Integer(1),
        b"MEMORY" => Reply::Integer(0),
        b"XADD" => Reply::Bulk(b"1-1".to_vec()),
        _ => Reply::Status("OK".to_owned()),
    };
    let mut queued: Vec<Reply> = Vec::new();
    let mut is_queuing = false;
    let replies = commands.iter().map(|command| match command[0].as_slice() {
        b"MULTI" => {
            is_queuing = true;
            one(command)
        }
        b"EXEC" => {
            is_queuing = false;
            Reply::Array(std::mem::take(&mut queued))
        }
        _ if is_queuing => {
            queued.push(one(command));
            Reply::Status("QUEUED".to_owned())
        }
        _ => one(command),
    });
    replies.collect()
}
