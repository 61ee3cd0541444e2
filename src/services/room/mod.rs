//! Rooms: what one says everybody hears, in the same order, whichever core or server has them.
//!
//! ```text
//!  client -> Seat, core 2 --Event--> Seat, core 1: Bus, which makes the order
//!  client <- Words <- Seat, core 2 <--News, Told-- |
//!  client <- Words <-------------------------------+
//! ```
//!
//! * An [`Event`] is what a member does: it comes, tells its name, says something, leaves.
//! * A [`Bus`] makes [`News`] of it, in one order for everybody. [`InProcess`] is the
//!   one for the cores of one process, [`OverRedis`] the one for several servers.
//! * [`Words`] are what the clients hear of the news. The bus knows no language.
//! * A [`Seat`] is a core's part: it takes the events to the bus, which is on the first core, and the news
//!   to the clients. Who says more than is taken is not read meanwhile.
//! * [`Protocol`] makes a seat a handler, so that a room is its words and what a line does. A handler that does
//!   more has a seat as a part of it, as [`Presence`](crate::services::Presence) has.
//!
//! State that words make of the news, and of nothing else, is the same on every core at the same place of
//! the order. So it needs no lock and no messages. (A server that joins others has it from then on.)
//!
//! ```
//! use reactor::services::room::bus::{Event, News, Told};
//! use reactor::services::room::{InProcess, Protocol, Seat, Words};
//! use reactor::Context;
//!
//! /// Everybody counts on.
//! #[derive(Default)]
//! struct Count(u64);
//!
//! impl Words for Count {
//!     fn welcome(&mut self) -> String {
//!         format!("{} so far\n", self.0)
//!     }
//!
//!     fn news(&mut self, news: &News) -> String {
//!         let News::Said { text, .. } = news else { return String::new() };
//!         self.0 += 1;
//!         format!("{} {text}\n", self.0)
//!     }
//!
//!     fn told(&mut self, _told: &Told) -> String {
//!         String::new()
//!     }
//! }
//!
//! impl Protocol for Count {
//!     type Session = ();
//!
//!     fn on_line(seat: &mut Seat<Count>, cx: &mut Context<'_, ()>, line: &[u8]) {
//!         seat.event(cx, Event::Say(reactor::text::printable(line)));
//!     }
//! }
//!
//! // cores.listen("127.0.0.1:2300", |core| Seat::new(&core, Count::default(), InProcess::new))?;
//! let mut server = reactor::testing::Harness::new(Seat::alone(Count(0), InProcess::new()));
//! let ann = server.connect();
//! server.feed(ann, "one\n");
//! let bob = server.connect();
//! server.feed(bob, "two\n");
//! assert_eq!(server.sent(ann), b"0 so far\n1 one\n2 two\n");
//! assert_eq!(server.sent(bob), b"1 so far\n2 two\n");
//! ```
//!
//! # An upgrade
//!
//! A room goes over to [another process](crate::Handler::save) as it is, on all cores and with all that is under way, if a
//! [`Protocol`] has a [`VERSION`](Protocol::VERSION). State of the words is written by [`Words::save`], and that of a client by
//! [`Protocol::save_session`]. A handler that has a seat as a part of it calls [`Seat::save`] and [`Seat::restore`]. A bus of one's
//! own says by [`Bus::save`] what it needs; the two here do. On a bus over Redis the room stays the
//! server that it was, and nobody leaves.
//!
//! ```
//! # use reactor::services::room::bus::{Event, News, Told};
//! # use reactor::services::room::{InProcess, Protocol, Seat, Words};
//! # use reactor::{Context, Decoder, Encoder, Unreadable};
//! /// Everybody counts on, also in the next process.
//! #[derive(Default)]
//! struct Count(u64);
//!
//! impl Words for Count {
//!     fn save(&self, to: &mut Encoder) {
//!         to.put_number(self.0);
//!     }
//!
//!     fn restore(&mut self, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
//!         self.0 = from.number()?;
//!         Ok(())
//!     }
//! #   fn welcome(&mut self) -> String {
//! #       String::new()
//! #   }
//! #   fn news(&mut self, news: &News) -> String {
//! #       let News::Said { text, .. } = news else { return String::new() };
//! #       self.0 += 1;
//! #       format!("{} {text}\n", self.0)
//! #   }
//! #   fn told(&mut self, _told: &Told) -> String {
//! #       String::new()
//! #   }
//!     // And the rest as above.
//! }
//!
//! impl Protocol for Count {
//!     type Session = ();
//!     const VERSION: Option<u32> = Some(1);
//! #   fn on_line(seat: &mut Seat<Count>, cx: &mut Context<'_, ()>, line: &[u8]) {
//! #       seat.event(cx, Event::Say(reactor::text::printable(line)));
//! #   }
//! }
//!
//! let room = || Seat::alone(Count(0), InProcess::new());
//! let mut server = reactor::testing::Harness::new(room());
//! let ann = server.connect();
//! server.feed(ann, "one\ntw");
//! assert!(server.upgrade(room()).is_ok());
//! server.feed(ann, "o\n");
//! assert_eq!(server.sent(ann), b"1 one\n2 two\n");
//! ```
//!
//! # One server's part in a room over several
//!
//! A [`Room`] is one server's part in a room that several servers share through Redis: what is to be sent to Redis, what
//! the server's own clients hear, and when. There is no socket here, no clock and no chance; whoever
//! drives a [`Room`] has those. The bytes in Redis, and what happens at which fault, are in docs/room.md.
//!
//! ```text
//!  Bus::event                                                 Bus::poll
//!            |                                                      ^
//!            v                cut off: at once, at home only        |
//!         queue --------------------------------------------->  table (who is there)
//!            |                                                      ^
//!            | a batch: MULTI ... EXEC, one in flight               | apply: the only place where
//!            v                                                      | anything is said
//!        awaiting -- numbered, until it is read --+                 |
//!            |                                    |                 |
//!   ~~~~~~~~ | ~~~~ Redis: one stream ~~~~~~~~~~~ | ~~~~~~~~~~~~~~~ | ~~~~
//!            v                                    v                 |
//!          XADD ----------------> XREAD ---> admit (life, number) --+
//! ```
//!
//! What a client does becomes content of the queue. A batch of it is numbered and written to the
//! stream; it is said, at home too, when it is *read*. So everybody hears the same in the same order, and
//! an answer to XADD, which may be lost, decides nothing.
//!
//! The commands' connection goes through these phases, and through all of them again whenever there is
//! doubt about what Redis has:
//!
//! ```text
//! Down -> (the first time: List -> Snapshot) -> Look -> Fence -> CatchUp -> Open
//!                                                ^                 |         |
//!                                                +- another life --+---------+ a failure, lost data
//! ```
//!
//! * *Look* reads what our own record says was executed.
//! * *Fence* changes the record, which every batch is bound to by WATCH: what an earlier connection may
//!   still bring to Redis is not executed any more. And it finds the end of the stream.
//! * *CatchUp*: once the reader has come to that end, each entry of ours has been read or was never
//!   executed.
//! * *Open*: batches may go.
//!
//! Read `entry` first, then `table`, `reading`, `sending`, and `links` and `answers` for the
//! connections.

mod answers;
pub mod bus;
mod commands;
mod encoding;
mod entry;
mod in_process;
mod leases;
mod links;
mod local;
pub(super) mod names;
mod over_redis;
mod protocol;
mod reading;
mod saving;
mod seat;
mod sending;
mod table;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use entry::ServerId;
pub use in_process::InProcess;
pub use links::{Failure, Link};
pub use over_redis::{OverRedis, RedisBus};
pub use protocol::Protocol;
pub use seat::{Message, Seat, Words};

pub use super::redis::{Command, Reply};

use crate::{Decoder, Encoder, Error, Unreadable};
use bus::{Action, Bus, Event, MemberId, News};
use commands::Keys;
use entry::{Content, Entry};
use leases::Leases;
use links::Links;
use local::Local;
use reading::Reading;
use sending::Sending;
use table::Table;

/// How much is said before the clients have to take it.
const PIECE: usize = 64 << 10;
/// How long a piece waits for those who do not take it.
const PIECE_WAIT: Duration = Duration::from_millis(100);
/// How long a server that stops waits for Redis.
const STOP_WAIT: Duration = Duration::from_secs(1);
/// How often a lease is renewed at the least, and how long the reader waits in Redis at the most.
const BEAT: Duration = Duration::from_secs(1);
/// A pause of so many beats between two calls was ours: this process was frozen, and what it knows of
/// time is worth nothing.
const FROZEN: u32 = 3;

/// What a room over several servers is. All servers of a room have the same `key`, `lease` and
/// `unique_names`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The key of its stream, and what its other keys begin with. It has no blanks. Default
    /// `reactor:room`.
    pub key: String,
    /// How long Redis may be silent before the room goes on without the other servers; above 0. Default
    /// 5 s.
    pub timeout: Duration,
    /// How long a server may be silent before its members leave; at least twice the timeout. Default 10 s.
    pub lease: Duration,
    /// How many bytes of the stream are kept, for servers that were cut off. Default 64 MiB.
    pub keep: u64,
    /// No two members may have the same name.
    pub unique_names: bool,
}

impl Settings {
    fn check(&self) -> Result<(), Error> {
        let wrong = |name, why: &str| Err(Error::Limit { name, why: why.to_owned() });
        if self.key.is_empty() || self.key.contains(char::is_whitespace) {
            return wrong("key", "must have a character at least, and no blank");
        }
        if self.timeout.is_zero() {
            return wrong("timeout", "must be above 0");
        }
        if self.lease / 2 < self.timeout {
            return wrong("lease", "must be at least twice the timeout");
        }
        Ok(())
    }

    /// How often something must be heard of Redis, and something is said of us: often enough that a few
    /// misses in a row are no silence of `timeout`, which is at most half a lease.
    fn beat(&self) -> Duration {
        BEAT.min(self.timeout / 5).max(Duration::from_millis(1))
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            key: "reactor:room".to_owned(),
            timeout: Duration::from_secs(5),
            lease: Duration::from_secs(10),
            keep: 64 << 20,
            unique_names: false,
        }
    }
}

/// What the room asks of whoever has its connections to Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Dial Redis, and tell of it by [`Room::connected`] or [`Room::lost`].
    Connect(Link),
    /// Drop the connection. Nothing of it is to be told any more.
    Disconnect(Link),
    /// Send these commands; when each is answered, tell all answers by [`Room::replies`].
    Send(Link, Vec<Command>),
    /// All is done since [`Bus::stop`]: the connections may be dropped.
    Stopped,
}

/// One server's part in a shared room: a [`Bus`] for its own clients, with two connections to Redis
/// besides. After each call both [`poll`](Bus::poll) and [`poll_redis`](Room::poll_redis) are called until
/// they give none.
#[derive(Debug)]
pub struct Room {
    /// What the room is.
    settings: Settings,
    /// The names of the keys, and who we are.
    keys: Keys,
    /// Which life of ours is the current one.
    life: u64,
    /// The others know this life: its record is in Redis.
    established: bool,
    /// The time that was told last.
    now: Instant,
    /// When the room is to have stopped.
    stop_by: Option<Instant>,
    /// The room goes on without the other servers.
    cut: bool,
    /// When somebody may have missed something was last said.
    told_missing: Option<Instant>,
    /// Who is in the room.
    table: Table,
    /// Our own clients.
    locals: BTreeMap<u64, Local>,
    /// How many bytes of what they have done, and of those who are gone, have not been heard.
    unheard: usize,
    /// That was too much: whoever does something is held until half of it has been heard.
    crowded: bool,
    /// The two connections.
    links: Links,
    /// What goes to the stream.
    sending: Sending,
    /// What comes from it.
    reading: Reading,
    /// Who is still there.
    leases: Leases,
    /// What is asked of the connections.
    demands: VecDeque<Demand>,
    /// What is asked of the seat at once.
    actions: VecDeque<Action>,
    /// What the clients are to hear, a piece at a time; and what its own client has waited for, in bytes.
    speech: VecDeque<(Action, usize)>,
    /// How many bytes of the current piece have been given out.
    said: usize,
    /// When the next piece goes out even if the last one has not left.
    piece_due: Option<Instant>,
}

impl Room {
    /// A room with nobody in it, which will dial at once. Each process must have another id.
    pub fn new(settings: Settings, server: ServerId, now: Instant) -> Room {
        let table = Table::new(server, settings.unique_names);
        let keys = Keys { room: settings.key.clone(), server };
        let mut room = Room {
            settings,
            keys,
            life: 1,
            established: false,
            now,
            stop_by: None,
            cut: false,
            told_missing: None,
            table,
            locals: BTreeMap::new(),
            unheard: 0,
            crowded: false,
            links: Links::new(now),
            sending: Sending::default(),
            reading: Reading::default(),
            leases: Leases::new(now),
            demands: VecDeque::new(),
            actions: VecDeque::new(),
            speech: VecDeque::new(),
            said: 0,
            piece_due: None,
        };
        room.sending.needs_here = true;
        room.pump();
        room
    }

    /// What the connections are to do next; none if nothing is, until something is told again or
    /// [`Bus::deadline`].
    pub fn poll_redis(&mut self) -> Option<Demand> {
        self.demands.pop_front()
    }

    /// The time, before what has happened is taken in.
    fn advance(&mut self, now: Instant) {
        if now.saturating_duration_since(self.now) > self.settings.beat() * FROZEN {
            self.links.forgive(now);
            self.leases.forgive();
        }
        self.now = self.now.max(now);
        if self.piece_due.is_some_and(|due| due <= self.now) {
            (self.said, self.piece_due) = (0, None);
        }
        if self.stop_by.is_some_and(|by| by <= self.now) {
            self.stopped();
        }
    }

    /// Whether the room goes on without the other servers.
    pub fn is_cut_off(&self) -> bool {
        self.cut
    }

    /// Whether the room has been joined, and nothing stands between it and the other servers.
    pub fn is_whole(&self) -> bool {
        !self.cut && self.links.is_open() && !self.sending.needs_here
    }

    /// Who is in the room, as WHO tells it.
    pub fn list(&mut self) -> Arc<[Option<String>]> {
        self.table.who()
    }

    fn stopped(&mut self) {
        self.stop_by = None;
        self.links.close();
        self.demands.push_back(Demand::Stopped);
    }

    /// Whatever can be done now is done.
    fn pump(&mut self) {
        self.check_silence();
        self.dial();
        self.read_on();
        self.go_on_alone();
        self.send_on();
    }

    /// Something that everybody here hears.
    fn say(&mut self, news: impl IntoIterator<Item = News>) {
        self.speech.extend(news.into_iter().map(|news| (Action::ToAll { news, by: None }, 0)));
    }

    /// Lines may have been lost. Said once a second at the most.
    fn say_missing(&mut self) {
        let just = |told: Instant| self.now.duration_since(told) < Duration::from_secs(1);
        if !self.told_missing.is_some_and(just) {
            self.told_missing = Some(self.now);
            self.say([News::Missing]);
        }
    }

    /// The room goes on without the others: what has not been read is said here and never sent again.
    fn cut_off(&mut self) {
        self.cut = true;
        log::warn!("room {}: cut off from the other servers", self.settings.key);
        self.say([News::CutOff]);
        let awaiting = std::mem::take(&mut self.sending.awaiting);
        for Entry { number, content, .. } in awaiting {
            match content {
                Content::Gone { .. } => continue,
                Content::Ask => self.ask(),
                Content::Say { .. } => _ = self.sending.uncertain.insert(number),
                _ => {}
            }
            self.apply_own(&content);
        }
        self.links.start_over();
    }

    /// What happens in a room that is cut off is heard at once, but no faster than it is taken.
    fn go_on_alone(&mut self) {
        while self.cut
            && self.stop_by.is_none()
            && self.speech.is_empty()
            && let Some((_, mut content)) = self.sending.queue.pop_first()
        {
            match &mut content {
                // Whoever does not answer a lease after all this time is found missing again.
                Content::Gone { .. } => continue,
                Content::Say { .. } => self.sending.said_here += 1,
                Content::Arrive { order, .. } => *order = self.table.next_order(),
                _ => {}
            }
            self.apply_own(&content);
        }
    }

    /// Each entry of ours up to the end that the fence found has been read, or was never executed, or
    /// is lost.
    fn caught_up(&mut self) {
        let executed = self.sending.sent;
        if self.sending.awaiting.front().is_some_and(|first| first.number <= executed) {
            self.say_missing();
            self.ask();
        }
        while let Some(entry) = pop_front_if(&mut self.sending.awaiting, |it| it.number <= executed)
        {
            self.reading.seen = entry.number;
            self.apply_own(&entry.content);
        }
        if std::mem::take(&mut self.sending.lost) && !self.sending.over {
            // No `gone` tells why: data were lost. What others have heard of ours before that is heard here
            // when it has been written again, which is at another place.
            self.say_missing();
        }
        if self.sending.may_begin_again() {
            return self.begin_another_life();
        }
        if self.cut {
            self.cut = false;
            log::info!("room {}: whole again", self.settings.key);
            self.say([News::Whole]);
            let uncertain = std::mem::take(&mut self.sending.uncertain);
            self.sending.said_here += uncertain.len() as u64;
            self.sending.needs_here = true;
        }
        self.links.open();
    }

    /// The others believe that we are gone. Our members come last from now on.
    fn begin_another_life(&mut self) {
        self.life += 1;
        self.established = false;
        (self.sending.dead, self.sending.over) = (false, false);
        (self.sending.needs_here, self.sending.here_in_doubt) = (true, false);
        self.table.begin_another_life(self.keys.server, self.life);
        self.links.start_over();
    }
}

impl Bus for Room {
    fn event(&mut self, member: MemberId, event: Event, now: Instant) {
        self.advance(now);
        if self.stop_by.is_none() {
            self.does(member, event);
            self.pump();
        }
    }

    fn poll(&mut self) -> Option<Action> {
        if self.actions.is_empty() && self.speech.is_empty() {
            self.pump();
        }
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.said >= PIECE {
            return None;
        }
        let (action, waited) = self.speech.pop_front()?;
        if let Action::ToAll { news, .. } | Action::ToOthers(_, news) = &action {
            self.said += size(news);
        }
        if let Action::ToAll { by: Some(member), .. }
        | Action::ToOthers(member, _)
        | Action::To(member, _) = &action
        {
            self.is_told(*member, waited);
        }
        if self.said >= PIECE {
            self.piece_due = Some(self.now + PIECE_WAIT);
            self.actions.push_back(Action::Drain);
        }
        Some(action)
    }

    fn deadline(&self) -> Option<Instant> {
        let soon =
            self.links_are_due().into_iter().chain(self.piece_due).chain(self.stop_by).min()?;
        // Who is not called for longer takes that for its own freeze.
        let latest = self.now + self.settings.beat();
        Some(soon.clamp(self.now + Duration::from_millis(1), latest))
    }

    fn tick(&mut self, now: Instant) {
        self.advance(now);
        self.pump();
    }

    fn drained(&mut self, now: Instant) {
        self.advance(now);
        (self.said, self.piece_due) = (0, None);
        self.pump();
    }

    /// The others hear at once that our members have left. Within a second comes [`Demand::Stopped`].
    fn stop(&mut self, now: Instant) {
        self.advance(now);
        if self.stop_by.is_none() {
            self.stop_by = Some(self.now + STOP_WAIT);
            let (server, life) = (self.keys.server, self.life);
            self.sending.push(Content::Gone { server, life, last: self.reading.seen });
        }
        self.pump();
    }

    /// The same server goes on elsewhere: nobody leaves.
    fn save(&self, now: Instant, to: &mut Encoder) -> Option<()> {
        self.write(now, to)
    }

    fn restore(&mut self, from: &mut Decoder<'_>, now: Instant) -> Result<(), Unreadable> {
        *self = Room::read(self.settings.clone(), from, now)?;
        Ok(())
    }
}

/// About the bytes of the line that it becomes.
fn size(news: &News) -> usize {
    let length = |name: &Option<String>| name.as_ref().map_or(0, String::len);
    match news {
        News::Said { name, text } => 32 + length(name) + text.len(),
        News::Named { name } | News::Leaving { name } | News::Left { name } => 32 + length(name),
        _ => 32,
    }
}

/// The first, if it is of that sort. (`VecDeque` has that since Rust 1.93.)
fn pop_front_if<T>(queue: &mut VecDeque<T>, is: impl FnOnce(&T) -> bool) -> Option<T> {
    if queue.front().is_some_and(is) { queue.pop_front() } else { None }
}
