//! The program and its certificate: what it says when one cannot be used, and what SIGHUP does.

use crate::util::{self, program, tls};

use std::net::SocketAddr;

use program::{Program, fails};
use tls::{End, Pem};
use util::Client;

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";

fn serve(pem: &Pem, args: &[&str]) -> Program {
    let [cert, key] = pem.options();
    Program::serve(&[args, &[&cert, &key]].concat())
}

fn addr(program: &Program, service: &str) -> SocketAddr {
    program.place(service).strip_prefix("tls:").expect("no TLS").parse().unwrap()
}

/// `reactor forward` from a port with TLS.
fn forward(pem: &Pem, target: SocketAddr, options: &[&str]) -> Program {
    let mut command = std::process::Command::new(program::REACTOR);
    command.args(["forward", "tls:0", &target.to_string()]).args(pem.options()).args(options);
    Program::spawn(&mut command)
}

#[test]
fn one_service_with_tls_beside_one_without() {
    let pem = Pem::new("beside");
    let program = serve(&pem, &["echo=tls:0", "echo=0"]);
    let mut client = pem.connect(addr(&program, "echo"));
    client.send("tls\nbye\n");
    assert_eq!(client.rest(), (format!("{GREETING}> TLS\n> BYE\n").into_bytes(), End::Clean));
    Client::connect(program.addr("echo")).expect(GREETING);
}

#[test]
fn forward_takes_tls_and_passes_the_plaintext_on() {
    let pem = Pem::new("forward");
    let target = Program::serve(&["echo=0"]);
    let forward = forward(&pem, target.addr("echo"), &[]);
    let mut client = pem.connect(addr(&forward, "forward"));
    client.expect(GREETING);
    client.send("last");
    client.close_notify();
    assert_eq!(client.rest(), (b"> LAST\n".to_vec(), End::Clean));
}

#[test]
fn forward_counts_the_clients_that_come_at_once() {
    let pem = Pem::new("full");
    let target = Program::serve(&["echo=0"]);
    let forward = forward(&pem, target.addr("echo"), &["--max-connections=1"]);
    // Neither has begun its handshake: for the loop they are two connections of two.
    let at = addr(&forward, "forward");
    let (mut first, mut second) = (pem.begin(at), pem.begin(at));
    first.expect(GREETING);
    assert_eq!(second.rest(), (b"".to_vec(), End::Clean));
    first.send("bye\n");
    assert_eq!(first.rest(), (b"> BYE\n".to_vec(), End::Clean));
    drop(first);
    // Its place is free again.
    util::until("there is room", || {
        let mut third = pem.begin(at);
        third.until("an answer", |client| !client.received.is_empty() || client.end.is_some());
        !third.received.is_empty()
    });
}

#[test]
fn services_behind_tls_are_not_announced() {
    let pem = Pem::new("announce");
    let program = serve(&pem, &["echo=tls:0", "--announce"]);
    fails(program, 2, &["--announce: none of the services could be reached without TLS"]);
}

#[test]
fn hangup_reads_the_certificate_again_for_those_who_come_then() {
    let pem = Pem::new("reload");
    let program = serve(&pem, &["echo=tls:0", "time=tls:0"]);
    let at = addr(&program, "echo");
    let mut old = pem.connect(at);
    old.expect(GREETING);

    // This client trusts the new certificate and no other.
    pem.renew(2041);
    program.signal("HUP");
    program.wait_for_log("cert.pem) reloaded");
    pem.connect(at).expect(GREETING);
    old.send("still there\n");
    old.expect("> STILL THERE\n");

    // One that cannot be used changes nothing.
    let good = std::fs::read(pem.cert()).unwrap();
    std::fs::write(pem.cert(), "").unwrap();
    program.signal("HUP");
    let line = program.wait_for_log("the old certificate stays");
    assert!(line.contains("cert.pem: no certificate in it"), "{line}");
    std::fs::write(pem.cert(), good).unwrap();
    pem.connect(at).expect(GREETING);
    old.send("bye\n");
    assert_eq!(old.rest(), (b"> BYE\n".to_vec(), End::Clean));
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
}

#[test]
fn hangup_without_tls_does_nothing() {
    let program = Program::serve(&["echo=0"]);
    let mut client = Client::connect(program.addr("echo"));
    client.expect(GREETING);
    program.signal("HUP");
    program.wait_for_log("nothing to reload");
    client.send("still there\n");
    client.expect("> STILL THERE\n");
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
}

#[test]
fn a_certificate_that_cannot_be_used_is_status_1() {
    let (pem, other) = (Pem::new("bad"), Pem::new("other"));
    let refused = |words: &[&str]| fails(serve(&pem, &["echo=tls:0"]), 1, words);
    let good = std::fs::read_to_string(pem.cert()).unwrap();
    let key = std::fs::read_to_string(pem.key()).unwrap();

    std::fs::remove_file(pem.cert()).unwrap();
    refused(&["cert.pem: cannot be read: No such file"]);
    std::fs::write(pem.cert(), &key).unwrap();
    refused(&["cert.pem: no certificate in it", "BEGIN CERTIFICATE"]);
    std::fs::write(pem.cert(), good.replace("MII", "M!!")).unwrap();
    refused(&["cert.pem: bad PEM"]);
    let text = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    std::fs::write(pem.cert(), text).unwrap();
    refused(&["cert.pem: not a certificate"]);
    std::fs::copy(other.cert(), pem.cert()).unwrap();
    refused(&["key.pem: it is not the key of", "cert.pem"]);

    std::fs::write(pem.cert(), &good).unwrap();
    std::fs::remove_file(pem.key()).unwrap();
    refused(&["key.pem: cannot be read: No such file"]);
    std::fs::write(pem.key(), &good).unwrap();
    refused(&["key.pem: no private key in it", "BEGIN PRIVATE KEY"]);
    std::fs::write(pem.key(), key.replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE")).unwrap();
    refused(&["key.pem: it is encrypted", "openssl pkey"]);

    pem.renew(2001);
    refused(&["cert.pem: it expired at 2001-01-01", "renew"]);
    pem.renew(2040);
    let program = serve(&pem, &["echo=tls:0"]);
    pem.connect(addr(&program, "echo")).expect(GREETING);
}

#[test]
fn tls_without_its_files_and_files_without_tls_are_status_2() {
    let pem = Pem::new("usage");
    let [cert, key] = pem.options();
    fails(Program::serve(&["echo=tls:0"]), 2, &["tls:", "--tls-cert", "--tls-key"]);
    fails(Program::serve(&["echo=tls:0", &cert]), 2, &["--tls-key"]);
    fails(Program::serve(&["echo=tls:0", &key]), 2, &["--tls-cert"]);
    fails(Program::serve(&["echo=0", &cert, &key]), 2, &["--tls-cert", "tls:ADDR"]);
    fails(Program::serve(&["echo=tls:nowhere"]), 2, &["bad address"]);
}
