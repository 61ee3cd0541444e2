//! The modes in which each client asks and is answered: echo, pipeline, idle and churn. What is said is a
//! [`Payload`].

use std::collections::VecDeque;

use reactor::{ConnId, Context, ServiceContext};

use super::Workload;
use crate::cli::load::fault::Fault;
use crate::cli::load::greeting::{Greeted, Greeting};
use crate::cli::load::options::Mode;
use crate::cli::load::payload::{Payload, Reply};
use crate::cli::load::rate::FixedRate;
use crate::cli::load::run::{Client, Phase, Run, State};

type ServiceCx<'a, P> = ServiceContext<'a, Client<Session<<P as Payload>::Own>>>;
type Cx<'a, P> = Context<'a, Client<Session<<P as Payload>::Own>>>;

/// What one client has said and heard.
#[derive(Debug, Default)]
pub(crate) struct Session<O> {
    /// The number of the next line to send.
    pub(crate) sent: u32,
    /// The number of the next reply.
    pub(crate) heard: u32,
    /// When the lines without a reply were sent, and how many at that moment.
    flight: VecDeque<(u64, u32)>,
    /// With `--rate`: its index in [`Exchange::turns`].
    pub(crate) place: usize,
    /// The goodbye was sent.
    leaving: bool,
    /// The goodbye was answered, or there is none.
    left: bool,
    /// What the payload keeps.
    own: O,
}

impl<O> Session<O> {
    pub(crate) fn payload(&mut self) -> &mut O {
        &mut self.own
    }

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
pub(crate) struct Exchange<P> {
    mode: Mode,
    payload: P,
    depth: u32,
    rate: Option<FixedRate>,
    turns: Vec<Turn>,
    /// Lines that may still be sent, with `--requests`.
    left: u64,
    /// Lines of all clients so far.
    sent: u64,
    /// Those of them without a reply.
    waiting: u64,
    /// Mode churn: the number of the next line, so that each is unlike the others.
    visits: u32,
}

impl<P: Payload> Exchange<P> {
    pub(crate) fn new(run: &Run, payload: P) -> Exchange<P> {
        Exchange {
            mode: run.plan.mode,
            payload,
            depth: run.plan.depth() as u32,
            rate: None,
            turns: Vec::new(),
            left: u64::MAX,
            sent: 0,
            waiting: 0,
            visits: 0,
        }
    }

    fn is_churn(&self) -> bool {
        self.mode == Mode::Churn
    }

    /// Sends a client's next lines, as long as there are some to send.
    fn say(&mut self, run: &mut Run, cx: &mut Cx<'_, P>, mut lines: u32, when: u64) {
        let last = u64::from(lines) >= self.left;
        if last {
            lines = self.left as u32;
            if lines == 0 {
                return;
            }
        }
        let client = cx.session();
        let first = client.own.sent;
        let number = run.first_client + client.number;
        client.own.note(lines, when);
        let bytes = self.payload.send(cx, number, first, lines);
        self.left -= u64::from(lines);
        self.sent += u64::from(lines);
        self.waiting += u64::from(lines);
        run.metrics.bytes_sent += bytes as u64;
        if last && run.is_loading() {
            let now = run.now(cx);
            run.wind_up(now);
        }
    }

    /// Sends what may be sent now that replies have come.
    fn go_on(&mut self, run: &mut Run, cx: &mut Cx<'_, P>, replies: u32, now: u64) {
        if self.is_churn() {
            self.leave(run, cx);
        } else if run.is_loading() {
            match self.rate {
                Some(_) => self.catch_up(run, cx),
                None => self.say(run, cx, replies, now),
            }
        }
    }

    /// Says goodbye; where there is none to say, closes.
    fn leave(&mut self, run: &mut Run, cx: &mut Cx<'_, P>) {
        let session = &mut cx.session().own;
        session.leaving = true;
        match self.payload.goodbye() {
            Some((bye, _)) => {
                cx.send(bye);
                if self.is_churn() {
                    run.metrics.bytes_sent += bye.len() as u64;
                }
            }
            None => {
                session.left = true;
                cx.close();
            }
        }
    }

    /// Gives a client up whose reply was wrong, so that the next one cannot be found. That reply is counted.
    fn lose(&mut self, cx: &mut Cx<'_, P>) {
        let session = &mut cx.session().own;
        session.heard = session.heard.wrapping_add(1);
        session.landed(1, |_, _| {});
        self.waiting -= 1;
        cx.close();
    }

    /// Judges what has come although no reply is due. Returns how much of it is taken.
    fn beyond(&mut self, run: &mut Run, session: &mut Session<P::Own>, rest: &[u8]) -> usize {
        let rest = match self.payload.read_unasked(&mut session.own, rest) {
            Reply::Part(length) => return length,
            Reply::Incomplete => return 0,
            _ => rest,
        };
        let goodbye = self.payload.goodbye().map_or(&b""[..], |(_, reply)| reply);
        let wanted = if session.leaving && !session.left { goodbye } else { b"" };
        if !wanted.is_empty() && rest == wanted {
            session.left = true;
        } else if !wanted.is_empty() && wanted.starts_with(rest) {
            return 0;
        } else {
            run.metrics.wrong(Fault::Unexpected, rest, wanted);
        }
        rest.len()
    }

    /// Sends the lines that are due, up to `--depth` in flight. The latency of a line that had to
    /// wait for that counts from when it was due, since the server has held it up. A timer of our
    /// own that is late is not the server's fault, and does not count.
    fn catch_up(&mut self, run: &mut Run, cx: &mut Cx<'_, P>) {
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

impl<P: Payload> Workload for Exchange<P> {
    type Session = Session<P::Own>;

    fn greeting(&self) -> Greeting {
        self.payload.greeting()
    }

    fn greet(&mut self, run: &Run, client: &mut Client<Self::Session>, bytes: &[u8]) -> Greeted {
        self.payload.set_reader(run.first_client + client.number);
        self.payload.greet(&mut client.own.own, bytes)
    }

    fn on_start(&mut self, run: &mut Run, cx: &mut ServiceCx<'_, P>) {
        if self.mode == Mode::Idle {
            return;
        }
        let now = run.now(cx);
        // What the warm-up has sent does not count.
        self.sent = 0;
        let wanted = run.plan.requests.filter(|_| run.phase == Phase::Loading);
        self.left = wanted.unwrap_or(u64::MAX);
        if self.left == 0 {
            // This thread's share of a few.
            return run.wind_up(now);
        }
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
            self.rate = Some(FixedRate::new(now, rate, self.left));
            self.on_tick(run, cx);
        }
    }

    fn on_greeted(&mut self, run: &mut Run, cx: &mut Cx<'_, P>) {
        if self.is_churn() {
            let now = cx.session().since;
            let session = &mut cx.session().own;
            session.sent = self.visits;
            session.heard = self.visits;
            self.visits = self.visits.wrapping_add(1);
            self.say(run, cx, 1, now);
        }
    }

    fn on_bytes(&mut self, run: &mut Run, cx: &mut Cx<'_, P>, bytes: &[u8]) -> usize {
        let now = run.now(cx);
        let client = cx.session();
        let number = run.first_client + client.number;
        self.payload.set_reader(number);
        let session = &mut client.own;
        let (sent, mut heard) = (session.sent, session.heard);
        let (mut taken, mut right, mut wrong, mut broken) = (0, 0, 0, false);
        while heard != sent {
            let rest = &bytes[taken..];
            match self.payload.read(&mut session.own, heard, rest) {
                Reply::Right(length) => {
                    taken += length;
                    right += 1;
                }
                Reply::Part(length) => {
                    taken += length;
                    continue;
                }
                Reply::Wrong(length) => {
                    let (asked, wanted) = self.payload.explain(&session.own, number, heard);
                    run.metrics.wrong_reply(&asked, &rest[..length], &wanted);
                    taken += length;
                    wrong += 1;
                }
                Reply::Broken(length) => {
                    let (asked, wanted) = self.payload.explain(&session.own, number, heard);
                    run.metrics.wrong_reply(&asked, &rest[..length], &wanted);
                    broken = true;
                    break;
                }
                Reply::Incomplete => break,
            }
            heard = heard.wrapping_add(1);
        }
        session.heard = heard;
        while heard == sent && taken < bytes.len() {
            match self.beyond(run, session, &bytes[taken..]) {
                0 => break,
                more => taken += more,
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
        if broken {
            self.lose(cx);
            return bytes.len();
        }
        run.metrics.bytes_sent += self.payload.flush(cx) as u64;
        taken
    }

    fn is_paced(&self) -> bool {
        self.rate.is_some()
    }

    /// Looks at each client at most once, however many lines have come due.
    fn on_tick(&mut self, run: &mut Run, cx: &mut ServiceCx<'_, P>) {
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

    fn count_owed(&mut self, run: &mut Run, cx: &mut Cx<'_, P>) {
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

    fn give_up(&mut self, run: &mut Run, cx: &mut ServiceCx<'_, P>) {
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

    fn say_goodbye(&mut self, run: &mut Run, cx: &mut ServiceCx<'_, P>) -> bool {
        for id in run.ids.clone().into_iter().flatten() {
            if let Some(mut cx) = cx.connection(id) {
                self.leave(run, &mut cx);
            }
        }
        true
    }

    fn on_eof(&mut self, _run: &mut Run, cx: &mut Cx<'_, P>) -> bool {
        cx.session().own.left
    }

    fn on_gone(&mut self, run: &mut Run, cx: &mut Cx<'_, P>, right: bool) {
        let now = run.now(cx);
        let client = cx.session();
        let (number, since) = (client.number, client.since);
        let waiting = u64::from(client.own.waiting());
        let left = client.own.left;
        let goodbye = u64::from(client.own.leaving && !left);
        self.waiting -= waiting;
        run.metrics.fault(Fault::MissingReply, waiting + goodbye);
        if self.is_churn() {
            if right || left {
                run.metrics.latency(now.saturating_sub(since), 1);
            }
            run.ramp.again(number);
        }
    }

    fn conclude(&mut self, run: &mut Run) {
        run.metrics.sent = Some(self.sent);
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
        let mut session = Session::<()>::default();
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
