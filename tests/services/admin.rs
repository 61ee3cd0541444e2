//! The control socket: its commands by hand, and lists longer than anybody reads at once.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use reactor::services::{Admin, Echo};
use reactor::testing::{Client, Harness};
use reactor::{CloseReason, Exit, Limits, Listen, Reactor};
use serde_json::Value;

use crate::util::folder::Folder;
use crate::util::{self, PATIENCE};

/// What the client is answered.
fn ask(server: &mut Harness<Admin>, client: Client, lines: &str) -> String {
    server.feed(client, lines);
    String::from_utf8(server.sent(client)).unwrap()
}

fn start(admin: Admin) -> (Harness<Admin>, Client) {
    let mut server = Harness::new(admin);
    let client = server.connect();
    (server, client)
}

#[test]
fn every_answer_ends_with_ok_or_error() {
    let (mut server, client) = start(Admin::new());
    let help = ask(&mut server, client, "help\r\n");
    assert!(help.starts_with("HELP ") && help.ends_with("\nOK\n"), "{help}");
    assert_eq!(ask(&mut server, client, "\n \n"), "");
    for (line, answer) in [
        ("FROB\x1b[2J x", "ERROR there is no command FROB?[2J; see HELP\n"),
        ("STATUS xml", "ERROR write STATUS or STATUS JSON\n"),
        ("CLOSE", "ERROR write CLOSE #ID, with an ID that LIST shows\n"),
        ("CLOSE me", "ERROR write CLOSE #ID, with an ID that LIST shows\n"),
        ("close #99 why", "ERROR there is no connection #99; see LIST\n"),
        ("LIST eco", "ERROR there is no service \"eco\"; the services are Admin\n"),
        ("LIST eco json", "ERROR there is no service \"eco\"; the services are Admin\n"),
        ("LIMITS", "ERROR write the name of a service: Admin\n"),
        ("LOG loud", "ERROR write LOG and one of off, error, warn, info, debug, trace\n"),
        ("LOG info", "ERROR this program has one level for its log\n"),
        ("RELOAD", "ERROR this program has nothing to reload\n"),
        ("BYE", "OK\n"),
    ] {
        assert_eq!(ask(&mut server, client, &format!("{line}\n")), answer, "{line}");
    }
    assert!(server.is_shut(client));
}

#[test]
fn commands_that_come_at_once_are_answered_in_order() {
    let (mut server, client) = start(Admin::new());
    let said = ask(&mut server, client, "limits Admin\nSTATUS\nLIST Admin\nFROB\nBYE\nHELP\n");
    let (limits, rest) = said.split_once("\nOK\nreactor ").unwrap();
    assert!(limits.starts_with("max_connections    10000\nmax_line "), "{limits}");
    let (status, rest) = rest.split_once("\nOK\nID ").unwrap();
    assert!(status.lines().last().unwrap().starts_with("Admin "), "{status}");
    let (list, rest) = rest.split_once("\nOK\n").unwrap();
    assert!(list.lines().nth(1).unwrap().starts_with("#"), "{list}");
    assert_eq!(rest, "ERROR there is no command FROB; see HELP\nOK\n");
}

#[test]
fn an_answer_goes_out_although_the_client_has_ended_its_side() {
    let (mut server, client) = start(Admin::new());
    server.feed(client, "LIST\nSTATUS JSON");
    server.end(client);
    let said = String::from_utf8(server.sent(client)).unwrap();
    assert!(said.starts_with("ID ") && said.ends_with("]}}\nOK\n"), "{said}");
    assert_eq!(server.closed(client), Some(CloseReason::PeerClosed));
}

#[test]
fn json_is_one_object_or_one_for_each_line() {
    let (mut server, client) = start(Admin::new());
    server.connect_from("192.0.2.7:99".parse().unwrap());
    let said = ask(&mut server, client, "status json\n");
    let object: Value = serde_json::from_str(said.strip_suffix("OK\n").unwrap()).unwrap();
    assert_eq!(object["pid"], std::process::id());
    assert_eq!(object["services"][0]["name"], "Admin");
    assert_eq!(object["connections"]["total"], 2);
    assert_eq!(object["connections"]["shown"][1]["peer"], "192.0.2.7:99");
    let said = ask(&mut server, client, "LIST json\n");
    let rows: Vec<Value> = said
        .strip_suffix("OK\n")
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["waits"], "input");
}

/// Whatever comes and however it is cut, each command has one answer, and nothing else looks like an end.
#[test]
fn each_command_has_one_answer() {
    const WORDS: [&str; 20] = [
        "LIST",
        "JSON",
        "json",
        "Admin",
        "STATUS",
        "LIMITS",
        "CLOSE",
        "#99",
        "999",
        "LOG",
        "debug",
        "RELOAD",
        "HELP",
        " ",
        "\t",
        "\0",
        "OK",
        "ERROR x",
        "\u{202e}é",
        "#",
    ];
    for seed in 0..100 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut server, client) = start(Admin::new().on_log(|_| Ok(())));
        let mut commands = String::new();
        for _ in 0..random.usize(1..20) {
            let words = random.usize(0..4);
            let words: Vec<_> = (0..words).map(|_| WORDS[random.usize(..WORDS.len())]).collect();
            commands += &words.join(" ");
            commands += if random.bool() { "\n" } else { "\r\n" };
        }
        let mut rest = commands.as_bytes();
        while !rest.is_empty() {
            let (piece, left) = rest.split_at(random.usize(1..=rest.len()));
            server.feed(client, piece);
            rest = left;
        }
        let said = String::from_utf8(server.sent(client)).unwrap();
        let ends = said.lines().filter(|line| *line == "OK" || line.starts_with("ERROR "));
        let asked = commands.lines().filter(|line| !line.trim_ascii().is_empty());
        assert_eq!(ends.count(), asked.count(), "seed {seed}: {commands:?}\n{said}");
        assert!(said.is_empty() || said.ends_with('\n'), "seed {seed}");
    }
}

#[test]
fn a_list_is_as_long_as_it_is_and_waits_for_its_reader() {
    for command in ["LIST\n", "LIST JSON\n", "STATUS JSON\n"] {
        let (mut server, client) = start(Admin::new());
        for _ in 1..2_000 {
            server.connect();
        }
        server.take_only(client, Some(0));
        server.feed(client, command);
        server.feed(client, "FROB\n");
        // Nothing is made for somebody who does not read.
        let kept = server.unsent();
        assert!(kept < 150 * 1024, "{kept} bytes");
        server.take_only(client, None);
        let said = String::from_utf8(server.sent(client)).unwrap();
        let (list, rest) = said.split_once("\nOK\n").unwrap();
        assert_eq!(rest, "ERROR there is no command FROB; see HELP\n");
        let is_row = |line: &&str| line.starts_with('#') || line.contains("\"id\":");
        let rows = list.lines().filter(is_row).count();
        assert_eq!(rows, 2_000, "{command}");
    }
}

#[test]
fn who_reads_no_answer_is_closed_when_idle() {
    let limits = Limits { idle_timeout: Some(Duration::from_secs(60)), ..Limits::default() };
    let mut server = Harness::with_limits(Admin::new(), limits);
    let client = server.connect();
    for _ in 1..2_000 {
        server.connect_from("192.0.2.7:99".parse().unwrap());
    }
    server.take_only(client, Some(0));
    server.feed(client, "LIST\n");
    server.advance(Duration::from_secs(59));
    assert_eq!(server.closed(client), None);
    server.advance(Duration::from_secs(60));
    assert!(server.closed(client).is_some());
}

#[test]
fn the_embedder_does_what_the_library_cannot() {
    let said = Rc::new(RefCell::new(Vec::new()));
    let (levels, reloads) = (Rc::clone(&said), Rc::clone(&said));
    let admin = Admin::new()
        .on_log(move |level| {
            levels.borrow_mut().push(level.to_owned());
            if level == "off" { Err("somebody has to hear".to_owned()) } else { Ok(()) }
        })
        .on_reload(move || {
            reloads.borrow_mut().push("reload".to_owned());
            Ok(())
        });
    let (mut server, client) = start(admin);
    assert_eq!(ask(&mut server, client, "LOG Debug\nreload\n"), "OK\nOK\n");
    assert_eq!(ask(&mut server, client, "log OFF\n"), "ERROR somebody has to hear\n");
    assert_eq!(*said.borrow(), ["debug", "reload", "off"]);
}

#[test]
fn stop_ends_the_server_and_nobody_who_does_not_read_keeps_it() {
    let limits = Limits { flush_timeout: Duration::from_secs(3600), ..Limits::default() };
    let mut server = Harness::with_limits(Admin::new(), limits);
    let (client, deaf) = (server.connect(), server.connect());
    server.take_only(deaf, Some(10));
    server.feed(deaf, "HELP\n");
    assert_eq!(ask(&mut server, client, "STOP\n"), "OK\n");
    assert!(server.is_stopping() && server.is_shut(client));
    assert_eq!(server.closed(deaf), Some(CloseReason::Aborted));
}

#[test]
fn a_web_page_stops_nobody() {
    let (mut server, page) = start(Admin::new());
    let said = ask(&mut server, page, "POST / HTTP/1.1\r\nHost: localhost\r\n\r\nSTOP\r\n");
    assert_eq!(said, "This is neither HTTP nor TLS.\n");
    assert!(!server.is_stopping());
}

/// Real sockets: echo over TCP, and the control socket.
#[test]
fn over_sockets_one_sees_and_closes_the_connections_of_others() {
    let folder = Folder::new("admin");
    let path = folder.file("a.sock");
    let (tell, told) = std::sync::mpsc::channel();
    let at = path.clone();
    let thread = std::thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        let echo = reactor.listen("127.0.0.1:0", Echo).unwrap();
        let admin = Listen::at(at.as_path()).unwrap().unix_mode(0o600);
        let admin = reactor.listen(admin, Admin::new()).unwrap();
        reactor.set_name(&echo, "echo");
        reactor.set_name(&admin, "admin");
        reactor.set_accounting(true);
        tell.send(echo.address().unwrap().as_socket().unwrap()).unwrap();
        reactor.run().unwrap()
    });
    let addr = told.recv_timeout(PATIENCE).unwrap();
    let mut client = util::Client::connect(addr);
    client.send("hello\n");
    client.line();
    client.line();
    client.expect("> HELLO\n");

    let admin = UnixStream::connect(&path).unwrap();
    admin.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(admin.try_clone().unwrap()).lines().map(Result::unwrap);
    (&admin).write_all(b"LIST\n").unwrap();
    let rows: Vec<_> = lines.by_ref().take_while(|line| line != "OK").collect();
    let row = rows.iter().find(|row| row.contains(" echo ")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    let local = client.stream.local_addr().unwrap().to_string();
    let [id, "echo", peer, _age, _idle, "1", "6", _out, "0", "input"] = cells[..] else {
        panic!("{row}")
    };
    assert_eq!(peer, local);
    let own = format!(" uid {} pid {} ", rustix::process::geteuid().as_raw(), std::process::id());
    assert!(rows.iter().any(|row| row.contains(" admin ") && row.contains(&own)), "{rows:?}");

    writeln!(&admin, "CLOSE {id} too loud").unwrap();
    assert_eq!(lines.next().unwrap(), "OK");
    assert_eq!(client.rest(), b"");
    // It waits for the client to end its side, and is not closed a second time.
    drop(client);
    writeln!(&admin, "status\nSTOP").unwrap();
    let status: Vec<_> = lines.by_ref().take_while(|line| line != "OK").collect();
    assert!(status.iter().any(|line| line.ends_with(&format!(" {addr}"))), "{status:?}");
    assert_eq!(lines.collect::<Vec<_>>(), ["OK"]);
    assert_eq!(thread.join().unwrap(), Exit::Clean);
}
