//! Descriptors as a connection: pipes, files and devices, watched where they can be, shared with
//! others and left as they were.

use std::fs::File;
use std::io::{ErrorKind, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reactor::testing::Harness;
use reactor::{Address, CloseReason, Context, Error, Handler, Limits, Reactor, ServiceContext};

use crate::util::{PATIENCE, Server};

/// Sends each line back; `close` and `pause` are obeyed. Tells the test what happens.
#[derive(Default)]
struct Echo {
    heard: Vec<String>,
    close_at_once: bool,
    /// The reactor is not stopped with the connection.
    goes_on: bool,
    /// What the system said at the end.
    error: Option<std::io::Error>,
}

impl Handler for &mut Echo {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        self.heard.push(format!("open {} {:?}", cx.is_outbound(), cx.peer_addr()));
        if self.close_at_once {
            cx.send(GOODBYE.repeat(50_000));
            cx.close();
        }
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        match line {
            b"close" => cx.close(),
            b"pause" => cx.pause(),
            _ => drop(cx.send([line, b"\n"].concat())),
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
        self.heard.push(reason.to_string());
        self.error = cx.error();
        if !self.goes_on {
            cx.stop();
        }
    }
}

const GOODBYE: &str = "goodbye\n";
const OPEN: &str = "open false None";

/// There is something to do without any event.
fn is_busy(reactor: &Reactor<'_>) -> bool {
    reactor.next_deadline().is_some_and(|when| when <= Instant::now())
}

/// A reactor that has adopted the two.
fn adopted<'a>(
    handler: impl Handler<Session = (), Message = ()> + 'a,
    input: impl AsFd,
    output: impl AsFd,
) -> Reactor<'a> {
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.add(handler, Limits::default()).unwrap();
    reactor.adopt(&service, input, output).unwrap();
    reactor
}

/// Adopts the two; gives what came of it.
fn run(input: impl AsFd, output: impl AsFd) -> Vec<String> {
    let mut echo = Echo::default();
    adopted(&mut echo, &input, &output).run().unwrap();
    echo.heard
}

/// Whether the descriptor blocks, which is a property of all its duplicates.
#[cfg(target_os = "linux")]
fn blocks(of: &impl AsRawFd) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", of.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
    flags & libc::O_NONBLOCK == 0
}

/// A file without a name.
fn file(text: &[u8]) -> File {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let name = format!("reactor-adopt-{}-{number}", std::process::id());
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, text).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}

fn text(mut file: File) -> String {
    use std::io::Seek;
    file.rewind().unwrap();
    std::io::read_to_string(file).unwrap()
}

#[test]
fn pipes_are_read_and_written_as_they_become_ready() {
    let (input, mut to_input) = pipe().unwrap();
    let (mut from_output, output) = pipe().unwrap();
    let running = std::thread::spawn(|| run(input, output));
    let mut buf = [0; 64];
    for line in ["one\n", "two\n", "three\n"] {
        to_input.write_all(line.as_bytes()).unwrap();
        let count = from_output.read(&mut buf).unwrap();
        assert_eq!(&buf[..count], line.as_bytes());
    }
    to_input.write_all(b"the last").unwrap();
    drop(to_input);
    assert_eq!(std::io::read_to_string(from_output).unwrap(), "the last\n");
    assert_eq!(running.join().unwrap(), [OPEN, "closed by the peer"]);
}

#[test]
fn files_are_read_to_their_end_and_written() {
    let lines: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
    let output = file(b"");
    let heard = run(file(lines.as_bytes()), output.try_clone().unwrap());
    assert_eq!(heard, [OPEN, "closed by the peer"]);
    assert!(text(output) == lines);
    let output = file(b"");
    assert_eq!(run(File::open("/dev/null").unwrap(), output), [OPEN, "closed by the peer"]);
}

#[test]
fn a_file_has_its_share_of_a_turn_like_the_others() {
    let lines = "x".repeat(999) + "\n";
    let input = file(lines.repeat(1_000).as_bytes());
    let mut echo = Echo::default();
    let mut reactor = adopted(&mut echo, &input, File::create("/dev/null").unwrap());
    let mut before = 0;
    while reactor.exit().is_none() {
        reactor.turn(Some(PATIENCE)).unwrap();
        let now = reactor.counters().bytes_in;
        assert!(now - before <= 64 * 1024, "{} bytes in a turn", now - before);
        before = now;
    }
    assert_eq!(before, 1_000_000);
}

#[test]
#[cfg(target_os = "linux")]
fn an_endless_device_starves_nobody() {
    struct Zeros(u64);
    impl Handler for Zeros {
        type Session = ();
        type Message = ();

        fn on_listening(&mut self, cx: &mut ServiceContext<'_, ()>, _: &Address) {
            let (zero, null) = (File::open("/dev/zero"), File::create("/dev/null"));
            cx.adopt(zero.unwrap(), null.unwrap(), ()).unwrap();
        }

        fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
            match bytes[0] {
                0 => self.0 += bytes.len() as u64,
                _ => writeln!(cx, "{}", self.0),
            }
            bytes.len()
        }
    }
    let server = Server::start(Limits::default(), || Zeros(0));
    let mut client = server.connect();
    let mut last = 0;
    for _ in 0..100 {
        client.send("?");
        let count: u64 = client.line().trim().parse().unwrap();
        assert!(count >= last, "{count} after {last}");
        last = count;
    }
    assert!(last > 0, "nothing was read meanwhile");
}

#[test]
fn a_slow_reader_of_the_output_holds_the_input_back() {
    let lines: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
    let input = file(lines.as_bytes());
    let (mut from_output, output) = pipe().unwrap();
    let mut echo = Echo::default();
    let mut reactor = adopted(&mut echo, &input, &output);
    drop(output);
    while is_busy(&reactor) {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    let read = reactor.counters().bytes_in as usize;
    let Limits { high_water, bytes_per_turn, .. } = Limits::default();
    assert!(read < high_water + 2 * bytes_per_turn + 64 * 1024, "{read} bytes");
    let reader = std::thread::spawn(move || {
        let mut all = String::new();
        from_output.read_to_string(&mut all).unwrap();
        all
    });
    reactor.run().unwrap();
    assert!(reader.join().unwrap() == lines);
}

/// The standard library has no kind for it.
#[test]
fn what_the_system_said_can_be_told() {
    let path = std::env::temp_dir().join(format!("reactor-{}-unread", std::process::id()));
    let unread = File::create(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut echo = Echo::default();
    adopted(&mut echo, &unread, &unread).run().unwrap();
    assert_eq!(echo.error.unwrap().raw_os_error(), Some(libc::EBADF));

    let mut echo = Echo::default();
    let mut harness = Harness::new(&mut echo);
    let client = harness.connect();
    harness.feed(client, "close\n");
    harness.end(client);
    drop(harness);
    assert!(echo.error.is_none(), "{:?}", echo.error);
}

#[test]
fn an_output_that_fails_ends_it_with_the_error() {
    let (input, mut to_input) = pipe().unwrap();
    let (from_output, output) = pipe().unwrap();
    drop(from_output);
    to_input.write_all(b"hello\n").unwrap();
    assert_eq!(run(input, output), [OPEN, "broken pipe"]);
    if let Ok(full) = File::create("/dev/full") {
        let heard = run(file(b"hello\n"), full);
        assert_eq!(heard, [OPEN, &ErrorKind::StorageFull.to_string()]);
    }
    // A folder can be opened, not read.
    let heard = run(File::open("/").unwrap(), file(b""));
    assert_eq!(heard, [OPEN, &ErrorKind::IsADirectory.to_string()]);
}

/// Pauses for a moment at each line, and stays after the end of the input.
struct Stays<'a>(&'a mut Vec<CloseReason>);

impl Handler for Stays<'_> {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, _line: &[u8]) {
        cx.pause();
        cx.set_timer(Duration::from_millis(1));
    }

    fn on_timer(&mut self, cx: &mut Context<'_, ()>, _: reactor::TimerId) {
        cx.resume();
    }

    fn on_eof(&mut self, _cx: &mut Context<'_, ()>) {}

    fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
        self.0.push(reason);
        cx.stop();
    }
}

#[test]
fn an_output_that_nobody_reads_ends_it_once_there_is_no_input_either() {
    let (input, mut to_input) = pipe().unwrap();
    let (from_output, output) = pipe().unwrap();
    let mut reasons = Vec::new();
    let mut reactor = adopted(Stays(&mut reasons), input, output);
    to_input.write_all(b"the last").unwrap();
    drop(to_input);
    while is_busy(&reactor) || reactor.counters().lines_in == 0 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    drop(from_output);
    reactor.run().unwrap();
    drop(reactor);
    assert_eq!(reasons, [CloseReason::Error(ErrorKind::BrokenPipe)]);
}

#[test]
fn an_output_that_nobody_reads_does_not_end_a_paused_input() {
    let (input, mut to_input) = pipe().unwrap();
    let (from_output, output) = pipe().unwrap();
    let mut reasons = Vec::new();
    let mut reactor = adopted(Stays(&mut reasons), input, output);
    to_input.write_all(b"one\ntwo\n").unwrap();
    while reactor.counters().lines_in < 1 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    drop(from_output);
    while reactor.counters().lines_in < 2 {
        reactor.turn(Some(PATIENCE)).unwrap();
        assert_eq!(reactor.counters().closed_in_all(), 0);
    }
    drop(reactor);
    assert_eq!(reasons, [CloseReason::Shutdown]);
}

#[test]
#[cfg(target_os = "linux")]
fn the_descriptors_stay_as_they_were_and_can_be_adopted_again() {
    let (input, mut to_input) = pipe().unwrap();
    let (mut from_output, output) = pipe().unwrap();
    let mut echo = Echo { goes_on: true, ..Echo::default() };
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.add(&mut echo, Limits::default()).unwrap();
    for n in 0..3 {
        reactor.adopt(&service, &input, &output).unwrap();
        write!(to_input, "{n}\nclose\n").unwrap();
        while reactor.counters().closed_in_all() < n + 1 {
            reactor.turn(Some(PATIENCE)).unwrap();
            assert!(blocks(&input) && blocks(&output), "that is shared with everybody");
        }
        assert_eq!(reactor.counters().lines_in, 2 * (n + 1));
        let mut line = [0; 2];
        from_output.read_exact(&mut line).unwrap();
        assert_eq!(line, format!("{n}\n").as_bytes());
    }
    drop(reactor);
    assert_eq!(echo.heard, [OPEN, "closed by the handler"].repeat(3));
}

#[test]
fn at_a_close_unread_input_is_left_to_whoever_reads_it_next() {
    let (mut input, mut to_input) = pipe().unwrap();
    let (mut from_output, output) = pipe().unwrap();
    to_input.write_all(b"for somebody else").unwrap();
    let mut echo = Echo { close_at_once: true, goes_on: true, ..Echo::default() };
    let mut reactor = adopted(&mut echo, &input, &output);
    drop(output);
    // It has more to say than fits into the pipe, so that closing takes some turns.
    for _ in 0..20 {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    to_input.write_all(b", who comes later").unwrap();
    for _ in 0..20 {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    let reader = std::thread::spawn(move || std::io::read_to_string(&mut from_output).unwrap());
    while reactor.counters().closed_in_all() == 0 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    assert!(reader.join().unwrap() == GOODBYE.repeat(50_000));
    // It is closed, not waited with.
    let mut left = [0; 34];
    input.read_exact(&mut left).unwrap();
    assert_eq!(&left, b"for somebody else, who comes later");
    drop(input);
    assert_eq!(to_input.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    drop(reactor);
    assert_eq!(echo.heard, [OPEN, "closed by the handler"]);
}

#[test]
fn a_childs_pipes_are_a_connection() {
    let mut child = Command::new("tr")
        .args(["a-z", "A-Z"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    /// Asks, ends its side, and listens to the end.
    struct Asks<'a>(&'a mut String);
    impl Handler for Asks<'_> {
        type Session = ();
        type Message = ();

        fn on_open(&mut self, cx: &mut Context<'_, ()>) {
            cx.send("how are you?\n");
            cx.half_close();
        }

        fn on_line(&mut self, _cx: &mut Context<'_, ()>, line: &[u8]) {
            self.0.push_str(str::from_utf8(line).unwrap());
        }

        fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
            assert_eq!(reason, CloseReason::PeerClosed);
            cx.stop();
        }
    }
    let mut said = String::new();
    // Given away, so that the loop's duplicates are the last ones.
    let (input, output) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    adopted(Asks(&mut said), input, output).run().unwrap();
    assert_eq!(said, "HOW ARE YOU?");
    assert!(child.wait().unwrap().success());
}

#[test]
fn nothing_is_adopted_during_a_shutdown() {
    let mut echo = Echo::default();
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.add(&mut echo, Limits::default()).unwrap();
    reactor.stop();
    let null = File::open("/dev/null").unwrap();
    assert!(matches!(reactor.adopt(&service, &null, &null), Err(Error::ShuttingDown)));
    reactor.run().unwrap();
}

#[test]
fn the_harness_gives_a_stand_in() {
    struct Reads;
    impl Handler for Reads {
        type Session = u8;
        type Message = ();

        fn on_listening(&mut self, cx: &mut ServiceContext<'_, u8>, _: &Address) {
            cx.adopt(std::io::stdin(), std::io::stdout(), 7).unwrap();
        }

        fn on_line(&mut self, cx: &mut Context<'_, u8>, line: &[u8]) {
            let session = *cx.session();
            writeln!(cx, "{session}: {}", String::from_utf8_lossy(line));
        }
    }
    let mut server = Harness::new(Reads);
    let stdio = server.adopted()[0];
    server.feed(stdio, "typed\n");
    assert_eq!(server.sent(stdio), b"7: typed\n");
    server.end(stdio);
    assert_eq!(server.closed(stdio), Some(CloseReason::PeerClosed));
    assert_eq!(server.adopted(), []);
}
