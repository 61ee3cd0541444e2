//! The program and its certificate: what it says when one cannot be used, and what SIGHUP does.

use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::util::program::{self, Program, fails};
use crate::util::tls::{End, Pem};
use crate::util::{self, Client};

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
    forward.wait_for_log("forward: full with 1 clients");
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
    program.wait_for_log("cert.pem reloaded");
    pem.connect(at).expect(GREETING);
    old.send("still there\n");
    old.expect("> STILL THERE\n");

    // One that cannot be used changes nothing.
    let good = std::fs::read(pem.cert()).unwrap();
    std::fs::write(pem.cert(), "").unwrap();
    program.signal("HUP");
    let line = program.wait_for_log("what was read before stays in use");
    assert!(line.contains("cert.pem: no certificate in it"), "{line}");
    std::fs::write(pem.cert(), good).unwrap();
    pem.connect(at).expect(GREETING);
    old.send("bye\n");
    assert_eq!(old.rest(), (b"> BYE\n".to_vec(), End::Clean));
    program.signal("TERM");
    assert_eq!(program.end().0, 0);
}

#[test]
fn hangup_reads_the_certificate_again_though_no_descriptor_is_left() {
    let pem = Pem::new("starved");
    let [cert, key] = pem.options();
    let program = Program::serve_after("ulimit -n 40", &["echo=tls:0", &cert, &key]);
    let at = addr(&program, "echo");
    let crowd: Vec<_> = (0..60).map(|_| std::net::TcpStream::connect(at).unwrap()).collect();
    program.wait_for_log("out of file descriptors");
    program.signal("HUP");
    let line = program.wait_for_log(" reloaded, ");
    assert!(line.contains("cert.pem reloaded"), "{line}");
    drop(crowd);
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

/// The RSA key of so many bits: enough of one to make a certificate of.
struct Rsa(Vec<u8>);

impl Rsa {
    fn new(bits: usize) -> Rsa {
        let long = |tag: u8, content: &[u8]| {
            let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
            let length = if high == 0 { vec![0x81, low] } else { vec![0x82, high, low] };
            [&[tag], &length[..], content].concat()
        };
        let modulus = [vec![0], vec![0xff; bits / 8]].concat();
        Rsa(long(0x30, &[&long(0x02, &modulus), &[2, 3, 1, 0, 1][..]].concat()))
    }
}

impl rcgen::PublicKeyData for Rsa {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_RSA_SHA256
    }
}

impl rcgen::SigningKey for Rsa {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(vec![1; 128])
    }
}

/// A certificate as PEM.
fn text_of(der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for bytes in der.chunks(3) {
        let all =
            bytes.iter().chain(&[0; 2]).take(3).fold(0, |all, byte| all << 8 | *byte as usize);
        let digit = |place: usize| match place {
            _ if place > bytes.len() => '=',
            _ => char::from(DIGITS[all >> (18 - 6 * place) & 63]),
        };
        text.extend((0..4).map(digit));
    }
    text + "\n-----END CERTIFICATE-----\n"
}

#[test]
fn a_certificate_that_cannot_be_used_is_status_1() {
    let (pem, other) = (Pem::new("bad"), Pem::new("other"));
    let refused = |words: &[&str]| {
        fails(serve(&pem, &["echo=tls:0"]), 1, words);
        let (_, _, stderr) = serve(&pem, &["echo=tls:0"]).end();
        // What the libraries have to say about it is for those who write programs.
        assert!(!stderr.contains(['[', '{']) && !stderr.contains("Error"), "{stderr}");
    };
    let good = std::fs::read_to_string(pem.cert()).unwrap();
    let key = std::fs::read_to_string(pem.key()).unwrap();
    let write = |path: std::path::PathBuf, text: &str| std::fs::write(path, text).unwrap();

    std::fs::remove_file(pem.cert()).unwrap();
    refused(&["--tls-cert ", "cert.pem: cannot be read (No such file", "give"]);
    std::fs::create_dir(pem.cert()).unwrap();
    refused(&["--tls-cert ", "cert.pem: cannot be read (Is a directory", "give"]);
    std::fs::remove_dir(pem.cert()).unwrap();
    write(pem.cert(), &key);
    refused(&["--tls-cert ", "cert.pem: no certificate in it", "BEGIN CERTIFICATE"]);
    write(pem.cert(), &good.replace("MII", "M!!"));
    refused(&["cert.pem: bad PEM: no base64", "copy"]);
    write(pem.cert(), &good[..good.len() / 2]);
    refused(&["cert.pem: bad PEM: it is cut off", "END", "copy"]);
    write(pem.cert(), &good.replace("CERTIFICATE-----", "CERTIFICATE"));
    refused(&["cert.pem: bad PEM: a line with -----BEGIN", "copy"]);
    let hello = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    write(pem.cert(), hello);
    refused(&["cert.pem: number 1 in it is not a certificate", "copy"]);
    // Nobody could connect.
    write(pem.cert(), &format!("{good}{hello}"));
    refused(&["cert.pem: number 2 in it is not a certificate", "copy"]);
    write(pem.cert(), &good.repeat(1500));
    refused(&["cert.pem: its 1500 certificates are too long", "64000", "give"]);

    // Its version says 2 instead of 3.
    let der = CertificateDer::from_pem_slice(good.as_bytes()).unwrap();
    let version = der.windows(5).position(|bytes| bytes == [0xa0, 3, 2, 1, 2]).unwrap();
    let mut old = der.to_vec();
    old[version + 4] = 1;
    write(pem.cert(), &text_of(&old));
    refused(&["cert.pem: it is of X.509 version 2", "make one of version 3"]);
    for (bits, words) in [(1024, "RSA of 1024 bits"), (8192, "RSA of 8192 bits")] {
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        write(pem.cert(), &text_of(params.self_signed(&Rsa::new(bits)).unwrap().der()));
        refused(&["cert.pem: ", words, "make one of 2048 to 4096"]);
    }

    std::fs::copy(other.cert(), pem.cert()).unwrap();
    refused(&["--tls-key ", "key.pem: it is not the key of", "cert.pem"]);
    write(pem.cert(), &good);
    std::fs::remove_file(pem.key()).unwrap();
    refused(&["--tls-key ", "key.pem: cannot be read (No such file"]);
    write(pem.key(), &good);
    refused(&["key.pem: no private key in it", "BEGIN PRIVATE KEY"]);
    write(pem.key(), &key[..key.len() / 2]);
    refused(&["key.pem: bad PEM: it is cut off"]);
    write(pem.key(), &hello.replace("CERTIFICATE", "PRIVATE KEY"));
    refused(&["key.pem: it cannot be used", "make one of RSA with 2048 to 4096 bits"]);
    write(pem.key(), &key.replace("BEGIN PRIVATE", "BEGIN ENCRYPTED PRIVATE"));
    refused(&["key.pem: it is encrypted", "openssl pkey"]);

    pem.renew(2001);
    refused(&["cert.pem: it expired at 2001-01-01", "renew"]);
}

#[test]
fn a_mark_of_the_byte_order_hides_no_certificate() {
    let pem = Pem::new("mark");
    for file in [pem.cert(), pem.key()] {
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("\u{feff}{text}")).unwrap();
    }
    let program = serve(&pem, &["echo=tls:0"]);
    addr(&program, "echo");
}

/// As some editors and shells write it.
#[test]
fn a_certificate_in_utf_16_is_told_from_none() {
    let pem = Pem::new("wide");
    for (file, option) in [(pem.key(), "--tls-key "), (pem.cert(), "--tls-cert ")] {
        let text = std::fs::read_to_string(&file).unwrap();
        for order in [u16::to_le_bytes, u16::to_be_bytes] {
            let units =
                format!("\u{feff}{text}").encode_utf16().flat_map(order).collect::<Vec<_>>();
            std::fs::write(&file, units).unwrap();
            let words = [option, ".pem: it is UTF-16", "iconv -f UTF-16 -t UTF-8"];
            fails(serve(&pem, &["echo=tls:0"]), 1, &words);
        }
    }
}

#[test]
fn tls_without_its_files_and_files_without_tls_are_status_2() {
    let pem = Pem::new("usage");
    let [cert, key] = pem.options();
    fails(Program::serve(&["echo=tls:0"]), 2, &["tls:", "--tls-cert", "--tls-key"]);
    fails(Program::serve(&["echo=tls:0", &cert]), 2, &["--tls-key"]);
    fails(Program::serve(&["echo=tls:0", &key]), 2, &["--tls-cert"]);
    fails(Program::serve(&["echo=0", &cert, &key]), 2, &["--tls-cert", "tls:ADDR"]);
    fails(Program::serve(&["echo=tls:nowhere"]), 2, &["write nowhere:PORT"]);
}
