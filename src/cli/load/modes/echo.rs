//! The modes that speak to the echo service: echo, pipeline, idle and churn.

use std::collections::VecDeque;

use reactor::{ConnId, Context, ServiceContext};

use super::Workload;
use crate::cli::load::fault::Fault;
use crate::cli::load::options::Mode;
use crate::cli::load::payload::Template;
use crate::cli::load::rate::FixedRate;
use crate::cli::load::run::{Client, Run, State};

const BYE: &str = "BYE\n";
const GOODBYE: &[u8] = b"> BYE\n";

type ServiceCx<'a> = ServiceContext<'a, Client<Session>>;
type Cx<'a> = Context<'a, Client<Session>>;

/// What one client of the echo service has said and heard.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// The number of the next line to send.
    pub(crate) sent: u32,
    /// The number of the next reply.
    pub(crate) heard: u32,
    /// When the lines without a reply were sent, and how many at that moment.
    flight: VecDeque<(u64, u32)>,
    /// With `--rate`: its index in [`Echo::turns`].
    pub(crate) place: usize,
    /// BYE was sent.
    leaving: bool,
    /// BYE was answered.
    pub(crate) left: bool,
}

impl Session {
    /// Lines without a reply.
    pub(crate) fn waiting(&self) -> u32 {
        self.sent.wrapping_sub(self.heard)
    }

    /// Lines were sent.
    pub(crate) fn note(&mut self, lines: u32, when: u64) {
        self.sent = self.sent.wrapping_add(lines);
        match self.flight.back_mut() {
            Some((last, count)) if *last == when => *count += lines,
            _ => self.flight.push_back((when, lines)),
        }
    }

    /// Takes so many of the oldest lines out of flight, and tells when they were sent.
    fn landed(&mut self, mut lines: u32, mut tell: impl FnMut(u64, u32)) {
        while lines > 0
            && let Some((when, count)) = self.flight.front_mut()
        {
            let these = lines.min(*count);
            tell(*when, these);
            *count -= these;
            lines -= these;
            if *count == 0 {
                self.flight.pop_front();
            }
        }
    }
}

/// With `--rate`, the clients send by turns. A client keeps its turn when it is gone.
#[derive(Debug)]
struct Turn {
    id: ConnId,
    /// The next line that is this client's, counted over all clients.
    next: u64,
    /// When it was last seen that a line of this client was due, all before it having been sent.
    noticed: u64,
}

/// What the clients have in common.
#[derive(Debug)]
pub(crate) struct Echo {
    mode: Mode,
    line: Template,
    reply: Template,
    depth: u32,
    rate: Option<FixedRate>,
    turns: Vec<Turn>,
    /// Lines of all clients so far.
    sent: u64,
    /// Those of them without a reply.
    waiting: u64,
    /// Mode churn: the number of the next line, so that each is unlike the others.
    visits: u32,
}

impl Echo {
    pub(crate) fn new(run: &Run) -> Echo {
        let line = Template::new("", run.plan.size);
        Echo {
            mode: run.plan.mode,
            reply: line.echoed(),
            line,
            depth: run.plan.depth() as u32,
            rate: None,
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
    fn say(&mut self, run: &mut Run, cx: &mut Cx<'_>, lines: u32, when: u64) {
        let client = cx.session();
        self.line.set_client(client.number);
        let mut sequence = client.own.sent;
        client.own.note(lines, when);
        let mut out = cx.writer();
        for _ in 0..lines {
            self.line.set_sequence(sequence);
            out.put(self.line.bytes());
            sequence = sequence.wrapping_add(1);
        }
        drop(out);
        self.sent += u64::from(lines);
        self.waiting += u64::from(lines);
        run.metrics.bytes_sent += u64::from(lines) * self.line.len() as u64;
    }

    /// Sends what may be sent now that replies have come.
    fn go_on(&mut self, run: &mut Run, cx: &mut Cx<'_>, replies: u32, now: u64) {
        if self.is_churn() {
            cx.session().own.leaving = true;
            cx.send(BYE);
            run.metrics.bytes_sent += BYE.len() as u64;
        } else if run.is_loading() {
            match self.rate {
                Some(_) => self.catch_up(run, cx),
                None => self.say(run, cx, replies, now),
            }
        }
    }

    /// Sends the lines that are due, up to `--depth` in flight. The latency of a line that had to
    /// wait for that counts from when it was due, since the server has held it up. A timer of our
    /// own that is late is not the server's fault, and does not count.
    fn catch_up(&mut self, run: &mut Run, cx: &mut Cx<'_>) {
        let Some(rate) = self.rate else { return };
        let many = self.turns.len() as u64;
        loop {
            let session = &cx.session().own;
            let turn = &mut self.turns[session.place];
            if turn.next >= rate.come || session.waiting() >= self.depth {
                return;
            }
            let when = rate.due(turn.next).max(turn.noticed);
            turn.next += many;
            self.say(run, cx, 1, when);
        }
    }
}

impl Workload for Echo {
    type Session = Session;

    const GREETING: &str = "\
Welcome to the Reactor Server.
Send me text lines and conclude with the BYE command.
";

    fn on_start(&mut self, run: &mut Run, cx: &mut ServiceCx<'_>) {
        if self.mode == Mode::Idle {
            return;
        }
        let now = run.now(cx);
        let all: Vec<ConnId> = run.ids.iter().copied().flatten().collect();
        for (place, id) in all.iter().enumerate() {
            let Some(mut cx) = cx.connection(*id) else { continue };
            match run.plan.rate {
                Some(_) => cx.session().own.place = place,
                None => self.say(run, &mut cx, self.depth, now),
            }
        }
        if let Some(rate) = run.plan.rate {
            let turn = |(next, id)| Turn { id, next, noticed: now };
            self.turns = (0..).zip(all).map(turn).collect();
            self.rate = Some(FixedRate::new(now, rate));
            self.on_tick(run, cx);
        }
    }

    fn on_greeted(&mut self, run: &mut Run, cx: &mut Cx<'_>) {
        if self.is_churn() {
            let now = cx.session().since;
            let session = &mut cx.session().own;
            session.sent = self.visits;
            session.heard = self.visits;
            self.visits = self.visits.wrapping_add(1);
            self.say(run, cx, 1, now);
        }
    }

    fn on_bytes(&mut self, run: &mut Run, cx: &mut Cx<'_>, bytes: &[u8]) -> usize {
        let client = cx.session();
        self.reply.set_client(client.number);
        let (sent, mut heard) = (client.own.sent, client.own.heard);
        let length = self.reply.len();
        let (mut taken, mut right, mut wrong) = (0, 0, 0);
        while heard != sent {
            let rest = &bytes[taken..];
            self.reply.set_sequence(heard);
            if rest.get(..length) == Some(self.reply.bytes()) {
                taken += length;
                right += 1;
            } else if let Some(end) = memchr::memchr(b'\n', rest) {
                run.metrics.wrong(Fault::WrongReply, &rest[..=end], self.reply.bytes());
                taken += end + 1;
                wrong += 1;
            } else {
                break;
            }
            heard = heard.wrapping_add(1);
        }
        let now = run.now(cx);
        let session = &mut cx.session().own;
        session.heard = heard;
        if heard == sent && taken < bytes.len() {
            let rest = &bytes[taken..];
            let goodbye = session.leaving && !session.left;
            if goodbye && rest == GOODBYE {
                session.left = true;
                taken = bytes.len();
            } else if !(goodbye && GOODBYE.starts_with(rest)) {
                let wanted = if goodbye { GOODBYE } else { b"" };
                run.metrics.wrong(Fault::Unexpected, rest, wanted);
                taken = bytes.len();
            }
        }
        if right + wrong > 0 {
            self.waiting -= u64::from(right + wrong);
            let churn = self.is_churn();
            session.landed(right, |when, count| {
                if !churn {
                    run.metrics.latency(now.saturating_sub(when), u64::from(count));
                }
            });
            session.landed(wrong, |_, _| {});
            if right > 0 {
                run.right(u64::from(right), now);
            }
            self.go_on(run, cx, right + wrong, now);
        }
        taken
    }

    fn is_paced(&self) -> bool {
        self.rate.is_some()
    }

    /// Looks at each client at most once, however many lines have come due.
    fn on_tick(&mut self, run: &mut Run, cx: &mut ServiceCx<'_>) {
        let now = run.now(cx);
        let Some(rate) = self.rate.as_mut().filter(|_| run.is_loading()) else { return };
        let come = rate.look(now);
        let many = self.turns.len() as u64;
        for line in come.start..come.end.min(come.start + many) {
            let turn = &mut self.turns[(line % many) as usize];
            if turn.next == line {
                turn.noticed = now;
            }
            let Some(mut cx) = cx.connection(turn.id) else { continue };
            self.catch_up(run, &mut cx);
        }
    }

    fn is_settled(&self, run: &Run) -> bool {
        if self.is_churn() { run.here == 0 } else { self.waiting == 0 }
    }

    fn count_owed(&mut self, run: &mut Run, cx: &mut Cx<'_>) {
        let now = run.now(cx);
        let (churn, client) = (self.is_churn(), cx.session());
        if client.state == State::Done {
            // Nothing is owed to it, or that was counted.
        } else if churn {
            run.metrics.latency(now.saturating_sub(client.since), 1);
        } else {
            let tell =
                |when, count| run.metrics.latency(now.saturating_sub(when), u64::from(count));
            client.own.landed(u32::MAX, tell);
        }
    }

    fn give_up(&mut self, run: &mut Run, cx: &mut ServiceCx<'_>) {
        let churn = self.is_churn();
        let late = cx.connections().filter(|(_, client)| churn || client.own.waiting() > 0);
        let late: Vec<_> = late.map(|(id, _)| id).collect();
        for id in late {
            if let Some(mut cx) = cx.connection(id) {
                self.count_owed(run, &mut cx);
                cx.abort();
            }
        }
    }

    fn say_goodbye(&mut self, run: &mut Run, cx: &mut ServiceCx<'_>) -> bool {
        for id in run.ids.iter().copied().flatten() {
            if let Some(mut cx) = cx.connection(id) {
                cx.session().own.leaving = true;
                cx.send(BYE);
            }
        }
        true
    }

    fn on_eof(&mut self, _run: &mut Run, cx: &mut Cx<'_>) -> bool {
        cx.session().own.left
    }

    fn on_gone(&mut self, run: &mut Run, cx: &mut Cx<'_>, right: bool) {
        let now = run.now(cx);
        let client = cx.session();
        let (number, since) = (client.number, client.since);
        let waiting = u64::from(client.own.waiting());
        let goodbye = u64::from(client.own.leaving && !client.own.left);
        self.waiting -= waiting;
        run.metrics.fault(Fault::MissingReply, waiting + goodbye);
        if self.is_churn() {
            if right {
                run.metrics.latency(now.saturating_sub(since), 1);
            }
            run.ramp.again(number);
        }
    }

    fn conclude(&mut self, run: &mut Run) {
        let Some(rate) = self.rate else { return };
        let unsent = rate.come.saturating_sub(self.sent);
        run.metrics.unsent = Some(unsent);
        let many = self.turns.len() as u64;
        for turn in &self.turns {
            rate.rest(turn.next, many, unsent, |due, lines| {
                let waited = run.ended.saturating_sub(due.max(turn.noticed));
                run.metrics.latency(waited, lines);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_land_in_the_order_they_were_sent() {
        let mut session = Session::default();
        session.note(2, 10);
        session.note(1, 10);
        session.note(4, 20);
        let mut told = Vec::new();
        session.landed(4, |when, count| told.push((when, count)));
        session.landed(2, |when, count| told.push((when, count)));
        assert_eq!(told, [(10, 3), (20, 1), (20, 2)]);
        assert_eq!((session.waiting(), session.flight.len()), (7, 1));
    }
}
