//! `serve --config` at SIGHUP: what changes while it runs, what does not, and that nobody who may stay
//! notices.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::util::folder::Folder;
#[cfg(target_os = "linux")]
use crate::util::namespace::inside;
use crate::util::program::Program;
use crate::util::{Client, until};

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";

/// A server with a file that changes.
struct Server {
    program: Program,
    folder: Folder,
}

impl Server {
    fn start(name: &str, text: &str, args: &[&str]) -> Server {
        let folder = Folder::new(name);
        fs::write(folder.file("r.toml"), text).unwrap();
        let option = format!("--config={}", folder.file("r.toml").display());
        let program = Program::serve(&[&[&*option], args].concat());
        Server { program, folder }
    }

    fn write(&self, text: &str) {
        fs::write(self.folder.file("r.toml"), text).unwrap();
    }

    /// Has it read this file; gives the line of the log with these words in it.
    fn reload(&self, text: &str, words: &str) -> String {
        self.write(text);
        self.program.signal("HUP");
        self.program.wait_for_log(words)
    }

    fn said(&self, words: &str) {
        self.program.wait_for_log(words);
    }

    /// Ends it; gives its log.
    fn end(self) -> String {
        self.program.signal("TERM");
        let (status, _, stderr) = self.program.end();
        assert_eq!(status, 0, "{stderr}");
        stderr
    }
}

/// Where nobody listens.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn echo(addr: SocketAddr) -> Client {
    let mut client = Client::connect(addr);
    client.expect(GREETING);
    client
}

#[test]
fn limits_change_for_those_who_are_there() {
    let server = Server::start("limits", "[echo]\naddress = 0\nmax-line = 10\n", &[]);
    let addr = server.program.addr("echo");
    let (mut client, mut other) = (echo(addr), echo(addr));
    server.reload("[echo]\naddress = 0\nmax-line = 20\n", "reload: echo: max-line = 20");
    client.send("123456789012345\n");
    client.expect("> 123456789012345\n");
    // The address was asked for with port 0, and stays where it is.
    echo(addr);
    let text = "max-connections = 1\n[echo]\naddress = 0\nmax-line = 5\n";
    server.reload(text, "reload: echo: max-line = 5");
    other.send("123456\n");
    assert_eq!(other.rest(), b"Line too long (limit 5 bytes)\n");
    assert_eq!(Client::connect(addr).rest(), b"Too many connections, try again later\n");
    client.send("12345\n");
    client.expect("> 12345\n");
    server.reload("[echo]\naddress = 0\n", "reload: echo: max-connections = its default");
    echo(addr);
    server.reload("[echo]\naddress = 0\n", "reload: nothing has changed");
    client.send("bye\n");
    client.expect("> BYE\n");
}

#[test]
fn listeners_and_services_come_and_go() {
    let (one, other, third) = (free(), free(), free());
    let server =
        Server::start("come", &format!("[echo]\naddress = \"{one}\"\n[time]\naddress = 0\n"), &[]);
    assert_eq!(server.program.addr("echo"), one);
    let time = server.program.addr("time");
    let mut client = echo(one);
    let text = format!(
        "[echo]\naddress = [\"{other}\"]\n[lunch]\nservice = \"presence\"\naddress = \"{third}\"\n"
    );
    server.reload(&text, "reload: lunch: added");
    for line in [
        format!("reload: lunch: listening on {third}"),
        format!("reload: echo: no longer listening on {one}"),
        format!("reload: time: no longer listening on {time}"),
        "reload: time: removed".to_owned(),
    ] {
        server.said(&line);
    }
    client.send("still here\n");
    client.expect("> STILL HERE\n");
    echo(other);
    Client::connect(third).expect("Welcome to the Presence Server\n");
    for gone in [one, time] {
        until("nobody listens there", || TcpStream::connect(gone).is_err());
    }
    // Who is removed says goodbye, and what it was called may come again as something else.
    let mut member = Client::connect(third);
    member.expect("Welcome to the Presence Server\n");
    let text = format!(
        "[echo]\naddress = \"{other}\"\n[lunch]\nservice = \"echo\"\naddress = \"{third}\"\n"
    );
    server.reload(&text, "reload: lunch: removed");
    member.rest();
    echo(third);
    client.send("bye\n");
    assert_eq!(client.rest(), b"> BYE\n");
    assert!(!server.end().contains("ERROR"));
}

#[test]
fn an_address_goes_from_one_service_to_another() {
    let (one, other) = (free(), free());
    let file = |echo: &str, time: &str| {
        format!("[echo]\naddress = \"{echo}\"\n[time]\naddress = \"{time}\"\ntime-count = 1\n")
    };
    let [one, other] = [one, other].map(|addr| addr.to_string());
    let server = Server::start("swap", &file(&one, &other), &[]);
    server.program.addr("echo");
    let mut client = echo(one.parse().unwrap());
    server.reload(&file(&other, &one), &format!("reload: time: no longer listening on {other}"));
    echo(other.parse().unwrap());
    assert!(Client::connect(one.parse().unwrap()).rest().starts_with(b"{'time'"));
    client.send("bye\n");
    assert_eq!(client.rest(), b"> BYE\n");
    // The same port of all addresses is another listener, for which the old one makes room.
    let port = other.rsplit(':').next().unwrap();
    server.reload(
        &file(&format!("0.0.0.0:{port}"), &one),
        &format!("reload: echo: no longer listening on {other}"),
    );
    echo(other.parse().unwrap());
}

#[test]
fn a_file_that_is_wrong_changes_nothing() {
    let (one, other) = (free(), free());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let right = format!(
        "[echo]\naddress = \"{one}\"\nmax-line = 10\n[time]\naddress = \"{other}\"\ntime-count = 1\n"
    );
    let server = Server::start("wrong", &right, &[]);
    server.program.addr("echo");
    let mut client = echo(one);
    for (text, words) in [
        (
            "[echo]\nmax-lime = 5\n".to_owned(),
            "r.toml:2: unknown key max-lime: did you mean max-line?",
        ),
        ("[echo]\n\nmax-line = 0\n".to_owned(), "r.toml:3: max-line: it "),
        ("".to_owned(), "there is no service in it"),
        ("[echo]\naddress = \"no.such.host.invalid:1\"\n".to_owned(), "no.such.host.invalid"),
        // All is right until a listener fails; those that made room for others listen again.
        (
            format!(
                "[time]\naddress = [\"{one}\", 0]\n[echo]\naddress = \"{other}\"\nmax-line = 99\n[new]\n\
                 service = \"echo\"\naddress = [0, \"{at}\"]\n"
            ),
            "choose another one with address in [new]",
        ),
    ] {
        let line = server.reload(&text, "reload: nothing has changed: ");
        assert!(line.contains(words) && line.contains("ERROR"), "{words}: {line}");
        echo(one).send("bye\n");
        assert!(Client::connect(other).rest().starts_with(b"{'time'"));
    }
    fs::remove_file(server.folder.file("r.toml")).unwrap();
    server.program.signal("HUP");
    server.said("r.toml: cannot be read: No such file");
    client.send("12345678901\n");
    assert_eq!(client.rest(), b"Line too long (limit 10 bytes)\n");
    // What was tried has left nothing behind.
    drop(taken);
    let text = right.clone() + &format!("[new]\nservice = \"echo\"\naddress = \"{at}\"\n");
    server.reload(&text, "reload: new: added");
    echo(at);
}

#[test]
fn what_needs_a_restart_is_said_by_name() {
    let text = "threads = 2\nmax-total-input = \"1M\"\n[time]\naddress = 0\ntime-count = 1\n\
                [web]\naddress = 0\nweb-host = \"a.org\"\n";
    let server = Server::start("restart", text, &["--log=info"]);
    let time = server.program.addr("time");
    let text = "threads = 3\nno-admin = true\nmax-total-input = \"2M\"\nlog = \"trace\"\n[time]\naddress = 0\n\
                time-count = 2\n[web]\naddress = 0\nweb-host = \"b.org\"\n";
    // Twice, since it is so until the restart.
    for _ in 0..2 {
        server.reload(text, "reload: time: time-count = 2 needs a restart");
        server.said("reload: web: web-host = b.org needs a restart");
        server.said("reload: threads = 3 needs a restart");
        server.said("reload: no-admin = true needs a restart");
    }
    let count = Client::connect(time).rest().iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(count, 1);
    let log = server.end();
    assert!(log.contains("reload: max-total-input = 2M"), "{log}");
    // The command line wins.
    assert!(!log.contains("log = trace") && !log.contains("TRACE"), "{log}");
}

#[test]
fn the_level_of_the_log_and_who_is_let_in_change() {
    let server = Server::start("level", "[echo]\naddress = 0\n", &[]);
    let addr = server.program.addr("echo");
    let mut client = echo(addr);
    server.reload("log = \"debug\"\n[echo]\naddress = 0\n", "reload: log = debug");
    echo(addr);
    server.said("DEBUG");
    let text = "log = \"debug\"\n[echo]\naddress = 0\nallow = \"127.0.0.2\"\n";
    server.reload(text, "reload: echo: allow = 127.0.0.2");
    Client::connect(addr);
    server.said("is in none of the allowed networks");
    client.send("bye\n");
    client.expect("> BYE\n");
}

/// Who looks for them finds those that there are.
#[test]
#[cfg(target_os = "linux")]
fn what_is_announced_changes() {
    if !inside("true") {
        return;
    }
    let (one, other) = (free(), free());
    let text = |at: SocketAddr| format!("announce = true\n[echo]\naddress = \"{at}\"\n");
    let server = Server::start("announced", &text(one), &[]);
    let found = |at: SocketAddr| {
        let (_, said, _) = Program::run(&["discover", "--once", "--interface", "127.0.0.1"]);
        said.contains(&at.to_string())
    };
    server.program.addr("echo");
    until("it is found", || found(one));
    server.reload(&text(other), &format!("reload: echo: no longer listening on {one}"));
    until("the new place is found", || found(other));
    // What was announced is a peer's who is gone, once its announcements end.
    until("the old one is not", || !found(one));
    let text = format!("[echo]\naddress = \"{other}\"\n");
    server.reload(&text, "reload: announce = its default");
    until("nothing is", || !found(other));
    server.end();
}

/// The bus is joined at the start, by one room.
#[test]
fn with_a_bus_a_room_does_not_come_at_a_reload() {
    let nobody = free();
    let above = format!("presence-bus = \"redis://{nobody}\"\nbus-optional = true\n");
    let text = above.clone() + "[presence]\naddress = 0\n";
    let server = Server::start("rooms", &text, &[]);
    let addr = server.program.addr("presence");
    for (text, words) in [
        (
            text.clone() + "[lunch]\nservice = \"presence\"\naddress = 0\n",
            "r.toml:1: presence-bus ",
        ),
        (
            above + "[lunch]\nservice = \"presence\"\naddress = 0\n",
            "with presence-bus, the service presence comes and goes with a restart alone",
        ),
    ] {
        let line = server.reload(&text, "reload: nothing has changed: ");
        assert!(line.contains(words), "{line}");
        Client::connect(addr).expect("Welcome to the Presence Server\n");
    }
}

#[test]
fn several_hangups_end_with_the_last_file() {
    let text = |length: usize| format!("[echo]\naddress = 0\nmax-line = {length}\n");
    let server = Server::start("several", &text(1), &[]);
    let addr = server.program.addr("echo");
    for length in 2..40 {
        // Whether the one before is under way still, nobody knows.
        server.write(&text(length));
        server.program.signal("HUP");
    }
    server.said("reload: echo: max-line = 39");
    let mut client = echo(addr);
    client.send(format!("{}\n{}\n", "x".repeat(39), "x".repeat(40)));
    client.expect(format!("> {}\n", "X".repeat(39)));
    assert_eq!(client.rest(), b"Line too long (limit 39 bytes)\n");
}

#[test]
fn a_hangup_in_a_shutdown_is_too_late() {
    let text = |length: usize| format!("[echo]\naddress = 0\nmax-line = {length}\n");
    let server = Server::start("late", &text(10_000), &[]);
    // It does not read, so that the shutdown takes a while.
    let mut client = echo(server.program.addr("echo"));
    let line = [b"x".repeat(9000), b"\n".to_vec()].concat();
    client.stream.set_nonblocking(true).unwrap();
    while client.stream.write_all(&line).is_ok() {}
    client.stream.set_nonblocking(false).unwrap();
    server.program.signal("TERM");
    server.said("shutting down");
    server.write(&text(20));
    server.program.signal("HUP");
    client.rest();
    let (_, _, log) = server.program.end();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
#[cfg(feature = "tls")]
fn a_listener_turns_to_tls_and_its_certificate_is_read_again() {
    use crate::util::tls::Pem;
    let pem = Pem::new("reload-tls");
    let addr = free();
    let server = Server::start("tls", &format!("[echo]\naddress = \"{addr}\"\n"), &[]);
    server.program.addr("echo");
    let mut plain = echo(addr);
    let text = format!(
        "[echo]\naddress = \"tls:{addr}\"\ntls-cert = \"{}\"\ntls-key = \"{}\"\n",
        pem.cert().display(),
        pem.key().display()
    );
    server.reload(&text, "reload: echo: tls-cert = ");
    pem.connect(addr).expect(GREETING);
    // This client trusts the new certificate and no other.
    pem.renew(2041);
    server.reload(&text, "cert.pem reloaded");
    pem.connect(addr).expect(GREETING);
    let good = fs::read(pem.cert()).unwrap();
    fs::write(pem.cert(), "").unwrap();
    let line = server.reload(&text, "reload: nothing has changed: ");
    assert!(line.contains("r.toml:3: tls-cert") && line.contains("no certificate in it"), "{line}");
    fs::write(pem.cert(), good).unwrap();
    pem.connect(addr).expect(GREETING);
    plain.send("bye\n");
    assert_eq!(plain.rest(), b"> BYE\n");
}

/// The old one cannot come back at that moment either, since its certificate is gone.
#[test]
#[cfg(feature = "tls")]
fn a_listener_that_could_not_come_back_comes_with_the_next_reload() {
    use crate::util::tls::Pem;
    let pem = Pem::new("reload-back");
    let (addr, taken) = (free(), TcpListener::bind("127.0.0.1:0").unwrap());
    let text = format!(
        "[echo]\naddress = \"tls:{addr}\"\ntls-cert = \"{}\"\ntls-key = \"{}\"\n",
        pem.cert().display(),
        pem.key().display()
    );
    let server = Server::start("back", "[echo]\naddress = 0\n", &[]);
    server.program.addr("echo");
    server.reload(&text, "reload: echo: tls-cert = ");
    pem.connect(addr).expect(GREETING);
    let good = fs::read(pem.cert()).unwrap();
    fs::remove_file(pem.cert()).unwrap();
    let wrong = format!(
        "[time]\naddress = [\"{addr}\", \"{}\"]\n[echo]\naddress = 0\n",
        taken.local_addr().unwrap()
    );
    server.reload(&wrong, &format!("echo: no longer listening on tls:{addr}"));
    fs::write(pem.cert(), good).unwrap();
    server.reload(&text, &format!("reload: echo: listening on tls:{addr}"));
    pem.connect(addr).expect(GREETING);
}

#[test]
fn what_could_not_be_announced_is_announced_once_it_can_be() {
    if !inside("true") {
        return;
    }
    let addr = free();
    let text = format!("announce = true\n[echo]\naddress = \"{addr}\"\n");
    let server = Server::start("announced", &text, &[]);
    server.program.wait_for_log("announcing to");
    let hidden = format!(
        "announce = true\n[echo]\naddress = \"proxy:{addr}\"\nproxy-from = \"127.0.0.1\"\n"
    );
    server.reload(&hidden, "reload: --announce: none of the services could be reached");
    server.reload(&text, "announcing to");
    // The interface goes by the host.
    let elsewhere = format!("host = \"0.0.0.0\"\n{text}");
    server.reload(&elsewhere, "could be reached without TLS, a proxy or WebSocket from 0.0.0.0");
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Clients that keep lines in flight, each of which must come back in its order.
fn nobody_loses_a_line(threads: &str) {
    let (one, other) = (free(), free());
    let text = |round: usize| {
        let second = if round % 2 == 1 { format!(", \"{other}\"") } else { String::new() };
        let mut text = format!(
            "[echo]\naddress = [\"{one}\"{second}]\nmax-line = {}\nmax-per-peer = {}\nidle-timeout = \"{}m\"\n\
             peer-rate = \"{}/s\"\n[time]\naddress = 0\n",
            1000 + round,
            100 + round,
            1 + round,
            1_000_000 + round
        );
        if round.is_multiple_of(3) {
            text += "[lunch]\nservice = \"presence\"\naddress = 0\n";
        }
        if round % 4 == 1 {
            text += "rate = \"500000/s\"\n";
        }
        text
    };
    let server = Server::start("load", &text(0), &[threads]);
    assert_eq!(server.program.addr("echo"), one);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|id| {
                let over = &over;
                scope.spawn(move || {
                    let mut client = echo(one);
                    let mut count = 0;
                    while !over.load(Ordering::Relaxed) {
                        let lines = (count..count + 100).map(|number| format!("c{id} {number}\n"));
                        client.send(lines.collect::<String>());
                        for number in count..count + 100 {
                            assert_eq!(client.line(), format!("> C{id} {number}\n"));
                        }
                        count += 100;
                    }
                    client.send("bye\n");
                    assert_eq!(client.rest(), b"> BYE\n");
                    count
                })
            })
            .collect();
        // Also if something fails, so that the clients end.
        let end = Over(&over);
        for round in 1..=20 {
            server.reload(
                &text(round),
                &format!("reload: echo: peer-rate = {}/s", 1_000_000 + round),
            );
            server.said(&format!(
                "reload: echo: {}listening on {other}",
                if round % 2 == 1 { "" } else { "no longer " }
            ));
            // Newcomers are served meanwhile, also those whose listener is about to go.
            echo(one);
            if round % 2 == 1 {
                echo(other);
            }
        }
        drop(end);
        let counts: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    });
    let log = server.end();
    assert!(!log.contains("ERROR") && !log.contains("cut off"), "{log}");
}

#[test]
fn nobody_who_may_stay_loses_a_line() {
    nobody_loses_a_line("--threads=1");
}

#[test]
fn nobody_who_may_stay_loses_a_line_on_several_threads() {
    nobody_loses_a_line("--threads=3");
}

#[test]
fn the_control_socket_has_it_read_the_file_too() {
    use std::io::Read;
    let folder = Folder::new("control");
    let path = folder.file("c.sock");
    let text = format!("admin = \"{}\"\n[echo]\naddress = 0\n", path.display());
    let server = Server::start("asked", &text, &[]);
    server.program.addr("echo");
    server.write(&(text + "max-line = 7\n"));
    let mut socket = std::os::unix::net::UnixStream::connect(&path).unwrap();
    socket.write_all(b"RELOAD\nBYE\n").unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("OK\n"), "{said}");
    server.said("reload: echo: max-line = 7");
}

/// What the umask would have made of the socket nobody knows any more; that must not keep the rest from changing.
#[test]
fn a_mode_that_is_taken_back_stays_and_holds_nothing_else_up() {
    let sockets = Folder::new("mode-socket");
    let path = sockets.file("s.sock");
    let text = |more: &str| format!("[echo]\naddress = \"unix:{}\"\n{more}", path.display());
    let server = Server::start("mode", &text(""), &[]);
    server.program.place("echo");
    server.reload(&text("unix-mode = \"0666\"\n"), "reload: echo: unix-mode = 0666");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let stays = format!("reload: echo: unix:{} keeps the mode 0666", path.display());
    server.reload(&text(""), &stays);
    // Nobody has this number.
    server.reload(&text("allow-uid = 4000000000\n"), "reload: echo: allow-uid = 4000000000");
    let mut greeting = String::new();
    UnixStream::connect(&path).unwrap().read_to_string(&mut greeting).unwrap();
    assert_eq!((&*greeting, mode()), ("", 0o666));
    server.reload(&text("unix-mode = \"0600\"\n"), "reload: echo: unix-mode = 0600");
    until("the mode is another one", || mode() == 0o600);
    assert_eq!(server.end().matches("cannot listen").count(), 0);
}

#[test]
fn other_layers_are_said() {
    let address = free();
    let server = Server::start("layers", &format!("[echo]\naddress = \"{address}\"\n"), &[]);
    server.program.addr("echo");
    let text = format!("[echo]\naddress = \"proxy:{address}\"\n");
    server.reload(&text, &format!("reload: echo: listening on proxy:{address}"));
    let mut client = Client::connect(address);
    client.send("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    client.expect(GREETING);
    assert!(!server.end().contains("nothing has changed"));
}
