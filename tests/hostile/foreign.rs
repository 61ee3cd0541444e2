//! Programs that speak something else: browsers, scanners, mail servers.

use std::io::{Read, Write};
use std::net::Shutdown;

use crate::swarm::join;
use crate::util::Client;
use crate::victim::Victim;

/// The beginning of a TLS handshake, as `openssl s_client` sends it.
const TLS: &[u8] = b"\x16\x03\x01\x00\x60\x01\x00\x00\x5c\x03\x03\x00\x01\x02\x03\x04\x05\x06\x07\
    \x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\
    \x1f\x00\x00\x02\x13\x01\x01\x00\x00\x31\x00\x0a\x00\x04\x00\x02\x00\x1d";
/// What a web page can make its visitor's browser send.
const POST: &[u8] = b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:9907\r\nUser-Agent: Mozilla/5.0\r\n\
    Content-Type: text/plain\r\nContent-Length: 66\r\n\r\n\
    HELLO spam\r\nSAY spam\r\nLOAD\r\nspam\r\nENDOFDATA\r\nCLEAR\r\nKILL\r\nBYE\r\n";
/// The same from a page that has got itself the server's name, and so may choose the method.
const KILL: &[u8] = b"KILL /x HTTP/1.1\r\nHost: evil.example:9907\r\n\r\n";
const OTHERS: [&[u8]; 4] = [
    b"GET / HTTP/1.0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"*1\r\n$4\r\nPING\r\n",
];

#[test]
fn http_tls_and_others() {
    let services = ["echo", "time", "presence", "roulette", "roulette2"];
    let victim = Victim::start(&services, &["--time-count", "1", "--allow-kill"]);
    let mut witness = Client::connect(victim.addr("presence"));
    while !witness.line().starts_with("  Shutdown") {}
    let mut came = 0;
    for (service, addr) in victim.services() {
        for bytes in [TLS, POST, KILL].iter().chain(&OTHERS) {
            let mut client = join(*addr, 0);
            let _ = client.write_all(bytes);
            let _ = client.shutdown(Shutdown::Write);
            let mut said = Vec::new();
            let _ = client.read_to_end(&mut said);
            let text = String::from_utf8_lossy(&said);
            let closed = text.ends_with("\nThis is neither HTTP nor TLS.\n");
            let known = bytes.starts_with(&[0x16]) || bytes.windows(5).any(|at| at == b"HTTP/");
            let judges = !matches!(service.as_str(), "echo" | "time");
            assert_eq!(closed, known && judges, "{service}: {text}");
            came += usize::from(service == "presence");
        }
    }
    // They came and went, and said nothing.
    for _ in 0..came {
        assert_eq!(witness.line(), "Someone has arrived...\n");
        assert_eq!(witness.line(), "An anonymous user has left the room.\n");
    }
    for service in ["roulette", "roulette2"] {
        let mut teacher = Client::connect(victim.addr(service));
        assert!(teacher.line().starts_with("Hello"));
        teacher.send("INFO\n");
        assert!(teacher.line().contains("\"numberOfStudents\":0"), "{service}");
    }
    drop(witness);
    victim.is_well("HTTP, TLS, SSH and others", 8 << 20);
    victim.ends();
}
