//! The service web: where it is, and what its options do. tests/services/web.rs has the rest.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::util::folder::Folder;
use crate::util::frames;
use crate::util::http::{Answer, ask_over};
use crate::util::namespace::inside;
use crate::util::program::{Program, REACTOR, fails};
use crate::util::tls::Pem;
use crate::util::{Client, nobody};

fn get(addr: SocketAddr, path: &str, headers: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n{headers}\r\n");
    ask_over(&mut Client::connect(addr), &request)
}

fn close(addr: SocketAddr, id: u64) -> Answer {
    let from = format!("Host: {addr}\r\nOrigin: http://{addr}\r\n");
    ask_over(&mut Client::connect(addr), &format!("POST /close/{id} HTTP/1.1\r\n{from}\r\n"))
}

#[test]
fn it_stays_on_this_machine_unless_it_is_told_otherwise() {
    if !inside("true") {
        return;
    }
    let first = Program::serve(&["web"]);
    assert_eq!(get(first.addr("web"), "/healthz", "").body, "ok\n");
    let program = Program::serve(&["--host=127.1.2.4", "web=0", "echo=0", "web=127.1.2.5:80"]);
    assert!(program.place("web").starts_with("127.0.0.1:"));
    assert!(program.place("echo").starts_with("127.1.2.4:"));
    assert_eq!(program.place("web"), "127.1.2.5:80");
    let taken = Program::spawn(Command::new(REACTOR).args(["serve", "web"]));
    fails(taken, 1, &["127.0.0.1:8023", "in use", "web=PORT"]);
}

/// A Prometheus keeps each for weeks, so docs/operating.md says how many there are.
#[test]
#[cfg(target_os = "linux")]
fn there_are_as_many_series_as_the_documentation_says() {
    let text = include_str!("../../docs/operating.md");
    let words = "37 series for each service, 26 for the process\nand two for each thread";
    assert!(text.contains(words), "how many are there?");
    let program = Program::serve(&["--threads=2", "web=0", "echo=0"]);
    let metrics = get(program.addr("web"), "/metrics", "").body;
    let series = metrics.lines().filter(|line| !line.starts_with('#')).count();
    // The third service is the control socket.
    assert_eq!(series, 3 * 37 + 26 + 2 * 2, "{metrics}");
}

#[test]
fn it_shows_the_other_services_and_what_each_connection_has_sent() {
    let program = Program::serve(&["presence=0", "web=0"]);
    let (room, web) = (program.addr("presence"), program.addr("web"));
    let mut client = Client::connect(room);
    (0..6).for_each(|_| drop(client.line()));
    client.send("HELLO you\n");
    client.line();
    let status = get(web, "/status.json?service=presence", "").json();
    let services: Vec<_> = status["services"].as_array().unwrap().iter().collect();
    assert_eq!((&services[0]["name"], &services[1]["name"]), (&"presence".into(), &"web".into()));
    assert_eq!(services[0]["listeners"][0], room.to_string());
    let shown = &status["connections"]["shown"][0];
    let peer = client.stream.local_addr().unwrap().to_string();
    assert_eq!((&shown["peer"], &shown["lines"]), (&peer.into(), &1.into()));
    assert_eq!(shown["bytes_in"], 10);
    let metrics = get(web, "/metrics", "").body;
    assert!(metrics.contains("reactor_connections{service=\"presence\"} 1\n"), "{metrics}");
    assert!(get(web, "/", "").body.starts_with("<!doctype html>"));
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
}

#[test]
fn a_room_is_the_same_over_web_socket_and_the_second_one_another() {
    let program = Program::serve(&["presence=0", "web=0", "presence=0"]);
    let (room, web, other) =
        (program.addr("presence"), program.addr("web"), program.addr("presence"));
    let join = |name: &str| {
        let mut client = Client::connect(web);
        let answer = ask_over(
            &mut client,
            &format!(
                "GET /ws/{name} HTTP/1.1\r\nHost: {web}\r\nOrigin: http://{web}\r\n\
                 Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
        );
        assert_eq!(answer.status, 101);
        // The welcome, message by message.
        client.expect(b"\x81\x1eWelcome to the Presence Server");
        client
    };
    let of = |name: &str| {
        let path = format!("/status.json?service={name}");
        get(web, &path, "").json()["connections"]["shown"].as_array().unwrap().len()
    };
    for (name, addr) in [("presence", room), ("presence-2", other)] {
        let _guest = join(name);
        let mut client = Client::connect(addr);
        (0..6).for_each(|_| drop(client.line()));
        client.send("WHO\n");
        let user = " - An anonymous user\n";
        client.expect(format!("Currently connected users:\n{user}{user}"));
        assert_eq!(of(name), 2);
    }
}

/// What lets in certain users only, or those with a certificate, is not to be had through the page.
#[test]
fn rooms_for_some_users_or_certificates_are_not_behind_the_page() {
    let (folder, pem) = (Folder::new("page"), Pem::new("page"));
    let room = folder.file("room.sock");
    let [cert, key] = pem.options();
    let own = [
        "web=0".to_owned(),
        format!("presence=unix:{}", room.display()),
        "echo=tls:0".to_owned(),
        format!("--tls-client-ca={}", pem.cert().display()),
        cert,
        key,
    ];
    let program = Program::serve(&own.each_ref().map(String::as_str));
    let web = program.addr("web");
    for name in ["presence", "echo"] {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let answer = get(web, &format!("/ws/{name}"), upgrade);
        assert_eq!((answer.status, &*answer.body), (404, "all its listeners ask who comes\n"));
    }
}

#[test]
fn the_page_closes_connections_if_it_may() {
    for (options, status) in
        [(&["echo=0", "web=0"][..], 403), (&["echo=0", "web=0", "--web-admin"], 200)]
    {
        let program = Program::serve(options);
        let (echo, web) = (program.addr("echo"), program.addr("web"));
        let mut client = Client::connect(echo);
        client.line();
        let list = get(web, "/status.json?service=echo", "").json();
        let id = list["connections"]["shown"][0]["id"].as_u64().unwrap();
        assert_eq!(close(web, id).status, status);
        client.line();
        if status == 200 {
            assert_eq!(client.rest(), b"");
        } else {
            client.send("on\n");
            client.expect("> ON\n");
        }
    }
}

#[test]
fn other_names_and_pages_have_to_be_named() {
    let named = &["web=0", "--web-host=box.example", "--origin=https://page.example"];
    let program = Program::serve(named);
    let addr = program.addr("web");
    for (host, origin, status) in [
        ("box.example", None, 200),
        ("box.example", Some("http://box.example"), 200),
        ("127.0.0.1", Some("https://page.example"), 200),
        ("evil.example", None, 403),
        ("127.0.0.1", Some("https://evil.example"), 403),
    ] {
        let origin = origin.map_or(String::new(), |origin| format!("Origin: {origin}\r\n"));
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n{origin}\r\n");
        assert_eq!(ask_over(&mut Client::connect(addr), &request).status, status, "{request}");
    }
    program.wait_for_log("is turned away: this server has no such name (Host: evil.example)");
    program.signal("TERM");
    // Not each of them, or a page could fill the log.
    assert_eq!(program.end().2.matches("is turned away").count(), 1);
}

/// A control socket is for its user: no visitor of the page is let in behind its back, and neither is one
/// to any other service that asks each client who it is.
#[test]
fn nobody_gets_past_a_door_that_asks_who_comes() {
    let folder = Folder::new("guarded");
    let at = |name: &str| folder.file(name).display().to_string();
    let (admin, own, both) = (at("admin.sock"), at("own.sock"), at("both.sock"));
    let (own, both) = (format!("echo=unix:{own}"), format!("presence=0,unix:{both}"));
    let args = ["web=0", "--admin", &admin, "--allow-uid", "root", &own, &both];
    let program = Program::serve(&args);
    let web = program.addr("web");
    let ask = |name: &str| {
        let stop = frames::text("STOP");
        let mut client = Client::connect(web);
        client.send(frames::request(&web.to_string(), &format!("/ws/{name}")));
        client.send(stop);
        ask_over(&mut client, "").status
    };
    for (name, status) in [("admin", 404), ("%61dmin", 404), ("echo", 404), ("presence", 101)] {
        assert_eq!(ask(name), status, "{name}");
    }
    assert_eq!(get(web, "/healthz", "").body, "ok\n");
}

#[test]
fn options_that_nothing_uses_are_refused() {
    for (args, words) in [
        (&["serve", "echo=0", "--web-admin"][..], &["--web-admin", "the service web"][..]),
        (&["serve", "echo=0", "--web-host=a"], &["--web-host", "the service web", "ws:"]),
        (&["serve", "web=ws:0"], &["/ws/NAME", "write web=0"]),
        (&["serve", "web=0", "--host=::1"], &["--host goes with"]),
        (&["serve", "web=0", "--max-connections=5"], &["--max-connections goes with", "own"]),
        (&["serve", "web=0", "--rate=5/s"], &["--rate goes with"]),
    ] {
        fails(Program::spawn(Command::new(REACTOR).args(args)), 2, words);
    }
}

#[test]
fn a_stopped_program_answers_nobody() {
    let program = Program::serve(&["web=0"]);
    let addr = program.addr("web");
    let mut visitor = Client::connect(addr);
    visitor.send(format!("GET /healthz HTTP/1.1\r\nHost: {addr}\r\n\r\n"));
    assert_eq!(ask_over(&mut visitor, "").body, "ok\n");
    program.signal("TERM");
    assert_eq!(visitor.rest(), b"");
    assert_eq!(program.end().0, 0);
    assert!(TcpStream::connect(addr).is_err());
    assert!(addr != nobody());
}
