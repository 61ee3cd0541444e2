//! The PROXY protocol: who is believed, who is judged by it, and what is sent.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use reactor::{
    Address, Callbacks, Connect, Context, Counters, Handle, Handler, Host, Limits, Listen,
    Networks, Rate, Reactor, ToConnect,
};

#[cfg(feature = "tls")]
use crate::util::tls::Pem;
use crate::util::{Client, PATIENCE};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 127.0.0.1 51234 443\r\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

/// A header of version 2.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

/// One for a client over IPv4.
fn v2_for(ip: [u8; 4], port: u16) -> Vec<u8> {
    v2(PROXY, 0x11, &[&ip[..], &[127, 0, 0, 1], &port.to_be_bytes(), &[1, 0xbb]].concat())
}

/// Tells its clients who they are, and repeats what they say.
struct Mirror;

impl Handler for Mirror {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        match cx.peer_addr() {
            Some(peer) => writeln!(cx, "{peer}"),
            None => writeln!(cx, "nobody"),
        }
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        cx.send([line, b"\n"].concat());
    }
}

/// A mirror behind a proxy, run by a thread.
struct Behind {
    address: Address,
    handle: Handle<()>,
    thread: JoinHandle<Counters>,
}

impl Behind {
    fn new(limits: Limits, listen: impl FnOnce() -> Listen + Send + 'static) -> Behind {
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let mut reactor = Reactor::new().unwrap();
            let service = reactor.listen_with(listen(), Mirror, limits).unwrap();
            tell.send((service.address().unwrap().clone(), service.handle())).unwrap();
            reactor.run().unwrap();
            reactor.counters()
        });
        let (address, handle) = told.recv_timeout(PATIENCE).expect("the reactor did not start");
        Behind { address, handle, thread }
    }

    fn usual() -> Behind {
        Behind::new(Limits::default(), || at("127.0.0.1:0").proxy(Networks::loopback()))
    }

    fn addr(&self) -> SocketAddr {
        self.address.as_socket().unwrap()
    }

    fn connect(&self) -> Client {
        let client = Client::connect(self.addr());
        client.stream.set_nodelay(true).unwrap();
        client
    }

    /// A client that begins so.
    fn begin(&self, header: &[u8]) -> Client {
        let mut client = self.connect();
        client.send(header);
        client
    }

    fn stop(self) -> Counters {
        self.handle.stop();
        self.thread.join().unwrap()
    }
}

fn at(address: &str) -> Listen {
    Listen::at(address).unwrap()
}

/// The server closes the connection, or resets it, without a word.
#[track_caller]
fn hears_nothing(mut client: Client) {
    let mut said = Vec::new();
    match client.stream.read_to_end(&mut said) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert_eq!(said, b"");
}

// ---- Receiving ----

#[test]
fn the_client_that_the_header_names_is_the_peer() {
    let behind = Behind::usual();
    let six = b"PROXY TCP6 2001:db8::7 ::1 51234 443\r\n";
    let mapped = b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:127.0.0.1 51234 443\r\n";
    let v2 = v2_for([192, 0, 2, 7], 51234);
    for (header, peer) in [
        (V1, "192.0.2.7:51234\n"),
        (six, "[2001:db8::7]:51234\n"),
        (mapped, "192.0.2.7:51234\n"),
        (&v2, "192.0.2.7:51234\n"),
    ] {
        let all = [header, b"hello\n"].concat();
        for piece in [1, 5, 16, header.len(), all.len()] {
            let mut client = behind.connect();
            all.chunks(piece).for_each(|piece| client.send(piece));
            client.expect(peer);
            client.expect("hello\n");
            client.send("again\n");
            client.expect("again\n");
        }
    }
    let counters = behind.stop();
    assert_eq!((counters.accepted, counters.refused, counters.handshakes_failed), (20, 0, 0));
}

#[test]
fn what_comes_along_with_the_header_is_the_clients_to_its_end() {
    let behind = Behind::usual();
    let mut client = behind.begin(&[V1, b"one\ntwo\nthe last has no end"].concat());
    client.end();
    assert_eq!(client.rest(), b"192.0.2.7:51234\none\ntwo\nthe last has no end\n");
    let mut client = behind.begin(&[V1, &b"x\n".repeat(100_000)].concat());
    client.expect("192.0.2.7:51234\n");
    client.expect("x\n".repeat(100_000));
    behind.stop();
}

#[test]
fn what_is_no_header_is_closed_without_a_word_and_counted() {
    let behind = Behind::usual();
    let long = v2(PROXY, 0x11, &[0; 537]);
    let wrong: &[&[u8]] = &[
        b"hello\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\n",
        b"PROXY\r\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 51234\r\nhello\n",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 51234 443\nhello\n",
        b"\r\n\r\n\0\r\nQUIT\r",
        &v2(0x11, 0x11, &[0; 12]),
        &v2(PROXY, 0x99, &[0; 12]),
        &v2(PROXY, 0x11, &[0; 3]),
        &long,
        &[&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat(),
    ];
    for header in wrong {
        hears_nothing(behind.begin(header));
    }
    // And one that ends before it.
    let client = behind.begin(&V1[..20]);
    client.end();
    hears_nothing(client);
    behind.begin(V1).expect("192.0.2.7:51234\n");
    let counters = behind.stop();
    assert_eq!(counters.handshakes_failed, wrong.len() as u64 + 1);
    assert_eq!(counters.refused, 0);
}

#[test]
fn a_header_that_stalls_has_the_time_of_a_handshake() {
    let limits = Limits { handshake_timeout: Duration::from_millis(100), ..Limits::default() };
    let behind = Behind::new(limits, || at("127.0.0.1:0").proxy(Networks::loopback()));
    for header in [&b""[..], &V1[..1], &V1[..V1.len() - 1], &v2_for([1, 2, 3, 4], 5)[..27]] {
        hears_nothing(behind.begin(header));
    }
    assert_eq!(behind.stop().handshakes_failed, 4);
}

#[test]
#[cfg(target_os = "linux")] // All of 127.0.0.0/8 is loopback.
fn who_may_not_send_a_header_is_refused_though_it_sends_one() {
    let limits = Limits::default();
    let behind = Behind::new(limits, || at("127.0.0.1:0").proxy("127.0.0.2".parse().unwrap()));
    for header in [V1, &v2(LOCAL, 0, b""), b"hello\n"] {
        let mut stream = TcpStream::connect(behind.addr()).unwrap();
        // The connection may be gone by now.
        let _ = stream.write_all(header);
        hears_nothing(Client::from(stream));
    }
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    socket.connect(&behind.addr().into()).unwrap();
    let mut client = Client::from(TcpStream::from(socket));
    client.send(V1);
    client.expect("192.0.2.7:51234\n");
    let counters = behind.stop();
    assert_eq!((counters.accepted, counters.refused, counters.handshakes_failed), (1, 3, 0));
}

#[test]
fn the_client_is_judged_and_not_the_proxy() {
    let behind = Behind::new(Limits::default(), || {
        let allowed = "192.0.2.0/24,2001:db8::/32".parse().unwrap();
        // In either order.
        at("127.0.0.1:0").allow(allowed).proxy(Networks::loopback())
    });
    behind.begin(V1).expect("192.0.2.7:51234\n");
    behind.begin(b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n").expect("[2001:db8::7]:1\n");
    behind.begin(b"PROXY TCP6 ::ffff:192.0.2.9 ::1 1 2\r\n").expect("192.0.2.9:1\n");
    for header in [
        &b"PROXY TCP4 198.51.100.1 127.0.0.1 1 2\r\n"[..],
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
        &v2_for([198, 51, 100, 1], 1),
        b"PROXY UNKNOWN\r\n",
        &v2(PROXY, 0x00, b""),
        &v2(PROXY, 0x31, &[1; 216]),
    ] {
        hears_nothing(behind.begin(header));
    }
    // The proxy asks for itself.
    let mut client = behind.begin(&v2(LOCAL, 0, b""));
    let own = client.stream.local_addr().unwrap();
    client.expect(format!("{own}\n"));
    let counters = behind.stop();
    assert_eq!((counters.refused, counters.handshakes_failed), (6, 0));
}

#[test]
fn a_client_without_an_address_goes_by_the_proxys_where_nothing_depends_on_it() {
    let unknown = [&b"PROXY UNKNOWN\r\n"[..], &v2(PROXY, 0, b""), &v2(PROXY, 0x31, &[1; 216])];
    let behind = Behind::usual();
    for header in unknown {
        let mut client = behind.begin(header);
        let own = client.stream.local_addr().unwrap();
        client.expect(format!("{own}\n"));
    }
    assert_eq!(behind.stop().refused, 0);

    let limits = Limits { max_per_peer: Some(100), ..Limits::default() };
    let behind = Behind::new(limits, || at("127.0.0.1:0").proxy(Networks::loopback()));
    for header in unknown {
        hears_nothing(behind.begin(header));
    }
    behind.begin(&v2(LOCAL, 0x31, b"")).expect("127.0.0.1:");
    assert_eq!(behind.stop().refused, 3);
}

#[test]
fn the_limits_by_peer_are_those_of_the_client() {
    let once = Some(Rate { per_second: 1, burst: 1 });
    let crowded = "Too many connections from your address, close one first\n";
    let hasty = "Connections from your address come too fast, wait a second\n";
    for (limits, words) in [
        (Limits { max_per_peer: Some(1), ..Limits::default() }, crowded),
        (Limits { peer_connect_rate: once, ..Limits::default() }, hasty),
    ] {
        let behind = Behind::new(limits, || at("127.0.0.1:0").proxy(Networks::loopback()));
        // All of them come from the same proxy, at once.
        let mut clients: Vec<_> = (1..=5).map(|_| behind.connect()).collect();
        for (client, last) in clients.iter_mut().zip(1..) {
            client.send(v2_for([192, 0, 2, last], 7));
        }
        for (client, last) in clients.iter_mut().zip(1..) {
            client.expect(format!("192.0.2.{last}:7\n"));
        }
        assert_eq!(behind.begin(&v2_for([192, 0, 2, 1], 8)).rest(), words.as_bytes());
        let counters = behind.stop();
        assert_eq!((counters.refused, counters.handshakes_failed), (1, 0));
    }
}

#[test]
fn over_a_unix_socket_everybody_who_reaches_it_is_believed() {
    let path = std::env::temp_dir().join(format!("reactor-{}-proxy.sock", std::process::id()));
    let there = path.clone();
    let behind = Behind::new(Limits::default(), move || {
        let allowed = "192.0.2.7".parse().unwrap();
        Listen::at(&*there).unwrap().proxy(Networks::loopback()).allow(allowed)
    });
    let heard = |header: &[u8]| {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(header).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        said
    };
    assert_eq!(heard(V1), "192.0.2.7:51234\n");
    assert_eq!(heard(&v2(LOCAL, 0, b"")), "nobody\n");
    assert_eq!(heard(&v2_for([192, 0, 2, 8], 1)), "");
    assert_eq!(behind.stop().refused, 1);
}

#[cfg(feature = "tls")]
#[test]
fn the_header_comes_before_tls() {
    let pem = Pem::new("proxy");
    let (cert, key) = (pem.cert(), pem.key());
    let behind = Behind::new(Limits::default(), move || {
        let tls = reactor::Tls::from_files(cert, key).unwrap();
        let allowed = "192.0.2.7".parse().unwrap();
        at("127.0.0.1:0").tls(&tls).proxy(Networks::loopback()).allow(allowed)
    });
    let mut client = pem.begin(behind.addr());
    client.stream.write_all(V1).unwrap();
    client.send("hello\n");
    client.expect("192.0.2.7:51234\nhello\n");
    // Who may not come does not get as far as a handshake.
    let client = pem.begin(behind.addr());
    (&client.stream).write_all(&v2_for([192, 0, 2, 8], 1)).unwrap();
    client.stream.set_nonblocking(false).unwrap();
    hears_nothing(Client::from(client.stream));
    let counters = behind.stop();
    assert_eq!((counters.refused, counters.handshakes_failed), (1, 0));
}

// ---- Sending ----

/// What a server gets to see at first, and from where.
fn sent(target: impl FnOnce(SocketAddr) -> Connect, count: usize) -> (Vec<u8>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut reactor = Reactor::new().unwrap();
    let hello = Callbacks::new().on_connection(|cx| {
        cx.send("hello\n");
    });
    let service = reactor.add(hello, Limits::default()).unwrap();
    reactor.connect(&service, target(listener.local_addr().unwrap())).unwrap();
    while reactor.counters().bytes_out < 6 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    let (stream, peer) = listener.accept().unwrap();
    let mut server = Client::from(stream);
    let mut header = vec![0; count];
    server.stream.read_exact(&mut header).unwrap();
    server.expect("hello\n");
    (header, peer)
}

fn named(source: SocketAddr, target: SocketAddr) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (source, target) else { panic!("IPv6") };
    let ips = [from.ip().octets(), to.ip().octets()].concat();
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    v2(PROXY, 0x11, &[ips, ports].concat())
}

#[test]
fn a_header_names_this_end_and_the_server() {
    let mut target = None;
    let (header, peer) = sent(|addr| Connect::to(*target.insert(addr)).unwrap().proxy(), 28);
    assert_eq!(header, named(peer, target.unwrap()));
    // Of a host it is the address that was connected.
    let host = |addr: SocketAddr| Host::new("several.test", addr.port()).found_at([addr]);
    let (header, peer) = sent(|addr| Connect::to(host(*target.insert(addr))).unwrap().proxy(), 28);
    assert_eq!(header, named(peer, target.unwrap()));
}

#[test]
fn a_header_names_a_client_if_it_has_an_address() {
    let [client, local] = ["192.0.2.7:51234", "127.0.0.1:443"].map(|text| text.parse().unwrap());
    let to = |addr: SocketAddr| addr.to_connect().unwrap();
    let (header, _) = sent(|addr| to(addr).proxy_for(Some(client), Some(local)), 28);
    assert_eq!(header, named(client, local));
    let v6: SocketAddr = "[2001:db8::7]:51234".parse().unwrap();
    let (header, _) = sent(|addr| to(addr).proxy_for(Some(v6), Some(local)), 52);
    assert_eq!(&header[12..16], [PROXY, 0x21, 0, 36]);
    assert_eq!(header[42..], [0xff, 0xff, 127, 0, 0, 1, 0xc8, 0x22, 1, 0xbb]);
    for (client, local) in [(None, Some(local)), (Some(client), None)] {
        let (header, _) = sent(|addr| to(addr).proxy_for(client, local), 16);
        assert_eq!(header, v2(PROXY, 0, b""));
    }
}

#[test]
fn what_is_sent_here_is_believed_there() {
    let behind = Behind::usual();
    let (tell, told) = channel();
    let mut reactor = Reactor::new().unwrap();
    let listener = Callbacks::new().on_line(move |cx, line| {
        tell.send((cx.local_addr().unwrap(), String::from_utf8_lossy(line).into_owned())).unwrap();
    });
    let service = reactor.add(listener, Limits::default()).unwrap();
    reactor.connect(&service, Connect::to(behind.addr()).unwrap().proxy()).unwrap();
    while reactor.counters().lines_in < 1 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    let (local, said) = told.try_recv().unwrap();
    assert_eq!(local.to_string(), said);
    drop(reactor);
    behind.stop();
}
