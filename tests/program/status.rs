//! The control socket of `serve` and `forward`, by hand; `reactor status` and `reactor close`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::util::folder::Folder;
use crate::util::namespace::inside;
use crate::util::program::{Program, REACTOR, fails};
use crate::util::stranger::{STRANGER, heard_by_stranger};
use crate::util::{Client, PATIENCE, quiet, skip, until};

/// The program, whose user's runtime folder is this one.
fn reactor(runtime: &Folder, args: &[&str]) -> Command {
    let mut command = Command::new(REACTOR);
    command.args(args).env("XDG_RUNTIME_DIR", runtime.path());
    command
}

fn start(runtime: &Folder, args: &[&str]) -> Program {
    Program::spawn(&mut reactor(runtime, args))
}

/// Runs it to its end; gives its status, stdout and stderr.
fn run(runtime: &Folder, args: &[&str]) -> (i32, String, String) {
    start(runtime, args).end()
}

/// Where the program's control socket is.
fn socket(runtime: &Folder, program: &Program) -> PathBuf {
    runtime.file(&format!("reactor/{}.sock", program.pid()))
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// All that is answered to these bytes.
fn ask(path: &Path, bytes: &str) -> String {
    let mut stream = connect(path);
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn it_is_private_speaks_with_anybody_who_may_and_goes_at_the_end() {
    let runtime = Folder::new("runtime");
    for args in [&["serve", "echo=0"][..], &["forward", "0", "127.0.0.1:9"]] {
        let program = start(&runtime, args);
        // Nothing but the ready line, as ever.
        let service = if args[0] == "serve" { "echo" } else { "forward" };
        program.addr(service);
        let path = socket(&runtime, &program);
        assert_eq!((mode(&runtime.file("reactor")), mode(&path)), (0o700, 0o600));
        let said = ask(&path, "limits admin\r\nlog debug\nFROB\nBye\n");
        assert!(said.starts_with("max_connections    8\n"), "{said}");
        assert!(
            said.ends_with("\nOK\nOK\nERROR there is no command FROB; see HELP\nOK\n"),
            "{said}"
        );
        assert!(ask(&path, "RELOAD\nBYE\n").starts_with("OK\n"));
        let line = program.wait_for_log(&format!(" pid {}) is here", std::process::id()));
        assert!(line.contains("DEBUG") && line.contains("admin: #"), "{line}");
        program.wait_for_log("nothing to reload");
        // Somebody who is there and says nothing does not keep it.
        let mut idle = connect(&path);
        program.signal("TERM");
        let (code, stdout, stderr) = program.end();
        assert_eq!((code, &*stdout), (0, ""), "{stderr}");
        assert!(stderr.contains("stopped after 0 connections; 0 were turned away"), "{stderr}");
        assert_eq!(idle.read(&mut [0]).unwrap(), 0);
        assert_eq!(fs::read_dir(runtime.file("reactor")).unwrap().count(), 0);
    }
}

#[test]
fn stop_ends_it_as_a_signal_does() {
    let runtime = Folder::new("stop");
    let program = start(&runtime, &["serve", "echo=0"]);
    let mut client = Client::connect(program.addr("echo"));
    client.line();
    assert_eq!(ask(&socket(&runtime, &program), "STOP\n"), "OK\n");
    client.rest();
    assert_eq!(program.end().0, 0);
}

#[test]
fn another_user_is_turned_out_whatever_the_modes() {
    let runtime = Folder::new("others");
    fs::set_permissions(runtime.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let path = runtime.file("a.sock");
    let program = start(&runtime, &["serve", "echo=0", "--admin", path.to_str().unwrap()]);
    program.addr("echo");
    fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let Some(said) = heard_by_stranger(&path, "STOP\nSTOP\n") else { return };
    assert_eq!(said, "");
    program.wait_for_log(&format!("uid {STRANGER} "));
    assert!(ask(&path, "HELP\nBYE\n").ends_with("OK\nOK\n"));
    assert!(!runtime.file("reactor").exists());
}

/// A folder that somebody else has prepared is not used, and the server runs.
#[test]
fn where_the_folder_is_not_its_own_it_warns_and_serves_without() {
    let runtime = Folder::new("prepared");
    let folder = runtime.file("reactor");
    let (elsewhere, file) = (runtime.file("elsewhere"), runtime.file("file"));
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(&file, "precious").unwrap();
    let serves_without = |words: &str| {
        let program = start(&runtime, &["serve", "echo=0"]);
        Client::connect(program.addr("echo")).line();
        let line = program.wait_for_log("no control socket");
        assert!(line.contains(words) && line.contains("--admin PATH"), "{line}");
        fails(start(&runtime, &["status"]), 1, &[words]);
    };
    symlink(&elsewhere, &folder).unwrap();
    serves_without("is a symbolic link");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    fs::remove_file(&folder).unwrap();
    fs::hard_link(&file, &folder).unwrap();
    serves_without("is no folder");
    fs::remove_file(&folder).unwrap();
    fs::rename(&elsewhere, &folder).unwrap();
    fs::set_permissions(&folder, PermissionsExt::from_mode(0o770)).unwrap();
    serves_without("chmod 700");
    fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).unwrap();
    if std::os::unix::fs::chown(&folder, Some(STRANGER), None).is_err() {
        return skip("only root gives folders away");
    }
    serves_without("belongs to another user");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn what_killed_servers_have_left_is_removed_and_nothing_else() {
    let runtime = Folder::new("stale");
    let mut killed = start(&runtime, &["serve", "echo=0"]);
    killed.addr("echo");
    let stale = socket(&runtime, &killed);
    killed.signal("KILL");
    killed = {
        until("it is gone", || UnixStream::connect(&stale).is_err());
        drop(killed);
        assert!(stale.exists());
        start(&runtime, &["serve", "echo=0"])
    };
    killed.addr("echo");
    // Its process lives, or it is no socket of a server at all.
    let (alive, other) = (runtime.file("reactor/1.sock"), runtime.file("reactor/notes"));
    drop(UnixListener::bind(&alive).unwrap());
    fs::write(&other, "precious").unwrap();
    let program = start(&runtime, &["serve", "echo=0"]);
    program.addr("echo");
    assert!(!stale.exists() && !stale.with_extension("sock.lock").exists());
    assert!(alive.exists() && other.exists());
    fs::remove_file(alive).unwrap();
    assert_eq!(run(&runtime, &["status"]).0, 0);
}

#[test]
fn an_address_of_ones_own_or_none() {
    let runtime = Folder::new("own");
    let path = runtime.file("a.sock");
    let path = path.to_str().unwrap();
    let program = start(&runtime, &["forward", "0", "127.0.0.1:9", "--admin", path]);
    program.addr("forward");
    let (code, stdout, _) = run(&runtime, &["status", path]);
    assert!(code == 0 && stdout.contains("\nforward "), "{stdout}");
    assert_eq!(run(&runtime, &["status", &format!("unix:{path}")]).0, 0);
    // Asked for, it must be there.
    fails(
        start(&runtime, &["serve", "echo=0", "--admin", path]),
        1,
        &["--admin: ", "another server is starting or running there"],
    );
    fails(
        start(&runtime, &["serve", "--no-admin", "--admin", path]),
        2,
        &["--admin", "--no-admin"],
    );
    let none = start(&runtime, &["serve", "echo=0", "--no-admin"]);
    none.addr("echo");
    assert!(!runtime.file("reactor").exists());
    let pid = none.pid().to_string();
    fails(start(&runtime, &["status", &pid]), 1, &["no server", &pid, "--admin PATH"]);
}

#[test]
fn status_shows_all_servers_and_who_is_connected() {
    // One of them is where root's services are, and no other server is there.
    if !inside("mount -t tmpfs none /run") {
        return;
    }
    let runtime = Folder::new("all");
    fails(start(&runtime, &["status"]), 1, &["no server of this user runs", "--admin PATH"]);
    let one = start(&runtime, &["serve", "echo=0", "presence=0", "--max-connections=1"]);
    let (echo, presence) = (one.addr("echo"), one.addr("presence"));
    let mut two = reactor(&runtime, &["forward", "0", &echo.to_string()]);
    let two = Program::spawn(two.env_remove("XDG_RUNTIME_DIR"));
    let forward = two.addr("forward");
    let mut client = Client::connect(presence);
    client.send("HELLO bob\n");
    client.line();

    let (code, stdout, stderr) = run(&runtime, &["status"]);
    assert_eq!((code, &*stderr), (0, ""));
    for program in [&one, &two] {
        assert!(stdout.contains(&format!(", pid {}, up ", program.pid())), "{stdout}");
    }
    for place in [echo, presence, forward] {
        assert!(stdout.lines().any(|line| line.ends_with(&format!(" {place}"))), "{stdout}");
    }
    let peer = client.stream.local_addr().unwrap().to_string();
    let rows = stdout.lines().filter(|line| line.contains(&peer)).collect::<Vec<_>>();
    assert!(rows.len() == 1 && rows[0].starts_with('#') && rows[0].ends_with("input"), "{stdout}");
    assert!(rows[0].contains(" presence "), "{stdout}");

    let pid = one.pid().to_string();
    let (code, stdout, _) = run(&runtime, &["status", "--json", &pid]);
    let object: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &object["pid"]), (0, &one.pid().into()));
    let shown = object["connections"]["shown"].as_array().unwrap();
    let row = shown.iter().find(|row| row["peer"] == *peer).unwrap();
    assert_eq!((&row["service"], &row["lines"]), (&"presence".into(), &1.into()));

    let id = format!("#{}", row["id"]);
    let (code, stdout, stderr) = run(&runtime, &["close", &pid, &id, "too", "loud\x1b[2J"]);
    assert_eq!((code, &*stdout, &*stderr), (0, "", ""));
    client.rest();
    assert!(one.wait_for_log("too loud").contains("closed by the administrator: too loud?[2J"));
    fails(start(&runtime, &["close", &pid, "9999"]), 1, &["there is no connection #9999"]);
    fails(start(&runtime, &["close", &pid, "bob"]), 2, &["'#17'"]);
    fails(start(&runtime, &["close", &pid]), 2, &["in quotes, '#17'"]);
    fails(start(&runtime, &["close", "", "7"]), 2, &["the server is missing", "PATH"]);
    fails(start(&runtime, &["status", "unix:"]), 2, &["the server is missing", "PATH"]);
}

/// Whoever reads only the beginning, or a server that is not what it seems.
#[test]
fn the_output_may_go_away_and_is_safe_to_look_at() {
    let runtime = Folder::new("output");
    let program = start(&runtime, &["serve", "echo=0"]);
    let addr = program.addr("echo");
    let _clients: Vec<_> = (0..500).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let mut child = reactor(&runtime, &["status", "--json", &program.pid().to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("{"), "{line}");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");

    let path = runtime.file("fake.sock");
    let fake = UnixListener::bind(&path).unwrap();
    let answers = |answer: &'static str| {
        let fake = fake.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = fake.accept().unwrap();
            if !answer.is_empty() {
                // The question, whole, lest the end become a reset.
                BufReader::new(&stream).lines().nth(1).unwrap().unwrap();
            }
            let _ = stream.write_all(answer.as_bytes());
        });
        let outcome = run(&runtime, &["status", path.to_str().unwrap()]);
        thread.join().unwrap();
        outcome
    };
    let (code, stdout, _) = answers("\x1b[2Jhello\u{202e}\nOK\nOK\n");
    assert_eq!((code, &*stdout), (0, "?[2Jhello?\n"));
    let (code, _, stderr) = answers("ERROR \x1b[2Jno\n");
    assert!(code == 1 && stderr.contains(": ?[2Jno\n"), "{stderr}");
    let (code, _, stderr) = answers("half\nOK\nha");
    assert!(code == 1 && stderr.contains("its answer broke off"), "{stderr}");
    let long: &str = "x".repeat((1 << 24) + 1).leak();
    let (code, _, stderr) = answers(long);
    assert!(code == 1 && stderr.contains("a line of its answer"), "{stderr}");
    let (code, _, stderr) = answers("");
    assert!(code == 1 && stderr.contains("only the server's own user and root"), "{stderr}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_long_list_takes_no_memory_and_who_does_not_read_it_keeps_nobody() {
    let _quiet = quiet();
    let runtime = Folder::new("long");
    let program = start(&runtime, &["serve", "echo=0"]);
    let addr = program.addr("echo");
    let clients: Vec<_> = (0..2_000).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let path = socket(&runtime, &program);
    let list = |end: &str| ask(&path, &format!("LIST echo\n{end}"));
    let rows = |text: &str| text.lines().filter(|line| line.contains(" echo ")).count();
    until("all are there", || rows(&list("BYE\n")) == clients.len());
    let before = program.peak();
    let mut deaf: Vec<_> = (0..6).map(|_| connect(&path)).collect();
    for stream in &mut deaf {
        stream.write_all("LIST\n".repeat(200).as_bytes()).unwrap();
    }
    for _ in 0..5 {
        assert_eq!(rows(&list("STATUS JSON\nBYE\n")), clients.len());
    }
    let more = program.peak() - before;
    assert!(more < 3 << 20, "{more} bytes more");
    // Others go on, and so does the end.
    let mut client = Client::connect(addr);
    client.line();
    program.signal("TERM");
    drop(clients);
    client.rest();
    let (code, _, stderr) = program.end();
    assert_eq!(code, 0, "{stderr}");
}
