//! `--log trace`: what each turn of the loop did.

use crate::util::Client;
use crate::util::namespace::inside;
use crate::util::program::Program;

/// The part of a line of the log between the number of the turn and how long the loop slept.
fn story(line: &str) -> &str {
    let (number, rest) = line.split_once("turn ").unwrap().1.split_once(": ").unwrap();
    assert!(number.parse::<u64>().is_ok(), "{line}");
    let (story, slept) = rest.rsplit_once("; ").unwrap();
    let how_long = slept.strip_prefix("slept ").map(|time| time.split_once(' ').unwrap());
    let known = how_long.is_some_and(|(number, unit)| {
        number.parse::<f64>().is_ok() && ["µs", "ms", "s"].contains(&unit)
    });
    assert!(known || slept == "did not sleep", "{line}");
    story
}

#[test]
fn a_turn_says_for_whom_it_did_what() {
    let program = Program::serve(&["echo=127.0.0.1:0", "--no-admin", "--log", "trace"]);
    let mut client = Client::connect(program.addr("echo"));
    let line = program.wait_for_log("turn ");
    assert_eq!(story(&line), "#1 accepted by echo, wrote 85 B");
    client.send("hello\nyou\n");
    let line = program.wait_for_log("turn ");
    assert_eq!(story(&line), "#1 readable, read 10 B, 2 lines, wrote 14 B");
    client.send("bye\n");
    let line = program.wait_for_log("turn ");
    let story = story(&line);
    assert_eq!(story, "#1 readable, read 4 B, 1 line, wrote 6 B, closed: closed by the handler");
    program.signal("TERM");
    // The signal is an event, too, and of no connection.
    let (status, _, log) = program.end();
    assert_eq!(status, 0, "{log}");
    assert!(!log.contains("[mio"), "{log}");
}

#[test]
fn a_timer_is_told_of() {
    let args = ["time=127.0.0.1:0", "--no-admin", "--log", "trace", "--time-interval", "20ms"];
    let program = Program::serve(&args);
    let client = Client::connect(program.addr("time"));
    let line = program.wait_for_log("timer");
    assert!(story(&line).ends_with(" timer, wrote 42 B"), "{line}");
    drop(client);
}

#[test]
#[cfg(target_os = "linux")]
fn datagrams_are_told_of_service_by_service() {
    // What is announced comes back by way of the group.
    if !inside("true") {
        return;
    }
    let program = Program::serve(&["echo=0", "--announce", "--no-admin", "--log", "trace"]);
    program.wait_for_log("announce sent 1 datagram");
    let line = program.wait_for_log("announce got");
    assert_eq!(story(&line), "announce got 1 datagram");
}

#[test]
fn at_debug_no_turn_is_told_of() {
    let program = Program::serve(&["echo=127.0.0.1:0", "--no-admin", "--log", "debug"]);
    let mut client = Client::connect(program.addr("echo"));
    client.send("bye\n");
    client.rest();
    program.signal("TERM");
    let (_, _, log) = program.end();
    assert!(log.contains(" is here") && !log.contains("turn "), "{log}");
}
