//! The rules of [`Layer`], each as a test that all streams run through, bare and under each layer.

use std::cell::RefCell;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::pipe;
use mio::{Events, Poll, Token};
use socket2::SockRef;

use super::*;
use crate::net::listener::ListeningSocket;
use crate::net::memory::{Pipe, SharedWire, Wire};
use crate::net::{Address, Listen};

/// The streams at the bottom.
const STREAMS: &[(&str, Bottom)] = &[
    ("tcp", tcp),
    ("unix", unix),
    ("descriptors", descriptors),
    ("memory", || memory(0)),
    ("memory that holds back", || memory(700)),
];

/// The layers; each is put over each of the streams.
const LAYERS: &[(&str, Over)] = &[
    ("late", late),
    ("proxy", proxy::over),
    #[cfg(feature = "tls")]
    ("tls", tls::server),
    #[cfg(feature = "tls")]
    ("tls client", tls::client),
    #[cfg(feature = "websocket")]
    ("ws", web_socket::server),
    #[cfg(feature = "websocket")]
    ("ws client", web_socket::client),
];

/// What nothing takes longer than.
const PATIENCE: Duration = Duration::from_secs(10);

type Bottom = fn() -> Pair;
type Over = fn(Pair) -> Pair;

/// A stream and what is at the other end of it.
struct Pair {
    name: String,
    stream: Stream,
    peer: Box<dyn Peer>,
    /// What the peer has heard so far.
    heard: Vec<u8>,
    /// None for what has no descriptors, and before it is registered.
    poll: Option<Poll>,
}

/// The other end, which never blocks.
trait Peer {
    fn send(&mut self, bytes: &[u8]);

    /// Sends so much that a layer has to wait for the rest; nothing where it need not.
    fn begin(&mut self) {}

    /// Sends the rest.
    fn complete(&mut self) {}

    /// What has arrived.
    fn receive(&mut self) -> Vec<u8>;

    /// Whether it has nothing left of a handshake to listen for.
    fn is_open(&self) -> bool {
        true
    }

    /// Whether the end of the stream has arrived, or the error that did instead.
    fn ended(&self) -> Option<Result<(), ErrorKind>>;

    /// Ends its side, and says so where that can be said.
    fn finish(&mut self);

    /// Ends its side of the stream at the bottom, without a word.
    fn cut(&mut self) {
        self.finish();
    }

    /// Closes both sides.
    fn leave(&mut self);
}

/// Runs a rule with every pair there is, open.
fn each(rule: impl Fn(Pair)) {
    each_new(|pair| rule(pair.opened()));
}

/// As [`each`], before the handshake.
fn each_new(rule: impl Fn(Pair)) {
    for (stream, make) in STREAMS {
        let named = |pair: Pair, name: String| {
            println!("{name}");
            Pair { name, ..pair }.registered()
        };
        rule(named(make(), (*stream).to_owned()));
        for (layer, over) in LAYERS {
            rule(named(over(make()), format!("{layer} over {stream}")));
        }
    }
}

impl Pair {
    fn new(stream: Stream, peer: impl Peer + 'static, watched: bool) -> Pair {
        let poll = watched.then(|| Poll::new().unwrap());
        Pair { name: String::new(), stream, peer: Box::new(peer), heard: Vec::new(), poll }
    }

    fn registered(mut self) -> Pair {
        if let Some(poll) = &self.poll {
            let registry = Rc::new(poll.registry().try_clone().unwrap());
            self.stream.register(&registry, Token(7)).unwrap();
        }
        self
    }

    fn opened(mut self) -> Pair {
        self.shake_hands().0.unwrap();
        let start = Instant::now();
        while !self.peer.is_open() {
            let _ = self.stream.flush();
            self.listen();
            assert!(start.elapsed() < PATIENCE, "{}: the peer's handshake", self.name);
        }
        self
    }

    /// Gives what the handshake has found out, how many steps it took and what they cost.
    fn shake_hands(&mut self) -> (io::Result<Opened>, usize, Nanos) {
        let (mut steps, mut spent) = (0, 0);
        let opened = self.until(|stream| {
            steps += 1;
            stream.handshake(1, &mut spent)?.ok_or(ErrorKind::WouldBlock.into())
        });
        (opened, steps, spent)
    }

    /// Waits for an event.
    fn wait(&mut self) {
        let Some(poll) = &mut self.poll else { return };
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(PATIENCE)).unwrap();
        assert!(!events.is_empty(), "{}: no event follows WouldBlock", self.name);
    }

    fn listen(&mut self) {
        let new = self.peer.receive();
        self.heard.extend(new);
    }

    /// Tries again at each event, while the peer listens.
    fn until<T>(&mut self, mut what: impl FnMut(&mut Stream) -> io::Result<T>) -> io::Result<T> {
        let start = Instant::now();
        loop {
            match what(&mut self.stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            assert!(start.elapsed() < PATIENCE, "{}: still blocked", self.name);
            let again = self.stream.has_more() || self.stream.due().is_some();
            self.listen();
            if !again {
                self.wait();
            }
        }
    }

    /// Reads so many bytes, a few at a time.
    fn read(&mut self, count: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < count {
            let mut buf = [0; 1000];
            let most = buf.len().min(count - all.len());
            let count = self.until(|stream| stream.read(&mut buf[..most])).unwrap();
            assert!(count > 0, "{}: an end after {} bytes", self.name, all.len());
            all.extend(&buf[..count]);
        }
        all
    }

    fn would_block<T>(&mut self, outcome: io::Result<T>) {
        let kind = outcome.err().map(|error| error.kind());
        assert_eq!(kind, Some(ErrorKind::WouldBlock), "{}", self.name);
    }

    /// Writes until nothing more is taken, and gives what was.
    fn fill(&mut self) -> Vec<u8> {
        let mut taken: Vec<u8> = Vec::new();
        loop {
            let bytes: Vec<u8> = (taken.len()..taken.len() + 5000).map(|n| (n / 7) as u8).collect();
            match self.stream.write(&bytes) {
                Ok(count) => {
                    assert!((1..=bytes.len()).contains(&count), "{}", self.name);
                    taken.extend(&bytes[..count]);
                    assert!(taken.len() < 64 << 20, "{}: no bound", self.name);
                }
                outcome => {
                    self.would_block(outcome);
                    return taken;
                }
            }
        }
    }

    /// Lets the peer listen until it has heard so much, and perhaps the end.
    fn hear(&mut self, count: usize, end: bool) {
        let start = Instant::now();
        while self.heard.len() < count || end && self.peer.ended().is_none() {
            self.listen();
            let (heard, name) = (self.heard.len(), &self.name);
            assert!(start.elapsed() < PATIENCE, "{name}: heard {heard} of {count}");
            thread::yield_now();
        }
    }
}

#[test]
fn rule_1_nothing_blocks_and_an_event_follows() {
    each(|mut pair| {
        for word in ["once", "again"] {
            let outcome = pair.stream.read(&mut [0; 100]);
            pair.would_block(outcome);
            assert!(!pair.stream.has_more(), "{}", pair.name);
            pair.peer.send(word.as_bytes());
            assert_eq!(pair.read(word.len()), word.as_bytes(), "{}", pair.name);
        }
    });
}

#[test]
fn rule_1_what_is_registered_anew_has_an_event_for_what_was_there() {
    each(|mut pair| {
        pair.peer.send(b"before");
        pair.wait();
        let Some(poll) = &mut pair.poll else { return };
        let registry = Rc::new(poll.registry().try_clone().unwrap());
        pair.stream.deregister(&registry).unwrap();
        pair.stream.register(&registry, Token(8)).unwrap();
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(PATIENCE)).unwrap();
        let name = &pair.name;
        assert!(
            !events.is_empty() && events.iter().all(|event| event.token() == Token(8)),
            "{name}"
        );
        assert_eq!(pair.read(6), b"before", "{}", pair.name);
        let outcome = pair.stream.read(&mut [0; 100]);
        pair.would_block(outcome);
        pair.peer.send(b"after");
        assert_eq!(pair.read(5), b"after", "{}", pair.name);
    });
}

#[test]
fn rule_2_the_handshake_comes_first() {
    each_new(|mut pair| {
        let first = pair.stream.handshake(1, &mut 0).unwrap();
        assert_eq!(first.is_none(), pair.stream.has_handshake(), "{}", pair.name);
        let layer =
            pair.name.split(' ').next().filter(|layer| ["proxy", "tls", "ws"].contains(layer));
        assert_eq!(pair.stream.handshaking(), layer, "{}", pair.name);
        let mut pair = pair.opened();
        assert_eq!(pair.stream.handshaking(), None, "{}", pair.name);
        pair.peer.send(b"hello");
        assert_eq!(pair.read(5), b"hello", "{}", pair.name);
        assert!(pair.stream.due().is_none() && pair.stream.host().is_none(), "{}", pair.name);
    });
    // With one below it that takes its time and names a peer.
    for (name, over) in LAYERS {
        let Pair { stream, peer, .. } = memory(0);
        let below = Pair { stream, peer, ..memory(0) };
        let mut pair = over(late(below));
        assert!(pair.stream.names_peer(), "{name}");
        let (opened, steps, _) = pair.shake_hands();
        assert_eq!(opened.unwrap().peer, Some(([192, 0, 2, 7], 77).into()), "{name}");
        assert!(steps > 2, "{name}: {steps} steps");
        assert!(pair.stream.downcast::<Late>().is_none(), "{name}: it is still in the way");
    }
}

#[test]
fn rule_3_input_comes_in_order_and_ends() {
    each(|mut pair| {
        for word in ["one ", "two ", "three"] {
            pair.peer.send(word.as_bytes());
        }
        pair.peer.finish();
        assert_eq!(pair.read(13), b"one two three", "{}", pair.name);
        for _ in 0..2 {
            let end = pair.until(|stream| stream.read(&mut [0; 100]));
            assert_eq!(end.unwrap(), 0, "{}", pair.name);
        }
    });
    each(|mut pair| {
        pair.peer.send(b"last");
        pair.peer.cut();
        assert_eq!(pair.read(4), b"last", "{}", pair.name);
        let end = pair.until(|stream| stream.read(&mut [0; 100])).map_err(|error| error.kind());
        let cut = pair.stream.announces_end();
        let right = if cut { Err(ErrorKind::UnexpectedEof) } else { Ok(0) };
        assert_eq!(end, right, "{}", pair.name);
    });
}

#[test]
fn rule_4_a_short_read_or_would_block_is_all_there_is() {
    each(|mut pair| {
        pair.peer.send(b"short");
        let count = pair.until(|stream| stream.read(&mut [0; 100])).unwrap();
        assert_eq!(count, 5, "{}", pair.name);
        if !pair.stream.may_read_short() {
            assert!(!pair.stream.has_unread(), "{}", pair.name);
        }
        // As much as a record of TLS may have, in one.
        let long: Vec<u8> = (0..16 * 1024).map(|n| (n / 3) as u8).collect();
        pair.peer.send(&long);
        let mut read: Vec<u8> = Vec::new();
        pair.stream.cost(0);
        while read.len() < long.len() {
            let mut buf = [0; 3000];
            let outcome = pair.stream.read(&mut buf);
            let cost = pair.stream.cost(0).bytes;
            assert!(cost <= 64 * 1024, "{}: one read cost {cost}", pair.name);
            match outcome {
                Ok(count) => read.extend(&buf[..count]),
                outcome if pair.stream.has_more() => pair.would_block(outcome),
                outcome => {
                    pair.would_block(outcome);
                    pair.wait();
                }
            }
        }
        assert!(read == long && !pair.stream.has_unread(), "{}", pair.name);
        let outcome = pair.stream.read(&mut [0; 100]);
        pair.would_block(outcome);
    });
}

#[test]
fn rule_5_unread_input_shows() {
    each(|mut pair| {
        assert!(!pair.stream.has_unread(), "{}", pair.name);
        pair.peer.send(b"unread");
        if pair.stream.is_socket() {
            let start = Instant::now();
            while !pair.stream.has_unread() {
                assert!(start.elapsed() < PATIENCE, "{}: nothing unread", pair.name);
            }
        }
        assert_eq!(pair.read(3), b"unr", "{}", pair.name);
        // What is left in a descriptor is for its next reader.
        let bare = !pair.stream.is_socket() && !pair.name.starts_with("tls");
        assert_eq!(pair.stream.has_unread(), !bare, "{}", pair.name);
        assert_eq!(pair.read(3), b"ead", "{}", pair.name);
        assert!(!pair.stream.has_unread(), "{}", pair.name);
    });
}

#[test]
fn rule_6_a_handshake_tells_what_it_has_computed() {
    each_new(|mut pair| {
        let computes = pair.name.starts_with("tls");
        assert_eq!(pair.shake_hands().2 > 0, computes, "{}", pair.name);
    });
    // With one below it that does too.
    for (name, over) in LAYERS {
        let below = in_memory(Wire { steps: [3, 4].into(), ..Wire::default() });
        let (opened, _, spent) = over(below).shake_hands();
        assert!(opened.is_ok() && spent >= 7, "{name}: {spent}");
    }
}

#[test]
fn rule_6_work_is_accounted_for() {
    each(|mut pair| {
        pair.stream.cost(0);
        pair.peer.send(b"x");
        assert_eq!(pair.read(1), b"x", "{}", pair.name);
        let coded = pair.stream.announces_end();
        // The others decode as a stream.
        let buffers = pair.name.starts_with("tls");
        assert_eq!(pair.stream.cost(1).bytes > 1, coded, "{}", pair.name);
        assert_eq!(pair.stream.cost(0).bytes, 0, "{}", pair.name);
        pair.stream.tell_time(3, false);
        assert_eq!(pair.stream.unfinished_since(), None, "{}", pair.name);
        for now in [5, 50] {
            pair.peer.begin();
            let since = coded.then_some(now);
            let arrived = pair.until(|stream| {
                let outcome = stream.read(&mut [0; 100]);
                assert!(outcome.is_err(), "half a record is none");
                stream.tell_time(now, false);
                if stream.unfinished_since() == since { Ok(()) } else { outcome.map(drop) }
            });
            arrived.unwrap();
            pair.stream.tell_time(now + 1, false);
            assert_eq!(pair.stream.unfinished_since(), since, "{}", pair.name);
            pair.stream.tell_time(now + 2, true);
            let since = coded.then_some(now + 2);
            assert_eq!(pair.stream.unfinished_since(), since, "{}", pair.name);
            assert_eq!(pair.stream.kept() > 0, buffers, "{}: the half record", pair.name);
            pair.peer.complete();
            if coded {
                pair.read(1);
            }
            pair.stream.tell_time(now + 3, false);
            assert_eq!(pair.stream.unfinished_since(), None, "{}", pair.name);
            assert_eq!(pair.stream.kept(), 0, "{}", pair.name);
        }
        // What is decoded and not read, and what is taken and not out.
        pair.peer.send(b"read and unread");
        pair.read(4);
        assert_eq!(pair.stream.kept(), if buffers { 11 } else { 0 }, "{}", pair.name);
        pair.read(11);
        assert_eq!(pair.stream.kept(), 0, "{}", pair.name);
        pair.fill();
        assert_eq!(pair.stream.kept() > 0, pair.stream.unsent(), "{}", pair.name);
        pair.until(Write::flush).unwrap();
        assert_eq!(pair.stream.kept(), 0, "{}", pair.name);
    });
    each_new(|mut pair| {
        assert_eq!(pair.stream.kept(), 0, "{}: the handshake is to come", pair.name);
        pair = pair.opened();
        pair.until(Write::flush).unwrap();
        assert_eq!(pair.stream.kept(), 0, "{}: the handshake is done", pair.name);
    });
}

#[test]
fn rule_7_what_is_taken_goes_out_in_order() {
    each(|mut pair| {
        pair.stream.take_moved();
        let taken = pair.fill();
        let unsent = pair.stream.unsent();
        for _ in 0..2 {
            let outcome = pair.stream.write(b"!");
            pair.would_block(outcome);
        }
        if unsent {
            let outcome = pair.stream.flush();
            pair.would_block(outcome);
            pair.stream.take_moved();
        }
        pair.until(Write::flush).unwrap();
        assert!(!pair.stream.unsent(), "{}", pair.name);
        assert_eq!(pair.stream.take_moved(), unsent, "{}", pair.name);
        assert!(!pair.stream.take_moved(), "{}", pair.name);
        pair.hear(taken.len(), false);
        assert!(pair.heard == taken, "{}: {} bytes", pair.name, taken.len());
    });
}

#[test]
fn rule_8_the_end_of_our_side_comes_after_the_output() {
    each(|mut pair| {
        let taken = pair.fill();
        if pair.stream.unsent() {
            let outcome = pair.stream.shutdown_write();
            pair.would_block(outcome);
        }
        pair.until(|stream| stream.shutdown_write()).unwrap();
        pair.hear(taken.len(), true);
        assert!(pair.heard == taken, "{}", pair.name);
        assert_eq!(pair.peer.ended(), Some(Ok(())), "{}", pair.name);
        let refused = pair.stream.write(b"!").map_err(|error| error.kind());
        assert_eq!(refused, Err(ErrorKind::BrokenPipe), "{}", pair.name);
        pair.peer.send(b"still here");
        assert_eq!(pair.read(10), b"still here", "{}", pair.name);
    });
}

#[test]
fn rule_8_the_loop_tells_why_before_it_closes() {
    for (_, over) in LAYERS {
        let pair = memory(0);
        let told = Rc::new(RefCell::new(None));
        let stream = Stream::layer(Told { below: pair.stream, why: Rc::clone(&told) });
        over(Pair { stream, ..pair }).opened().stream.tell_why(CloseReason::Shutdown);
        assert_eq!(told.take(), Some(CloseReason::Shutdown), "it is passed on");
    }
}

#[test]
fn rule_9_a_write_that_fails_leaves_the_input() {
    each(|mut pair| {
        pair.peer.send(b"last words");
        pair.peer.leave();
        let start = Instant::now();
        while pair.stream.write(b"anybody?").is_ok() {
            assert!(start.elapsed() < PATIENCE, "{}: no write fails", pair.name);
        }
        assert_eq!(pair.read(10), b"last words", "{}", pair.name);
    });
}

#[test]
fn rule_10_an_error_is_told_once() {
    each(|mut pair| {
        assert!(pair.stream.noted_error().is_none(), "{}", pair.name);
        pair.peer.leave();
        for _ in 0..10 {
            if pair.stream.write(b"anybody?").is_err() {
                break;
            }
        }
        let told = pair.stream.noted_error().is_some();
        let again = pair.stream.noted_error().is_some();
        // A pipe without a reader stays one.
        assert!(!again || told && !pair.stream.is_socket(), "{}", pair.name);
        assert_eq!(pair.stream.fails_as_one(), pair.stream.is_socket(), "{}", pair.name);
    });
}

#[test]
fn rule_11_to_drop_it_is_to_close_it() {
    each(|mut pair| {
        let is_tcp = pair.name.ends_with("tcp");
        assert_eq!(pair.stream.local_end().is_some(), is_tcp, "{}", pair.name);
        pair.stream.write_all(b"bye").unwrap();
        pair.until(Write::flush).unwrap();
        pair.hear(3, false);
        pair.stream.reset();
        pair.stream = Stream::layer(crate::net::stream::Failed);
        pair.hear(3, true);
        let reset = Err(ErrorKind::ConnectionReset);
        let knows_resets = is_tcp || pair.name.contains("memory");
        assert_eq!(pair.peer.ended() == Some(reset), knows_resets, "{}", pair.name);
    });
}

#[test]
fn rule_11_where_dropping_it_shuts_it_the_peer_hears_all_and_the_end() {
    each(|mut pair| {
        // These have given way.
        let below = pair.name.trim_start_matches("late over ").trim_start_matches("proxy over ");
        let is_socket = ["tcp", "unix", "memory"].contains(&below);
        assert_eq!(pair.stream.shuts_with_drop(), is_socket, "{}", pair.name);
        if !is_socket {
            return;
        }
        pair.peer.send(b"all of it");
        pair.peer.finish();
        assert_eq!(pair.read(9), b"all of it", "{}", pair.name);
        let end = pair.until(|stream| stream.read(&mut [0; 100]));
        assert_eq!(end.unwrap(), 0, "{}", pair.name);
        let taken = pair.fill();
        pair.stream = Stream::layer(crate::net::stream::Failed);
        pair.hear(taken.len(), true);
        assert!(pair.heard == taken, "{}: {} bytes", pair.name, taken.len());
        assert_eq!(pair.peer.ended(), Some(Ok(())), "{}", pair.name);
    });
}

#[test]
fn rule_12_to_turn_somebody_away_takes_no_time() {
    each_new(|mut pair| {
        pair.peer.send(b"hello");
        let worded = ["proxy ", "ws over "].iter().any(|it| pair.name.starts_with(it));
        let silent = pair.stream.has_handshake() && !worded;
        let notice: &[u8] = if silent { b"" } else { b"full\n" };
        pair.stream.turn_away(b"full\n");
        let unread = pair.stream.has_unread();
        assert!(!unread, "{}: unread input makes it a reset", pair.name);
        pair.stream = Stream::layer(crate::net::stream::Failed);
        pair.hear(notice.len(), true);
        assert_eq!(pair.heard, notice, "{}", pair.name);
    });
}

/// The other end of sockets, or of two pipes.
struct Plain {
    to: Option<File>,
    from: Option<File>,
    ended: Option<Result<(), ErrorKind>>,
}

impl Plain {
    fn new(to: impl Into<OwnedFd>, from: impl Into<OwnedFd>) -> Plain {
        let (to, from) = (File::from(to.into()), File::from(from.into()));
        Plain { to: Some(to), from: Some(from), ended: None }
    }
}

impl Peer for Plain {
    fn send(&mut self, bytes: &[u8]) {
        self.to.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        if let Some(from) = self.from.as_mut().filter(|_| self.ended.is_none()) {
            match from.read_to_end(&mut all) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                outcome => self.ended = Some(outcome.map(drop).map_err(|error| error.kind())),
            }
        }
        all
    }

    fn ended(&self) -> Option<Result<(), ErrorKind>> {
        self.ended
    }

    fn finish(&mut self) {
        // A pipe cannot be shut, but only be closed.
        let to = self.to.take().unwrap();
        let _ = SockRef::from(&to.as_fd()).shutdown(Shutdown::Write);
    }

    fn leave(&mut self) {
        (self.to, self.from) = (None, None);
    }
}

fn tcp() -> Pair {
    let listen = Listen::at("127.0.0.1:0").unwrap();
    let mut server = ListeningSocket::bind(&listen, &Limits::default()).unwrap();
    let Ok(Address::Tcp(addr)) = server.local_addr() else { panic!("no address") };
    let client = std::net::TcpStream::connect(addr).unwrap();
    client.set_nonblocking(true).unwrap();
    let stream = loop {
        match server.accept() {
            Ok((stream, _)) => break stream,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    };
    Pair::new(Stream::Socket(stream), Plain::new(client.try_clone().unwrap(), client), true)
}

fn unix() -> Pair {
    let (ours, client) = mio::net::UnixStream::pair().unwrap();
    let client = std::os::unix::net::UnixStream::from(client);
    Pair::new(ours.into(), Plain::new(client.try_clone().unwrap(), client), true)
}

fn descriptors() -> Pair {
    let (to, input) = pipe::new().unwrap();
    let (output, from) = pipe::new().unwrap();
    // Ours are what a shell gives.
    input.set_nonblocking(false).unwrap();
    output.set_nonblocking(false).unwrap();
    let stream = Stream::adopt(input.as_fd(), output.as_fd()).unwrap();
    Pair::new(stream, Plain::new(to, from), true)
}

/// The other end of a memory stream.
struct Held(SharedWire);

const ROOM: Option<usize> = Some(1000);

fn memory(holds: usize) -> Pair {
    in_memory(Wire { holds, ..Wire::default() })
}

fn in_memory(wire: Wire) -> Pair {
    let wire = Rc::new(RefCell::new(Wire { connected: true, room: ROOM, ..wire }));
    let stream = Stream::layer(Pipe::new(Rc::clone(&wire)));
    Pair::new(stream, Held(wire), false)
}

impl Peer for Held {
    fn send(&mut self, bytes: &[u8]) {
        self.0.borrow_mut().inbound.extend(bytes);
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut wire = self.0.borrow_mut();
        wire.room = ROOM;
        std::mem::take(&mut wire.outbound)
    }

    fn ended(&self) -> Option<Result<(), ErrorKind>> {
        let wire = self.0.borrow();
        let error = wire.error.map(Err);
        error.or(wire.shut.then_some(Ok(())))
    }

    fn finish(&mut self) {
        self.0.borrow_mut().end = true;
    }

    fn leave(&mut self) {
        self.0.borrow_mut().error = Some(ErrorKind::ConnectionReset);
    }
}

/// A layer that does nothing but take its time, learn who the peer is, and leave.
struct Late {
    below: Option<Stream>,
    steps: usize,
}

fn late(pair: Pair) -> Pair {
    let stream = Stream::layer(Late { below: Some(pair.stream), steps: 0 });
    Pair { stream, ..pair }
}

impl Layer for Late {
    fn below(&self) -> Option<&Stream> {
        self.below.as_ref()
    }

    fn below_mut(&mut self) -> Option<&mut Stream> {
        self.below.as_mut()
    }

    fn has_handshake(&self) -> bool {
        true
    }

    fn names_peer(&self) -> bool {
        true
    }

    fn handshake(&mut self, now: Nanos, spent: &mut Nanos) -> io::Result<Option<Opened>> {
        self.steps += 1;
        if self.steps < 3 || self.below.as_mut().unwrap().handshake(now, spent)?.is_none() {
            return Ok(None);
        }
        let peer = Some(([192, 0, 2, 7], 77).into());
        Ok(Some(Opened { peer, instead: self.below.take() }))
    }

    fn due(&self) -> Option<Nanos> {
        Some(1)
    }

    fn turn_away(&mut self, _: &[u8]) {
        self.below.as_mut().unwrap().turn_away(b"");
    }
}

impl Read for Late {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("read before the handshake is done")
    }
}

impl Write for Late {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        panic!("written before the handshake is done")
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A layer that does nothing but listen to why it is closed.
struct Told {
    below: Stream,
    why: Rc<RefCell<Option<CloseReason>>>,
}

impl Layer for Told {
    fn below(&self) -> Option<&Stream> {
        Some(&self.below)
    }

    fn below_mut(&mut self) -> Option<&mut Stream> {
        Some(&mut self.below)
    }

    fn handshake(&mut self, now: Nanos, spent: &mut Nanos) -> io::Result<Option<Opened>> {
        self.below.handshake(now, spent)
    }

    fn tell_why(&mut self, reason: CloseReason) {
        *self.why.borrow_mut() = Some(reason);
    }
}

impl Read for Told {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.below.read(buf)
    }
}

impl Write for Told {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.below.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.below.flush()
    }
}

mod proxy {
    use super::*;
    use crate::net::layer::Acceptor;
    use crate::net::proxy::Proxied;

    /// The other end, which sends a header once it is listened to, unless it has sent something else.
    struct Proxy {
        below: Box<dyn Peer>,
        header: &'static [u8],
    }

    pub(super) fn over(pair: Pair) -> Pair {
        let stream = Proxied::new(None, false).accept(pair.stream).unwrap();
        let header = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        Pair { stream, peer: Box::new(Proxy { below: pair.peer, header }), ..pair }
    }

    impl Peer for Proxy {
        fn send(&mut self, bytes: &[u8]) {
            self.header = b"";
            self.below.send(bytes);
        }

        fn receive(&mut self) -> Vec<u8> {
            if !self.header.is_empty() {
                self.below.send(std::mem::take(&mut self.header));
            }
            self.below.receive()
        }

        fn ended(&self) -> Option<Result<(), ErrorKind>> {
            self.below.ended()
        }

        fn finish(&mut self) {
            self.below.finish();
        }

        fn leave(&mut self) {
            self.below.leave();
        }
    }
}

#[cfg(feature = "tls")]
mod tls {
    use std::sync::Arc;

    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{
        ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
        crypto::ring,
    };

    use super::*;
    use crate::net::tls::TlsStream;

    /// The other end, in TLS.
    struct Partner {
        below: Box<dyn Peer>,
        tls: Connection,
        /// The rest of a record.
        rest: Vec<u8>,
        ended: Option<Result<(), ErrorKind>>,
    }

    fn both(tickets: usize) -> (Connection, Connection) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.send_tls13_tickets = tickets;
        let server = ServerConnection::new(Arc::new(config)).unwrap();
        (Connection::Client(client), Connection::Server(server))
    }

    pub(super) fn server(pair: Pair) -> Pair {
        let (theirs, ours) = both(0);
        over(pair, ours, theirs)
    }

    pub(super) fn client(pair: Pair) -> Pair {
        // Tickets would be unread input.
        let (ours, theirs) = both(0);
        over(pair, ours, theirs)
    }

    #[test]
    fn tickets_for_later_sessions_are_nothing_that_is_kept() {
        let (ours, theirs) = both(4);
        let mut pair = over(memory(0), ours, theirs).registered().opened();
        pair.until(Write::flush).unwrap();
        let outcome = pair.stream.read(&mut [0; 100]);
        pair.would_block(outcome);
        assert_eq!(pair.stream.kept(), 0);
    }

    fn over(pair: Pair, ours: Connection, theirs: Connection) -> Pair {
        let stream = Stream::layer(TlsStream::new(pair.stream, ours));
        let peer = Partner { below: pair.peer, tls: theirs, rest: Vec::new(), ended: None };
        Pair { stream, peer: Box::new(peer), ..pair }
    }

    impl Partner {
        fn records(&mut self) -> Vec<u8> {
            let mut out = Vec::new();
            while self.tls.wants_write() {
                self.tls.write_tls(&mut out).unwrap();
            }
            out
        }

        fn carry(&mut self) {
            let out = self.records();
            if !out.is_empty() {
                self.below.send(&out);
            }
        }
    }

    impl Peer for Partner {
        fn send(&mut self, bytes: &[u8]) {
            self.tls.writer().write_all(bytes).unwrap();
            self.carry();
        }

        fn begin(&mut self) {
            self.tls.writer().write_all(b"x").unwrap();
            let mut out = self.records();
            self.rest = out.split_off(out.len() - 7);
            self.below.send(&out);
        }

        fn complete(&mut self) {
            self.below.send(&self.rest);
        }

        fn receive(&mut self) -> Vec<u8> {
            let (mut all, mut buf) = (Vec::new(), [0; 4096]);
            let new = self.below.receive();
            let mut new = new.as_slice();
            while !new.is_empty() {
                self.tls.read_tls(&mut new).unwrap();
                self.tls.process_new_packets().unwrap();
                while let Ok(count @ 1..) = self.tls.reader().read(&mut buf) {
                    all.extend(&buf[..count]);
                }
            }
            if self.tls.reader().read(&mut buf).is_ok_and(|count| count == 0) {
                self.ended = Some(Ok(()));
            }
            if !self.tls.is_handshaking() || self.below.ended().is_none() {
                self.carry();
            }
            all
        }

        fn is_open(&self) -> bool {
            !self.tls.is_handshaking()
        }

        fn ended(&self) -> Option<Result<(), ErrorKind>> {
            self.ended.or(self.below.ended())
        }

        fn finish(&mut self) {
            self.tls.send_close_notify();
            self.carry();
        }

        fn cut(&mut self) {
            self.below.finish();
        }

        fn leave(&mut self) {
            self.below.leave();
        }
    }
}

#[cfg(feature = "websocket")]
mod web_socket {
    use std::io::Cursor;

    use tungstenite::handshake::derive_accept_key;
    use tungstenite::protocol::frame::FrameHeader;
    use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

    use super::*;
    use crate::net::layer::Acceptor;
    use crate::net::websocket::WebSocket;

    /// The other end, in WebSocket: of binary messages, so that any bytes get through.
    struct Partner {
        below: Box<dyn Peer>,
        is_client: bool,
        /// It has sent something.
        begun: bool,
        open: bool,
        /// What it has received and not understood yet.
        heard: Vec<u8>,
        /// The rest of a frame.
        rest: Vec<u8>,
        ended: bool,
    }

    pub(super) fn server(pair: Pair) -> Pair {
        let stream = WebSocket::new().binary().accept(pair.stream).unwrap();
        over(Pair { stream, ..pair }, true)
    }

    pub(super) fn client(pair: Pair) -> Pair {
        let address = Address::Tcp(([127, 0, 0, 1], 9).into());
        let stream = WebSocket::new().binary().towards().over(pair.stream, &address);
        over(Pair { stream, ..pair }, false)
    }

    fn over(pair: Pair, is_client: bool) -> Pair {
        let peer = Partner {
            below: pair.peer,
            is_client,
            begun: false,
            open: false,
            heard: Vec::new(),
            rest: Vec::new(),
            ended: false,
        };
        Pair { peer: Box::new(peer), ..pair }
    }

    impl Partner {
        fn frame(&self, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
            let mask = self.is_client.then_some([3, 5, 7, 9]);
            let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
            let mut frame = Vec::new();
            header.format(payload.len() as u64, &mut frame).unwrap();
            let mask = mask.unwrap_or_default().into_iter().cycle();
            frame.extend(payload.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
            frame
        }

        /// Does its part of the handshake once it has heard all that it needs.
        fn shake_hands(&mut self) -> Vec<u8> {
            let Some(end) = self.heard.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Vec::new();
            };
            let head: Vec<u8> = self.heard.drain(..end + 4).collect();
            let head = String::from_utf8(head).unwrap();
            if !self.is_client {
                let key = head.split("Sec-WebSocket-Key: ").nth(1).unwrap().lines().next().unwrap();
                let accept = derive_accept_key(key.as_bytes());
                let answer = format!(
                    "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                self.below.send(answer.as_bytes());
            } else if !head.starts_with("HTTP/1.1 101 ") {
                return std::mem::take(&mut self.heard);
            }
            self.open = true;
            Vec::new()
        }
    }

    impl Peer for Partner {
        fn send(&mut self, bytes: &[u8]) {
            self.begun = true;
            let frame = self.frame(OpCode::Data(Data::Binary), bytes);
            self.below.send(&frame);
        }

        fn begin(&mut self) {
            let mut frame = self.frame(OpCode::Data(Data::Binary), b"x");
            self.rest = frame.split_off(1);
            self.below.send(&frame);
        }

        fn complete(&mut self) {
            self.below.send(&self.rest);
        }

        fn receive(&mut self) -> Vec<u8> {
            if self.is_client && !std::mem::replace(&mut self.begun, true) {
                self.below.send(
                    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                );
            }
            let new = self.below.receive();
            self.heard.extend(new);
            let mut all = if self.open { Vec::new() } else { self.shake_hands() };
            while self.open {
                let mut cursor = Cursor::new(&self.heard);
                let Some((header, length)) = FrameHeader::parse(&mut cursor).unwrap() else {
                    break;
                };
                let start = cursor.position() as usize;
                let end = start + length as usize;
                if self.heard.len() < end {
                    break;
                }
                assert_eq!(header.mask.is_none(), self.is_client);
                let mask = header.mask.unwrap_or_default().into_iter().cycle();
                let payload =
                    self.heard[start..end].iter().zip(mask).map(|(byte, mask)| byte ^ mask);
                match header.opcode {
                    OpCode::Control(Control::Close) => self.ended = true,
                    _ => all.extend(payload),
                }
                self.heard.drain(..end);
            }
            all
        }

        fn is_open(&self) -> bool {
            self.open
        }

        fn ended(&self) -> Option<Result<(), ErrorKind>> {
            self.below
                .ended()
                .filter(|end| end.is_err())
                .or(self.ended.then_some(Ok(())))
                .or(self.below.ended())
        }

        fn finish(&mut self) {
            let frame = self.frame(OpCode::Control(Control::Close), b"");
            self.below.send(&frame);
        }

        fn cut(&mut self) {
            self.below.finish();
        }

        fn leave(&mut self) {
            self.below.leave();
        }
    }
}
