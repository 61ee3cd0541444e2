//! How an upgrade is asked for, and what keeps it from taking place: then nothing has changed.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::Command;

use crate::util::folder::Folder;
use crate::util::namespace::inside;
use crate::util::program::{Program, REACTOR, fails};
use crate::util::{Client, PATIENCE, until};

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";

/// A server of a program that may be another one at an upgrade.
struct Replaceable {
    folder: Folder,
    path: PathBuf,
}

impl Replaceable {
    fn new(name: &str) -> Replaceable {
        let folder = Folder::new(name);
        let path = folder.file("reactor");
        fs::hard_link(REACTOR, &path).or_else(|_| fs::copy(REACTOR, &path).map(drop)).unwrap();
        Replaceable { folder, path }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(args).env("XDG_RUNTIME_DIR", self.folder.path());
        command.arg(format!("--admin={}", self.admin()));
        command
    }

    fn admin(&self) -> String {
        self.folder.file("admin.sock").display().to_string()
    }

    /// Puts a script in the place of the program, as a package does.
    fn replace(&self, script: &str) {
        let new = self.folder.file("new");
        fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, &self.path).unwrap();
    }

    /// Puts the right program there again.
    fn repair(&self) {
        self.replace(&format!("exec {REACTOR} \"$@\""));
    }

    fn upgrade(&self) -> (i32, String, String) {
        Program::run(&["upgrade", &self.admin()])
    }

    /// Stops the server that has the control socket.
    fn stop(&self) {
        let mut admin = UnixStream::connect(self.folder.file("admin.sock")).unwrap();
        admin.write_all(b"STOP\n").unwrap();
        let _ = admin.read_to_end(&mut Vec::new());
    }
}

impl Drop for Replaceable {
    fn drop(&mut self) {
        // Where a test has failed, a process that nobody knows may serve.
        if let Ok(mut admin) = UnixStream::connect(self.folder.file("admin.sock")) {
            let _ = admin.write_all(b"STOP\n");
        }
    }
}

/// The PID at the end of `handed on 1 connection to process 17; 2 stay`.
fn successor(said: &str) -> u32 {
    let (_, pid) = said.split_once(" to process ").unwrap_or_else(|| panic!("{said}"));
    pid.split(|it: char| !it.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn half_a_line(program: &Program) -> Client {
    let mut client = Client::connect(program.addr("echo"));
    client.expect(GREETING);
    client.send("hel");
    client
}

fn the_other_half(client: &mut Client) {
    client.send("lo\n");
    client.expect("> HELLO\n");
}

#[test]
fn by_the_control_socket_one_after_the_other() {
    for threads in ["1", "3"] {
        let server = Replaceable::new("asked");
        let threads = format!("--threads={threads}");
        let first = Program::spawn(&mut server.command(&["serve", "echo=0", &threads]));
        let addr = first.addr("echo");
        let mut clients = [(); 3].map(|()| Client::connect(addr));
        clients.iter_mut().for_each(|client| client.expect(GREETING));
        let mut before = first.pid();
        for round in 0..3 {
            clients.iter_mut().for_each(|client| client.send("hel"));
            let (status, said, error) = server.upgrade();
            assert_eq!((status, &*error), (0, ""), "{said}");
            let pid = successor(&said);
            assert_eq!(said, format!("handed on 3 connections to process {pid}\n"), "{round}");
            assert_ne!(pid, before);
            // Which of the two lines comes first is open.
            first.wait_for_log(&format!("goes on for process {before}"));
            before = pid;
            clients.iter_mut().for_each(the_other_half);
            let mut newcomer = Client::connect(addr);
            newcomer.expect(GREETING);
            newcomer.send("bye\n");
            newcomer.expect("> BYE\n");
            assert_eq!(newcomer.rest(), b"");
        }
        let (status, said, _) = Program::run(&["status", &server.admin()]);
        assert!(status == 0 && said.contains(&format!("pid {before},")), "{said}");
        server.stop();
        let (status, said, log) = first.end();
        assert_eq!(status, 0, "{log}");
        // Each says where it listens.
        assert_eq!(said, format!("echo listening on {addr}\n").repeat(3));
        assert_eq!(log.matches("upgrade: handed on 3 connections to process").count(), 3, "{log}");
        assert!(!log.contains("ERROR"), "{log}");
        assert!(!server.folder.file("admin.sock").exists());
    }
}

#[test]
fn by_a_signal() {
    let mut command = Command::new(REACTOR);
    let first = Program::spawn(command.args(["serve", "echo=0", "--no-admin"]));
    let mut client = half_a_line(&first);
    let (status, said, error) = Program::run(&["upgrade", &first.pid().to_string()]);
    assert_eq!((status, &*error), (0, ""), "{said}");
    let log = first.wait_for_log("upgrade: handed on 1 connection");
    let pid = successor(&log);
    assert_eq!(said, format!("process {pid} goes on for process {}\n", first.pid()));
    the_other_half(&mut client);
    // Most often all has happened between two looks at the processes.
    let mut last = pid.to_string();
    for _ in 0..5 {
        let (status, said, error) = Program::run(&["upgrade", &last]);
        assert_eq!((status, &*error), (0, ""), "{said}");
        let next = said.strip_prefix("process ").and_then(|said| said.split_once(' ')).unwrap().0;
        assert_eq!(said, format!("process {next} goes on for process {last}\n"));
        last = next.to_owned();
    }
    crate::util::redis::signal(last.parse().unwrap(), "TERM");
    assert_eq!(first.end().0, 0);
    // Nobody is ended who does not know the signal.
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = other.id().to_string();
    let refused = Program::spawn(Command::new(REACTOR).args(["upgrade", &pid]));
    fails(refused, 1, &[&pid, "does not wait for SIGUSR2"]);
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn what_cannot_go_on_changes_nothing() {
    let server = Replaceable::new("stays");
    let config = server.folder.file("reactor.toml");
    fs::write(&config, "[echo]\naddress = 0\n").unwrap();
    let mut command = server.command(&["serve", "--config", config.to_str().unwrap()]);
    let first = Program::spawn(command.env("REACTOR_UPGRADE_PATIENCE", "2000"));
    let mut client = half_a_line(&first);
    let fails = |words: &[&str]| {
        let (status, said, error) = server.upgrade();
        assert_eq!((status, &*said), (1, ""), "{error}");
        let log = first.wait_for_log("upgrade: nothing has changed: ");
        for words in words {
            assert!(error.contains(words) && log.contains(words), "{words}: {error}{log}");
        }
    };
    server.replace("exit 3");
    fails(&["the other process has gone (exit status: 3)"]);
    server.replace("exec sleep 100");
    fails(&["says nothing for 2s"]);
    fs::remove_file(&server.path).unwrap();
    fails(&["cannot be started: No such file"]);
    server.repair();
    fs::write(&config, "[echo]\naddress = 0\nmax-lin = 5\n").unwrap();
    fails(&["the other process says: ", "reactor.toml:3: ", "max-lin", "(exit status: 1)"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    fs::write(&config, format!("[echo]\naddress = [0, {port}]\n")).unwrap();
    // The remedy is there to be copied.
    fails(&[&format!("ss -ltnp 'sport = :{port}' (exit status: 1)")]);
    fs::write(&config, "[echo]\naddress = 0\nmax-line = 50\n").unwrap();
    let (status, said, error) = server.upgrade();
    assert_eq!(status, 0, "{error}");
    assert!(said.starts_with("handed on 1 connection to process "), "{said}");
    the_other_half(&mut client);
    client.send([b'x'; 60]);
    client.expect("Line too long (");
    server.stop();
    let (status, _, log) = first.end();
    assert_eq!(status, 0);
    assert!(!log.contains("reactor: "), "{log}");
}

#[test]
fn one_at_a_time() {
    let server = Replaceable::new("meanwhile");
    let first = Program::spawn(&mut server.command(&["serve", "echo=0"]));
    let mut client = half_a_line(&first);
    let (go, gone) = (server.folder.file("go"), server.folder.file("started"));
    let (wait, tell) = (go.display(), gone.display());
    server.replace(&format!(
        "touch {tell}; while ! [ -e {wait} ]; do sleep 0.02; done; exec {REACTOR} \"$@\""
    ));
    let mut command = Command::new(REACTOR);
    let asked = Program::spawn(command.args(["upgrade", &server.admin()]));
    until("the new process starts", || gone.exists());
    let (status, _, error) = server.upgrade();
    assert!(status == 1 && error.contains("an upgrade is under way"), "{error}");
    first.signal("USR2");
    first.wait_for_log("upgrade: an upgrade is under way");
    the_other_half(&mut client);
    fs::write(go, "").unwrap();
    let (status, said, error) = asked.end();
    assert_eq!((status, &*error), (0, ""), "{said}");
    client.send("hel");
    the_other_half(&mut client);
    server.stop();
    assert_eq!(first.end().0, 0);
}

/// By the name that a shell finds it under, whose link leads to the new version; and by the link itself.
#[test]
fn a_link_leads_to_the_program_that_is_there_now() {
    let folder = Folder::new("link");
    let [old, new, link] = ["old", "new", "reactor"].map(|name| folder.file(name));
    let exe = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let copy = |to: &PathBuf| {
        fs::hard_link(REACTOR, to).or_else(|_| fs::copy(REACTOR, to).map(drop)).unwrap();
    };
    [&old, &new].into_iter().for_each(copy);
    let path = format!("{}:/bin", folder.path().display());
    for word in ["reactor", link.to_str().unwrap()] {
        let _ = fs::remove_file(&link);
        symlink(&old, &link).unwrap();
        let admin = folder.file("admin.sock").display().to_string();
        let script = "exec \"$0\" serve echo=0 --admin=\"$1\"";
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, word, &admin]).env("PATH", &path);
        let first = Program::spawn(&mut command);
        first.place("echo");
        assert_eq!(exe(first.pid()), old);
        fs::remove_file(&link).unwrap();
        symlink(&new, &link).unwrap();
        let (status, said, error) = Program::run(&["upgrade", &admin]);
        assert_eq!((status, &*error), (0, ""), "{said}");
        let pid = successor(&said);
        assert_eq!(exe(pid), new, "{word}");
        crate::util::redis::signal(pid, "TERM");
        assert_eq!(first.end().0, 0);
    }
}

/// It has opened its log and read its configuration, maybe, when a SIGHUP is for both of that.
#[test]
fn a_hang_up_meanwhile_is_for_the_new_process_too() {
    let server = Replaceable::new("hang-up");
    let config = server.folder.file("reactor.toml");
    fs::write(&config, "[echo]\naddress = 0\n").unwrap();
    let mut command = server.command(&["serve", "--config", config.to_str().unwrap()]);
    let first = Program::spawn(&mut command);
    let mut client = half_a_line(&first);
    server.replace(&format!("kill -HUP $PPID; exec {REACTOR} \"$@\""));
    let (status, _, error) = server.upgrade();
    assert_eq!(status, 0, "{error}");
    // One line of each process.
    first.wait_for_log("reload: ");
    first.wait_for_log("reload: ");
    the_other_half(&mut client);
    server.stop();
    assert_eq!(first.end().0, 0);
}

#[test]
fn who_asks_for_one_is_told_of_a_shutdown() {
    let server = Replaceable::new("shutdown");
    let first = Program::spawn(&mut server.command(&["serve", "echo=0"]));
    first.place("echo");
    let started = server.folder.file("started");
    server.replace(&format!("touch {}; exec cat >/dev/null", started.display()));
    let mut command = Command::new(REACTOR);
    let asked = Program::spawn(command.args(["upgrade", &server.admin()]));
    until("the new process starts", || started.exists());
    first.signal("TERM");
    fails(asked, 1, &["nothing has changed: it is shutting down"]);
    assert_eq!(first.end().0, 0);
}

/// Nor does it listen as one that was started by hand, where the old one does no more.
#[test]
fn who_is_to_go_on_for_a_process_that_has_gone_does_not_start() {
    let server = Replaceable::new("orphan");
    let first = Program::spawn(&mut server.command(&["serve", "echo=0"]));
    first.place("echo");
    let [started, go] = ["started", "go"].map(|name| server.folder.file(name));
    let (tell, wait) = (started.display(), go.display());
    server.replace(&format!(
        "touch {tell}; while ! [ -e {wait} ]; do sleep 0.02; done; exec {REACTOR} \"$@\""
    ));
    first.signal("USR2");
    until("the new process starts", || started.exists());
    let pid = first.pid();
    first.signal("KILL");
    until("it has gone", || !fs::exists(format!("/proc/{pid}/fd/0")).unwrap());
    fs::write(go, "").unwrap();
    let log = first.wait_for_log("reactor: ");
    assert!(log.contains(&format!("process {pid}, ")) && log.contains("has gone"), "{log}");
}

/// As in a container, all of whose processes end with it.
#[test]
fn process_1_is_not_replaced() {
    if !inside("true") {
        return;
    }
    let server = Replaceable::new("container");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).arg(&server.path).args(["serve", "echo=0"]);
    let first = Program::spawn(command.arg(format!("--admin={}", server.admin())));
    let mut client = half_a_line(&first);
    let (status, _, error) = server.upgrade();
    assert!(status == 1 && error.contains("process 1 is what its container runs"), "{error}");
    the_other_half(&mut client);
    server.stop();
    assert_eq!(first.end().0, 0);
}

/// The new process aborts before each frame that it sends or receives, until there are no more of them.
#[test]
fn a_crash_at_any_step_is_not_noticed() {
    let server = Replaceable::new("crashes");
    let first = Program::spawn(&mut server.command(&["serve", "echo=0"]));
    let mut client = half_a_line(&first);
    let mut step = 0;
    loop {
        step += 1;
        server.replace(&format!("REACTOR_UPGRADE_CRASH={step} exec {REACTOR} \"$@\""));
        let (status, said, error) = server.upgrade();
        if status == 0 {
            assert!(said.starts_with("handed on 1 connection to "), "{said}");
            break;
        }
        assert!(error.contains("nothing has changed") && error.contains("signal: 6"), "{error}");
        client.send("lo\nhel");
        client.expect("> HELLO\n");
    }
    // An offer with two listeners, that it is ready, what goes, that it is taken, and the end.
    assert!(step > 7, "{step}");
    the_other_half(&mut client);
    server.stop();
    assert_eq!(first.end().0, 0);
}

#[test]
fn unix_sockets_stay_where_they_are() {
    let server = Replaceable::new("paths");
    let [path, config] = ["e.sock", "reactor.toml"].map(|name| server.folder.file(name));
    let place = format!("echo=unix:{}", path.display());
    let mode = |mode| {
        let text = format!("[echo]\naddress = \"unix:{}\"\n{mode}\n", path.display());
        fs::write(&config, text).unwrap();
    };
    mode("unix-mode = \"0666\"");
    let mut command = server.command(&["serve", "--config", config.to_str().unwrap()]);
    let first = Program::spawn(&mut command);
    first.place("echo");
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
    let before = inode();
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = vec![0; GREETING.len()];
    client.read_exact(&mut said).unwrap();
    for (line, wanted) in [("unix-mode = \"0600\"", 0o600), ("", 0o600)] {
        mode(line);
        assert_eq!(server.upgrade().0, 0);
        first.place("echo");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, wanted);
        client.write_all(b"hi\n").unwrap();
        let mut said = [0; 5];
        client.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"> HI\n");
        assert_eq!(inode(), before);
    }
    // Nobody else can listen there.
    let mut other = Command::new(REACTOR);
    fails(Program::spawn(other.args(["serve", &place, "--no-admin"])), 1, &["e.sock"]);
    server.stop();
    assert_eq!(first.end().0, 0);
    assert!(!path.exists() && !server.folder.file("e.sock.lock").exists());
}

// ---- Under systemd ----

/// systemd hears the process that it has started, and then the one that this one names.
#[test]
fn systemd_is_told_which_process_goes_on() {
    let server = Replaceable::new("main-pid");
    let socket = UnixDatagram::bind(server.folder.file("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut said = [0; 5000];
        let count = socket.recv(&mut said).expect("systemd is told nothing");
        String::from_utf8(said[..count].to_vec()).unwrap()
    };
    let mut command = server.command(&["serve", "echo=0"]);
    command.env("NOTIFY_SOCKET", server.folder.file("notify")).env("WATCHDOG_USEC", "60000000");
    let first = Program::spawn(&mut command);
    assert_eq!(next(), "READY=1\nSTATUS=0 connections: echo 0\nWATCHDOG=1\n");
    let mut client = half_a_line(&first);
    for _ in 0..2 {
        let (status, said, error) = server.upgrade();
        assert_eq!(status, 0, "{error}");
        assert_eq!(next(), format!("MAINPID={}\n", successor(&said)));
        assert_eq!(next(), "READY=1\nSTATUS=1 connections: echo 1\nWATCHDOG=1\n");
    }
    the_other_half(&mut client);
    server.stop();
    assert_eq!(next(), "STOPPING=1\nSTATUS=stopping\n");
    let (status, _, log) = first.end();
    assert_eq!(status, 0);
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

/// The new process has no descriptors of systemd, and knows their names.
#[test]
fn sockets_of_systemd_go_along() {
    let server = Replaceable::new("named");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let script = "exec 3<&0 0</dev/null && exec env LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=in \
                  \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(&server.path).args(["serve", "echo=systemd:in"]);
    command.arg(format!("--admin={}", server.admin()));
    let first = Program::spawn_with(&mut command, std::os::fd::OwnedFd::from(listener));
    let mut client = half_a_line(&first);
    for _ in 0..2 {
        let (status, _, error) = server.upgrade();
        assert_eq!(status, 0, "{error}");
        assert_eq!(first.place("echo"), addr.to_string());
        the_other_half(&mut client);
        client.send("hel");
    }
    the_other_half(&mut client);
    server.stop();
    assert_eq!(first.end().0, 0);
}

// ---- In a terminal ----

/// The shell waits for the process that it has started, and Ctrl-C is for the one that serves.
#[test]
fn the_job_in_the_foreground_goes_on() {
    let server = Replaceable::new("job");
    let (mut keys, side) = crate::util::program::terminal();
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(&server.path).args(["serve", "echo=0"]);
    command.arg(format!("--admin={}", server.admin()));
    let first = Program::spawn_with(&mut command, side);
    let mut client = half_a_line(&first);
    for _ in 0..2 {
        let (status, said, error) = server.upgrade();
        assert_eq!(status, 0, "{error}");
        first.wait_for_log(&format!("waiting for process {}", successor(&said)));
        the_other_half(&mut client);
        client.send("hel");
    }
    the_other_half(&mut client);
    drop(client);
    keys.write_all(b"\x03").unwrap();
    let (status, _, log) = first.end();
    assert_eq!(status, 0, "{log}");
    assert!(log.contains("signal: shutting down"), "{log}");
}
