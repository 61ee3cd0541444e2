//! The same promises over TLS, with rustls as the client.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reactor::services::Echo;
use reactor::testing::{Client, Harness};
use reactor::{
    CloseReason, Context, Counters, Handle, Handler, Limits, Listen, Reactor, TimerId, Tls,
};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};

use crate::util::tls::{End, Pem, TlsClient};
use crate::util::{PATIENCE, until};

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";

/// A service over TLS, run by a thread.
struct Secure<M> {
    addr: SocketAddr,
    handle: Handle<M>,
    thread: JoinHandle<Counters>,
    pem: Pem,
}

fn secure<H>(
    name: &str,
    limits: Limits,
    make: impl FnOnce() -> H + Send + 'static,
) -> Secure<H::Message>
where
    H: Handler + 'static,
    H::Message: Send,
{
    secure_with(name, limits, |_| {}, make)
}

fn secure_with<H>(
    name: &str,
    limits: Limits,
    set: impl FnOnce(&mut Reactor<'_>) + Send + 'static,
    make: impl FnOnce() -> H + Send + 'static,
) -> Secure<H::Message>
where
    H: Handler + 'static,
    H::Message: Send,
{
    let pem = Pem::new(name);
    let (cert, key) = (pem.cert(), pem.key());
    let (tell, told) = channel();
    let thread = std::thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        set(&mut reactor);
        let tls = Tls::from_files(cert, key).unwrap();
        let listen = Listen::at("127.0.0.1:0").unwrap().tls(&tls);
        let service = reactor.listen_with(listen, make(), limits).unwrap();
        let addr = service.address().unwrap().as_socket().unwrap();
        tell.send((addr, service.handle())).unwrap();
        reactor.run().unwrap();
        reactor.counters()
    });
    let (addr, handle) = told.recv_timeout(PATIENCE).expect("the reactor did not start");
    Secure { addr, handle, thread, pem }
}

fn echo(name: &str) -> Secure<()> {
    secure(name, Limits::default(), || Echo)
}

impl<M> Secure<M> {
    fn stop(self) -> Counters {
        self.handle.stop();
        self.thread.join().unwrap()
    }
}

/// Says what it is told of: `open`, each line, `eof`, and the end with its reason.
struct Witness(std::sync::mpsc::Sender<String>);

impl Handler for Witness {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, _: &mut Context<'_, ()>) {
        self.0.send("open".to_owned()).unwrap();
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        self.0.send(String::from_utf8_lossy(line).into_owned()).unwrap();
        cx.send([line, b"\n"].concat());
    }

    fn on_close(&mut self, _: &mut Context<'_, ()>, reason: CloseReason) {
        let _ = self.0.send(format!("closed: {reason}"));
    }
}

fn witness(name: &str, limits: Limits) -> (Secure<()>, Receiver<String>) {
    let (tell, told) = channel();
    (secure(name, limits, move || Witness(tell)), told)
}

#[track_caller]
fn saw(told: &Receiver<String>, what: &[&str]) {
    for what in what {
        assert_eq!(told.recv_timeout(PATIENCE).as_deref(), Ok(*what));
    }
}

// ---- The total of unfinished input ----

/// Sends a record but for its last byte, which is given.
fn begin_record(client: &mut TlsClient, plaintext: &[u8]) -> u8 {
    client.tls.writer().write_all(plaintext).unwrap();
    let mut record = Vec::new();
    while client.tls.wants_write() {
        client.tls.write_tls(&mut record).unwrap();
    }
    let last = record.pop().unwrap();
    client.stream.write_all(&record).unwrap();
    last
}

#[test]
fn unfinished_records_count_as_unfinished_input() {
    const CLIENTS: usize = 12;
    let (tell, told) = channel();
    let limits = Limits { line_timeout: None, ..Limits::default() };
    let set = |reactor: &mut Reactor<'_>| reactor.set_max_total_input(256 << 10);
    let server = secure_with("unfinished", limits, set, move || Witness(tell));
    let connect = || {
        let mut client = server.pem.connect(server.addr);
        // The last word of the handshake is its own.
        client.step(false);
        saw(&told, &["open"]);
        client
    };
    let mut small = connect();
    let last = begin_record(&mut small, b"take your time\n");
    // Each needs a buffer of 32 KiB.
    let mut large: Vec<_> = (0..CLIENTS).map(|_| connect()).collect();
    // One that sends whole records all the while pays for nothing.
    let mut whole = connect();
    for client in &mut large {
        begin_record(client, &[b'x'; 16_000]);
        whole.send("one\ntwo\n");
        whole.expect("one\ntwo\n");
    }
    let mut seen = Vec::new();
    let gone = "closed: too much unfinished input in all";
    while !seen.iter().any(|what| what == gone) {
        seen.push(told.recv_timeout(PATIENCE).expect("nobody is closed"));
    }
    small.stream.write_all(&[last]).unwrap();
    small.expect("take your time\n");
    drop((small, large, whole));
    let counters = server.stop();
    let closed = counters.closed(CloseReason::TotalInput);
    assert!((3..=CLIENTS as u64).contains(&closed), "{closed}");
}

/// Whole records, of one message that does not come to its end.
#[test]
fn an_unfinished_hello_counts_as_unfinished_input() {
    let set = |reactor: &mut Reactor<'_>| reactor.set_max_total_input(256 << 10);
    let server = secure_with("hello", Limits::default(), set, || Echo);
    let record = |body: &[u8]| [&[22, 3, 1, 0x3e, 0x80], body].concat();
    let parts = [record(&[&[1, 0, 0xea, 0x60][..], &[0; 15_996]].concat()), record(&[0; 16_000])];
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = TcpStream::connect(server.addr).unwrap();
        for part in [&parts[0], &parts[1], &parts[1]] {
            client.write_all(part).unwrap();
        }
        client.set_nonblocking(true).unwrap();
        clients.push(client);
    }
    let reset = |client: &mut TcpStream| {
        client.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    };
    until("some are reset", || clients.iter_mut().any(reset));
    let mut other = server.pem.connect(server.addr);
    other.expect(GREETING);
    drop((clients, other));
    assert!(server.stop().handshakes_failed > 0);
}

// ---- Lines ----

#[test]
fn the_echo_transcript_with_both_versions() {
    let server = echo("transcript");
    for version in [&TLS13, &TLS12] {
        let mut client = server.pem.connect_with(server.addr, &[version]);
        client.expect(GREETING);
        client.send("hello, été\r\n");
        client.expect("> HELLO, ÉTÉ\n");
        client.send("\nbye\n");
        assert_eq!(client.rest(), (b"> \n> BYE\n".to_vec(), End::Clean));
    }
    let counters = server.stop();
    assert_eq!((counters.accepted, counters.handshakes_failed, counters.open), (2, 0, 0));
}

#[test]
fn a_megabyte_goes_both_ways_at_once() {
    let server = echo("megabyte");
    let line = "0123456789abcde\n";
    let mut client = server.pem.connect(server.addr);
    client.expect(GREETING);
    client.send(line.repeat(64 * 1024));
    client.expect("> 0123456789ABCDE\n".repeat(64 * 1024));
    client.send("bye\n");
    assert_eq!(client.rest(), (b"> BYE\n".to_vec(), End::Clean));
    server.stop();
}

#[test]
fn a_thousand_lines_in_one_record_and_one_byte_in_each() {
    let server = echo("records");
    let mut client = server.pem.connect(server.addr);
    client.expect(GREETING);
    // A record holds 16 KiB.
    client.send("0123456789\n".repeat(1000));
    client.expect("> 0123456789\n".repeat(1000));
    for _ in 0..100 {
        for byte in b"0123456789\n" {
            client.send([*byte]);
        }
    }
    client.expect("> 0123456789\n".repeat(100));
    server.stop();
}

#[test]
fn new_keys_in_the_middle_change_nothing() {
    let server = echo("keys");
    let mut client = server.pem.connect_with(server.addr, &[&TLS13]);
    client.expect(GREETING);
    for _ in 0..100 {
        client.tls.refresh_traffic_keys().unwrap();
        client.send("on\n");
        client.expect("> ON\n");
    }
    server.stop();
}

#[test]
fn lines_that_come_along_with_the_handshake_are_handled() {
    let server = echo("along");
    for version in [&TLS13, &TLS12] {
        let mut client = server.pem.begin_with(server.addr, &[version]);
        // It leaves with the handshake's last message.
        client.send("first\nbye\n");
        let all = (GREETING.to_owned() + "> FIRST\n> BYE\n").into_bytes();
        assert_eq!(client.rest(), (all, End::Clean));
    }
    server.stop();
}

// ---- Endings ----

#[test]
fn after_a_half_close_all_replies_come_and_a_clean_end() {
    let server = echo("half");
    let mut client = server.pem.connect(server.addr);
    client.send("x\n".repeat(100_000) + "last");
    client.close_notify();
    let replies = GREETING.to_owned() + &"> X\n".repeat(100_000) + "> LAST\n";
    let (all, end) = client.rest();
    assert!(all == replies.as_bytes() && end == End::Clean);
    server.stop();
}

#[test]
fn bye_is_answered_whatever_follows_it() {
    let server = echo("bye");
    for _ in 0..10 {
        let mut client = server.pem.connect(server.addr);
        client.send("hello\nbye\n".to_owned() + &"junk\n".repeat(500_000));
        let (all, end) = client.rest();
        assert_eq!(all, (GREETING.to_owned() + "> HELLO\n> BYE\n").as_bytes());
        assert_eq!(end, End::Clean);
    }
    server.stop();
}

#[test]
fn a_cut_connection_is_an_error_and_its_last_line_is_not_handled() {
    let (server, told) = witness("cut", Limits::default());
    let mut client = server.pem.connect(server.addr);
    client.send("whole\nsend 1000 to Al");
    client.stream.shutdown(Shutdown::Write).unwrap();
    // What was whole is answered all the same.
    assert_eq!(client.rest(), (b"whole\n".to_vec(), End::Clean));
    saw(&told, &["open", "whole", "closed: unexpected end of file"]);
    server.stop();
}

#[test]
fn a_reset_is_told_of_once() {
    let (server, told) = witness("reset", Limits::default());
    let mut client = server.pem.connect(server.addr);
    client.send("whole\n");
    client.expect("whole\n");
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    saw(&told, &["open", "whole", "closed: connection reset"]);
    assert_eq!(server.stop().open, 0);
}

/// Sends 16 megabytes for each line, more than the sockets' buffers take; closes after `close`.
struct Megabytes;

impl Handler for Megabytes {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        cx.send(vec![b'x'; 16 << 20]);
        if line == b"close" {
            cx.close();
        }
    }
}

#[test]
fn a_reply_that_has_to_wait_arrives_whole_before_the_end() {
    let server = secure("whole", Limits::default(), || Megabytes);
    for _ in 0..5 {
        let mut client = server.pem.connect(server.addr);
        client.send("go\n");
        client.until("all of it", |client| client.received.len() == 16 << 20);
        client.received.clear();
        client.send("close\n");
        let (all, end) = client.rest();
        assert_eq!((all.len(), end), (16 << 20, End::Clean));
    }
    assert_eq!(server.stop().closed(CloseReason::Closed), 5);
}

#[test]
fn shutdown_says_goodbye() {
    let server = echo("shutdown");
    let mut client = server.pem.connect(server.addr);
    client.expect(GREETING);
    server.handle.stop();
    assert_eq!(client.rest(), (Vec::new(), End::Clean));
    drop(client);
    server.thread.join().unwrap();
}

/// A record that nobody who has the keys has made.
fn forged() -> Vec<u8> {
    [&b"\x17\x03\x03\x00\x20"[..], &[7; 32]].concat()
}

#[test]
fn whole_lines_before_a_forged_record_are_handled() {
    let (server, told) = witness("forged", Limits::default());
    // In one read, and together with the handshake's last message.
    for step in [true, false] {
        let mut client = server.pem.connect(server.addr);
        let mut wire = Vec::new();
        if step {
            client.step(false);
            saw(&told, &["open"]);
        }
        client.tls.writer().write_all(b"one\ntwo\nthr").unwrap();
        while client.tls.wants_write() {
            client.tls.write_tls(&mut wire).unwrap();
        }
        client.stream.write_all(&[wire, forged()].concat()).unwrap();
        if !step {
            saw(&told, &["open"]);
        }
        saw(&told, &["one", "two", "closed: invalid data"]);
    }
    server.stop();
}

/// Ends its own side after the first line.
struct Terse(std::sync::mpsc::Sender<CloseReason>);

impl Handler for Terse {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, _: &[u8]) {
        cx.half_close();
    }

    fn on_close(&mut self, _: &mut Context<'_, ()>, reason: CloseReason) {
        self.0.send(reason).unwrap();
    }
}

#[test]
fn what_is_forged_after_our_goodbye_hurts_nobody_else() {
    // Lingering, and half-closed: rustls asserts that it has not said goodbye when something is
    // wrong.
    let server = echo("after");
    let mut other = server.pem.connect(server.addr);
    let mut client = server.pem.connect(server.addr);
    client.send("bye\n");
    client.rest();
    client.stream.write_all(&forged()).unwrap();
    other.expect(GREETING);
    other.send("still there\n");
    other.expect("> STILL THERE\n");
    assert_eq!(server.stop().panics, 0);

    let (tell, told) = channel();
    let server = secure("terse", Limits::default(), || Terse(tell));
    let mut client = server.pem.connect(server.addr);
    client.send("well?\n");
    client.rest();
    client.stream.write_all(&forged()).unwrap();
    let reason = CloseReason::Error(std::io::ErrorKind::InvalidData);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(reason));
    server.stop();
}

// ---- Backpressure ----

#[test]
fn who_does_not_read_is_not_read_and_loses_nothing() {
    let server = echo("slow");
    let mut client = server.pem.connect(server.addr);
    client.expect(GREETING);
    let (line, count) = ("0123456789ABCDEF".repeat(64), 32 * 1024);
    client.send(format!("{line}\n").repeat(count));
    // Until nothing has moved for a while: whatever the sockets hold, it is not all of it.
    let mut still = Instant::now();
    while still.elapsed() < Duration::from_millis(300) {
        if client.step(false) {
            still = Instant::now();
        }
        std::thread::yield_now();
    }
    assert!(client.tls.wants_write(), "32 megabytes were taken without reading a reply");
    client.expect(format!("> {line}\n").repeat(count));
    server.stop();
}

// ---- Handshakes ----

#[test]
fn what_is_no_tls_is_closed_and_the_handler_hears_nothing() {
    let (server, told) = witness("garbage", Limits::default());
    let mut random = vec![0; 10_000];
    fastrand::Rng::with_seed(5).fill(&mut random);
    let huge = [&b"\x16\x03\x01\xff\xff"[..], &[0; 70_000]].concat();
    let garbage: [&[u8]; 6] =
        [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"hello\nbye\n", &random, &huge, b"\n", b""];
    for bytes in garbage {
        let mut stream = TcpStream::connect(server.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The server may be gone before it is all out, and its end be a reset.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(said.len() <= 7, "an alert at the most: {said:?}");
    }
    let mut client = server.pem.connect(server.addr);
    client.send("still there\n");
    client.expect("still there\n");
    saw(&told, &["open", "still there"]);
    client.close_notify();
    client.rest();
    let counters = server.stop();
    assert_eq!((counters.accepted, counters.handshakes_failed, counters.open), (7, 6, 0));
}

#[test]
fn a_handshake_that_takes_too_long_is_given_up() {
    let limits = Limits { handshake_timeout: Duration::from_millis(200), ..Limits::default() };
    let (server, told) = witness("stall", limits);
    // Nothing at all, and the beginning of a ClientHello that drips in.
    let mut silent = TcpStream::connect(server.addr).unwrap();
    let mut slow = TcpStream::connect(server.addr).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let began = Instant::now();
    for byte in b"\x16\x03\x01\x02\x00\x01".iter().chain(std::iter::repeat(&0)) {
        assert!(began.elapsed() < PATIENCE, "it is not given up");
        if slow.write_all(&[*byte]).is_err() || matches!(slow.read(&mut [0]), Ok(0)) {
            break;
        }
    }
    let _ = silent.read_to_end(&mut Vec::new());
    assert!(told.try_recv().is_err(), "no handler is told");
    let counters = server.stop();
    assert_eq!((counters.handshakes_failed, counters.open), (2, 0));
}

#[test]
fn a_handshake_takes_a_place() {
    let limits = Limits {
        max_connections: 2,
        max_per_peer: Some(2),
        handshake_timeout: PATIENCE,
        ..Limits::default()
    };
    let (server, _told) = witness("places", limits);
    let stalled = TcpStream::connect(server.addr).unwrap();
    let mut served = server.pem.connect(server.addr);
    served.send("served\n");
    served.expect("served\n");
    let mut refused = TcpStream::connect(server.addr).unwrap();
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = Vec::new();
    refused.read_to_end(&mut said).unwrap();
    assert_eq!(said, b"", "no plain words on a TLS port");
    // Once it has failed, the place is free.
    drop(stalled);
    let again = Instant::now();
    loop {
        assert!(again.elapsed() < PATIENCE, "the place stays taken");
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let config = server.pem.trust(rustls::ALL_VERSIONS).into();
        let mut tls = rustls::ClientConnection::new(config, name).unwrap();
        let mut stream = TcpStream::connect(server.addr).unwrap();
        if tls.complete_io(&mut stream).is_ok() {
            break;
        }
    }
    served.send("still\n");
    served.expect("still\n");
    let counters = server.stop();
    assert_eq!(counters.handshakes_failed, 1);
}

#[test]
fn many_handshakes_at_once_are_all_done_and_hold_up_nobody() {
    let limits = Limits { handshake_timeout: PATIENCE, ..Limits::default() };
    let server = secure("many", limits, || Echo);
    let mut first = server.pem.connect(server.addr);
    first.expect(GREETING);
    // In the queue all at once; the handshakes come as the clients are stepped.
    let mut clients: Vec<_> = (0..100).map(|_| server.pem.begin(server.addr)).collect();
    for client in &mut clients {
        client.step(true);
    }
    first.send("in between\n");
    first.expect("> IN BETWEEN\n");
    for client in &mut clients {
        client.expect(GREETING);
        client.send("bye\n");
    }
    for client in &mut clients {
        assert_eq!(client.rest(), (b"> BYE\n".to_vec(), End::Clean));
    }
    let counters = server.stop();
    assert_eq!((counters.accepted, counters.handshakes_failed), (101, 0));
}

#[test]
fn a_stop_in_the_middle_of_a_handshake_ends_it_too() {
    let limits = Limits { handshake_timeout: PATIENCE, ..Limits::default() };
    let (server, told) = witness("stop", limits);
    let mut silent = TcpStream::connect(server.addr).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    // Both are accepted once this one has its answer.
    let mut client = server.pem.connect(server.addr);
    client.send("here\n");
    client.expect("here\n");
    client.close_notify();
    client.rest();
    server.handle.stop();
    let _ = silent.read_to_end(&mut Vec::new());
    assert_eq!(server.thread.join().unwrap().handshakes_failed, 1);
    saw(&told, &["open", "here", "closed: closed by the peer"]);
    assert!(told.recv().is_err(), "nobody else was there");
}

// ---- The unfinished record ----

const SECOND: Duration = Duration::from_secs(1);

/// Answers each line with itself. After `pause` it hears the next one 100 s later, and the end of
/// the input is no reason to close.
struct Parrot;

impl Handler for Parrot {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        if line == b"pause" {
            cx.pause();
            cx.set_timer(100 * SECOND);
        } else {
            cx.send([line, b"\n"].concat());
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_, ()>, _: TimerId) {
        cx.resume();
    }

    fn on_eof(&mut self, _: &mut Context<'_, ()>) {}
}

/// A client under a clock of ours, that has shaken hands.
struct Timed {
    server: Harness<Parrot>,
    client: Client,
    tls: ClientConnection,
}

impl Timed {
    fn new(limits: Limits) -> Timed {
        let pem = Pem::new(std::thread::current().name().unwrap_or_default());
        let mut server = Harness::with_limits(Parrot, limits);
        let tls = Tls::from_files(pem.cert(), pem.key()).unwrap();
        let client = server.connect_through(&Listen::at("127.0.0.1:0").unwrap().tls(&tls));
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(pem.trust(rustls::ALL_VERSIONS).into(), name).unwrap();
        let mut timed = Timed { server, client, tls };
        while timed.tls.is_handshaking() {
            let out = timed.out();
            timed.feed(&out);
            timed.heard();
        }
        let out = timed.out();
        timed.feed(&out);
        timed
    }

    fn out(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).unwrap();
        }
        out
    }

    /// A record that holds this, not yet sent.
    fn record(&mut self, text: impl AsRef<[u8]>) -> Vec<u8> {
        self.tls.writer().write_all(text.as_ref()).unwrap();
        self.out()
    }

    fn feed(&mut self, bytes: impl AsRef<[u8]>) {
        self.server.feed(self.client, bytes);
    }

    fn wait(&mut self, seconds: u32) {
        self.server.advance(seconds * SECOND);
    }

    /// What the server has said since this was last asked.
    fn heard(&mut self) -> String {
        let said = self.server.sent(self.client);
        let (mut said, mut heard) = (said.as_slice(), Vec::new());
        while !said.is_empty() {
            self.tls.read_tls(&mut said).unwrap();
            self.tls.process_new_packets().unwrap();
            let _ = self.tls.reader().read_to_end(&mut heard);
        }
        String::from_utf8(heard).unwrap()
    }

    fn closed(&self) -> Option<CloseReason> {
        self.server.closed(self.client)
    }
}

#[test]
fn a_record_that_drips_in_is_an_unfinished_line() {
    let mut timed = Timed::new(Limits::default());
    let whole = timed.record("whole\n");
    timed.feed(whole);
    timed.wait(1_000);
    assert_eq!((timed.heard().as_str(), timed.closed()), ("whole\n", None));
    // Its first byte says no more than that it has begun.
    for byte in timed.record([b'x'; 500]).iter().take(60) {
        assert_eq!(timed.closed(), None);
        timed.feed([*byte]);
        timed.wait(1);
    }
    assert_eq!(timed.heard(), "Line not finished in time (limit 60 s)\n");
    assert_eq!(timed.closed(), Some(CloseReason::LineTimeout));
}

#[test]
fn who_completes_records_may_take_its_time_for_each() {
    let mut timed = Timed::new(Limits::default());
    for _ in 0..10 {
        let (one, two) = (timed.record("one\n"), timed.record("two\n"));
        timed.feed(&one[..7]);
        timed.wait(40);
        timed.feed([&one[7..], &two[..1]].concat());
        timed.wait(40);
        timed.feed(&two[1..]);
        assert_eq!(timed.heard(), "one\ntwo\n");
    }
    assert_eq!(timed.closed(), None);
    timed.server.end(timed.client);
    timed.wait(100);
    assert_eq!(timed.server.left_over(), (0, 0));
}

#[test]
fn a_line_counts_from_the_first_byte_of_its_record() {
    let mut timed = Timed::new(Limits::default());
    let (half, rest) = (timed.record("li"), timed.record("ne\n"));
    timed.feed(&half[..3]);
    timed.wait(40);
    timed.feed(&half[3..]);
    timed.wait(19);
    assert_eq!(timed.closed(), None);
    timed.feed(&rest[..20]);
    timed.wait(1);
    assert_eq!(timed.closed(), Some(CloseReason::LineTimeout));
}

#[test]
fn while_a_record_is_not_read_its_time_stands_still() {
    for finish in [true, false] {
        let mut timed = Timed::new(Limits::default());
        let (pause, line) = (timed.record("pause\n"), timed.record("line\n"));
        timed.feed([&pause, &line[..9]].concat());
        timed.wait(100);
        timed.wait(59);
        assert_eq!(timed.closed(), None);
        if finish {
            timed.feed(&line[9..]);
        }
        timed.wait(1);
        assert_eq!(timed.heard() == "line\n", finish);
        assert_eq!(timed.closed(), (!finish).then_some(CloseReason::LineTimeout));
    }
}

#[test]
fn who_is_held_back_has_the_time_of_a_record_when_it_is_read_again() {
    let mut timed = Timed::new(Limits { high_water: 1_000, low_water: 0, ..Limits::default() });
    timed.server.take_only(timed.client, Some(0));
    // The layer takes the first reply from us, and not the second.
    let text = format!("{}\n", "x".repeat(60_000));
    let (one, two, next) = (timed.record(&text), timed.record(&text), timed.record("next\n"));
    timed.feed([&one, &two, &next[..9]].concat());
    timed.wait(100);
    timed.server.take_only(timed.client, None);
    timed.wait(59);
    assert_eq!(timed.closed(), None);
    timed.feed(&next[9..]);
    assert_eq!(timed.heard(), text.repeat(2) + "next\n");
}

#[test]
fn what_follows_the_end_of_the_input_is_nothing_unfinished() {
    let mut timed = Timed::new(Limits::default());
    let line = timed.record("line\n");
    timed.tls.send_close_notify();
    let end = timed.out();
    timed.feed([&line, &end, &line[..9]].concat());
    timed.wait(1_000);
    assert_eq!((timed.heard().as_str(), timed.closed()), ("line\n", None));
}

/// The same over real sockets.
#[test]
fn a_record_that_never_ends_is_cut_off() {
    let limits = Limits { line_timeout: Some(Duration::from_millis(200)), ..Limits::default() };
    let (server, told) = witness("drip", limits);
    let mut client = server.pem.connect(server.addr);
    client.send("line\n");
    client.expect("line\n");
    // Each read waits for so long.
    client.stream.set_nonblocking(false).unwrap();
    client.stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let began = Instant::now();
    // The header of the longest record, and bytes of it.
    let mut drops = b"\x17\x03\x03\x40\x00".iter().chain(std::iter::repeat(&0));
    while client.end.is_none() {
        assert!(began.elapsed() < PATIENCE, "it is not cut off");
        client.stream.write_all(&[*drops.next().unwrap()]).unwrap();
        client.step(true);
    }
    assert_eq!(client.rest(), (b"Line not finished in time (limit 0.2 s)\n".to_vec(), End::Clean));
    drop(client);
    saw(&told, &["open", "line", "closed: line not finished in time"]);
    assert_eq!(server.stop().closed(CloseReason::LineTimeout), 1);
}

// ---- The files ----

#[test]
fn the_longest_chain_that_is_taken_fits_into_a_handshake() {
    let pem = Pem::new("chain");
    let text = std::fs::read_to_string(pem.cert()).unwrap();
    let (mut fits, mut too_many) = (1, 1000);
    while fits + 1 < too_many {
        let count = usize::midpoint(fits, too_many);
        std::fs::write(pem.cert(), text.repeat(count)).unwrap();
        match Tls::from_files(pem.cert(), pem.key()) {
            Ok(_) => fits = count,
            Err(_) => too_many = count,
        }
    }
    std::fs::write(pem.cert(), text.repeat(fits)).unwrap();
    let tls = Tls::from_files(pem.cert(), pem.key()).unwrap();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::at("127.0.0.1:0").unwrap().tls(&tls);
    let service = reactor.listen(listen, Echo).unwrap();
    let addr = service.address().unwrap().as_socket().unwrap();
    for versions in [[&TLS12], [&TLS13]] {
        let mut client = pem.begin_with(addr, &versions);
        let deadline = Instant::now() + PATIENCE;
        while client.received.len() < GREETING.len() {
            assert!(Instant::now() < deadline, "no greeting after {fits} certificates");
            client.step(true);
            reactor.turn(Some(Duration::from_millis(1))).unwrap();
        }
        assert_eq!(client.received, GREETING.as_bytes());
    }
}

#[test]
fn a_reload_waits_for_nobody_who_writes_to_a_pipe() {
    let pem = Pem::new("pipe");
    let (cert, key) = (pem.cert(), pem.key());
    let name = |name: &str| cert.with_file_name(name);
    // Nothing to parse, so that it is opened all the more often.
    std::fs::write(name("file"), "").unwrap();
    let made = std::process::Command::new("mkfifo").arg(name("pipe")).status().unwrap();
    assert!(made.success());
    let (tell, told) = channel();
    std::thread::spawn({
        let cert = cert.clone();
        move || {
            let tls = Tls::from_files(&cert, key).unwrap();
            // The first reload may come before the path is another.
            std::fs::write(&cert, "").unwrap();
            tell.send(()).unwrap();
            // The certificate is still there until the first rename.
            while tls.reload().is_ok() {}
            let (mut files, mut pipes) = (0, 0);
            // Until the path has been either many a time, and many a time become the other.
            while files < 20_000 || pipes < 20_000 {
                let error = tls.reload().unwrap_err().to_string();
                let pipe = error.contains("no longer a file");
                assert!(pipe || error.contains("no certificate in it"), "{error}");
                *if pipe { &mut pipes } else { &mut files } += 1;
            }
            tell.send(()).unwrap();
        }
    });
    told.recv_timeout(PATIENCE).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while told.try_recv().is_err() {
        assert!(Instant::now() < deadline, "it waits");
        for kind in ["pipe", "file"] {
            std::fs::hard_link(name(kind), name("next")).unwrap();
            std::fs::rename(name("next"), &cert).unwrap();
        }
    }
}
