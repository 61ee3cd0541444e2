//! `reactor load` against `reactor serve`, and against servers that do not do as they should.

#[path = "util/namespace.rs"]
mod namespace;
#[path = "util/program.rs"]
mod program;
mod util;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::channel;

use namespace::inside;
use program::{Folder, Program, REACTOR};
use serde_json::Value;
use util::Client;

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";
const SERVICES: [&str; 5] = ["echo=0", "presence=0", "time=0", "--time-interval=20ms", "--log=off"];

struct Servers {
    program: Program,
    echo: String,
    presence: String,
    time: String,
}

impl Servers {
    fn start() -> Servers {
        let program = Program::serve(&SERVICES);
        let [echo, presence, time] = ["echo", "presence", "time"].map(|name| program.place(name));
        Servers { program, echo, presence, time }
    }
}

fn load(target: &str, args: &[&str]) -> (i32, String, String) {
    Program::run(&[&["load", target], args].concat())
}

/// The result as JSON, the exit status, and stderr.
#[track_caller]
fn json(target: &str, args: &[&str]) -> (Value, i32, String) {
    let (status, stdout, stderr) = load(target, &[args, &["--json"]].concat());
    let value = serde_json::from_str(&stdout);
    (value.unwrap_or_else(|error| panic!("{error}: {stdout:?} {stderr:?}")), status, stderr)
}

/// A run without a fault.
#[track_caller]
fn clean(target: &str, clients: u64, args: &[&str]) -> Value {
    let clients_text = clients.to_string();
    let args = [args, &["--duration=300ms", "--clients", &clients_text]].concat();
    let (result, status, stderr) = json(target, &args);
    assert_eq!((status, stderr.as_str()), (0, ""), "{result}");
    assert_eq!(result["errors"], 0, "{result}");
    assert_eq!(result["errors_by_kind"], serde_json::json!({}));
    assert_eq!((&result["clients"], &result["connected"]), (&clients.into(), &clients.into()));
    assert_eq!(result["interrupted"], false);
    let elapsed = result["elapsed_s"].as_f64().unwrap();
    assert!((0.2..10.0).contains(&elapsed), "{result}");
    result
}

fn number(result: &Value, name: &str) -> f64 {
    result[name].as_f64().unwrap_or_else(|| panic!("{name} is no number in {result}"))
}

/// That the latencies are in order, and how many there are.
#[track_caller]
fn latencies(result: &Value) -> u64 {
    let latency = &result["latency_us"];
    let values = ["min", "p50", "p90", "p99", "p99_9", "max"].map(|name| number(latency, name));
    assert!(values.is_sorted() && values[5] > 0.0, "{result}");
    latency["count"].as_u64().unwrap()
}

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
    // The goodbyes are sent too.
    let sent = number(&result, "bytes_sent_per_s") / rate;
    assert!((100.0..110.0).contains(&sent), "{result}");
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
    let lines = result["lines"].as_u64().unwrap();
    assert!((1..=70).contains(&lines), "{result}");
    assert_eq!(result["rate_per_s"], 200.0);
    let result = clean(&servers.presence, 4, &["--mode=presence", "--rate=100/s"]);
    assert!((1..=40).contains(&result["messages"].as_u64().unwrap()), "{result}");
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
    assert_eq!(latencies(&result), 4 * 14);
    let interval = number(&result, "interval_us");
    assert!((10_000.0..100_000.0).contains(&interval), "{result}");

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

#[test]
fn a_signal_ends_it_with_the_result_so_far() {
    let (tell, told) = channel();
    let place = spoilt(move |_, right| {
        let _ = tell.send(());
        Some(right)
    });
    let args = ["load", &place, "--duration=1h", "--json", "--clients=2"];
    let running = Program::spawn(Command::new(REACTOR).args(args));
    told.recv_timeout(util::PATIENCE).unwrap();
    running.signal("INT");
    let (status, stdout, stderr) = running.end();
    let result: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((status, stderr.as_str()), (0, ""), "{result}");
    assert_eq!((&result["interrupted"], &result["errors"]), (&true.into(), &0.into()));
}

// ---- Against others ----

/// A server that does this with every connection.
fn server(handle: impl Fn(TcpStream) + Send + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = handle.clone();
            std::thread::spawn(move || handle(stream));
        }
    });
    place
}

/// An echo server in which `reply` may spoil the reply to line n of a connection; none closes it.
fn spoilt(reply: impl Fn(u32, String) -> Option<String> + Send + Clone + 'static) -> String {
    server(move |mut stream| {
        let _ = stream.write_all(GREETING.as_bytes());
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        for (number, line) in lines.map_while(Result::ok).enumerate() {
            let right = format!("> {}\n", line.to_uppercase());
            let Some(reply) = reply(number as u32, right) else { return };
            if stream.write_all(reply.as_bytes()).is_err() || line == "BYE" {
                return;
            }
        }
    })
}

/// A run with faults: what kinds, and how many of each.
#[track_caller]
fn faulty(target: &str, args: &[&str]) -> Value {
    let (result, status, stderr) = json(target, &[args, &["--duration=300ms"]].concat());
    assert_eq!(status, 1, "{result}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("reactor: "), "{stderr}");
    let kinds = result["errors_by_kind"].clone();
    let sum: u64 = kinds.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(result["errors"], sum, "{result}");
    kinds
}

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
    let kinds = faulty(&place, &["--clients=2"]);
    assert_eq!(kinds, serde_json::json!({ "missing_reply": 2 }));
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

#[test]
fn a_guest_in_the_room_is_noticed() {
    let servers = Servers::start();
    let mut guest = Client::connect(servers.presence.parse().unwrap());
    let place = servers.presence.clone();
    // Not so fast that the guest, who does not read on, is closed as a slow consumer.
    let args = ["--mode=presence", "--clients=3", "--duration=1s", "--rate=100/s"];
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
    let (result, status, _) = json(&place, &["--clients=5", "--duration=300ms"]);
    assert_eq!((status, &result["connected"]), (1, &3.into()), "{result}");
    assert_eq!(result["errors_by_kind"], serde_json::json!({ "wrong_greeting": 2 }));
    assert!(result["first_wrong"].as_str().unwrap().starts_with("Too many connections"));
    assert!(result["lines"].as_u64().unwrap() > 0);
}

// ---- What cannot be done ----

#[test]
fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    drop(listener);
    for mode in ["echo", "churn", "time"] {
        let (status, stdout, stderr) = load(&place, &["--mode", mode, "--clients=1000"]);
        let said = format!("reactor: cannot connect to {place}: nobody listens there\n");
        assert_eq!((status, stdout.as_str(), stderr.as_str()), (1, "", said.as_str()));
    }
    let (status, _, stderr) = load("unix:/nowhere/at/all", &[]);
    assert_eq!((status, stderr.lines().count()), (1, 1), "{stderr}");
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
        (&["load", "2323", "--clients", "0"], "above 0"),
        (&["load", "2323", "--depth", "3"], "--depth goes with"),
        (&["load", "nowhere"], "HOST:PORT"),
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
}
