//! What is fuzzed: each of these takes any bytes, and panics where a promise is broken. libFuzzer
//! calls them (see `fuzz/`), and so do the tests beside this.

#![allow(unreachable_pub, reason = "the fuzzers are a crate of their own")]

use clap::{CommandFactory, FromArgMatches};
use reactor::http::{Head, MAX_HEAD, Request};
use reactor::services::{Admin, Web};
use reactor::testing::Harness;
use reactor::{Address, CloseReason, ConnId, Context, Handler, Limits, Networks};

use crate::cli::args::{Args, Command};
use crate::cli::failure::Failure;
use crate::cli::unused_options::GivenOptions;
use crate::proxy_header::{self, Origin, Progress};
use crate::world::models::Model;
use crate::world::{Choices, World};

/// Bytes of input that are tried: the smallest budgets make thousands of turns of it.
const LONGEST: usize = 20_000;

/// Remembers the lines, and how it ended.
#[derive(Default)]
struct Listener {
    lines: Vec<Vec<u8>>,
    closed: Option<(ConnId, CloseReason)>,
}

impl Handler for Listener {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, _cx: &mut Context<'_, ()>, line: &[u8]) {
        self.lines.push(line.to_vec());
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
        assert_eq!(self.closed.replace((cx.id(), reason)), None);
    }
}

/// Any bytes in any pieces, under any budgets, make the lines that cutting them at LF makes. The
/// first eight bytes say which pieces, budgets and limit.
pub fn framing(data: &[u8]) {
    let Some((shape, input)) = data.split_at_checked(8) else { return };
    let input = &input[..input.len().min(LONGEST)];
    let limits = Limits {
        max_line: [1, 10, 4096, 1 << 16][usize::from(shape[0] % 4)],
        bytes_per_turn: [8, 100, 4097, 1 << 16][usize::from(shape[1] % 4)],
        lines_per_turn: [4, 20, 1024][usize::from(shape[2] % 3)],
        ..Limits::default()
    };
    let max_line = limits.max_line;
    let mut server = Harness::with_limits(Listener::default(), limits);
    let client = server.connect();
    let mut rest = input;
    for size in shape[3..].iter().cycle() {
        // Squared, so that a piece can be longer than what is copied, and two can be one.
        let (piece, more) = rest.split_at(rest.len().min(1 + usize::from(*size).pow(2)));
        server.feed(client, piece);
        rest = more;
        if rest.is_empty() {
            break;
        }
    }
    server.end(client);
    let mut wanted: Vec<_> = input.split(|byte| *byte == b'\n').collect();
    wanted.pop_if(|last| last.is_empty());
    let wanted: Vec<_> =
        wanted.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    let good = wanted.iter().take_while(|line| line.len() <= max_line).count();
    let reason =
        if good < wanted.len() { CloseReason::LineTooLong } else { CloseReason::PeerClosed };
    assert_eq!(server.closed(client), Some(reason));
    assert_eq!(server.handler().lines, wanted[..good]);
    assert_eq!(server.left_over(), (0, 0));
}

/// A service whose clients do and say what the bytes decide, under the oracle of the simulation.
pub fn service<M: Model>(data: &[u8]) {
    let mut world = World::<M>::new(Choices::of_bytes(data.to_vec()));
    if let Err(complaint) = world.live(data.len()) {
        panic!("{}: {complaint}", M::NAME);
    }
}

/// A text is an address or networks and comes back as such, or is told in one line why not.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let told = |error: reactor::Error| assert!(!error.to_string().contains('\n'), "{error}");
    match text.parse::<Address>() {
        Ok(address) => assert_eq!(address.to_string().parse::<Address>().unwrap(), address),
        Err(error) => told(error),
    }
    match text.parse::<Networks>() {
        Ok(networks) => {
            assert_eq!(networks.to_string().parse::<Networks>().unwrap(), networks);
        }
        Err(error) => told(error),
    }
}

/// Any bytes in any pieces are the same PROXY header, or none; no byte behind a header is asked for,
/// and what a header says can be said again. Half of the inputs have a right beginning put in front.
pub fn proxy(data: &[u8]) {
    let Some((&form, data)) = data.split_first() else { return };
    let beginnings: [&[u8]; 4] = [
        b"PROXY TCP4 ",
        b"PROXY TCP6 ::",
        b"\r\n\r\n\0\r\nQUIT\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0",
    ];
    let beginning = beginnings.get(usize::from(form)).copied().unwrap_or_default();
    let bytes = [beginning, data].concat();
    let mut asked_for = 0;
    let mut whole = None;
    for end in 0..=bytes.len() {
        match proxy_header::read(&bytes[..end]) {
            Ok(Progress::Wants(count)) => {
                assert!(count > 0 && end + count <= proxy_header::LONGEST);
                asked_for = asked_for.max(end + count);
            }
            Ok(Progress::Complete(origin)) => {
                whole = Some((end, origin));
                break;
            }
            // What is wrong stays wrong; there is nothing to wait for.
            Err(_) => return,
        }
    }
    let Some((end, origin)) = whole else { return };
    assert_eq!(asked_for, end, "{bytes:?}");
    if let Origin::Client { source, destination } = origin {
        let again = proxy_header::write(Some((source, destination)));
        assert_eq!(proxy_header::read(&again), Ok(Progress::Complete(origin)));
    }
}

/// Any bytes in any pieces are the head of the same request, or of none; what is taken as a head leaves
/// nobody in doubt where it ends. Most of the inputs have a right beginning put in front.
pub fn head(data: &[u8]) {
    let Some((&form, data)) = data.split_first() else { return };
    let beginnings: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n",
        b"GET /status.json?all HTTP/1.1\r\nHost: [::1]:8023\r\nConnection: close, ",
        b"POST /close/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0",
        b"GET / HTTP/1.0\r\nTransfer-Encoding",
        b"HEAD /",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET ",
    ];
    let beginning = beginnings.get(usize::from(form % 8)).copied().unwrap_or_default();
    let bytes = [beginning, &data[..data.len().min(LONGEST)]].concat();
    let whole = Request::parse(&bytes);
    let (mut head, mut end, mut sizes) = (Head::default(), 0, data.iter().cycle());
    while end < bytes.len() {
        end += (1 + usize::from(sizes.next().copied().unwrap_or_default()) / 16)
            .min(bytes.len() - end);
        match head.parse(&bytes[..end]) {
            Ok(None) => {}
            Ok(Some((request, length))) => {
                assert!(leaves_no_doubt(&bytes[..length]), "{}", bytes[..length].escape_ascii());
                return assert_eq!(whole, Ok(Some((request, length))));
            }
            Err(bad) => {
                assert!(matches!(bad.status(), 400 | 413 | 414 | 431 | 501 | 505), "{bad:?}");
                return assert!(whole.is_err(), "{bad:?}");
            }
        }
    }
    // A wrong line may be told only with its end.
    assert!(!matches!(whole, Ok(Some(_))));
}

/// Whether all who read this head find its end, and no body, where it ends.
fn leaves_no_doubt(head: &[u8]) -> bool {
    let Some(lines) = head.strip_suffix(b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(lines);
    let headers: Vec<_> = text.split("\r\n").skip(1).collect();
    let count = |name: &str| {
        let names = headers.iter().filter_map(|header| header.split_once(':'));
        names.filter(|(other, _)| other.eq_ignore_ascii_case(name)).count()
    };
    let whole = headers.iter().all(|header| {
        let name = header.split_once(':').map_or("", |(name, _)| name);
        !name.is_empty() && !name.contains([' ', '\t'])
    });
    whole
        && !text.replace("\r\n", "").contains(['\r', '\n', '\0'])
        && count("Transfer-Encoding") == 0
        && count("Content-Length") <= 1
        && count("Host") <= 1
        && head.len() <= MAX_HEAD
}

/// What is said to the control socket.
const COMMANDS: &[&str] = &[
    "HELP",
    "STATUS",
    "status json",
    "LIST",
    "LIST JSON",
    "LIST Admin",
    "list admin json",
    "CLOSE #1",
    "CLOSE 99 why",
    "CLOSE #",
    "LIMITS Admin",
    "LIMITS",
    "LOG debug",
    "LOG",
    "RELOAD",
    "",
    " ",
    "FROB",
];

/// Any commands are answered one by one, each by an end of its own.
pub fn admin(data: &[u8]) {
    let mut choices = Choices::of_bytes(data.to_vec());
    let mut server = Harness::new(Admin::new());
    let client = server.connect();
    let (mut asked, mut said) = (0, Vec::new());
    while !choices.are_over() && asked < 50 {
        let mut line = choices.one_of(COMMANDS).as_bytes().to_vec();
        if choices.once_in(3) {
            let length = choices.below(40);
            line.extend(choices.text(length));
        }
        line.retain(|byte| *byte != b'\n');
        let word = line.trim_ascii().split(u8::is_ascii_whitespace).next().unwrap_or_default();
        // It would end the conversation.
        if word.eq_ignore_ascii_case(b"STOP") || word.eq_ignore_ascii_case(b"BYE") {
            continue;
        }
        asked += usize::from(!word.is_empty());
        line.push(b'\n');
        let (first, second) = line.split_at(choices.below(line.len()));
        server.feed(client, first);
        server.feed(client, second);
        said.extend(server.sent(client));
        if server.closed(client).is_some() {
            // It has closed itself, and nothing else.
            return assert!(server.closed(client) == Some(CloseReason::Administrator));
        }
    }
    let ends = |line: &&[u8]| *line == b"OK" || line.starts_with(b"ERROR ");
    let answers = said.split(|byte| *byte == b'\n').filter(ends).count();
    assert_eq!(answers, asked, "{}", said.escape_ascii());
    assert!(said.is_empty() || said.ends_with(b"\n"));
}

/// What command lines are made of.
const WORDS: &[&str] = &[
    "serve",
    "load",
    "forward",
    "discover",
    "help",
    "--help",
    "--version",
    "--",
    "echo",
    "time=0",
    "presence=unix:/tmp/p",
    "roulette",
    "roulette2=[::1]:0",
    "2323",
    "127.0.0.1:80",
    "--host",
    "127.0.0.1",
    "::",
    "--max-connections",
    "--max-line",
    "--max-output",
    "--idle-timeout",
    "--line-timeout",
    "--rate",
    "--peer-rate",
    "--peer-connect-rate",
    "10/s,64K/s",
    "--max-per-peer",
    "--keepalive",
    "--allow",
    "10.0.0.0/8,::1",
    "--unix-mode",
    "600",
    "--allow-kill",
    "--time-interval",
    "--time-count",
    "--log",
    "debug",
    "--mode",
    "pipeline",
    "--clients",
    "--depth",
    "--size",
    "--duration",
    "--ramp",
    "--server-pid",
    "--json",
    "--svg",
    "64K",
    "1G",
    "0",
    "30s",
    "never",
    "20/s",
    "--announce",
    "--group",
    "--for",
    "239.0.0.1:5000",
    "--once",
    "--connect-timeout",
    "connect",
    "--crlf",
    "--timeout",
    "--burst",
    "--max-total-output",
    "--user-timeout",
    "--roulette-file",
    "--roulette-memory",
    "--announce-group",
    "--announce-interface",
    "--interface",
    "echo=tls:127.0.0.1:0",
    "echo=proxy:0,tls:0",
    "proxy:2323",
    "--proxy-from",
    "--tls-cert",
    "--tls-key",
    "--max-total-input",
    "--unique-names",
    "web=unix:/tmp/page",
    "--web-admin",
    "--web-host",
    "--origin",
    "https://example.org",
];

/// Any words after the program's name are options that can be kept, or one line says what is wrong.
pub fn options(data: &[u8]) {
    let mut choices = Choices::of_bytes(data.to_vec());
    let mut words = vec!["reactor".to_owned()];
    while !choices.are_over() && words.len() < 20 {
        let mut word = String::new();
        let form = choices.below(4);
        if form < 3 {
            word.push_str(choices.one_of(WORDS));
        }
        if form == 2 {
            word.push('=');
        }
        if form >= 2 {
            let length = choices.below(20);
            word.push_str(&String::from_utf8_lossy(&choices.text(length)));
        }
        words.push(word);
    }
    let matches = Args::command().try_get_matches_from(&words);
    let read = |matches| Ok((Args::from_arg_matches(&matches)?, GivenOptions::new(&matches)));
    let (args, given) = match matches.and_then(read) {
        Ok((args, given)) => (Ok(args), given),
        Err(error) => (Err(error), GivenOptions::default()),
    };
    let outcome = match args {
        Ok(Args { command: Some(Command::Serve(args)) }) => {
            args.arguments.source(&given).plan().and_then(|plan| {
                assert!(!plan.services.is_empty());
                plan.services.iter().try_for_each(|service| {
                    service.options.limits().map(|limits| assert!(limits.check().is_ok()))
                })
            })
        }
        Ok(Args { command: Some(Command::Load(args)) }) => args.check(),
        Ok(_) => Ok(()),
        // The help and the version.
        Err(error) if !error.use_stderr() => Ok(()),
        Err(error) => Err(Failure::usage(&error, &words[1..].concat())),
    };
    if let Err(failure) = outcome {
        let told = failure.to_string();
        assert!(matches!(failure, Failure::Usage(_)) && !told.contains('\n'), "{words:?}: {told}");
    }
}

/// What configuration files are made of.
const ENTRIES: &[&str] = &[
    "[echo]",
    "[time]",
    "[web]",
    "[lunch]\nservice = \"presence\"",
    "[\"tea\"]",
    "[[echo]]",
    "[echo.log]",
    "service = \"roulette2\"",
    "address = 0",
    "address = [1, \"unix:/a b\", \"proxy:[::1]:80\", \"systemd:a\"]",
    "address = \"localhost:7\"",
    "echo = 5",
    "threads = 2",
    "host = \"::1\"",
    "max-line = 1_000",
    "max-line = \"64K\"",
    "max-line = 0",
    "max-line = -1",
    "max-line = true",
    "max-output = \"2G\"",
    "rate = \"5/s,1K/s\"",
    "burst = 7",
    "idle-timeout = 1.5",
    "idle-timeout = \"1h30m\"",
    "keepalive = \"never\"",
    "allow = [\"10.0.0.0/8\", \"::1\"]",
    "allow = []",
    "allow-uid = [0, 1000]",
    "unix-mode = \"0660\"",
    "allow-kill = true",
    "unique-names = false",
    "time-count = 0",
    "roulette-file = \"/a\\n\\u007f\\\\\"",
    "origin = 'https://a.org'",
    "presence-bus = \"redis://a/7?room=b\"",
    "presence-bus = \"redis://a:b@c\"",
    "bus-timeout = \"1s\"",
    "bus-lease = \"1s\"",
    "announce-group = \"239.1.2.3:4\"",
    "no-admin = true",
    "admin = \"/a\"",
    "tls-cert = \"/a\"",
    "log = \"debug\"",
    "log = { level = \"debug\" }",
    "config = \"/a\"",
    "\"a\\nb\" = 1979-05-27",
    "# \u{e9}",
    "=",
    "\"\"\"",
];

/// Any bytes are a configuration that comes back from what is printed of it, or one line says where they
/// are wrong. Of half of the inputs, lines are chosen.
pub fn config(data: &[u8]) {
    let Some((&form, data)) = data.split_first() else { return };
    let mut bytes = data.to_vec();
    if form % 2 == 1 {
        let mut choices = Choices::of_bytes(data.to_vec());
        bytes.clear();
        while !choices.are_over() && bytes.len() < LONGEST {
            bytes.extend(choices.one_of(ENTRIES).as_bytes());
            if choices.once_in(8) {
                let length = choices.below(9);
                bytes.extend(choices.text(length));
            }
            bytes.push(b'\n');
        }
    }
    let matches = Args::command().get_matches_from(["reactor", "serve", "--config=f"]);
    let Ok(Args { command: Some(Command::Serve(args)) }) = Args::from_arg_matches(&matches) else {
        panic!("it is serve")
    };
    let source = args.arguments.source(&GivenOptions::new(&matches));
    match source.plan_of(&bytes, "f") {
        Ok(plan) => {
            let text = plan.written().expect("UTF-8");
            let again = source.plan_of(text.as_bytes(), "f");
            let again = again.unwrap_or_else(|why| panic!("{why}: {text}"));
            assert_eq!(again.written().expect("UTF-8"), text);
        }
        Err(failure) => {
            let told = failure.to_string();
            assert!(matches!(failure, Failure::Runtime(_)), "{told}");
            if told != "--config f: there is no service in it: write a table, as [echo]" {
                let line = told.strip_prefix("f:").and_then(|rest| rest.split_once(": "));
                let line = line.and_then(|(line, _)| line.parse::<usize>().ok()).expect(&told);
                let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
                assert!((1..=lines).contains(&line), "{told}");
            }
        }
    }
}

/// What requests are made of.
const HEADS: &[&str] = &[
    "GET ",
    "HEAD ",
    "POST ",
    "PRI ",
    "/",
    "/healthz",
    "/status.json",
    "/metrics",
    "/ws/web",
    "/close/1",
    "?all",
    "&sort=idle",
    "%2f",
    "*",
    "http://a/",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    " HTTP/2.0\r\n",
    "Host: localhost\r\n",
    "Host: [::1]:80\r\n",
    "Host: a\r\n",
    "Origin: null\r\n",
    "Origin: http://localhost\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Accept: application/openmetrics-text\r\n",
    "GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
    "\r\n",
    "\n",
    "\r",
    " ",
    ":",
    "\0",
];

/// Any pieces of a head make the same answers in any pieces; nothing is answered behind an error, nor
/// more than was asked.
pub fn web(data: &[u8]) {
    let mut choices = Choices::of_bytes(data.to_vec());
    let piece = 1 + choices.below(40);
    let mut input = Vec::new();
    while !choices.are_over() && input.len() < LONGEST {
        if choices.below(16) == 0 {
            let length = choices.below(300);
            input.extend(choices.text(length));
        } else {
            input.extend(choices.one_of(HEADS).as_bytes());
        }
    }
    let answers = |piece: usize| {
        let mut server = Harness::with_limits(Web::new(), Web::limits());
        let client = server.connect();
        input.chunks(piece).for_each(|bytes| server.feed(client, bytes));
        server.end(client);
        assert_eq!((server.closed(client).is_some(), server.left_over()), (true, (0, 0)));
        let said = String::from_utf8(server.sent(client)).expect("text");
        let status = |answer: &str| answer[..3].parse::<u16>().expect("a status");
        // Every body ends with a line, and none has a line like this.
        format!("\n{said}").split("\nHTTP/1.1 ").skip(1).map(status).collect::<Vec<_>>()
    };
    let (whole, pieces) = (answers(LONGEST), answers(piece));
    let good = |answers: &[u16]| answers.iter().take_while(|status| **status == 200).count();
    assert_eq!(good(&whole), good(&pieces), "{:?}", String::from_utf8_lossy(&input));
    for answers in [whole, pieces] {
        // A line that is wrong and cut off is told of if it came at once.
        assert!(answers.len() <= good(&answers) + 1, "{answers:?}");
        let ends = input.windows(4).filter(|four| *four == b"\r\n\r\n").count();
        assert!(good(&answers) <= ends, "{answers:?}");
    }
}
