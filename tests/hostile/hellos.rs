//! Handshakes that cost their sender nothing: one ClientHello, recorded once and replayed. The server
//! makes a signature for each, of the dearest key that it takes.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use reactor::services::Echo;
use reactor::{Limits, Listen, Reactor, Tls};
use rustls::version::TLS13;

use crate::util::tls::Pem;
use crate::util::{Client, PATIENCE, skip};

/// A certificate with a key of RSA with 4096 bits, which rcgen does not make.
fn dear(name: &str) -> Option<Pem> {
    let pem = Pem::new(name);
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:4096", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .arg("-keyout")
        .arg(pem.key())
        .arg("-out")
        .arg(pem.cert())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let made = made.is_ok_and(|status| status.success());
    if !made {
        skip("openssl is not installed");
    }
    made.then_some(pem)
}

/// How many of them have got something since they were last asked; they are asked no more.
fn answered(waiting: &mut Vec<TcpStream>) -> usize {
    let before = waiting.len();
    waiting.retain(|client| client.peek(&mut [0]).is_err());
    before - waiting.len()
}

/// A signature takes longer than the time that all handshakes together have of a turn, or half of
/// it where the machine is fast.
const MOST_PER_TURN: usize = 4;

#[test]
fn replayed_hellos() {
    let Some(pem) = dear("hellos") else { return };
    let tls = Tls::from_files(pem.cert(), pem.key()).unwrap();
    let mut reactor = Reactor::new().unwrap();
    let limits = Limits { handshake_timeout: PATIENCE, ..Limits::default() };
    let mut listen = |listen: Listen| {
        let service = reactor.listen_with(listen, Echo, limits.clone()).unwrap();
        service.address().unwrap().as_socket().unwrap()
    };
    let somewhere = || Listen::at("127.0.0.1:0").unwrap();
    let secure: Vec<SocketAddr> = (0..5).map(|_| listen(somewhere().tls(&tls))).collect();
    let plain = listen(somewhere());

    // Most of them to one service.
    let mut quiet = Client::connect(plain);
    let [mut many, mut others] = [30, 1].map(Vec::with_capacity);
    for (number, addr) in secure.iter().enumerate() {
        let (to, count) = if number == 0 { (&mut many, 30) } else { (&mut others, 1) };
        to.extend((0..count).map(|_| TcpStream::connect(addr).unwrap()));
    }
    while reactor.counters().accepted < 35 {
        reactor.turn(None).unwrap();
    }
    // None of them has anything to do then.
    while reactor.next_deadline().is_some_and(|when| when <= std::time::Instant::now()) {
        reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    quiet.line();
    quiet.line();
    let mut hello = Vec::new();
    pem.begin_with(plain, &[&TLS13]).tls.write_tls(&mut hello).unwrap();
    for client in many.iter().chain(&others) {
        std::io::Write::write_all(&mut &*client, &hello).unwrap();
        client.set_nonblocking(true).unwrap();
    }

    let (mut turns, mut worst) = (0, 0);
    while !many.is_empty() || !others.is_empty() {
        quiet.send("ping\n");
        reactor.turn(Some(Duration::ZERO)).unwrap();
        // It has its answer by now, however many are in its way.
        let mut reply = [0; 7];
        quiet.stream.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"> PING\n");
        let done = answered(&mut many) + answered(&mut others);
        assert!(done <= MOST_PER_TURN, "{done} handshakes in a turn");
        (turns, worst) = (turns + 1, worst.max(done));
        assert!(others.is_empty() || turns < 5, "{} wait behind the others", others.len());
        assert!(turns < 100, "{} and {} are not answered", many.len(), others.len());
    }
    println!("replayed hellos: 34 signatures in {turns} turns, {worst} at most in one");
}
