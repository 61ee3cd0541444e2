//! Under systemd: sockets that it has opened, and what it is told.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::util::folder::Folder;
use crate::util::program::{Program, REACTOR, fails};
use crate::util::{Client, PATIENCE, skip, until};

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";

/// Whether there is such a program; otherwise the test is skipped.
fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        skip(&format!("{program} is not installed"));
    }
    found
}

/// An address that nobody has; of somebody who cannot listen at port 0.
fn free(host: &str) -> SocketAddr {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}

/// The program as systemd starts it, with this as its one descriptor, of this name.
fn passed(descriptor: impl Into<OwnedFd>, name: &str, args: &[&str]) -> Program {
    passed_to("$$", descriptor, &format!("LISTEN_FDS=1 LISTEN_FDNAMES={name}"), args)
}

fn passed_to(pid: &str, descriptor: impl Into<OwnedFd>, variables: &str, args: &[&str]) -> Program {
    let script =
        format!("exec 3<&0 0</dev/null && exec env LISTEN_PID={pid} {variables} \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg(REACTOR).args(args);
    Program::spawn_with(&mut command, descriptor.into())
}

fn hello(mut client: Client) {
    client.send("hello\n");
    client.expect([GREETING, "> HELLO\n"].concat());
}

// ---- Sockets that systemd has opened ----

/// Each name is a service's, with TCP and a Unix socket of one name; who comes before the program runs is
/// served.
#[test]
fn systemd_opens_the_sockets() {
    if !installed("systemd-socket-activate") {
        return;
    }
    let folder = Folder::new("activated");
    let path = folder.file("e.sock");
    let (first, second, third) = (free("127.0.0.6"), free("127.0.0.7"), free("127.0.0.8"));
    let mut command = Command::new("systemd-socket-activate");
    for place in
        [first.to_string(), path.display().to_string(), second.to_string(), third.to_string()]
    {
        command.args(["-l", &place]);
    }
    command.args(["--fdname=lunch:lunch:clock:lunch", REACTOR, "serve"]);
    command.args(["echo=systemd:lunch", "time=systemd:clock", "--time-count=1"]);
    let program = Program::spawn(&mut command);
    program.wait_for_log(&format!("Listening on {third}"));
    hello(Client::connect(third));
    assert_eq!(program.place("echo"), first.to_string());
    assert_eq!(program.place("echo"), format!("unix:{}", path.display()));
    assert_eq!(program.place("echo"), third.to_string());
    assert_eq!(program.place("time"), second.to_string());
    hello(Client::connect(first));
    assert!(Client::connect(second).line().starts_with("{'time' : '"));
    let mut unix = UnixStream::connect(&path).unwrap();
    unix.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = vec![0; GREETING.len()];
    unix.read_exact(&mut said).unwrap();
    assert_eq!(said, GREETING.as_bytes());
    drop(unix);
    program.signal("TERM");
    let (status, _, stderr) = program.end();
    assert_eq!(status, 0, "{stderr}");
    // It is systemd's, which is to listen there again.
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["e.sock"]);
}

/// The test has the socket, as systemd does while it starts a service again.
#[test]
fn nobody_is_refused_while_it_is_started_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    for _ in 0..2 {
        let client = Client::connect(addr);
        let program =
            passed(listener.try_clone().unwrap(), "echo", &["serve", "echo=systemd:echo"]);
        hello(client);
        program.signal("TERM");
        assert_eq!(program.end().0, 0);
    }
}

#[test]
fn layers_stand_in_front_and_forward_listens_there_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let echo = passed(listener, "reactor.socket", &["serve", "echo=proxy:systemd:reactor.socket"]);
    assert_eq!(echo.place("echo"), format!("proxy:{addr}"));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let entry = listener.local_addr().unwrap();
    let target = format!("proxy:{addr}");
    let forward = passed(listener, "in", &["forward", "systemd:in", &target]);
    assert_eq!(forward.place("forward"), entry.to_string());
    hello(Client::connect(entry));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().to_string();
    fails(passed(listener, "in", &["forward", "systemd:in", &own]), 2, &["are the same"]);
}

#[test]
fn what_does_not_fit_is_said_in_a_line() {
    let tcp = || TcpListener::bind("127.0.0.1:0").unwrap();
    fails(
        Program::spawn(Command::new(REACTOR).args(["serve", "echo=systemd:lunch"])),
        1,
        &["systemd:lunch: systemd has passed no descriptors", "--fdname=lunch"],
    );
    fails(
        passed(tcp(), "lunch", &["serve", "echo=systemd:lnch"]),
        1,
        &["systemd:lnch: ", "no descriptor of this name, but lunch", "FileDescriptorName="],
    );
    let listener = tcp();
    let left = format!("descriptor 3 (lunch, {})", listener.local_addr().unwrap());
    fails(
        passed(listener, "lunch", &["serve", "echo=0"]),
        1,
        &[&left, "which nothing uses: write SERVICE=systemd:lunch"],
    );
    fails(passed(tcp(), "lunch", &["forward", "0", "127.0.0.1:9"]), 1, &["which nothing uses"]);
    fails(
        passed(tcp(), "a", &["serve", "echo=systemd:a", "time=systemd:a"]),
        1,
        &["systemd:a is given twice"],
    );
    // Passed to the shell around it.
    fails(
        passed_to("1", tcp(), "LISTEN_FDS=1 LISTEN_FDNAMES=a", &["serve", "echo=systemd:a"]),
        1,
        &["for process 1 (LISTEN_PID)", "with exec"],
    );
    for variables in ["LISTEN_FDS=2 LISTEN_FDNAMES=a", "LISTEN_FDS=2147483647", "LISTEN_FDS=-1"] {
        let program = passed_to("$$", tcp(), variables, &["serve", "echo=systemd:a"]);
        fails(program, 1, &["systemd has passed ", "LISTEN_FD"]);
    }
    // Without names they have this one.
    let unnamed = passed_to("$$", tcp(), "LISTEN_FDS=1", &["serve", "echo=systemd:unknown"]);
    unnamed.place("echo");
}

/// What is ours by its number may be anything.
#[test]
fn a_descriptor_that_does_not_listen_is_said_in_a_line() {
    let folder = Folder::new("descriptors");
    let serve: &[&str] = &["serve", "echo=systemd:a"];
    let (tcp, unix) = (TcpListener::bind("127.0.0.1:0").unwrap(), UnixStream::pair().unwrap().0);
    let connection = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
    fails(
        passed(connection, "a", serve),
        1,
        &["descriptor 3 (a), which is a connection", "Accept=no"],
    );
    fails(passed(unix, "a", serve), 1, &["which has an abstract name"]);
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    fails(passed(datagrams, "a", serve), 1, &["which is no stream socket", "ListenStream="]);
    let fifo = folder.file("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let fifo = fs::File::options().read(true).write(true).open(fifo).unwrap();
    // Also where nothing asks for it.
    fails(
        passed(fifo, "a", &["serve", "echo=0"]),
        1,
        &["descriptor 3 (a), which is no stream socket"],
    );
    // There is none of this number.
    let two = passed_to("$$", tcp, "LISTEN_FDS=2 LISTEN_FDNAMES=a:b", serve);
    fails(two, 1, &["descriptor 4 (b), which is no stream socket"]);
}

/// Options that would have no effect are refused, as elsewhere.
#[test]
fn options_about_what_systemd_decides_are_refused() {
    let folder = Folder::new("options");
    let number = std::cell::Cell::new(0);
    let unix = || {
        number.set(number.get() + 1);
        UnixListener::bind(folder.file(&number.get().to_string())).unwrap()
    };
    let serve = "serve";
    let program = passed(unix(), "a", &[serve, "echo=systemd:a", "--unix-mode=660"]);
    fails(program, 2, &["--unix-mode goes with", "SocketMode="]);
    let program = passed(unix(), "a", &[serve, "echo=systemd:a", "--host=::1"]);
    fails(program, 2, &["--host goes with a port"]);
    // This one is the program's.
    let program = passed(unix(), "a", &[serve, "echo=systemd:a", "--allow-uid=54321"]);
    program.place("echo");
    let mut client = UnixStream::connect(folder.file(&number.get().to_string())).unwrap();
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
    program.wait_for_log("is none of the allowed users");
}

/// Neither takes the descriptors, which are systemd's to give.
/// What systemd has opened stays open, whoever listens there.
#[test]
fn a_reload_has_another_service_listen_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let folder = Folder::new("passed-on");
    let path = folder.file("r.toml");
    let text = |kind: &str, more: &str| {
        format!("[lunch]\nservice = \"{kind}\"\naddress = \"systemd:a\"\n{more}")
    };
    fs::write(&path, text("time", "")).unwrap();
    let option = format!("--config={}", path.display());
    let program = passed(listener, "a", &["serve", &option]);
    assert_eq!(program.addr("lunch"), addr);
    let reload = |text: &str, words: &str| {
        fs::write(&path, text).unwrap();
        program.signal("HUP");
        program.wait_for_log(words)
    };
    reload(&text("echo", ""), "reload: lunch: removed");
    let mut client = Client::connect(addr);
    client.expect(GREETING);
    reload(&text("echo", "max-line = 9\n"), "reload: lunch: max-line = 9");
    let wrong = "[echo]\naddress = 0\n";
    let line = reload(wrong, "reload: nothing has changed: ");
    assert!(line.contains("which nothing uses: write SERVICE=systemd:a"), "{line}");
    hello(Client::connect(addr));
    client.send("123456789\n1234567890\n");
    client.expect("> 123456789\n");
    assert_eq!(client.rest(), b"Line too long (limit 9 bytes)\n");
}

#[test]
fn a_configuration_is_checked_and_printed_without_them() {
    let (status, said, _) = Program::run(&["serve", "echo=0,ws:systemd:lunch", "--check-config"]);
    assert_eq!((status, &*said), (0, "the configuration is right: echo\n"));
    let (status, said, _) = Program::run(&["config", "echo=0,ws:systemd:lunch"]);
    let address = "address = [0, \"ws:systemd:lunch\"]";
    assert!(status == 0 && said.contains(address), "{said}");
}

/// One stays with what systemd has passed, for a service that is to listen there later.
#[test]
fn each_takes_two_descriptors() {
    let said = |place: &str| {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let args = ["serve", &format!("echo={place}"), "--max-connections=16000000"];
        let (_, _, stderr) = match place {
            "0" => Program::spawn(Command::new(REACTOR).args(args)).end(),
            _ => passed(tcp, "a", &args).end(),
        };
        stderr.split("needs ").nth(1).unwrap().split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(said("systemd:a"), said("0") + 1);
}

// ---- What systemd is told ----

/// The socket that systemd is told by.
struct Told {
    socket: UnixDatagram,
    folder: Folder,
}

impl Told {
    fn new(name: &str) -> Told {
        let folder = Folder::new(name);
        let socket = UnixDatagram::bind(folder.file("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Told { socket, folder }
    }

    /// A server that has to be heard of every so many microseconds.
    fn serve(&self, watchdog: &str, args: &[&str]) -> Program {
        let mut command = Command::new(REACTOR);
        command.env("NOTIFY_SOCKET", self.folder.file("notify")).env("WATCHDOG_USEC", watchdog);
        Program::spawn(command.arg("serve").args(args))
    }

    fn next(&self) -> String {
        let mut said = [0; 5000];
        let count = self.socket.recv(&mut said).expect("systemd is told nothing");
        String::from_utf8(said[..count].to_vec()).unwrap()
    }

    /// All that comes up to these words.
    #[track_caller]
    fn until(&self, words: &str) -> String {
        let (mut all, began) = (String::new(), Instant::now());
        while !all.contains(words) {
            assert!(began.elapsed() < PATIENCE, "{words} is not in {all}");
            all += &self.next();
        }
        all
    }
}

#[test]
fn systemd_is_told_what_the_program_does() {
    let told = Told::new("told");
    let program = told.serve("100000", &["echo=0", "--threads=2"]);
    assert_eq!(told.next(), "READY=1\nSTATUS=0 connections: echo 0\nWATCHDOG=1\n");
    let addr = program.addr("echo");
    let mut clients = [(); 2].map(|()| Client::connect(addr));
    clients.iter_mut().for_each(|client| client.expect(GREETING));
    let seen = told.until("STATUS=2 connections: echo 2\nWATCHDOG=1\n");
    assert!(!seen.contains("READY"), "{seen}");

    // As Type=notify-reload has it.
    let uptime = || {
        let text = fs::read_to_string("/proc/uptime").unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let before = uptime();
    program.signal("HUP");
    let seen = told.until("READY=1\n");
    let reload = &seen[seen.find("RELOADING=1\nMONOTONIC_USEC=").expect(&seen)..];
    let moment = reload.lines().nth(1).unwrap().split('=').nth(1).unwrap();
    let moment = moment.parse::<f64>().unwrap() / 1e6;
    // The one has hundredths of a second.
    assert!((before - 0.011..=uptime() + 0.011).contains(&moment), "{before} {moment}");

    program.signal("TERM");
    told.until("STOPPING=1\nSTATUS=stopping\n");
    drop(clients);
    assert_eq!(program.end().0, 0);
}

/// It is somebody else who is watched, or nobody; a name may be abstract.
#[test]
fn who_is_not_watched_does_not_ping() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let name = format!("reactor-notify-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for (variable, value) in [("WATCHDOG_PID", "1"), ("WATCHDOG_USEC", "0"), ("WATCHDOG_USEC", "x")]
    {
        let mut command = Command::new(REACTOR);
        command.args(["serve", "echo=0", "--no-admin"]).env("WATCHDOG_USEC", "1000");
        let program =
            Program::spawn(command.env("NOTIFY_SOCKET", format!("@{name}")).env(variable, value));
        let mut said = [0; 500];
        let count = socket.recv(&mut said).unwrap();
        assert_eq!(&said[..count], b"READY=1\nSTATUS=0 connections: echo 0\n");
        drop(program);
    }
}

/// systemd is busy: its queue is full. The loop neither waits for it nor forgets what it has to say.
#[test]
fn systemd_may_be_slow() {
    let told = Told::new("slow");
    // Every millisecond.
    let program = told.serve("2000", &["echo=0"]);
    let addr = program.addr("echo");
    told.until("READY=1");
    let full = || {
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        other.connect(told.folder.file("notify")).unwrap();
        other.send(b"x").is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    until("its queue is full", full);
    hello(Client::connect(addr));
    program.signal("HUP");
    program.wait_for_log("nothing to reload");
    hello(Client::connect(addr));
    assert!(told.until("READY=1\n").contains("RELOADING=1\n"));
    told.until("WATCHDOG=1\n");
    until("its queue is full", full);
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
}

/// The program is there for its clients, whether systemd hears of it or not.
#[test]
fn systemd_may_be_gone() {
    let told = Told::new("gone");
    let path = told.folder.file("notify").display().to_string();
    let program = told.serve("20000", &["echo=0"]);
    let addr = program.addr("echo");
    told.until("WATCHDOG=1");
    let Told { socket, folder } = told;
    drop(socket);
    let said = program.wait_for_log("systemd cannot be told");
    assert!(said.contains(&format!("NOTIFY_SOCKET={path}): Connection refused")), "{said}");
    hello(Client::connect(addr));
    program.signal("TERM");
    let (status, _, log) = program.end();
    assert!(
        status == 0 && !log[log.find("cannot be told").unwrap() + 9..].contains("cannot be told")
    );

    let mut command = Command::new(REACTOR);
    let nowhere = folder.file("nowhere");
    let program = Program::spawn(command.args(["serve", "echo=0"]).env("NOTIFY_SOCKET", nowhere));
    let said = program.wait_for_log("systemd cannot be told");
    assert!(said.contains("No such file"), "{said}");
    hello(Client::connect(program.addr("echo")));
}

// ---- The units ----

/// A file of packaging/.
fn packaged(name: &str) -> String {
    format!("{}/packaging/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Nothing is said of them, but that the program of the package is here and its manual elsewhere.
#[test]
fn the_units_are_right() {
    if !installed("systemd-analyze") {
        return;
    }
    let folder = Folder::new("units");
    for name in ["reactor.service", "reactor.socket"] {
        let text = fs::read_to_string(packaged(name)).unwrap();
        fs::write(folder.file(name), text.replace("/usr/bin/reactor", REACTOR)).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    verify.args(["reactor.service", "reactor.socket"].map(|name| folder.file(name)));
    let said = verify.output().unwrap();
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && words.is_empty(), "{words}");
}

/// Below 2.0 of 10.
#[test]
fn the_service_has_no_more_rights_than_it_needs() {
    if !installed("systemd-analyze") {
        return;
    }
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--threshold=20", "--no-pager"]);
    let said = security.arg(packaged("reactor.service")).output().unwrap();
    let words = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{words}{}", String::from_utf8_lossy(&said.stderr));
}

/// What the unit starts is right with the configuration that comes with it.
#[test]
fn the_configuration_of_the_unit_is_right() {
    let text = fs::read_to_string(packaged("reactor.service")).unwrap();
    let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    assert_eq!(start, "/usr/bin/reactor serve --config /etc/reactor/reactor.toml");
    let (status, said, failure) =
        Program::run(&["serve", "--config", &packaged("reactor.toml"), "--check-config"]);
    assert_eq!(status, 0, "{failure}");
    assert!(said.starts_with("the configuration is right: "), "{said}");
}
