//! WebSocket, at both ends, byte by byte.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reactor::http::Sites;
use reactor::{
    CloseReason, Connect, Context, Counters, Handle, Handler, Limits, Listen, Networks, Rate,
    Rates, Reactor, Refused, WebSocket,
};

use crate::util::websocket::{
    BINARY, CLOSE, FIRST, LAST, MORE, PING, PONG, TEXT, accepted, closing, head, masked, open,
    open_with, plain, request,
};
use crate::util::{Client, PATIENCE};

/// Answers lines, some of them in its own way, and tells how connections end.
struct Mirror(Sender<(CloseReason, Option<String>)>);

impl Handler for Mirror {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        if cx.is_outbound() {
            cx.send("one\r\ntwo\n");
        }
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        match line {
            b"who" => match cx.peer_addr() {
                Some(peer) => writeln!(cx, "{}", peer.ip()),
                None => writeln!(cx, "nobody"),
            },
            b"close" => cx.close(),
            b"half" => cx.half_close(),
            b"panic" => panic!("as it was told"),
            b"long" => {
                let line = [vec![b'x'; 300_000], b"\n".to_vec()].concat();
                cx.send(line);
            }
            b"prompt" => {
                cx.send("who are you? ");
            }
            line => {
                cx.send([b"<", line, b">\n"].concat());
            }
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
        let _ = self.0.send((reason, cx.close_detail()));
    }
}

/// A mirror, run by a thread.
struct Web {
    addr: SocketAddr,
    handle: Handle<()>,
    ends: Receiver<(CloseReason, Option<String>)>,
    thread: JoinHandle<Counters>,
}

impl Web {
    fn usual() -> Web {
        Web::new(Limits::default(), |listen| listen.web_socket(&WebSocket::new()))
    }

    fn new(limits: Limits, listen: impl FnOnce(Listen) -> Listen + Send + 'static) -> Web {
        let (tell, told) = channel();
        let (end, ends) = channel();
        let thread = std::thread::spawn(move || {
            let mut reactor = Reactor::new().unwrap();
            let listen = listen(Listen::at("127.0.0.1:0").unwrap());
            let service = reactor.listen_with(listen, Mirror(end), limits).unwrap();
            tell.send((service.address().unwrap().as_socket().unwrap(), service.handle())).unwrap();
            reactor.run().unwrap();
            reactor.counters().clone()
        });
        let (addr, handle) = told.recv_timeout(PATIENCE).expect("the reactor did not start");
        Web { addr, handle, ends, thread }
    }

    /// How the next connection ended.
    #[track_caller]
    fn end(&self) -> CloseReason {
        self.ends.recv_timeout(PATIENCE).expect("no connection has ended").0
    }

    fn stop(self) -> Counters {
        self.handle.stop();
        self.thread.join().unwrap()
    }
}

/// The whole answer to a request, up to the end of the connection.
fn answer(web: &Web, request: impl AsRef<[u8]>) -> String {
    let mut client = Client::connect(web.addr);
    client.send(request);
    String::from_utf8(client.rest()).unwrap()
}

fn failed(counters: &Counters) -> u64 {
    counters.handshakes_failed_by_layer().find(|(layer, _)| *layer == "ws").unwrap().1
}

// ---- The handshake ----

#[test]
fn frames_may_follow_the_request_at_once_and_all_may_come_in_pieces() {
    let web = Web::usual();
    let bytes = [
        request(&web.addr.to_string(), "").into_bytes(),
        masked(TEXT, "hello"),
        masked(TEXT, ""),
        masked(CLOSE, ""),
    ];
    for size in [1, 7, 1000] {
        let mut client = Client::connect(web.addr);
        client.stream.set_nodelay(true).unwrap();
        for piece in bytes.concat().chunks(size) {
            client.send(piece);
        }
        accepted(&mut client);
        let said = [plain(TEXT, "<hello>"), plain(TEXT, "<>"), plain(CLOSE, "")];
        assert_eq!(client.rest(), said.concat(), "in pieces of {size}");
        assert_eq!(web.end(), CloseReason::PeerClosed);
    }
    assert_eq!(web.stop().handshakes_failed, 0);
}

#[test]
fn what_asks_for_no_web_socket_is_told_what_this_port_is() {
    let web = Web::usual();
    let host = web.addr.to_string();
    let proper = request(&host, "");
    let without = |what: &str| {
        let lines = proper.split_inclusive("\r\n").filter(|line| !line.starts_with(what));
        lines.collect::<String>()
    };
    for (request, status, word) in [
        (format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), 426, "ws://"),
        (without("Upgrade:"), 426, "ws://"),
        (without("Connection:"), 426, "ws://"),
        (proper.replace("GET", "POST"), 426, "ws://"),
        (proper.replace("HTTP/1.1", "HTTP/1.0"), 426, "ws://"),
        (proper.replace("Version: 13", "Version: 8"), 426, "version 13"),
        (without("Sec-WebSocket-Version"), 426, "version 13"),
        (without("Sec-WebSocket-Key"), 400, "Key"),
        (proper.replace("==", "AA"), 400, "Key"),
        (without("Host"), 400, "Host"),
        ("hello\n".to_owned(), 400, "HTTP"),
        (proper.replace("\r\n\r\n", &format!("\r\nX: {}\r\n\r\n", "x".repeat(9000))), 431, "8 KiB"),
    ] {
        let answer = answer(&web, &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        let (head, sentence) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("close") && sentence.lines().count() == 1, "{answer}");
        assert!(sentence.contains(word), "{request}: {answer}");
        let upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        assert_eq!(head.contains(upgrade), status == 426, "{answer}");
    }
    assert_eq!(failed(&web.stop()), 12);
}

#[test]
fn what_comes_behind_a_refused_request_does_not_destroy_the_answer() {
    let web = Web::usual();
    let mut client = Client::connect(web.addr);
    client.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", web.addr));
    assert_eq!(head(&mut client)[0], "HTTP/1.1 426 Upgrade Required");
    client.send([b'x'; 4000]);
    client.end();
    client.rest();
    web.stop();
}

#[test]
fn pages_of_others_are_refused() {
    let sites =
        || Sites::new().host("room.example").origin("https://page.example".parse().unwrap());
    let web = Web::new(Limits::default(), move |listen| {
        listen.web_socket(&WebSocket::new().sites(sites()))
    });
    let (own, port) = (web.addr.to_string(), web.addr.port());
    let origin = |origin: &str| format!("Origin: {origin}\r\n");
    let named = format!("room.example:{port}");
    for (host, headers, status) in [
        (&own, String::new(), 101),
        (&own, origin(&format!("http://{own}")), 101),
        (&own, origin("https://page.example"), 101),
        (&named, String::new(), 101),
        (&named, origin(&format!("http://{named}")), 101),
        (&own, origin("http://evil.example"), 403),
        (&own, origin("null"), 403),
        (&own, origin(&format!("http://127.0.0.1:{}", port ^ 1)), 403),
        (&format!("rebound.example:{port}"), String::new(), 403),
        (
            &format!("rebound.example:{port}"),
            origin(&format!("http://rebound.example:{port}")),
            403,
        ),
        // When this one is let in, those before it have been counted.
        (&own, String::new(), 101),
    ] {
        let mut client = Client::connect(web.addr);
        client.send(request(host, &headers));
        let said = head(&mut client);
        assert!(said[0].starts_with(&format!("HTTP/1.1 {status} ")), "{host} {headers}: {said:?}");
        if status == 403 {
            client.rest();
        }
    }
    let counters = web.stop();
    assert_eq!((counters.refused_for(Refused::Origin), counters.refused), (5, 5));
    assert_eq!(counters.handshakes_failed, 0);
}

#[test]
fn a_request_that_does_not_end_has_its_time() {
    let limits = Limits { handshake_timeout: Duration::from_millis(100), ..Limits::default() };
    let web = Web::new(limits, |listen| listen.web_socket(&WebSocket::new()));
    assert_eq!(answer(&web, "GET / HTTP/1.1\r\n"), "");
    assert_eq!(failed(&web.stop()), 1);
}

#[test]
fn one_too_many_is_told_in_http() {
    let limits = Limits { max_connections: 1, ..Limits::default() };
    let web = Web::new(limits, |listen| listen.web_socket(&WebSocket::new()));
    let _one = open(web.addr);
    let mut two = Client::connect(web.addr);
    let said = String::from_utf8(two.rest()).unwrap();
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("Too many"), "{said}");
    assert_eq!(web.stop().refused_for(Refused::Full), 1);
}

// ---- Lines and messages ----

#[test]
fn a_line_is_a_message_both_ways() {
    let web = Web::usual();
    let mut client = open(web.addr);
    client.send([masked(FIRST, "he"), masked(PING, "?"), masked(LAST, "llo")].concat());
    let (pong, hello) = (plain(PONG, "?"), plain(TEXT, "<hello>"));
    // The pong goes out with the rest of the turn, the line before or behind it.
    let first = client_bytes(&mut client, pong.len() + hello.len());
    assert!(first == [&pong[..], &hello].concat() || first == [&hello[..], &pong].concat());
    client.send(masked(TEXT, "one\ntwo\r\n"));
    client.expect([plain(TEXT, "<one>"), plain(TEXT, "<two>")].concat());
    client.send(masked(BINARY, b"\xFF\n"));
    client.expect(plain(TEXT, "<\u{FFFD}>"));
    client.send(masked(TEXT, "prompt"));
    client.expect(plain(FIRST, "who are you? "));
    client.send(masked(TEXT, "me"));
    client.expect(plain(LAST, "<me>"));
    web.stop();
}

fn client_bytes(client: &mut Client, count: usize) -> Vec<u8> {
    use std::io::Read;
    let mut all = vec![0; count];
    client.stream.read_exact(&mut all).unwrap();
    all
}

#[test]
fn a_long_line_goes_out_in_fragments_and_what_was_asked_comes_before_the_close() {
    let web = Web::usual();
    let mut client = open(web.addr);
    client.send(
        [masked(TEXT, "long"), masked(TEXT, "bye"), masked(CLOSE, 4000_u16.to_be_bytes())].concat(),
    );
    let (mut line, mut said, mut sizes) = (0, client.rest(), Vec::new());
    while said[0] == FIRST || said[0] == MORE {
        assert_eq!((said[0], said[1]), (if line == 0 { FIRST } else { MORE }, 126));
        let length = usize::from(u16::from_be_bytes([said[2], said[3]]));
        assert!(said[4..4 + length].iter().all(|byte| *byte == b'x'));
        said.drain(..4 + length);
        line += length;
        sizes.push(length);
    }
    let last = said[1] & 0x7F;
    assert!(sizes.iter().all(|size| *size <= 16 * 1024), "{sizes:?}");
    assert_eq!(said[0], LAST);
    let length =
        if last < 126 { last.into() } else { usize::from(u16::from_be_bytes([said[2], said[3]])) };
    said.drain(..if last < 126 { 2 } else { 4 } + length);
    assert_eq!(line + length, 300_000);
    assert_eq!(said, [plain(TEXT, "<bye>"), closing(4000)].concat());
    assert_eq!(web.end(), CloseReason::PeerClosed);
    web.stop();
}

#[test]
fn a_ping_costs_a_line_of_the_rate() {
    let lines = Some(Rate { per_second: 10, burst: 10 });
    let limits = Limits { rate: Rates { lines, bytes: None }, ..Limits::default() };
    let web = Web::new(limits, |listen| listen.web_socket(&WebSocket::new()));
    let mut client = open(web.addr);
    let began = Instant::now();
    client.send(masked(PING, "").repeat(20));
    client.expect(plain(PONG, "").repeat(20));
    client.send(masked(TEXT, "late"));
    client.expect(plain(TEXT, "<late>"));
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    web.stop();
}

// ---- Endings ----

#[test]
fn the_close_frame_says_why_it_closes() {
    let limits = Limits { max_line: 1000, ..Limits::default() };
    let web = Web::new(limits, |listen| listen.web_socket(&WebSocket::new()));
    for (bytes, said, reason, code) in [
        (masked(TEXT, "close"), &[][..], CloseReason::Closed, 1000),
        (masked(TEXT, "a\npanic"), &["<a>"], CloseReason::Panicked, 1011),
        (
            [masked(TEXT, "a"), masked(FIRST, "x".repeat(600)), masked(MORE, "x".repeat(600))]
                .concat(),
            &["<a>", "Line too long (limit 1000 bytes)"],
            CloseReason::LineTooLong,
            1009,
        ),
        (
            [masked(TEXT, "a"), plain(TEXT, "no mask")].concat(),
            &["<a>"],
            CloseReason::Error(ErrorKind::InvalidData),
            1002,
        ),
        (
            [masked(TEXT, "a"), masked(TEXT, b"\xFF")].concat(),
            &["<a>"],
            CloseReason::Error(ErrorKind::InvalidData),
            1007,
        ),
    ] {
        let mut client = open(web.addr);
        client.send(bytes);
        let heard = client.rest();
        let mut wanted: Vec<u8> = said.iter().flat_map(|line| plain(TEXT, line)).collect();
        wanted.extend(closing(code));
        assert_eq!(String::from_utf8_lossy(&heard), String::from_utf8_lossy(&wanted));
        assert_eq!(web.end(), reason);
    }
    let mut client = open(web.addr);
    client.send(masked(TEXT, "half"));
    client.expect(closing(1000));
    client.send(masked(TEXT, "still heard"));
    client.send(masked(CLOSE, ""));
    assert_eq!(web.end(), CloseReason::PeerClosed);
    let mut client = open(web.addr);
    web.handle.stop();
    client.expect(closing(1001));
    drop(client);
    web.thread.join().unwrap();
}

#[test]
fn a_rule_that_closes_is_1008() {
    let wait = Duration::from_millis(100);
    let idle = Limits { idle_timeout: Some(wait), ..Limits::default() };
    let late = Limits { line_timeout: Some(wait), ..Limits::default() };
    let half = masked(TEXT, "hello");
    for (limits, bytes, reason) in [
        (idle, &b""[..], CloseReason::IdleTimeout),
        (late.clone(), &half[..1], CloseReason::LineTimeout),
        (late.clone(), &half[..half.len() - 1], CloseReason::LineTimeout),
        (late, &masked(FIRST, "hel"), CloseReason::LineTimeout),
    ] {
        let web = Web::new(limits, |listen| listen.web_socket(&WebSocket::new()));
        let mut client = open(web.addr);
        client.send(bytes);
        let heard = client.rest();
        assert!(heard.ends_with(&closing(1008)), "{heard:?}");
        assert_eq!(web.end(), reason);
        web.stop();
    }
}

#[test]
fn a_client_that_vanishes_is_an_error_and_its_whole_lines_have_answers() {
    let web = Web::usual();
    let mut client = open(web.addr);
    client.send([masked(TEXT, "whole"), masked(FIRST, "hal")].concat());
    client.end();
    assert!(client.rest().starts_with(&plain(TEXT, "<whole>")));
    let (reason, detail) = web.ends.recv_timeout(PATIENCE).unwrap();
    assert_eq!(reason, CloseReason::Error(ErrorKind::UnexpectedEof));
    assert!(detail.unwrap().contains("without a close frame"));
    open(web.addr).reset();
    assert_eq!(web.end(), CloseReason::Error(ErrorKind::ConnectionReset));
    web.stop();
}

// ---- Over others ----

#[test]
fn a_proxy_header_comes_before_the_request() {
    let web = Web::new(Limits { max_per_peer: Some(1), ..Limits::default() }, |listen| {
        listen.web_socket(&WebSocket::new()).proxy(Networks::loopback())
    });
    let begin = || {
        let mut client = Client::connect(web.addr);
        let header = "PROXY TCP4 192.0.2.7 127.0.0.1 51234 443\r\n";
        client.send([header, &request(&web.addr.to_string(), "")].concat());
        accepted(&mut client);
        client
    };
    let mut one = begin();
    one.send(masked(TEXT, "who"));
    one.expect(plain(TEXT, "192.0.2.7"));
    // Who it is shows only now, behind the handshake.
    let said = begin().rest();
    assert!(said.ends_with(&closing(1013)) && said[0] == TEXT, "{said:?}");
    web.stop();
}

#[cfg(feature = "tls")]
#[test]
fn tls_comes_before_the_request_in_whatever_order_it_was_said() {
    use crate::util::tls::Pem;
    for tls_first in [true, false] {
        let pem = Pem::new("ws-over-tls");
        let (cert, key) = (pem.cert(), pem.key());
        let web = Web::new(Limits::default(), move |listen| {
            let tls = reactor::Tls::from_files(cert, key).unwrap();
            match tls_first {
                true => listen.tls(&tls).web_socket(&WebSocket::new()),
                false => listen.web_socket(&WebSocket::new()).tls(&tls),
            }
        });
        let mut client = pem.connect(web.addr);
        let request = request("localhost", "Origin: https://localhost\r\n");
        client.send([request.into_bytes(), masked(TEXT, "hello"), masked(CLOSE, "")].concat());
        let said = client.rest().0;
        let frames = [plain(TEXT, "<hello>"), plain(CLOSE, "")].concat();
        assert!(said.ends_with(&frames), "{}", String::from_utf8_lossy(&said));
        assert_eq!(web.end(), CloseReason::PeerClosed);
        web.stop();
    }
}

/// Its first reads of the socket give no plaintext, and no event follows.
#[cfg(feature = "tls")]
#[test]
fn a_request_may_come_in_a_long_record() {
    use crate::util::tls::Pem;
    let pem = Pem::new("ws-long-record");
    let (cert, key) = (pem.cert(), pem.key());
    let limits = Limits { handshake_timeout: Duration::from_secs(5), ..Limits::default() };
    let web = Web::new(limits, move |listen| {
        let tls = reactor::Tls::from_files(cert, key).unwrap();
        listen.tls(&tls).web_socket(&WebSocket::new())
    });
    let mut client = pem.connect(web.addr);
    let request = request("localhost", "").into_bytes();
    // A record of the largest size, with the header of the frame.
    let line = "x".repeat(16 * 1024 - request.len() - 8);
    client.send([request, masked(TEXT, &line)].concat());
    client.until("the answer", |client| client.received.ends_with(b">"));
    web.stop();
}

// ---- Dialling ----

/// A server by hand, and how the connection of a mirror to it ended.
fn dialled(serve: impl FnOnce(&mut Client) + Send + 'static) -> (CloseReason, Option<String>) {
    dialled_as(&WebSocket::new(), serve)
}

fn dialled_as(
    web_socket: &WebSocket,
    serve: impl FnOnce(&mut Client) + Send + 'static,
) -> (CloseReason, Option<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || serve(&mut Client::from(listener.accept().unwrap().0)));
    let (end, ends) = channel();
    let mut reactor = Reactor::new().unwrap();
    let service = reactor.add(Mirror(end), Limits::default()).unwrap();
    let connect = Connect::to(address).unwrap().web_socket(web_socket);
    reactor.connect(&service, connect).unwrap();
    let began = Instant::now();
    let end = loop {
        reactor.turn(Some(Duration::from_millis(100))).unwrap();
        match ends.try_recv() {
            Ok(end) => break end,
            Err(_) => assert!(began.elapsed() < PATIENCE, "the connection does not end"),
        }
    };
    drop(reactor);
    server.join().unwrap();
    end
}

#[test]
fn a_server_is_asked_for_the_path_that_was_given() {
    let web_socket = WebSocket::new().path("/ws/room?as=%C3%A9").unwrap();
    let (_, why) = dialled_as(&web_socket, |client| {
        assert_eq!(head(client)[0], "GET /ws/room?as=%C3%A9 HTTP/1.1");
        client.send("HTTP/1.1 404 Not Found\r\n\r\n");
    });
    assert_eq!(why.unwrap(), "it answers with status 404, not with WebSocket");
    for wrong in ["", "ws", "/a b", "/\u{e9}", "/a#b", "/\r\nX: y", "http://localhost/"] {
        let error = WebSocket::new().path(wrong).unwrap_err().to_string();
        assert!(error.contains(&format!("{wrong:?}: write a path as /ws/NAME")), "{error}");
    }
}

/// Reads the request and accepts it, with what else is to be sent.
fn accept(client: &mut Client, frames: &[u8]) {
    let head = head(client);
    assert_eq!(head[0], "GET / HTTP/1.1");
    let value = |name: &str| {
        let line = head.iter().find(|line| line.starts_with(name)).unwrap();
        line.split_once(": ").unwrap().1.to_owned()
    };
    assert_eq!(value("Host"), client.stream.local_addr().unwrap().to_string());
    assert_eq!((value("Upgrade"), value("Connection")), ("websocket".into(), "Upgrade".into()));
    assert_eq!(value("Sec-WebSocket-Version"), "13");
    let key = value("Sec-WebSocket-Key");
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Yes\r\nupgrade: WebSocket\r\nconnection: keep-alive, upgrade\r\n\
         sec-websocket-accept: {accept}\r\n\r\n"
    );
    client.send([head.as_bytes(), frames].concat());
}

/// The next frame of a client: its first byte and its payload.
fn frame(client: &mut Client) -> (u8, Vec<u8>) {
    let head = client_bytes(client, 6);
    assert!((0x80..0x80 + 126).contains(&head[1]), "not masked, or long: {head:?}");
    let mut payload = client_bytes(client, usize::from(head[1] & 0x7F));
    for (byte, mask) in payload.iter_mut().zip(head[2..].iter().cycle()) {
        *byte ^= mask;
    }
    (head[0], payload)
}

#[test]
fn a_client_masks_its_frames_and_the_server_does_not() {
    let (reason, _) = dialled(|client| {
        accept(client, &[plain(TEXT, "first"), plain(PING, "?")].concat());
        let mut heard: Vec<_> = (0..4).map(|_| frame(client)).collect();
        heard.sort_by_key(|(first, _)| *first == PONG);
        let texts = ["one", "two", "<first>"].map(|text| (TEXT, text.as_bytes().to_vec()));
        assert_eq!(heard, [&texts[..], &[(PONG, b"?".to_vec())]].concat());
        client.send(plain(CLOSE, 1001_u16.to_be_bytes()));
        assert_eq!(frame(client), (CLOSE, 1001_u16.to_be_bytes().to_vec()));
        assert_eq!(client.rest(), b"");
    });
    assert_eq!(reason, CloseReason::PeerClosed);
}

#[test]
fn a_server_that_masks_breaks_the_protocol() {
    let (reason, detail) = dialled(|client| {
        accept(client, b"");
        let _lines = [frame(client), frame(client)];
        client.send(masked(TEXT, "masked"));
        assert_eq!(frame(client), (CLOSE, 1002_u16.to_be_bytes().to_vec()));
    });
    assert_eq!(reason, CloseReason::Error(ErrorKind::InvalidData));
    assert!(detail.unwrap().contains("mask"));
}

#[test]
fn what_is_no_web_socket_is_said_in_a_sentence() {
    let upgrade = "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    for (answer, words) in [
        ("HTTP/1.1 404 Not Found\r\n\r\n".to_owned(), "with status 404"),
        ("welcome to this server\r\n\r\n".to_owned(), "does it speak WebSocket"),
        (
            "HTTP/1.1 101 Yes\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n".to_owned(),
            "another protocol",
        ),
        (
            format!("{upgrade}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
            "another request",
        ),
        (format!("{upgrade}X: {}\r\n\r\n", "x".repeat(9000)), "above 8 KiB"),
        (String::new(), "ended the connection during the handshake"),
    ] {
        let (reason, detail) = dialled(move |client| {
            head(client);
            client.send(answer);
        });
        let detail = detail.unwrap_or_default();
        assert!(matches!(reason, CloseReason::Error(_)), "{words}: {reason}");
        assert!(detail.contains(words), "{words}: {detail}");
    }
}

#[test]
fn binary_carries_any_bytes_as_they_come() {
    let web = Web::new(Limits::default(), |listen| listen.web_socket(&WebSocket::new().binary()));
    let mut client = open_with(web.addr, "");
    client.send([masked(BINARY, "he"), masked(TEXT, "llo"), masked(BINARY, b"\xFF\n")].concat());
    client.expect(plain(BINARY, b"<hello\xFF>\n"));
    web.stop();
}
