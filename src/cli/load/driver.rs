//! The handler of all connections: leads the clients through the phases of a run.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::time::Duration;

use reactor::{
    CloseReason, ConnId, Connect, Context, Farewell, Handler, Limits, ServiceContext, TimerId,
};

use super::fault::Fault;
use super::greeting::{Greeted, Greeting};
use super::modes::Workload;
use super::run::{Client, PATIENCE, Phase, Refusal, Run, State, nanos};
use crate::cli::failure::unreachable;

/// From tick to tick while `--ramp` or `--rate` is in force. Timers are no finer.
const FINE_TICK: Duration = Duration::from_millis(1);
/// From tick to tick otherwise.
const TICK: Duration = Duration::from_millis(100);

/// Connects the clients, lets the [`Workload`] speak for them, and says goodbye.
///
/// The reactor keeps its handlers for itself. What is looked at afterwards is borrowed.
#[derive(Debug)]
pub(crate) struct Driver<'p, P> {
    run: &'p mut Run,
    workload: &'p mut P,
    greeting: Greeting,
    connect: Connect,
    /// The next tick.
    timer: Option<TimerId>,
}

impl<'p, P: Workload> Driver<'p, P> {
    pub(crate) fn new(run: &'p mut Run, workload: &'p mut P, connect: Connect) -> Driver<'p, P> {
        let greeting = run.plan.talk.greeting().unwrap_or_else(|| workload.greeting());
        Driver { run, workload, greeting, connect, timer: None }
    }

    /// Goes on to the next phase when it is time. Called whenever something has changed.
    fn advance(&mut self, cx: &mut ServiceContext<'_, Client<P::Session>>) {
        let now = self.run.now(cx);
        let run = &mut *self.run;
        if run.refusal.is_some() && run.metrics.connections == 0 {
            // Nobody listens: one connection that says so is enough.
            run.ramp.stop();
        }
        match run.phase {
            Phase::Connecting => {
                if !run.ramp.is_done() || !run.all_connected() {
                    return;
                }
                run.begin(now);
                self.start(cx);
            }
            Phase::WarmingUp { until } => {
                if until <= now || run.here == 0 {
                    run.phase = Phase::CoolingDown { until: now + nanos(PATIENCE) };
                    self.advance(cx);
                }
            }
            Phase::CoolingDown { until } => {
                if self.workload.is_settled(run) {
                    run.metrics.restart();
                    run.start(now);
                    self.start(cx);
                } else if until <= now {
                    run.start(now);
                    run.end(now);
                    run.phase = Phase::Settling { until: now, gave_up: false };
                    self.advance(cx);
                }
            }
            Phase::Loading => {
                let late = run.deadline().is_some_and(|deadline| deadline <= now);
                if late || run.here == 0 && run.ramp.is_done() {
                    self.wind_up(cx);
                }
            }
            Phase::Settling { until, gave_up } => {
                let settled = self.workload.is_settled(run) || run.here == 0;
                if settled && run.ramp.is_done() {
                    self.see_out(cx);
                } else if until <= now {
                    if gave_up {
                        return self.see_out(cx);
                    }
                    run.phase = Phase::Settling { until: now + nanos(TICK), gave_up: true };
                    self.workload.give_up(run, cx);
                    self.hang_up(cx, |state| matches!(state, State::Dialled | State::Greeting));
                }
            }
            Phase::Leaving { until, gave_up } => {
                if run.here == 0 {
                    self.finish(cx);
                } else if until <= now {
                    if gave_up {
                        return self.finish(cx);
                    }
                    run.phase = Phase::Leaving { until: now + nanos(TICK), gave_up: true };
                    self.hang_up(cx, |state| state == State::Here);
                }
            }
            Phase::Over => {}
        }
    }

    /// Lets the clients who are here speak.
    fn start(&mut self, cx: &mut ServiceContext<'_, Client<P::Session>>) {
        if self.run.here == 0 {
            return self.wind_up(cx);
        }
        self.workload.on_start(self.run, cx);
        self.set_timer(cx);
    }

    fn wind_up(&mut self, cx: &mut ServiceContext<'_, Client<P::Session>>) {
        let now = self.run.now(cx);
        self.run.wind_up(now);
        self.advance(cx);
    }

    /// Takes the last readings, and begins to say goodbye.
    fn see_out(&mut self, cx: &mut ServiceContext<'_, Client<P::Session>>) {
        let run = &mut *self.run;
        run.read_end();
        let until = run.now(cx) + nanos(PATIENCE);
        run.phase = Phase::Leaving { until, gave_up: false };
        if self.workload.say_goodbye(run, cx) {
            self.advance(cx);
        } else {
            self.finish(cx);
        }
    }

    fn finish(&mut self, cx: &mut ServiceContext<'_, Client<P::Session>>) {
        self.run.phase = Phase::Over;
        cx.stop();
    }

    /// Aborts the connections in these states.
    fn hang_up(
        &mut self,
        cx: &mut ServiceContext<'_, Client<P::Session>>,
        which: impl Fn(State) -> bool,
    ) {
        let those: Vec<ConnId> =
            cx.connections().filter(|(_, client)| which(client.state)).map(|(id, _)| id).collect();
        for id in those {
            if let Some(mut cx) = cx.connection(id) {
                self.workload.count_owed(self.run, &mut cx);
                cx.abort();
            }
        }
    }

    /// A client that had been greeted is gone.
    fn depart(&mut self, cx: &mut Context<'_, Client<P::Session>>, right: bool) {
        cx.session().state = State::Done;
        let number = cx.session().number;
        self.run.departed(number);
        self.workload.on_gone(self.run, cx, right);
        self.run.fill(&self.connect, cx);
        self.advance(cx);
    }

    /// Checks the greeting. Returns how many bytes it has, or nothing if it is incomplete or wrong.
    fn greeted(&mut self, cx: &mut Context<'_, Client<P::Session>>, bytes: &[u8]) -> Option<usize> {
        let greeted = match &self.greeting {
            Greeting::Dialogue => self.workload.greet(self.run, cx.session(), bytes),
            greeting => greeting.check(bytes),
        };
        match greeted {
            Greeted::Yes(length) => {
                self.arrive(cx);
                Some(length)
            }
            Greeted::NotYet => None,
            Greeted::No(wanted) => {
                self.run.metrics.wrong(Fault::WrongGreeting, bytes, &wanted);
                self.run.ramp.in_flight -= 1;
                cx.session().state = State::Done;
                cx.close();
                self.run.fill(&self.connect, cx);
                self.advance(cx);
                None
            }
        }
    }

    /// A client was greeted, or there is no greeting.
    fn arrive(&mut self, cx: &mut Context<'_, Client<P::Session>>) {
        cx.session().state = State::Here;
        let now = self.run.now(cx);
        self.run.arrived(cx.session().number, cx.id(), now);
        self.workload.on_greeted(self.run, cx);
        self.run.fill(&self.connect, cx);
        self.advance(cx);
    }

    /// Sets the timer of the next tick.
    fn set_timer(&mut self, cx: &mut ServiceContext<'_, Client<P::Session>>) {
        if let Some(timer) = self.timer.take() {
            cx.cancel_service_timer(timer);
        }
        let run = &*self.run;
        if run.phase == Phase::Over {
            return;
        }
        // Those who wait for the clients of other threads are not told when they come.
        let waiting = run.phase == Phase::Connecting && run.ramp.is_done();
        let paced = run.ramp.is_paced() || waiting || run.is_loading() && self.workload.is_paced();
        let mut wait = if paced { FINE_TICK } else { TICK };
        let deadline = run.deadline().filter(|_| run.is_loading());
        let second = run.next_second();
        for deadline in deadline.into_iter().chain(second) {
            let left = deadline.saturating_sub(run.now(cx));
            wait = wait.min(Duration::from_nanos(left)).max(FINE_TICK);
        }
        self.timer = Some(cx.set_service_timer(wait));
    }
}

impl<P: Workload> Handler for Driver<'_, P> {
    type Session = Client<P::Session>;
    type Message = ();

    fn on_start(&mut self, cx: &mut ServiceContext<'_, Self::Session>) {
        if self.run.plan.mode.begins_at_once() {
            let now = self.run.now(cx);
            self.run.start(now);
        }
        self.run.fill(&self.connect, cx);
        self.set_timer(cx);
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self::Session>) {
        self.run.connected();
        cx.session().state = State::Greeting;
        if self.greeting == Greeting::None {
            self.arrive(cx);
        }
    }

    fn on_bytes(&mut self, cx: &mut Context<'_, Self::Session>, bytes: &[u8]) -> usize {
        if self.run.has_given_up() {
            return bytes.len();
        }
        let (loading, lines) = (self.run.is_loading(), self.run.metrics.lines);
        let greeting = match cx.session().state {
            State::Here => 0,
            State::Dialled | State::Greeting => match self.greeted(cx, bytes) {
                Some(greeting) => greeting,
                None if cx.session().state == State::Done => return bytes.len(),
                None => return 0,
            },
            State::Done => return bytes.len(),
        };
        let rest = &bytes[greeting..];
        let mut taken = greeting;
        if !rest.is_empty() {
            taken += self.workload.on_bytes(self.run, cx, rest);
        }
        // After the end only what was still owed counts, as with the lines.
        if loading || self.run.is_settling() && self.run.metrics.lines > lines {
            self.run.metrics.bytes_received += taken as u64;
        }
        if !self.run.is_loading() {
            self.advance(cx);
        }
        taken
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Self::Session>) {
        match cx.session().state {
            State::Here => {
                let right = self.workload.on_eof(self.run, cx);
                if !right {
                    self.run.metrics.fault(Fault::ClosedEarly, 1);
                }
                self.depart(cx, right);
            }
            State::Dialled | State::Greeting => {
                cx.session().state = State::Done;
                self.run.ramp.in_flight -= 1;
                self.run.metrics.fault(Fault::NoGreeting, 1);
                self.run.fill(&self.connect, cx);
                self.advance(cx);
            }
            State::Done => {}
        }
        cx.close();
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self::Session>, reason: CloseReason) {
        if self.run.phase == Phase::Over {
            return;
        }
        let (error, detail) = (cx.error(), cx.close_detail());
        let client = cx.session();
        match client.state {
            State::Dialled => {
                let (number, source) = (client.number, client.source);
                let fault = Fault::of_connect(reason);
                if fault != Fault::NoPorts {
                    let why = || unreachable(&self.run.plan.target.address, reason, error);
                    self.run.refusal.get_or_insert_with(|| Refusal { fault, why: why() });
                }
                self.run.not_connected(number, source, fault);
            }
            State::Greeting => {
                self.run.ramp.in_flight -= 1;
                // Under TLS 1.3, that is how a server refuses our certificate.
                let refused = reason == CloseReason::Error(ErrorKind::InvalidData);
                let fault = if refused { Fault::Connect } else { Fault::NoGreeting };
                if let Some(why) = detail.filter(|_| refused) {
                    self.run.refusal.get_or_insert(Refusal { fault, why });
                }
                self.run.metrics.fault(fault, 1);
            }
            State::Here => {
                let fault = match reason {
                    // The client was given up although everything was answered.
                    CloseReason::Aborted if self.workload.on_eof(self.run, cx) => {
                        Some(Fault::NotClosed)
                    }
                    _ => Fault::of_close(reason),
                };
                if let Some(fault) = fault {
                    self.run.metrics.fault(fault, 1);
                }
                return self.depart(cx, false);
            }
            State::Done => return,
        }
        self.run.fill(&self.connect, cx);
        self.advance(cx);
    }

    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, Self::Session>, _timer: TimerId) {
        let now = self.run.now(cx);
        self.run.fill(&self.connect, cx);
        self.workload.on_tick(self.run, cx);
        self.run.cut_second(now);
        let mute = self.run.ramp.in_flight > 0 && now > self.run.moved + nanos(PATIENCE);
        let late = self.run.phase == Phase::Connecting && now >= self.run.late();
        if mute || late {
            // No greeting will come any more, neither theirs nor that of later clients.
            self.run.moved = now;
            self.run.ramp.stop();
            self.hang_up(cx, |state| state == State::Greeting || late && state == State::Dialled);
        }
        self.advance(cx);
        self.run.show(now);
        self.set_timer(cx);
    }

    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, Self::Session>) {
        if self.run.phase == Phase::Over {
            return;
        }
        if !self.run.has_given_up() {
            self.workload.count_all_owed(self.run, cx);
        }
        let now = self.run.now(cx);
        self.run.interrupted = true;
        match self.run.phase {
            Phase::Connecting | Phase::WarmingUp { .. } | Phase::CoolingDown { .. } => {
                self.run.metrics.restart();
                self.run.start(now);
                self.run.end(now);
            }
            Phase::Loading => self.run.end(now),
            _ => {}
        }
        self.run.read_end();
        self.run.phase = Phase::Over;
    }

    /// The server under load must see lines of its protocol or nothing.
    fn farewell(&self, _why: Farewell, _limits: &Limits) -> Cow<'static, [u8]> {
        Cow::Borrowed(b"")
    }
}
