//! Promise 1: one thread runs all hooks of a reactor; others reach it through handles.

#![cfg(feature = "services")]

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, ThreadId};
use std::time::Duration;

use reactor::services::Echo;
use reactor::{
    Callbacks, CloseReason, Context, DatagramContext, DatagramHandler, Exit, Handle, Handler,
    Limits, Reactor, ServiceContext, TimerId, TryPostError,
};

use crate::util::{self, Client, PATIENCE, Server};

/// Tells which hook ran on which thread.
struct Witness(Sender<(&'static str, ThreadId)>);

impl Witness {
    fn here(&self, hook: &'static str) {
        let _ = self.0.send((hook, thread::current().id()));
    }
}

impl Handler for Witness {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        self.here("open");
        cx.set_timer(Duration::ZERO);
        cx.set_service_timer(Duration::ZERO);
    }

    fn on_line(&mut self, _: &mut Context<'_, ()>, _: &[u8]) {
        self.here("line");
    }

    fn on_eof(&mut self, cx: &mut Context<'_, ()>) {
        self.here("eof");
        cx.close();
    }

    fn on_close(&mut self, _: &mut Context<'_, ()>, _: CloseReason) {
        self.here("close");
    }

    fn on_timer(&mut self, _: &mut Context<'_, ()>, _: TimerId) {
        self.here("timer");
    }

    fn on_service_timer(&mut self, _: &mut ServiceContext<'_, ()>, _: TimerId) {
        self.here("service timer");
    }

    fn on_message(&mut self, _: &mut ServiceContext<'_, ()>, (): ()) {
        self.here("message");
    }

    fn on_shutdown(&mut self, _: &mut ServiceContext<'_, ()>) {
        self.here("shutdown");
    }
}

#[test]
fn every_hook_runs_on_the_loops_thread() {
    let (tell, told) = mpsc::channel();
    let server = Server::start(Limits::default(), || Witness(tell));
    let handle = server.handle.clone();
    thread::spawn(move || handle.post(()).unwrap()).join().unwrap();
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("line\n");
        client.end();
        client.expect("");
        assert_eq!(client.rest(), b"");
    }
    assert_eq!(server.stop().0, Exit::Clean);
    let calls: Vec<_> = told.iter().collect();
    let hooks: HashSet<_> = calls.iter().map(|(hook, _)| *hook).collect();
    assert_eq!(hooks.len(), 8, "{hooks:?}");
    let threads: HashSet<_> = calls.iter().map(|(_, thread)| *thread).collect();
    assert_eq!(threads.len(), 1);
    assert!(!threads.contains(&thread::current().id()));
}

/// Notes what came from whom, and says when all is there.
struct Collector {
    next: HashMap<usize, u32>,
    missing: usize,
    done: Sender<Result<(), String>>,
}

impl Handler for Collector {
    type Session = ();
    type Message = (usize, u32);

    fn on_message(&mut self, _: &mut ServiceContext<'_, ()>, (from, number): (usize, u32)) {
        let next = self.next.entry(from).or_default();
        if *next != number {
            let _ = self.done.send(Err(format!("{number} of {from} came instead of {next}")));
        }
        *next += 1;
        self.missing -= 1;
        if self.missing == 0 {
            self.done.send(Ok(())).unwrap();
        }
    }
}

#[test]
fn what_many_threads_post_arrives_in_each_ones_order() {
    const THREADS: usize = 8;
    const EACH: u32 = 10_000;
    let (done, all) = mpsc::channel();
    let missing = THREADS * EACH as usize;
    let server =
        Server::start(Limits::default(), move || Collector { next: HashMap::new(), missing, done });
    let threads: Vec<_> = (0..THREADS)
        .map(|from| {
            let handle = server.handle.clone();
            thread::spawn(move || (0..EACH).for_each(|n| handle.post((from, n)).unwrap()))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(all.recv_timeout(PATIENCE), Ok(Ok(())));
}

/// Answers each message to the thread that posted it.
struct Pong(Sender<u32>);

impl Handler for Pong {
    type Session = ();
    type Message = u32;

    fn on_message(&mut self, _: &mut ServiceContext<'_, ()>, number: u32) {
        self.0.send(number).unwrap();
    }
}

/// Each post comes at the very moment when the loop is done with the one before and about to
/// sleep. One lost wakeup would be waited for in vain: nothing else wakes this loop.
#[test]
fn no_post_is_slept_through() {
    let _quiet = util::quiet();
    let (tell, told) = mpsc::channel();
    let server = Server::start(Limits::default(), || Pong(tell));
    for number in 0..30_000 {
        server.handle.post(number).unwrap();
        // A spin, because a thread that had to be woken would come too late for the race.
        util::until("the answer to a post", || told.try_recv() == Ok(number));
    }
}

#[test]
fn a_post_after_the_end_gives_the_message_back() {
    let (tell, _told) = mpsc::channel();
    let mut reactor = Reactor::new().unwrap();
    let handle = reactor.add(Pong(tell), Limits::default()).unwrap().handle();
    drop(reactor);
    assert_eq!(handle.clone().post(7), Err(7));
    handle.stop();
}

#[test]
fn a_post_and_a_stop_before_the_first_turn_are_not_lost() {
    let (tell, told) = mpsc::channel();
    let mut reactor = Reactor::new().unwrap();
    let handle = reactor.add(Pong(tell), Limits::default()).unwrap().handle();
    handle.post(7).unwrap();
    handle.stop();
    assert_eq!(reactor.run().unwrap(), Exit::Clean);
    assert_eq!(told.try_recv(), Ok(7));
}

/// Counts its messages, and says so when the shutdown begins.
struct Tally<'a> {
    messages: &'a Cell<u32>,
    at_shutdown: &'a Cell<Option<u32>>,
}

impl<'a> Tally<'a> {
    fn new(messages: &'a Cell<u32>, at_shutdown: &'a Cell<Option<u32>>) -> Tally<'a> {
        Tally { messages, at_shutdown }
    }

    fn shuts_down(&self) {
        self.at_shutdown.set(Some(self.messages.get()));
    }
}

impl Handler for Tally<'_> {
    type Session = ();
    type Message = ();

    fn on_message(&mut self, _: &mut ServiceContext<'_, ()>, (): ()) {
        self.messages.set(self.messages.get() + 1);
    }

    fn on_shutdown(&mut self, _: &mut ServiceContext<'_, ()>) {
        self.shuts_down();
    }
}

impl DatagramHandler for Tally<'_> {
    type Message = ();

    fn on_datagram(&mut self, _: &mut DatagramContext<'_>, _: SocketAddr, _: &[u8]) {}

    fn on_message(&mut self, _: &mut DatagramContext<'_>, (): ()) {
        self.messages.set(self.messages.get() + 1);
    }

    fn on_shutdown(&mut self, _: &mut DatagramContext<'_>) {
        self.shuts_down();
    }
}

/// A stop overtook what was posted before it: a turn takes 1,024 messages.
#[test]
fn a_stop_comes_after_what_its_thread_has_posted_and_before_what_it_posts_then() {
    const EACH: u32 = 20_000;
    let (counts, ends) = <([Cell<u32>; 3], [Cell<Option<u32>>; 3])>::default();
    let tally = |n: usize| Tally::new(&counts[n], &ends[n]);
    let mut reactor = Reactor::new().unwrap();
    let handles = [
        reactor.add(tally(0), Limits::default()).unwrap().handle(),
        reactor.listen("127.0.0.1:0", tally(1)).unwrap().handle(),
        reactor.datagrams("127.0.0.1:0", tally(2)).unwrap().handle(),
    ];
    let [first, ..] = handles.clone();
    let poster = thread::spawn(move || {
        for _ in 0..EACH {
            handles.iter().for_each(|handle| handle.post(()).unwrap());
        }
        // Of a service that got the last one last of all.
        handles[0].stop();
        handles.iter().for_each(|handle| handle.post(()).unwrap());
    });
    poster.join().unwrap();
    assert_eq!(reactor.run().unwrap(), Exit::Clean);
    assert_eq!(ends.each_ref().map(Cell::get), [Some(EACH); 3]);
    assert_eq!(first.post(()), Err(()));
    let handled: u32 = counts.iter().map(Cell::get).sum();
    assert_eq!(handled as u64 + reactor.counters().messages_lost, 3 * (EACH as u64 + 1));
}

#[test]
fn a_shutdown_waits_for_messages_no_longer_than_it_may_take() {
    let (handled, end) = (Cell::new(0), Cell::new(None));
    let mut reactor = Reactor::new().unwrap();
    reactor.set_shutdown_timeout(Duration::ZERO);
    let handle = reactor.add(Tally::new(&handled, &end), Limits::default()).unwrap().handle();
    (0..3000).for_each(|_| handle.post(()).unwrap());
    handle.stop();
    assert_eq!(reactor.run().unwrap(), Exit::Clean);
    assert!(handled.get() < 3000 && end.get() == Some(handled.get()));
    assert_eq!(reactor.counters().messages_lost, 3000 - u64::from(handled.get()));
}

/// A handler stops the reactor, on whose thread something was posted before.
#[test]
fn a_handlers_stop_comes_after_what_was_posted_before_it() {
    let (handled, end) = (Cell::new(0), Cell::new(None));
    let mut reactor = Reactor::new().unwrap();
    let handle = reactor.add(Tally::new(&handled, &end), Limits::default()).unwrap().handle();
    let stops = Callbacks::new().on_line(move |cx, _| {
        (0..3000).for_each(|_| handle.post(()).unwrap());
        cx.stop();
    });
    let service = reactor.listen("127.0.0.1:0", stops).unwrap();
    let mut client = Client::connect(service.address().unwrap().as_socket().unwrap());
    client.send("stop\n");
    assert_eq!(reactor.run().unwrap(), Exit::Clean);
    assert_eq!((end.get(), reactor.counters().messages_lost), (Some(3000), 0));
}

#[test]
fn a_bounded_post_tells_full_from_gone() {
    let (tell, told) = mpsc::channel();
    let mut reactor = Reactor::new().unwrap();
    let handle = reactor.add(Pong(tell), Limits::default()).unwrap().handle();
    assert!(handle.is_empty());
    assert_eq!(handle.try_post(1, 2), Ok(()));
    assert_eq!(handle.try_post(2, 2), Ok(()));
    assert_eq!((handle.try_post(3, 2), handle.len()), (Err(TryPostError::Full(3)), 2));
    assert_eq!(TryPostError::Full(3).into_message(), 3);
    handle.post(3).unwrap();
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!((told.try_iter().collect::<Vec<_>>(), handle.len()), (vec![1, 2, 3], 0));
    assert_eq!(handle.try_post(4, 1), Ok(()));
    drop(reactor);
    assert_eq!(handle.try_post(5, 9), Err(TryPostError::Gone(5)));
}

/// However many post at once, no more than that wait.
#[test]
fn many_threads_together_keep_the_bound_of_a_bounded_post() {
    const BOUND: usize = 100;
    let (tell, told) = mpsc::channel();
    let mut reactor = Reactor::new().unwrap();
    let handle = reactor.add(Pong(tell), Limits::default()).unwrap().handle();
    let posters: Vec<_> = (0..4)
        .map(|_| {
            let handle = handle.clone();
            thread::spawn(move || {
                (0..BOUND as u32).filter_map(|n| handle.try_post(n, BOUND).ok()).count()
            })
        })
        .collect();
    let posted: usize = posters.into_iter().map(|poster| poster.join().unwrap()).sum();
    assert_eq!((posted, handle.len()), (BOUND, BOUND));
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(told.try_iter().count(), BOUND);
}

#[test]
fn another_thread_stops_a_loop_that_sleeps() {
    let server = Server::start(Limits::default(), || Echo);
    let mut idle = server.connect();
    idle.line();
    let handle = server.handle.clone();
    thread::spawn(move || handle.stop()).join().unwrap();
    idle.line();
    assert_eq!(idle.rest(), b"");
    drop(idle);
    assert_eq!(server.stop().0, Exit::Clean);
}

#[test]
fn a_handle_goes_to_other_threads_whatever_the_handler_is() {
    fn check<T: Send + Clone + 'static>(_: &T) {}
    // The handler itself borrows, is not Send and need not be.
    let count = Cell::new(0);
    let mut reactor = Reactor::new().unwrap();
    let handler = Callbacks::new().on_line(|_, _| count.set(count.get() + 1));
    let handle: Handle<()> = reactor.listen("127.0.0.1:0", handler).unwrap().handle();
    check(&handle);
}

#[test]
fn several_reactors_in_one_process_know_nothing_of_each_other() {
    let first = Server::start(Limits::default(), || Echo);
    let second = Server::start(Limits::default(), || Echo);
    let (mut one, mut two) = (first.connect(), second.connect());
    for client in [&mut one, &mut two] {
        client.send("hi\n");
        assert!(client.line().starts_with("Welcome"));
        client.line();
        assert_eq!(client.line(), "> HI\n");
    }
    let (exit, counters) = {
        one.end();
        one.rest();
        first.stop()
    };
    assert_eq!((exit, counters.accepted, counters.lines_in), (Exit::Clean, 1, 1));
    // The end of the one is nothing to the other.
    two.send("still there\n");
    assert_eq!(two.line(), "> STILL THERE\n");
}

#[test]
fn two_reactors_share_one_thread_in_turns() {
    let mut reactors: Vec<_> = (0..2)
        .map(|number| {
            let mut reactor = Reactor::new().unwrap();
            let hello = Callbacks::new().on_connection(move |cx| {
                writeln!(cx, "I am {number}");
                cx.close();
            });
            let service = reactor.listen("127.0.0.1:0", hello).unwrap();
            (reactor, service.address().unwrap().as_socket().unwrap())
        })
        .collect();
    let mut clients: Vec<_> = reactors.iter().map(|(_, addr)| Client::connect(*addr)).collect();
    while reactors.iter().any(|(reactor, _)| reactor.counters().closed_in_all() == 0) {
        for (reactor, _) in &mut reactors {
            reactor.turn(Some(Duration::from_millis(1))).unwrap();
        }
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.rest(), format!("I am {number}\n").as_bytes());
    }
}
