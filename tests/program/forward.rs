//! The forwarder: bytes both ways as they are, with the ends, the resets and the pace of either
//! side passed on to the other.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use reactor::services::{Echo, Forward};
use reactor::testing::{Client as Fake, Fault, Harness};
use reactor::{CloseReason, Limits};

use crate::util::folder::Folder;
use crate::util::program::{Program, REACTOR};
use crate::util::{Client, DOOMED, PATIENCE, Server, again};

// ---- The program, over real sockets ----

impl Program {
    /// `reactor forward` from a free port to a target.
    fn forward(target: &str, options: &[&str]) -> Program {
        let args = [&["forward", "0", target], options].concat();
        Program::spawn(std::process::Command::new(REACTOR).args(args))
    }
}

/// A forwarder to a target that the test plays itself.
struct Between {
    program: Program,
    addr: SocketAddr,
    target: TcpListener,
}

impl Between {
    fn new(options: &[&str]) -> Between {
        let target = TcpListener::bind(DOOMED).unwrap();
        let program = Program::forward(&target.local_addr().unwrap().to_string(), options);
        let addr = program.addr("forward");
        Between { program, addr, target }
    }

    /// A client, and what the target sees of it.
    fn connect(&self) -> (Client, Client) {
        let client = Client::connect(self.addr);
        (client, Client::from(self.target.accept().unwrap().0))
    }
}

/// Writes until nothing is taken any more, while the other side reads nothing; gives how much.
fn fill(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    sent
}

const LINES: usize = 300_000;
const MIB: usize = 1024 * 1024;

/// So many numbered lines, in upper case, 60 MB in all: more than all the kernel's buffers on the
/// way there and back.
fn lines() -> Vec<u8> {
    (0..LINES).flat_map(|n| format!("LINE {n:06} {}\n", "X".repeat(187)).into_bytes()).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn lines_go_through_and_back_unchanged_in_flat_memory_though_nobody_reads_for_a_while() {
    let echo = Server::start(Limits::default(), || Echo);
    let program = Program::forward(&echo.addr.to_string(), &[]);
    let mut client = Client::connect(program.addr("forward"));
    (0..2).for_each(|_| drop(client.line()));
    let before = program.peak();

    let lines = lines();
    // The replies are not read, so the server is held back, and so are the forwarder and we.
    let sent = fill(&mut client.stream, &lines);
    assert!(sent < lines.len(), "all {sent} bytes were taken");
    let mut stream = client.stream.try_clone().unwrap();
    let rest = lines[sent..].to_vec();
    let writer = std::thread::spawn(move || {
        stream.write_all(&rest).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let mut replies = BufReader::new(&client.stream);
    let mut reply = vec![0; 2 + lines.len() / LINES];
    for (number, line) in lines.chunks(lines.len() / LINES).enumerate() {
        replies.read_exact(&mut reply).unwrap();
        assert!(&reply[..2] == b"> " && reply[2..] == *line, "the reply to line {number}");
    }
    assert_eq!(again(|| replies.read(&mut [0])).unwrap(), 0, "there is more");
    writer.join().unwrap();
    let grown = program.peak() - before;
    assert!(grown < 4 * MIB, "{grown} bytes more");
}

#[test]
fn each_direction_has_its_own_end() {
    let between = Between::new(&[]);
    let (mut client, mut target) = between.connect();
    client.send("question");
    client.end();
    assert_eq!(target.rest(), b"question");
    target.send("answer");
    client.expect("answer");
    target.send(", and more");
    target.end();
    assert_eq!(client.rest(), b", and more");

    let (mut client, mut target) = between.connect();
    target.send("greeting");
    target.end();
    assert_eq!(client.rest(), b"greeting");
    client.send("and what about me?");
    target.expect("and what about me?");
    client.end();
    assert_eq!(target.rest(), b"");
}

#[test]
fn an_end_comes_after_all_that_was_sent_before_it() {
    let between = Between::new(&[]);
    let (mut client, mut target) = between.connect();
    let bytes = lines();
    let sent = fill(&mut client.stream, &bytes);
    client.end();
    assert!(target.rest() == bytes[..sent]);
    target.end();
    assert_eq!(client.rest(), b"");
}

#[track_caller]
fn expect_reset(client: &mut Client) {
    let outcome = again(|| client.stream.read(&mut [0; 64]));
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_arrives_as_a_reset() {
    let between = Between::new(&[]);
    let (client, mut target) = between.connect();
    client.reset();
    expect_reset(&mut target);
    let (mut client, target) = between.connect();
    target.reset();
    expect_reset(&mut client);

    // Also where nothing can be said any more but that.
    let (mut client, mut target) = between.connect();
    client.end();
    assert_eq!(target.rest(), b"");
    target.reset();
    expect_reset(&mut client);
    // And when it is paused, since the other side does not read.
    let (mut client, mut target) = between.connect();
    fill(&mut client.stream, &lines());
    client.reset();
    let mut buf = vec![0; 1 << 16];
    let error = loop {
        match again(|| target.stream.read(&mut buf)) {
            Ok(count) => assert!(count > 0, "an orderly end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_client_whose_target_refuses_is_closed_and_the_log_says_why() {
    let between = Between::new(&[]);
    let target = between.target.local_addr().unwrap();
    drop(between.target);
    let mut client = Client::connect(between.addr);
    client.send("hello?");
    assert_eq!(client.rest(), b"");
    let log = between.program.wait_for_log("the target");
    assert!(log.contains("WARN") && log.contains("forward: the target"), "{log}");
    assert!(log.contains(&target.to_string()) && log.contains(": Connection refused"), "{log}");
}

#[test]
fn a_target_that_goes_and_comes_back_is_warned_of_once() {
    let folder = Folder::new("gone");
    let address = |name: &str| format!("unix:{}", folder.file(name).display());
    let (front, target) = (address("front"), address("target"));
    // Each thread keeps its log short by itself.
    let args = ["forward", &front, &target, "--log=warn", "--threads=1"];
    let program = Program::spawn(std::process::Command::new(REACTOR).args(args));
    program.place("forward");
    let connect = || {
        let client = UnixStream::connect(folder.file("front")).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    };
    let mut said = Vec::new();
    for _ in 0..3 {
        connect().read_to_end(&mut said).unwrap();
    }
    let back = UnixListener::bind(folder.file("target")).unwrap();
    let mut client = connect();
    back.accept().unwrap().0.write_all(b"back").unwrap();
    client.read_to_end(&mut said).unwrap();
    assert_eq!(said, b"back");
    program.signal("TERM");
    let (_, _, stderr) = program.end();
    let lines: Vec<_> = stderr.lines().filter(|line| line.contains("the target")).collect();
    let [gone, back] = lines[..] else { panic!("not two lines: {stderr}") };
    let nothing = "cannot be reached: No such file or directory";
    assert!(gone.contains(&format!("the target {target} {nothing}")), "{gone}");
    assert!(back.contains(&format!("the target {target} can be reached again")), "{back}");
}

#[test]
fn many_clients_at_once_each_get_their_own() {
    let echo = Server::start(Limits::default(), || Echo);
    let program = Program::forward(&echo.addr.to_string(), &[]);
    let addr = program.addr("forward");
    let mut clients: Vec<_> = (0..300).map(|_| Client::connect(addr)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(format!("I am {n}\nBYE\n"));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let said = String::from_utf8(client.rest()).unwrap();
        assert!(said.ends_with(&format!("\n> I AM {n}\n> BYE\n")), "{said}");
    }
}

#[test]
fn a_shutdown_sends_on_what_it_has_got() {
    let between = Between::new(&[]);
    let (mut client, mut target) = between.connect();
    // More than fits into the kernel: the forwarder itself holds some of it.
    let bytes = lines();
    fill(&mut client.stream, &bytes);
    between.program.signal("TERM");
    between.program.wait_for_log("shutting down");
    let got = target.rest();
    assert!(!got.is_empty() && bytes.starts_with(&got));
    drop((client, target));
    let (code, _, stderr) = between.program.end();
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn limits_are_kept() {
    let between = Between::new(&["--max-connections=2"]);
    let (mut one, mut target) = between.connect();
    let _two = between.connect();
    assert_eq!(Client::connect(between.addr).rest(), b"");
    between.program.wait_for_log("full with 4 connections");
    one.send("still here");
    target.expect("still here");

    let between = Between::new(&["--idle-timeout=200ms"]);
    let (mut client, mut target) = between.connect();
    assert_eq!((client.rest(), target.rest()), (vec![], vec![]));
}

#[test]
fn it_goes_from_and_to_unix_sockets() {
    let folder = Folder::new("forward");
    let address = |name: &str| format!("unix:{}", folder.file(name).display());
    let server = Program::serve(&[&format!("echo={}", address("echo"))]);
    server.line();
    let program = Program::spawn(std::process::Command::new(REACTOR).args([
        "forward",
        &address("front"),
        &address("echo"),
    ]));
    assert_eq!(program.place("forward"), address("front"));
    let mut client = UnixStream::connect(folder.file("front")).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"hello\nbye\n").unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert!(said.ends_with("\n> HELLO\n> BYE\n"), "{said}");
}

#[test]
fn a_wrong_command_line_is_one_line_with_the_remedy() {
    for (args, status, words) in [
        (&["forward"][..], 2, "<LISTEN> <TARGET>"),
        (&["forward", "0", "0"], 2, "nobody can be reached at port 0"),
        (&["forward", "2323", "localhost:2323"], 2, "connect to itself"),
        (&["forward", "0.0.0.0:2323", "2323"], 2, "connect to itself"),
        (&["forward", "echo", "2323"], 2, "write echo:PORT"),
        (&["forward", "4207:127.0.0.1:9907"], 2, "as two: 4207 127.0.0.1:9907"),
        (&["forward", "0", "2323", "--connect-timeout", "5"], 2, "add a unit"),
        (&["forward", "0", "2323", "--max-connections", "99999999"], 1, "--max-connections"),
        (&["forward", "192.0.2.1:0", "2323"], 1, "this machine has no such address"),
    ] {
        let (code, stdout, stderr) = Program::run(args);
        assert_eq!((code, stdout.as_str()), (status, ""), "{stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains(words), "{args:?}: {stderr}");
    }
}

// ---- The handler, to the byte ----

/// A client and the target that was dialled for it.
fn pair(limits: Limits) -> (Harness<Forward>, Fake, Fake) {
    let handler = Forward::new("127.0.0.1:9".parse().unwrap());
    let mut server = Harness::with_limits(handler, limits);
    let client = server.connect();
    let (_, target) = server.dialled().remove(0);
    (server, client, target)
}

#[test]
fn what_is_sent_while_dialling_waits_in_the_kernel() {
    let (mut server, client, target) = pair(Limits::default());
    server.feed(client, "early");
    server.end(client);
    assert_eq!(server.counters().bytes_in, 0);
    server.answer(target);
    assert_eq!((server.sent(target), server.is_shut(target)), (b"early".to_vec(), true));
}

#[test]
fn the_target_hears_of_the_client_before_anything_else() {
    let handler = Forward::new("127.0.0.1:9".parse().unwrap()).introduce_clients();
    let mut server = Harness::new(handler);
    let client = server.connect();
    server.feed(client, "early");
    let (_, target) = server.dialled().remove(0);
    server.take_only(target, Some(10));
    server.answer(target);
    server.take_only(target, Some(3));
    assert_eq!(server.sent(target), b"\r\n\r\n\0\r\nQUIT\n\x21");
    server.take_only(target, None);
    // As over a Unix socket, nobody knows who it is.
    assert_eq!(server.sent(target), b"\0\0\0early");
}

#[test]
fn a_pair_holds_no_more_than_a_read_above_the_low_water_mark() {
    let (mut server, client, target) = pair(Limits::default());
    server.answer(target);
    let Limits { low_water, bytes_per_turn, .. } = Limits::default();
    for (from, to) in [(client, target), (target, client)] {
        let before = server.counters().bytes_in;
        server.take_only(to, Some(0));
        server.feed(from, vec![b'x'; 4 * MIB]);
        let taken = (server.counters().bytes_in - before) as usize;
        assert!((low_water..=low_water + bytes_per_turn).contains(&taken), "{taken}");
        // It is slow, not dead, and nobody is to be closed for it.
        server.advance(Duration::from_secs(3600));
        server.take_only(to, Some(taken - low_water));
        assert!((server.counters().bytes_in - before) as usize > taken, "read on at the mark");
    }
    for side in [client, target] {
        server.take_only(side, None);
        assert_eq!(server.sent(side).len(), 4 * MIB);
        server.end(side);
    }
    for side in [client, target] {
        assert_eq!(server.closed(side), Some(CloseReason::PeerClosed));
    }
    assert_eq!(server.left_over(), (0, 0));
}

/// What cannot be passed on is not to look as if it had been.
#[test]
fn what_a_full_target_refuses_resets_the_pair() {
    // Below what a pair keeps to by itself.
    let limits = Limits { max_output: 1_000, soft_output: 1_000, ..Limits::default() };
    let (mut server, client, target) = pair(limits);
    server.answer(target);
    server.take_only(target, Some(0));
    server.feed(client, vec![b'x'; 800]);
    server.feed(client, vec![b'x'; 800]);
    assert_eq!((server.closed(client), server.closed(target)), (None, None));
    server.feed(client, vec![b'x'; 800]);
    for side in [client, target] {
        assert_eq!(server.closed(side), Some(CloseReason::Aborted));
    }
    assert_eq!(server.left_over(), (0, 0));
}

#[test]
fn a_slow_direction_does_not_hold_up_the_other() {
    let (mut server, client, target) = pair(Limits::default());
    server.answer(target);
    server.take_only(target, Some(0));
    server.feed(client, vec![b'x'; 4 * MIB]);
    server.feed(target, vec![b'y'; 4 * MIB]);
    assert_eq!(server.sent(client).len(), 4 * MIB);
}

#[test]
fn a_client_that_is_gone_while_dialling_takes_the_target_along() {
    let (mut server, client, target) = pair(Limits::default());
    server.reset(client);
    assert_eq!(server.closed(target), Some(CloseReason::Aborted));
    assert_eq!(server.left_over(), (0, 0));
}

#[test]
fn a_target_that_resets_at_once_is_no_target_that_refuses() {
    for (error, reason) in [
        (ErrorKind::ConnectionReset, CloseReason::Aborted),
        (ErrorKind::ConnectionRefused, CloseReason::Closed),
    ] {
        let (mut server, client, target) = pair(Limits::default());
        server.refuse(target, error);
        server.end(client);
        assert_eq!(server.closed(client), Some(reason));
    }
}

#[test]
fn a_target_that_does_not_answer_is_given_up() {
    let (mut server, client, target) = pair(Limits::default());
    server.advance(Limits::default().connect_timeout);
    assert_eq!(server.closed(target), Some(CloseReason::ConnectTimeout));
    assert!(server.is_shut(client) && server.sent(client).is_empty());
    assert_eq!(server.closed(client), Some(CloseReason::Closed));
}

#[test]
fn idle_and_shutdown_end_both_sides_in_order() {
    let limits = Limits { idle_timeout: Some(Duration::from_secs(60)), ..Limits::default() };
    let (mut server, client, target) = pair(limits);
    server.answer(target);
    server.advance(Duration::from_secs(59));
    server.feed(client, "x");
    server.advance(Duration::from_secs(59));
    server.feed(target, "y");
    assert_eq!((server.closed(client), server.closed(target)), (None, None));
    server.advance(Duration::from_secs(60));
    for side in [client, target] {
        assert!(server.closed(side).is_some() && server.sent(side).len() == 1);
        assert_ne!(server.closed(side), Some(CloseReason::Aborted));
    }
    let (mut server, client, target) = pair(Limits::default());
    server.answer(target);
    server.stop();
    for side in [client, target] {
        assert_eq!(server.closed(side), Some(CloseReason::Shutdown));
    }
}

#[test]
fn the_last_words_of_a_target_that_takes_no_more_arrive() {
    for ends in [true, false] {
        let handler = Forward::new("127.0.0.1:9".parse().unwrap());
        let mut server = Harness::new(handler).by_hand();
        let client = server.connect();
        server.turn();
        let (_, target) = server.dialled().remove(0);
        server.answer(target);
        while server.turn() {}
        let error = if ends { ErrorKind::BrokenPipe } else { ErrorKind::ConnectionReset };
        server.feed(client, "a long story");
        server.disturb(target, [], [Fault::Error(error)]);
        server.turn();
        server.feed(target, "too long");
        server.end(target);
        while server.turn() {}
        assert_eq!(server.sent(client), b"too long");
        let reason = if ends { CloseReason::Closed } else { CloseReason::Aborted };
        assert_eq!(server.closed(client), Some(reason));
    }
}
