//! A service that does what its clients say with all that a handler can do: what the real ones do
//! not need, and what only a careless one would.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::resume_unwind;
use std::time::Duration;

use reactor::{
    CloseReason, ConnId, Context, Decoder, Encoder, Handler, Saved, ServiceContext, TimerId,
    Unreadable,
};

use super::{Book, Choices, Model};

/// For how long somebody else is not to be heard: a line that has begun meanwhile is not late.
const HUSH: Duration = Duration::from_secs(35);
/// Ids that are remembered, of those that are gone too.
const KNOWN: usize = 32;
const VERBS: &[&str] = &[
    "say", "say", "say", "all", "others", "to", "answer", "later", "later", "never", "calm",
    "rest", "hush", "stream", "parts", "block", "block", "blocks", "soon", "big", "bye", "finish",
    "abort", "boom", "bomb", "end", "cut", "dial", "tick", "what",
];

/// In half of the worlds there is more of what is seldom in the others, and of nothing that ends it.
const BLOCKS: &[&str] =
    &["block", "block", "blocks", "blocks", "soon", "soon", "rest", "hush", "parts", "say"];

/// What a timer is for.
#[derive(Clone)]
enum Wish {
    Say(String),
    Resume,
    Block(usize),
}

impl Wish {
    fn save(&self, to: &mut Encoder) {
        let text = match self {
            Wish::Say(text) => Some(text.clone()),
            Wish::Resume => None,
            // No text is one of these: each ends with an LF.
            Wish::Block(count) => Some(format!("/{count}")),
        };
        to.put_option(text.as_deref(), Encoder::put_text);
    }

    fn restore(from: &mut Decoder<'_>) -> Result<Wish, Unreadable> {
        let text = from.option(Decoder::text)?;
        let count = text.and_then(|text| text.strip_prefix('/')?.parse().ok());
        Ok(match (text, count) {
            (_, Some(count)) => Wish::Block(count),
            (Some(text), None) => Wish::Say(text.to_owned()),
            (None, None) => Wish::Resume,
        })
    }
}

/// What a piece of a block has the service do besides.
enum Act {
    Rest(Duration),
    Finish,
    Close,
    Abort,
    Panic,
    Big,
    /// As many bytes of the block are still to come.
    Longer(usize),
    Nothing,
}

fn act(piece: &[u8], end: bool) -> Act {
    match piece.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 80 {
        1..4 => Act::Rest(Duration::from_millis(30)),
        4 => Act::Rest(HUSH),
        5 => Act::Finish,
        6 => Act::Close,
        7 => Act::Abort,
        8 => Act::Panic,
        9..13 => Act::Big,
        number @ 13..20 if !end => Act::Longer(number - 13),
        _ => Act::Nothing,
    }
}

thread_local! {
    /// Sessions that have not been dropped.
    static SESSIONS: Cell<usize> = const { Cell::new(0) };
}

pub struct Session {
    timers: BTreeMap<TimerId, Wish>,
    /// What they are for, and when, until they are set again.
    restored: Vec<(Duration, Wish)>,
    /// Pieces of a stream that are to be sent yet.
    pieces: usize,
    /// And of one that `send_pieces` sends, which waits for room.
    parts: usize,
    sending: bool,
    /// Blocks that are to follow.
    blocks: usize,
    /// Bytes of this block so far.
    took: usize,
    /// Its drop panics.
    bomb: bool,
}

impl Default for Session {
    fn default() -> Session {
        SESSIONS.set(SESSIONS.get() + 1);
        Session {
            timers: BTreeMap::new(),
            restored: Vec::new(),
            pieces: 0,
            parts: 0,
            sending: false,
            blocks: 0,
            took: 0,
            bomb: false,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        SESSIONS.set(SESSIONS.get() - 1);
        if self.bomb && !std::thread::panicking() {
            resume_unwind(Box::new("on purpose"));
        }
    }
}

/// The ids of those that came last.
#[derive(Default)]
pub struct Known(VecDeque<ConnId>);

impl Known {
    fn add(&mut self, id: ConnId) {
        self.0.push_back(id);
        if self.0.len() > KNOWN {
            self.0.pop_front();
        }
    }

    fn get(&self, number: usize) -> ConnId {
        self.0[number % self.0.len()]
    }
}

/// `verb number text`.
fn parse(line: &[u8]) -> Option<(String, usize, String)> {
    let text = String::from_utf8_lossy(line);
    let mut words = text.splitn(3, ' ');
    let (verb, number, text) = (words.next()?, words.next()?, words.next()?);
    Some((verb.to_owned(), number.parse().ok()?, text.to_owned()))
}

fn piece(number: usize) -> Vec<u8> {
    format!("{number:5999}\n").into()
}

fn send_parts(cx: &mut Context<'_, Session>) {
    let all = cx.send_pieces(|session| {
        session.parts = session.parts.checked_sub(1)?;
        Some(piece(session.parts))
    });
    cx.session().sending = !all;
    if all {
        cx.session().parts = 0;
    }
}

/// The verbs that are about timers.
fn set_timers(cx: &mut Context<'_, Session>, verb: &str, after: Duration, line: String) {
    match verb {
        "later" => {
            let timer = cx.set_timer(after);
            cx.session().timers.insert(timer, Wish::Say(line));
        }
        "soon" => {
            let timer = cx.set_timer(after);
            cx.session().timers.insert(timer, Wish::Block((line.len() - 1) % 50));
        }
        "rest" => {
            let timer = cx.set_timer(after);
            cx.session().timers.insert(timer, Wish::Resume);
            cx.pause();
        }
        "never" => {
            let timer = cx.set_timer(after);
            let (once, twice) = (cx.cancel_timer(timer), cx.cancel_timer(timer));
            writeln!(cx, "{once} {twice}");
        }
        "calm" => {
            let timers = std::mem::take(&mut cx.session().timers);
            let count = timers.into_keys().filter(|timer| cx.cancel_timer(*timer)).count();
            writeln!(cx, "{count}");
        }
        _ => {}
    }
}

#[derive(Default)]
pub struct Service {
    known: Known,
    /// What the service's own timers say.
    ticks: BTreeMap<TimerId, String>,
    restored: Vec<(Duration, String)>,
}

/// How long a timer has to run yet.
fn left(cx: &ServiceContext<'_, Session>, timer: TimerId) -> Duration {
    cx.due(timer).saturating_duration_since(cx.now())
}

impl Handler for Service {
    type Session = Session;
    type Message = (usize, String);

    fn on_start(&mut self, cx: &mut ServiceContext<'_, Session>) {
        for (left, text) in std::mem::take(&mut self.restored) {
            self.ticks.insert(cx.set_service_timer(left), text);
        }
    }

    fn on_open(&mut self, cx: &mut Context<'_, Session>) {
        self.known.add(cx.id());
    }

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        let (verb, number, text) = parse(line).unwrap_or_default();
        let line = format!("{text}\n");
        let after = Duration::from_millis(number as u64);
        let other = self.known.get(number);
        match verb.as_str() {
            "say" => _ = cx.send(line),
            "big" => _ = cx.send(vec![b'b'; number]),
            "all" => cx.broadcast(line),
            "others" => cx.broadcast_to_others(line),
            "to" => {
                let open = cx.connection(other).is_some();
                cx.send_to(other, line);
                writeln!(cx, "{open}");
            }
            "answer" => {
                // One that has broken may be open and not take it.
                let open = cx.connection(other).is_some();
                let sent = cx.reply_to(other, line);
                writeln!(cx, "{}", sent <= open);
            }
            "later" | "soon" | "rest" | "never" | "calm" => set_timers(cx, &verb, after, line),
            "hush" => {
                if let Some(mut other) = cx.connection(other) {
                    let timer = other.set_timer(HUSH);
                    other.session().timers.insert(timer, Wish::Resume);
                    other.pause();
                }
            }
            "stream" => {
                cx.session().pieces += number;
                cx.request_drain();
            }
            "parts" => {
                cx.session().parts += number;
                send_parts(cx);
            }
            "block" => cx.take_block(number),
            "blocks" => {
                cx.session().blocks = number;
                cx.take_block(number);
            }
            "bye" => cx.close(),
            "finish" => cx.half_close(),
            "abort" => cx.abort(),
            "boom" => resume_unwind(Box::new("on purpose")),
            "bomb" => cx.session().bomb = true,
            "end" | "cut" => {
                let found = cx.connection(other).map(|mut other| match verb.as_str() {
                    "end" => other.close(),
                    _ => other.abort(),
                });
                writeln!(cx, "{}", found.is_some());
            }
            "dial" => {
                let dialled = cx.connect("127.0.0.1:1", Session::default());
                writeln!(cx, "{}", dialled.is_ok());
            }
            "tick" => _ = self.ticks.insert(cx.set_service_timer(after), line),
            _ => _ = cx.send("?\n"),
        }
    }

    fn on_block(&mut self, cx: &mut Context<'_, Session>, piece: &[u8], end: bool) {
        cx.session().took += piece.len();
        match act(piece, end) {
            Act::Rest(time) => {
                let timer = cx.set_timer(time);
                cx.session().timers.insert(timer, Wish::Resume);
                cx.pause();
            }
            Act::Finish => cx.half_close(),
            Act::Close => cx.close(),
            Act::Abort => cx.abort(),
            Act::Panic => resume_unwind(Box::new("on purpose")),
            Act::Big => _ = cx.send([b'b'; 999]),
            Act::Longer(left) => cx.take_block(left),
            Act::Nothing => {}
        }
        if end {
            let took = std::mem::take(&mut cx.session().took);
            writeln!(cx, "took {took}");
            if let Some(next) = cx.session().blocks.checked_sub(1) {
                cx.session().blocks = next;
                cx.take_block(next);
            }
        }
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Session>) {
        if cx.session().sending {
            send_parts(cx);
        }
        let left = &mut cx.session().pieces;
        let number = *left;
        *left = left.saturating_sub(1);
        if number > 0 {
            cx.send(piece(number));
        }
        if number > 1 {
            cx.request_drain();
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Session>, timer: TimerId) {
        match cx.session().timers.remove(&timer) {
            Some(Wish::Say(text)) => _ = cx.send(text),
            Some(Wish::Resume) => cx.resume(),
            Some(Wish::Block(count)) => cx.take_block(count),
            None => _ = cx.send("a timer that was not set\n"),
        }
    }

    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, Session>, timer: TimerId) {
        cx.broadcast(self.ticks.remove(&timer).unwrap_or_default());
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, Session>, (to, text): (usize, String)) {
        if to == 0 || self.known.0.is_empty() {
            cx.broadcast(text);
        } else {
            cx.reply_to(self.known.get(to), text);
        }
    }

    fn save(&self, cx: &ServiceContext<'_, Session>) -> Option<Saved> {
        // A session that panics when it is dropped would do so in both loops.
        if cx.connections().any(|(_, session)| session.bomb) {
            return None;
        }
        let mut saved = Saved::new(7);
        let to = saved.state();
        to.put_number(self.known.0.len() as u64);
        self.known.0.iter().for_each(|id| to.put_number(id.to_bits()));
        for (timer, text) in &self.ticks {
            to.put_duration(left(cx, *timer));
            to.put_text(text);
        }
        Some(saved)
    }

    fn save_session(
        &self,
        cx: &ServiceContext<'_, Session>,
        _id: ConnId,
        session: &Session,
        to: &mut Encoder,
    ) {
        for number in [session.pieces, session.parts, session.blocks, session.took] {
            to.put_number(number as u64);
        }
        to.put_flag(session.sending);
        for (timer, wish) in &session.timers {
            to.put_duration(left(cx, *timer));
            wish.save(to);
        }
    }

    fn restore(&mut self, version: u32, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        if version != 7 {
            return Err(Unreadable("another version"));
        }
        for _ in 0..from.number()? {
            self.known.add(ConnId::from_bits(from.number()?));
        }
        while !from.is_empty() {
            self.restored.push((from.duration()?, from.text()?.to_owned()));
        }
        Ok(())
    }

    fn restore_session(
        &mut self,
        _id: ConnId,
        _version: u32,
        from: &mut Decoder<'_>,
    ) -> Result<Session, Unreadable> {
        let mut session = Session::default();
        let Session { pieces, parts, blocks, took, .. } = &mut session;
        for number in [pieces, parts, blocks, took] {
            *number = from.number()? as usize;
        }
        session.sending = from.flag()?;
        while !from.is_empty() {
            session.restored.push((from.duration()?, Wish::restore(from)?));
        }
        Ok(session)
    }

    fn on_restored(&mut self, cx: &mut Context<'_, Session>) {
        for (left, wish) in std::mem::take(&mut cx.session().restored) {
            let timer = cx.set_timer(left);
            cx.session().timers.insert(timer, wish);
        }
    }
}

/// What one client has asked for and is still to come.
#[derive(Default)]
struct Wishes {
    /// In the order in which they were set.
    timers: Vec<(Duration, Wish)>,
    pieces: usize,
    parts: usize,
    sending: bool,
    blocks: usize,
    took: usize,
    bomb: bool,
}

impl Wishes {
    /// The verbs that are about timers.
    fn set_timers(&mut self, book: &mut Book, id: ConnId, verb: &str, due: Duration, line: String) {
        match verb {
            "later" => self.timers.push((due, Wish::Say(line))),
            "soon" => self.timers.push((due, Wish::Block((line.len() - 1) % 50))),
            "rest" => {
                self.timers.push((due, Wish::Resume));
                book.pauses(id, true);
            }
            "never" => book.say(id, "true false\n"),
            "calm" => {
                book.say(id, format!("{}\n", self.timers.len()));
                self.timers.clear();
            }
            _ => {}
        }
    }
}

/// Takes out the one that is due first.
fn first<T>(timers: &mut Vec<(Duration, T)>) -> Option<(Duration, T)> {
    let (place, _) = timers.iter().enumerate().min_by_key(|(_, (due, _))| *due)?;
    Some(timers.remove(place))
}

pub struct Puppet {
    /// What its clients ask for.
    verbs: &'static [&'static str],
    known: Known,
    wishes: BTreeMap<ConnId, Wishes>,
    ticks: Vec<(Duration, String)>,
    /// Messages so far, and those that are on their way.
    posts: usize,
    posted: VecDeque<(usize, String)>,
}

impl Puppet {
    /// As many of the parts as there is room for.
    fn send_parts(&mut self, book: &mut Book, id: ConnId) {
        let Some(mine) = self.wishes.get_mut(&id) else { return };
        while book.has_room(id) && mine.parts > 0 {
            mine.parts -= 1;
            book.say(id, piece(mine.parts));
            if book.unsent(id) > book.limits.low_water {
                mine.sending = true;
                book.pauses(id, true);
                return book.drains(id, true);
            }
        }
        if book.takes_output(id) && !book.has_room(id) {
            // A server that is full gets the next one once it has read.
            mine.sending = true;
            book.pauses(id, true);
            return book.drains(id, true);
        }
        (mine.parts, mine.sending) = (0, false);
        book.pauses(id, false);
        book.drains(id, mine.pieces > 0);
    }
}

impl Model for Puppet {
    type Service = Service;

    const NAME: &'static str = "puppet";
    const BUDGET: bool = false;
    const POSTS: bool = true;

    fn start(choices: &mut Choices) -> (Service, Puppet) {
        let puppet = Puppet {
            verbs: choices.one_of(&[VERBS, BLOCKS]),
            known: Known::default(),
            wishes: BTreeMap::new(),
            ticks: Vec::new(),
            posts: 0,
            posted: VecDeque::new(),
        };
        (Service::default(), puppet)
    }

    fn successor(&self) -> Option<Service> {
        Some(Service::default())
    }

    fn talk(&self, choices: &mut Choices, _longest: usize) -> Vec<u8> {
        let verb = choices.one_of(self.verbs);
        let number = match verb {
            // More than one turn writes.
            "big" => choices.size(1 << 20, 2 << 20),
            "stream" | "blocks" => choices.below(8),
            "parts" => choices.below(20),
            "block" => choices.one_of(&[0, 1, 20, 100, 300, 6_000]),
            "later" | "rest" | "tick" | "soon" => choices.one_of(&[0, 1, 30, 1_000, 50_000]),
            _ => choices.below(KNOWN),
        };
        format!("{verb} {number} ").into()
    }

    fn post(&mut self, choices: &mut Choices) -> Option<(usize, String)> {
        self.posts += 1;
        let more = "x".repeat(choices.size(300, 30_000));
        let message = (choices.below(10), format!("posted {} {more}\n", self.posts));
        self.posted.push_back(message.clone());
        Some(message)
    }

    fn opened(&mut self, _book: &mut Book, id: ConnId) {
        self.known.add(id);
        self.wishes.insert(id, Wishes::default());
    }

    fn line(&mut self, book: &mut Book, id: ConnId, line: &[u8]) {
        let Some((verb, number, text)) = parse(line) else { return book.say(id, "?\n") };
        let line = format!("{text}\n");
        let due = book.clock + Duration::from_millis(number as u64);
        let other = self.known.get(number);
        let Some(mine) = self.wishes.get_mut(&id) else { return };
        match verb.as_str() {
            "say" => book.say(id, line),
            "big" => book.say(id, vec![b'b'; number]),
            "all" => book.say_all(line),
            "others" => {
                let others = book.open().into_iter().filter(|other| *other != id);
                others.for_each(|other| book.say(other, &line));
            }
            "to" => {
                let open = book.is_open(other);
                book.say(other, line);
                book.say(id, format!("{open}\n"));
            }
            "answer" => {
                book.answer(other, line);
                book.say(id, "true\n");
            }
            "later" | "soon" | "rest" | "never" | "calm" => {
                mine.set_timers(book, id, &verb, due, line);
            }
            "hush" => {
                if book.is_open(other)
                    && let Some(theirs) = self.wishes.get_mut(&other)
                {
                    theirs.timers.push((book.clock + HUSH, Wish::Resume));
                    book.pauses(other, true);
                }
            }
            "stream" => {
                mine.pieces += number;
                book.drains(id, true);
            }
            "parts" => {
                mine.parts += number;
                self.send_parts(book, id);
            }
            "block" => book.takes_block(id, number),
            "blocks" => {
                mine.blocks = number;
                book.takes_block(id, number);
            }
            "bye" => book.ends(id, CloseReason::Closed),
            "finish" => book.finishes(id),
            "abort" => book.ends(id, CloseReason::Aborted),
            "boom" => {
                book.ends(id, CloseReason::Panicked);
                book.panics += 1;
            }
            "bomb" => {
                book.panics += u64::from(!mine.bomb);
                mine.bomb = true;
            }
            "end" | "cut" => {
                let open = book.is_open(other);
                let reason = if verb == "end" { CloseReason::Closed } else { CloseReason::Aborted };
                book.ends(other, reason);
                book.say(id, format!("{open}\n"));
            }
            "dial" => book.say(id, "true\n"),
            "tick" => self.ticks.push((due, line)),
            _ => book.say(id, "?\n"),
        }
    }

    fn piece(&mut self, book: &mut Book, id: ConnId, piece: &[u8], end: bool) {
        let Some(mine) = self.wishes.get_mut(&id) else { return };
        mine.took += piece.len();
        match act(piece, end) {
            Act::Rest(time) => {
                mine.timers.push((book.clock + time, Wish::Resume));
                book.pauses(id, true);
            }
            Act::Finish => book.finishes(id),
            Act::Close => book.ends(id, CloseReason::Closed),
            Act::Abort => book.ends(id, CloseReason::Aborted),
            Act::Panic => {
                book.ends(id, CloseReason::Panicked);
                book.panics += 1;
            }
            Act::Big => book.say(id, [b'b'; 999]),
            Act::Longer(left) => book.takes_block(id, left),
            Act::Nothing => {}
        }
        if end {
            let took = std::mem::take(&mut mine.took);
            book.say(id, format!("took {took}\n"));
            if let Some(next) = mine.blocks.checked_sub(1) {
                mine.blocks = next;
                book.takes_block(id, next);
            }
        }
    }

    fn drained(&mut self, book: &mut Book, id: ConnId) {
        book.drains(id, false);
        if self.wishes.get(&id).is_some_and(|wishes| wishes.sending) {
            self.send_parts(book, id);
        }
        let Some(mine) = self.wishes.get_mut(&id) else { return };
        if mine.pieces > 0 {
            book.say(id, piece(mine.pieces));
            mine.pieces -= 1;
        }
        book.drains(id, mine.pieces > 0 || mine.sending);
    }

    fn timer(&mut self, book: &mut Book, id: ConnId) {
        let Some(mine) = self.wishes.get_mut(&id) else { return };
        match first(&mut mine.timers) {
            Some((due, wish)) if due <= book.clock => match wish {
                Wish::Say(text) => book.say(id, text),
                Wish::Resume => book.pauses(id, false),
                Wish::Block(count) => book.takes_block(id, count),
            },
            wrong => {
                let due = wrong.map(|(due, _)| due);
                book.complain(format!("{id}: a timer fired, the next is due at {due:?}"));
            }
        }
    }

    fn service_timer(&mut self, book: &mut Book) {
        match first(&mut self.ticks) {
            Some((due, text)) if due <= book.clock => book.say_all(text),
            wrong => book.complain(format!("a service timer fired, due is {wrong:?}")),
        }
    }

    fn arrived(&mut self, book: &mut Book, message: &(usize, String)) {
        let next = self.posted.pop_front();
        if next.as_ref() != Some(message) {
            book.complain(format!("{message:?} was handled, {next:?} was next"));
        }
    }

    fn message(&mut self, book: &mut Book, (to, text): &(usize, String)) {
        if *to == 0 || self.known.0.is_empty() {
            book.say_all(text);
        } else {
            book.answer(self.known.get(*to), text);
        }
    }

    fn closed(&mut self, _book: &mut Book, id: ConnId, _reason: CloseReason) {
        self.wishes.remove(&id);
    }

    fn has_more(&self, id: ConnId) -> bool {
        self.wishes.get(&id).is_some_and(|wishes| wishes.pieces > 0 || wishes.sending)
    }

    fn overdue(&self, book: &Book) -> Option<String> {
        let late = |due: &Duration| *due <= book.clock;
        let forgotten = |wishes: &Wishes| wishes.timers.iter().any(|(due, _)| late(due));
        let mut open = self.wishes.iter().filter(|(id, _)| book.is_healthy(**id));
        if let Some((id, _)) = open.find(|(_, wishes)| forgotten(wishes)) {
            return Some(format!("a timer of {id}"));
        }
        let ticks = self.ticks.iter().any(|(due, _)| late(due));
        ticks.then(|| "a timer of the service".to_owned())
    }

    fn service_timers(&self) -> usize {
        self.ticks.len()
    }

    fn left_over(&self) -> usize {
        self.wishes.len() + SESSIONS.get()
    }
}
