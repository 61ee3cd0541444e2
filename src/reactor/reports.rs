//! Looking inside: collects what `status` has the types of, and closes a connection by its number;
//! for the embedder between two turns, for a handler at the end of one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::DerefMut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fairness::{REPORTS_PER_TURN, ROWS_PER_PAGE, ROWS_RANKED, SLOTS_PER_PAGE, SLOTS_SEEN};
use super::loop_state::LoopState;
use super::service::{ActiveService, AnyService};
use super::status::{
    Ask, ConnectionStatus, CoreStatus, Cursor, ListenerStatus, Order, Page, Report, Selection,
    ServiceStatus, Status, Waits,
};
use super::table::{Slot, Table};
use super::total_memory::Memory;
use super::{Counters, Reactor, Service};
use crate::connection::clock::Nanos;
use crate::connection::connection::{Connection, Stage};
use crate::connection::flags::Flag;
use crate::connection::{CloseReason, ConnId};
use crate::handler::Handler;

/// What the handler of one connection has asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) service: usize,
    pub(crate) id: ConnId,
    pub(crate) what: Ask,
    /// What all cores together have answered; none where it was not asked yet.
    pub(crate) answer: Option<Report>,
}

/// What can be seen of a service. The default bodies are those of datagrams, which have no
/// connections.
pub(crate) trait Inspect {
    /// None for a place whose service was removed.
    fn status(&self, state: &LoopState) -> Option<ServiceStatus>;
    /// How many connections there are.
    fn connection_count(&self) -> usize {
        0
    }
    /// How many slots of connections there are to look at, vacant ones between them too.
    fn slots(&self) -> usize {
        0
    }
    /// The connection in a slot.
    fn connection(&self, _slot: usize, _now: Nanos) -> Option<ConnectionStatus> {
        None
    }
    /// Ranks all connections.
    fn rank(&self, _ranking: &mut Ranking, _now: Nanos) {}
    /// Begins to keep accounts of the connections, or ends it.
    fn keep_accounts(&mut self, _on: bool, _now: Nanos) {}
    /// Closes the connection with this number; says whether there is one.
    fn close(&mut self, _number: u64, _why: &str, _state: &mut LoopState) -> bool {
        false
    }
    /// Tells the handler what it has asked for on behalf of this connection, if that is still there.
    fn report(&mut self, _id: ConnId, _report: &Report, _state: &mut LoopState) {}
}

/// The first connections in some order.
pub(crate) struct Ranking {
    order: Order,
    most: usize,
    /// The last of them is on top.
    first: BinaryHeap<Reverse<Ranked>>,
}

/// One of them: the greater, the sooner it comes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    key: u64,
    /// Of two that are alike the older one comes first.
    number: Reverse<u64>,
    service: usize,
    slot: usize,
}

impl Ranking {
    #[inline]
    fn add(&mut self, key: u64, id: ConnId, service: usize) {
        let number = Reverse(id.number());
        let entry = Reverse(Ranked { key, number, service, slot: id.slot() });
        if self.first.len() < self.most {
            self.first.push(entry);
        } else if let Some(mut last) = self.first.peek_mut()
            && entry < *last
        {
            *last = entry;
        }
    }
}

impl<S> Table<S> {
    fn status_of(&self, slot: &Slot<S>, now: Nanos) -> ConnectionStatus {
        let Slot { conn, stream, .. } = slot;
        ConnectionStatus {
            id: conn.id,
            service: Arc::clone(&self.name.name),
            peer: conn.peer.get(),
            credentials: stream.credentials(),
            outbound: conn.flags.has(Flag::Outbound),
            unsent: conn.output.len(),
            kept: slot.kept(),
            idle: Duration::from_nanos(now.saturating_sub(conn.active)),
            usage: self.accounts.usage(conn.id, now),
            waits: Waits::of(conn),
        }
    }

    /// The higher it is, the sooner the connection comes.
    fn key(&self, slot: &Slot<S>, order: Order, now: Nanos) -> u64 {
        let conn = &slot.conn;
        let usage = || self.accounts.usage(conn.id, now).unwrap_or_default();
        match order {
            Order::Table | Order::Oldest => 0,
            Order::Unsent => conn.output.len() as u64,
            Order::Idle => now.saturating_sub(conn.active),
            Order::BytesIn => usage().bytes_in,
            Order::BytesOut => usage().bytes_out,
            Order::Lines => usage().lines_in,
        }
    }
}

impl<H: Handler> Inspect for ActiveService<H> {
    fn status(&self, state: &LoopState) -> Option<ServiceStatus> {
        let Table { name, limits, connections, .. } = &self.table;
        let bound = self.listeners.iter().filter(|(_, listener)| listener.is_bound());
        let listeners = bound.map(|(_, listener)| ListenerStatus {
            address: listener.address().clone(),
            layers: listener.layers().iter().map(|layer| layer.name()).collect(),
        });
        Some(ServiceStatus {
            name: name.to_string(),
            listeners: listeners.collect(),
            counters: state.counted_for(name.service),
            connections: connections.len(),
            unsent: self.table.total(Memory::Output),
            limits: Some(limits.clone()),
        })
    }

    fn connection_count(&self) -> usize {
        self.table.connections.len()
    }

    fn slots(&self) -> usize {
        self.table.slots
    }

    fn connection(&self, slot: usize, now: Nanos) -> Option<ConnectionStatus> {
        let slot = self.table.connections.get(slot)?;
        (slot.conn.stage != Stage::Ended).then(|| self.table.status_of(slot, now))
    }

    fn rank(&self, ranking: &mut Ranking, now: Nanos) {
        for (_, slot) in &self.table.connections {
            if slot.conn.stage != Stage::Ended {
                let key = self.table.key(slot, ranking.order, now);
                ranking.add(key, slot.conn.id, self.table.service);
            }
        }
    }

    fn keep_accounts(&mut self, on: bool, now: Nanos) {
        let Table { accounts, connections, .. } = &mut self.table;
        let slots = connections.iter().map(|(slot, _)| slot + 1).max();
        accounts.keep(on, slots.unwrap_or(0), now);
    }

    fn close(&mut self, number: u64, why: &str, state: &mut LoopState) -> bool {
        let mut all = self.table.connections.iter().map(|(_, slot)| &slot.conn);
        let named = |conn: &&Connection| conn.id.number() == number && conn.stage != Stage::Ended;
        let Some(Connection { id, stage, .. }) = all.find(named) else { return false };
        let (id, stage, name) = (*id, *stage, &self.table.name);
        // It may be somebody else's text.
        let why = why.replace(char::is_control, "?");
        log::info!("{name}: {} is closed by the administrator: {why}", self.describe(id));
        match stage {
            // It was told to go before, and has not gone yet.
            Stage::Closing | Stage::Lingering => self.table.end(id, CloseReason::Aborted),
            _ => self.table.close(id, CloseReason::Administrator, state),
        }
        true
    }

    fn report(&mut self, id: ConnId, report: &Report, state: &mut LoopState) {
        let Some(slot) = self.table.get_mut(id) else { return };
        // First, since the hook may ask again.
        slot.stop_waiting(Flag::Asked, state.turn.now);
        if slot.conn.stage == Stage::Open {
            // To make the report was not the handler's work.
            state.turn.clock = Instant::now();
            self.call(id, true, state, |handler, cx| handler.on_report(cx, report));
            self.slow_hooks.check(state, &self.table.name, self.table.limits.slow_call);
            self.table.arm(id);
            // What has arrived meanwhile was told by an edge that does not repeat.
            self.table.enqueue_if_work(id);
        }
    }
}

/// Tells handlers what they have asked for, within a bound. What is left waits for the next turn.
pub(super) fn answer<S>(services: &mut [S], state: &mut LoopState)
where
    S: DerefMut<Target: AnyService>,
{
    let mut seen = 0;
    for _ in 0..REPORTS_PER_TURN.min(state.asked.len()) {
        let Some(Asked { service, id, what, answer }) = state.asked.pop_front() else { return };
        if let Some(report) = answer {
            services[service].report(id, &report, state);
            continue;
        }
        // Its own connection is here.
        let own = matches!(&what, Ask::Close { number, .. } if *number == id.number());
        if let Some(cores) = &mut state.for_cores
            && !own
        {
            cores.asked.push(Asked { service, id, what, answer });
            continue;
        }
        match what {
            Ask::Close { number, why } if number == id.number() => {
                // Afterwards nothing more could be said to it.
                services[service].report(id, &Report::Closed(true), state);
                services[service].close(number, &why, state);
            }
            Ask::Close { number, why } => {
                let closed = close(services, number, &why, state);
                services[service].report(id, &Report::Closed(closed), state);
                seen += services.iter().map(|service| service.slots()).sum::<usize>();
            }
            Ask::Connections(which) => {
                let (page, looked_at) = page(services, &which, state.turn.now);
                services[service].report(id, &Report::Connections(page), state);
                seen += looked_at;
            }
            Ask::Overview { watch } => {
                if watch {
                    state.meter.watch(state.turn.now);
                }
                let overview = status(services, state, state.turn.now);
                services[service].report(id, &Report::Overview(overview), state);
            }
        }
        if seen > SLOTS_SEEN {
            return;
        }
    }
}

fn close<S>(services: &mut [S], number: u64, why: &str, state: &mut LoopState) -> bool
where
    S: DerefMut<Target: AnyService>,
{
    services.iter_mut().any(|service| service.close(number, why, state))
}

fn status<S>(services: &[S], state: &LoopState, now: Nanos) -> Status
where
    S: DerefMut<Target: AnyService>,
{
    let services: Vec<_> = services.iter().filter_map(|service| service.status(state)).collect();
    let turns = state.meter.turns(now);
    let (slept, busy) = (turns.slept, turns.busy);
    let connections = services.iter().map(|service| service.connections).sum();
    Status {
        counters: state.counted(),
        uptime: Duration::from_nanos(now - 1),
        turns,
        unsent: services.iter().map(|service| service.unsent).sum(),
        services,
        stopping: state.is_ending(),
        cores: vec![CoreStatus { index: 0, connections, slept, busy }],
    }
}

/// The connections that were asked for, and how many slots were looked at.
fn page<S>(services: &[S], which: &Selection, now: Nanos) -> (Page, usize)
where
    S: DerefMut<Target: AnyService>,
{
    let wanted = |service: &S| which.service.as_deref().is_none_or(|name| service.name() == name);
    let total = services.iter().filter(|service| wanted(service));
    let total = total.map(|service| service.connection_count()).sum();
    let numbered = services.iter().enumerate().filter(|(_, service)| wanted(service));
    if which.order == Order::Table {
        let (connections, next, seen) = walk(numbered, which, now);
        return (Page { connections, next, total }, seen);
    }
    let most = which.most.min(ROWS_RANKED);
    let mut ranking = Ranking { order: which.order, most, first: BinaryHeap::new() };
    let mut seen = 0;
    for (_, service) in numbered {
        service.rank(&mut ranking, now);
        seen += service.slots();
    }
    let first = ranking.first.into_sorted_vec();
    let row =
        |Reverse(ranked): Reverse<Ranked>| services[ranked.service].connection(ranked.slot, now);
    (Page { connections: first.into_iter().filter_map(row).collect(), next: None, total }, seen)
}

/// Connections as they lie in memory, where to go on, and how many slots were looked at.
fn walk<'s, S>(
    services: impl Iterator<Item = (usize, &'s S)>,
    which: &Selection,
    now: Nanos,
) -> (Vec<ConnectionStatus>, Option<Cursor>, usize)
where
    S: DerefMut<Target: AnyService> + 's,
{
    let most = which.most.min(ROWS_PER_PAGE);
    let first = which.after.unwrap_or(Cursor { core: 0, service: 0, slot: 0 });
    let (mut rows, mut seen) = (Vec::new(), 0);
    for (number, service) in services.filter(|(number, _)| *number >= first.service) {
        let begin = if number == first.service { first.slot } else { 0 };
        for slot in begin..service.slots() {
            if rows.len() >= most || seen >= SLOTS_PER_PAGE {
                return (rows, Some(Cursor { core: first.core, service: number, slot }), seen);
            }
            seen += 1;
            rows.extend(service.connection(slot, now));
        }
    }
    (rows, None, seen)
}

impl Reactor<'_> {
    /// The state of the loop, of its services and of their listeners, as plain values. It costs a
    /// little for each service and nothing for connections.
    ///
    /// A handler cannot look at other services from within a hook; it
    /// [asks for a report](crate::Context::request_report) and is told at the end of the turn. That is for
    /// a connection that has asked. To look by the clock, run the turns:
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use reactor::{Callbacks, Reactor};
    ///
    /// let mut reactor = Reactor::new()?;
    /// let service = reactor.listen("127.0.0.1:0", Callbacks::new())?;
    /// # service.handle().stop();
    /// let mut next = Instant::now() + Duration::from_secs(1);
    /// while reactor.exit().is_none() {
    ///     reactor.turn(Some(next.saturating_duration_since(Instant::now())))?;
    ///     if Instant::now() >= next {
    ///         let status = reactor.status();
    ///         println!("{} turns, {} bytes unsent", status.turns.count, status.unsent);
    ///         next += Duration::from_secs(1);
    ///     }
    /// }
    /// # Ok::<(), reactor::Error>(())
    /// ```
    pub fn status(&self) -> Status {
        status(&self.services, &self.state, self.moment())
    }

    /// The state of some connections.
    ///
    /// In the order [`Table`](Order::Table) a page has 256 at most, and [`Page::next`] is where to go
    /// on; a connection that is there all the time is on exactly one page. In the other orders it
    /// looks at all connections, and gives 1,024 of them at most: with 10,000 connections it takes a
    /// fifth of a millisecond.
    ///
    /// ```
    /// use reactor::{Callbacks, Reactor, Selection};
    ///
    /// let mut reactor = Reactor::new()?;
    /// reactor.listen("127.0.0.1:0", Callbacks::new())?;
    /// let mut which = Selection::default();
    /// loop {
    ///     let page = reactor.connections(&which);
    ///     for connection in &page.connections {
    ///         println!("{} waits for {}", connection.id, connection.waits);
    ///     }
    ///     which.after = page.next;
    ///     if which.after.is_none() {
    ///         break;
    ///     }
    /// }
    /// # Ok::<(), reactor::Error>(())
    /// ```
    pub fn connections(&self, which: &Selection) -> Page {
        page(&self.services, which, self.moment()).0
    }

    /// Closes the connection with this [number](ConnId::number), of whatever service, gracefully and
    /// with [`CloseReason::Administrator`]; `why` goes to the log. One that is closing already is cut
    /// off. False if there is none.
    pub fn close(&mut self, number: u64, why: &str) -> bool {
        close(&mut self.services, number, why, &mut self.state)
    }

    /// Keeps accounts of what each connection does from now on, for
    /// [`usage`](ConnectionStatus::usage), or keeps none. It takes 32 bytes for each connection, and
    /// nothing worth mentioning for each read. They are off by default.
    pub fn set_accounting(&mut self, on: bool) {
        let now = self.moment();
        self.state.accounting = on;
        self.services.iter_mut().for_each(|service| service.keep_accounts(on, now));
    }

    /// What the loop has done so far for one service; nothing for one that was [removed](Self::remove).
    pub fn counters_of<M>(&self, service: &Service<M>) -> Counters {
        self.place(service).map(|place| self.state.counted_for(place)).unwrap_or_default()
    }

    /// Now: between two turns the loop's own time stands still.
    fn moment(&self) -> Nanos {
        self.state.nanos(Instant::now())
    }
}
