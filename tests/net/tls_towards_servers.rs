//! TLS with our end as the client, and clients that show a certificate: both ends in one reactor,
//! unless rustls alone is the server.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use reactor::client::Redial;
use reactor::testing::Harness;
use reactor::{
    CloseReason, Connect, Context, Error, Handler, Limits, Listen, Networks, Reactor,
    ServiceContext, TimerId, Tls, TlsConnector,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
};

use crate::util::PATIENCE;
use crate::util::tls::{Authority, Files, TlsClient, expired};

/// Tells what a connection is told.
#[derive(Clone, Default)]
struct Told(Rc<RefCell<Vec<String>>>);

impl Told {
    fn add(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

/// Says hello and listens for a line, or to the end.
struct Guest(Told);

impl Handler for Guest {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        let whose = cx.peer_certificate().map(|it| it.subject()).unwrap_or_default();
        self.0.add(format!("open {whose}"));
        cx.send("hello\n");
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        self.0.add(String::from_utf8_lossy(line));
        cx.close();
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
        self.0.add(match cx.close_detail() {
            Some(detail) => format!("{reason}: {detail}"),
            None => reason.to_string(),
        });
    }
}

/// Answers with the name of whoever it is, as his certificate has it.
struct Host;

impl Handler for Host {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        let subject = cx.peer_certificate().map(|certificate| certificate.subject());
        let line = String::from_utf8_lossy(line);
        cx.send(format!("{line}, {}\n", subject.as_deref().unwrap_or("whoever you are")));
    }
}

/// Both ends.
struct Pair {
    reactor: Reactor<'static>,
    guests: reactor::Service<()>,
    host: SocketAddr,
    told: Told,
}

impl Pair {
    fn new(listen: Listen) -> Pair {
        let mut reactor = Reactor::new().unwrap();
        let host = reactor.listen(listen, Host).unwrap();
        let host = host.address().unwrap().as_socket().unwrap();
        let told = Told::default();
        let guests = reactor.add(Guest(told.clone()), Limits::default()).unwrap();
        Pair { reactor, guests, host, told }
    }

    fn with((cert, key): &Files) -> Pair {
        Pair::new(at_any_port().tls(&Tls::from_files(cert, key).unwrap()))
    }

    /// What a guest is told of a visit, from its beginning to its end.
    fn visit(&mut self, connect: &Connect) -> Vec<String> {
        self.reactor.connect(&self.guests, connect).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let over = |told: &Told| {
            let told = told.0.borrow();
            told.last().is_some_and(|it| !it.starts_with("open") && !it.starts_with("hello"))
        };
        while !over(&self.told) {
            assert!(Instant::now() < deadline, "no end after {:?}", self.told.take());
            self.reactor.turn(Some(Duration::from_millis(10))).unwrap();
        }
        self.told.take()
    }
}

fn at_any_port() -> Listen {
    Listen::at("127.0.0.1:0").unwrap()
}

/// Trusts this CA alone.
fn trusting(authority: &Authority) -> TlsConnector {
    TlsConnector::with_roots(authority.file()).unwrap()
}

fn towards(addr: SocketAddr, tls: &TlsConnector, name: &str) -> Connect {
    Connect::to(addr).unwrap().tls(tls, name).unwrap()
}

/// Asserts that there was one sentence alone, with these words in it.
#[track_caller]
fn only(told: &[String], words: &[&str]) {
    let [told] = told else { panic!("{told:?}") };
    for words in words {
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
    assert!(!told.contains(['\n', '{']), "{told}");
}

#[test]
fn lines_go_there_and_back() {
    let ca = Authority::new("lines");
    let mut pair = Pair::with(&ca.issue("localhost", |_| ()));
    let tls = trusting(&ca);
    let wanted = ["open CN=localhost", "hello, whoever you are", "closed by the handler"];
    for address in [pair.host.to_string(), format!("localhost:{}", pair.host.port())] {
        let connect = Connect::to(&*address).unwrap().tls(&tls, "localhost").unwrap();
        assert_eq!(pair.visit(&connect), wanted, "{address}");
    }
    // The dot of a full name is no part of what the certificate is for.
    assert_eq!(pair.visit(&towards(pair.host, &tls, "localhost.")), wanted);
    for bad in ["", "a b", "-", "localhost:443"] {
        let refused = Connect::to(pair.host).unwrap().tls(&tls, bad);
        assert!(matches!(refused, Err(Error::Address { .. })), "{bad:?}");
    }
}

#[test]
fn the_certificate_of_an_address() {
    let ca = Authority::new("ip");
    let mut pair = Pair::with(&ca.issue("127.0.0.1", |_| ()));
    assert_eq!(pair.visit(&towards(pair.host, &trusting(&ca), "127.0.0.1")).len(), 3);
}

#[test]
fn a_server_can_be_trusted_by_its_own_certificate() {
    let ca = Authority::new("own");
    let files = ca.self_signed("localhost", rcgen::IsCa::ExplicitNoCa);
    let mut pair = Pair::with(&files);
    let tls = TlsConnector::with_roots(&files.0).unwrap();
    assert_eq!(pair.visit(&towards(pair.host, &tls, "localhost")).len(), 3);
}

#[test]
fn the_proxy_header_goes_before_tls() {
    let ca = Authority::new("proxied");
    let (cert, key) = ca.issue("localhost", |_| ());
    let tls = Tls::from_files(cert, key).unwrap();
    let mut pair = Pair::new(at_any_port().proxy(Networks::loopback()).tls(&tls));
    let connect = towards(pair.host, &trusting(&ca), "localhost").proxy();
    assert_eq!(pair.visit(&connect).len(), 3);
}

#[test]
fn what_is_wrong_with_a_servers_certificate_is_told() {
    let (ca, other) = (Authority::new("right"), Authority::new("other"));
    let early = |params: &mut rcgen::CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2090, 1, 1);
        params.not_after = rcgen::date_time_ymd(2091, 1, 1);
    };
    let for_clients = |params: &mut rcgen::CertificateParams| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    };
    let unlimited = rcgen::BasicConstraints::Unconstrained;
    // What our own server would not begin with is rustls's to show.
    let visit = |files: &Files, roots: PathBuf| {
        let server = Server::new(files, &[&TLS13], |_| ());
        let mut pair = Pair::new(at_any_port());
        let tls = TlsConnector::with_roots(roots).unwrap();
        pair.visit(&towards(server.addr, &tls, "localhost"))
    };
    let good = || ca.file();
    only(
        &visit(&ca.issue("localhost", expired), good()),
        &["invalid data: its certificate expired at 2001-01-01T00:00:00Z;"],
    );
    only(
        &visit(&ca.issue("localhost", early), good()),
        &["its certificate is not valid before 2090-01-01T00:00:00Z;", "clock"],
    );
    only(
        &visit(&ca.issue("elsewhere.org", |_| ()), good()),
        &["its certificate is for elsewhere.org and not for localhost;", "name"],
    );
    only(
        &visit(&ca.issue("10.0.0.7", |_| ()), good()),
        &["its certificate is for 10.0.0.7 and not for localhost;"],
    );
    only(
        &visit(&ca.issue("localhost", |_| ()), other.file()),
        &["its certificate (CN=localhost) was issued by CN=right CA", "whom we do not trust"],
    );
    only(
        &visit(&ca.self_signed("localhost", rcgen::IsCa::NoCa), good()),
        &["its certificate (CN=localhost", "is self-signed", "give it as the CA"],
    );
    let signs = ca.self_signed("localhost", rcgen::IsCa::Ca(unlimited));
    only(
        &visit(&signs, signs.0.clone()),
        &["its certificate is that of a CA", "-addext basicConstraints=critical,CA:FALSE"],
    );
    only(&visit(&ca.issue("localhost", for_clients), good()), &["made for another purpose"]);
    // What is shown can do nothing to a terminal.
    let bell = ca.issue("elsewhere.org", |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "\u{1b}[31mred\n");
    });
    let told = visit(&bell, other.file());
    only(&told, &["1b[31mred"]);
    assert!(!told[0].contains('\u{1b}'), "{told:?}");
}

/// A server that never speaks TLS: it says something, or leaves.
#[test]
fn a_server_that_speaks_plainly_is_told_apart() {
    for (words, told) in [
        (&b"Welcome to the Reactor Server.\n"[..], "what it sends is no TLS"),
        (b"", "it ended the connection during the handshake; does it speak TLS?"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(words);
        });
        let ca = Authority::new("plain");
        let mut pair = Pair::new(at_any_port());
        only(&pair.visit(&towards(addr, &trusting(&ca), "localhost")), &[told]);
        server.join().unwrap();
    }
}

#[test]
fn an_end_without_goodbye_is_told() {
    let ca = Authority::new("goodbye");
    let server = Server::new(&ca.issue("localhost", |_| ()), &[&TLS13], |_| ());
    let mut pair = Pair::new(at_any_port());
    let told = pair.visit(&towards(server.addr, &trusting(&ca), "localhost"));
    assert_eq!(told[0], "open CN=localhost");
    only(&told[1..], &["unexpected end of file: it ended without the goodbye of TLS"]);
}

// ---- rustls as the server ----

/// Shakes hands with one after the other, says how, and leaves without a word.
struct Server {
    addr: SocketAddr,
    shaken: Receiver<(Option<HandshakeKind>, Option<String>)>,
}

impl Server {
    fn new(
        (cert, key): &Files,
        versions: &[&'static rustls::SupportedProtocolVersion],
        change: impl FnOnce(&mut ServerConfig),
    ) -> Server {
        let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        change(&mut config);
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (tell, shaken) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                // Until the client has said something, or has refused.
                let mut word = [0; 6];
                let mut whole = rustls::Stream::new(&mut tls, &mut stream);
                let _ = whole.read_exact(&mut word);
                let kind = tls.handshake_kind();
                if tell.send((kind, tls.server_name().map(str::to_owned))).is_err() {
                    return;
                }
            }
        });
        Server { addr, shaken }
    }
}

#[test]
fn a_second_handshake_resumes_the_first_and_names_the_server() {
    let ca = Authority::new("resumed");
    let files = ca.issue("localhost", |_| ());
    for version in [&TLS13, &TLS12] {
        let server = Server::new(&files, &[version], |_| ());
        let mut pair = Pair::new(at_any_port());
        let tls = trusting(&ca);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            // A clone shares the sessions.
            pair.visit(&towards(server.addr, &tls.clone(), "localhost"));
            let shaken = server.shaken.recv_timeout(PATIENCE).unwrap();
            assert_eq!(shaken, (Some(kind), Some("localhost".to_owned())), "{version:?}");
        }
    }
}

// ---- Clients' certificates ----

/// A pair whose server asks for certificates that this CA has issued.
fn asking(server: &Files, clients: &Authority) -> (Pair, Tls) {
    let tls = Tls::from_files(&server.0, &server.1).unwrap().client_ca(clients.file()).unwrap();
    (Pair::new(at_any_port().tls(&tls)), tls)
}

#[test]
fn a_client_is_who_its_certificate_says() {
    let (ca, clients) = (Authority::new("server"), Authority::new("clients"));
    let (mut pair, _) = asking(&ca.issue("localhost", |_| ()), &clients);
    let (cert, key) = clients.issue("alice", |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    let tls = trusting(&ca).certificate(cert, key).unwrap();
    // The session that is resumed names her too.
    for _ in 0..2 {
        let told = pair.visit(&towards(pair.host, &tls, "localhost"));
        assert_eq!(told[1], "hello, CN=alice");
    }
}

/// Under TLS 1.3 the client's handshake is done by then.
#[test]
fn a_client_that_is_refused_is_told_why() {
    let (ca, clients) = (Authority::new("strict"), Authority::new("members"));
    let (mut pair, _) = asking(&ca.issue("localhost", |_| ()), &clients);
    let tls = trusting(&ca);
    let connector = |(cert, key): Files| tls.clone().certificate(cert, key).unwrap();
    let unlimited = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    for (number, (tls, words)) in (1..).zip([
        (tls.clone(), "it lets in only clients with a certificate; give one that its CA"),
        (connector(ca.issue("mallory", |_| ())), "refuses our certificate: it does not trust who"),
        (
            connector(clients.self_signed("mallory", unlimited)),
            "refuses our certificate: it finds something wrong",
        ),
    ]) {
        let told = pair.visit(&towards(pair.host, &tls, "localhost"));
        assert_eq!(told[0], "open CN=localhost");
        only(&told[1..], &["invalid data: ", words]);
        assert_eq!(pair.reactor.counters().handshakes_failed, number);
    }
}

#[test]
fn a_reload_forgets_all_sessions() {
    let (ca, clients) = (Authority::new("reload"), Authority::new("taken away"));
    let server = ca.issue("localhost", |_| ());
    let (mut pair, tls) = asking(&server, &clients);
    let (cert, key) = clients.issue("alice", |_| ());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca.file()).unwrap()).unwrap();
    for version in [&TLS13, &TLS12] {
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&cert).unwrap()],
                PrivateKeyDer::from_pem_file(&key).unwrap(),
            )
            .unwrap();
        let client = Arc::new(client);
        let mut visit = || {
            let name = ServerName::try_from("localhost").unwrap();
            let tls = ClientConnection::new(Arc::clone(&client), name).unwrap();
            let stream = std::net::TcpStream::connect(pair.host).unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut client = TlsClient { stream, tls, received: Vec::new(), end: None };
            client.send("hello\n");
            let deadline = Instant::now() + PATIENCE;
            while !client.received.ends_with(b"\n") {
                assert!(Instant::now() < deadline, "no answer");
                pair.reactor.turn(Some(Duration::ZERO)).unwrap();
                client.step(true);
            }
            client.tls.handshake_kind().unwrap()
        };
        assert_eq!(visit(), HandshakeKind::Full, "{version:?}");
        assert_eq!(visit(), HandshakeKind::Resumed, "{version:?}");
        tls.reload().unwrap();
        assert_eq!(visit(), HandshakeKind::Full, "{version:?}");
    }
}

#[test]
fn a_file_of_cas_that_cannot_be_used_is_named() {
    let ca = Authority::new("files");
    let (cert, key) = ca.issue("localhost", |_| ());
    let tls = Tls::from_files(&cert, &key).unwrap();
    for bad in [key.clone(), "/nowhere/ca.pem".into()] {
        let outcome = tls.clone().client_ca(&bad).err().map(|error| error.to_string());
        assert!(outcome.is_some_and(|text| text.contains(bad.to_str().unwrap())));
        let outcome = TlsConnector::with_roots(&bad).err().map(|error| error.to_string());
        assert!(outcome.is_some_and(|text| text.contains(bad.to_str().unwrap())));
    }
    let outcome = trusting(&ca).certificate(&key, &cert).err().map(|error| error.to_string());
    assert!(outcome.is_some_and(|text| text.contains("no certificate in it")));
    let (old, its_key) = ca.issue("alice", expired);
    let outcome = trusting(&ca).certificate(old, its_key).err().map(|error| error.to_string());
    assert!(outcome.is_some_and(|text| text.contains("it expired at 2001-01-01")));
}

#[test]
fn the_harness_shows_the_plaintext() {
    let ca = Authority::new("harness");
    let mut harness =
        Harness::new(Dialler(towards(([192, 0, 2, 1], 443).into(), &trusting(&ca), "example.org")));
    let client = harness.connect();
    harness.feed(client, "go\n");
    let (address, server) = harness.dialled().remove(0);
    assert_eq!(address.to_string(), "192.0.2.1:443");
    harness.answer(server);
    assert_eq!(harness.sent(server), b"hello\n");
}

/// Dials for each line.
struct Dialler(Connect);

impl Handler for Dialler {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        if cx.is_outbound() {
            cx.send("hello\n");
        }
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, _: &[u8]) {
        cx.connect(&self.0, ()).unwrap();
    }
}

/// Dials again and again.
struct Stubborn {
    server: Redial,
    told: Told,
}

impl Handler for Stubborn {
    type Session = ();
    type Message = ();

    fn on_start(&mut self, cx: &mut ServiceContext<'_, ()>) {
        self.server.start(cx);
    }

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        self.server.on_open(cx);
        self.told.add("open");
        cx.close();
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, _: CloseReason) {
        self.server.on_close(cx);
    }

    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, ()>, timer: TimerId) {
        self.server.on_service_timer(cx, timer);
    }
}

#[test]
fn redial_speaks_tls_too() {
    let ca = Authority::new("redial");
    let mut pair = Pair::with(&ca.issue("localhost", |_| ()));
    let server = Redial::new(towards(pair.host, &trusting(&ca), "localhost")).unwrap();
    let server = server.with_delays(Duration::from_millis(1), Duration::from_millis(1));
    let told = pair.told.clone();
    pair.reactor.add(Stubborn { server, told: told.clone() }, Limits::default()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while told.0.borrow().len() < 2 {
        assert!(Instant::now() < deadline, "not twice");
        pair.reactor.turn(Some(Duration::from_millis(10))).unwrap();
    }
}

#[test]
fn a_server_that_never_shakes_hands_has_the_time_of_a_connect() {
    let ca = Authority::new("silent");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut pair = Pair::new(at_any_port());
    let limits = Limits { connect_timeout: Duration::from_millis(50), ..Limits::default() };
    pair.guests = pair.reactor.add(Guest(pair.told.clone()), limits).unwrap();
    let addr = listener.local_addr().unwrap();
    let told = pair.visit(&towards(addr, &trusting(&ca), "localhost"));
    assert_eq!(told, ["connect timed out"]);
}
