//! `reactor connect`: whatever standard input and output are, one loop watches them and the
//! socket.

use std::fs::File;
use std::io::{ErrorKind, PipeWriter, Read, Write, pipe};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use reactor::Limits;
use reactor::services::Echo;

use crate::util::folder::Folder;
use crate::util::namespace::inside;
#[cfg(target_os = "linux")]
use crate::util::program::terminal;
use crate::util::program::{self, Program, REACTOR, Running};
use crate::util::{self, Client, PATIENCE, Server};

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";

fn connect(addr: impl ToString, options: &[&str], stdin: impl Into<Stdio>) -> Program {
    let mut command = Command::new(REACTOR);
    Program::spawn_with(command.arg("connect").arg(addr.to_string()).args(options), stdin)
}

/// A server that the test plays itself, and the client that has connected to it.
fn with_server(options: &[&str], stdin: impl Into<Stdio>) -> (Program, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let program = connect(listener.local_addr().unwrap(), options, stdin);
    (program, Client::from(listener.accept().unwrap().0))
}

/// The same, typing into a pipe.
fn with_pipe(options: &[&str]) -> (Program, Client, PipeWriter) {
    let (stdin, typing) = pipe().unwrap();
    let (program, server) = with_server(options, stdin);
    (program, server, typing)
}

#[track_caller]
fn ends(program: Program, code: i32, stdout: &str, stderr: &str) {
    assert_eq!(program.end(), (code, stdout.to_owned(), stderr.to_owned()));
}

#[test]
fn what_is_piped_in_is_answered() {
    let echo = Server::start(Limits::default(), || Echo);
    let script = format!("printf 'hi\\nbye\\n' | {REACTOR} connect {}", echo.addr);
    let program = Program::spawn(Command::new("sh").arg("-c").arg(script));
    ends(program, 0, &format!("{GREETING}> HI\n> BYE\n"), "");
}

#[test]
fn files_and_nothing_are_input_too() {
    let folder = Folder::new("connect");
    let echo = Server::start(Limits::default(), || Echo);
    let lines: String = (0..20_000).map(|n| format!("LINE {n}\n")).collect();
    std::fs::write(folder.file("input"), &lines).unwrap();
    let program = connect(echo.addr, &[], File::open(folder.file("input")).unwrap());
    let replies: String = lines.lines().map(|line| format!("> {line}\n")).collect();
    ends(program, 0, &(GREETING.to_owned() + &replies), "");
    ends(connect(echo.addr, &[], Stdio::null()), 0, GREETING, "");

    // And files are output.
    let output = File::create(folder.file("output")).unwrap();
    let mut command = Command::new(REACTOR);
    command.arg("connect").arg(echo.addr.to_string()).stdout(output);
    let input = File::open(folder.file("input")).unwrap();
    assert!(command.stdin(input).status().unwrap().success());
    let said = std::fs::read_to_string(folder.file("output")).unwrap();
    assert!(said == GREETING.to_owned() + &replies);
}

#[test]
fn the_end_of_the_input_is_the_end_of_our_side_only() {
    let (program, mut server, mut typing) = with_pipe(&[]);
    typing.write_all(b"question").unwrap();
    server.expect("question");
    drop(typing);
    assert_eq!(server.rest(), b"");
    server.send("answer\n");
    assert_eq!(program.line(), "answer");
    server.send("and more, without an end");
    server.end();
    ends(program, 0, "and more, without an end\n", "");
}

#[test]
fn a_server_that_has_nothing_to_say_gets_all_the_input() {
    let (program, mut server, mut typing) = with_pipe(&[]);
    server.send("I listen\n");
    server.end();
    assert_eq!(program.line(), "I listen");
    let lines = "a long story\n".repeat(100_000);
    let story = lines.clone();
    let writer = std::thread::spawn(move || typing.write_all(story.as_bytes()).unwrap());
    assert!(server.rest() == lines.as_bytes());
    writer.join().unwrap();
    ends(program, 0, "", "");
}

#[test]
fn a_pipe_may_be_a_unix_socket_to_a_unix_socket() {
    let folder = Folder::new("connect-unix");
    let address = format!("unix:{}", folder.file("echo").display());
    let server = Program::serve(&[&format!("echo={address}")]);
    server.line();
    let (stdin, mut typing) = std::os::unix::net::UnixStream::pair().unwrap();
    let program = connect(address, &[], OwnedFd::from(stdin));
    typing.write_all(b"hello\nbye\n").unwrap();
    drop(typing);
    ends(program, 0, &format!("{GREETING}> HELLO\n> BYE\n"), "");
}

// ---- Terminals ----

/// Whether the descriptor blocks, which is a property of all its duplicates.
#[cfg(target_os = "linux")]
fn blocks(of: &impl AsRawFd) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", of.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_NONBLOCK == 0
}

#[test]
#[cfg(target_os = "linux")]
fn at_a_terminal_lines_are_sent_as_they_are_typed_until_ctrl_d() {
    let (mut keyboard, screen) = terminal();
    let (program, mut server) = with_server(&[], screen.try_clone().unwrap());
    keyboard.write_all(b"one\n").unwrap();
    server.expect("one\n");
    server.send("first\n");
    assert_eq!(program.line(), "first");
    assert!(blocks(&screen), "the shell would get that terminal back");
    keyboard.write_all(b"two\nthree\n").unwrap();
    server.expect("two\nthree\n");
    keyboard.write_all(b"\x04").unwrap();
    assert_eq!(server.rest(), b"");
    server.send("last\n");
    server.end();
    ends(program, 0, "last\n", "");
    assert!(blocks(&screen));
}

#[test]
#[cfg(target_os = "linux")]
fn at_a_terminal_it_is_over_when_the_server_ends() {
    let (_keyboard, screen) = terminal();
    let (program, mut server) = with_server(&[], screen.try_clone().unwrap());
    server.send("bye\n");
    server.end();
    ends(program, 0, "bye\n", "");
    assert_eq!(server.rest(), b"");
}

#[test]
#[cfg(target_os = "linux")]
fn a_screen_that_is_held_does_not_hold_the_loop() {
    let (mut keyboard, screen) = terminal();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(REACTOR);
    command.args(["connect", &listener.local_addr().unwrap().to_string()]);
    command.stdin(screen.try_clone().unwrap()).stdout(screen.try_clone().unwrap());
    let mut child = Running(command.spawn().unwrap());
    // The command would hold the terminal open.
    drop(command);
    let mut server = Client::from(listener.accept().unwrap().0);
    keyboard.write_all(b"ready?\n").unwrap();
    server.expect("ready?\n");
    // Ctrl-S, and more than the screen takes; Ctrl-Q.
    keyboard.write_all(b"\x13").unwrap();
    server.send("x".repeat(200_000) + "\n");
    for n in 0..20 {
        writeln!(keyboard, "line {n}").unwrap();
        server.expect(format!("line {n}\n"));
    }
    keyboard.write_all(b"\x11").unwrap();
    server.end();
    drop(screen);
    let reader = std::thread::spawn(move || {
        let (mut seen, mut buf) = (0, [0; 4096]);
        // A terminal that nobody holds any longer is an error.
        while let Ok(count) = keyboard.read(&mut buf) {
            seen += buf[..count].iter().filter(|byte| **byte == b'x').count();
        }
        seen
    });
    assert!(program::wait(&mut child.0).success());
    assert_eq!(reader.join().unwrap(), 200_000);
}

// ---- CRLF ----

#[test]
fn lines_end_with_crlf_on_the_way_out_if_that_is_asked_for() {
    for (options, wanted) in [
        (&["--crlf"][..], "GET / HTTP/1.0\r\nHost: x\r\n\r\nlast"),
        (&[][..], "GET / HTTP/1.0\nHost: x\r\n\nlast"),
    ] {
        let (program, mut server, mut typing) = with_pipe(options);
        for piece in ["GET / HTTP/1.0\nHost: x\r", "\n", "\nlast"] {
            typing.write_all(piece.as_bytes()).unwrap();
        }
        drop(typing);
        assert_eq!(String::from_utf8(server.rest()).unwrap(), wanted);
        server.send("as\nit\r\ncomes\n");
        server.end();
        ends(program, 0, "as\nit\r\ncomes\n", "");
    }
}

// ---- Backpressure ----

const MIB: usize = 1024 * 1024;

/// More than the kernel's buffers hold.
fn much() -> Vec<u8> {
    (0..32 * MIB).map(|n| (n % 251) as u8).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn memory_stays_flat_when_the_server_is_slow() {
    // What one takes that has next to nothing to do.
    let (program, mut server) = with_server(&[], Stdio::null());
    server.send("hello\n");
    assert_eq!(program.line(), "hello");
    let before = program.peak();

    let folder = Folder::new("connect-slow");
    let bytes = much();
    std::fs::write(folder.file("input"), &bytes).unwrap();
    let (program, mut server) = with_server(&[], File::open(folder.file("input")).unwrap());
    // What it says is printed all the while.
    for n in 0..100 {
        server.send(format!("{n}\n"));
        assert_eq!(program.line(), n.to_string());
    }
    assert!(server.rest() == bytes);
    let grown = program.peak().saturating_sub(before);
    assert!(grown < 8 * MIB, "{grown} bytes more");
}

#[test]
#[cfg(target_os = "linux")]
fn memory_stays_flat_when_the_reader_of_the_output_is_slow() {
    let bytes = much();
    let (mut output, stdout) = pipe().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(REACTOR);
    command.args(["connect", &listener.local_addr().unwrap().to_string()]);
    let mut child = Running(command.stdin(Stdio::null()).stdout(stdout).spawn().unwrap());
    // The command would hold the pipe open.
    drop(command);
    let mut server = Client::from(listener.accept().unwrap().0);
    server.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    server.send(&bytes[..1]);
    output.read_exact(&mut [0]).unwrap();
    let before = util::peak(child.0.id());
    let mut sent = 1;
    let stuck = loop {
        assert!(sent < bytes.len(), "all of it is taken though nobody reads it");
        match server.stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => break error,
        }
    };
    assert_eq!(stuck.kind(), ErrorKind::WouldBlock);
    let grown = util::peak(child.0.id()) - before;
    assert!(grown < 8 * MIB, "{grown} bytes more");
    server.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let rest = bytes[sent..].to_vec();
    let writer = std::thread::spawn(move || {
        server.send(rest);
        server.end();
    });
    let mut got = Vec::new();
    output.read_to_end(&mut got).unwrap();
    assert!(got == bytes[1..]);
    writer.join().unwrap();
    assert!(program::wait(&mut child.0).success());
}

// ---- Failures ----

#[test]
fn a_server_that_cannot_be_reached_is_one_line() {
    let addr = util::nobody();
    let said = format!("reactor: cannot connect to {addr}: nobody listens there\n");
    // The input is not touched, and no reason to wait.
    let (stdin, _typing) = pipe().unwrap();
    ends(connect(addr, &[], stdin), 1, "", &said);
    let said = "reactor: cannot connect to unix:/nowhere/at/all: there is no such socket\n";
    ends(connect("unix:/nowhere/at/all", &[], Stdio::null()), 1, "", said);
    let long = format!("unix:/tmp/{}", "x".repeat(120));
    let said = "a path of 125 bytes is too long for a socket";
    let said = format!("reactor: cannot connect to {long}: {said}\n");
    ends(connect(&long, &[], Stdio::null()), 1, "", &said);
    // No client need come first.
    let (code, _, stderr) = Program::run(&["forward", "0", &long]);
    assert_eq!((code, stderr), (1, said));
}

/// TCP connects a socket to itself whose own port is the one where nobody listens.
#[test]
#[cfg(target_os = "linux")]
fn nobody_is_not_itself() {
    // One port for all who connect.
    if !inside("echo 40000 40000 > /proc/sys/net/ipv4/ip_local_port_range") {
        return;
    }
    let said = "reactor: cannot connect to 127.0.0.1:40000: nobody listens there\n";
    let (stdin, mut typing) = pipe().unwrap();
    typing.write_all(b"who is there?\n").unwrap();
    ends(connect("127.0.0.1:40000", &[], stdin), 1, "", said);
    let load = ["load", "40000", "--clients=1", "--duration=1s"];
    let (code, _, stderr) = Program::run(&load);
    assert_eq!((code, stderr.as_str()), (1, said));
    // It has left nothing behind in the server's place.
    let server = Program::serve(&["echo=40000"]);
    assert_eq!(server.addr("echo").port(), 40000);
}

#[test]
#[cfg(target_os = "linux")]
fn a_server_that_does_not_answer_is_given_up() {
    // Takes one connection into its queue and lets the others wait.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let addr = full.local_addr().unwrap().as_socket().unwrap();
    let _first = TcpStream::connect(addr).unwrap();
    let said = format!(
        "reactor: cannot connect to {addr}: no answer within 100ms; --timeout allows it more\n"
    );
    ends(connect(addr, &["--timeout=100ms"], Stdio::null()), 1, "", &said);
}

#[test]
fn a_reset_is_one_line_after_what_came_before_it() {
    let (program, mut server, _typing) = with_pipe(&[]);
    let addr = server.stream.local_addr().unwrap();
    server.send("hello\n");
    assert_eq!(program.line(), "hello");
    server.reset();
    let reset = std::io::Error::from_raw_os_error(libc::ECONNRESET);
    let said = format!("reactor: the connection to {addr} broke: {reset}\n");
    ends(program, 1, "", &said);
}

#[test]
fn who_reads_no_further_ends_it_quietly() {
    let (program, server, _typing) = {
        let (stdin, typing) = pipe().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let script = format!("{REACTOR} connect {} | head -n 1", listener.local_addr().unwrap());
        let program = Program::spawn_with(
            Command::new("bash").args(["-o", "pipefail", "-c", &script]),
            stdin,
        );
        (program, Client::from(listener.accept().unwrap().0), typing)
    };
    let mut stream = server.stream;
    let lines = "yes\n".repeat(1000);
    while stream.write_all(lines.as_bytes()).is_ok() {}
    ends(program, 0, "yes\n", "");
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_cannot_be_written_is_an_error_even_if_it_is_the_last() {
    let echo = Server::start(Limits::default(), || Echo);
    let script = format!("printf 'bye\\n' | {REACTOR} connect {} >/dev/full", echo.addr);
    let program = Program::spawn(Command::new("sh").arg("-c").arg(script));
    let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
    let said =
        format!("reactor: standard output cannot be written: {full}; redirect it with >FILE\n");
    ends(program, 1, "", &said);

    let (mut program, mut server) = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let script = format!("{REACTOR} connect {} >/dev/full", listener.local_addr().unwrap());
        let program = Program::spawn(Command::new("sh").arg("-c").arg(script));
        (Some(program), Client::from(listener.accept().unwrap().0))
    };
    assert_eq!(server.rest(), b"");
    server.send("at the very end");
    server.end();
    ends(program.take().unwrap(), 1, "", &said);
}

#[test]
fn input_that_cannot_be_read_is_an_error() {
    let folder = Folder::new("unreadable");
    let written = File::create(folder.file("output")).unwrap();
    for (stdin, number) in [(File::open("/").unwrap(), libc::EISDIR), (written, libc::EBADF)] {
        let (program, _server) = with_server(&[], stdin);
        let said = format!(
            "reactor: standard input cannot be read: {}; redirect it with <FILE, or </dev/null \
             for none\n",
            std::io::Error::from_raw_os_error(number)
        );
        ends(program, 1, "", &said);
    }
}

#[test]
fn without_descriptors_it_fails_in_one_line() {
    let echo = Server::start(Limits::default(), || Echo);
    let mut worked = 0;
    for limit in 4..16 {
        let script = format!("ulimit -n {limit}; exec {REACTOR} connect {}", echo.addr);
        let program = Program::spawn(Command::new("sh").arg("-c").arg(script));
        let (code, stdout, stderr) = program.end();
        match code {
            0 => assert_eq!((stdout.as_str(), stderr.as_str()), (GREETING, "")),
            _ => {
                assert_eq!((code, stderr.lines().count()), (1, 1), "limit {limit}: {stderr}");
                assert!(stderr.contains("ulimit -n"), "limit {limit}: {stderr}");
            }
        }
        worked += usize::from(code == 0);
    }
    assert!((1..12).contains(&worked), "{worked} of 12 worked");
}

#[test]
fn a_wrong_command_line_is_one_line_with_the_remedy() {
    for (args, words) in [
        (&["connect"][..], "<ADDR>"),
        (&["connect", "127.0.0.1"], "write 127.0.0.1:PORT"),
        (&["connect", "127.0.0.1", "2323"], "one word: write HOST:2323"),
        (&["load", "127.0.0.1", "2323"], "one word: write HOST:2323"),
        (&["forward", "0", "127.0.0.1", "2323"], "one word: write HOST:2323"),
        (&["connect", "localhost:1", "2323"], "one word: write HOST:2323"),
        (&["connect", "ECHO"], "or did you mean echo?"),
        (&["load", "presense"], "or did you mean presence?"),
        (&["connect", ":2323"], "write 127.0.0.1:2323"),
        (&["connect", "tcp://127.0.0.1:2323"], "write 127.0.0.1:2323"),
        (&["connect", "0"], "nobody can be reached at port 0"),
        (&["connect", "2323", "--timeout=5"], "add a unit"),
    ] {
        let (code, stdout, stderr) = Program::run(args);
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains(words), "{args:?}: {stderr}");
    }
}
