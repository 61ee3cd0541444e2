//! Announcing services and hearing of them: the two handlers in memory, byte for byte, and then
//! the program over multicast, in network namespaces.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use reactor::DatagramOptions;
use reactor::services::{Announcer, Change, Directory};
use reactor::testing::DatagramHarness;
use serde_json::Value;

use crate::util::folder::Folder;
use crate::util::namespace::inside;
use crate::util::program::{Program, REACTOR, wait};
use crate::util::until;

const SECOND: Duration = Duration::from_secs(1);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn peer() -> SocketAddr {
    at("10.0.0.7:9908")
}

// ---- The one who announces ----

fn announcer() -> DatagramHarness<Announcer> {
    let services = [("echo", at("127.0.0.1:2323")), ("time", at("[::1]:2205"))];
    let announcer = Announcer::new(services);
    DatagramHarness::with_options(Announcer::GROUP, announcer, DatagramOptions::default())
}

/// What one announcement of both services looks like.
fn both() -> Vec<(SocketAddr, Vec<u8>)> {
    ["echo 127.0.0.1:2323\n", "time [::1]:2205\n"]
        .map(|line| (Announcer::GROUP, line.as_bytes().to_vec()))
        .to_vec()
}

#[test]
fn services_are_announced_at_once_and_every_second() {
    let mut announcer = announcer();
    assert_eq!(announcer.sent(), both());
    announcer.advance(SECOND - Duration::from_millis(1));
    assert_eq!(announcer.sent(), []);
    announcer.advance(Duration::from_millis(1));
    assert_eq!(announcer.sent(), both());
    announcer.advance(2 * SECOND);
    assert_eq!(announcer.sent(), [both(), both()].concat());
}

#[test]
fn a_question_is_answered_at_once_and_a_flood_of_them_ten_times_a_second() {
    let mut announcer = announcer();
    announcer.advance(SECOND / 2);
    announcer.sent();
    announcer.deliver(peer(), "?\n");
    assert_eq!(announcer.sent(), both());
    // The answer counts as the announcement of that second.
    announcer.advance(SECOND - Duration::from_millis(1));
    assert_eq!(announcer.sent(), []);
    announcer.advance(Duration::from_millis(1));
    assert_eq!(announcer.sent(), both());
    for _ in 0..100 {
        announcer.deliver(peer(), "?");
        announcer.deliver(peer(), "?\r\n");
        announcer.advance(Duration::from_millis(10));
    }
    let answers = announcer.sent().len() / 2;
    assert!((9..=10).contains(&answers), "{answers}");
}

#[test]
fn what_is_no_question_is_not_answered() {
    let mut announcer = announcer();
    announcer.sent();
    announcer.advance(SECOND / 2);
    for bytes in ["echo 127.0.0.1:2323\n", "", "\n", "??", "? echo", "\u{0}?"] {
        announcer.deliver(peer(), bytes);
    }
    assert_eq!(announcer.sent(), []);
}

#[test]
#[should_panic(expected = "cannot be announced")]
fn a_name_with_a_blank_is_refused() {
    Announcer::new([("my echo", at("127.0.0.1:1"))]);
}

// ---- The one who listens ----

type News = RefCell<Vec<String>>;

fn directory(news: &News) -> DatagramHarness<Directory<impl FnMut(Change<'_>)>> {
    let directory = Directory::new(|change: Change<'_>| {
        news.borrow_mut().push(match change {
            Change::Came(service) => format!("+ {service}"),
            Change::Went(service) => format!("- {service}"),
        });
    });
    DatagramHarness::with_options(Announcer::GROUP, directory, DatagramOptions::default())
}

#[test]
fn who_comes_is_told_once_and_who_falls_silent_too() {
    let news = News::default();
    let mut directory = directory(&news);
    assert_eq!(directory.sent(), [(Announcer::GROUP, b"?\n".to_vec())]);
    for second in 0..5 {
        directory.deliver(peer(), "echo 10.0.0.7:2323\n");
        if second == 0 {
            directory.deliver(peer(), "time 10.0.0.7:2205\n");
        }
        directory.advance(SECOND);
    }
    let told = ["+ echo 10.0.0.7:2323", "+ time 10.0.0.7:2205", "- time 10.0.0.7:2205"];
    assert_eq!(news.take(), told);
    // Heard last a second ago.
    directory.advance(Duration::from_millis(2499));
    assert_eq!(news.take(), [""; 0]);
    directory.advance(Duration::from_millis(1));
    assert_eq!(news.take(), ["- echo 10.0.0.7:2323"]);
    // With nobody there it sleeps.
    let turns = directory.counters().turns;
    directory.advance(3600 * SECOND);
    assert_eq!(directory.counters().turns, turns);
    directory.deliver(peer(), "echo 10.0.0.7:2323\n");
    assert_eq!(news.take(), ["+ echo 10.0.0.7:2323"]);
    assert_eq!(directory.sent(), []);
}

#[test]
fn every_address_is_where_it_was_heard_from() {
    let news = News::default();
    let mut directory = directory(&news);
    directory.deliver(peer(), "echo 0.0.0.0:2323\n");
    directory.deliver(at("[fe80::1]:9908"), "echo [::]:2323\r\n");
    assert_eq!(news.take(), ["+ echo 10.0.0.7:2323", "+ echo [fe80::1]:2323"]);
}

#[test]
fn what_is_no_announcement_is_passed_over() {
    let news = News::default();
    let mut directory = directory(&news);
    let bad: [&[u8]; 12] = [
        b"",
        b"?\n",
        b"echo",
        b"echo ",
        b" 127.0.0.1:1",
        b"echo 127.0.0.1",
        b"echo localhost:2323",
        b"echo 127.0.0.1:99999",
        b"echo 127.0.0.1:0",
        b"echo unix:/tmp/x",
        b"\xff\xfe 127.0.0.1:1",
        &[b'x'; 65_527],
    ];
    bad.iter().for_each(|bytes| directory.deliver(peer(), bytes));
    assert_eq!(news.take(), [""; 0]);
    // A name is made safe to print, and cut.
    directory.deliver(peer(), "a\u{1b}[2Jb\u{9b} 127.0.0.1:1\n");
    directory.deliver(peer(), format!("{} 127.0.0.1:1\n", "n".repeat(1000)));
    let long = format!("+ {} 127.0.0.1:1", "n".repeat(64));
    assert_eq!(news.take(), ["+ a?[2Jb? 127.0.0.1:1".to_owned(), long]);
}

#[test]
fn a_flood_of_names_fills_a_bounded_table() {
    let news = News::default();
    let mut directory = directory(&news);
    for number in 0..3000 {
        directory.deliver(peer(), format!("s{number} 127.0.0.1:1\n"));
    }
    assert_eq!(news.take().len(), 1024);
    // They are forgotten, and then there is room again.
    directory.advance(4 * SECOND);
    assert_eq!(news.take().len(), 1024);
    directory.deliver(peer(), "echo 127.0.0.1:2323\n");
    assert_eq!(news.take(), ["+ echo 127.0.0.1:2323"]);
}

/// Who filled the table first kept all others out for as long as they went on.
#[test]
fn a_forger_cannot_keep_the_others_out() {
    let news = News::default();
    let mut directory = directory(&news);
    let rogues = [at("10.0.0.7:1"), at("10.0.0.7:2"), at("10.0.0.66:9908")];
    let forge = |directory: &mut DatagramHarness<_>| {
        for number in 0..1500 {
            let rogue = rogues[number % rogues.len()];
            directory.deliver(rogue, format!("s{number} 127.0.0.1:1\n"));
        }
    };
    forge(&mut directory);
    assert!(news.take().len() >= 1024);
    // One is from another machine, the other from one of the forger's.
    let honest = [(at("10.0.0.8:9908"), "echo 10.0.0.8:2323"), (peer(), "time 10.0.0.7:2205")];
    for second in 0..6 {
        for (from, line) in honest {
            directory.deliver(from, line);
            let told = news.take();
            let [went, came] = &told[..] else {
                assert!(second > 0 && told.is_empty(), "{told:?}");
                continue;
            };
            assert!(went.starts_with("- s") && *came == format!("+ {line}"), "{told:?}");
        }
        // And they do not have to come again and again.
        forge(&mut directory);
        assert_eq!(news.take(), [""; 0]);
        directory.advance(SECOND);
    }
}

#[test]
fn after_a_sleep_of_the_machine_they_are_asked_before_they_are_given_up() {
    let news = News::default();
    let mut directory = directory(&news);
    for name in ["echo", "time"] {
        directory.deliver(peer(), format!("{name} 127.0.0.1:1\n"));
    }
    directory.sent();
    news.take();
    directory.jump_with(3600 * SECOND, |_| {});
    assert_eq!(directory.sent(), [(Announcer::GROUP, b"?\n".to_vec())]);
    directory.deliver(peer(), "time 127.0.0.1:1\n");
    directory.advance(3 * SECOND);
    directory.deliver(peer(), "time 127.0.0.1:1\n");
    assert_eq!(news.take(), [""; 0]);
    directory.advance(SECOND);
    assert_eq!(news.take(), ["- echo 127.0.0.1:1"]);
}

// ---- The program ----

/// Loopback is all there is: not even a route for multicast.
const LOOPBACK: &str = "true";

fn discover(args: &[&str]) -> Program {
    Program::spawn(Command::new(REACTOR).arg("discover").args(args))
}

/// The next line about this address; on a busy machine others may come and go.
#[track_caller]
fn line_about(program: &Program, address: &str) -> String {
    loop {
        let line = program.line();
        if line.ends_with(address) {
            return line;
        }
    }
}

/// Asks until this is the list: an answer can take longer than was waited for.
#[track_caller]
fn until_listed(args: &[&str], list: &str) {
    let args = [&["discover", "--once"], args].concat();
    until("the list is right", || {
        let (status, stdout, _) = Program::run(&args);
        stdout == list && status == i32::from(list.is_empty())
    });
}

#[test]
fn two_servers_are_found_and_one_that_is_killed_is_forgotten() {
    if !inside(LOOPBACK) {
        return;
    }
    let discover = discover(&[]);
    let first = Program::serve(&["--announce", "echo=0", "time=0"]);
    let (echo, time) = (first.place("echo"), first.place("time"));
    let mut found = BTreeSet::new();
    while found.len() < 2 {
        found.extend(Some(discover.line()).filter(|line| line.starts_with('+')));
    }
    assert_eq!(found, [format!("+ echo {echo}"), format!("+ time {time}")].into());

    let second = Program::serve(&["--announce", "presence=0"]);
    let presence = second.place("presence");
    assert_eq!(line_about(&discover, &presence), format!("+ presence {presence}"));
    until_listed(&[], &format!("echo {echo}\npresence {presence}\ntime {time}\n"));

    // Killed: it says nothing any more, not even that it goes.
    drop(second);
    assert_eq!(line_about(&discover, &presence), format!("- presence {presence}"));
    until_listed(&[], &format!("echo {echo}\ntime {time}\n"));

    first.signal("TERM");
    assert_eq!(first.end().0, 0);
    assert_eq!(line_about(&discover, &echo), format!("- echo {echo}"));
    until_listed(&["--for=10ms"], "");
    discover.signal("INT");
    assert_eq!(discover.end().0, 0);
}

#[test]
fn machines_get_an_object_on_each_line() {
    if !inside(LOOPBACK) {
        return;
    }
    let server = Program::serve(&["--announce", "echo=0"]);
    let echo = server.place("echo");
    let object = serde_json::json!({ "service": "echo", "address": echo });
    until_listed(&["--json"], &format!("{object}\n"));
    let discover = discover(&["--json"]);
    let event = |name| {
        let mut object = object.clone();
        object["event"] = Value::from(name);
        object.to_string()
    };
    assert_eq!(discover.line(), event("came"));
    drop(server);
    assert_eq!(discover.line(), event("went"));
}

#[test]
fn nobody_there_is_an_answer_too() {
    if !inside(LOOPBACK) {
        return;
    }
    // Not announced, or elsewhere.
    let quiet = Program::serve(&["echo=0"]);
    quiet.place("echo");
    let elsewhere = ["--announce", "--announce-group=239.255.23.24:9908", "echo=0"];
    let elsewhere = Program::serve(&elsewhere);
    let place = elsewhere.place("echo");
    for args in [&["discover", "--once"][..], &["discover", "--for=300ms"]] {
        let (status, stdout, stderr) = Program::run(args);
        assert_eq!((status, stdout.as_str()), (1, ""));
        let said = "reactor: nobody announces anything to 239.255.23.23:9908 at 127.0.0.1; ";
        assert!(stderr.starts_with(said) && stderr.lines().count() == 1, "{stderr}");
    }
    until_listed(&["--group", "239.255.23.24:9908"], &format!("echo {place}\n"));
}

#[test]
fn what_others_send_cannot_reach_the_terminal() {
    if !inside(LOOPBACK) {
        return;
    }
    let discover = discover(&[]);
    let rogue = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&rogue).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    let mut told = None;
    until("it has heard", || {
        for bytes in [&b"\xff\0"[..], b"", &[b'x'; 60_000], b"a\x1b]0;b 127.0.0.1:1"] {
            rogue.send_to(bytes, Announcer::GROUP).unwrap();
        }
        told = told.take().or_else(|| discover.try_line());
        told.is_some()
    });
    assert_eq!(told.as_deref(), Some("+ a?]0;b 127.0.0.1:1"));
    discover.signal("TERM");
    let (status, _, stderr) = discover.end();
    assert_eq!((status, stderr.as_str()), (0, ""));
}

#[test]
fn a_true_service_is_listed_beside_a_thousand_forged_ones() {
    if !inside(LOOPBACK) {
        return;
    }
    let discover = discover(&[]);
    let rogue = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket2::SockRef::from(&rogue).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    // Not more at a time than a socket holds, and each of them within three seconds.
    let mut numbers = (0..1024).cycle();
    let mut forge = || {
        for number in numbers.by_ref().take(100) {
            rogue.send_to(format!("s{number} 127.0.0.1:1").as_bytes(), Announcer::GROUP).unwrap();
        }
    };
    let mut listed = 0;
    until("the table is full", || {
        forge();
        listed += std::iter::from_fn(|| discover.try_line()).count();
        listed >= 1024
    });
    let server = Program::serve(&["--announce", "echo=0"]);
    let line = format!("+ echo {}", server.place("echo"));
    until("the true one is listed", || {
        forge();
        std::iter::from_fn(|| discover.try_line()).any(|told| told == line)
    });
}

#[test]
fn when_nobody_reads_it_it_ends() {
    if !inside(LOOPBACK) {
        return;
    }
    let server = Program::serve(&["--announce", "echo=0"]);
    server.place("echo");
    let mut command = Command::new(REACTOR);
    let mut child = command.arg("discover").stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    // The next thing that it has to say.
    drop(server);
    assert!(wait(&mut child).success());
}

/// The exit status was 0 although nobody could have seen the list.
#[test]
#[cfg(target_os = "linux")]
fn a_list_that_cannot_be_written_is_a_failure() {
    if !inside(LOOPBACK) {
        return;
    }
    let server = Program::serve(&["--announce", "echo=0"]);
    until_listed(&[], &format!("echo {}\n", server.place("echo")));
    for args in ["--for=10s", "--once --for=5s"] {
        let script = format!("exec \"$0\" discover {args} > /dev/full");
        let mut command = Command::new("sh");
        let (status, _, stderr) = Program::spawn(command.args(["-c", &script, REACTOR])).end();
        assert_eq!(status, 1);
        assert!(stderr.starts_with("reactor: cannot write the list: "), "{stderr}");
    }
}

#[test]
fn what_cannot_be_announced_or_heard_is_said_in_a_line() {
    if !inside(LOOPBACK) {
        return;
    }
    let folder = Folder::new("unannounced");
    let unix = format!("echo=unix:{}", folder.file("echo.sock").display());
    for (args, status, words) in [
        (&["discover", "--group", "127.0.0.1:9908"][..], 2, "as 239.255.23.23:9908"),
        (&["discover", "--interface", "lo"], 2, "IPv4 address, as 127.0.0.1"),
        (&["discover", "--for", "5"], 2, "add a unit"),
        (&["discover", "--interface", "0.0.0.0"], 1, "name another interface"),
        (&["discover", "--interface", "192.0.2.1"], 1, "no interface with the address 192.0.2.1;"),
        (&["serve", "--announce-group", "239.1.1.1:1"], 2, "--announce"),
        (&["serve", "--announce", &unix], 2, "none of the services"),
        (&["serve", "--announce", "--announce-interface=0.0.0.0", "echo=0"], 2, "see --host"),
        (&["serve", "--announce", "--host=0.0.0.0", "echo=0"], 1, "name another interface"),
    ] {
        let (code, stdout, stderr) = Program::run(args);
        assert_eq!((code, stdout.as_str()), (status, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(words) && stderr.lines().count() == 1, "{args:?}: {stderr}");
    }
}

#[test]
fn a_service_everywhere_is_announced_where_it_can_be_reached() {
    if !inside(LOOPBACK) {
        return;
    }
    let folder = Folder::new("announced");
    let unix = format!("time=unix:{}", folder.file("time.sock").display());
    let args = ["--announce", "--host=0.0.0.0", "--announce-interface=127.0.0.1", "echo=0", &unix];
    let server = Program::serve(&args);
    let port = server.addr("echo").port();
    until_listed(&[], &format!("echo 127.0.0.1:{port}\n"));
    server.wait_for_log("announcing to 239.255.23.23:9908 at 127.0.0.1");
    let missed = server.wait_for_log("not announced");
    assert!(missed.contains("time unix:"), "{missed}");
}
