//! Layers in addresses and several addresses of one service; PROXY headers, received and sent.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use crate::util::folder::Folder;
use crate::util::load::clean;
use crate::util::program::{Program, REACTOR, fails};
use crate::util::{Client, PATIENCE};

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";
const HEADER: &str = "PROXY TCP4 192.0.2.7 127.0.0.1 51234 443\r\n";

/// Where a service behind a proxy listens.
fn behind(program: &Program, service: &str) -> SocketAddr {
    program.place(service).strip_prefix("proxy:").expect("no proxy").parse().unwrap()
}

fn forward(listen: &str, target: &str, options: &[&str]) -> Program {
    Program::spawn(Command::new(REACTOR).args(["forward", listen, target]).args(options))
}

#[track_caller]
fn hears_nothing(addr: SocketAddr, header: &str) {
    let mut said = Vec::new();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Closed or reset, as it happens.
    let _ = stream.write_all(header.as_bytes());
    let _ = stream.read_to_end(&mut said);
    assert_eq!(said, b"");
}

#[test]
fn the_client_that_the_proxy_names_is_in_the_log_and_is_judged() {
    let program = Program::serve(&["echo=proxy:0", "--allow=192.0.2.0/24", "--log=debug"]);
    let addr = behind(&program, "echo");
    let mut client = Client::connect(addr);
    client.send(format!("{HEADER}hello\n"));
    client.expect(format!("{GREETING}> HELLO\n"));
    program.wait_for_log("(192.0.2.7:51234) is here");
    hears_nothing(addr, "PROXY TCP4 198.51.100.1 127.0.0.1 1 2\r\n");
    let line = program.wait_for_log("198.51.100.1 is in none of the allowed networks");
    assert!(line.contains("WARN") && line.contains("echo: #"), "{line}");
    hears_nothing(addr, "hello\n");
    let line = program.wait_for_log("it must begin with a PROXY header");
    assert!(line.contains("WARN") && line.contains("(127.0.0.1:"), "{line}");
    program.signal("TERM");
    let (code, _, stderr) = program.end();
    assert!(code == 0 && stderr.contains("1 were turned away"), "{stderr}");
}

#[test]
#[cfg(target_os = "linux")]
fn only_the_proxies_that_are_named_are_believed() {
    let program = Program::serve(&["echo=proxy:0", "--proxy-from=127.0.0.2"]);
    let addr = behind(&program, "echo");
    hears_nothing(addr, HEADER);
    let words = "127.0.0.1 is in none of the networks whose proxies are believed";
    assert!(program.wait_for_log(words).contains("WARN"));
}

#[test]
fn one_room_has_several_doors_and_each_a_line() {
    let folder = Folder::new("doors");
    let path = folder.file("room.sock");
    let unix = format!("unix:{}", path.display());
    let program = Program::serve(&[&format!("presence=0,proxy:0,{unix}"), "presence=0"]);
    let plain = program.addr("presence");
    let proxied = behind(&program, "presence");
    assert_eq!(program.place("presence"), unix);
    let other = program.addr("presence");

    // Each reads the welcome first: it is in the room then.
    let mut one = Client::connect(plain);
    (0..6).for_each(|_| drop(one.line()));
    let mut outsider = Client::connect(other);
    (0..6).for_each(|_| drop(outsider.line()));
    let mut two = Client::connect(proxied);
    two.send(HEADER);
    (0..6).for_each(|_| drop(two.line()));
    let mut three = UnixStream::connect(&path).unwrap();
    three.set_read_timeout(Some(PATIENCE)).unwrap();
    three.write_all(b"HELLO three\n").unwrap();
    one.expect("Someone has arrived...\nSomeone has arrived...\nthree is in the room.\n");
    two.expect("Someone has arrived...\nthree is in the room.\n");
    outsider.send("HELLO outsider\n");
    outsider.expect("outsider is in the room.\n");

    program.signal("TERM");
    assert_eq!(program.end().0, 0);
    assert!(!path.exists(), "the socket's path is left behind");
}

#[test]
fn a_service_that_is_given_twice_has_two_names_in_the_log() {
    let program = Program::serve(&["echo=0", "echo=0", "--log=debug"]);
    for name in ["echo: #", "echo-2: #"] {
        Client::connect(program.addr("echo")).expect(GREETING);
        program.wait_for_log(name);
    }
}

#[test]
fn forward_tells_the_target_who_its_client_is() {
    let server = Program::serve(&["echo=proxy:0", "--log=debug"]);
    let target = server.place("echo");
    let program = forward("0", &target, &[]);
    let mut client = Client::connect(program.addr("forward"));
    client.expect(GREETING);
    server.wait_for_log(&format!("({}) is here", client.stream.local_addr().unwrap()));
    client.send("bye\n");
    assert_eq!(client.rest(), b"> BYE\n");

    // From one proxy to the next.
    let program = forward("proxy:0", &target, &[]);
    let mut client = Client::connect(behind(&program, "forward"));
    client.send(format!("{HEADER}bye\n"));
    assert_eq!(client.rest(), format!("{GREETING}> BYE\n").as_bytes());
    server.wait_for_log("(192.0.2.7:51234) is here");
}

#[test]
fn a_client_of_forward_without_an_address_is_unknown() {
    let folder = Folder::new("proxy-unknown");
    let front = format!("unix:{}", folder.file("front.sock").display());
    let heard = || {
        let mut stream = UnixStream::connect(folder.file("front.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        said
    };
    for (options, words) in [(&[][..], GREETING), (&["--allow=127.0.0.0/8"], "")] {
        let server = Program::serve(&[&["echo=proxy:0"], options].concat());
        let program = forward(&front, &server.place("echo"), &[]);
        assert_eq!(program.place("forward"), front);
        assert_eq!(heard(), words);
    }
}

#[test]
fn connect_and_load_name_themselves() {
    let folder = Folder::new("proxy-connect");
    let unix = format!("proxy:unix:{}", folder.file("e.sock").display());
    let args = [&format!("echo=proxy:0,{unix}"), "--allow=127.0.0.0/8", "--log=debug"];
    let server = Program::serve(&args);
    let tcp = server.place("echo");
    let script = format!("printf 'hi\\nbye\\n' | {REACTOR} connect {tcp}");
    let program = Program::spawn(Command::new("sh").arg("-c").arg(script));
    assert_eq!(program.end(), (0, format!("{GREETING}> HI\n> BYE\n"), String::new()));
    server.wait_for_log("(127.0.0.1:");
    let result = clean(&tcp, 3, &[]);
    assert_eq!(result["target"], tcp);

    // Nobody knows who comes over a Unix socket.
    let mut connect = Command::new(REACTOR);
    let program = Program::spawn_with(connect.args(["connect", &unix]), Stdio::null());
    let (_, stdout, _) = program.end();
    assert_eq!(stdout, "");
    server.wait_for_log("names no address that could be judged");

    let nobody = crate::util::nobody();
    let (code, _, stderr) = Program::run(&["connect", &format!("proxy:{nobody}")]);
    let told = format!("reactor: cannot connect to proxy:{nobody}: nobody listens there\n");
    assert_eq!((code, stderr), (1, told));
}

#[test]
fn services_behind_a_proxy_are_not_announced() {
    let program = Program::serve(&["echo=proxy:0", "--announce"]);
    fails(
        program,
        2,
        &["--announce: none of the services could be reached without TLS, a proxy or WebSocket"],
    );
}

#[test]
fn behind_a_proxy_nobody_is_warned_of_an_open_door() {
    let program = Program::serve(&["echo=proxy:0.0.0.0:0"]);
    program.place("echo");
    program.signal("TERM");
    let (_, _, stderr) = program.end();
    assert!(!stderr.contains("every machine"), "{stderr}");
}

#[test]
fn wrong_layers_are_status_2() {
    for (args, words) in [
        (&["serve", "echo=proxy:proxy:7"][..], "write proxy:7"),
        (&["serve", "proxy:echo=7"], "write echo=proxy:7"),
        (&["serve", "proxy:echo"], "write echo=proxy:PORT"),
        (&["serve", "echo=proxy:"], "the address is missing"),
        (&["serve", "echo=proxy:proxy"], "write proxy:PORT"),
        (&["serve", "echo=1,"], "the address is missing"),
        (&["serve", "echo=1,time=2"], "write echo=1 time=2"),
        (&["serve", "echo=0", "--proxy-from=::1"], "--proxy-from goes with an address for proxies"),
        (&["serve", "echo=proxy:unix:/a", "--proxy-from=::1"], "--proxy-from goes with"),
        (&["forward", "0", "9", "--proxy-from=::1"], "--proxy-from goes with"),
        (&["serve", "echo=proxy:0", "--proxy-from=here"], "--proxy-from"),
        (&["forward", "proxy:2323", "proxy:localhost:2323"], "connect to itself"),
        (&["connect", "proxy:0"], "port 0"),
        #[cfg(feature = "tls")]
        (&["serve", "echo=tls:proxy:7"], "write proxy:tls:7"),
        #[cfg(feature = "tls")]
        (&["serve", "proxy:tls:echo=7"], "write echo=proxy:tls:7"),
        #[cfg(feature = "tls")]
        (&["connect", "tls:proxy:7"], "write proxy:tls:7"),
    ] {
        fails(Program::spawn(Command::new(REACTOR).args(args)), 2, &[words]);
    }
}
