//! One core's seat at a bus: what its handler does for its clients, and what comes back for them. `saving` has another
//! process go on with it.

mod saving;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::bus::{Action, Bus, Event, MemberId, News, Told};
use crate::{ConnId, Context, Core, Decoder, Encoder, Peers, ServiceContext, TimerId, Unreadable};

/// A member with so many lines that the bus has not taken is not read.
pub(super) const MOST_LINES: usize = 64;
/// A member with so many bytes that the bus has not taken is not read.
pub(super) const MOST_BYTES: usize = 64 << 10;

/// What clients hear, in words. On each core there is one of it.
///
/// All news come to all of them in the same order, so whatever state one makes of news alone is the same
/// on each core, and on a bus between machines in each process.
pub trait Words {
    /// What a newcomer hears first, when its arrival has its place among the news.
    fn welcome(&mut self) -> String;

    /// What everybody hears of the news, with the end of the line; nothing if it is empty.
    fn news(&mut self, news: &News) -> String;

    /// What one member is told, likewise.
    fn told(&mut self, told: &Told) -> String;

    /// Saves the state that they have made of the news so far, for the process that goes on with the room; see
    /// [`Seat::save`]. The default saves nothing.
    fn save(&self, to: &mut Encoder) {
        let _ = to;
    }

    /// Restores what [`save`](Self::save) has written.
    ///
    /// # Errors
    /// [`Unreadable`] if it is invalid. What `save` has written of the words as they were is then restored.
    fn restore(&mut self, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        let _ = from;
        Ok(())
    }
}

/// One core's part in a room: the link between the clients of a handler and a [`Bus`].
///
/// The handler says what its clients do, by [`event`](Self::event); what comes of it the seat sends to the
/// clients, in [`Words`]. The [first core](Core::index) has the bus, and all others reach it by messages.
/// The methods that have the names of hooks are to be called in those hooks.
///
/// All connections of the handler are members from [`on_open`](Self::on_open) to
/// [`on_close`](Self::on_close). A member is [welcomed](Words::welcome) when its arrival has its place
/// among the news, and hears all that comes after it and nothing from before.
///
/// A member is not read while it waits for an answer, while the bus holds it, while 64 lines or 64 KiB of it have
/// not been taken by the bus, and while a core is [behind](Peers::hold_back). Meanwhile no
/// [`idle_timeout`](crate::Limits::idle_timeout) or [`line_timeout`](crate::Limits::line_timeout) applies.
/// To do that the seat [pauses](Context::pause) and resumes connections, so a handler of its own pauses
/// has to do so elsewhere.
pub struct Seat<W> {
    words: W,
    /// On the first core.
    bus: Option<Box<dyn Bus>>,
    /// The number of this core.
    core: usize,
    peers: Option<Peers<Message>>,
    /// Those whose arrival has no place among the news yet, so that they hear nothing.
    arriving: HashSet<ConnId>,
    /// The members here of whom something is under way.
    pending: HashMap<MemberId, Pending>,
    /// The service shuts down: nobody does anything any more, and nobody leaves.
    stopped: bool,
    /// When the bus is to be told the time.
    timer: Option<(Instant, TimerId)>,
    /// The number of the last [`Action::Drain`], and who has not taken what came before.
    drain: u64,
    undrained: HashSet<ConnId>,
    /// How many cores have not drained.
    cores_undrained: usize,
    /// All have, and the bus is to be told.
    drained: bool,
}

/// What seats say to each other: the [`Message`](crate::Handler::Message) of a handler that has one.
#[derive(Debug)]
pub struct Message(Says);

#[derive(Debug)]
enum Says {
    /// To the first core: a member of another one has done something.
    Event { core: usize, member: MemberId, event: Event },
    /// From the first core: what the bus asks for, after it has taken an event of that member,
    /// of that size.
    Actions { taken: Option<(MemberId, usize)>, actions: Arc<[Action]> },
    /// To the first core: everybody on a core has taken what was said up to that drain.
    Drained { drain: u64 },
    /// To the first core: the bus has something to do.
    Wake,
}

/// What is under way of one member.
#[derive(Debug, Default)]
struct Pending {
    /// Lines and bytes that the bus has not taken.
    lines: usize,
    bytes: usize,
    /// It waits for so many answers.
    asks: u32,
    /// What is to be done after that.
    then: Option<Then>,
    /// The bus holds it.
    held: bool,
    /// It is not read for any of these reasons.
    paused: bool,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Close,
    Stop,
}

impl Message {
    /// Has the [bus](Bus::tick) look what there is to do. To be posted to the first core's handler by
    /// whatever a bus of your own waits for; see [`Core::handle`].
    pub fn wake() -> Message {
        Message(Says::Wake)
    }
}

impl Pending {
    /// Whether the member is not to be read: from the limit on, until half of it has gone.
    fn waits(&self) -> bool {
        let half = if self.paused { 2 } else { 1 };
        let full = self.lines * half >= MOST_LINES || self.bytes * half >= MOST_BYTES;
        self.asks > 0 || self.held || full
    }

    fn is_over(&self) -> bool {
        self.asks == 0 && !self.held && self.lines == 0
    }
}

impl<W: Words> Seat<W> {
    /// The seat of one of several cores. On the first one, `bus` makes the bus.
    pub fn new<B: Bus + 'static>(
        core: &Core<Message>,
        words: W,
        bus: impl FnOnce() -> B,
    ) -> Seat<W> {
        let bus = (core.index() == 0).then(|| Box::new(bus()) as Box<dyn Bus>);
        Seat::of(words, bus, core.index(), Some(core.peers()))
    }

    /// The only seat at a bus, for a handler on one [`Reactor`](crate::Reactor) or in a test.
    pub fn alone(words: W, bus: impl Bus + 'static) -> Seat<W> {
        Seat::of(words, Some(Box::new(bus)), 0, None)
    }

    fn of(
        words: W,
        bus: Option<Box<dyn Bus>>,
        core: usize,
        peers: Option<Peers<Message>>,
    ) -> Seat<W> {
        Seat {
            words,
            bus,
            core,
            peers,
            arriving: HashSet::new(),
            pending: HashMap::new(),
            stopped: false,
            timer: None,
            drain: 0,
            undrained: HashSet::new(),
            cores_undrained: 0,
            drained: false,
        }
    }

    /// The words, and whatever state they have made of the news so far.
    pub fn words(&self) -> &W {
        &self.words
    }

    /// To be called in [`on_start`](crate::Handler::on_start).
    pub fn on_start<S>(&mut self, cx: &mut ServiceContext<'_, S>) {
        self.carry_out(cx, None);
    }

    /// To be called in [`on_open`](crate::Handler::on_open): the client is a member from now on.
    pub fn on_open<S>(&mut self, cx: &mut Context<'_, S>) {
        self.arriving.insert(cx.id());
        self.event(cx, Event::Arrive);
    }

    /// A member does something. It comes and leaves by [`on_open`](Self::on_open) and
    /// [`on_close`](Self::on_close) alone.
    pub fn event<S>(&mut self, cx: &mut Context<'_, S>, event: Event) {
        match event {
            // Who is gone may have asked thousands of times, and is told nothing.
            Event::Who | Event::Answer(_) if !cx.takes_output() => return,
            Event::Who | Event::Answer(_) | Event::Bye => return self.ask(cx, event, None),
            _ => {}
        }
        let member = cx.id().to_bits();
        self.send(cx, member, event);
        if let Some(peers) = &self.peers {
            peers.hold_back(cx);
        }
    }

    /// A member says [goodbye](Event::Bye), and hears nothing after that: its connection is
    /// [closed](Context::close) before anybody else says something.
    pub fn bye<S>(&mut self, cx: &mut Context<'_, S>) {
        if cx.takes_output() {
            self.ask(cx, Event::Bye, Some(Then::Close));
        } else {
            self.event(cx, Event::Bye);
            cx.close();
        }
    }

    /// [Closes](Context::close) a member's connection after a last line, which may be empty, once it has
    /// heard what it did before.
    pub fn close<S>(&mut self, cx: &mut Context<'_, S>, line: impl Into<String>) {
        if cx.takes_output() {
            self.ask(cx, Event::Answer(line.into()), Some(Then::Close));
        } else {
            cx.close();
        }
    }

    /// [Stops](ServiceContext::stop) the program, likewise.
    pub fn stop<S>(&mut self, cx: &mut Context<'_, S>, line: impl Into<String>) {
        if cx.takes_output() {
            self.ask(cx, Event::Answer(line.into()), Some(Then::Stop));
        } else {
            cx.stop();
        }
    }

    /// To be called in [`on_eof`](crate::Handler::on_eof), in place of its default body: closes the
    /// connection once it has heard what it did.
    pub fn on_eof<S>(&mut self, cx: &mut Context<'_, S>) {
        self.close(cx, "");
    }

    /// To be called in [`on_drain`](crate::Handler::on_drain).
    pub fn on_drain<S>(&mut self, cx: &mut Context<'_, S>) {
        self.member_has_drained(cx);
    }

    /// To be called in [`on_close`](crate::Handler::on_close): the member is gone.
    pub fn on_close<S>(&mut self, cx: &mut Context<'_, S>) {
        let member = cx.id().to_bits();
        self.arriving.remove(&cx.id());
        self.send(cx, member, Event::Leave);
        self.pending.remove(&member);
        self.member_has_drained(cx);
    }

    /// To be called in [`on_service_timer`](crate::Handler::on_service_timer). Says whether the timer is
    /// this one's.
    pub fn on_service_timer<S>(&mut self, cx: &mut ServiceContext<'_, S>, timer: TimerId) -> bool {
        let this = self.timer.is_some_and(|(_, own)| own == timer);
        if this {
            self.timer = None;
            self.tick(cx);
        }
        this
    }

    /// To be called in [`on_message`](crate::Handler::on_message).
    pub fn on_message<S>(&mut self, cx: &mut ServiceContext<'_, S>, message: Message) {
        match message.0 {
            Says::Event { core, member, event } => {
                let size = event.size();
                // Another core may hear of the shutdown later than this one.
                if let Some(bus) = self.bus.as_mut().filter(|_| !self.stopped) {
                    take(&mut **bus, member, event, cx.now());
                }
                self.carry_out(cx, Some((core, (member, size))));
            }
            Says::Actions { taken, actions } => {
                actions.iter().for_each(|action| self.act(cx, action));
                taken.into_iter().for_each(|(member, size)| self.taken(cx, member, size));
            }
            Says::Drained { drain } => {
                if drain == self.drain {
                    self.core_has_drained();
                    self.carry_out(cx, None);
                }
            }
            Says::Wake => self.tick(cx),
        }
    }

    /// To be called in [`on_shutdown`](crate::Handler::on_shutdown).
    pub fn on_shutdown<S>(&mut self, cx: &mut ServiceContext<'_, S>) {
        self.stopped = true;
        if let Some(bus) = &mut self.bus {
            bus.stop(cx.now());
        }
        self.carry_out(cx, None);
    }

    /// A member asks something, and is not read before the answer.
    fn ask<S>(&mut self, cx: &mut Context<'_, S>, event: Event, then: Option<Then>) {
        let member = cx.id().to_bits();
        let pending = self.pending.entry(member).or_default();
        if pending.then.is_some() {
            // It ends already, as at the end of the input behind a BYE.
            return;
        }
        pending.asks += 1;
        pending.then = then;
        self.send(cx, member, event);
    }

    /// Has the bus take an event, here or on the first core.
    fn send<S>(&mut self, cx: &mut ServiceContext<'_, S>, member: MemberId, event: Event) {
        if self.stopped {
            return;
        }
        if let Some(bus) = &mut self.bus {
            take(&mut **bus, member, event, cx.now());
            self.carry_out(cx, None);
        } else if let Some(peers) = &self.peers {
            let pending = self.pending.entry(member).or_default();
            pending.lines += 1;
            pending.bytes += event.size();
            // If this fails the first core has ended, or the service was removed there: soon here too.
            let _ = peers.tell(0, Message(Says::Event { core: self.core, member, event }));
        }
        self.settle(cx, member);
    }

    fn tick<S>(&mut self, cx: &mut ServiceContext<'_, S>) {
        if let Some(bus) = &mut self.bus {
            bus.tick(cx.now());
        }
        self.carry_out(cx, None);
    }

    /// Does what the bus asks for, on all cores, after it has taken an event of a member of another one.
    fn carry_out<S>(
        &mut self,
        cx: &mut ServiceContext<'_, S>,
        mut taken: Option<(usize, (MemberId, usize))>,
    ) {
        loop {
            let Some(bus) = &mut self.bus else { return };
            if std::mem::take(&mut self.drained) {
                bus.drained(cx.now());
            }
            let actions: Arc<[Action]> = std::iter::from_fn(|| bus.poll()).collect();
            self.pass_on(taken.take(), &actions);
            actions.iter().for_each(|action| self.act(cx, action));
            if !self.drained {
                break;
            }
        }
        self.set_timer(cx);
    }

    /// Has the other cores do the same.
    fn pass_on(&self, taken: Option<(usize, (MemberId, usize))>, actions: &Arc<[Action]>) {
        let Some(peers) = &self.peers else { return };
        for core in peers.others() {
            let taken = taken.filter(|taken| taken.0 == core).map(|taken| taken.1);
            if taken.is_some() || !actions.is_empty() {
                let actions = Arc::clone(actions);
                let _ = peers.tell(core, Message(Says::Actions { taken, actions }));
            }
        }
    }

    fn set_timer<S>(&mut self, cx: &mut ServiceContext<'_, S>) {
        let due = self.bus.as_ref().and_then(|bus| bus.deadline());
        if due != self.timer.map(|(due, _)| due) {
            self.timer.take().map(|(_, timer)| cx.cancel_service_timer(timer));
            self.timer = due.map(|due| (due, cx.set_service_timer_at(due)));
        }
    }

    fn act<S>(&mut self, cx: &mut ServiceContext<'_, S>, action: &Action) {
        match action {
            Action::ToAll { news, by } => {
                let (line, by) = (self.words.news(news), by.map(ConnId::from_bits));
                if let Some(by) = by {
                    cx.reply_to(by, &line);
                }
                self.broadcast(cx, &line, by);
            }
            Action::ToOthers(member, news) => {
                let (line, by) = (self.words.news(news), ConnId::from_bits(*member));
                self.broadcast(cx, &line, Some(by));
                if self.arriving.remove(&by) {
                    cx.reply_to(by, self.words.welcome());
                }
            }
            Action::To(member, told) => self.tell(cx, *member, told),
            Action::Hold(member) | Action::Release(member) => {
                if cx.connection(ConnId::from_bits(*member)).is_some() {
                    let pending = self.pending.entry(*member).or_default();
                    pending.held = matches!(action, Action::Hold(_));
                    self.settle(cx, *member);
                }
            }
            Action::Drain => self.begin_drain(cx),
        }
    }

    /// Sends a line to all members but one.
    fn broadcast<S>(&self, cx: &mut ServiceContext<'_, S>, line: &str, but: Option<ConnId>) {
        if line.is_empty() {
            return;
        }
        let arriving = &self.arriving;
        cx.broadcast_if(line, |id, _| {
            Some(id) != but && (arriving.is_empty() || !arriving.contains(&id))
        });
    }

    /// Tells a member something, if it is here.
    fn tell<S>(&mut self, cx: &mut ServiceContext<'_, S>, member: MemberId, told: &Told) {
        let id = ConnId::from_bits(member);
        if cx.connection(id).is_none() {
            return;
        }
        let line = self.words.told(told);
        cx.reply_to(id, line);
        let answered = matches!(told, Told::Who(_) | Told::Line(_));
        let Some(pending) = self.pending.get_mut(&member).filter(|_| answered) else { return };
        pending.asks = pending.asks.saturating_sub(1);
        match pending.then.take_if(|_| pending.asks == 0) {
            Some(Then::Close) => _ = cx.connection(id).map(|mut cx| cx.close()),
            Some(Then::Stop) => cx.stop(),
            None => {}
        }
        self.settle(cx, member);
    }

    /// The bus has taken an event of that size.
    fn taken<S>(&mut self, cx: &mut ServiceContext<'_, S>, member: MemberId, size: usize) {
        if let Some(pending) = self.pending.get_mut(&member) {
            pending.lines = pending.lines.saturating_sub(1);
            pending.bytes = pending.bytes.saturating_sub(size);
            self.settle(cx, member);
        }
    }

    /// Pauses or resumes a member, as what is under way of it wants.
    fn settle<S>(&mut self, cx: &mut ServiceContext<'_, S>, member: MemberId) {
        let Some(pending) = self.pending.get_mut(&member) else { return };
        let waits = pending.waits();
        if waits != std::mem::replace(&mut pending.paused, waits)
            && let Some(mut client) = cx.connection(ConnId::from_bits(member))
        {
            if waits { client.pause() } else { client.resume() }
        }
        if pending.is_over() {
            self.pending.remove(&member);
        }
    }

    /// Asks all members here to tell when they have taken what was said.
    fn begin_drain<S>(&mut self, cx: &mut ServiceContext<'_, S>) {
        self.drain += 1;
        self.cores_undrained = self.peers.as_ref().map_or(0, |peers| peers.others().count()) + 1;
        let mut undrained: HashSet<_> = cx.connections().map(|(id, _)| id).collect();
        undrained.retain(|id| cx.connection(*id).map(|mut cx| cx.request_drain()).is_some());
        self.undrained = undrained;
        if self.undrained.is_empty() {
            self.core_has_drained();
        }
    }

    /// A member has taken what was said, or is gone.
    fn member_has_drained<S>(&mut self, cx: &mut Context<'_, S>) {
        if self.undrained.remove(&cx.id()) && self.undrained.is_empty() {
            self.core_has_drained();
            self.carry_out(cx, None);
        }
    }

    /// All members of a core have.
    fn core_has_drained(&mut self) {
        if self.bus.is_some() {
            self.cores_undrained = self.cores_undrained.saturating_sub(1);
            self.drained = self.cores_undrained == 0;
        } else if let Some(peers) = &self.peers {
            let _ = peers.tell(0, Message(Says::Drained { drain: self.drain }));
        }
    }
}

/// Has a bus take an event. A goodbye is answered, and what others do is heard before both or after both: as two
/// messages they would let it in between.
fn take(bus: &mut dyn Bus, member: MemberId, event: Event, now: Instant) {
    let answer = (event == Event::Bye).then(|| Event::Answer(String::new()));
    bus.event(member, event, now);
    answer.into_iter().for_each(|answer| bus.event(member, answer, now));
}

impl<W> fmt::Debug for Seat<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("core", &self.core).finish_non_exhaustive()
    }
}
