//! Promise 5: fair. A client that floods does not raise its neighbours' latency; what is above a
//! turn's budget waits behind the others.

#![cfg(feature = "services")]

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reactor::services::Echo;
use reactor::testing::{Client, Harness};
use reactor::{
    Callbacks, CloseReason, ConnId, Context, Handler, Limits, Reactor, ServiceContext, TimerId,
};

use crate::util::{self, Server, again};

/// Notes whose line is handled when. Everybody is paused until a message comes, so that a test
/// decides what is there when the turn begins.
#[derive(Default)]
struct Order(Vec<ConnId>);

impl Handler for Order {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.pause();
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, _: &[u8]) {
        self.0.push(cx.id());
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, (): ()) {
        let mut all: Vec<_> = cx.connections().map(|(id, _)| id).collect();
        all.sort_unstable();
        all.into_iter().for_each(|id| cx.connection(id).unwrap().resume());
    }
}

/// How many lines of the first client are handled before the second one's only line.
fn lines_before(limits: Limits, flood: &[u8]) -> (usize, usize) {
    let mut server = Harness::with_limits(Order::default(), limits);
    let (greedy, quiet): (Client, Client) = (server.connect(), server.connect());
    server.feed(greedy, flood);
    server.feed(quiet, "line\n");
    assert_eq!(server.handler().0.len(), 0);
    server.post(());
    let quiet = server.id(quiet);
    let order = &server.handler().0;
    let place = order.iter().position(|id| *id == quiet).unwrap();
    (place, order.len() - 1)
}

#[test]
fn a_turn_handles_no_more_than_its_budget_of_lines_of_one_connection() {
    let flood = vec![b'\n'; 100_000];
    assert_eq!(lines_before(Limits::default(), &flood), (1024, 100_000));
    let limits = Limits { lines_per_turn: 100, ..Limits::default() };
    assert_eq!(lines_before(limits, &flood), (100, 100_000));
}

#[test]
fn a_turn_reads_no_more_than_its_budget_of_bytes_of_one_connection() {
    let flood = format!("{}\n", "x".repeat(9_999)).repeat(100);
    assert_eq!(lines_before(Limits::default(), flood.as_bytes()), (6, 100));
    let limits = Limits { bytes_per_turn: 20_000, ..Limits::default() };
    assert_eq!(lines_before(limits, flood.as_bytes()), (2, 100));
}

/// Has everybody wait but for those who come late, and counts who has left.
struct Leaving {
    paused: usize,
    opened: usize,
    left: Rc<Cell<usize>>,
}

impl Handler for Leaving {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        self.opened += 1;
        if self.opened <= self.paused {
            cx.pause();
        }
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, _: &[u8]) {
        cx.send(format!("{} have left\n", self.left.get()));
    }

    fn on_close(&mut self, _: &mut Context<'_, ()>, _: CloseReason) {
        self.left.set(self.left.get() + 1);
    }
}

/// Nobody reads from those who are paused, so their resets end them all in one turn.
#[test]
fn many_who_leave_together_are_told_of_in_several_turns() {
    let _quiet = util::quiet();
    let most = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let count = (most / 2).saturating_sub(200).min(2_000) as usize;
    let left = Rc::new(Cell::new(0));
    let handler = Leaving { paused: count, opened: 0, left: Rc::clone(&left) };
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.listen("127.0.0.1:0", handler).unwrap();
    let addr = service.address().unwrap().as_socket().unwrap();
    let clients: Vec<_> = (0..count).map(|_| util::Client::connect(addr)).collect();
    util::until("everybody is in", || {
        reactor.turn(Some(Duration::from_millis(1))).unwrap();
        reactor.counters().open == count as u64
    });
    clients.into_iter().for_each(util::Client::reset);
    let mut newcomer = util::Client::connect(addr);
    newcomer.send("how many?\n");
    util::until("everybody has left", || {
        let before = left.get();
        reactor.turn(Some(Duration::from_millis(1))).unwrap();
        let more = left.get() - before;
        assert!(more <= 512, "{more} of {count} in one turn");
        left.get() == count && reactor.counters().lines_in == 1
    });
    let answer = newcomer.line();
    let left: usize = answer.split(' ').next().unwrap().parse().unwrap();
    assert!(left < count, "the newcomer waited for all {left}");
}

#[test]
fn a_shutdown_tells_of_all_however_many() {
    let left = Rc::new(Cell::new(0));
    let handler = Leaving { paused: 0, opened: 0, left: Rc::clone(&left) };
    let mut server = Harness::new(handler);
    let clients: Vec<_> = (0..2_000).map(|_| server.connect()).collect();
    server.stop();
    clients.iter().for_each(|client| server.end(*client));
    assert_eq!((left.get(), server.left_over()), (2_000, (0, 0)));
}

/// The same over real sockets: all is there before the turn.
#[test]
fn many_lines_in_the_kernel_are_served_in_turns() {
    let order = RefCell::new(Vec::new());
    let mut reactor = Reactor::new().unwrap();
    let handler = Callbacks::new().on_line(|cx, _| order.borrow_mut().push(cx.id()));
    let service = reactor.listen("127.0.0.1:0", handler).unwrap();
    let addr = service.address().unwrap().as_socket().unwrap();
    let mut clients: Vec<_> = (0..5).map(|_| util::Client::connect(addr)).collect();
    while reactor.counters().accepted < 5 {
        reactor.turn(None).unwrap();
    }
    clients.iter_mut().for_each(|client| client.send("\n".repeat(20_000)));
    let turns = reactor.counters().turns;
    while reactor.counters().lines_in < 100_000 {
        reactor.turn(Some(Duration::from_secs(1))).unwrap();
    }
    assert!(reactor.counters().turns - turns >= 20);
    // Whoever waits sees each of the others served once, and no more.
    for lines in order.borrow().chunk_by(|a, b| a == b) {
        assert!(lines.len() <= 1024 || order.borrow().ends_with(lines));
    }
}

#[test]
fn a_turn_moves_on_as_many_handshakes_as_its_share_has_time_for() {
    for (micros, most) in [(5_000, 1), (700, 3), (0, 250)] {
        let mut server = Harness::new(Echo).by_hand();
        let quiet = server.connect();
        while server.turn() {}
        server.sent(quiet);
        let cost = Duration::from_micros(micros);
        let waiting: Vec<_> = (0..300).map(|_| server.connect_with_handshake([cost])).collect();
        waiting.iter().for_each(|client| server.feed(*client, ""));
        let mut done = 0;
        while done < waiting.len() {
            server.feed(quiet, "ping\n");
            assert!(server.turn());
            assert_eq!(server.sent(quiet), b"> PING\n", "it waits for {done} handshakes");
            let open = waiting.iter().filter(|client| server.session(**client).is_some());
            let before = std::mem::replace(&mut done, open.count());
            assert_eq!(done, (before + most).min(300), "steps of {micros} us");
        }
    }
}

/// What has been done of a handshake brings on no more of it.
#[test]
fn each_step_of_a_handshake_takes_an_event() {
    let mut server = Harness::new(Echo);
    let client = server.connect_with_handshake([Duration::ZERO; 3]);
    for _ in 0..2 {
        server.feed(client, "");
        assert!(!server.turn() && server.session(client).is_none());
    }
    server.feed(client, "");
    assert!(server.session(client).is_some());
    assert!(server.sent(client).starts_with(b"Welcome"));
    let silent = server.connect_with_handshake([Duration::ZERO]);
    server.advance(Limits::default().handshake_timeout);
    assert!(server.closed(silent).is_some());
    assert_eq!(server.counters().handshakes_failed, 1);
}

/// Sets a timer that is due at once, again and again.
struct Busy;

impl Handler for Busy {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        cx.send([line, b"\n"].concat());
        if line == b"busy" {
            cx.set_timer(Duration::ZERO);
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_, ()>, _: TimerId) {
        cx.set_timer(Duration::ZERO);
    }
}

#[test]
fn a_timer_that_is_always_due_holds_nobody_up() {
    let server = Server::start(Limits::default(), || Busy);
    let mut busy = server.connect();
    busy.send("busy\n");
    busy.expect("busy\n");
    let mut quiet = server.connect();
    for _ in 0..20 {
        quiet.send("ping\n");
        quiet.expect("ping\n");
    }
    drop((busy, quiet));
    assert_eq!(server.stop().0, reactor::Exit::Clean);
}

/// The 90th percentile of a quiet client's round trips beside a client that writes as fast as it
/// can and reads the replies, and how much the latter got.
fn quiet_p90() -> (Duration, u64) {
    let server = Server::start(Limits::default(), || Echo);
    let done = Arc::new(AtomicBool::new(false));
    let got = Arc::new(AtomicU64::new(0));
    let flooder = server.connect().stream;
    let (mut to, stop) = (flooder.try_clone().unwrap(), Arc::clone(&done));
    let writing = std::thread::spawn(move || {
        let lines = b"the same line again and again\n".repeat(2_000);
        while !stop.load(Ordering::Relaxed) && to.write_all(&lines).is_ok() {}
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut from, sum) = (flooder, Arc::clone(&got));
    let reading = std::thread::spawn(move || {
        let mut buf = vec![0; 256 * 1024];
        while let Ok(count @ 1..) = again(|| from.read(&mut buf)) {
            sum.fetch_add(count as u64, Ordering::Relaxed);
        }
    });
    let mut quiet = server.connect();
    quiet.line();
    quiet.line();
    util::until("the flood is on", || got.load(Ordering::Relaxed) > 1_000_000);
    let mut trips: Vec<_> = (0..500)
        .map(|_| {
            let start = Instant::now();
            quiet.send("ping\n");
            quiet.expect("> PING\n");
            start.elapsed()
        })
        .collect();
    done.store(true, Ordering::Relaxed);
    writing.join().unwrap();
    reading.join().unwrap();
    trips.sort_unstable();
    (trips[trips.len() * 9 / 10], got.load(Ordering::Relaxed))
}

#[test]
fn a_flood_does_not_raise_a_quiet_clients_latency() {
    let _quiet = util::quiet();
    let mut best = Duration::MAX;
    // What else the machine does may spoil some attempts. How much of a turn the flood gets is exact
    // in the tests above; here it would take a quarter of a second if that had no bounds.
    for _ in 0..5 {
        let (p90, flood) = quiet_p90();
        println!("p90 of 500 round trips beside a flood of {flood} bytes: {p90:?}");
        best = best.min(p90);
        if best < Duration::from_millis(100) {
            return;
        }
    }
    panic!("p90 {best:?}");
}
