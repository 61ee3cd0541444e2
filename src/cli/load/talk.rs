use reactor::{ConnId, Context, ServiceContext};

use super::conversation::Conversation;
use super::crew::{Client, Crew};
use super::fault::Fault;
use super::options::Mode;
use super::pace::Pace;
use super::part::Part;
use super::payload::Template;

const BYE: &str = "BYE\n";
const GOODBYE: &[u8] = b"> BYE\n";

type Cast<'a> = ServiceContext<'a, Client<Conversation>>;
type Cx<'a> = Context<'a, Client<Conversation>>;

/// The modes that speak to the echo service: echo, pipeline, idle and churn.
#[derive(Debug)]
pub(crate) struct Talk<const CHURN: bool> {
    mode: Mode,
    line: Template,
    reply: Template,
    depth: u32,
    rate: Option<f64>,
    pace: Option<Pace>,
    /// With a rate: who takes turns, and how many turns there were.
    paced: Vec<ConnId>,
    turns: u64,
    /// Lines of all clients without a reply.
    waiting: u64,
    /// Churn: lines so far, so that none is like another.
    visits: u32,
}

impl<const CHURN: bool> Talk<CHURN> {
    pub(crate) fn new(crew: &Crew) -> Talk<CHURN> {
        let line = Template::new("", crew.plan.size);
        Talk {
            mode: crew.plan.mode,
            reply: line.echoed(),
            line,
            depth: crew.plan.depth as u32,
            rate: crew.plan.rate,
            pace: None,
            paced: Vec::new(),
            turns: 0,
            waiting: 0,
            visits: 0,
        }
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
        self.waiting += u64::from(lines);
        crew.tally.bytes_sent += u64::from(lines) * self.line.len() as u64;
    }

    fn say_bye(crew: &mut Crew, cx: &mut Cx<'_>) {
        cx.session().part.leaving = true;
        cx.send(BYE);
        crew.tally.bytes_sent += BYE.len() as u64;
    }

    /// Replies have come: sends what may be sent now.
    fn go_on(&mut self, crew: &mut Crew, cx: &mut Cx<'_>, replies: u32, now: u64) {
        if CHURN {
            return Self::say_bye(crew, cx);
        }
        if !crew.is_playing() {
            return;
        }
        let Some(pace) = self.pace else { return self.say(crew, cx, replies, now) };
        // Lines whose turn has passed while this client had no room for them. They count from
        // when they were due: the server has held them up.
        loop {
            let session = &mut cx.session().part;
            if session.turn >= self.turns || session.waiting() >= self.depth {
                return;
            }
            let due = pace.due(session.turn);
            session.turn += self.paced.len() as u64;
            self.say(crew, cx, 1, due);
        }
    }
}

impl<const CHURN: bool> Part for Talk<CHURN> {
    type Session = Conversation;

    const GREETING: &str = "\
Welcome to the Reactor Server.
Send me text lines and conclude with the BYE command.
";
    const AT_ONCE: bool = CHURN;

    fn start(&mut self, crew: &mut Crew, cx: &mut Cast<'_>) {
        if self.mode == Mode::Idle {
            return;
        }
        let now = crew.now(cx);
        self.paced = crew.ids.iter().copied().flatten().collect();
        if let Some(rate) = self.rate {
            self.pace = Some(Pace::new(now, rate));
            for (index, id) in self.paced.iter().enumerate() {
                if let Some(mut cx) = cx.connection(*id) {
                    cx.session().part.turn = index as u64;
                }
            }
            return;
        }
        for id in std::mem::take(&mut self.paced) {
            if let Some(mut cx) = cx.connection(id) {
                self.say(crew, &mut cx, self.depth, now);
            }
        }
    }

    fn arrived(&mut self, crew: &mut Crew, cx: &mut Cx<'_>) {
        if CHURN {
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
            session.landed(right, |when, count| {
                if !CHURN {
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

    /// Gives their turn to all whose line is due. What the timer is late is not the server's
    /// fault: these latencies count from now.
    fn beat(&mut self, crew: &mut Crew, cx: &mut Cast<'_>) {
        let Some(pace) = self.pace.filter(|_| crew.is_playing()) else { return };
        let now = crew.now(cx);
        let many = self.paced.len() as u64;
        while pace.due(self.turns) <= now {
            let turn = self.turns;
            self.turns += 1;
            let id = self.paced[(turn % many) as usize];
            let Some(mut cx) = cx.connection(id) else { continue };
            let session = &mut cx.session().part;
            if session.turn == turn && session.waiting() < self.depth {
                session.turn += many;
                self.say(crew, &mut cx, 1, now);
            }
        }
    }

    fn is_settled(&self, crew: &Crew) -> bool {
        if CHURN { crew.here == 0 } else { self.waiting == 0 }
    }

    fn give_up(&mut self, _crew: &mut Crew, cx: &mut Cast<'_>) {
        let late = cx.connections().filter(|(_, client)| CHURN || client.part.waiting() > 0);
        let late: Vec<_> = late.map(|(id, _)| id).collect();
        for id in late {
            if let Some(mut cx) = cx.connection(id) {
                cx.abort();
            }
        }
    }

    fn leave(&mut self, crew: &mut Crew, cx: &mut Cast<'_>) -> bool {
        for index in 0..crew.ids.len() {
            if let Some(mut cx) = crew.ids[index].and_then(|id| cx.connection(id)) {
                Self::say_bye(crew, &mut cx);
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
        if CHURN {
            if right {
                crew.tally.latency(now.saturating_sub(since), 1);
            }
            crew.launcher.again(number);
        }
    }
}
