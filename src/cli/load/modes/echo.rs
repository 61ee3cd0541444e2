use reactor::{ConnId, Context, ServiceContext};

use super::conversation::Conversation;
use crate::cli::load::fault::Fault;
use crate::cli::load::modes::Part;
use crate::cli::load::options::Mode;
use crate::cli::load::payload::Template;
use crate::cli::load::rate::Pace;
use crate::cli::load::run::{Client, Crew, State};

const BYE: &str = "BYE\n";
const GOODBYE: &[u8] = b"> BYE\n";

type Cast<'a> = ServiceContext<'a, Client<Conversation>>;
type Cx<'a> = Context<'a, Client<Conversation>>;

/// With a rate: one of those who take turns, also when it is gone.
#[derive(Debug)]
struct Turn {
    id: ConnId,
    /// The next of all lines that is this client's.
    next: u64,
    /// When it was last seen that a line of this client was due, all before it having been sent.
    noticed: u64,
}

/// The modes that speak to the echo service: echo, pipeline, idle and churn.
#[derive(Debug)]
pub(crate) struct Talk {
    mode: Mode,
    line: Template,
    reply: Template,
    depth: u32,
    pace: Option<Pace>,
    turns: Vec<Turn>,
    /// Lines of all clients so far, and those of them without a reply.
    sent: u64,
    waiting: u64,
    /// Churn: the number of the next line, so that none is like another.
    visits: u32,
}

impl Talk {
    pub(crate) fn new(crew: &Crew) -> Talk {
        let line = Template::new("", crew.plan.size);
        Talk {
            mode: crew.plan.mode,
            reply: line.echoed(),
            line,
            depth: crew.plan.depth() as u32,
            pace: None,
            turns: Vec::new(),
            sent: 0,
            waiting: 0,
            visits: 0,
        }
    }

    fn is_churn(&self) -> bool {
        self.mode == Mode::Churn
    }

    /// Sends a client's next lines.
    fn say(&mut self, crew: &mut Crew, cx: &mut Cx<'_>, lines: u32, when: u64) {
        let client = cx.session();
        self.line.set_client(client.number);
        let mut sequence = client.part.sent;
        client.part.note(lines, when);
        let mut out = cx.writer();
        for _ in 0..lines {
            self.line.set_sequence(sequence);
            out.put(self.line.bytes());
            sequence = sequence.wrapping_add(1);
        }
        drop(out);
        self.sent += u64::from(lines);
        self.waiting += u64::from(lines);
        crew.tally.bytes_sent += u64::from(lines) * self.line.len() as u64;
    }

    /// Replies have come: sends what may be sent now.
    fn go_on(&mut self, crew: &mut Crew, cx: &mut Cx<'_>, replies: u32, now: u64) {
        if self.is_churn() {
            cx.session().part.leaving = true;
            cx.send(BYE);
            crew.tally.bytes_sent += BYE.len() as u64;
        } else if crew.is_playing() {
            match self.pace {
                Some(_) => self.catch_up(crew, cx),
                None => self.say(crew, cx, replies, now),
            }
        }
    }

    /// Sends the lines whose turn has come, as far as the client has room for them. A line that
    /// had to wait for that counts from when it was due: the server has held it up. That our own
    /// timer is late is not the server's fault.
    fn catch_up(&mut self, crew: &mut Crew, cx: &mut Cx<'_>) {
        let Some(pace) = self.pace else { return };
        let many = self.turns.len() as u64;
        loop {
            let session = &cx.session().part;
            let turn = &mut self.turns[session.place];
            if turn.next >= pace.come || session.waiting() >= self.depth {
                return;
            }
            let when = pace.due(turn.next).max(turn.noticed);
            turn.next += many;
            self.say(crew, cx, 1, when);
        }
    }
}

impl Part for Talk {
    type Session = Conversation;

    const GREETING: &str = "\
Welcome to the Reactor Server.
Send me text lines and conclude with the BYE command.
";

    fn start(&mut self, crew: &mut Crew, cx: &mut Cast<'_>) {
        if self.mode == Mode::Idle {
            return;
        }
        let now = crew.now(cx);
        let all: Vec<ConnId> = crew.ids.iter().copied().flatten().collect();
        for (place, id) in all.iter().enumerate() {
            let Some(mut cx) = cx.connection(*id) else { continue };
            match crew.plan.rate {
                Some(_) => cx.session().part.place = place,
                None => self.say(crew, &mut cx, self.depth, now),
            }
        }
        if let Some(rate) = crew.plan.rate {
            let turn = |(next, id)| Turn { id, next, noticed: now };
            self.turns = (0..).zip(all).map(turn).collect();
            self.pace = Some(Pace::new(now, rate));
            self.beat(crew, cx);
        }
    }

    fn arrived(&mut self, crew: &mut Crew, cx: &mut Cx<'_>) {
        if self.is_churn() {
            let now = cx.session().since;
            let session = &mut cx.session().part;
            session.sent = self.visits;
            session.heard = self.visits;
            self.visits = self.visits.wrapping_add(1);
            self.say(crew, cx, 1, now);
        }
    }

    fn take(&mut self, crew: &mut Crew, cx: &mut Cx<'_>, bytes: &[u8]) -> usize {
        let client = cx.session();
        self.reply.set_client(client.number);
        let (sent, mut heard) = (client.part.sent, client.part.heard);
        let length = self.reply.len();
        let (mut taken, mut right, mut wrong) = (0, 0, 0);
        while heard != sent {
            let rest = &bytes[taken..];
            self.reply.set_sequence(heard);
            if rest.get(..length) == Some(self.reply.bytes()) {
                taken += length;
                right += 1;
            } else if let Some(end) = memchr::memchr(b'\n', rest) {
                crew.tally.wrong(Fault::WrongReply, &rest[..=end], self.reply.bytes());
                taken += end + 1;
                wrong += 1;
            } else {
                break;
            }
            heard = heard.wrapping_add(1);
        }
        let now = crew.now(cx);
        let session = &mut cx.session().part;
        session.heard = heard;
        if heard == sent && taken < bytes.len() {
            let rest = &bytes[taken..];
            let goodbye = session.leaving && !session.left;
            if goodbye && rest == GOODBYE {
                session.left = true;
                taken = bytes.len();
            } else if !(goodbye && GOODBYE.starts_with(rest)) {
                let wanted = if goodbye { GOODBYE } else { b"" };
                crew.tally.wrong(Fault::Unexpected, rest, wanted);
                taken = bytes.len();
            }
        }
        if right + wrong > 0 {
            self.waiting -= u64::from(right + wrong);
            let churn = self.is_churn();
            session.landed(right, |when, count| {
                if !churn {
                    crew.tally.latency(now.saturating_sub(when), u64::from(count));
                }
            });
            session.landed(wrong, |_, _| {});
            if right > 0 {
                crew.right(u64::from(right), now);
            }
            self.go_on(crew, cx, right + wrong, now);
        }
        taken
    }

    fn is_paced(&self) -> bool {
        self.pace.is_some()
    }

    /// Each client at most once, however many lines have come due since the last time.
    fn beat(&mut self, crew: &mut Crew, cx: &mut Cast<'_>) {
        let now = crew.now(cx);
        let Some(pace) = self.pace.as_mut().filter(|_| crew.is_playing()) else { return };
        let come = pace.look(now);
        let many = self.turns.len() as u64;
        for line in come.start..come.end.min(come.start + many) {
            let turn = &mut self.turns[(line % many) as usize];
            if turn.next == line {
                turn.noticed = now;
            }
            let Some(mut cx) = cx.connection(turn.id) else { continue };
            self.catch_up(crew, &mut cx);
        }
    }

    fn is_settled(&self, crew: &Crew) -> bool {
        if self.is_churn() { crew.here == 0 } else { self.waiting == 0 }
    }

    fn owed(&mut self, crew: &mut Crew, cx: &mut Cx<'_>) {
        let now = crew.now(cx);
        let (churn, client) = (self.is_churn(), cx.session());
        if client.state == State::Done {
            // It owes nothing any more, or was counted.
        } else if churn {
            crew.tally.latency(now.saturating_sub(client.since), 1);
        } else {
            let tell = |when, count| crew.tally.latency(now.saturating_sub(when), u64::from(count));
            client.part.landed(u32::MAX, tell);
        }
    }

    fn give_up(&mut self, crew: &mut Crew, cx: &mut Cast<'_>) {
        let churn = self.is_churn();
        let late = cx.connections().filter(|(_, client)| churn || client.part.waiting() > 0);
        let late: Vec<_> = late.map(|(id, _)| id).collect();
        for id in late {
            if let Some(mut cx) = cx.connection(id) {
                self.owed(crew, &mut cx);
                cx.abort();
            }
        }
    }

    fn leave(&mut self, crew: &mut Crew, cx: &mut Cast<'_>) -> bool {
        for id in crew.ids.iter().copied().flatten() {
            if let Some(mut cx) = cx.connection(id) {
                cx.session().part.leaving = true;
                cx.send(BYE);
            }
        }
        true
    }

    fn ended(&mut self, _crew: &mut Crew, cx: &mut Cx<'_>) -> bool {
        cx.session().part.left
    }

    fn left(&mut self, crew: &mut Crew, cx: &mut Cx<'_>, right: bool) {
        let now = crew.now(cx);
        let client = cx.session();
        let (number, since) = (client.number, client.since);
        let waiting = u64::from(client.part.waiting());
        let goodbye = u64::from(client.part.leaving && !client.part.left);
        self.waiting -= waiting;
        crew.tally.fault(Fault::MissingReply, waiting + goodbye);
        if self.is_churn() {
            if right {
                crew.tally.latency(now.saturating_sub(since), 1);
            }
            crew.launcher.again(number);
        }
    }

    fn conclude(&mut self, crew: &mut Crew) {
        let Some(pace) = self.pace else { return };
        let unsent = pace.come.saturating_sub(self.sent);
        crew.tally.unsent = Some(unsent);
        let many = self.turns.len() as u64;
        for turn in &self.turns {
            pace.rest(turn.next, many, unsent, |due, lines| {
                let waited = crew.ended.saturating_sub(due.max(turn.noticed));
                crew.tally.latency(waited, lines);
            });
        }
    }
}
