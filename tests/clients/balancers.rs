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
    let (config, pid) = (folder.file("nginx.conf"), folder.file("pid"));
    fs::write(
        &config,
        format!(
            "load_module {STREAM_MODULE};\ndaemon off;\nmaster_process off;\npid {};\n\
             error_log stderr;\nevents {{}}\n\
             stream {{ server {{ listen {at}; proxy_pass {target}; proxy_protocol on; }} }}\n",
            pid.display()
        ),
    )
    .unwrap();
    let _balancer = started(Command::new("nginx").arg("-c").arg(config), &[at]);
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
