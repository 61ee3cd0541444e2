//! Who cannot go, and what becomes of them.

use super::{GREETING, Generations};
use crate::util::program::Program;
use crate::util::{Client, websocket};

const ROOM: &str = "  Shutdown server with 'KILL'\n";
const COME_AGAIN: &str = "The server is being upgraded, please connect again";

/// Reads the greeting of the room, and takes a name there.
fn enter(client: &mut Client, name: &str) {
    while client.line() != ROOM {}
    client.send(format!("HELLO {name}\n"));
    while client.line() != format!("{name} is in the room.\n") {}
}

#[cfg(feature = "tls")]
mod tls {
    use super::*;
    use crate::util::tls::{End, Pem};

    /// The old process alone can read it.
    #[test]
    fn a_client_with_tls_is_served_on_by_the_old_process() {
        let pem = Pem::new("upgrade-tls");
        let [cert, key] = pem.options();
        let mut server = Generations::start(
            "upgrade-tls",
            &["serve", "echo=tls:0", "--max-connections=99", &cert, &key],
        );
        let addr = server.addr("echo");
        let mut client = pem.connect(addr);
        client.expect(GREETING);
        client.send("in the ");
        assert_eq!(server.upgrade(), "handed on 0 connections; 1 stays");
        client.send("middle\n");
        client.expect("> IN THE MIDDLE\n");
        let mut late = pem.connect(addr);
        late.send("new\nbye\n");
        assert_eq!(late.rest(), (format!("{GREETING}> NEW\n> BYE\n").into_bytes(), End::Clean));
        // The next one but one does not know it either.
        assert!(server.upgrade().starts_with("handed on 0 connections"));
        client.send("still here\nbye\n");
        assert_eq!(client.rest(), (b"> STILL HERE\n> BYE\n".to_vec(), End::Clean));
        drop((client, late));
        server.wait_for_ends(2);
        let log = server.end();
        assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    }

    #[test]
    fn upgrade_timeout_ends_those_that_stay() {
        let pem = Pem::new("upgrade-timeout");
        let [cert, key] = pem.options();
        let args = ["serve", "echo=tls:0", "--upgrade-timeout=100ms", &cert, &key];
        let mut server = Generations::start("upgrade-timeout", &args);
        let mut client = pem.connect(server.addr("echo"));
        client.expect(GREETING);
        assert_eq!(server.upgrade(), "handed on 0 connections; 1 stays");
        assert_eq!(client.rest(), (Vec::new(), End::Clean));
        server.wait_for_ends(1);
        server.end();
    }

    /// In a room that goes on without it.
    #[test]
    fn a_client_with_tls_is_told_and_missed_in_the_room() {
        let pem = Pem::new("upgrade-room");
        let [cert, key] = pem.options();
        let args = ["serve", "presence=0,tls:0", &cert, &key];
        let mut server = Generations::start("upgrade-room", &args);
        let [plain, tls] = [(); 2].map(|()| server.addr("presence"));
        let mut stays = Client::connect(plain);
        enter(&mut stays, "olivier");
        let mut goes = pem.connect(tls);
        goes.send("HELLO simon\n");
        stays.expect("Someone has arrived...\nsimon is in the room.\n");
        goes.until("the room", |it| it.received.ends_with(b"simon is in the room.\n"));
        goes.received.clear();
        assert_eq!(server.upgrade(), "handed on 1 connection; 1 stays");
        assert_eq!(goes.rest(), (format!("{COME_AGAIN}\n").into_bytes(), End::Clean));
        stays.expect("simon has left the room.\n");
        stays.send("SAY hello\n");
        stays.expect("olivier says: hello\n");
        server.end();
    }
}

/// 1012 is "service restart" (IANA's registry of WebSocket close codes): a page comes again by itself.
#[test]
fn a_web_socket_in_the_room_is_told_1012() {
    let mut server = Generations::start("upgrade-ws", &["serve", "presence=0,ws:0"]);
    let [plain, ws] = [(); 2].map(|()| server.addr("presence"));
    let mut stays = Client::connect(plain);
    enter(&mut stays, "olivier");
    let mut page = websocket::open(ws);
    page.send(websocket::masked(websocket::TEXT, "HELLO page"));
    stays.expect("Someone has arrived...\npage is in the room.\n");
    assert_eq!(server.upgrade(), "handed on 1 connection; 1 stays");
    let told = page.rest();
    let end = [websocket::plain(websocket::TEXT, COME_AGAIN), websocket::closing(1012)].concat();
    assert!(told.ends_with(&end), "{}", String::from_utf8_lossy(&told));
    stays.expect("page has left the room.\n");
    server.end();
}

/// A page and Prometheus ask again and again over one connection: they would be told of the old process for hours.
#[test]
fn who_asks_the_page_again_asks_the_new_process() {
    const ASK: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut server = Generations::start("upgrade-web", &["serve", "web=0"]);
    let web = server.addr("web");
    let [mut idle, mut asking] = [ASK, &[ASK, &ASK[..20]].concat()].map(|bytes| {
        let mut client = Client::connect(web);
        client.send(bytes);
        while client.line() != "ok\n" {}
        client
    });
    server.upgrade();
    assert_eq!(idle.rest(), b"");
    // A request under way has its answer.
    asking.send(&ASK[20..]);
    let answer = String::from_utf8(asking.rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
    server.wait_for_ends(1);
    let log = server.end();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

/// Of a process that others have gone on for, SIGUSR2 is not the way to them.
#[test]
fn who_asks_the_old_process_is_told_of_the_new_one() {
    let mut server = Generations::start("upgrade-old", &["serve", "echo=0,ws:0"]);
    let [_, ws] = [(); 2].map(|()| server.addr("echo"));
    let page = websocket::open(ws);
    server.upgrade();
    let [old, new] = [0, 1].map(|generation| server.pids[generation].to_string());
    let (status, _, error) = Program::run(&["upgrade", &old]);
    assert!(status == 1 && error.contains(&format!("process {new} has taken over")), "{error}");
    drop(page);
    server.wait_for_ends(1);
    server.end();
}

/// What somebody is downloading is not cut off.
#[test]
fn forwarded_connections_stay_and_end_in_peace() {
    let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = target.local_addr().unwrap().to_string();
    let mut server =
        Generations::start("upgrade-forward", &["forward", "0", &addr, "--max-connections=99"]);
    let at = server.addr("forward");
    let mut clients = Vec::new();
    for round in 0..2 {
        let client = Client::connect(at);
        clients.push((client, Client::from(target.accept().unwrap().0)));
        for (client, behind) in &mut clients {
            client.send("ask");
            behind.expect("ask");
            behind.send(format!("answer {round}"));
            client.expect(format!("answer {round}"));
        }
        if round == 0 {
            assert_eq!(server.upgrade(), "handed on 0 connections; 2 stay");
        }
    }
    for (mut client, mut behind) in clients {
        client.end();
        assert_eq!(behind.rest(), b"");
        behind.send("the last words");
        behind.end();
        assert_eq!(client.rest(), b"the last words");
    }
    server.wait_for_ends(1);
    let log = server.end();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}
