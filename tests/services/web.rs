//! The web server, byte for byte: by hand over memory, and over real sockets.

#![cfg(feature = "web")]

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use reactor::http::Sites;
use reactor::services::{Echo, Web};
use reactor::testing::{Client as Visitor, Harness};
use reactor::{CloseReason, Limits, Listen, Networks, Reactor};

use crate::util::http::{Answer, ask_over, take};
use crate::util::{Client, PATIENCE, Server, quiet, until};

const HERE: &str = "Host: 127.0.0.1:8023\r\n";
const PAGE: &str = "Host: 127.0.0.1:8023\r\nOrigin: http://127.0.0.1:8023\r\n";

fn web() -> Harness<Web> {
    Harness::with_limits(Web::new(), Web::limits())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{HERE}\r\n")
}

/// Sends a request and gives the whole answer, behind which nothing may come.
#[track_caller]
fn ask(server: &mut Harness<Web>, client: Visitor, request: &str) -> Answer {
    server.feed(client, request);
    let mut said = server.sent(client);
    let method = request.split(' ').next().unwrap();
    let answer = take(&mut said, method).expect("no whole answer");
    assert_eq!(String::from_utf8_lossy(&said), "", "behind {request:?}");
    answer
}

#[test]
fn each_path_has_its_answer() {
    let mut server = web();
    let client = server.connect();
    for (request, status, kind, words) in [
        (get("/"), 200, "text/html; charset=utf-8", "<!doctype html>"),
        (get("/metrics"), 200, "text/plain; version=0.0.4; charset=utf-8", "reactor_build_info"),
        (get("/healthz"), 200, "text/plain; charset=utf-8", "ok\n"),
        (get("/status.json"), 200, "application/json", "\"services\":["),
        (get("/status.json?watch&sort=oldest"), 200, "application/json", "\"services\":["),
    ] {
        let answer = ask(&mut server, client, &request);
        assert_eq!(answer.status, status, "{request}");
        assert_eq!(answer.header("Content-Type"), Some(kind));
        assert!(answer.body.contains(words), "{request}: {}", answer.body);
        // The same without the body.
        let head = ask(&mut server, client, &request.replacen("GET", "HEAD", 1));
        let length = |answer: &Answer| answer.header("Content-Length").map(str::to_owned);
        assert_eq!((head.status, head.body.as_str()), (status, ""));
        if !request.contains("metrics") {
            assert_eq!(length(&head), length(&answer), "{request}");
        }
        for answer in [answer, head] {
            assert_eq!(answer.header("Connection"), None);
            assert_eq!(answer.header("Cache-Control"), Some("no-store"));
            assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
            assert_eq!(answer.header("Referrer-Policy"), Some("no-referrer"));
        }
    }
    let page = ask(&mut server, client, &get("/"));
    let policy = page.header("Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"));
    assert!(!server.is_shut(client));
}

#[test]
fn what_it_does_not_take_is_answered_and_ends_the_connection() {
    let with = |method: &str, path: &str, headers: &str| {
        format!("{method} {path} HTTP/1.1\r\n{headers}\r\n")
    };
    for (request, status, words) in [
        (get("/nope"), 404, "see /"),
        (get("//"), 404, ""),
        (get("/status.json/"), 404, ""),
        (get("/status.json?service=nope"), 404, "no such service"),
        (get("/status.json?sort=nope"), 400, "unsent, idle, oldest"),
        (get("/status.json?all&sort=idle"), 400, "leave sort out"),
        (with("POST", "/", HERE), 405, "GET, HEAD"),
        (with("DELETE", "/metrics", HERE), 405, "GET, HEAD"),
        (with("OPTIONS", "*", HERE), 404, ""),
        (with("BREW", "/", HERE), 501, "method"),
        (with("get", "/", HERE), 501, "method"),
        (with("HEAD", "/ws/web", HERE), 405, ""),
        (get("/close/1"), 405, "POST"),
        (with("POST", "/close/1", PAGE), 403, "--web-admin"),
        (with("POST", "/", &format!("{HERE}Content-Length: 5\r\n")), 413, "no body"),
        (with("GET", "/", ""), 400, "Host"),
        (with("GET", "/", "Host: evil.example\r\n"), 403, "name"),
        (with("GET", "/healthz", "Host: evil.example\r\n"), 403, "name"),
        (with("GET", "/ws/web", "Host: evil.example\r\n"), 403, "name"),
        (with("GET", "/nope", "Host: evil.example\r\n"), 403, "name"),
        (with("GET", "/", &format!("{HERE}Origin: http://evil.example\r\n")), 403, "pages"),
        (with("GET", "/status.json", &format!("{HERE}Origin: null\r\n")), 403, "pages"),
        (with("GET", "/", &format!("{HERE}X: {}\r\n", "x".repeat(9000))), 431, "8 KiB"),
        (format!("GET /{}", "x".repeat(9000)), 414, "8 KiB"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505, "HTTP/1.1"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\n".to_owned(), 400, "no HTTP"),
    ] {
        let mut server = web();
        let client = server.connect();
        let answer = ask(&mut server, client, &request);
        assert_eq!(answer.status, status, "{request}");
        let allow = answer.header("Allow").map(str::to_owned);
        assert_eq!(allow.is_some(), status == 405, "{request}");
        assert!(answer.body.contains(words) || request.starts_with("HEAD"), "{answer:?}");
        assert!(answer.body.lines().count() <= 1, "{answer:?}");
        assert_eq!(answer.header("Connection"), Some("close"), "{request}");
        assert!(server.is_shut(client), "{request}");
    }
}

#[test]
fn nothing_behind_a_request_that_can_be_read_in_two_ways_is_answered() {
    for (headers, body) in [
        ("Content-Length: 36\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding : chunked\r\n", ""),
        ("Transfer-Encoding:\x0bchunked\r\n", ""),
        ("Content-Length: 0\r\nContent-Length: 36\r\n", ""),
        ("Content-Length: 36\r\n", ""),
        ("Content-Length: -1\r\n", ""),
        ("Content-Length: 0x24\r\n", ""),
        ("Host: other\r\n", ""),
        (" folded: x\r\n", ""),
        ("X: y\n\nGET /metrics HTTP/1.1\r\n", ""),
        ("X: y\r\r\n", ""),
        ("X: \0\r\n", ""),
        ("X y\r\n", ""),
    ] {
        let mut server = web();
        let client = server.connect();
        let smuggled = get("/healthz");
        let request = format!("POST /healthz HTTP/1.1\r\n{HERE}{headers}\r\n{body}{smuggled}");
        let answer = ask(&mut server, client, &request);
        assert!([400, 413, 501].contains(&answer.status), "{headers:?}: {answer:?}");
        assert!(server.is_shut(client), "{headers:?}");
    }
}

#[test]
fn pieces_and_pipelines_get_the_same_answers_in_order() {
    let requests = [
        get("/healthz"),
        get("/"),
        "HEAD /status.json HTTP/1.1\r\nHost: [::1]\r\n\r\n".to_owned(),
        get("/status.json"),
        get("/metrics"),
        get("/healthz"),
        get("/nope"),
        get("/healthz"),
    ];
    let all = requests.concat();
    let mut seen = Vec::new();
    for piece in [1, 7, 1000, all.len()] {
        let mut server = web();
        let client = server.connect();
        for bytes in all.as_bytes().chunks(piece) {
            server.feed(client, bytes);
        }
        let mut said = server.sent(client);
        let mut statuses = Vec::new();
        for request in &requests[..7] {
            let answer = take(&mut said, request.split(' ').next().unwrap()).unwrap();
            statuses.push((answer.status, answer.header("Content-Type").unwrap().to_owned()));
        }
        // Behind an error nothing is answered.
        assert_eq!((said.len(), server.is_shut(client)), (0, true));
        seen.push(statuses);
    }
    assert_eq!(seen[0].last().unwrap().0, 404);
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
}

#[test]
fn a_client_that_has_ended_its_side_gets_all_answers() {
    let mut server = web();
    let client = server.connect();
    server.feed(client, [get("/status.json"), get("/healthz"), "GET / HTTP".to_owned()].concat());
    server.end(client);
    let mut said = server.sent(client);
    assert_eq!(take(&mut said, "GET").unwrap().status, 200);
    assert_eq!(take(&mut said, "GET").unwrap().body, "ok\n");
    // What is cut off is no request.
    assert_eq!((said.len(), server.is_shut(client)), (0, true));
}

#[test]
fn old_and_closing_clients_are_let_go() {
    let mut server = web();
    for (request, connection) in [
        ("GET /healthz HTTP/1.0\r\n\r\n".to_owned(), Some("close")),
        ("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(), Some("keep-alive")),
        (format!("GET /healthz HTTP/1.1\r\n{HERE}Connection: close\r\n\r\n"), Some("close")),
        // Its end is that of the body: HTTP/1.0 has no chunks.
        ("GET /status.json HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(), Some("close")),
    ] {
        let client = server.connect();
        let answer = ask(&mut server, client, &request);
        assert_eq!((answer.status, answer.header("Connection")), (200, connection), "{request}");
        assert_eq!(server.is_shut(client), connection == Some("close"), "{request}");
        if request.contains("json") {
            assert!(answer.json()["connections"]["total"].is_u64());
        }
    }
}

#[test]
fn a_request_has_ten_seconds_and_an_idle_connection_a_minute() {
    let mut server = web();
    let [dripping, idle, fresh] = [(); 3].map(|()| server.connect());
    ask(&mut server, idle, &get("/healthz"));
    for byte in get("/healthz").bytes().take(9) {
        server.feed(dripping, [byte]);
        server.advance(Duration::from_secs(1));
        assert!(!server.is_shut(dripping));
    }
    server.advance(Duration::from_millis(1001));
    let mut said = server.sent(dripping);
    assert_eq!(take(&mut said, "GET").unwrap().status, 408);
    assert!(server.is_shut(dripping));
    server.advance(Duration::from_secs(52));
    // A browser that had opened it ahead would take words for the answer to its next request.
    for client in [idle, fresh] {
        assert_eq!((server.sent(client).len(), server.is_shut(client)), (0, true));
    }
}

#[test]
fn one_too_many_hears_it_in_http() {
    let limits = Limits { max_connections: 1, ..Web::limits() };
    let server = Server::start(limits, Web::new);
    let mut first = server.connect();
    assert_eq!(ask_over(&mut first, &get("/healthz")).status, 200);
    let mut said = server.connect().rest();
    assert_eq!(take(&mut said, "GET").unwrap().status, 503);
    server.stop();
}

#[test]
fn open_metrics_come_where_they_are_preferred() {
    let mut server = web();
    let client = server.connect();
    let prometheus =
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    for (accept, open) in [
        (prometheus, true),
        ("*/*", false),
        ("text/plain", false),
        ("application/openmetrics-text", true),
        ("application/openmetrics-text;q=0.2, text/plain", false),
        ("application/openmetrics-text;q=0", false),
        ("text/plain;q=0.1\r\nAccept: application/openmetrics-text", true),
    ] {
        let request = format!("GET /metrics HTTP/1.1\r\n{HERE}Accept: {accept}\r\n\r\n");
        let answer = ask(&mut server, client, &request);
        let kind = answer.header("Content-Type").unwrap();
        assert_eq!(kind.starts_with("application/openmetrics-text"), open, "{accept}: {kind}");
        assert_eq!(answer.body.ends_with("# EOF\n"), open, "{accept}");
    }
}

#[test]
fn names_and_pages_that_are_ours_may_come() {
    let sites = Sites::new().host("box.example").origin("https://box.example".parse().unwrap());
    let mut server = Harness::new(Web::new().sites(sites));
    let client = server.connect();
    let headers = "Host: box.example\r\nOrigin: https://box.example\r\n";
    let request = format!("GET /healthz HTTP/1.1\r\n{headers}\r\n");
    assert_eq!(ask(&mut server, client, &request).status, 200);
}

// ---- Many connections ----

#[test]
fn a_hundred_connections_are_shown_unless_all_are_asked_for() {
    let mut server = web();
    let client = server.connect();
    let others: Vec<_> = (0..700).map(|_| server.connect()).collect();
    for (path, shown) in [
        ("/status.json", 100),
        ("/status.json?sort=idle", 100),
        ("/status.json?all", 701),
        ("/status.json?all=1&watch", 701),
    ] {
        let json = ask(&mut server, client, &get(path)).json();
        let list = json["connections"]["shown"].as_array().unwrap();
        assert_eq!((list.len(), &json["connections"]["total"]), (shown, &701.into()), "{path}");
        let mut ids: Vec<_> = list.iter().map(|one| one["id"].as_u64().unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), shown, "{path}");
    }
    drop(others);
}

#[test]
fn a_slow_reader_of_all_connections_takes_little_memory_and_is_not_kept_for_ever() {
    let limits = Limits { max_connections: 5000, ..Web::limits() };
    let mut server = Harness::with_limits(Web::new(), limits);
    let (slow, other) = (server.connect(), server.connect());
    (0..4000).for_each(|_| _ = server.connect());
    server.take_only(slow, Some(1000));
    server.feed(slow, get("/status.json?all"));
    // Some 800 KB in all.
    let most = server.unsent();
    assert!(most > 0 && most < 160 * 1024, "{most}");
    assert_eq!(ask(&mut server, other, &get("/healthz")).body, "ok\n");
    let mut said = server.sent(slow);
    for _ in 0..10 {
        server.take_only(slow, Some(50_000));
        assert!(server.unsent() < 160 * 1024);
        said.extend(server.sent(slow));
    }
    assert!(take(&mut said.clone(), "GET").is_none());
    // A minute of nothing, and what a close waits for the rest to go out.
    server.advance(Duration::from_secs(61));
    server.advance(Duration::from_secs(31));
    assert_eq!(server.closed(slow), Some(CloseReason::Stalled));
}

#[test]
fn a_thousand_visitors_stay_and_all_are_answered() {
    let _quiet = quiet();
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let server = Server::start(Web::limits(), Web::new);
    let mut visitors: Vec<_> = (0..1000).map(|_| server.connect()).collect();
    for round in 0..2 {
        for visitor in &mut visitors {
            visitor.send(get("/healthz"));
        }
        for visitor in &mut visitors {
            let answer = ask_over(visitor, "");
            assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"), "{round}");
        }
    }
    let json = ask_over(&mut visitors[0], &get("/status.json?all")).json();
    assert_eq!(json["connections"]["shown"].as_array().unwrap().len(), 1000);
    drop(visitors);
    let (_, counters) = server.stop();
    assert_eq!(counters.accepted, 1000);
}

// ---- Closing ----

/// A reactor with echo, and with a web that may close, behind a door of its own and one for proxies.
fn with_echo() -> ([SocketAddr; 2], SocketAddr, impl FnOnce()) {
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut reactor = Reactor::new().unwrap();
        let echo = reactor.listen("127.0.0.1:0", Echo).unwrap();
        let web = reactor.add(Web::new().admin(true), Web::limits()).unwrap();
        reactor.set_name(&echo, "echo");
        reactor.set_name(&web, "web");
        let plain = Listen::at("127.0.0.1:0").unwrap();
        let doors = [plain.clone(), plain.proxy(Networks::loopback())];
        let doors = doors.map(|door| reactor.bind(&web, door).unwrap().as_socket().unwrap());
        let addr = echo.address().unwrap().as_socket().unwrap();
        tell.send((doors, addr, echo.handle())).unwrap();
        reactor.run().unwrap();
    });
    let (doors, echo, handle) = told.recv_timeout(PATIENCE).unwrap();
    let stop = move || {
        handle.stop();
        thread.join().unwrap();
    };
    (doors, echo, stop)
}

#[test]
fn only_a_page_from_here_closes_connections() {
    let (doors, echo, stop) = with_echo();
    let mut victim = Client::connect(echo);
    victim.line();
    let here = doors[0];
    let host = format!("Host: {here}\r\n");
    let origin = format!("{host}Origin: http://{here}\r\n");
    let list = ask_over(
        &mut Client::connect(here),
        &format!("GET /status.json?service=echo HTTP/1.1\r\n{host}\r\n"),
    );
    let id = list.json()["connections"]["shown"][0]["id"].as_u64().unwrap();
    let close = |headers: &str| format!("POST /close/{id} HTTP/1.1\r\n{headers}\r\n");
    for headers in [
        host.clone(),
        format!("{host}Origin: http://localhost:{}\r\n", here.port()),
        format!("{origin}X-Forwarded-For: 127.0.0.1\r\n"),
        format!("{origin}Forwarded: for=127.0.0.1\r\n"),
        format!("{origin}Via: 1.1 somebody\r\n"),
    ] {
        let answer = ask_over(&mut Client::connect(here), &close(&headers));
        assert_eq!(answer.status, 403, "{headers}");
    }
    // Who comes through a proxy is who the proxy says.
    let through = doors[1];
    let mut client = Client::connect(through);
    client.send("PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n");
    let headers = format!("Host: {through}\r\nOrigin: http://{through}\r\n");
    assert_eq!(ask_over(&mut client, &close(&headers)).status, 403);

    let mut client = Client::connect(here);
    let answer = ask_over(&mut client, &close(&format!("{origin}Content-Length: 0\r\n")));
    assert_eq!((answer.status, answer.body.as_str()), (200, "closed\n"));
    victim.line();
    assert_eq!(victim.rest(), b"");
    // The same connection goes on, until it is wrong.
    let wrong = close(&origin).replace(&format!("/{id} "), "/4294967295 ");
    assert_eq!(ask_over(&mut client, &wrong).status, 404);
    let wrong = close(&origin).replace(&format!("/{id} "), "/x ");
    assert_eq!(ask_over(&mut Client::connect(here), &wrong).status, 404);
    stop();
}

#[test]
fn who_asks_while_it_shuts_down_hears_so() {
    let mut reactor = Reactor::new().unwrap();
    let web = reactor.listen_with("127.0.0.1:0", Web::new(), Web::limits()).unwrap();
    let addr = web.address().unwrap().as_socket().unwrap();
    let mut client = Client::connect(addr);
    until("it is there", || {
        reactor.turn(Some(Duration::ZERO)).unwrap();
        reactor.counters_of(&web).open == 1
    });
    client.send(get("/healthz"));
    web.handle().stop();
    reactor.turn(None).unwrap();
    let answer = ask_over(&mut client, "");
    assert_eq!((answer.status, answer.body.as_str()), (503, "shutting down\n"));
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_shutdown_does_not_wait_for_visitors() {
    let server = Server::start(Web::limits(), Web::new);
    let mut visitor = server.connect();
    assert_eq!(ask_over(&mut visitor, &get("/healthz")).status, 200);
    let addr = server.addr;
    server.stop();
    assert_eq!(visitor.rest(), b"");
    assert!(TcpStream::connect(addr).is_err());
}

// ---- WebSocket ----

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// What RFC 6455 says is the answer to that key.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A line as a browser sends it, masked with zeros.
fn masked(line: &str) -> Vec<u8> {
    [&[0x81, 0x80 | line.len() as u8, 0, 0, 0, 0], line.as_bytes()].concat()
}

fn message(line: &str) -> Vec<u8> {
    [&[0x81, line.len() as u8], line.as_bytes()].concat()
}

#[test]
fn another_service_is_behind_its_name() {
    let ([here, _], echo, stop) = with_echo();
    let head = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {here}\r\n");
    let mut client = Client::connect(here);
    // Requests before it are answered, and what comes behind it is for that service.
    client.send(format!("{}\r\n", head("/healthz")));
    let page = format!("Origin: http://{here}\r\n");
    assert_eq!(ask_over(&mut client, "").body, "ok\n");
    client.send(
        [format!("{}{page}{UPGRADE}\r\n", head("/ws/%65cho")).into_bytes(), masked("hi")].concat(),
    );
    let answer = ask_over(&mut client, "");
    assert_eq!((answer.status, answer.header("Sec-WebSocket-Accept")), (101, Some(ACCEPT)));
    let mut plain = Client::connect(echo);
    for greeting in [plain.line(), plain.line()] {
        client.expect(message(greeting.trim_end()));
    }
    client.expect(message("> HI"));
    client.send([masked("you"), masked("bye")].concat());
    client.expect([message("> YOU"), message("> BYE")].concat());
    // Closed in good order, with code 1000.
    client.expect(b"\x88\x02\x03\xe8");
    for (path, headers, status) in [
        ("/ws/nope", UPGRADE, 404),
        ("/ws/", UPGRADE, 404),
        ("/ws/web", UPGRADE, 404),
        ("/ws/echo/", UPGRADE, 404),
        ("/ws/echo", "", 426),
        ("/ws/echo", &UPGRADE.replace("13", "8"), 426),
        ("/ws/echo", &UPGRADE.replace("ZQ==", ""), 400),
        ("/ws/echo", &format!("Origin: http://evil.example\r\n{UPGRADE}"), 403),
        ("/ws/echo", &format!("Origin: null\r\n{UPGRADE}"), 403),
    ] {
        let answer = ask_over(&mut Client::connect(here), &format!("{}{headers}\r\n", head(path)));
        assert_eq!(answer.status, status, "{path} {headers}");
        assert!(answer.head.contains("Connection: close\r\n"), "{path} {headers}");
        assert_eq!(answer.header("Upgrade"), (status == 426).then_some("websocket"));
    }
    stop();
}
