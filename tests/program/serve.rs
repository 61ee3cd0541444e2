//! The program: what it prints, how it fails, how it ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::util::folder::Folder;
use crate::util::namespace::{hosts, inside};
use crate::util::program::{Program, REACTOR, Running, fails, wait};
use crate::util::stranger::{STRANGER, heard_by_stranger};
use crate::util::{self, Client, PATIENCE, skip, until};

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";

/// The first line that a service says.
fn first_line(mut stream: impl Read) -> String {
    let mut line = String::new();
    BufReader::new(&mut stream).read_line(&mut line).unwrap();
    line
}

/// An address of this machine that is this test's alone: all of 127.0.0.0/8 is loopback on Linux.
fn own_host(last: u8) -> String {
    let pid = std::process::id().to_be_bytes();
    format!("127.{}.{}.{last}", 1 + pid[2] % 254, pid[3])
}

// ---- Listening ----

#[test]
fn every_form_of_address_is_listened_on_and_printed_in_order() {
    let folder = Folder::new("forms");
    let path = format!("unix:{}", folder.file("p.sock").display());
    let presence = format!("presence={path}");
    let mut args = vec!["echo=0", "time=127.0.0.1:0", &presence, "echo=localhost:0"];
    let ipv6 = TcpListener::bind("[::1]:0").is_ok();
    if ipv6 {
        args.push("echo=[::1]:0");
    }
    let program = Program::serve(&args);

    let echo = program.addr("echo");
    assert!(echo.ip().to_string() == "127.0.0.1" && echo.port() != 0, "{echo}");
    Client::connect(echo).expect(GREETING);
    let time = program.addr("time");
    assert!(first_line(TcpStream::connect(time).unwrap()).starts_with("{'time' : '"));
    assert_eq!(program.place("presence"), path);
    let stream = UnixStream::connect(folder.file("p.sock")).unwrap();
    assert_eq!(first_line(stream), "Welcome to the Presence Server\n");
    let local = program.addr("echo");
    assert!(local.ip().is_loopback(), "{local}");
    Client::connect(local).expect(GREETING);
    if ipv6 {
        let echo = program.addr("echo");
        assert!(echo.is_ipv6() && echo.port() != 0, "{echo}");
        Client::connect(echo).expect(GREETING);
    }

    program.signal("TERM");
    assert_eq!(program.end().0, 0);
    assert!(!folder.file("p.sock").exists(), "the socket's path is left behind");
}

#[test]
#[cfg(target_os = "linux")]
fn without_arguments_every_service_is_at_its_default_port() {
    // The port of web is on 127.0.0.1, where somebody else may have it.
    if !inside("true") {
        return;
    }
    let host = own_host(1);
    let program = Program::serve(&["--host", &host]);
    for (service, port) in [
        ("echo", 2323),
        ("time", 2205),
        ("presence", 9907),
        ("roulette", 1313),
        ("roulette2", 2613),
    ] {
        assert_eq!(program.place(service), format!("{host}:{port}"));
    }
    assert_eq!(program.place("web"), "127.0.0.1:8023");
    let other = own_host(2);
    let program = Program::serve(&["--host", &other, "time", "echo=0"]);
    assert_eq!(program.place("time"), format!("{other}:2205"));
    assert!(program.place("echo").starts_with(&format!("{other}:")));
}

#[test]
fn limits_reach_every_service() {
    let program = Program::serve(&["echo=0", "echo=0", "--max-line=10", "--max-connections=1"]);
    for _ in 0..2 {
        let addr = program.addr("echo");
        let mut client = Client::connect(addr);
        client.expect(GREETING);
        assert_eq!(Client::connect(addr).rest(), b"Too many connections, try again later\n");
        client.send("12345678901\n");
        assert_eq!(client.rest(), b"Line too long (limit 10 bytes)\n");
    }

    let program = Program::serve(&["presence=0", "--idle-timeout=100ms"]);
    let said = Client::connect(program.addr("presence")).rest();
    assert!(said.ends_with(b"Idle for too long (limit 0.1 s)\n"), "{said:?}");
}

#[test]
fn who_has_too_many_connections_is_in_the_log() {
    let program = Program::serve(&["echo=0", "--max-per-peer=1"]);
    let addr = program.addr("echo");
    let mut first = Client::connect(addr);
    first.expect(GREETING);
    for _ in 0..20 {
        Client::connect(addr).expect("Too many connections from your address");
    }
    let line = program.wait_for_log("max_per_peer");
    assert!(line.contains("WARN") && line.contains("127.0.0.1 has 1 connections"), "{line}");
    program.signal("TERM");
    let (_, _, stderr) = program.end();
    // Not once for each of them.
    assert!(stderr.matches("max_per_peer").count() < 20, "{stderr}");
    assert!(stderr.contains("20 were turned away"), "{stderr}");
}

#[test]
#[cfg(target_os = "linux")]
fn only_the_allowed_networks_are_served() {
    let program = Program::serve(&["echo=0", "--allow=127.0.0.2,::1"]);
    let addr = program.addr("echo");
    // Closed or reset, as it happens; not a word of the greeting.
    let mut said = Vec::new();
    let _ = TcpStream::connect(addr).unwrap().read_to_end(&mut said);
    assert_eq!(said, b"");
    program.wait_for_log("127.0.0.1 is in none of the allowed networks");
    program.signal("TERM");
    let (_, _, stderr) = program.end();
    assert!(stderr.contains("after 0 connections; 1 were turned away"), "{stderr}");
}

#[test]
fn listening_beyond_this_machine_is_warned_of_unless_it_is_said_for_whom() {
    let program = Program::serve(&["time=127.0.0.1:0", "echo=0.0.0.0:0"]);
    let line = program.wait_for_log("every machine that reaches");
    assert!(line.contains("echo") && line.contains("--allow"), "{line}");
    let program = Program::spawn(Command::new(REACTOR).args(["forward", "[::]:0", "9"]));
    program.wait_for_log("every machine that reaches [::]:");
    let program = Program::serve(&["echo=0.0.0.0:0", "echo=0", "--allow=0.0.0.0/0"]);
    program.place("echo");
    program.signal("TERM");
    let (_, _, stderr) = program.end();
    assert!(!stderr.contains("every machine"), "{stderr}");
}

#[test]
fn a_unix_socket_has_its_mode_whatever_the_umask() {
    let folder = Folder::new("modes");
    let target = format!("echo=unix:{}", folder.file("e.sock").display());
    for umask in ["umask 0", "umask 077"] {
        let program = Program::serve_after(umask, &[&target, "--unix-mode=0660"]);
        program.place("echo");
        let found = std::fs::metadata(folder.file("e.sock")).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o660, "{umask}");
        program.signal("TERM");
        assert_eq!(program.end().0, 0);
    }
}

#[test]
fn at_a_unix_socket_only_the_allowed_users_are_served() {
    let folder = Folder::new("users");
    let path = folder.file("e.sock");
    let target = format!("echo=unix:{}", path.display());
    let own = rustix::process::geteuid().as_raw().to_string();
    for users in [&*own, &format!("root,{own}")] {
        // Each thread keeps its log short by itself.
        let one = "--threads=1";
        let program = Program::serve(&[&target, "--unix-mode=666", "--allow-uid", users, one]);
        program.place("echo");
        assert_eq!(first_line(UnixStream::connect(&path).unwrap()), &GREETING[..31]);
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let Some(said) = heard_by_stranger(&path, "bye\n") else { return };
        assert_eq!(said, "");
        assert_eq!(heard_by_stranger(&path, "bye\n").as_deref(), Some(""));
        program.wait_for_log(&format!("uid {STRANGER} pid "));
        program.signal("TERM");
        let (_, _, stderr) = program.end();
        let words = "is none of the allowed users: turning away";
        assert_eq!(stderr.matches(words).count(), 1, "{stderr}");
        assert!(stderr.contains("after 1 connections; 2 were turned away"), "{stderr}");
    }
}

/// The client's process has no number in there.
#[test]
#[cfg(target_os = "linux")]
fn a_client_from_outside_the_servers_container_has_its_uid() {
    let unshare = ["--user", "--map-root-user", "--pid", "--mount-proc", "--fork", "--kill-child"];
    let possible = Command::new("unshare").args(unshare).arg("true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        return skip("there are no namespaces of users and processes here");
    }
    let folder = Folder::new("container");
    let path = folder.file("e.sock");
    let target = format!("echo=unix:{}", path.display());
    let mut command = Command::new("unshare");
    command.args(unshare).args([REACTOR, "serve", &target, "--allow-uid=0"]);
    let program = Program::spawn(&mut command);
    program.place("echo");
    assert_eq!(first_line(UnixStream::connect(&path).unwrap()), &GREETING[..31]);
}

#[test]
fn what_is_sent_to_a_slow_reader_is_bounded() {
    let program = Program::serve(&["presence=0", "--max-output=64K"]);
    let addr = program.addr("presence");
    let mut slow = Client::connect(addr);
    (0..6).for_each(|_| drop(slow.line()));
    let mut speaker = Client::connect(addr);
    (0..6).for_each(|_| drop(speaker.line()));
    // Whatever the kernel takes for it, its end comes some time.
    let line = format!("SAY {}\n", "x".repeat(10_000));
    let mut heard = String::new();
    while heard != "An anonymous user has left the room.\n" {
        speaker.send(&line);
        heard = speaker.line();
    }
    program.wait_for_log("slow consumer");
}

#[test]
fn the_time_service_has_its_interval_and_count() {
    let program = Program::serve(&["time=0", "--time-interval=10ms", "--time-count=3"]);
    let lines = Client::connect(program.addr("time")).rest();
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 3);
    let program = Program::serve(&["time=0", "--time-interval=1ms", "--time-count=0"]);
    let mut client = Client::connect(program.addr("time"));
    (0..40).for_each(|_| drop(client.line()));
}

/// What a roulette says to these lines, its greeting left out.
fn ask_roulette(program: &Program, service: &str, lines: &str) -> String {
    let mut client = Client::connect(program.addr(service));
    client.expect("Hello. Online HELP is available. Will you find it?\n");
    client.send(lines);
    client.end();
    String::from_utf8(client.rest()).unwrap()
}

#[test]
fn the_roulettes_begin_with_the_students_of_a_file() {
    let folder = Folder::new("students");
    let path = folder.file("names.txt");
    // The byte order mark at its front is no part of the first name.
    std::fs::write(&path, b"\xef\xbb\xbfjohn doe\r\n\ncaf\xe9\nlast").unwrap();
    let option = format!("--roulette-file={}", path.display());
    let program = Program::serve(&["roulette2=0", "roulette=0", &option]);
    let list = "{\"students\":[{\"fullname\":\"john doe\"},{\"fullname\":\"\"},\
                {\"fullname\":\"caf\u{fffd}\"},{\"fullname\":\"last\"}]}\n";
    assert_eq!(ask_roulette(&program, "roulette2", "LIST\n"), list);
    let info = "{\"protocolVersion\":\"1.0\",\"numberOfStudents\":4}\n";
    assert_eq!(ask_roulette(&program, "roulette", "INFO\n"), info);
    // A pipe can be read only once, and both have its names all the same.
    let script = "exec \"$0\" serve roulette2=0 roulette=0 --roulette-file=/dev/fd/3 3<<END\n\
                  john doe\nbill smith\nEND\n";
    let program = Program::spawn(Command::new("sh").args(["-c", script, REACTOR]));
    for (service, version) in [("roulette2", "2.0"), ("roulette", "1.0")] {
        let info = format!("{{\"protocolVersion\":\"{version}\",\"numberOfStudents\":2}}\n");
        assert_eq!(ask_roulette(&program, service, "INFO\n"), info);
    }
}

#[test]
fn the_memory_of_a_roulette_is_bounded() {
    let program = Program::serve(&["roulette=0", "--roulette-memory=1K"]);
    let load = format!("LOAD\n{}\nENDOFDATA\nINFO\n", "x".repeat(1021));
    assert_eq!(
        ask_roulette(&program, "roulette", &load),
        "Send your data [end with ENDOFDATA]\n\
         {\"error\":\"No room for so many students, none of them was loaded (limit 1024 bytes)\"}\n\
         {\"protocolVersion\":\"1.0\",\"numberOfStudents\":0}\n"
    );
}

#[test]
fn whoever_is_allowed_to_may_kill_it() {
    let program = Program::serve(&["presence=0", "--allow-kill"]);
    let mut client = Client::connect(program.addr("presence"));
    client.send("KILL\n");
    let said = client.rest();
    assert!(said.ends_with(b"KILL command received. Bringing server down...\n"), "{said:?}");
    drop(client);
    assert_eq!(program.end().0, 0);
}

#[test]
fn nobody_may_kill_it_unless_allowed() {
    let program = Program::serve(&["presence=0"]);
    let mut client = Client::connect(program.addr("presence"));
    client.send("KILL\nBYE\n");
    let said = String::from_utf8(client.rest()).unwrap();
    assert!(said.contains("\nKILL is disabled on this server.\n"), "{said}");
}

#[test]
fn names_are_unique_if_that_is_asked_for() {
    for (options, heard) in [
        (&["presence=0"][..], "Alice is in the room.\n"),
        (
            &["presence=0", "--unique-names"],
            "The name Alice is taken; choose another with 'HELLO name'\n",
        ),
    ] {
        let program = Program::serve(options);
        let addr = program.addr("presence");
        let mut all = [Client::connect(addr), Client::connect(addr)];
        for client in &mut all {
            while !client.line().starts_with("  Shutdown") {}
        }
        let [one, other] = &mut all;
        one.send("HELLO alice\n");
        while other.line() != "alice is in the room.\n" {}
        other.send("HELLO Alice\n");
        other.expect(heard);
    }
}

#[test]
fn says_what_it_can_do() {
    let (code, stdout, stderr) = Program::run(&[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("Usage: reactor") && stdout.contains("serve"), "{stdout}");
    let (code, stdout, _) = Program::run(&["--version"]);
    assert_eq!((code, stdout), (0, format!("reactor {}\n", env!("CARGO_PKG_VERSION"))));

    let (code, stdout, stderr) = Program::run(&["serve", "--help"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    for words in [
        "--host <HOST>",
        "--max-connections <N>",
        "--max-line <BYTES>",
        "--max-output <BYTES>",
        "--idle-timeout <DURATION>",
        "--allow-kill",
        "--unique-names",
        "--time-interval <DURATION>",
        "--time-count <N>",
        "--roulette-file <PATH>",
        "--roulette-memory <BYTES>",
        "--log <LEVEL>",
        "--admin <PATH>",
        "--no-admin",
        "[default: 127.0.0.1]",
        "[default: 10000]",
        "[default: 64K]",
        "[default: 1M]",
        "[default: 1s]",
        "[default: 15]",
        "[default: 64M]",
        "[default: info]",
        "unix:PATH",
        "(port 2323)",
        "(port 2205)",
        "(port 9907)",
        "(port 1313)",
        "(port 2613)",
    ] {
        assert!(stdout.contains(words), "{words} is not in the help:\n{stdout}");
    }
}

// ---- Failures: one line with the remedy, and the status ----

#[test]
fn a_wrong_command_line_is_status_2() {
    for (args, words) in [
        (
            &["serve", "ecko"][..],
            &["'ecko'", "did you mean echo?", "echo, time, presence, roulette, roulette2"][..],
        ),
        (&["serve", "ECHO"], &["did you mean echo?"]),
        (&["serve", "ehco=2323"], &["did you mean echo=2323?"]),
        (&["serve", "2323"], &["write echo=2323"]),
        (&["serve", "echo", "2323"], &["write echo=2323"]),
        (&["serve", "127.0.0.1:2323"], &["write echo=127.0.0.1:2323"]),
        (&["serve", "unix:/tmp/e.sock"], &["write echo=unix:/tmp/e.sock"]),
        (&["serve", "time:2323"], &["write time=2323"]),
        (&["serve", "echo:[::1]:2323"], &["write echo=[::1]:2323"]),
        (&["serve", "echo,time=0"], &["write echo time=0"]),
        (&["serve", "tls:echo=2323"], &["write echo=tls:2323"]),
        (&["serve", "tls:echo"], &["write echo=tls:PORT"]),
        (&["serve", "--port", "2323"], &["'--port'", "write echo=2323"]),
        (&["serve", "-p", "2323"], &["'-p'", "write echo=2323"]),
        (&["serve", "--port=99"], &["'--port'", "write echo=2323"]),
        (&["serve", "--time"], &["write time"]),
        (&["echo"], &["write reactor serve echo"]),
        (&["echo=2323"], &["write reactor serve echo=2323"]),
        (&["serve", "echo=99999"], &["0 to 65535"]),
        (&["serve", "echo=localhost"], &["write localhost:PORT"]),
        (&["serve", "echo=::1:80"], &["write an IPv6 address in brackets: [::1]:80"]),
        (&["serve", "echo=[fe80::1]:7"], &["write [fe80::1%eth0]:7"]),
        (&["serve", "echo=/tmp/a.sock"], &["unix:/tmp/a.sock"]),
        (&["serve", "echo=unix:"], &["path"]),
        (&["serve", "echo=no such host:1"], &["no such host:1"]),
        (&["serve", "--host", "fe80::1"], &["--host", "127.0.0.1", "fe80::1%eth0"]),
        (&["serve", "--allow", "10.0.0.1/8"], &["--allow", "10.0.0.0/8"]),
        (&["serve", "--allow", "localhost"], &["--allow", "\"localhost\"", "fd00::/8"]),
        (&["serve", "--allow-uid", "no such user"], &["--allow-uid", "a name or a number"]),
        (&["serve", "--allow-uid", "0,-1"], &["--allow-uid", "'-1'", "a name or a number"]),
        (&["serve", "--unix-mode", "888"], &["--unix-mode", "0660"]),
        (&["serve", "--max-connections", "0"], &["--max-connections", "above 0"]),
        (&["serve", "--max-connections", "many"], &["'many'", "whole number"]),
        (&["serve", "--max-line", "64Q"], &["--max-line", "64K"]),
        (&["serve", "--max-line", "2G"], &["--max-line", "1073741824"]),
        (&["serve", "--max-output", "12"], &["--max-output", "1K"]),
        (&["serve", "--idle-timeout", "30"], &["add a unit", "30s"]),
        (&["serve", "--time-interval", "0s"], &["--time-interval", "1ms"]),
        (&["serve", "--time-count", "x"], &["--time-count", "whole number"]),
        (&["serve", "--roulette-memory", "lots"], &["--roulette-memory", "64K"]),
        (&["serve", "--log", "loud"], &["--log", "off, error, warn, info, debug, trace"]),
        (&["serve", "--host"], &["--host", "value"]),
        (&["serve", "--max-lines", "5"], &["'--max-line'"]),
        (&["swerve"], &["'swerve'", "serve"]),
    ] {
        fails(Program::spawn(Command::new(REACTOR).args(args)), 2, words);
    }
}

/// Who gives an option expects something of it.
#[test]
fn an_option_that_nothing_heeds_is_status_2() {
    let folder = Folder::new("unheeded");
    let unix = format!("unix:{}", folder.file("s.sock").display());
    let echo = format!("echo={unix}");
    for (args, words) in [
        (&["serve", "echo=0", "--unix-mode=600"][..], "--unix-mode goes with a Unix socket"),
        (&["forward", "0", "9", "--unix-mode=600"], "--unix-mode goes with a Unix socket"),
        (&["serve", "echo=0", "--allow-uid=0"], "--allow-uid goes with a Unix socket"),
        (&["forward", "0", "9", "--allow-uid=0,1"], "--allow-uid goes with a Unix socket"),
        (&["serve", &echo, "--allow=127.0.0.0/8"], "--allow goes with TCP"),
        (&["forward", &unix, "9", "--allow=127.0.0.0/8"], "--allow goes with TCP"),
        (&["serve", &echo, "--keepalive=5m"], "--keepalive goes with TCP"),
        (&["serve", &echo, "--user-timeout=5m"], "--user-timeout goes with TCP"),
        (&["serve", &echo, "--max-per-peer=5"], "--max-per-peer goes with TCP"),
        (&["serve", &echo, "--peer-rate=5/s"], "--peer-rate goes with TCP"),
        (&["serve", &echo, "--peer-connect-rate=5/s"], "--peer-connect-rate goes with TCP"),
        (&["serve", "echo=0", "--time-count=3"], "--time-count goes with the service time"),
        // What is the default anyway is asked for all the same.
        (&["serve", "echo=0", "--time-interval=1s"], "--time-interval goes with"),
        (&["serve", "echo=0", "--allow-kill"], "--allow-kill goes with the service presence"),
        (&["serve", "time=0", "--unique-names"], "--unique-names goes with the service presence"),
        (&["serve", "time=0", "--roulette-file=x"], "--roulette-file goes with"),
        (&["serve", "time=0", "--roulette-memory=1M"], "--roulette-memory goes with"),
        (&["serve", "echo=127.0.0.1:0", "--host=::1"], "--host goes with a port"),
        (&["load", "9", "--mode=idle", "--size=64"], "--size goes with"),
        (&["load", "9", "--mode=time", "--size=32"], "--size goes with"),
    ] {
        fails(Program::spawn(Command::new(REACTOR).args(args)), 2, &[words]);
    }
    // One that heeds them is enough.
    let options = ["--unix-mode=600", "--keepalive=5m", "--time-count=1", "--host=127.0.0.1"];
    let program = Program::serve(&[&["echo=0", "time=0", &*echo][..], &options].concat());
    Client::connect(program.addr("echo")).expect(GREETING);
}

#[test]
fn students_that_cannot_be_had_are_status_1() {
    let folder = Folder::new("no-students");
    let path = folder.file("names.txt");
    // Each name takes four bytes besides its own: these fit as a text only.
    std::fs::write(&path, "name\n".repeat(200)).unwrap();
    let path = path.to_str().unwrap();
    let missing = folder.file("missing.txt");
    let [little, big] = [u16::to_le_bytes, u16::to_be_bytes].map(|order| {
        let path = folder.file(&format!("utf-16-{}", order(1)[0]));
        let text = "\u{feff}john doe\n".encode_utf16().flat_map(order).collect::<Vec<_>>();
        std::fs::write(&path, text).unwrap();
        path
    });
    for (file, memory, words) in [
        (path, "1K", "too many names for the 1024 bytes of --roulette-memory; raise it"),
        (path, "999", "too many names for the 999 bytes"),
        ("/dev/zero", "1M", "too many names"),
        (little.to_str().unwrap(), "1M", "it is UTF-16; write it as UTF-8: iconv -f UTF-16"),
        (big.to_str().unwrap(), "1M", "it is UTF-16"),
        (missing.to_str().unwrap(), "1M", "No such file"),
        (std::env::temp_dir().to_str().unwrap(), "1M", "cannot be read (Is a directory"),
    ] {
        let args = ["roulette=0", "--roulette-file", file, "--roulette-memory", memory];
        fails(Program::serve(&args), 1, &["--roulette-file", file, words]);
    }
}

#[test]
fn a_port_in_use_or_not_of_this_machine_is_status_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = Folder::new("taken");
    let path = folder.file("e.sock");
    let (one, two) = (format!("echo=unix:{}", path.display()), format!("time={port}"));
    // Nothing is printed of the one that could be had, and its path is removed.
    let holder = format!("ss -ltnp 'sport = :{port}'");
    let words = [&port, "in use", "another one with time=PORT", "0 for any free one"];
    #[cfg(target_os = "linux")]
    let words = [&words[..], &[&holder]].concat();
    fails(Program::serve(&[&one, &two]), 1, &words);
    assert!(!path.exists());
    let forward = Program::spawn(Command::new(REACTOR).args(["forward", &port, "9"]));
    fails(forward, 1, &[&port, "in use", "another one for LISTEN"]);
    // An address reserved for documentation is nobody's.
    fails(Program::serve(&["echo=192.0.2.1:0"]), 1, &["192.0.2.1", "no such address"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_privileged_port_is_status_1() {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first.unwrap_or_default().trim().parse().unwrap_or(1024) <= 80 {
        return println!("skipped: on this machine no port is privileged");
    }
    // Root has the privilege, unless it is taken away.
    let drop = ["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"];
    let mut command = Command::new("setpriv");
    if Command::new("setpriv").args(drop).arg("true").output().is_ok_and(|out| out.status.success())
    {
        command.args(drop).arg(REACTOR);
    } else if TcpListener::bind((own_host(3), 80)).is_err() {
        command = Command::new(REACTOR);
    } else {
        return println!("skipped: no setpriv to give the privilege up with");
    }
    let address = format!("echo={}:80", own_host(4));
    fails(Program::spawn(command.args(["serve", &address])), 1, &["below 1024", "higher"]);
}

#[test]
fn a_unix_path_that_is_not_free_is_status_1() {
    let folder = Folder::new("paths");
    let target = |name: &str| format!("echo=unix:{}", folder.file(name).display());
    let _alive = UnixListener::bind(folder.file("alive")).unwrap();
    File::create(folder.file("text")).unwrap().write_all(b"precious").unwrap();
    let long = "x".repeat(120);
    for (name, words) in [
        ("alive", "another server is listening"),
        ("text", "not a socket"),
        ("none/e.sock", "folder"),
        (&long, "bytes is too long for a socket; choose a shorter one"),
        ("text/e.sock", "its folder is something else"),
    ] {
        fails(Program::serve(&[&target(name)]), 1, &[words, name]);
    }
    assert_eq!(std::fs::read(folder.file("text")).unwrap(), b"precious");
    assert!(folder.file("alive").exists());
}

#[test]
fn after_a_kill_it_starts_again_at_the_same_unix_path() {
    let folder = Folder::new("killed");
    let target = format!("echo=unix:{}", folder.file("e.sock").display());
    let program = Program::serve(&[&target]);
    program.place("echo");
    fails(Program::serve(&[&target]), 1, &["another server is starting or running there"]);
    program.signal("KILL");
    // Dropped, it has ended for sure.
    drop(program);
    assert!(folder.file("e.sock").exists());
    let program = Program::serve(&[&target]);
    program.place("echo");
    let mut client = BufReader::new(UnixStream::connect(folder.file("e.sock")).unwrap());
    assert_eq!(first_line(&mut client), "Welcome to the Reactor Server.\n");
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
    assert_eq!(std::fs::read_dir(folder.file("")).unwrap().count(), 0, "nothing stays behind");
}

#[test]
fn more_connections_than_descriptors_is_status_1() {
    // Each further thread takes some itself.
    let args = ["echo=0", "time=0", "--max-connections=1000", "--threads=1"];
    let program = Program::serve_after("ulimit -n 100", &args);
    fails(program, 1, &["1000 for each of 2 services", "2018", "100", "ulimit -n", "41 or less"]);
}

/// Nobody in particular, with one process: there is no thread beside the first.
#[test]
#[cfg(target_os = "linux")]
fn no_thread_to_be_had_is_status_1() {
    let folder = Folder::new("no-thread");
    // The build's own folder may be closed to others.
    let program = folder.file("reactor");
    std::fs::copy(REACTOR, &program).unwrap();
    let limited = |args: &[&str]| {
        let mut command = Command::new("prlimit");
        command.args(["--nproc=1", "setpriv", "--reuid=64123", "--clear-groups"]);
        command.arg(&program).args(args);
        command
    };
    if !limited(&["--version"]).output().is_ok_and(|output| output.status.success()) {
        return util::skip(
            "not root, or no prlimit and setpriv: cannot be somebody without threads",
        );
    }
    for args in [&["serve", "echo=0"][..], &["forward", "0", "9"], &["discover", "--once"]] {
        fails(Program::spawn(&mut limited(args)), 1, &["no thread", "ulimit -u"]);
    }
}

#[test]
fn too_few_descriptors_to_start_with_is_status_1() {
    for command in ["serve echo=0 --announce", "forward 0 9", "discover --once", "load 9"] {
        for limit in 4..10 {
            let script = format!("ulimit -n {limit}; exec {REACTOR} {command}");
            fails(Program::spawn(Command::new("sh").args(["-c", &script])), 1, &["ulimit -n"]);
        }
    }
}

#[test]
fn the_soft_limit_of_descriptors_is_raised() {
    let program = Program::serve_after("ulimit -S -n 64", &["echo=0", "--max-connections=100"]);
    program.wait_for_log("file descriptors: limit raised from 64 to ");
    Client::connect(program.addr("echo")).expect(GREETING);
    // The default is no promise: with few descriptors it starts all the same.
    let program = Program::serve_after("ulimit -n 40", &["echo=0", "--threads=1"]);
    let line = program.wait_for_log("limit 40, already the hard one");
    assert!(line.contains("room for 23 of 10000 clients") && line.contains("WARN"), "{line}");
    assert!(line.contains("raise it (ulimit -n 10017)"), "{line}");
    Client::connect(program.addr("echo")).expect(GREETING);
}

#[test]
fn descriptors_that_do_not_suffice_for_the_default_are_warned_of() {
    let warned = |program: Program, words: &[&str]| {
        let line = program.wait_for_log("file descriptors: ");
        assert!(line.contains("WARN"), "{line}");
        words.iter().for_each(|words| assert!(line.contains(words), "{words:?} is not in {line}"));
    };
    let five = ["echo=0", "time=0", "presence=0", "roulette=0", "roulette2=0", "--threads=1"];
    let words = ["limit 20000", "room for 19979 of 50000 clients", "raise it (ulimit -n 50021)"];
    warned(Program::serve_after("ulimit -n 20000", &five), &words);
    let script = "ulimit -n 1024 && exec \"$0\" forward 0 9";
    let program = Program::spawn(Command::new("sh").args(["-c", script, REACTOR]));
    warned(program, &["limit 1024", "room for 503 of 10000 clients", "raise it (ulimit -n 20017)"]);
}

// ---- Endings ----

#[test]
fn both_signals_end_it_gracefully() {
    for signal in ["INT", "TERM"] {
        let program = Program::serve(&["echo=0"]);
        let mut client = Client::connect(program.addr("echo"));
        client.expect(GREETING);
        program.signal(signal);
        assert_eq!(client.rest(), b"");
        drop(client);
        let (code, _, stderr) = program.end();
        assert_eq!(code, 0, "{stderr}");
        assert!(stderr.contains("stopped after 1 connections"), "{stderr}");
    }
}

/// A room in which `reader` has read nothing of the thousand lines that somebody said, more than
/// the kernel keeps for it: much of them is still in the program.
fn a_thousand_lines_pending(program: &Program) -> (Client, Vec<String>) {
    let addr = program.addr("presence");
    let mut reader = Client::connect(addr);
    (0..6).for_each(|_| drop(reader.line()));
    let texts: Vec<_> = (0..1000).map(|n| format!("{n} {}", "x".repeat(10_000))).collect();
    let mut speaker = Client::connect(addr);
    (0..6).for_each(|_| drop(speaker.line()));
    let mut writer = speaker.stream.try_clone().unwrap();
    let said: String = texts.iter().map(|text| format!("SAY {text}\n")).collect();
    let saying = std::thread::spawn(move || writer.write_all(said.as_bytes()).unwrap());
    for text in &texts {
        assert_eq!(speaker.line(), format!("An anonymous user says: {text}\n"));
    }
    saying.join().unwrap();
    (reader, texts)
}

#[test]
fn a_thousand_lines_still_to_be_sent_all_arrive_after_sigterm() {
    let program = Program::serve(&["presence=0", "--max-output=64M"]);
    let (mut reader, texts) = a_thousand_lines_pending(&program);
    program.signal("TERM");
    program.wait_for_log("shutting down");
    // All at once, since there are ten seconds for it.
    let said = String::from_utf8(reader.rest()).unwrap();
    drop(reader);
    let line = |text| format!("An anonymous user says: {text}\n");
    let wanted =
        "Someone has arrived...\n".to_owned() + &texts.iter().map(line).collect::<String>();
    assert!(said.starts_with(&wanted), "lost or torn");
    let (code, _, stderr) = program.end();
    assert_eq!(code, 0, "{stderr}");
}

/// Both are of one type.
#[test]
fn the_log_names_services_as_the_command_line_does() {
    let program = Program::serve(&["roulette=0", "roulette2=0", "--log=debug"]);
    for name in ["roulette", "roulette2"] {
        let mut client = Client::connect(program.addr(name));
        client.line();
        program.wait_for_log(&format!(" {name}: #"));
    }
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let program = Program::serve(&["presence=0", "--max-output=64M"]);
    let (_reader, _) = a_thousand_lines_pending(&program);
    let began = Instant::now();
    program.signal("TERM");
    program.wait_for_log("a second one ends at once");
    program.signal("TERM");
    let (code, _, stderr) = program.end();
    // By itself it would have waited for ten seconds.
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("had all their output: 1 connections"), "{stderr}");
}

// ---- Streams that cannot be written to ----

/// Serves, with a log line or more for every client, and ends gracefully.
fn serves_with(name: &str, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) {
    let folder = Folder::new(name);
    let path = folder.file("e.sock");
    let mut child = Command::new(REACTOR)
        .args(["serve", "--log=trace", &format!("echo=unix:{}", path.display())])
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap();
    for n in 0..3 {
        let mut stream = None;
        until("it listens", || {
            assert_eq!(child.try_wait().unwrap(), None, "it ended before client {n}");
            stream = UnixStream::connect(&path).ok();
            stream.is_some()
        });
        let mut stream = stream.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"still there\nbye\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, format!("{GREETING}> STILL THERE\n> BYE\n"));
    }
    let status = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status();
    assert!(status.unwrap().success());
    assert_eq!(wait(&mut child).code(), Some(0));
}

/// The write end of a pipe that nobody reads.
fn broken() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

#[test]
fn pipes_that_nobody_reads_do_not_end_it() {
    serves_with("broken", broken(), broken());
}

/// A pipe that is open and never read: once it was full, the log stopped the loop. What is lost is
/// counted.
#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let (unread, log) = std::io::pipe().unwrap();
    let mut child = Command::new(REACTOR)
        .args(["serve", "echo=0", "web=0", "--log", "trace"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut ready = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut addr = |name: &str| -> SocketAddr {
        let line = ready.next().unwrap();
        line.strip_prefix(&format!("{name} listening on ")).unwrap().parse().unwrap()
    };
    let (addr, web) = (addr("echo"), addr("web"));
    // Each writes about 200 bytes of log; 64 KiB fit.
    for _ in 0..2000 {
        let mut client = Client::connect(addr);
        client.send("bye\n");
        assert!(client.rest().ends_with(b"> BYE\n"));
    }
    let mut client = Client::connect(web);
    client.send("GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n");
    let metrics = String::from_utf8(client.rest()).unwrap();
    let mut lines = metrics.lines();
    let lost = lines.find_map(|line| line.strip_prefix("reactor_log_lines_dropped_total "));
    assert!(lost.unwrap().parse::<u64>().unwrap() > 0, "{metrics}");
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    until("it ends", || child.try_wait().unwrap().is_some());
    assert!(child.wait().unwrap().success());
    drop(unread);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_does_not_end_it() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    serves_with("full", full(), full());
}

#[test]
fn without_stdout_the_log_is_whole_and_without_colors_in_a_file() {
    let folder = Folder::new("log");
    let log = folder.file("log");
    serves_with("whole", broken(), File::create(&log).unwrap());
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("stopped after 3 connections"), "{log}");
    assert!(!log.contains("panicked") && !log.contains('\x1b'), "{log}");
}

#[test]
fn failures_and_help_that_cannot_be_said_keep_their_status() {
    for (args, code) in [(&["serve", "ecko"][..], 2), (&["serve", "--help"], 0), (&[], 0)] {
        let status = Command::new(REACTOR).args(args).stdout(broken()).stderr(broken()).status();
        assert_eq!(status.unwrap().code(), Some(code), "{args:?}");
    }
}

/// What stands on a terminal, where other lines may come in between, is whole.
#[test]
fn every_line_is_one_write_and_the_log_of_the_start_comes_first() {
    // Each write is a datagram.
    let (screen, ours) = UnixDatagram::pair().unwrap();
    screen.set_read_timeout(Some(PATIENCE)).unwrap();
    // Any machine has this much, and the log that it suffices.
    let room = "--max-connections=50";
    let mut command = Command::new(REACTOR);
    command.args(["serve", "echo=0", "time=0", room]).stdin(Stdio::null());
    command.stdout(OwnedFd::from(ours.try_clone().unwrap())).stderr(OwnedFd::from(ours));
    let mut running = Running(command.spawn().unwrap());
    let written = || {
        let mut buffer = [0; 1024];
        let count = screen.recv(&mut buffer).expect("nothing is written");
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    };
    let log = written();
    assert!(log.contains(" INFO  [reactor::cli::descriptors] ") && log.ends_with('\n'), "{log:?}");
    let ready = written();
    assert!(ready.starts_with("echo listening") && ready.ends_with('\n'), "{ready:?}");
    assert_eq!(ready.lines().count(), 2, "{ready:?}");
    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    for words in ["shutting down", "stopped after 0 connections"] {
        let line = written();
        assert!(line.contains(words) && line.ends_with('\n'), "{line:?}");
    }
    assert_eq!(wait(&mut running.0).code(), Some(0));
}

#[test]
fn closed_streams_do_not_end_it() {
    let folder = Folder::new("closed");
    let path = folder.file("e.sock");
    let target = format!("echo=unix:{}", path.display());
    let script = "exec \"$0\" serve --log=trace \"$1\" <&- >&- 2>&-";
    let mut child = Command::new("sh").args(["-c", script, REACTOR, &target]).spawn().unwrap();
    let mut stream = None;
    until("it listens", || {
        stream = UnixStream::connect(&path).ok();
        stream.is_some() || child.try_wait().unwrap().is_some()
    });
    let mut stream = stream.expect("it ended");
    stream.write_all(b"bye\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    // Nothing that was meant for stdout or stderr went to the client.
    assert_eq!(said, format!("{GREETING}> BYE\n"));
    child.kill().unwrap();
    child.wait().unwrap();
}

// ---- Names of hosts ----

/// As on every common machine.
const LOCALHOST: [&str; 2] = ["::1 localhost", "127.0.0.1 localhost"];

#[test]
#[cfg(target_os = "linux")]
fn localhost_is_two_addresses_to_those_who_connect() {
    if !inside(&hosts(&LOCALHOST)) {
        return;
    }
    for only in ["127.0.0.1:0", "[::1]:0"] {
        let server = Program::serve(&[&format!("echo={only}")]);
        let port = server.addr("echo").port();
        let localhost = format!("localhost:{port}");
        let (code, said, _) = Program::run(&["connect", &localhost]);
        assert!(code == 0 && said.contains("Welcome"), "{only}: {said}");
        let (code, said, stderr) =
            Program::run(&["load", &localhost, "--duration=10ms", "--clients=2"]);
        assert_eq!(code, 0, "{only}: {said}{stderr}");
        let forward = Program::spawn(Command::new(REACTOR).args(["forward", "0", &localhost]));
        let mut client = Client::connect(forward.addr("forward"));
        assert!(client.line().contains("Welcome"), "{only}");
    }
    // The name that was given, and not one of its addresses.
    let port = util::nobody().port();
    let said = format!("reactor: cannot connect to localhost:{port}: nobody listens there\n");
    let refused = Program::run(&["connect", &format!("localhost:{port}")]);
    assert_eq!(refused, (1, String::new(), said));
    let forward =
        Program::spawn(Command::new(REACTOR).args(["forward", "0", &format!("localhost:{port}")]));
    let _client = Client::connect(forward.addr("forward"));
    forward.wait_for_log(&format!("(localhost:{port}) cannot be reached: Connection refused"));
}

#[test]
#[cfg(target_os = "linux")]
fn localhost_is_two_addresses_to_those_who_listen() {
    if !inside(&hosts(&LOCALHOST)) {
        return;
    }
    let server = Program::serve(&["echo=localhost:0"]);
    let (six, four) = (server.addr("echo"), server.addr("echo"));
    assert!(six.is_ipv6() && four.is_ipv4() && six.port() == four.port(), "{six} {four}");
    for addr in [six, four] {
        assert!(Client::connect(addr).line().contains("Welcome"), "{addr}");
    }
    let host = Program::serve(&["echo=0", "--host=localhost"]);
    assert_eq!(host.addr("echo").port(), host.addr("echo").port());
    let taken = format!("echo=localhost:{}", four.port());
    fails(
        Program::serve(&[&taken]),
        1,
        &["cannot listen on localhost:", "::1: the port is in use"],
    );
    let localhost = format!("localhost:{}", four.port());
    let forward =
        Program::spawn(Command::new(REACTOR).args(["forward", "localhost:0", &localhost]));
    for _ in 0..2 {
        assert!(Client::connect(forward.addr("forward")).line().contains("Welcome"));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_family_that_the_machine_lacks_is_passed_over_with_a_warning() {
    let no_ipv6 = "echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6";
    if !inside(&format!("{} && {no_ipv6}", hosts(&LOCALHOST))) {
        return;
    }
    let server = Program::serve(&["echo=localhost:0"]);
    let addr = server.addr("echo");
    assert!(addr.is_ipv4() && Client::connect(addr).line().contains("Welcome"), "{addr}");
    server.wait_for_log("localhost:0: not listening on ::1, which this machine lacks");
    let (code, said, stderr) = Program::run(&["connect", &format!("localhost:{}", addr.port())]);
    assert!(code == 0 && said.contains("Welcome"), "{said}{stderr}");
}

#[test]
#[cfg(target_os = "linux")]
fn an_interface_goes_by_its_name_and_by_its_number() {
    // The kernel makes the route to the address a moment later.
    let route = "until ip -6 route get fe80::1 oif lo >/dev/null 2>&1; do :; done";
    if !inside(&format!("ip addr add fe80::1/64 dev lo nodad && {route}")) {
        return;
    }
    for zone in ["lo", "1"] {
        let server = Program::serve(&[&format!("echo=[fe80::1%{zone}]:0")]);
        let port = server.addr("echo").port();
        let address = format!("[fe80::1%{zone}]:{port}");
        let (code, said, stderr) = Program::run(&["connect", &address]);
        assert!(code == 0 && said.contains("Welcome"), "{address}: {said}{stderr}");
        drop(server);
        let said = format!("cannot connect to {address}: nobody listens there");
        fails(Program::spawn(Command::new(REACTOR).args(["connect", &address])), 1, &[&said]);
    }
    fails(Program::serve(&["echo=[fe80::1%7]:0"]), 1, &["[fe80::1%7]:0: this machine has no such"]);
    let nowhere = Program::spawn(Command::new(REACTOR).args(["connect", "[fe80::1%eth7]:80"]));
    fails(nowhere, 1, &["[fe80::1%eth7]:80: this machine has no interface eth7"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_name_that_cannot_be_looked_up_is_status_1_and_takes_no_longer_than_it_may() {
    if !inside(&hosts(&LOCALHOST)) {
        return;
    }
    let lookups = [&["connect", "nosuch.invalid:80"][..], &["load", "nosuch.invalid:80"]];
    let lookups = lookups.into_iter().chain([&["forward", "0", "nosuch.invalid:80"][..]]);
    for args in lookups.chain([&["serve", "echo=nosuch.invalid:80"][..]]) {
        let program = Program::spawn(Command::new(REACTOR).args(args));
        fails(program, 1, &["cannot look up nosuch.invalid:80: "]);
    }
    // A server that never answers; the resolver would wait for half a minute.
    let _mute = std::net::UdpSocket::bind("127.0.0.53:53").unwrap();
    let began = Instant::now();
    let args = ["connect", "nosuch.invalid:80", "--timeout=300ms"];
    let said = ["cannot look up nosuch.invalid:80: no answer within 300ms"];
    fails(Program::spawn(Command::new(REACTOR).args(args)), 1, &said);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
