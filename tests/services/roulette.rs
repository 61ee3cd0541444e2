//! The quiz roulette over real sockets, byte for byte as its protocols say; and that half a million
//! names, in or out, hold nobody up.

#![cfg(feature = "services")]

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use reactor::services::Echo;
use reactor::services::roulette::{Roulette, Version};
use reactor::{Address, Exit, Limits, Reactor};

use crate::util::{Client, PATIENCE, Server, until, until_within};

const GREETING: &str = "Hello. Online HELP is available. Will you find it?\n";
const DATA: &str = "Send your data [end with ENDOFDATA]\n";
const HUH: &str = "Huh? please use HELP if you don't know what commands are available.\n";
const MEMORY: usize = 64 << 20;
const MANY: usize = 500_000;

fn server(version: Version) -> Server<()> {
    Server::start(Limits::default(), move || Roulette::new(version, MEMORY))
}

fn join(server: &Server<()>) -> Client {
    let mut client = server.connect();
    client.expect(GREETING);
    client
}

fn loaded(count: usize) -> String {
    format!("{DATA}{{\"status\":\"success\",\"numberOfNewStudents\":{count}}}\n")
}

#[test]
fn a_session_in_protocol_one() {
    let server = server(Version::One);
    let mut client = join(&server);
    for (sent, heard) in [
        ("HELP\n", "Commands: [HELP, RANDOM, LOAD, INFO, BYE]\n"),
        ("Info\r\n", "{\"protocolVersion\":\"1.0\",\"numberOfStudents\":0}\n"),
        ("RANDOM\n", "{\"error\":\"There is no student, you cannot pick a random one\"}\n"),
        ("LIST\n", HUH),
        ("CLEAR\n", HUH),
        ("ENDOFDATA\n", HUH),
        ("\n", HUH),
        ("load\n", DATA),
        ("olivier liechti\r\nEndOfData\n", "DATA LOADED\n"),
        ("random\n", "{\"fullname\":\"olivier liechti\"}\n"),
        ("INFO\n", "{\"protocolVersion\":\"1.0\",\"numberOfStudents\":1}\n"),
    ] {
        client.send(sent);
        client.expect(heard);
    }
    client.send("bye\nINFO\n");
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_session_in_protocol_two() {
    let server = server(Version::Two);
    let mut client = join(&server);
    client.send("HELP\nLIST\nLOAD\njohn doe\n\nBYE\nENDOFDATA\nLIST\nINFO\nhelp me\n");
    client.expect("Commands: [HELP, RANDOM, LOAD, INFO, BYE, CLEAR, LIST]\n{\"students\":[]}\n");
    client.expect(loaded(3));
    client.expect(
        "{\"students\":[{\"fullname\":\"john doe\"},{\"fullname\":\"\"},{\"fullname\":\"BYE\"}]}\n\
         {\"protocolVersion\":\"2.0\",\"numberOfStudents\":3}\n",
    );
    client.expect(HUH);
    // The store is everybody's, and the number of commands one's own.
    let mut other = join(&server);
    other.send("CLEAR\nBYE\n");
    let bye = |count| format!("{{\"status\":\"success\",\"numberOfCommands\":{count}}}\n");
    assert_eq!(other.rest(), format!("DATASTORE CLEARED\n{}", bye(2)).as_bytes());
    client.send("INFO\nBYE");
    client.end();
    client.expect("{\"protocolVersion\":\"2.0\",\"numberOfStudents\":0}\n");
    assert_eq!(client.rest(), bye(8).as_bytes());
}

#[test]
fn a_load_that_is_cut_off_leaves_nothing_behind() {
    let server = server(Version::Two);
    let mut watcher = join(&server);
    let end = |mut client: Client| {
        client.end();
        assert_eq!(client.rest(), b"");
    };
    for way in [Client::reset, drop, end] {
        let mut client = join(&server);
        client.send("LOAD\nhalf\nof\nit");
        client.expect(DATA);
        way(client);
        watcher.send("INFO\n");
        watcher.expect("{\"protocolVersion\":\"2.0\",\"numberOfStudents\":0}\n");
    }
    drop(watcher);
    let (exit, counters) = server.stop();
    assert_eq!((exit, counters.accepted), (Exit::Clean, 4));
}

#[test]
fn names_come_back_whole_and_no_terminal_obeys_them() {
    let server = server(Version::Two);
    let mut client = join(&server);
    let all: String = (0..=0x9f).filter_map(char::from_u32).filter(|c| *c != '\n').collect();
    let names = [
        &all[..],
        "tab\there \"quoted\" back\\slash",
        "\u{202e}mal\u{2028}\u{3164}\u{2800}\u{e0041}\u{10fffd}",
        "नर्\u{200d}द می\u{200c}خواهم ❤\u{fe0f} \u{fe0f}",
        "\u{feff}no longer the first line",
    ];
    client.send(format!("LOAD\n{}\nENDOFDATA\nLIST\n", names.join("\n")));
    client.expect(loaded(names.len()));
    let list = client.line();
    let parsed: serde_json::Value = serde_json::from_str(&list).unwrap();
    let listed = parsed["students"].as_array().unwrap().iter().map(|it| &it["fullname"]);
    assert!(listed.eq(names), "{list}");
    assert!(!list.trim_end().contains(char::is_control), "{list}");
    assert!(
        list.contains("\\u001b") && list.contains("\\u007f") && list.contains("\\u009b"),
        "{list}"
    );
    let third = "\"\\u202emal\\u2028\\u3164\\u2800\\udb40\\udc41\\udbff\\udffd\"";
    assert!(list.contains(third), "{list}");
    let fourth = "\"नर्\u{200d}द می\u{200c}خواهم ❤\u{fe0f} \\ufe0f\"";
    assert!(list.contains(fourth), "{list}");
    // RANDOM says it as LIST does.
    client.send("CLEAR\nLOAD\n\u{9b}2J\u{ff}\nENDOFDATA\nRANDOM\n");
    client.expect("DATASTORE CLEARED\n");
    client.expect(loaded(1));
    client.expect("{\"fullname\":\"\\u009b2J\u{ff}\"}\n");
}

#[test]
fn telnets_commands_and_a_byte_order_mark_are_no_part_of_a_line() {
    let server = server(Version::Two);
    let mut client = join(&server);
    client.send(b"\xff\xfb\x1f\xff\xfd\x01\xef\xbb\xbfLOAD\r\n\xff\xf1john doe\r\n\xff\xf4\xff\xfd\x06ENDOFDATA\r\n");
    client.expect([b"\xff\xfe\x1f\xff\xfc\x01", DATA.as_bytes(), b"\xff\xfb\x06"].concat());
    client.expect("{\"status\":\"success\",\"numberOfNewStudents\":1}\n");
    client.send("RANDOM\n\u{feff}RANDOM\n");
    client.expect(["{\"fullname\":\"john doe\"}\n", HUH].concat());
    // A mark is not interrupted by a list, nor a list by it.
    client.send(b"LIST\n\xff\xfd\x06LIST\n");
    let list = "{\"students\":[{\"fullname\":\"john doe\"}]}\n";
    client.expect([list.as_bytes(), b"\xff\xfb\x06", list.as_bytes()].concat());
}

// ---- Half a million ----

/// A roulette and an echo in one loop, which the test turns by hand. Over Unix sockets what one
/// side writes is there for the other at once, so what a turn must do can be told.
struct Side {
    reactor: Reactor<'static>,
    roulette: PathBuf,
    /// The client beside.
    echo: UnixStream,
    /// The most lines that one turn has handled.
    most: u64,
}

impl Side {
    fn start(name: &str, roulette: Roulette) -> Side {
        let mut reactor = Reactor::new().unwrap();
        let path = |service| {
            let pid = std::process::id();
            std::env::temp_dir().join(format!("reactor-{pid}-{name}-{service}"))
        };
        reactor.listen(Address::Unix(path("roulette")), roulette).unwrap();
        reactor.listen(Address::Unix(path("echo")), Echo).unwrap();
        let echo = connect(&path("echo"));
        let mut side = Side { reactor, roulette: path("roulette"), echo, most: 0 };
        side.reactor.turn(Some(PATIENCE)).unwrap();
        let greeting = drain(&mut side.echo);
        assert_eq!(greeting.iter().filter(|byte| **byte == b'\n').count(), 2);
        side
    }

    /// One turn, in which the client beside must be answered.
    fn turn(&mut self) {
        self.echo.write_all(b"still there?\n").unwrap();
        let before = self.reactor.counters().lines_in;
        self.reactor.turn(Some(PATIENCE)).unwrap();
        assert_eq!(drain(&mut self.echo), b"> STILL THERE?\n");
        self.most = self.most.max(self.reactor.counters().lines_in - before);
    }
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// All that is there to be read.
fn drain(stream: &mut UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => all,
        other => panic!("{other:?} after {} bytes", all.len()),
    }
}

fn names() -> impl Iterator<Item = String> {
    (0..MANY).map(|n| format!("student {n}"))
}

#[test]
fn a_load_of_half_a_million_names_holds_nobody_up() {
    let mut side = Side::start("load", Roulette::new(Version::Two, MEMORY));
    let mut client = connect(&side.roulette);
    let names: Vec<_> = names().collect();
    let load = format!("LOAD\n{}\nENDOFDATA\nINFO\n", names.join("\n"));
    let (mut rest, mut said) = (load.as_bytes(), Vec::new());
    let info = format!("{{\"protocolVersion\":\"2.0\",\"numberOfStudents\":{MANY}}}\n");
    until_within(4 * PATIENCE, "all is loaded", || {
        match client.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        side.turn();
        said.extend(drain(&mut client));
        said.ends_with(info.as_bytes())
    });
    assert_eq!(String::from_utf8(said).unwrap(), format!("{GREETING}{}{info}", loaded(MANY)));
    // No turn had more than its budget, the one of ENDOFDATA neither.
    let budget = Limits::default().lines_per_turn as u64;
    assert!(side.most <= budget + 1, "{} lines in one turn", side.most);
}

#[test]
fn a_list_of_half_a_million_names_is_streamed_as_it_was_and_holds_nobody_up() {
    let mut roulette = Roulette::new(Version::Two, MEMORY);
    let text: Vec<_> = names().collect();
    assert_eq!(roulette.load(text.join("\n").as_bytes()), Ok(MANY));
    let mut side = Side::start("list", roulette);
    let (mut slow, mut other) = (connect(&side.roulette), connect(&side.roulette));
    slow.write_all(b"LIST\nINFO\n").unwrap();
    // It does not read.
    let (mut out, mut same) = (0, 0);
    until("nothing moves", || {
        side.turn();
        let now = side.reactor.counters().bytes_out;
        same = if now - out == b"> STILL THERE?\n".len() as u64 { same + 1 } else { 0 };
        out = now;
        same == 10
    });
    // Others change everything meanwhile.
    other.write_all(b"CLEAR\nLOAD\nnew\nENDOFDATA\n").unwrap();
    side.turn();
    let cleared = format!("{GREETING}DATASTORE CLEARED\n{}", loaded(1));
    assert_eq!(String::from_utf8(drain(&mut other)).unwrap(), cleared);

    let students: Vec<_> = names().map(|name| format!("{{\"fullname\":\"{name}\"}}")).collect();
    let list = format!("{GREETING}{{\"students\":[{}]}}\n", students.join(","));
    assert!(out < list.len() as u64 / 4, "{out} bytes went out to one who does not read");
    let info = "{\"protocolVersion\":\"2.0\",\"numberOfStudents\":1}\n";
    let mut said = Vec::new();
    until_within(4 * PATIENCE, "all is listed", || {
        said.extend(drain(&mut slow));
        side.turn();
        said.ends_with(info.as_bytes())
    });
    assert!(said == format!("{list}{info}").as_bytes(), "not the list as it was");
}
