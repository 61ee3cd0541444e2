//! What the tests of the load tester share: runs of it, and servers that do not do as they should.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use super::program::Program;

pub const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";
pub const SERVICES: [&str; 5] =
    ["echo=0", "presence=0", "time=0", "--time-interval=100ms", "--log=off"];
/// Long enough for some lines even where the machine pauses meanwhile.
const DURATION: &str = "--duration=1s";

pub struct Servers {
    pub program: Program,
    pub echo: String,
    pub presence: String,
    pub time: String,
}

impl Servers {
    pub fn start() -> Servers {
        let program = Program::serve(&SERVICES);
        let [echo, presence, time] = ["echo", "presence", "time"].map(|name| program.place(name));
        Servers { program, echo, presence, time }
    }
}

/// Its exit status, stdout and stderr.
pub fn load(target: &str, args: &[&str]) -> (i32, String, String) {
    Program::run(&[&["load", target], args].concat())
}

/// The result as JSON, the exit status, and stderr.
#[track_caller]
pub fn json(target: &str, args: &[&str]) -> (Value, i32, String) {
    let (status, stdout, stderr) = load(target, &[args, &["--json"]].concat());
    let value = serde_json::from_str(&stdout);
    (value.unwrap_or_else(|error| panic!("{error}: {stdout:?} {stderr:?}")), status, stderr)
}

/// A run without a fault.
#[track_caller]
pub fn clean(target: &str, clients: u64, args: &[&str]) -> Value {
    let clients_text = clients.to_string();
    let args = [args, &[DURATION, "--clients", &clients_text]].concat();
    let (result, status, stderr) = json(target, &args);
    assert_eq!((status, stderr.as_str()), (0, ""), "{result}");
    assert_eq!(result["errors"], 0, "{result}");
    assert_eq!(result["errors_by_kind"], serde_json::json!({}));
    assert_eq!((&result["clients"], &result["connected"]), (&clients.into(), &clients.into()));
    assert_eq!(result["interrupted"], false);
    let elapsed = result["elapsed_s"].as_f64().unwrap();
    assert!((0.2..30.0).contains(&elapsed), "{result}");
    result
}

pub fn number(result: &Value, name: &str) -> f64 {
    result[name].as_f64().unwrap_or_else(|| panic!("{name} is no number in {result}"))
}

/// That the latencies are in order, and how many there are.
#[track_caller]
pub fn latencies(result: &Value) -> u64 {
    let latency = &result["latency_us"];
    let values = ["min", "p50", "p90", "p99", "p99_9", "max"].map(|name| number(latency, name));
    assert!(values.is_sorted() && values[5] > 0.0, "{result}");
    latency["count"].as_u64().unwrap()
}

/// A server that does this with every connection.
pub fn server(handle: impl Fn(TcpStream) + Send + Clone + 'static) -> String {
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
pub fn spoilt(reply: impl Fn(u32, String) -> Option<String> + Send + Clone + 'static) -> String {
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
pub fn faulty(target: &str, args: &[&str]) -> Value {
    let (result, status, stderr) = json(target, &[args, &[DURATION]].concat());
    assert_eq!(status, 1, "{result}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("reactor: "), "{stderr}");
    let kinds = result["errors_by_kind"].clone();
    let sum: u64 = kinds.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(result["errors"], sum, "{result}");
    kinds
}
