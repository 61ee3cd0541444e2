//! Real balancers in front of the program: the client that they name is the one that is judged.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::util::folder::Folder;
use crate::util::program::{Program, REACTOR};
use crate::util::{self, Client};
use crate::{GREETING, STREAM_MODULE, installed, stream_module};

/// A client from one of this machine's addresses.
fn from(source: [u8; 4], to: SocketAddr) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Client::from(TcpStream::from(socket))
}

/// Starts a balancer that listens there, and waits until it does.
fn started(command: &mut Command, at: &[SocketAddr]) -> Program {
    let program = Program::spawn(command);
    for at in at {
        util::until("the balancer listens", || TcpStream::connect(at).is_ok());
    }
    program
}

fn haproxy(folder: &Folder, config: &str, at: &[SocketAddr]) -> Program {
    let path = folder.file("haproxy.cfg");
    let timeouts = "timeout connect 30s\n  timeout client 60s\n  timeout server 60s";
    fs::write(&path, format!("defaults\n  mode tcp\n  {timeouts}\n{config}")).unwrap();
    started(Command::new("haproxy").arg("-db").arg("-f").arg(path), at)
}

/// One that names its clients, at each place for the server there.
fn nginx(folder: &Folder, servers: &[(SocketAddr, &str)]) -> Program {
    let (config, pid) = (folder.file("nginx.conf"), folder.file("pid"));
    let server = |(at, target): &(SocketAddr, &str)| {
        format!("server {{ listen {at}; proxy_pass {target}; proxy_protocol on; }}\n")
    };
    let text = format!(
        "load_module {STREAM_MODULE};\ndaemon off;\nmaster_process off;\npid {};\n\
         error_log stderr;\nevents {{}}\nstream {{ {} }}\n",
        pid.display(),
        servers.iter().map(server).collect::<String>()
    );
    fs::write(&config, text).unwrap();
    let at: Vec<_> = servers.iter().map(|(at, _)| *at).collect();
    started(Command::new("nginx").arg("-c").arg(config), &at)
}

/// The balancer's server that is asked for: echo, of clients from 127.0.0.7 and no others.
fn echo() -> (Program, SocketAddr) {
    let options = ["echo=proxy:0", "--allow=127.0.0.7", "--log=debug"];
    let program = Program::serve(&options);
    let place = program.place("echo");
    let addr = place.strip_prefix("proxy:").unwrap().parse().unwrap();
    (program, addr)
}

/// One who may come is served by his own name, and another is not.
#[track_caller]
fn judges(server: &Program, balancer: SocketAddr) {
    let mut client = from([127, 0, 0, 7], balancer);
    let name = client.stream.local_addr().unwrap();
    client.send("hello\nbye\n");
    let said = String::from_utf8(client.rest()).unwrap();
    assert_eq!(said, format!("{}\n> HELLO\n> BYE\n", GREETING.join("\n")));
    server.wait_for_log(&format!("({name}) is here"));
    let mut other = from([127, 0, 0, 8], balancer);
    let _ = std::io::Read::read_to_end(&mut other.stream, &mut Vec::new());
}

#[test]
#[cfg(target_os = "linux")] // All of 127.0.0.0/8 is loopback.
fn haproxy_names_its_clients_in_either_version() {
    if !installed("haproxy", "-v", "HAProxy") {
        return;
    }
    let folder = Folder::new("haproxy");
    let (server, target) = echo();
    for options in [
        "send-proxy",
        "send-proxy-v2",
        // With TLVs, and health checks of its own, which begin with LOCAL.
        "send-proxy-v2 proxy-v2-options crc32c,unique-id check inter 500ms fall 1000",
    ] {
        let at = util::nobody();
        let config = format!(
            "listen echo\n  bind {at}\n  unique-id-format %[uuid()]\n  server s {target} {options}\n"
        );
        let balancer = haproxy(&folder, &config, &[at]);
        judges(&server, at);
        if options.contains("check") {
            // Nobody else comes so far by that address.
            while !server.wait_for_log("is here").contains("(127.0.0.1:") {}
        }
        drop(balancer);
    }
    // Without a header.
    let at = util::nobody();
    let config = format!("listen echo\n  bind {at}\n  server s {target}\n");
    let _balancer = haproxy(&folder, &config, &[at]);
    let mut client = from([127, 0, 0, 7], at);
    client.send("hello\n");
    let mut said = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client.stream, &mut said);
    assert_eq!(said, b"");
    server.wait_for_log("it must begin with a PROXY header");
    server.signal("TERM");
    let (_, _, stderr) = server.end();
    assert!(!stderr.contains("(127.0.0.8:"), "{stderr}");
}

/// What one looks at shows the client, not the balancer, and counts who was turned away.
#[test]
#[cfg(target_os = "linux")]
fn status_shows_the_clients_of_either_balancer() {
    let all = installed("haproxy", "-v", "HAProxy") && installed("nginx", "-v", "nginx");
    if !all || !stream_module() {
        return;
    }
    let folder = Folder::new("shown");
    let admin = folder.file("admin.sock").display().to_string();
    let admin_at = format!("--admin={admin}");
    let limits = ["--allow=127.0.0.7", "--max-per-peer=2"];
    let server =
        Program::serve(&["presence=proxy:0", "echo=proxy:0", limits[0], limits[1], &admin_at]);
    let [room, echo] = ["presence", "echo"].map(|service| server.place(service));
    let [room, echo] = [&room, &echo].map(|place| place.strip_prefix("proxy:").unwrap());
    let at = [(); 5].map(|()| util::nobody());
    let listen = |name: &str, at: SocketAddr, to: &str| {
        format!("listen {name}\n  bind {at}\n  server s {to}\n")
    };
    let config = [
        listen("v1", at[0], &format!("{room} send-proxy")),
        listen("v2", at[1], &format!("{echo} send-proxy-v2")),
        listen("none", at[2], echo),
    ];
    let _haproxy = haproxy(&folder, &config.concat(), &at[..3]);
    let _nginx = nginx(&folder, &[(at[3], room), (at[4], echo)]);
    let mut clients = [("presence", at[0]), ("echo", at[1]), ("presence", at[3]), ("echo", at[4])]
        .map(|(service, at)| (service, from([127, 0, 0, 7], at)));
    for (_, client) in &mut clients {
        client.line();
    }
    // One too many, one who may not come, and one of whom nothing is said.
    let full = String::from_utf8(from([127, 0, 0, 7], at[3]).rest()).unwrap();
    assert!(full.starts_with("Too many connections from your address"), "{full}");
    for (peer, at) in [(8, at[1]), (7, at[2])] {
        let mut client = from([127, 0, 0, peer], at);
        client.send("hello\n");
        let mut said = Vec::new();
        let _ = std::io::Read::read_to_end(&mut client.stream, &mut said);
        assert_eq!(said, b"");
    }
    let (status, shown, _) = Program::run(&["status", &admin]);
    assert_eq!(status, 0);
    for (service, client) in &clients {
        let peer = client.stream.local_addr().unwrap().to_string();
        let is_it = |line: &str| line.split_whitespace().skip(1).take(2).eq([*service, &*peer]);
        assert!(shown.lines().any(is_it), "{service} {peer}: {shown}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&Program::run(&["status", "--json", &admin]).1).unwrap();
    let counted =
        |service: usize, what: &str| json["services"][service].pointer(what).unwrap().as_u64();
    assert_eq!(counted(0, "/refused/per-peer"), Some(1));
    // Also those by which one waits for the balancers.
    assert!(counted(1, "/refused/not-allowed") > Some(0));
    assert!(counted(1, "/handshakes_failed/proxy") > Some(0));
}

#[test]
#[cfg(target_os = "linux")]
fn haproxy_takes_the_header_that_forward_sends() {
    if !installed("haproxy", "-v", "HAProxy") {
        return;
    }
    let folder = Folder::new("haproxy-between");
    let (server, target) = echo();
    let at = util::nobody();
    let config =
        format!("listen echo\n  bind {at} accept-proxy\n  server s {target} send-proxy-v2\n");
    let _balancer = haproxy(&folder, &config, &[at]);
    let mut forward = Command::new(REACTOR);
    let forward = Program::spawn(forward.args(["forward", "0", &format!("proxy:{at}")]));
    judges(&server, forward.addr("forward"));
}

#[test]
#[cfg(target_os = "linux")]
fn two_clients_of_nginx_meet_in_the_room_and_each_has_one_place() {
    if !installed("nginx", "-v", "nginx") || !stream_module() {
        return;
    }
    let folder = Folder::new("nginx");
    let server = Program::serve(&["presence=proxy:0", "--allow=127.0.0.7", "--log=debug"]);
    let place = server.place("presence");
    let target = place.strip_prefix("proxy:").unwrap();
    let at = util::nobody();
    let _balancer = nginx(&folder, &[(at, target)]);
    let mut one = from([127, 0, 0, 7], at);
    (0..6).for_each(|_| drop(one.line()));
    server.wait_for_log(&format!("({}) is here", one.stream.local_addr().unwrap()));
    let mut two = from([127, 0, 0, 7], at);
    (0..6).for_each(|_| drop(two.line()));
    one.expect("Someone has arrived...\n");
    two.send("HELLO two\n");
    one.expect("two is in the room.\n");
    let mut other = from([127, 0, 0, 8], at);
    assert_eq!(other.rest(), b"");
    server.signal("TERM");
    let (_, _, stderr) = server.end();
    assert!(!stderr.contains("(127.0.0.8:"), "{stderr}");
}
