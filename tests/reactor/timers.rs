//! Timers of connections and of the service, and the reactor as a guest in a foreign loop.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reactor::testing::Harness;
use reactor::{Callbacks, Context, Handler, Limits, Reactor, ServiceContext, TimerId};

/// Sets timers as it is told, and notes which came when.
#[derive(Default)]
struct Clockwork {
    start: Option<Instant>,
    set: Vec<(TimerId, u64)>,
    fired: Vec<(u64, Duration)>,
    cancelled: Vec<bool>,
}

enum Act {
    /// After so many milliseconds; the number is its name too.
    Service(u64),
    CancelService(u64),
}

impl Clockwork {
    fn name(&self, timer: TimerId) -> u64 {
        self.set.iter().find(|(set, _)| *set == timer).unwrap().1
    }

    fn fire(&mut self, timer: TimerId, now: Instant) {
        self.fired.push((self.name(timer), now - self.start.unwrap()));
    }
}

impl Handler for Clockwork {
    type Session = ();
    type Message = Act;

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        self.start.get_or_insert(cx.now());
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        let line = str::from_utf8(line).unwrap();
        let (word, millis) = line.split_once(' ').unwrap();
        let millis: u64 = millis.parse().unwrap();
        let after = Duration::from_millis(millis);
        match word {
            "set" => self.set.push((cx.set_timer(after), millis)),
            "past" => self.set.push((cx.set_timer_at(cx.now() - after), millis)),
            "cancel" => {
                let timer = self.set.iter().find(|(_, name)| *name == millis).unwrap().0;
                self.cancelled.push(cx.cancel_timer(timer));
            }
            _ => panic!("{line}"),
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_, ()>, timer: TimerId) {
        self.fire(timer, cx.now());
        // It is no longer there to be cancelled.
        assert!(!cx.cancel_timer(timer));
    }

    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, ()>, timer: TimerId) {
        self.fire(timer, cx.now());
        assert!(!cx.cancel_service_timer(timer));
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, act: Act) {
        match act {
            Act::Service(millis) => {
                let timer = cx.set_service_timer(Duration::from_millis(millis));
                self.set.push((timer, millis));
            }
            Act::CancelService(millis) => {
                let timer = self.set.iter().find(|(_, name)| *name == millis).unwrap().0;
                self.cancelled.push(cx.cancel_service_timer(timer));
            }
        }
    }
}

fn at(millis: u64) -> (u64, Duration) {
    (millis, Duration::from_millis(millis))
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn timers_fire_in_order_each_at_its_moment() {
    let mut server = Harness::new(Clockwork::default());
    let (a, b) = (server.connect(), server.connect());
    server.feed(a, "set 30\nset 10\n");
    server.feed(b, "set 20\n");
    server.post(Act::Service(25));
    server.advance(Duration::from_millis(9));
    assert_eq!(server.handler().fired, []);
    server.advance(SECOND);
    assert_eq!(server.handler().fired, [at(10), at(20), at(25), at(30)]);
    assert_eq!(server.left_over().1, 0);
}

#[test]
fn after_a_leap_of_the_clock_all_come_in_order() {
    let mut server = Harness::new(Clockwork::default());
    let (a, b) = (server.connect(), server.connect());
    server.feed(a, "set 3000\nset 1000\n");
    server.feed(b, "set 2000\n");
    server.jump(10 * SECOND);
    let fired: Vec<_> = server.handler().fired.iter().map(|(name, _)| *name).collect();
    assert_eq!(fired, [1000, 2000, 3000]);
}

#[test]
fn a_cancelled_timer_does_not_fire() {
    let mut server = Harness::new(Clockwork::default());
    let client = server.connect();
    server.feed(client, "set 10\nset 20\nset 30\ncancel 20\ncancel 20\n");
    server.post(Act::Service(15));
    server.post(Act::Service(16));
    server.post(Act::CancelService(15));
    server.advance(SECOND);
    assert_eq!(server.handler().cancelled, [true, false, true]);
    assert_eq!(server.handler().fired, [at(10), at(16), at(30)]);
}

#[test]
fn nobody_cancels_a_timer_of_another() {
    let mut server = Harness::new(Clockwork::default());
    let (a, b) = (server.connect(), server.connect());
    server.feed(a, "set 10\n");
    server.feed(b, "cancel 10\n");
    server.post(Act::CancelService(10));
    server.post(Act::Service(20));
    server.feed(b, "cancel 20\n");
    server.advance(SECOND);
    assert_eq!(server.handler().cancelled, [false; 3]);
    assert_eq!(server.handler().fired, [at(10), at(20)]);
}

#[test]
fn the_past_is_due_at_once() {
    let mut server = Harness::new(Clockwork::default());
    let client = server.connect();
    server.advance(SECOND);
    server.feed(client, "set 0\npast 500\npast 99999\n");
    let fired: Vec<_> = server.handler().fired.iter().map(|(name, _)| *name).collect();
    assert_eq!(fired, [99_999, 500, 0], "the earliest first");
}

#[test]
fn a_timer_dies_with_its_connection_and_the_services_own_does_not() {
    let mut server = Harness::new(Clockwork::default());
    let client = server.connect();
    server.feed(client, "set 10\nset 20\n");
    server.post(Act::Service(15));
    server.reset(client);
    assert_eq!(server.left_over(), (0, 1));
    server.advance(SECOND);
    assert_eq!(server.handler().fired, [at(15)]);
}

#[test]
fn thousands_are_set_and_cancelled() {
    let mut server = Harness::new(Clockwork::default());
    let client = server.connect();
    let set: String = (0..3_000).map(|n| format!("set {}\n", 10_000 - n)).collect();
    server.feed(client, set);
    let cancel: String =
        (0..3_000).step_by(2).map(|n| format!("cancel {}\n", 10_000 - n)).collect();
    server.feed(client, cancel);
    assert!(server.handler().cancelled.iter().all(|cancelled| *cancelled));
    assert_eq!(server.left_over().1, 1_500);
    server.advance(20 * SECOND);
    let fired = &server.handler().fired;
    assert_eq!(fired.len(), 1_500);
    assert!(fired.is_sorted() && fired.iter().all(|(name, when)| at(*name) == (*name, *when)));
}

#[test]
fn a_real_timer_comes_in_time_and_never_early() {
    let fired = RefCell::new(Vec::new());
    let mut reactor = Reactor::new().unwrap();
    struct Once<'f>(&'f RefCell<Vec<Duration>>, Instant);
    impl Handler for Once<'_> {
        type Session = ();
        type Message = ();
        fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, (): ()) {
            self.1 = cx.now();
            cx.set_service_timer(Duration::from_millis(50));
        }
        fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, ()>, _: TimerId) {
            self.0.borrow_mut().push(self.1.elapsed());
            cx.stop();
        }
    }
    let service = reactor.add(Once(&fired, Instant::now()), Limits::default()).unwrap();
    service.handle().post(()).unwrap();
    let _ = reactor.run().unwrap();
    let fired = fired.borrow();
    assert_eq!(fired.len(), 1);
    assert!(fired[0] >= Duration::from_millis(50), "{fired:?}");
    assert!(fired[0] < Duration::from_secs(30), "{fired:?}");
}

// ---- The reactor as a guest: what a foreign loop asks it ----

#[test]
fn without_anything_due_there_is_no_deadline() {
    let mut reactor = Reactor::new().unwrap();
    assert_eq!(reactor.next_deadline(), None);
    let service = reactor.listen("127.0.0.1:0", Callbacks::new()).unwrap();
    let client = TcpStream::connect(service.address().unwrap().as_socket().unwrap()).unwrap();
    while reactor.counters().accepted == 0 {
        reactor.turn(Some(SECOND)).unwrap();
    }
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(reactor.next_deadline(), None);
    drop(client);
}

#[test]
fn leftovers_are_a_deadline_in_the_past() {
    let lines = Cell::new(0);
    let mut reactor = Reactor::new().unwrap();
    let handler = Callbacks::new().on_line(|_, _| lines.set(lines.get() + 1));
    let limits = Limits { lines_per_turn: 10, ..Limits::default() };
    let service = reactor.listen_with("127.0.0.1:0", handler, limits).unwrap();
    let mut client = TcpStream::connect(service.address().unwrap().as_socket().unwrap()).unwrap();
    while reactor.counters().accepted == 0 {
        reactor.turn(Some(SECOND)).unwrap();
    }
    client.write_all(&[b'\n'; 35]).unwrap();
    while lines.get() == 0 {
        reactor.turn(Some(SECOND)).unwrap();
    }
    // No event will come for the rest: who waits for one only would wait for ever.
    let mut turns = 0;
    while let Some(deadline) = reactor.next_deadline() {
        assert!(deadline <= Instant::now());
        reactor.turn(Some(Duration::ZERO)).unwrap();
        turns += 1;
    }
    assert_eq!((lines.get(), turns), (35, 3));
}

#[test]
fn a_timer_is_a_deadline_and_a_stop_is_one_at_once() {
    let mut reactor = Reactor::new().unwrap();
    let limits = Limits { idle_timeout: Some(60 * SECOND), ..Limits::default() };
    let service = reactor.listen_with("127.0.0.1:0", Callbacks::new(), limits).unwrap();
    let client = TcpStream::connect(service.address().unwrap().as_socket().unwrap()).unwrap();
    while reactor.counters().accepted == 0 {
        reactor.turn(Some(SECOND)).unwrap();
    }
    reactor.turn(Some(Duration::ZERO)).unwrap();
    let left = reactor.next_deadline().unwrap() - Instant::now();
    assert!(left > 50 * SECOND && left <= 60 * SECOND, "{left:?}");
    service.handle().stop();
    assert!(reactor.next_deadline().unwrap() <= Instant::now());
    drop(client);
    let _ = reactor.run().unwrap();
}
