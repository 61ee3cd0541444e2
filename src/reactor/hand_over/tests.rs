use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::connection::clock::nanos;
use crate::connection::input::Scratch;
use crate::handler::Context;
use crate::limits::Limits;
use crate::net::layer::Layer;
use crate::net::memory::{Pipe, SharedWire, Wire};
use crate::reactor::handle::{Mailbox, Shared};
use crate::reactor::loop_state::ServiceEntry;
use crate::reactor::readiness::Readiness;
use crate::reactor::token::Token;
use crate::reactor::turn::settle;
use crate::{Exit, Reactor};

/// What was told to whom, in order.
type Told = Rc<RefCell<Vec<String>>>;

/// A service of two. Lines are commands; what it is not told to do it notes.
struct Hall {
    name: &'static str,
    told: Told,
    /// The hook that panics.
    panics: &'static str,
}

/// Gives what was read before, then what comes; and turns away in words of its own.
struct Over {
    below: Stream,
    first: Vec<u8>,
}

impl Hall {
    fn tell(&self, what: &str) {
        self.told.borrow_mut().push(format!("{}: {what}", self.name));
        assert!(self.panics.is_empty() || !what.starts_with(self.panics), "{what}");
    }
}

impl Handler for Hall {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        writeln!(cx, "{} greets", self.name);
        self.tell("open");
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let Some(to) = line.strip_prefix("GO ") else { return self.tell(&line) };
        cx.set_timer(Duration::from_secs(1));
        cx.pause();
        let over = |below, first| Stream::layer(Over { below, first });
        match cx.hand_over_with(to, b"go\n", Box::new(over)) {
            Ok(()) => assert!(!cx.send("too late\n") && !cx.takes_output()),
            Err(error) => {
                writeln!(cx, "{error}");
                cx.resume();
            }
        }
        self.tell("asked");
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
        assert!(!cx.send("gone"));
        self.tell(&format!("close, {reason}"));
    }

    fn on_timer(&mut self, _: &mut Context<'_, ()>, _: crate::TimerId) {
        self.tell("timer");
    }
}

impl Layer for Over {
    fn below(&self) -> Option<&Stream> {
        Some(&self.below)
    }

    fn below_mut(&mut self) -> Option<&mut Stream> {
        Some(&mut self.below)
    }

    fn kept(&self) -> usize {
        self.first.capacity() + self.below.kept()
    }

    fn turn_away(&mut self, notice: &[u8]) {
        self.below.turn_away(&[b"1013 ", notice].concat());
    }
}

impl Read for Over {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.first.is_empty() {
            return self.below.read(buf);
        }
        let count = (&self.first[..]).read(buf)?;
        self.first = self.first.split_off(count);
        Ok(count)
    }
}

impl Write for Over {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.below.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.below.flush()
    }
}

/// The loop of two services over wires: `a` and `b`.
struct Rig {
    services: [ActiveService<Hall>; 2],
    state: LoopState,
    scratch: Scratch,
    told: Told,
}

impl Rig {
    fn new(limits: Limits) -> Rig {
        let mut state = LoopState::new(None, Arc::new(Shared::default()));
        let told = Told::default();
        let services = ["a", "b"].map(|name| {
            let (mailbox, _) = Mailbox::new(&state.shared);
            let table = Table::new(state.services.len(), name, limits.clone());
            state.services.push(ServiceEntry::new(name, true, mailbox.identity()));
            let handler = Hall { name, told: Rc::clone(&told), panics: "" };
            ActiveService::new(handler, table, mailbox)
        });
        let (mailbox, _) = Mailbox::<()>::new(&state.shared);
        state.services.push(ServiceEntry::new("datagrams", false, mailbox.identity()));
        Rig { services, state, scratch: Scratch::default(), told }
    }

    /// A client of `a` that has said this.
    fn connect(&mut self, says: &[u8]) -> SharedWire {
        let wire =
            Wire { connected: true, inbound: says.iter().copied().collect(), ..Wire::default() };
        let wire = Rc::new(RefCell::new(wire));
        let stream = Stream::layer(Pipe::new(Rc::clone(&wire)));
        let peer = ([127, 0, 0, 2], 7).into();
        let id = self.services[0].admit_unjudged(stream, Some(peer), &mut self.state).unwrap();
        self.event(0, id, Readiness { readable: true, ..Readiness::default() });
        wire
    }

    fn event(&mut self, service: usize, id: ConnId, what: Readiness) {
        self.services[service].ready(Token::connection(service, id), what);
    }

    /// The connections that a service has, in whatever stage.
    fn ids(&self, service: usize) -> Vec<ConnId> {
        self.services[service].table.ids()
    }

    fn turn(&mut self) {
        let Rig { services, state, scratch, .. } = self;
        let mut services: Vec<_> = services.iter_mut().collect();
        services.iter_mut().for_each(|service| service.work(state, scratch));
        settle(&mut services, state, |service, state| service.reap(state));
        for service in services {
            let table = &service.table;
            let slots = table.connections.iter().map(|(_, slot)| slot);
            let kept = slots.filter(|slot| slot.conn.stage != Stage::Ended).map(|slot| slot.kept());
            assert_eq!(table.kept, kept.sum::<usize>());
            assert_eq!(table.open, table.everyone().count());
            let left = |(_, slot): (_, &super::super::table::Slot<()>)| slot.conn.output.backlog();
            assert_eq!(table.backlog, table.connections.iter().map(left).sum::<usize>());
        }
    }

    fn turns(&mut self) {
        (0..5).for_each(|_| self.turn());
    }

    fn pass(&mut self, time: Duration) {
        self.state.turn.now += nanos(time);
        self.turns();
    }

    fn told(&self) -> Vec<String> {
        self.told.take()
    }

    /// No connection is left, nor anything that was kept for one.
    fn assert_empty(&self) {
        for ActiveService { table, .. } in &self.services {
            assert_eq!(
                (table.connections.len(), table.timers.len(), table.places.taken()),
                (0, 0, 0)
            );
            assert!(table.leaving.is_empty() && table.peers.are_empty());
        }
        assert_eq!(self.state.counted().open, 0);
    }
}

fn sent(wire: &SharedWire) -> String {
    String::from_utf8(std::mem::take(&mut wire.borrow_mut().outbound)).unwrap()
}

fn room(wire: &SharedWire, room: Option<usize>) {
    wire.borrow_mut().room = room;
}

const WRITABLE: Readiness =
    Readiness { readable: false, writable: true, read_on: false, error: false };

const BROKEN: Readiness = Readiness { readable: true, writable: true, read_on: true, error: true };

#[test]
fn what_is_unsent_goes_first_and_what_is_untaken_comes_along() {
    let mut rig = Rig::new(Limits { max_per_peer: Some(1), ..Limits::default() });
    let wire = rig.connect(b"one\nGO b\ntwo\nthr");
    let first = rig.ids(0)[0];
    rig.turns();
    assert_eq!(
        rig.told(),
        [
            "a: open",
            "a: one",
            "a: asked",
            "a: close, handed over to another service",
            "b: open",
            "b: two"
        ]
    );
    assert_eq!(sent(&wire), "a greets\ngo\nb greets\n");
    let second = rig.ids(1)[0];
    assert!(rig.ids(0).is_empty() && second > first);
    assert_eq!(rig.services[0].table.timers.len(), 0);
    // An event from before was fetched already.
    rig.event(0, first, BROKEN);
    wire.borrow_mut().inbound.extend(b"ee\n");
    rig.event(1, second, Readiness { readable: true, ..Readiness::default() });
    rig.turns();
    assert_eq!(rig.told(), ["b: three"]);
    assert_eq!(rig.services[1].table.get(second).unwrap().conn.peer.get().unwrap().port(), 7);
    // It counts for its peer where it is now, and not where it was.
    let another = rig.connect(b"GO b\n");
    rig.turns();
    let refused = "Too many connections from your address, close one first\n";
    assert_eq!(sent(&another), format!("a greets\ngo\n1013 {refused}"));
    assert!(another.borrow().shut);
    wire.borrow_mut().end = true;
    rig.event(1, second, Readiness { readable: true, read_on: true, ..Readiness::default() });
    rig.turns();
    let counters = rig.state.counted();
    assert_eq!((counters.accepted, counters.refused, counters.handshakes_failed), (3, 1, 0));
    assert_eq!(counters.closed(CloseReason::HandedOver), 2);
    assert_eq!(counters.closed(CloseReason::PeerClosed), 1);
    rig.assert_empty();
}

#[test]
fn it_leaves_when_the_client_has_taken_what_it_was_sent() {
    let mut rig = Rig::new(Limits::default());
    let wire = rig.connect(b"GO b\n");
    room(&wire, Some(10));
    rig.turns();
    let (id, reads) = (rig.ids(0)[0], wire.borrow().reads);
    // Nobody reads it meanwhile.
    wire.borrow_mut().inbound.extend(b"two\n");
    wire.borrow_mut().end = true;
    rig.event(0, id, Readiness { readable: true, read_on: true, ..Readiness::default() });
    rig.turns();
    assert_eq!((sent(&wire), wire.borrow().reads), ("a greets\ng".to_owned(), reads));
    assert_eq!(rig.told(), ["a: open", "a: asked"]);
    room(&wire, None);
    rig.event(0, id, WRITABLE);
    rig.turns();
    assert_eq!(sent(&wire), "o\nb greets\n");
    let told = rig.told();
    assert_eq!(told[1..], ["b: open", "b: two", "b: close, closed by the peer"]);
    rig.assert_empty();
}

#[test]
fn a_client_that_does_not_take_it_is_closed_in_time() {
    let mut rig = Rig::new(Limits::default());
    let wire = rig.connect(b"GO b\nunread\n");
    room(&wire, Some(10));
    rig.turns();
    assert!(rig.services[0].table.kept > 0);
    rig.pass(Limits::default().flush_timeout + Duration::from_secs(1));
    assert_eq!(rig.told()[2..], ["a: close, did not take the last replies"]);
    rig.assert_empty();
}

#[test]
fn what_cannot_be_is_said_at_once_and_changes_nothing() {
    let mut rig = Rig::new(Limits::default());
    let wire = rig.connect(b"GO c\nGO datagrams\nGO a\nstill here\n");
    rig.turns();
    let told = rig.told();
    assert_eq!(told[1..], ["a: asked", "a: asked", "a: asked", "a: still here"]);
    let said = sent(&wire);
    let said: Vec<_> = said.lines().collect();
    assert_eq!(said[1], "cannot hand over to \"c\": there is no service of that name");
    assert_eq!(said[3], "cannot hand over to \"a\": the connection is there already");
    rig.state.stop();
    rig.event(0, rig.ids(0)[0], Readiness { readable: true, ..Readiness::default() });
    wire.borrow_mut().inbound.extend(b"GO b\n");
    rig.turns();
    assert_eq!(sent(&wire), "the reactor is shutting down\n");
}

#[test]
fn a_client_that_breaks_it_off_has_left_from_where_it_was() {
    let mut rig = Rig::new(Limits::default());
    let wire = rig.connect(b"GO b\ntwo\n");
    room(&wire, Some(10));
    rig.turns();
    wire.borrow_mut().error = Some(io::ErrorKind::ConnectionReset);
    rig.event(0, rig.ids(0)[0], BROKEN);
    rig.turns();
    assert_eq!(rig.told()[2..], ["a: close, connection reset"]);
    rig.assert_empty();
}

#[test]
fn one_that_is_closed_or_shut_down_meanwhile_does_not_leave() {
    let closes: [fn(&mut Rig, ConnId); 3] = [
        |rig, id| {
            let Rig { services: [a, _], state, .. } = rig;
            a.call_service(state, |_, cx| assert!(cx.connection(id).is_none()));
            a.table.close(id, CloseReason::Closed, state);
        },
        |rig, id| rig.services[0].table.end(id, CloseReason::TotalOutput),
        |rig, _| rig.services.iter_mut().for_each(|service| service.shut_down(&mut rig.state)),
    ];
    for (close, reason) in closes.into_iter().zip(["closed", "too much", "shutdown"]) {
        let mut rig = Rig::new(Limits::default());
        let wire = rig.connect(b"GO b\ntwo\n");
        room(&wire, Some(10));
        rig.turns();
        let id = rig.ids(0)[0];
        close(&mut rig, id);
        room(&wire, None);
        rig.event(0, id, WRITABLE);
        rig.turns();
        wire.borrow_mut().end = true;
        if !rig.ids(0).is_empty() {
            rig.event(0, id, Readiness { readable: true, read_on: true, ..Readiness::default() });
        }
        rig.turns();
        let told = rig.told();
        assert!(told.len() == 3 && told[2].starts_with(&format!("a: close, {reason}")), "{told:?}");
        rig.assert_empty();
    }
}

#[test]
fn a_panic_ends_the_connection_for_whom_the_hook_was_called() {
    let told = |service: usize, hook: &'static str| {
        let mut rig = Rig::new(Limits::default());
        rig.services[service].handler.panics = hook;
        let wire = rig.connect(b"GO b\ntwo\n");
        rig.turns();
        wire.borrow_mut().end = true;
        for service in 0..2 {
            for id in rig.ids(service) {
                let what = Readiness { readable: true, read_on: true, ..Readiness::default() };
                rig.event(service, id, what);
            }
        }
        rig.turns();
        assert_eq!(rig.state.counted().panics, 1);
        rig.assert_empty();
        rig.told()
    };
    assert_eq!(told(0, "asked")[2..], ["a: close, handler panicked"]);
    // The connection was not the handler's any more.
    assert_eq!(told(0, "close")[3..], ["b: open", "b: two", "b: close, closed by the peer"]);
    assert_eq!(told(1, "open")[3..], ["b: open", "b: close, handler panicked"]);
}

#[test]
fn a_full_service_turns_it_away() {
    let mut rig = Rig::new(Limits::default());
    rig.services[1].table.limits.max_connections = 0;
    let wire = rig.connect(b"GO b\ntwo\n");
    rig.turns();
    let last = "go\n1013 Too many connections, try again later\n";
    assert_eq!(sent(&wire), format!("a greets\n{last}"));
    assert!(wire.borrow().shut);
    assert_eq!((rig.state.counted().refused, rig.state.counted().accepted), (1, 1));
    rig.assert_empty();
}

#[test]
fn input_that_came_along_counts_as_kept() {
    let mut rig = Rig::new(Limits::default());
    let wire = rig.connect(&[b"GO b\n", &[b'x'; 9_000][..]].concat());
    rig.turns();
    assert!(rig.services[1].table.kept >= 9_000);
    assert_eq!(
        (rig.services[0].table.kept, sent(&wire).len()),
        (0, "a greets\ngo\nb greets\n".len())
    );
    rig.state.max_total_input = 1_000;
    rig.turns();
    assert_eq!(rig.told().last().unwrap(), "b: close, too much unfinished input in all");
    rig.assert_empty();
}

/// Over sockets: the selector knows it by another token, and no edge is lost.
#[test]
fn the_selector_knows_it_by_its_new_token() {
    let told = Told::default();
    let mut reactor = Reactor::new().unwrap();
    let hall = |name| Hall { name, told: Rc::clone(&told), panics: "" };
    let a = reactor.listen("127.0.0.1:0", hall("a")).unwrap();
    let b = reactor.add(hall("b"), Limits::default()).unwrap();
    reactor.set_name(&b, "hall b");
    let mut client = TcpStream::connect(a.address().unwrap().as_socket().unwrap()).unwrap();
    client.write_all(b"GO hall b\ntwo\n").unwrap();
    let until = |reactor: &mut Reactor<'_>, last: &str| {
        while told.borrow().last().is_none_or(|told| told != last) {
            reactor.turn(Some(Duration::from_secs(10))).unwrap();
        }
    };
    until(&mut reactor, "b: two");
    client.write_all(b"three\n").unwrap();
    until(&mut reactor, "b: three");
    client.shutdown(std::net::Shutdown::Write).unwrap();
    until(&mut reactor, "b: close, closed by the peer");
    reactor.stop();
    assert_eq!(reactor.run().unwrap(), Exit::Clean);
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    assert_eq!(all, "a greets\ngo\nb greets\n");
}

/// The service in this place is removed.
fn remove(rig: &mut Rig, place: usize) {
    rig.state.services[place].identity = None;
}

#[test]
fn nobody_arrives_at_a_service_that_was_removed_nor_at_the_next_one_in_its_place() {
    for another in [false, true] {
        let mut rig = Rig::new(Limits::default());
        let wire = rig.connect(b"GO b\ntwo\n");
        room(&wire, Some(0));
        rig.turns();
        assert_eq!(rig.told(), ["a: open", "a: asked"]);
        remove(&mut rig, 1);
        if another {
            let (mailbox, _) = Mailbox::<()>::new(&rig.state.shared);
            rig.state.enter(1, ServiceEntry::new("b", true, mailbox.identity()));
        }
        room(&wire, None);
        let id = rig.ids(0)[0];
        rig.event(0, id, WRITABLE);
        rig.turns();
        assert_eq!(rig.told(), ["a: close, handed over to another service"]);
        // It is turned away in the words of its layer.
        assert_eq!(sent(&wire), "a greets\ngo\n1013 ");
        rig.assert_empty();
    }
}

#[test]
fn a_removed_service_is_not_known_by_its_name() {
    let mut rig = Rig::new(Limits::default());
    remove(&mut rig, 1);
    let wire = rig.connect(b"GO b\n");
    rig.turns();
    assert!(sent(&wire).contains("there is no service of that name"));
    // Another one of the name is.
    let (mailbox, _) = Mailbox::<()>::new(&rig.state.shared);
    rig.state.services.insert(2, ServiceEntry::new("b", false, mailbox.identity()));
    let wire = rig.connect(b"GO b\n");
    rig.turns();
    assert!(sent(&wire).contains("a service of datagrams"), "{}", sent(&wire));
}
