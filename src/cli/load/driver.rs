use std::borrow::Cow;
use std::time::Duration;

use reactor::{CloseReason, ConnId, Context, Farewell, Handler, Limits, ServiceContext, TimerId};

use super::fault::Fault;
use super::modes::Part;
use super::run::{Act, Client, Crew, PATIENCE, Refusal, State, nanos};
use crate::cli::failure::unreachable;

/// How often connections and lines that have their own pace are looked after; it is the timers'
/// resolution.
const BEAT: Duration = Duration::from_millis(1);
const TICK: Duration = Duration::from_millis(100);

/// Brings the clients in, lets them play their part, and sees them out.
///
/// The reactor keeps its handlers for itself; what is to be looked at afterwards is borrowed.
#[derive(Debug)]
pub(crate) struct Stage<'p, P> {
    crew: &'p mut Crew,
    part: &'p mut P,
    /// The next beat.
    timer: Option<TimerId>,
}

impl<'p, P: Part> Stage<'p, P> {
    pub(crate) fn new(crew: &'p mut Crew, part: &'p mut P) -> Stage<'p, P> {
        Stage { crew, part, timer: None }
    }

    /// Goes on to the next act when it is time. Called whenever something has changed.
    fn advance(&mut self, cx: &mut ServiceContext<'_, Client<P::Session>>) {
        let now = self.crew.now(cx);
        let crew = &mut *self.crew;
        if crew.refusal.is_some() && crew.tally.connections == 0 {
            // Nobody listens: no need to be told so by each of thousands.
            crew.launcher.stop();
        }
        match crew.act {
            Act::Opening => {
                if !crew.launcher.is_done() {
                    return;
                }
                crew.start(now);
                if crew.here == 0 {
                    return self.wind_up(cx);
                }
                self.part.start(crew, cx);
                self.beat_again(cx);
            }
            Act::Playing => {
                let late = crew.deadline().is_some_and(|deadline| deadline <= now);
                if late || crew.here == 0 && crew.launcher.is_done() {
                    self.wind_up(cx);
                }
            }
            Act::Settling { until, gave_up } => {
                let settled = self.part.is_settled(crew) || crew.here == 0;
                if settled && crew.launcher.is_done() {
                    self.see_out(cx);
                } else if until <= now {
                    if gave_up {
                        return self.see_out(cx);
                    }
                    crew.act = Act::Settling { until: now + nanos(TICK), gave_up: true };
                    self.part.give_up(crew, cx);
                    self.hang_up(cx, |state| matches!(state, State::Dialled | State::Greeting));
                }
            }
            Act::Leaving { until, gave_up } => {
                if crew.here == 0 {
                    self.finish(cx);
                } else if until <= now {
                    if gave_up {
                        return self.finish(cx);
                    }
                    crew.act = Act::Leaving { until: now + nanos(TICK), gave_up: true };
                    self.hang_up(cx, |state| state == State::Here);
                }
            }
            Act::Over => {}
        }
    }

    fn wind_up(&mut self, cx: &mut ServiceContext<'_, Client<P::Session>>) {
        let now = self.crew.now(cx);
        self.crew.end(now);
        self.crew.act = Act::Settling { until: now + nanos(PATIENCE), gave_up: false };
        self.advance(cx);
    }

    fn see_out(&mut self, cx: &mut ServiceContext<'_, Client<P::Session>>) {
        let crew = &mut *self.crew;
        crew.read_end();
        let until = crew.now(cx) + nanos(PATIENCE);
        crew.act = Act::Leaving { until, gave_up: false };
        if self.part.leave(crew, cx) {
            self.advance(cx);
        } else {
            self.finish(cx);
        }
    }

    fn finish(&mut self, cx: &mut ServiceContext<'_, Client<P::Session>>) {
        self.crew.act = Act::Over;
        cx.stop();
    }

    /// Ends those connections at once.
    fn hang_up(
        &mut self,
        cx: &mut ServiceContext<'_, Client<P::Session>>,
        which: impl Fn(State) -> bool,
    ) {
        let those: Vec<ConnId> =
            cx.connections().filter(|(_, client)| which(client.state)).map(|(id, _)| id).collect();
        for id in those {
            if let Some(mut cx) = cx.connection(id) {
                self.part.owed(self.crew, &mut cx);
                cx.abort();
            }
        }
    }

    /// A client that was here is gone.
    fn depart(&mut self, cx: &mut Context<'_, Client<P::Session>>, right: bool) {
        cx.session().state = State::Done;
        let number = cx.session().number;
        self.crew.departed(number);
        self.part.left(self.crew, cx, right);
        self.crew.fill(cx);
        self.advance(cx);
    }

    /// Checks the greeting; says how many bytes it took, none while it is incomplete.
    fn greeted(&mut self, cx: &mut Context<'_, Client<P::Session>>, bytes: &[u8]) -> Option<usize> {
        let wanted = P::GREETING.as_bytes();
        let common = wanted.len().min(bytes.len());
        if bytes[..common] != wanted[..common] {
            self.crew.tally.wrong(Fault::WrongGreeting, bytes, wanted);
            self.crew.launcher.in_flight -= 1;
            cx.session().state = State::Done;
            cx.close();
            self.crew.fill(cx);
            self.advance(cx);
            return None;
        }
        if common < wanted.len() {
            return None;
        }
        cx.session().state = State::Here;
        let now = self.crew.now(cx);
        self.crew.arrived(cx.session().number, cx.id(), now);
        self.part.arrived(self.crew, cx);
        self.crew.fill(cx);
        self.advance(cx);
        Some(common)
    }

    fn beat_again(&mut self, cx: &mut ServiceContext<'_, Client<P::Session>>) {
        if let Some(timer) = self.timer.take() {
            cx.cancel_service_timer(timer);
        }
        let crew = &*self.crew;
        if crew.act == Act::Over {
            return;
        }
        let paced = crew.launcher.is_paced() || crew.is_playing() && self.part.is_paced();
        let mut wait = if paced { BEAT } else { TICK };
        if crew.is_playing()
            && let Some(deadline) = crew.deadline()
        {
            let left = deadline.saturating_sub(crew.now(cx));
            wait = wait.min(Duration::from_nanos(left)).max(BEAT);
        }
        self.timer = Some(cx.set_service_timer(wait));
    }
}

impl<P: Part> Handler for Stage<'_, P> {
    type Session = Client<P::Session>;
    type Message = ();

    /// The beginning: outside of a hook there is neither a timer nor a session to give.
    fn on_message(&mut self, cx: &mut ServiceContext<'_, Self::Session>, (): ()) {
        if self.crew.plan.mode.begins_at_once() {
            let now = self.crew.now(cx);
            self.crew.start(now);
        }
        self.crew.fill(cx);
        self.beat_again(cx);
    }

    fn on_open(&mut self, cx: &mut Context<'_, Self::Session>) {
        self.crew.connected();
        cx.session().state = State::Greeting;
    }

    fn on_bytes(&mut self, cx: &mut Context<'_, Self::Session>, bytes: &[u8]) -> usize {
        if self.crew.has_given_up() {
            return bytes.len();
        }
        let (playing, lines) = (self.crew.is_playing(), self.crew.tally.lines);
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
            taken += self.part.take(self.crew, cx, rest);
        }
        // After the end only what was still owed counts, as with the lines.
        if playing || self.crew.is_settling() && self.crew.tally.lines > lines {
            self.crew.tally.bytes_received += taken as u64;
        }
        if !self.crew.is_playing() {
            self.advance(cx);
        }
        taken
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Self::Session>) {
        match cx.session().state {
            State::Here => {
                let right = self.part.ended(self.crew, cx);
                if !right {
                    self.crew.tally.fault(Fault::ClosedEarly, 1);
                }
                self.depart(cx, right);
            }
            State::Dialled | State::Greeting => {
                cx.session().state = State::Done;
                self.crew.launcher.in_flight -= 1;
                self.crew.tally.fault(Fault::NoGreeting, 1);
                self.crew.fill(cx);
                self.advance(cx);
            }
            State::Done => {}
        }
        cx.close();
    }

    fn on_close(&mut self, cx: &mut Context<'_, Self::Session>, reason: CloseReason) {
        if self.crew.act == Act::Over {
            return;
        }
        let error = cx.error();
        let client = cx.session();
        match client.state {
            State::Dialled => {
                let (number, source) = (client.number, client.source);
                let fault = Fault::of_connect(reason);
                if fault != Fault::NoPorts {
                    let why = || unreachable(&self.crew.plan.target, reason, error);
                    self.crew.refusal.get_or_insert_with(|| Refusal { fault, why: why() });
                }
                self.crew.not_connected(number, source, fault);
            }
            State::Greeting => {
                self.crew.launcher.in_flight -= 1;
                self.crew.tally.fault(Fault::NoGreeting, 1);
            }
            State::Here => {
                let fault = match reason {
                    // It was given up although it has answered everything.
                    CloseReason::Aborted if self.part.ended(self.crew, cx) => {
                        Some(Fault::NotClosed)
                    }
                    _ => Fault::of_close(reason),
                };
                if let Some(fault) = fault {
                    self.crew.tally.fault(fault, 1);
                }
                return self.depart(cx, false);
            }
            State::Done => return,
        }
        self.crew.fill(cx);
        self.advance(cx);
    }

    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, Self::Session>, _timer: TimerId) {
        let now = self.crew.now(cx);
        self.crew.fill(cx);
        self.part.beat(self.crew, cx);
        let mute = self.crew.launcher.in_flight > 0 && now > self.crew.moved + nanos(PATIENCE);
        let late = self.crew.act == Act::Opening && now >= self.crew.late();
        if mute || late {
            // Their greeting will not come any more, nor that of others after them.
            self.crew.moved = now;
            self.crew.launcher.stop();
            self.hang_up(cx, |state| state == State::Greeting || late && state == State::Dialled);
        }
        self.advance(cx);
        self.crew.show(now);
        self.beat_again(cx);
    }

    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, Self::Session>) {
        if self.crew.act == Act::Over {
            return;
        }
        if !self.crew.has_given_up() {
            self.part.all_owed(self.crew, cx);
        }
        let now = self.crew.now(cx);
        self.crew.interrupted = true;
        if self.crew.act == Act::Opening {
            self.crew.start(now);
        }
        if self.crew.is_playing() {
            self.crew.end(now);
        }
        self.crew.read_end();
        self.crew.act = Act::Over;
    }

    /// The servers under load want lines of their protocol or nothing.
    fn farewell(&self, _why: Farewell, _limits: &Limits) -> Cow<'static, [u8]> {
        Cow::Borrowed(b"")
    }
}
