//! What a proxy says in front of a client's bytes, written from HAProxy's `proxy-protocol.txt` and not
//! with the code that reads it.

use reactor::Limits;

use super::Choices;

/// A header of the PROXY protocol, or what is none.
pub struct Header {
    pub bytes: Vec<u8>,
    /// The end of the client's address in 127.0.0.0/24, if the header tells one.
    pub peer: Option<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It says who comes, or that the proxy does.
    Known,
    /// It says that nobody knows.
    Unknown,
    /// It is no header.
    Wrong,
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

impl Header {
    pub fn choose(choices: &mut Choices) -> Header {
        let last = 1 + choices.below(3) as u8;
        let from = choices.one_of(&[1, 80, 65_535]);
        let v1 = |family: &str, before: &str| {
            format!("PROXY {family} {before}127.0.0.{last} {before}192.0.2.1 {from} 9\r\n").into()
        };
        let ports = [&u16::to_be_bytes(from)[..], &[0, 9]].concat();
        let v4 = [&[127, 0, 0, last, 192, 0, 2, 1][..], &ports].concat();
        let mapped = |ip: [u8; 4]| [&[0; 10][..], &[255; 2], &ip].concat();
        let v6 = [mapped([127, 0, 0, last]), mapped([192, 0, 2, 1]), ports].concat();
        let (bytes, peer, kind) = match choices.below(12) {
            0 | 1 => (v1("TCP4", ""), Some(last), Kind::Known),
            2 => (v1("TCP6", "::ffff:"), Some(last), Kind::Known),
            3 | 4 => (v2(0x21, 0x11, [v4, tlvs(choices)].concat()), Some(last), Kind::Known),
            5 => (v2(0x21, 0x21, [v6, tlvs(choices)].concat()), Some(last), Kind::Known),
            6 => {
                let length = choices.below(100);
                (v2(0x20, 0x11, choices.text(length)), None, Kind::Known)
            }
            7 => (b"PROXY UNKNOWN\r\n".to_vec(), None, Kind::Unknown),
            8 => (b"PROXY UNKNOWN ff:: ff:: 1 2 and more\r\n".to_vec(), None, Kind::Unknown),
            9 => (v2(0x21, 0x00, tlvs(choices)), None, Kind::Unknown),
            10 => (v2(0x31, 0x11, v4), None, Kind::Wrong),
            _ => {
                let wrong: [&[u8]; 4] = [
                    b"PROXY TCP4 127.0.0.1 127.0.0.1 1 65536\r\n",
                    b"PROXY TCP4 127.0.0.1\n",
                    b"PROXY TCP5 ff:: ff:: 1 2\r\n",
                    b"GET / HTTP/1.1\r\n\r\n",
                ];
                (choices.one_of(&wrong).to_vec(), None, Kind::Wrong)
            }
        };
        Header { bytes, peer, kind }
    }

    /// Whether nobody may be served behind it.
    pub fn is_unwelcome(&self, limits: &Limits) -> bool {
        let judged = limits.peer_rate != Default::default();
        self.kind == Kind::Wrong || self.kind == Kind::Unknown && judged
    }
}

fn v2(command: u8, family: u8, rest: Vec<u8>) -> Vec<u8> {
    let length = u16::to_be_bytes(rest.len() as u16);
    [SIGNATURE, &[command, family], &length, &rest].concat()
}

/// A few of them, with nothing in them that anybody looks at.
fn tlvs(choices: &mut Choices) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..choices.below(4) {
        let length = choices.size(30, 100);
        all.extend([choices.one_of(&[0x02, 0x04, 0x20, 0xe0]), 0, length as u8]);
        let mut value = choices.text(length);
        value.resize(length, 0);
        all.extend(value);
    }
    all
}
