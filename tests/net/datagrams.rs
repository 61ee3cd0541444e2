//! Datagram sockets in the loop: unicast over loopback, and what a socket cannot be made to do,
//! in memory.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use reactor::testing::DatagramHarness;
use reactor::{
    Address, Callbacks, Counters, DatagramContext, DatagramHandler, DatagramOptions, Error, Exit,
    Reactor, TimerId,
};

use crate::util::{Client, PATIENCE, again};

/// Upper-cases what comes and sends it back.
struct Shout;

#[derive(Debug)]
enum Ask {
    /// Sends this there.
    Send(SocketAddr, Vec<u8>),
    Counters(mpsc::Sender<Counters>),
    Stop,
}

impl DatagramHandler for Shout {
    type Message = Ask;

    fn on_datagram(&mut self, cx: &mut DatagramContext<'_>, from: SocketAddr, bytes: &[u8]) {
        cx.send_to(from, bytes.to_ascii_uppercase());
    }

    fn on_message(&mut self, cx: &mut DatagramContext<'_>, ask: Ask) {
        match ask {
            Ask::Send(to, bytes) => {
                cx.send_to(to, bytes);
            }
            Ask::Counters(tell) => tell.send(cx.counters()).unwrap(),
            Ask::Stop => cx.stop(),
        }
    }
}

fn peer() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5000))
}

/// A blocking socket with a deadline.
fn socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[track_caller]
fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let count = again(|| socket.recv(&mut buffer)).expect("no datagram");
    buffer.truncate(count);
    buffer
}

/// Runs a reactor with that one socket in a thread; its address and a handle for it.
fn start(address: &'static str) -> (SocketAddr, reactor::Handle<Ask>, thread::JoinHandle<Exit>) {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        let service = reactor.datagrams(address, Shout).unwrap();
        tell.send((service.address().unwrap().as_socket().unwrap(), service.handle())).unwrap();
        reactor.run().unwrap()
    });
    let (addr, handle) = told.recv_timeout(PATIENCE).expect("the reactor did not start");
    (addr, handle, thread)
}

fn counters(handle: &reactor::Handle<Ask>) -> Counters {
    let (tell, told) = mpsc::channel();
    handle.post(Ask::Counters(tell)).unwrap();
    told.recv_timeout(PATIENCE).expect("the loop does not answer")
}

// ---- Over sockets ----

#[test]
fn a_datagram_comes_whole_and_its_answer_goes_to_the_sender() {
    for (local, remote) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0")] {
        let (addr, handle, thread) = start(local);
        let (ann, bob) = (socket(remote), socket(remote));
        let large = vec![b'x'; 65_507];
        ann.send_to(b"hello", addr).unwrap();
        bob.send_to(b"", addr).unwrap();
        assert_eq!(receive(&ann), b"HELLO");
        assert_eq!(receive(&bob), b"");
        bob.send_to(&large, addr).unwrap();
        assert_eq!(receive(&bob), large.to_ascii_uppercase());
        let counted = counters(&handle);
        assert_eq!((counted.datagrams_in, counted.datagrams_out), (3, 3));
        assert_eq!((counted.bytes_in, counted.bytes_out), (65_512, 65_512));
        handle.post(Ask::Stop).unwrap();
        assert_eq!(thread.join().unwrap(), Exit::Clean);
    }
}

#[test]
fn what_cannot_be_sent_is_counted_and_the_service_goes_on() {
    let (addr, handle, _thread) = start("127.0.0.1:0");
    let ann = socket("127.0.0.1:0");
    // Too large for the protocol; another family; a port at which nobody is, who says so by ICMP.
    handle.post(Ask::Send(ann.local_addr().unwrap(), vec![0; 65_508])).unwrap();
    handle.post(Ask::Send("[::1]:9".parse().unwrap(), vec![0])).unwrap();
    for _ in 0..100 {
        handle.post(Ask::Send("127.0.0.3:9".parse().unwrap(), vec![0])).unwrap();
    }
    let before = counters(&handle);
    assert_eq!((before.datagrams_lost, before.datagrams_out), (2, 100));
    ann.send_to(b"still there?", addr).unwrap();
    assert_eq!(receive(&ann), b"STILL THERE?");
    handle.stop();
}

#[test]
fn the_loop_sleeps_when_nothing_comes() {
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.datagrams("127.0.0.1:0", Shout).unwrap();
    let addr = service.address().unwrap().as_socket().unwrap();
    let ann = socket("127.0.0.1:0");
    ann.send_to(b"one", addr).unwrap();
    while reactor.counters().datagrams_in == 0 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    assert_eq!(receive(&ann), b"ONE");
    // The edge of becoming writable again may still be told.
    reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(reactor.next_deadline(), None);
}

#[test]
fn a_flood_has_its_share_of_a_turn_and_loses_no_edge() {
    let mut reactor = Reactor::new().unwrap();
    let options = DatagramOptions { datagrams_per_turn: 4, ..DatagramOptions::default() };
    let shout = reactor.datagrams_with("127.0.0.1:0", Shout, options).unwrap();
    let addr = shout.address().unwrap().as_socket().unwrap();
    let ann = socket("127.0.0.1:0");
    // All of them are there before the loop looks: one edge for ten.
    for number in 0..10 {
        ann.send_to(format!("n{number}").as_bytes(), addr).unwrap();
    }
    let mut seen = Vec::new();
    while reactor.counters().datagrams_in < 10 {
        reactor.turn(Some(PATIENCE)).unwrap();
        seen.push(reactor.counters().datagrams_in);
        let left = seen.last() != Some(&10);
        assert!(!left || reactor.next_deadline().is_some(), "the rest is forgotten: {seen:?}");
    }
    assert_eq!(seen, [4, 8, 10]);
    for number in 0..10 {
        assert_eq!(receive(&ann), format!("N{number}").as_bytes());
    }
}

#[test]
fn a_flood_of_datagrams_does_not_starve_connections() {
    let mut reactor = Reactor::new().unwrap();
    let shout = reactor.datagrams("127.0.0.1:0", Shout).unwrap();
    let addr = shout.address().unwrap().as_socket().unwrap();
    let lines = reactor
        .listen("127.0.0.1:0", Callbacks::new().on_line(|cx, line| writeln!(cx, "{}", line.len())))
        .unwrap();
    let place = lines.address().unwrap().as_socket().unwrap();
    let handle = shout.handle();
    let client = thread::spawn(move || {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let flood = socket("127.0.0.1:0");
                while !over.load(Ordering::Relaxed) {
                    let _ = flood.send_to(&[0; 1000], addr);
                }
            });
            let mut client = Client::connect(place);
            for _ in 0..100 {
                client.send("hello\n");
                client.expect("5\n");
            }
            over.store(true, Ordering::Relaxed);
        });
        handle.stop();
    });
    reactor.run().unwrap();
    client.join().unwrap();
    assert!(reactor.counters().datagrams_in > 0);
}

#[test]
fn connections_and_datagrams_share_a_handlers_state() {
    let heard = RefCell::new(Vec::new());
    struct Note<'a>(&'a RefCell<Vec<Vec<u8>>>);
    impl DatagramHandler for Note<'_> {
        type Message = ();
        fn on_datagram(&mut self, _: &mut DatagramContext<'_>, _: SocketAddr, bytes: &[u8]) {
            self.0.borrow_mut().push(bytes.to_vec());
        }
    }
    let mut reactor = Reactor::new().unwrap();
    let note = reactor.datagrams("127.0.0.1:0", Note(&heard)).unwrap();
    let lines = reactor
        .listen(
            "127.0.0.1:0",
            Callbacks::new().on_line(|cx, _| writeln!(cx, "{}", heard.borrow().len())),
        )
        .unwrap();
    let (note, lines) = (note.address().unwrap(), lines.address().unwrap());
    socket("127.0.0.1:0").send_to(b"a", note.as_socket().unwrap()).unwrap();
    while heard.borrow().is_empty() {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    let mut client = Client::connect(lines.as_socket().unwrap());
    client.send("how many?\n");
    client.end();
    while reactor.counters().closed_in_all() == 0 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    assert_eq!(client.rest(), b"1\n");
}

#[test]
fn a_shutdown_lets_it_say_goodbye_and_frees_the_port() {
    struct Polite(SocketAddr);
    impl DatagramHandler for Polite {
        type Message = ();
        fn on_datagram(&mut self, _: &mut DatagramContext<'_>, _: SocketAddr, _: &[u8]) {}
        fn on_timer(&mut self, _: &mut DatagramContext<'_>, _: TimerId) {
            panic!("a timer after the end");
        }
        fn on_shutdown(&mut self, cx: &mut DatagramContext<'_>) {
            cx.set_timer(Duration::ZERO);
            assert!(cx.send_to(self.0, "goodbye"));
        }
    }
    let ann = socket("127.0.0.1:0");
    let mut reactor = Reactor::new().unwrap();
    let polite = reactor.datagrams("127.0.0.4:0", Polite(ann.local_addr().unwrap())).unwrap();
    reactor.stop();
    assert_eq!(reactor.run().unwrap(), Exit::Clean);
    assert_eq!(receive(&ann), b"goodbye");
    let address = polite.address().unwrap().as_socket().unwrap();
    UdpSocket::bind(address).expect("the port is still taken");
    assert!(polite.handle().post(()).is_err());
    assert!(matches!(reactor.datagrams(address, Shout), Err(Error::ShuttingDown)));
}

#[test]
fn what_cannot_be_bound_is_said_in_a_line() {
    let taken = socket("127.0.0.1:0");
    let place = taken.local_addr().unwrap().to_string();
    let mut reactor = Reactor::new().unwrap();
    let mut said = |address: &str, options: DatagramOptions| {
        let shout = reactor.datagrams_with(address, Shout, options);
        let error = shout.expect_err("it could be bound").to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    };
    let usual = DatagramOptions::default;
    assert!(said(&place, usual()).contains("the port is in use"));
    assert!(said("192.0.2.1:0", usual()).contains("no such address"));
    assert!(said("unix:/tmp/x", usual()).contains("between IP addresses"));
    assert!(said("127.0.0.1", usual()).contains("write 127.0.0.1:PORT"));
    let none = DatagramOptions { datagrams_per_turn: 0, ..usual() };
    assert!(said("127.0.0.1:0", none).contains("bad limit datagrams_per_turn"));
    for (group, why) in [("10.0.0.1", "no multicast address"), ("ff02::1", "same family")] {
        let groups = vec![group.parse().unwrap()];
        let error = said("127.0.0.1:0", DatagramOptions { groups, ..usual() });
        assert!(error.contains(group) && error.contains(why), "{error}");
    }
    // The reactor is as it was, and the numbers of the services still fit.
    let shout = reactor.datagrams("127.0.0.1:0", Shout).unwrap();
    assert!(matches!(reactor.bind(&shout, "127.0.0.1:0"), Err(Error::Datagrams)));
    assert!(matches!(reactor.connect(&shout, "127.0.0.1:9"), Err(Error::Datagrams)));
    let addr = shout.address().and_then(Address::as_socket).unwrap();
    let ann = socket("127.0.0.1:0");
    ann.send_to(b"x", addr).unwrap();
    while reactor.counters().datagrams_out == 0 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    assert_eq!(receive(&ann), b"X");
}

#[test]
fn dropping_the_reactor_frees_the_port() {
    let mut reactor = Reactor::new().unwrap();
    // An address of its own, so that no other test can take the port meanwhile.
    let shout = reactor.datagrams("127.0.0.5:0", Shout).unwrap();
    let addr = shout.address().unwrap().as_socket().unwrap();
    drop(reactor);
    UdpSocket::bind(addr).expect("the port is still taken");
    assert!(shout.handle().post(Ask::Stop).is_err());
}

// ---- In memory ----

#[test]
fn a_panic_in_any_hook_ends_nothing() {
    struct Brittle;
    impl DatagramHandler for Brittle {
        type Message = ();
        fn on_bound(&mut self, _: &mut DatagramContext<'_>) {
            panic!("on purpose");
        }
        fn on_datagram(&mut self, cx: &mut DatagramContext<'_>, from: SocketAddr, bytes: &[u8]) {
            cx.set_timer(Duration::from_secs(1));
            cx.send_to(from, bytes);
            panic!("on purpose");
        }
        fn on_timer(&mut self, _: &mut DatagramContext<'_>, _: TimerId) {
            panic!("on purpose");
        }
        fn on_message(&mut self, _: &mut DatagramContext<'_>, (): ()) {
            panic!("on purpose");
        }
        fn on_shutdown(&mut self, _: &mut DatagramContext<'_>) {
            panic!("on purpose");
        }
    }
    let mut brittle = DatagramHarness::new(Brittle);
    brittle.deliver(peer(), "a");
    brittle.deliver(peer(), "b");
    brittle.advance(Duration::from_secs(1));
    brittle.post(());
    assert_eq!(brittle.sent(), [(peer(), b"a".to_vec()), (peer(), b"b".to_vec())]);
    assert_eq!(brittle.counters().panics, 6);
    brittle.stop();
    assert_eq!(brittle.counters().panics, 7);
}

#[test]
fn timers_fire_in_order_each_at_its_moment() {
    #[derive(Default)]
    struct Clock {
        set: Vec<TimerId>,
        fired: Vec<(usize, Duration)>,
        began: Option<std::time::Instant>,
    }
    impl DatagramHandler for Clock {
        type Message = ();
        fn on_bound(&mut self, cx: &mut DatagramContext<'_>) {
            self.began = Some(cx.now());
            let later = cx.now() + Duration::from_secs(2);
            self.set = [5, 1, 3].map(|secs| cx.set_timer(Duration::from_secs(secs))).to_vec();
            self.set.push(cx.set_timer_at(later));
            assert!(cx.cancel_timer(self.set[2]) && !cx.cancel_timer(self.set[2]));
        }
        fn on_datagram(&mut self, _: &mut DatagramContext<'_>, _: SocketAddr, _: &[u8]) {}
        fn on_timer(&mut self, cx: &mut DatagramContext<'_>, timer: TimerId) {
            assert_eq!(cx.due(timer), cx.now());
            let number = self.set.iter().position(|set| *set == timer).unwrap();
            self.fired.push((number, cx.now() - self.began.unwrap()));
        }
    }
    let mut clock = DatagramHarness::new(Clock::default());
    clock.advance(Duration::from_millis(999));
    assert_eq!(clock.handler().fired, []);
    clock.advance(Duration::from_secs(10));
    let fired = [(1, 1), (3, 2), (0, 5)].map(|(number, secs)| (number, Duration::from_secs(secs)));
    assert_eq!(clock.handler().fired, fired);
}

#[test]
fn what_the_kernel_does_not_take_waits_in_order_up_to_a_bound() {
    // Two of one byte fit, at 64 bytes each besides.
    let options = DatagramOptions { max_unsent: 2 * 65, ..DatagramOptions::default() };
    let local = SocketAddr::from(([127, 0, 0, 1], 7));
    let mut shout = DatagramHarness::with_options(local, Shout, options);
    shout.take_only(Some(1));
    for bytes in ["a", "b", "c", "d", "e"] {
        shout.deliver(peer(), bytes);
    }
    assert_eq!(shout.sent(), [(peer(), b"A".to_vec())]);
    assert_eq!((shout.counters().datagrams_out, shout.counters().datagrams_lost), (1, 2));
    shout.take_only(Some(1));
    assert_eq!(shout.sent(), [(peer(), b"B".to_vec())]);
    shout.deliver(peer(), "f");
    assert_eq!(shout.sent(), []);
    shout.take_only(None);
    assert_eq!(shout.sent(), [(peer(), b"C".to_vec()), (peer(), b"F".to_vec())]);
    // Those that waited go first, though there is room when the next one comes.
    shout.take_only(Some(0));
    shout.deliver(peer(), "g");
    shout.jump_with(Duration::ZERO, |shout| {
        shout.take_only(None);
        shout.deliver(peer(), "h");
    });
    assert_eq!(shout.sent(), [(peer(), b"G".to_vec()), (peer(), b"H".to_vec())]);
    assert_eq!((shout.counters().datagrams_out, shout.counters().datagrams_lost), (6, 2));
}

#[test]
fn what_waits_at_a_shutdown_still_goes_out_and_no_hook_is_called_any_more() {
    struct Polite;
    impl DatagramHandler for Polite {
        type Message = ();
        fn on_bound(&mut self, cx: &mut DatagramContext<'_>) {
            cx.set_timer(Duration::from_secs(1));
        }
        fn on_datagram(&mut self, _: &mut DatagramContext<'_>, _: SocketAddr, _: &[u8]) {
            panic!("a datagram after the end");
        }
        fn on_timer(&mut self, _: &mut DatagramContext<'_>, _: TimerId) {
            panic!("a timer after the end");
        }
        fn on_shutdown(&mut self, cx: &mut DatagramContext<'_>) {
            assert!(cx.send_to(peer(), "goodbye"));
            assert_eq!(cx.unsent(), 1);
        }
    }
    let mut polite = DatagramHarness::new(Polite);
    polite.take_only(Some(0));
    polite.stop();
    polite.deliver(peer(), "too late");
    polite.advance(Duration::from_secs(2));
    assert_eq!((polite.sent(), polite.counters().panics), (vec![], 0));
    polite.take_only(None);
    assert_eq!(polite.sent(), [(peer(), b"goodbye".to_vec())]);
}

#[test]
fn what_waits_and_then_fails_does_not_hold_the_others_up() {
    let mut shout = DatagramHarness::new(Shout);
    shout.take_only(Some(0));
    shout.deliver(peer(), "a");
    shout.deliver(peer(), "b");
    shout.refuse(Some(ErrorKind::NetworkUnreachable));
    shout.take_only(None);
    assert_eq!(shout.counters().datagrams_lost, 2);
    shout.refuse(None);
    shout.deliver(peer(), "c");
    assert_eq!(shout.sent(), [(peer(), b"C".to_vec())]);
}

#[test]
fn errors_of_the_socket_neither_spin_nor_stop_it() {
    let mut shout = DatagramHarness::new(Shout);
    // Each an answer that nobody listens somewhere; datagrams lie between and behind them.
    shout.jump_with(Duration::ZERO, |shout| {
        for _ in 0..10 {
            shout.deliver_error(ErrorKind::ConnectionRefused);
        }
        shout.deliver(peer(), "a");
        shout.deliver_error(ErrorKind::Interrupted);
        shout.deliver_error(ErrorKind::ConnectionRefused);
        shout.deliver(peer(), "b");
    });
    assert_eq!(shout.sent(), [(peer(), b"A".to_vec()), (peer(), b"B".to_vec())]);
    assert_eq!(shout.counters().datagram_errors, 11);

    // A socket that only fails is left alone, and looked at again.
    let turns = shout.counters().turns;
    shout.jump_with(Duration::ZERO, |shout| {
        for _ in 0..40 {
            shout.deliver_error(ErrorKind::OutOfMemory);
        }
        shout.deliver(peer(), "c");
    });
    assert_eq!((shout.counters().datagram_errors, shout.sent()), (11 + 16, vec![]));
    assert!(shout.counters().turns < turns + 5, "it spins");
    shout.advance(Duration::from_secs(2));
    assert_eq!(shout.counters().datagram_errors, 11 + 40);
    assert_eq!(shout.sent(), [(peer(), b"C".to_vec())]);
}

#[test]
fn a_datagram_that_was_cut_is_not_taken_for_a_whole_one() {
    let mut shout = DatagramHarness::new(Shout);
    shout.deliver(peer(), vec![b'x'; 65_528]);
    assert_eq!((shout.sent(), shout.counters().datagram_errors), (vec![], 1));
    shout.deliver(peer(), vec![b'x'; 65_527]);
    assert_eq!(shout.sent(), [(peer(), vec![b'X'; 65_527])]);
}

#[test]
fn its_own_end_is_told_to_the_loop() {
    let mut shout = DatagramHarness::new(Shout);
    assert!(shout.post(Ask::Stop));
    assert!(shout.is_stopping());
    assert!(!shout.post(Ask::Stop), "as with a reactor that has ended");
    shout.deliver(peer(), "anybody?");
    assert_eq!(shout.sent(), []);
}
