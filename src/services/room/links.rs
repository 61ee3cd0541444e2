//! The two connections: one only reads the stream, the other does all else, one request at a time.

use std::time::{Duration, Instant};

use super::encoding::{put_since, put_until, since, until};
use super::entry::ServerId;
use super::{Command, Demand, Room};
use crate::services::redis::EntryId;
use crate::{Decoder, Encoder, Unreadable};

/// The longest wait between two attempts to connect.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The wait after a wrong password.
const PASSWORD_WAIT: Duration = Duration::from_secs(30);

/// One of the connections to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Writes, and looks at leases.
    Commands,
    /// Waits for the next entries of the stream.
    Reader,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Redis did not take the password.
    Password,
    /// Anything else.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be dialled then.
    Down(Instant),
    Dialling,
    Up,
}

/// What an answer is awaited of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    List,
    Snapshot,
    Look,
    Fence,
    Here,
    /// Up to this number.
    Batch(u64),
    Beat,
    Trim,
    /// Whether the entry at the reader's position is there.
    Place,
    Read,
}

/// A number of times, of which no more than some are told apart.
fn few(from: &mut Decoder<'_>) -> Result<u32, Unreadable> {
    Ok(from.number()?.min(1 << 16) as u32)
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    state: State,
    /// The request under way.
    pub(super) request: Option<Request>,
    /// When it last gave a good answer, or had nothing to answer.
    pub(super) good: Instant,
    /// When it was dialled, or was there: its client may dial by itself.
    since: Instant,
    /// Attempts since the last good answer.
    pub(super) attempts: u32,
}

impl Connection {
    fn new(now: Instant) -> Connection {
        Connection { state: State::Down(now), request: None, good: now, since: now, attempts: 0 }
    }

    /// Of a connection only how long it has been silent goes over, and how long it is not to be dialled. For the
    /// process that goes on it is lost.
    fn save(&self, now: Instant, to: &mut Encoder) {
        let Connection { state, request: _, good, since: _, attempts } = self;
        let at = if let State::Down(at) = state { *at } else { now };
        put_until(to, at, now);
        put_since(to, *good, now);
        to.put_number((*attempts).into());
    }

    fn restore(from: &mut Decoder<'_>, now: Instant) -> Result<Connection, Unreadable> {
        let (state, good) = (State::Down(until(from, now)?), since(from, now)?);
        let attempts = few(from)?;
        Ok(Connection { state, request: None, good, since: now, attempts })
    }

    fn is_idle(&self) -> bool {
        self.state == State::Up && self.request.is_none()
    }
}

/// How far the commands' connection has come; `mod.rs` has the picture.
#[derive(Debug)]
pub(super) enum Phase {
    List,
    /// Of these servers and lives.
    Snapshot(Vec<(ServerId, u64)>),
    Look,
    Fence,
    /// The end of the stream.
    CatchUp(EntryId),
    Open,
}

/// The two connections.
#[derive(Debug)]
pub(super) struct Links {
    commands: Connection,
    reader: Connection,
    pub(super) phase: Phase,
    /// The snapshot has been taken in.
    pub(super) joined: bool,
    /// The reader has answered since the fence.
    pub(super) reader_answered: bool,
    /// Answers to the commands' connection in a row of which nothing has come.
    pub(super) in_vain: u32,
    /// The last entries were not taken.
    pub(super) refuses_entries: bool,
    /// Not before then is read again, since Redis did not wait before it had nothing to tell.
    pub(super) read_at: Instant,
    /// The error that was logged last, and when.
    pub(super) refused: Option<(String, Instant)>,
    /// No more is dialled or sent.
    closed: bool,
}

impl Links {
    pub(super) fn new(now: Instant) -> Links {
        Links {
            commands: Connection::new(now),
            reader: Connection::new(now),
            phase: Phase::List,
            joined: false,
            reader_answered: false,
            in_vain: 0,
            refuses_entries: false,
            read_at: now,
            refused: None,
            closed: false,
        }
    }

    pub(super) fn get(&mut self, link: Link) -> &mut Connection {
        match link {
            Link::Commands => &mut self.commands,
            Link::Reader => &mut self.reader,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether an answer is under way that brings entries.
    pub(super) fn is_reading(&self) -> bool {
        self.reader.request == Some(Request::Read)
    }

    /// What is not known after a connection was lost does not go over either.
    pub(super) fn save(&self, now: Instant, to: &mut Encoder) {
        let Links {
            commands,
            reader,
            phase: _,
            joined,
            reader_answered: _,
            in_vain,
            refuses_entries,
            read_at: _,
            refused: _,
            // Nothing is written down of a room that has stopped.
            closed: _,
        } = self;
        commands.save(now, to);
        reader.save(now, to);
        to.put_flag(*joined);
        to.put_number((*in_vain).into());
        to.put_flag(*refuses_entries);
    }

    pub(super) fn restore(from: &mut Decoder<'_>, now: Instant) -> Result<Links, Unreadable> {
        let (commands, reader) = (Connection::restore(from, now)?, Connection::restore(from, now)?);
        let joined = from.flag()?;
        let in_vain = few(from)?;
        let refuses_entries = from.flag()?;
        let mut links =
            Links { commands, reader, joined, in_vain, refuses_entries, ..Links::new(now) };
        links.start_over();
        Ok(links)
    }

    /// There is doubt about what Redis has.
    pub(super) fn start_over(&mut self) {
        self.phase = if self.joined { Phase::Look } else { Phase::List };
    }

    pub(super) fn open(&mut self) {
        self.phase = Phase::Open;
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// This process was frozen: the silence was ours.
    pub(super) fn forgive(&mut self, now: Instant) {
        for connection in [&mut self.commands, &mut self.reader] {
            (connection.good, connection.since) = (now, now);
        }
    }
}

impl Room {
    /// A connection is there, and Redis has taken the password.
    pub fn connected(&mut self, link: Link, now: Instant) {
        self.advance(now);
        let (now, connection) = (self.now, self.links.get(link));
        (connection.state, connection.since) = (State::Up, now);
        match link {
            Link::Commands => self.links.start_over(),
            Link::Reader => self.reading.unsure = self.reading.position != EntryId::default(),
        }
        self.pump();
    }

    /// There is no connection, or no longer.
    pub fn lost(&mut self, link: Link, failure: Failure, now: Instant) {
        self.advance(now);
        self.down(link, failure);
        self.pump();
    }

    pub(super) fn down(&mut self, link: Link, failure: Failure) {
        let (now, chance) = (self.now, self.keys.server.0);
        let connection = self.links.get(link);
        // Each server waits another time, and each time another: what looks like chance is its id.
        let chance = (chance >> (connection.attempts % 16 * 8)) as u32 % 256;
        let wait = match (failure, connection.attempts) {
            (Failure::Password, _) => PASSWORD_WAIT,
            (Failure::Other, 0) => Duration::ZERO,
            (Failure::Other, attempts) => {
                let longest = LONGEST_WAIT.min(self.settings.lease / 4);
                let wait = Duration::from_millis(50 << attempts.min(8)).min(longest);
                wait / 2 + wait / 512 * chance
            }
        };
        connection.attempts += 1;
        connection.request = None;
        connection.state = State::Down(now + wait);
        match link {
            Link::Commands => {
                // Leases may be lost with the data of a Redis that starts anew.
                self.leases.forgive();
                self.links.start_over();
            }
            Link::Reader => self.reading.discard = false,
        }
    }

    /// Dials what is down.
    pub(super) fn dial(&mut self) {
        for link in [Link::Commands, Link::Reader] {
            let (now, closed) = (self.now, self.links.closed);
            let connection = self.links.get(link);
            if matches!(connection.state, State::Down(at) if at <= now) && !closed {
                (connection.state, connection.since) = (State::Dialling, now);
                self.demands.push_back(Demand::Connect(link));
            }
        }
    }

    /// Gives up a connection that is silent; if either is silent for too long, we are cut off.
    pub(super) fn check_silence(&mut self) {
        let (now, timeout) = (self.now, self.settings.timeout);
        // To be connected is no answer: only who has nothing to ask cannot be disappointed.
        if self.links.reader.is_idle() && !self.may_read() {
            self.links.reader.good = now;
        }
        for link in [Link::Commands, Link::Reader] {
            let connection = self.links.get(link);
            let silent = now.duration_since(connection.good) >= timeout;
            let tried = now.duration_since(connection.good.max(connection.since)) >= timeout;
            let up = !matches!(connection.state, State::Down(_));
            if silent && !self.cut && self.stop_by.is_none() {
                self.leases.forgive();
                self.cut_off();
            }
            if up && tried {
                self.demands.push_back(Demand::Disconnect(link));
                self.down(link, Failure::Other);
            }
        }
    }

    /// When something is due, if nothing comes before: a silence is too long, somebody is to be dialled, or
    /// it is time to ask. What waits for an answer is due when that comes.
    pub(super) fn links_are_due(&self) -> Option<Instant> {
        let links = &self.links;
        if links.closed {
            return None;
        }
        let silence = |connection: &Connection| match connection.state {
            State::Down(at) if self.cut => at,
            State::Down(at) => at.min(connection.good + self.settings.timeout),
            _ => connection.good.max(connection.since) + self.settings.timeout,
        };
        let beat = links.joined.then_some(self.leases.due);
        let ask = beat.into_iter().chain(self.sending.retry_at).min();
        let ask = ask.filter(|_| links.commands.is_idle());
        let read = (links.reader.is_idle() && self.may_read()).then_some(links.read_at);
        [silence(&links.commands), silence(&links.reader)].into_iter().chain(ask).chain(read).min()
    }

    fn send(&mut self, link: Link, request: Request, commands: Vec<Command>) {
        self.links.get(link).request = Some(request);
        self.demands.push_back(Demand::Send(link, commands));
    }

    /// Whether all that was read has been given out.
    fn may_read(&self) -> bool {
        self.links.joined && self.reading.inbox.is_empty() && self.speech.is_empty()
    }

    /// Gives out what was read, and reads on when all of it has gone.
    pub(super) fn read_on(&mut self) {
        while self.speech.is_empty()
            && let Some((at, entry)) = self.reading.inbox.pop_front()
        {
            self.admit(at, entry);
        }
        let idle = self.links.reader.is_idle() && !self.links.closed;
        if !idle || !self.may_read() || self.links.read_at > self.now {
            return;
        }
        let position = self.reading.position;
        if std::mem::take(&mut self.reading.unsure) && position != EntryId::default() {
            let place = vec![self.keys.entry_at(position)];
            self.send(Link::Reader, Request::Place, place);
        } else {
            // Behind it, whether what it was read from is still there: else there may have been more.
            let read =
                vec![self.keys.read(position, self.settings.beat()), self.keys.entry_at(position)];
            self.links.read_at = self.now + self.settings.beat() / 2;
            self.send(Link::Reader, Request::Read, read);
        }
    }

    /// The next request, if it is time for one.
    pub(super) fn send_on(&mut self) {
        if self.has_caught_up() {
            self.caught_up();
        }
        if !self.links.commands.is_idle() || self.links.closed {
            return;
        }
        if self.links.joined && self.leases.due <= self.now {
            let beat = self.beat();
            return self.send(Link::Commands, Request::Beat, beat);
        }
        if self.sending.retry_at.is_some_and(|at| at > self.now) {
            return;
        }
        self.sending.retry_at = None;
        if std::mem::take(&mut self.sending.out_of_memory)
            && let Some(id) = self.reading.cut_at(self.settings.keep / 4)
        {
            let trim = vec![self.keys.trim(id)];
            return self.send(Link::Commands, Request::Trim, trim);
        }
        if self.links.is_open() && self.sending.may_begin_again() {
            self.begin_another_life();
        }
        self.send_what_the_phase_wants();
    }

    fn send_what_the_phase_wants(&mut self) {
        let (request, commands) = match &self.links.phase {
            Phase::List => (Request::List, vec![self.keys.list()]),
            Phase::Snapshot(servers) => (Request::Snapshot, self.keys.snapshot(servers)),
            Phase::Look => (Request::Look, self.keys.look(self.life)),
            Phase::Fence => {
                let probe = self.links.refuses_entries;
                (Request::Fence, self.keys.fence(self.life, probe))
            }
            Phase::CatchUp(_) => return,
            Phase::Open if self.may_tell_all() => {
                (self.sending.needs_here, self.sending.here_in_doubt) = (false, true);
                self.sending.heres = self.sending.heres.saturating_add(1);
                let here = self.make_here();
                (Request::Here, self.keys.here(&here, &self.sending.other_lives))
            }
            Phase::Open => {
                let batch = self.make_batch();
                let Some(last) = batch.last().map(|entry| entry.number) else { return };
                (Request::Batch(last), self.keys.batch(self.life, last, &batch, self.sending.dead))
            }
        };
        self.send(Link::Commands, request, commands);
    }

    /// Whether the reader has come to the end that the fence found; whoever was cut off wants to hear
    /// the reader besides.
    fn has_caught_up(&self) -> bool {
        let (links, reading) = (&self.links, &self.reading);
        let Phase::CatchUp(end) = links.phase else { return false };
        let read = reading.position >= end && reading.inbox.is_empty();
        let sure = !reading.unsure && links.reader.request != Some(Request::Place);
        read && sure && !reading.discard && (!self.cut || links.reader_answered)
    }
}
