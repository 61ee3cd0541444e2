//! Real clients: what people type into nc and telnet, and what they read there. And a real server,
//! for a client of ours.
//!
//! Where one of them is not installed its tests say so and are [skipped](util::skip).

#[path = "../util/mod.rs"]
mod util;

mod balancers;
mod browser;
#[cfg(feature = "tls")]
mod certificates;
mod judged;
mod load;
mod metrics;
mod web;
mod websocket;

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use util::program::{Program, lines_of, wait};
#[cfg(target_os = "linux")]
use util::program::{Running, terminal};
#[cfg(feature = "tls")]
use util::tls;
use util::{PATIENCE, example};

const GREETING: [&str; 2] =
    ["Welcome to the Reactor Server.", "Send me text lines and conclude with the BYE command."];

/// Whether a program is there and says this of itself.
fn installed(name: &str, option: &str, words: &str) -> bool {
    let said = Command::new(name).arg(option).stdin(Stdio::null()).output();
    let found = said.is_ok_and(|out| {
        let text = [out.stdout, out.stderr].concat();
        String::from_utf8_lossy(&text).contains(words)
    });
    if !found {
        util::skip(&format!("{name} ({words}) is not installed"));
    }
    found
}

/// Where nginx of Debian has its module for streams.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

fn stream_module() -> bool {
    let found = std::path::Path::new(STREAM_MODULE).exists();
    if !found {
        util::skip("nginx has no module for streams");
    }
    found
}

fn nc() -> bool {
    installed("nc", "-h", "OpenBSD")
}

/// A client process, killed when dropped.
struct Tool {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
}

impl Tool {
    fn start(program: &str, options: &[&str], addr: SocketAddr) -> Tool {
        let mut child = Command::new(program)
            .args(options)
            .args([addr.ip().to_string(), addr.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = lines_of(child.stdout.take().unwrap());
        Tool { child, stdin, stdout }
    }

    fn send(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Ends its input, as Ctrl-D does.
    fn end(&mut self) {
        self.stdin = None;
    }

    #[track_caller]
    fn line(&self) -> String {
        // It may have to do with half a million lines before.
        self.stdout.recv_timeout(4 * PATIENCE).expect("no line")
    }

    #[track_caller]
    fn expect(&self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.line(), *line);
        }
    }

    /// It prints no more and ends by itself.
    #[track_caller]
    fn expect_end(mut self) {
        assert_eq!(self.stdout.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
        wait(&mut self.child);
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn nc_talks_to_echo_until_bye() {
    if !nc() {
        return;
    }
    let program = Program::serve(&["echo=0"]);
    let mut nc = Tool::start("nc", &[], program.addr("echo"));
    nc.expect(&GREETING);
    nc.send("hello, été\n");
    nc.expect(&["> HELLO, ÉTÉ"]);
    nc.send("\nBye\n");
    nc.expect(&["> ", "> BYE"]);
    nc.end();
    nc.expect_end();
}

#[cfg(feature = "tls")]
#[test]
fn openssl_talks_to_echo_until_bye_and_checks_the_certificate() {
    if !installed("openssl", "version", "OpenSSL") {
        return;
    }
    for version in ["-tls1_3", "-tls1_2"] {
        let pem = tls::Pem::new(version);
        let [cert, key] = pem.options();
        let program = Program::serve(&["echo=tls:0", &cert, &key]);
        let place = program.place("echo");
        let trusted = pem.cert().display().to_string();
        let mut openssl = Command::new("openssl")
            .args(["s_client", "-quiet", version, "-verify_return_error", "-CAfile", &trusted])
            .args(["-verify_hostname", "localhost", "-connect", place.trim_start_matches("tls:")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = openssl.stdin.take();
        let stdout = lines_of(openssl.stdout.take().unwrap());
        let mut openssl = Tool { child: openssl, stdin, stdout };
        openssl.expect(&GREETING);
        openssl.send("hello, été\n");
        openssl.expect(&["> HELLO, ÉTÉ"]);
        openssl.send("bye\n");
        openssl.expect(&["> BYE"]);
        openssl.expect_end();
    }
}

#[test]
fn nc_that_half_closes_gets_all_its_answers() {
    if !nc() {
        return;
    }
    let program = Program::serve(&["echo=0"]);
    let mut nc = Tool::start("nc", &["-N"], program.addr("echo"));
    nc.send("hello\nthe last line has no end");
    nc.end();
    nc.expect(&GREETING);
    nc.expect(&["> HELLO", "> THE LAST LINE HAS NO END"]);
    nc.expect_end();
}

#[test]
fn telnet_talks_to_echo_until_bye() {
    if !installed("telnet", "--help", "telnet") {
        return;
    }
    let program = Program::serve(&["echo=0"]);
    let mut telnet = Tool::start("telnet", &[], program.addr("echo"));
    while telnet.line() != GREETING[0] {
        // What telnet itself has to say of the connection.
    }
    telnet.expect(&GREETING[1..]);
    telnet.send("hello\n");
    telnet.expect(&["> HELLO"]);
    telnet.send("bye\n");
    telnet.expect(&["> BYE"]);
    while telnet.stdout.recv_timeout(PATIENCE).is_ok() {
        // Some say here that the server has closed.
    }
    wait(&mut telnet.child);
}

#[cfg(target_os = "linux")]
#[test]
fn telnet_shows_the_answers_after_ctrl_c() {
    if !installed("telnet", "--help", "telnet") || !installed("setsid", "--help", "--ctty") {
        return;
    }
    let program = Program::serve(&["echo=0", "presence=0", "roulette2=0"]);
    let help = "Commands: [HELP, RANDOM, LOAD, INFO, BYE, CLEAR, LIST]";
    for (service, greeting, typed, heard) in [
        ("echo", GREETING[1], "hello", "> HELLO"),
        ("presence", "  Shutdown", "say hello", "An anonymous user says: hello"),
        ("roulette2", "Hello.", "help", help),
    ] {
        let (mut keyboard, screen) = terminal();
        let addr = program.addr(service);
        // Ctrl-C is a signal to those whose terminal it is.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "telnet", &addr.ip().to_string(), &addr.port().to_string()]);
        command.stdin(screen.try_clone().unwrap()).stdout(screen).stderr(Stdio::null());
        let _telnet = Running(command.spawn().unwrap());
        let lines = lines_of(keyboard.try_clone().unwrap());
        let line = || lines.recv_timeout(PATIENCE).expect("the screen is frozen");
        while !line().starts_with(greeting) {}
        for keys in ["", "\x03", "\x03"] {
            keyboard.write_all(format!("{keys}{typed}\n").as_bytes()).unwrap();
            while line().trim_end() != heard {}
        }
    }
}

#[test]
fn two_nc_meet_in_the_room() {
    if !nc() {
        return;
    }
    let program = Program::serve(&["presence=0"]);
    let addr = program.addr("presence");
    let welcome = |nc: &Tool| {
        assert_eq!(nc.line(), "Welcome to the Presence Server");
        (0..5).for_each(|_| drop(nc.line()));
    };
    let mut alice = Tool::start("nc", &[], addr);
    welcome(&alice);
    let mut bob = Tool::start("nc", &[], addr);
    welcome(&bob);
    alice.expect(&["Someone has arrived..."]);
    alice.send("HELLO alice\n");
    alice.expect(&["alice is in the room."]);
    bob.expect(&["alice is in the room."]);
    bob.send("hello bob\nsay good evening\nwho\n");
    let heard = ["bob is in the room.", "bob says: good evening"];
    alice.expect(&heard);
    bob.expect(&heard);
    bob.expect(&["Currently connected users:", " - alice", " - bob"]);
    alice.send("BYE\n");
    alice.expect(&["alice is about to leave the room."]);
    bob.expect(&["alice is about to leave the room."]);
    alice.end();
    alice.expect_end();
    bob.expect(&["alice has left the room."]);
}

#[test]
fn nc_loads_half_a_million_students_and_lists_them() {
    if !nc() {
        return;
    }
    let program = Program::serve(&["roulette=0", "roulette2=0"]);
    let (one, two) = (program.addr("roulette"), program.addr("roulette2"));
    let greeting = "Hello. Online HELP is available. Will you find it?";
    let names: Vec<_> = (0..500_000).map(|n| format!("student {n}")).collect();
    let mut nc = Tool::start("nc", &["-N"], two);
    nc.send(&format!("LOAD\n{}\nENDOFDATA\nBYE\n", names.join("\n")));
    nc.expect(&[
        greeting,
        "Send your data [end with ENDOFDATA]",
        "{\"status\":\"success\",\"numberOfNewStudents\":500000}",
        "{\"status\":\"success\",\"numberOfCommands\":2}",
    ]);
    nc.end();
    nc.expect_end();
    let mut nc = Tool::start("nc", &["-N"], two);
    nc.send("LIST\nINFO");
    nc.end();
    nc.expect(&[greeting]);
    let list = nc.line();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let listed = list["students"].as_array().unwrap().iter().map(|it| &it["fullname"]);
    assert!(listed.eq(&names));
    nc.expect(&["{\"protocolVersion\":\"2.0\",\"numberOfStudents\":500000}"]);
    nc.expect_end();
    // The other one has a store of its own.
    let mut nc = Tool::start("nc", &["-N"], one);
    nc.send("load\njohn doe\nendofdata\nrandom\nlist\ninfo\nbye\n");
    nc.expect(&[
        greeting,
        "Send your data [end with ENDOFDATA]",
        "DATA LOADED",
        "{\"fullname\":\"john doe\"}",
        "Huh? please use HELP if you don't know what commands are available.",
        "{\"protocolVersion\":\"1.0\",\"numberOfStudents\":1}",
    ]);
    nc.end();
    nc.expect_end();
}

#[test]
fn nc_without_input_reads_the_time_to_its_end() {
    if !nc() {
        return;
    }
    let program = Program::serve(&["time=0", "--time-interval=10ms", "--time-count=5"]);
    let mut nc = Tool::start("nc", &["-N"], program.addr("time"));
    nc.end();
    for _ in 0..5 {
        let line = nc.line();
        assert!(line.starts_with("{'time' : '") && line.ends_with("'}"), "{line}");
    }
    nc.expect_end();
}

#[test]
fn five_hundred_nc_at_once_each_get_their_own_answers() {
    let _quiet = util::quiet();
    if !nc() {
        return;
    }
    // Two pipes to each.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let program = Program::serve(&["echo=0"]);
    let addr = program.addr("echo");
    let mut all: Vec<_> = (0..500).map(|_| Tool::start("nc", &["-N"], addr)).collect();
    // From here on all of them are connected.
    all.iter().for_each(|nc| nc.expect(&GREETING));
    for (n, nc) in all.iter_mut().enumerate() {
        nc.send(&(0..10).map(|line| format!("client {n} line {line}\n")).collect::<String>());
    }
    for nc in &mut all {
        nc.end();
    }
    for (n, nc) in all.into_iter().enumerate() {
        (0..10).for_each(|line| nc.expect(&[&format!("> CLIENT {n} LINE {line}")]));
        nc.expect_end();
    }
}

#[test]
fn a_real_http_server_tells_the_dumb_client_that_it_does_not_speak_http() {
    if !installed("python3", "--version", "Python 3") {
        return;
    }
    let mut command = Command::new("python3");
    command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]);
    let server = Program::spawn(&mut command);
    // "Serving HTTP on 127.0.0.1 port 8000 (http://127.0.0.1:8000/) ..."
    let line = server.line();
    let port = line.split_once(" port ").and_then(|(_, rest)| rest.split(' ').next());
    let port = port.unwrap_or_else(|| panic!("no port in {line:?}"));
    let mut client = Command::new(example::binary("dumb_http_client"));
    let output = client.arg(format!("127.0.0.1:{port}")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("400") && text.contains("Bad request"), "{output:?}");
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
}
