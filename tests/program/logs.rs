//! Where the log goes and how it looks.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::util::folder::Folder;
#[cfg(target_os = "linux")]
use crate::util::namespace::inside;
use crate::util::program::{Program, REACTOR, Running, fails, lines_of, wait};
use crate::util::{Client, PATIENCE, skip, until};

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Waits for a line with these words in the file.
#[track_caller]
fn wait_for(path: &Path, words: &str) {
    until(&format!("{words:?} is in {}", path.display()), || {
        lines(path).iter().any(|line| line.contains(words))
    });
}

/// Comes and goes; the log at `debug` has both.
fn visit(program: &Program, addr: std::net::SocketAddr) {
    let mut client = Client::connect(addr);
    client.send("bye\n");
    assert!(client.rest().ends_with(b"> BYE\n"), "pid {}", program.pid());
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_file_is_appended_to_and_nothing_is_on_stderr() {
    let folder = Folder::new("log-file");
    let file = folder.file("log");
    let option = format!("--log-file={}", file.display());
    for run in 1..=2 {
        let program = Program::serve(&["echo=0", "--no-admin", &option]);
        program.addr("echo");
        program.signal("TERM");
        let (code, _, stderr) = program.end();
        assert_eq!((code, stderr.as_str()), (0, ""));
        let log = lines(&file);
        let ends = log.iter().filter(|line| line.contains("stopped after 0 connections")).count();
        assert_eq!(ends, run, "{log:?}");
    }
    // Less where the umask takes more away.
    let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode & !0o640, 0, "{mode:o}");
    assert_eq!(mode & 0o600, 0o600, "{mode:o}");
}

/// As logrotate does.
#[test]
fn a_file_that_is_moved_away_is_opened_anew_at_sighup() {
    let folder = Folder::new("log-moved");
    let file = folder.file("log");
    let option = format!("--log-file={}", file.display());
    let program = Program::serve(&["echo=0", "--no-admin", "--log=debug", &option]);
    let addr = program.addr("echo");
    for round in 0..5 {
        visit(&program, addr);
        fs::rename(&file, folder.file(&format!("log.{round}"))).unwrap();
        // Meanwhile it goes to the old one.
        visit(&program, addr);
        program.signal("HUP");
        wait_for(&file, "opened anew");
    }
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
    let all: Vec<_> = (0..5).map(|round| lines(&folder.file(&format!("log.{round}")))).collect();
    for (round, old) in all.iter().enumerate() {
        let visits = old.iter().filter(|line| line.contains(" is here")).count();
        assert_eq!(visits, 2, "{round}: {old:?}");
    }
    let last = lines(&file);
    assert!(last.iter().any(|line| line.contains("stopped after 10 connections")), "{last:?}");
}

/// Also where the level leaves out what the signal itself logs.
#[test]
fn it_is_opened_anew_at_any_level() {
    let folder = Folder::new("log-quiet");
    let file = folder.file("log");
    let option = format!("--log-file={}", file.display());
    let program = Program::serve(&["echo=0", "--no-admin", "--log=error", &option]);
    program.addr("echo");
    fs::remove_file(&file).unwrap();
    program.signal("HUP");
    until("the file is there again", || file.exists());
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
    assert_eq!(lines(&file), [""; 0]);
}

/// With the file that the package has as an example.
#[test]
fn logrotate_rotates_it() {
    if Command::new("logrotate").arg("--version").output().is_err() {
        skip("logrotate is not installed");
        return;
    }
    let folder = Folder::new("logrotate");
    let [file, rules, state] = ["reactor.log", "rules", "state"].map(|name| folder.file(name));
    let option = format!("--log-file={}", file.display());
    let program = Program::serve(&["echo=0", "--no-admin", "--log=debug", &option]);
    let addr = program.addr("echo");
    let packed = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/reactor.logrotate");
    let packed = fs::read_to_string(packed).unwrap();
    let by_systemd = "systemctl kill --kill-whom=main --signal=HUP reactor.service";
    let own = packed.replace("/var/log/reactor/reactor.log", file.to_str().unwrap());
    let own = own.replace(by_systemd, &format!("kill -HUP {}", program.pid()));
    assert!(!own.contains("/var/log") && own.contains("kill -HUP"), "{own}");
    fs::write(&rules, own).unwrap();
    for round in 1..=2 {
        visit(&program, addr);
        let mut logrotate = Command::new("logrotate");
        logrotate.arg("--force").arg("--state").arg(&state).arg(&rules);
        let output = logrotate.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
        wait_for(&file, "opened anew");
        let old = lines(&folder.file("reactor.log.1"));
        assert!(old.iter().any(|line| line.contains(&format!("#{round} "))), "{old:?}");
    }
    // The older one is compressed by now, and nobody writes to it any more.
    assert!(folder.file("reactor.log.2.gz").exists());
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
}

#[test]
fn it_is_opened_anew_though_no_descriptor_is_left() {
    let folder = Folder::new("log-starved");
    let file = folder.file("log");
    let option = format!("--log-file={}", file.display());
    let program = Program::serve_after("ulimit -n 40", &["echo=0", "--no-admin", &option]);
    let addr = program.addr("echo");
    let crowd: Vec<_> = (0..60).map(|_| TcpStream::connect(addr).unwrap()).collect();
    wait_for(&file, "out of file descriptors");
    for _ in 0..3 {
        fs::remove_file(&file).unwrap();
        program.signal("HUP");
        wait_for(&file, "opened anew");
    }
    drop(crowd);
}

#[test]
fn what_cannot_be_opened_anew_goes_on_in_the_old_one() {
    let folder = Folder::new("log-gone");
    let (there, gone) = (folder.file("there"), folder.file("gone"));
    fs::create_dir(&there).unwrap();
    let option = format!("--log-file={}", there.join("log").display());
    let program = Program::spawn(
        Command::new(REACTOR).args(["forward", "0", "1", "--no-admin"]).arg(&option),
    );
    program.line();
    fs::rename(&there, &gone).unwrap();
    program.signal("HUP");
    wait_for(&gone.join("log"), "make its folder first; until then the log goes on in the old one");
    fs::create_dir(&there).unwrap();
    program.signal("HUP");
    wait_for(&there.join("log"), "opened anew");
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
    wait_for(&there.join("log"), "stopped after 0 connections");
}

#[test]
fn a_file_that_cannot_be_opened_is_status_1() {
    let folder = Folder::new("log-fails");
    let (pipe, socket) = (folder.file("pipe"), folder.file("socket"));
    fifo(&pipe);
    let _listener = UnixListener::bind(&socket).unwrap();
    for (path, words) in [
        (folder.file("no/log"), "make its folder first"),
        (folder.path().to_owned(), "give a file in it"),
        (pipe, "start first what reads this FIFO"),
        (socket, "a socket cannot be opened"),
    ] {
        let option = format!("--log-file={}", path.display());
        let program = Program::serve(&["echo=0", "--no-admin", &option]);
        fails(program, 1, &["--log-file", path.to_str().unwrap(), words]);
    }
    fails(Program::serve(&["echo=0", "--log-format=xml"]), 2, &["--log-format", "text, json"]);
}

/// It waits in the thread of the log, and nobody else does.
#[test]
fn a_fifo_that_nobody_reads_any_more_stops_nobody() {
    let folder = Folder::new("log-fifo");
    let pipe = folder.file("pipe");
    fifo(&pipe);
    // Both ends, so that opening it does not wait.
    let reader = File::options().read(true).write(true).open(&pipe).unwrap();
    let option = format!("--log-file={}", pipe.display());
    let program = Program::serve(&["echo=0", "--no-admin", "--log=trace", &option]);
    let addr = program.addr("echo");
    // Each writes about 200 bytes of log; 64 KiB fit.
    for _ in 0..1000 {
        visit(&program, addr);
    }
    // It is read again.
    let log = lines_of(reader);
    until("the log says what it has lost", || {
        visit(&program, addr);
        log.try_iter().any(|line| line.contains("lines of this log were lost"))
    });
    program.signal("TERM");
    until("the log ends", || log.try_iter().any(|line| line.contains("stopped after")));
    assert_eq!(program.end().0, 0);
}

#[test]
fn a_file_may_be_a_stream_of_the_process() {
    let (read, log) = std::io::pipe().unwrap();
    let mut child = Command::new(REACTOR)
        .args(["serve", "echo=0", "--no-admin", "--log-file=/dev/stderr"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let mut log = BufReader::new(read).lines().map(Result::unwrap);
    // One after the other: a SIGHUP that comes with the end has nothing opened anew.
    for (signal, told) in [("HUP", "opened anew"), ("TERM", "stopped after 0")] {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        assert!(log.any(|line| line.contains(told)), "{told}");
    }
    assert_eq!(wait(&mut child).code(), Some(0));
}

/// One line is torn in the middle at most, and the next one begins anew.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_loses_lines_and_says_how_many() {
    if !inside("mount -t tmpfs -o size=16k none /mnt") {
        return;
    }
    let (file, other) = (Path::new("/mnt/log"), Path::new("/mnt/other"));
    fs::write(other, [b'x'; 8192]).unwrap();
    let program = Program::serve(&[
        "echo=0",
        "--no-admin",
        "--log=trace",
        "--log-format=json",
        "--log-file=/mnt/log",
    ]);
    let addr = program.addr("echo");
    let mut visits = 0;
    while File::options()
        .append(true)
        .open(other)
        .and_then(|mut it| it.write_all(&[0; 4096]))
        .is_ok()
    {
        visit(&program, addr);
        visits += 1;
    }
    for _ in 0..50 {
        visit(&program, addr);
    }
    fs::remove_file(other).unwrap();
    visit(&program, addr);
    wait_for(file, "lines of this log were lost");
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
    let log = lines(file);
    let torn = log.iter().filter(|line| serde_json::from_str::<Value>(line).is_err()).count();
    assert!(torn <= 1, "{log:?}");
    assert!(log.last().unwrap().contains(&format!("after {} conn", visits + 51)), "{log:?}");
}

/// What the log quotes comes from clients.
#[test]
fn json_is_an_object_on_each_line_whatever_it_quotes() {
    let folder = Folder::new("log-json");
    let (file, admin) = (folder.file("log"), folder.file("admin"));
    let options =
        [format!("--log-file={}", file.display()), format!("--admin={}", admin.display())];
    let program =
        Program::serve(&["echo=0", "--log=debug", "--log-format=json", &options[0], &options[1]]);
    let mut client = Client::connect(program.addr("echo"));
    client.send("hello\n");
    let mut admin = UnixStream::connect(&admin).unwrap();
    let why = b"too \"loud\" \\ {}\t\x01\x7f\x1b[31m \xff\xfe \xe2\x80\xa8 end";
    let mut bytes: Vec<u8> = b"CLOSE #1 ".to_vec();
    bytes.extend(why);
    admin.write_all(&[&bytes, &b"\nBYE\n"[..]].concat()).unwrap();
    wait_for(&file, "too ");
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
    let objects: Vec<Value> =
        lines(&file).iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(objects.len() > 3);
    for object in &objects {
        for key in ["time", "level", "target", "message"] {
            assert!(object[key].is_string(), "{object}");
        }
        assert_eq!(object.as_object().unwrap().len(), 4, "{object}");
    }
    let said = |words| objects.iter().any(|it| it["message"].as_str().unwrap().contains(words));
    assert!(said("too \"loud\" \\ {}") && said(" end"), "{objects:?}");
}

/// Others may write to the same file.
#[test]
fn an_object_is_one_write() {
    // Each write is a datagram.
    let (screen, log) = UnixDatagram::pair().unwrap();
    screen.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(REACTOR);
    command.args(["serve", "echo=0", "--no-admin", "--log-format=json", "--log=trace"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(OwnedFd::from(log));
    let mut running = Running(command.spawn().unwrap());
    let stdout = running.0.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut String::new()).unwrap();
    let pid = running.0.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    loop {
        let mut buffer = [0; 4096];
        let count = screen.recv(&mut buffer).expect("nothing is written");
        let line = std::str::from_utf8(&buffer[..count]).unwrap().strip_suffix('\n').unwrap();
        let object: Value = serde_json::from_str(line).expect(line);
        if object["message"].as_str().unwrap().contains("stopped after 0 connections") {
            break;
        }
    }
    assert_eq!(wait(&mut running.0).code(), Some(0));
}
