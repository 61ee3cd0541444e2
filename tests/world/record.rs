//! What is known of one connection.

use std::fmt::{self, Debug};
use std::io::ErrorKind;
use std::time::Duration;

use reactor::{CloseReason, Limits};

/// Bytes in the order in which they are due.
#[derive(Default)]
pub struct Queue {
    bytes: Vec<u8>,
    start: usize,
}

impl Queue {
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn skip(&mut self, count: usize) {
        self.start += count;
        if self.start == self.bytes.len() {
            (self.bytes, self.start) = (Vec::new(), 0);
        }
    }
}

/// How far a connection is, as far as the outside can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Dialled,
    Open,
    /// Nothing more is handled or said. The reason, where the service gave it.
    Ending(Option<CloseReason>),
    Closed(CloseReason),
}

/// What is known of one connection.
pub struct Record {
    pub stage: Stage,
    pub opened: bool,
    /// What the steps of its handshake cost, and how often one could have been made.
    pub steps: Vec<Duration>,
    pub pokes: usize,
    /// Bytes of its PROXY header that are still to come; none if it has no header to send.
    pub header: Option<usize>,
    /// It is one that must not be served.
    pub unwelcome: bool,
    /// It was so since the loop slept, and how many must have been made.
    pub poked: bool,
    pub made: usize,
    /// Sent by the client and not taken by the handler.
    pub input: Queue,
    /// How much the loop kept of it before this turn, if it had the connection, and the most that
    /// it may have kept since.
    pub kept: Option<usize>,
    pub most_kept: usize,
    /// The handler was given some of it in this turn.
    pub served: bool,
    /// It was ended in its handshake, for what all together kept.
    pub cut: bool,
    /// When it last sent something.
    pub fed: Duration,
    /// Since when it has owed the rest of a message of WebSocket.
    pub owes: Option<Duration>,
    /// The client has ended its side.
    pub ended: bool,
    pub eof_told: bool,
    /// Bytes of its block that are still to come; none outside of a block.
    pub block: Option<usize>,
    pub paused: bool,
    /// It waits until it takes its output.
    pub drains: bool,
    /// The service has ended its own side.
    pub finished: bool,
    /// Its reads may fail for a while.
    pub disturbed: bool,
    /// What it has sent since the last turn, while it was open and nothing kept us from reading:
    /// no deadline is to judge it before that is looked at.
    pub fresh: Vec<u8>,
    /// The service has dialled it.
    pub outbound: bool,
    /// What may have broken it.
    pub errors: Vec<ErrorKind>,
    /// When one of them had, while it was open.
    pub broke: Option<Duration>,
    /// Its stream itself may lose what it sends.
    pub lossy: bool,
    /// Said by the service and not received by the client.
    pub due: Queue,
    /// The service says it in pieces, of which a panic or a shutdown may lose the last.
    pub streamed: bool,
    /// So many bytes of what is due to it may be its stream's, taken and not sent.
    pub holds: usize,
    /// How many were so after the last turn.
    pub held: usize,
    /// No limit holds for what is due to it.
    pub unbounded: bool,
    /// What was due to it when its limits were lowered: it takes no more, and keeps that.
    pub due_before: usize,
    /// Of what is due, at the most what others caused: the loop takes theirs to go last too.
    pub others: usize,
    /// Since when that has been more than the soft limit.
    pub over_soft: Option<Duration>,
    /// The longest that was said to it at once.
    pub largest: usize,
    /// For how many turns more is due to it than the limits allow.
    pub over: u8,
    /// What the client got after all that was due: the loop's last words.
    pub last_words: Vec<u8>,
    /// When something last moved, at the earliest.
    pub moved: Duration,
    /// The longest time for which nothing did.
    pub still: Duration,
    /// Since when, at the earliest, the input begins with a line that is not finished, and the
    /// longest time for which one was not.
    pub begun: Duration,
    pub unfinished: Duration,
    /// Since when nothing is handled and said any more.
    pub ending: Duration,
    /// When the service was told of its end.
    pub closed: Duration,
}

impl Record {
    pub fn new() -> Record {
        Record {
            stage: Stage::Dialled,
            opened: false,
            steps: Vec::new(),
            pokes: 0,
            header: None,
            unwelcome: false,
            poked: false,
            made: 0,
            input: Queue::default(),
            kept: None,
            most_kept: 0,
            served: false,
            cut: false,
            fed: Duration::ZERO,
            owes: None,
            ended: false,
            eof_told: false,
            block: None,
            paused: false,
            drains: false,
            finished: false,
            disturbed: false,
            fresh: Vec::new(),
            outbound: false,
            errors: Vec::new(),
            broke: None,
            lossy: false,
            due: Queue::default(),
            streamed: false,
            holds: 0,
            held: 0,
            unbounded: false,
            due_before: 0,
            others: 0,
            over_soft: None,
            largest: 0,
            over: 0,
            last_words: Vec::new(),
            moved: Duration::ZERO,
            still: Duration::ZERO,
            begun: Duration::ZERO,
            unfinished: Duration::ZERO,
            ending: Duration::ZERO,
            closed: Duration::ZERO,
        }
    }

    pub fn ends(&mut self, reason: Option<CloseReason>, now: Duration) {
        self.moves(now);
        (self.stage, self.paused, self.ending) = (Stage::Ending(reason), false, now);
    }

    /// Whether it broke so long ago.
    pub fn broke_for(&self, time: Duration, now: Duration) -> bool {
        self.broke.is_some_and(|broke| now.saturating_sub(broke) >= time)
    }

    pub fn moves(&mut self, now: Duration) {
        if !self.paused || self.drains {
            self.still = self.still.max(now - self.moved);
        }
        self.moved = now;
        self.looks(now);
    }

    /// Notes for how long a line or a block has not been finished.
    pub fn looks(&mut self, now: Duration) {
        if !self.paused && (self.block.is_some() || !self.input.rest().is_empty()) {
            self.unfinished = self.unfinished.max(now - self.begun);
        }
        if let Some(since) = self.owes.filter(|_| !self.paused) {
            self.unfinished = self.unfinished.max(now - since);
        }
    }

    /// Whether it takes no more of what it is sent.
    pub fn is_full(&self, limits: &Limits) -> bool {
        self.outbound && self.due.rest().len().saturating_sub(self.held) > limits.max_output
    }

    /// Whether more is due to it than its limits allow.
    pub fn is_owed_too_much(&mut self, now: Duration, limits: &Limits) -> Option<String> {
        let due = self.due.rest().len();
        if self.stage == Stage::Open && self.outbound {
            let most = limits.max_output + self.largest + self.holds;
            self.due_before = self.due_before.min(due);
            let over = due > most.max(self.due_before);
            return over.then(|| format!("was dialled and is owed {due} bytes"));
        }
        if self.stage != Stage::Open || self.unbounded {
            return None;
        }
        // What its stream holds may be of either kind.
        let others = self.others.saturating_sub(self.holds);
        self.over_soft = match others > limits.soft_output {
            true => self.over_soft.or(Some(now)),
            false => None,
        };
        let late = self.over_soft.is_some_and(|since| now - since > limits.soft_output_for);
        let own = self.due.rest().len() - self.others;
        // A reply that begins below the mark may end above it, and one hook may make two.
        let over =
            own > limits.high_water + 2 * self.largest + self.holds || others > limits.max_output;
        (late || over).then(|| format!("is owed {own} bytes, and {others} that others caused"))
    }

    fn is_overlong(&self, limits: &Limits) -> bool {
        if self.block.is_some() {
            return false;
        }
        let line = self.input.rest().split(|byte| *byte == b'\n').next().unwrap_or_default();
        line.strip_suffix(b"\r").unwrap_or(line).len() > limits.max_line
    }

    /// Whether its client has ended its side. A broken pipe says that it has, too.
    pub fn has_ended(&self) -> bool {
        self.ended || self.errors.contains(&ErrorKind::BrokenPipe)
    }

    fn was_idle(&self, limits: &Limits) -> bool {
        limits.idle_timeout.is_some_and(|most| self.still >= most) && self.fresh.is_empty()
    }

    fn was_late(&self, limits: &Limits) -> bool {
        let moved = match self.block {
            Some(_) => !self.fresh.is_empty(),
            None => self.fresh.contains(&b'\n'),
        };
        limits.line_timeout.is_some_and(|most| self.unfinished >= most) && !moved
    }

    /// Whether it has something to handle. `keeps` tells which lines may be left for later.
    pub fn is_unheard(&self, keeps: impl Fn(&[u8]) -> bool) -> bool {
        match self.block {
            Some(left) => left == 0 || !self.input.rest().is_empty(),
            None => !keeps(self.input.rest()),
        }
    }

    /// Whether its handshake is under way, as far as it has one.
    pub fn is_shaking(&self) -> bool {
        (!self.steps.is_empty() || self.header.is_some()) && !self.opened
    }

    /// Whether all of its handshake has come.
    pub fn has_shaken(&self) -> bool {
        self.header.map_or(self.made >= self.steps.len(), |left| left == 0)
    }

    /// Whether its handshake never comes to its end.
    pub fn breaks_off(&self) -> bool {
        self.unwelcome || self.ended && self.header.is_some_and(|left| left > 0)
    }

    /// Whether its client has owed the rest of a block or of a line for too long, since when it is
    /// asked for nothing else.
    pub fn owes_too_long(&self, now: Duration, limits: &Limits) -> bool {
        let sound = !self.disturbed && self.errors.is_empty() && !self.outbound && !self.ended;
        let waited_for = self.stage == Stage::Open && !self.paused && self.due.rest().is_empty();
        let owes = self.block.is_some() || !self.input.rest().is_empty();
        let since = self.moved.max(self.fed).max(self.begun);
        let late = limits.line_timeout.is_some_and(|most| now - since > most);
        sound && waited_for && owes && late
    }

    /// Whether what it sent before it broke need not have been handled.
    pub fn may_be_unheard(&self, limits: &Limits, now: Duration) -> bool {
        let rested = self.broke_for(limits.flush_timeout, now);
        let limited = self.is_overlong(limits) || self.was_idle(limits) || self.was_late(limits);
        self.lossy || rested || limited
    }

    /// Whether the loop had this reason to end it.
    pub fn was_ended_for(
        &self,
        reason: CloseReason,
        stopping: bool,
        limits: &Limits,
    ) -> Result<(), &'static str> {
        let (overlong, idle) = (|| self.is_overlong(limits), || self.was_idle(limits));
        let late = || self.was_late(limits);
        let (so, else_why) = match reason {
            CloseReason::LineTooLong => (overlong(), "its line is short enough"),
            CloseReason::IdleTimeout => (idle(), "it was not idle"),
            CloseReason::LineTimeout => (late(), "its line was in time"),
            // The loop had closed it for a limit before.
            CloseReason::Stalled => {
                (stopping || idle() || overlong() || late(), "it had more time")
            }
            CloseReason::SlowConsumer => {
                let slow = self.due.rest().len() > limits.soft_output;
                (slow && !self.outbound, "it was not slow")
            }
            // By a service that must not lose what it refused.
            CloseReason::Aborted => {
                (self.outbound && self.due.rest().len() > limits.max_output, "nobody gave it")
            }
            CloseReason::ConnectTimeout => {
                (!self.opened && self.still >= limits.connect_timeout, "it had more time")
            }
            CloseReason::Error(error) => {
                let known = self.errors.contains(&error);
                let broken = error == ErrorKind::BrokenPipe && !self.errors.is_empty();
                (known || broken, "no such error was made")
            }
            CloseReason::Shutdown => (stopping, "nobody stopped it"),
            _ => (false, "nobody gave it"),
        };
        if so { Ok(()) } else { Err(else_why) }
    }
}

/// Bytes of which only the beginning is shown.
#[derive(Hash)]
pub struct Text<'a>(pub &'a [u8]);

impl Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(self.0))
    }
}

/// The beginning of it, readable.
pub fn shown(bytes: &[u8]) -> String {
    let end = bytes.len().min(60);
    let more =
        if end < bytes.len() { format!("… ({} bytes)", bytes.len()) } else { String::new() };
    format!("\"{}\"{more}", bytes[..end].escape_ascii())
}
