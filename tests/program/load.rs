//! `reactor load` against `reactor serve`, and what cannot be done.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;

use serde_json::Value;

use crate::util;
use crate::util::folder::Folder;
use crate::util::load::{Servers, clean, json, latencies, load, number, spoilt};
use crate::util::namespace::inside;
use crate::util::program::{Program, REACTOR, Running, terminal, wait};

// ---- Against a server that does as it should ----

#[test]
fn echo_counts_every_line() {
    let servers = Servers::start();
    let result = clean(&servers.echo, 5, &["--size=100"]);
    let lines = result["lines"].as_u64().unwrap();
    assert!(lines > 0);
    assert_eq!((latencies(&result), &result["connections"]), (lines, &5.into()));
    let rate = lines as f64 / number(&result, "elapsed_s");
    assert!((number(&result, "lines_per_s") / rate - 1.0).abs() < 0.01, "{result}");
    // Each with its LF, each reply with its "> ", and nothing else.
    for (name, each) in [("bytes_sent_per_s", 100.0), ("bytes_received_per_s", 102.0)] {
        assert!((number(&result, name) / rate - each).abs() < 0.01, "{result}");
    }
}

#[test]
fn pipeline_keeps_many_in_flight() {
    let servers = Servers::start();
    let result = clean(&servers.echo, 3, &["--mode=pipeline", "--depth=64"]);
    let lines = result["lines"].as_u64().unwrap();
    assert!(lines >= 3 * 64, "{result}");
    assert_eq!(latencies(&result), lines);
    // Longer than what is read at once.
    let result = clean(&servers.echo, 2, &["--mode=pipeline", "--depth=20", "--size=60000"]);
    assert!(result["lines"].as_u64().unwrap() >= 40, "{result}");
}

#[test]
fn a_rate_is_kept() {
    let servers = Servers::start();
    let result = clean(&servers.echo, 4, &["--rate=200/s"]);
    let kept = |result: &Value, what: &str, rate: f64| {
        let most = rate * number(result, "elapsed_s") + 10.0;
        (1.0..=most).contains(&number(result, what))
    };
    assert!(kept(&result, "lines", 200.0), "{result}");
    assert_eq!(result["rate_per_s"], 200.0);
    let result = clean(&servers.presence, 4, &["--mode=presence", "--rate=100/s"]);
    assert!(kept(&result, "messages", 100.0), "{result}");
}

#[test]
fn idle_holds_the_connections() {
    let servers = Servers::start();
    let pid = servers.program.pid().to_string();
    let result = clean(&servers.echo, 20, &["--mode=idle", "--server-pid", &pid]);
    assert_eq!((&result["lines"], &result["latency_us"]), (&0.into(), &Value::Null));
    if cfg!(target_os = "linux") {
        let server = &result["server"];
        assert!(number(server, "rss_before_bytes") > 0.0, "{result}");
        assert!(number(server, "rss_connected_bytes") > 0.0, "{result}");
        assert!(server["rss_bytes_per_client"].is_number(), "{result}");
        assert_eq!(server["cpu_us_per_line"], Value::Null);
    }
}

#[test]
fn churn_connects_again_and_again() {
    let servers = Servers::start();
    let result = clean(&servers.echo, 3, &["--mode=churn"]);
    let connections = result["connections"].as_u64().unwrap();
    assert!(connections > 3, "{result}");
    assert_eq!(result["lines"], connections);
    assert_eq!(latencies(&result), connections);
}

#[test]
fn presence_counts_who_has_heard_what() {
    let servers = Servers::start();
    for depth in ["--depth=1", "--depth=16"] {
        let result = clean(&servers.presence, 10, &["--mode=presence", depth]);
        let messages = result["messages"].as_u64().unwrap();
        assert!(messages > 0, "{result}");
        assert_eq!(result["lines"], 10 * messages);
        assert_eq!(latencies(&result), messages);
    }
}

#[test]
fn time_listens_until_the_server_closes() {
    let servers = Servers::start();
    let (result, status, _) = json(&servers.time, &["--mode=time", "--clients=4"]);
    assert_eq!((status, &result["errors"]), (0, &0.into()), "{result}");
    assert_eq!((&result["connected"], &result["lines"]), (&4.into(), &60.into()));
    assert_eq!(result["lines_each"], 15);
    assert_eq!(latencies(&result), 4 * 14);
    let interval = number(&result, "interval_us");
    assert!((30_000.0..1_000_000.0).contains(&interval), "{result}");

    let endless = Program::serve(&["time=0", "--time-interval=10ms", "--time-count=0"]);
    let result = clean(&endless.place("time"), 2, &["--mode=time"]);
    assert!(result["lines"].as_u64().unwrap() > 2, "{result}");
}

#[test]
fn a_unix_socket_and_a_ramp() {
    let folder = Folder::new("load");
    let place = format!("unix:{}", folder.file("echo.sock").display());
    let servers = Program::serve(&[&format!("echo={place}")]);
    assert_eq!(servers.place("echo"), place);
    let result = clean(&place, 11, &["--ramp=100/s"]);
    assert!(number(&result, "connect_s") >= 0.09, "{result}");
}

#[test]
fn where_an_address_has_no_port_left_the_next_ones_are_used() {
    // Twenty ports for each source address.
    if !inside("echo 40000 40019 > /proc/sys/net/ipv4/ip_local_port_range") {
        return;
    }
    let program = Program::serve(&["echo=2323"]);
    let place = program.addr("echo");
    let mut others = Vec::new();
    let full = loop {
        match TcpStream::connect(place) {
            Ok(stream) => others.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!((others.len(), full.kind()), (20, ErrorKind::AddrNotAvailable));
    // Few enough for one address, if nobody else used it.
    let place = place.to_string();
    clean(&place, 15, &[]);
    clean(&place, 15, &["--mode=churn"]);
    // More than two addresses have: by turns from the beginning, and one of them is full.
    clean(&place, 50, &["--mode=idle"]);
}

#[test]
fn people_get_a_table_and_a_drawing() {
    let servers = Servers::start();
    let folder = Folder::new("svg");
    let svg = folder.file("latency.svg");
    let svg_text = svg.display().to_string();
    let (status, stdout, stderr) =
        load(&servers.echo, &["--duration=200ms", "--clients=2", "--svg", &svg_text]);
    assert_eq!((status, stderr.as_str()), (0, ""), "{stdout}");
    let names = ["echo to", "clients ", "lines ", "bytes ", "latency ", "errors     none"];
    for name in names {
        assert!(stdout.lines().any(|line| line.starts_with(name)), "{name} is not in {stdout}");
    }
    assert!(stdout.contains("2 of 2 connected") && stdout.contains("p99.9 "), "{stdout}");
    assert!(std::fs::read_to_string(&svg).unwrap().starts_with("<svg"));
}

/// A drawing of an earlier run was emptied although there was nothing to draw.
#[test]
fn a_drawing_is_only_replaced_by_another() {
    let folder = Folder::new("old-svg");
    let svg = folder.file("latency.svg");
    std::fs::write(&svg, "old").unwrap();
    let (status, _, _) = load("1", &["--svg", &svg.display().to_string()]);
    assert_eq!((status, std::fs::read(&svg).unwrap()), (1, b"old".into()));
}

/// The exit status was 0 although nobody could have seen the result.
#[test]
#[cfg(target_os = "linux")]
fn a_result_that_cannot_be_written_is_a_failure() {
    let servers = Servers::start();
    let script = "exec \"$0\" load \"$1\" --duration 100ms --clients 1 > /dev/full";
    let args = ["-c", script, REACTOR, &servers.echo];
    let (status, _, stderr) = Program::spawn(Command::new("sh").args(args)).end();
    assert_eq!(status, 1);
    assert!(stderr.starts_with("reactor: cannot write the result: "), "{stderr}");
}

#[test]
fn a_signal_ends_it_with_the_result_so_far() {
    for more in ["--threads=1", "--threads=2"] {
        let (tell, told) = channel();
        let place = spoilt(move |_, right| {
            let _ = tell.send(());
            Some(right)
        });
        let args = ["load", &place, "--duration=1h", "--json", "--clients=2", more];
        let running = Program::spawn(Command::new(REACTOR).args(args));
        told.recv_timeout(util::PATIENCE).unwrap();
        running.signal("INT");
        let (status, stdout, stderr) = running.end();
        let result: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((status, stderr.as_str()), (0, ""), "{result}");
        assert_eq!((&result["interrupted"], &result["errors"]), (&true.into(), &0.into()));
    }
}

/// How it stands is shown on a terminal only, second by second.
#[test]
#[cfg(target_os = "linux")]
fn a_terminal_sees_how_it_stands() {
    let servers = Servers::start();
    let (mut screen, terminal) = terminal();
    let mut command = Command::new(REACTOR);
    command.args(["load", &servers.echo, "--duration=2500ms", "--clients=4", "--threads=2"]);
    let child = command.stdout(Stdio::null()).stderr(terminal).spawn().unwrap();
    drop(command);
    let mut child = Running(child);
    let mut seen = Vec::new();
    // Its end is an error once nobody has the other side open.
    let _ = std::io::Read::read_to_end(&mut screen, &mut seen);
    assert!(wait(&mut child.0).success());
    let seen = String::from_utf8_lossy(&seen);
    for words in [" lines/s  p50 ", "  p99 ", "  0 errors"] {
        assert!(seen.contains(words), "{words} is not in {seen:?}");
    }
}

// ---- What cannot be done ----

#[test]
fn nobody_listens() {
    let place = util::nobody().to_string();
    for mode in ["echo", "churn", "time"] {
        let (status, stdout, stderr) = load(&place, &["--mode", mode, "--clients=1000"]);
        let said = format!("reactor: cannot connect to {place}: nobody listens there\n");
        assert_eq!((status, stdout.as_str(), stderr.as_str()), (1, "", said.as_str()));
    }
    let (status, _, stderr) = load("unix:/nowhere/at/all", &[]);
    let said = "reactor: cannot connect to unix:/nowhere/at/all: there is no such socket\n";
    assert_eq!((status, stderr.as_str()), (1, said));
    let (status, _, stderr) = load(&format!("unix:/{}", "x".repeat(124)), &[]);
    assert!(status == 1 && stderr.contains("a path of 125 bytes is too long"), "{stderr}");
}

#[test]
fn more_clients_than_descriptors() {
    let script = "ulimit -n 100 && exec \"$0\" load 1 --clients 100";
    let program = Program::spawn(Command::new("sh").arg("-c").arg(script).arg(REACTOR));
    let (status, _, stderr) = program.end();
    assert_eq!(status, 1);
    assert!(stderr.contains("--clients 84 or less"), "{stderr}");
}

#[test]
fn what_is_wrong_on_the_command_line() {
    for (args, words) in [
        (&["load"][..], "ADDR"),
        (&["load", "2323", "--mode", "loud"], "possible values"),
        (&["load", "2323", "--clients", "0"], "above 0; see reactor load --help"),
        (&["load", "2323", "--depth", "3"], "--depth goes with"),
        (&["load", "nowhere"], "write nowhere:PORT"),
        (&["load", "http://127.0.0.1/"], "write 127.0.0.1:80"),
    ] {
        let (status, stdout, stderr) = Program::run(args);
        assert_eq!((status, stdout.as_str()), (2, ""), "{args:?}");
        assert!(stderr.contains(words) && stderr.lines().count() == 1, "{args:?}: {stderr}");
    }
    let (status, _, stderr) = load("1", &["--svg", "/nowhere/at/all.svg"]);
    assert!(status == 1 && stderr.contains("--svg /nowhere/at/all.svg: "), "{stderr}");
    if cfg!(target_os = "linux") {
        let (status, _, stderr) = load("1", &["--server-pid", "4294967295"]);
        assert!(status == 1 && stderr.contains("no such process"), "{stderr}");
    }
}

#[test]
fn the_help_tells_units_and_defaults() {
    let (status, stdout, _) = Program::run(&["load", "--help"]);
    assert_eq!(status, 0);
    for words in ["[default: 50]", "[default: 32]", "[default: 10s;", "N/s", "latency_us"] {
        assert!(stdout.contains(words), "{words} is not in {stdout}");
    }
    for short in
        ["-c, --clients", "-d, --duration", "-n, --requests", "-q, --rate", "-t, --threads"]
    {
        assert!(stdout.contains(short), "{short} is not in {stdout}");
    }
}
