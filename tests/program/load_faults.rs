//! `reactor load` against servers that do not do as they should: what is wrong is counted by kind,
//! and it ends by itself.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::mpsc::channel;

use serde_json::Value;

use crate::util::load::{GREETING, Servers, faulty, json, load, server, spoilt};
use crate::util::program::{Program, REACTOR};
use crate::util::{self, Client};

#[test]
fn garbage_instead_of_a_greeting() {
    let place = server(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = stream.read(&mut [0; 100]);
    });
    assert_eq!(faulty(&place, &["--clients=3"]), serde_json::json!({ "wrong_greeting": 3 }));
    let (_, stdout, stderr) = load(&place, &["--clients=3", "--duration=300ms"]);
    assert!(stderr.contains("does not greet as the echo service does"), "{stderr}");
    assert!(stdout.contains("wrong      \"HTTP/1.1 400 Bad Request\\r\\n"), "{stdout}");
}

#[test]
fn what_does_not_greet_at_all() {
    let place = server(|mut stream| {
        let _ = stream.read(&mut [0; 100]);
    });
    let args = ["load", &place, "--duration=1h", "--clients=2"];
    let (status, stdout, stderr) = Program::run(&args);
    assert!(status == 1 && stdout.contains("2 no greeting"), "{stdout}");
    assert!(stderr.contains("does not greet as the echo service does"), "{stderr}");
}

/// Nobody had been greeted, and all was well.
#[test]
fn a_signal_before_anybody_is_greeted() {
    let (tell, told) = channel();
    let place = server(move |mut stream| {
        let _ = tell.send(());
        let _ = stream.read(&mut [0; 100]);
    });
    let args = ["load", &place, "--duration=1h", "--clients=2"];
    let running = Program::spawn(Command::new(REACTOR).args(args));
    told.recv_timeout(util::PATIENCE).unwrap();
    running.signal("INT");
    let (status, stdout, stderr) = running.end();
    assert!(status == 1 && stdout.contains("0 of 2 connected"), "{stdout}");
    assert_eq!(stderr, format!("reactor: ended before {place} has greeted anybody\n"));
}

/// It waited for ever, and drew the rhythm of lines that are no times.
#[test]
fn a_service_that_is_no_clock() {
    let servers = Servers::start();
    let (result, status, _) = json(&servers.echo, &["--mode=time", "--clients=2"]);
    assert_eq!((status, &result["interval_us"]), (1, &Value::Null), "{result}");
    assert_eq!(result["errors_by_kind"], serde_json::json!({ "wrong_reply": 2 }));
}

#[test]
#[cfg(target_os = "linux")]
fn a_server_that_is_killed() {
    let servers = Servers::start();
    let mut guest = Client::connect(servers.presence.parse().unwrap());
    let (place, pid) = (servers.presence.clone(), servers.program.pid().to_string());
    let running = std::thread::spawn(move || {
        let args = ["--mode=presence", "--clients=3", "--duration=1h", "--rate=100/s"];
        load(&place, &[&args[..], &["--server-pid", &pid]].concat())
    });
    while !guest.line().contains(" says: ") {}
    drop(servers);
    let (status, stdout, stderr) = running.join().unwrap();
    assert_eq!((status, stderr.lines().count()), (1, 1), "{stderr}");
    assert!(stdout.contains("3 of 3 connected"), "{stdout}");
    assert!(stdout.contains(" closed early") || stdout.contains(" connection lost"), "{stdout}");
    assert!(stdout.contains("server     its process is gone"), "{stdout}");
}

#[test]
fn one_wrong_reply_among_many() {
    let wrong = |number, right: String| {
        Some(if number == 5 { right.replace("QUICK", "quick") } else { right })
    };
    let kinds = faulty(&spoilt(wrong), &["--clients=2"]);
    assert_eq!(kinds, serde_json::json!({ "wrong_reply": 2 }));
}

#[test]
fn replies_that_are_swapped_or_short_or_too_many() {
    let place = spoilt(|number, right| match number {
        5 => Some(String::new()),
        6 => Some(right.clone() + &right.replace("00000006", "00000005")),
        _ => Some(right),
    });
    let kinds = faulty(&place, &["--clients=1", "--mode=pipeline", "--depth=4"]);
    assert_eq!(kinds, serde_json::json!({ "wrong_reply": 2 }));

    let place = spoilt(|number, right| if number == 3 { Some("> \n".into()) } else { Some(right) });
    let kinds = faulty(&place, &["--clients=1"]);
    assert_eq!(kinds, serde_json::json!({ "wrong_reply": 1 }));

    let place = spoilt(|number, right| if number == 3 { Some(right + "x") } else { Some(right) });
    let kinds = faulty(&place, &["--clients=1"]);
    assert!(kinds["unexpected_data"] == 1 || kinds["wrong_reply"] == 1, "{kinds}");
}

#[test]
fn a_server_that_closes_early() {
    let kinds = faulty(&spoilt(|number, right| (number < 3).then_some(right)), &["--clients=4"]);
    assert_eq!(kinds["missing_reply"], 4, "{kinds}");
    let closed = kinds["closed_early"].as_u64().unwrap_or(0);
    let lost = kinds["connection_lost"].as_u64().unwrap_or(0);
    assert_eq!(closed + lost, 4, "{kinds}");

    let kinds = faulty(&server(drop), &["--clients=4"]);
    assert_eq!(kinds, serde_json::json!({ "no_greeting": 4 }));
    // All of them are closed, some sooner than others.
    let place = server(|mut stream| drop(stream.write_all(GREETING.as_bytes())));
    let kinds = faulty(&place, &["--clients=4", "--mode=idle"]);
    assert!(kinds["closed_early"].as_u64().is_some_and(|count| count > 0), "{kinds}");
}

#[test]
fn a_reply_that_never_comes() {
    let place = spoilt(|number, right| Some(if number >= 3 { String::new() } else { right }));
    let (result, status, _) = json(&place, &["--clients=2", "--rate=100/s", "--duration=1s"]);
    assert_eq!(status, 1, "{result}");
    assert_eq!(result["errors_by_kind"], serde_json::json!({ "missing_reply": 2 }));
    let (lines, unsent) = (result["lines"].as_u64().unwrap(), result["unsent"].as_u64().unwrap());
    let latency = &result["latency_us"];
    assert!(unsent > 50 && latency["count"] == lines + unsent + 2, "{result}");
    assert!(latency["p50"].as_f64() > Some(400_000.0), "{result}");
    assert!(latency["max"].as_f64() > Some(5_000_000.0), "{result}");
}

/// A server that never came to the end of its first line was without fault.
#[test]
fn a_first_line_that_never_ends() {
    let place = server(|mut stream| {
        let _ = stream.write_all(b"{'time'");
        let _ = stream.read(&mut [0; 100]);
    });
    let kinds = faulty(&place, &["--mode=time", "--clients=3"]);
    assert_eq!(kinds, serde_json::json!({ "missing_reply": 3 }));
}

#[test]
fn clients_that_get_different_numbers_of_lines() {
    let place = server(|mut stream| {
        let few = stream.peer_addr().unwrap().port() % 2;
        for _ in 0..3 + few {
            let _ = stream.write_all(b"{'time' : 'Sat Nov 21 19:10:00 UTC 2026'}\n");
        }
    });
    // Enough that both parities are among them.
    let (result, status, _) = json(&place, &["--mode=time", "--clients=64"]);
    if status == 1 {
        assert!(result["errors_by_kind"]["wrong_line_count"].as_u64() > Some(0), "{result}");
    } else {
        assert!(matches!(result["lines"].as_u64(), Some(192 | 256)), "{result}");
    }

    let place = server(|mut stream| drop(stream.write_all(b"{'time' : 'soon'}\n")));
    let kinds = faulty(&place, &["--mode=time", "--clients=2"]);
    assert_eq!(kinds, serde_json::json!({ "wrong_reply": 2 }));
}

/// An hour later there is no time any more: it panicked.
#[test]
fn a_clock_at_the_end_of_time() {
    let place = server(|mut stream| {
        for _ in 0..2 {
            let _ = stream.write_all(b"{'time' : 'Fri Dec 31 23:30:00 UTC 9999'}\n");
        }
    });
    let (result, status, stderr) = json(&place, &["--mode=time", "--clients=1"]);
    assert_eq!((status, &result["lines"], stderr.as_str()), (0, &2.into(), ""), "{result}");
}

#[test]
fn a_guest_in_the_room_is_noticed() {
    let servers = Servers::start();
    let mut guest = Client::connect(servers.presence.parse().unwrap());
    let place = servers.presence.clone();
    // Not so fast that the guest, who does not read on, is closed as a slow consumer.
    let args = ["--mode=presence", "--clients=3", "--duration=5s", "--rate=100/s"];
    let running = std::thread::spawn(move || json(&place, &args));
    while !guest.line().contains(" says: ") {}
    guest.send("SAY boo\n");
    let (result, status, _) = running.join().unwrap();
    assert_eq!(status, 1, "{result}");
    assert_eq!(result["errors_by_kind"], serde_json::json!({ "wrong_reply": 3 }));
    assert_eq!(result["first_wrong"], "An anonymous user says: boo\\n");
}

#[test]
fn a_full_server_says_so() {
    let program = Program::serve(&["echo=0", "--max-connections=3", "--log=off"]);
    let place = program.place("echo");
    let (result, status, _) = json(&place, &["--clients=5", "--duration=1s"]);
    assert_eq!((status, &result["connected"]), (1, &3.into()), "{result}");
    assert_eq!(result["errors_by_kind"], serde_json::json!({ "wrong_greeting": 2 }));
    assert!(result["first_wrong"].as_str().unwrap().starts_with("Too many connections"));
    assert!(result["lines"].as_u64().unwrap() > 0);
}
