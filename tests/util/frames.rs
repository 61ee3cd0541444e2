//! Frames of WebSocket as RFC 6455 has them on the wire, written and read by hand and not with the code
//! under test.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A request for an upgrade at this path, with the key of the RFC's example.
pub fn request(host: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// What accepts it begins so, and has this in it.
pub const ACCEPTED: &str = "HTTP/1.1 101 ";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub last: bool,
    pub opcode: u8,
    pub masked: bool,
    pub payload: Vec<u8>,
}

/// A frame with this mask, as clients send them, or without one, as servers do.
pub fn frame(last: bool, opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![u8::from(last) << 7 | opcode];
    let masked = u8::from(mask.is_some()) << 7;
    match payload.len() {
        length @ ..126 => bytes.push(masked | length as u8),
        length @ ..65_536 => {
            bytes.push(masked | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(masked | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask.into_iter().flatten());
    let mask = mask.unwrap_or_default().into_iter().cycle();
    bytes.extend(payload.iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A whole message of text, as a client sends it.
pub fn text(text: &str) -> Vec<u8> {
    frame(true, TEXT, Some(*b"mask"), text.as_bytes())
}

/// The end of a client's side.
pub fn close(code: u16) -> Vec<u8> {
    frame(true, CLOSE, Some(*b"mask"), &code.to_be_bytes())
}

/// Takes the first frame out of what has come, if all of it has; none of it may be longer than it need.
pub fn take(bytes: &mut Vec<u8>) -> Option<Frame> {
    let [first, second] = *bytes.first_chunk()?;
    assert_eq!(first & 0x70, 0, "reserved bits are set");
    let (length, at) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(*bytes[2..].first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*bytes[2..].first_chunk()?) as usize, 10),
        length => (usize::from(length), 2),
    };
    assert!(at == 2 || length >= if at == 4 { 126 } else { 65_536 }, "a length in too many bytes");
    let masked = second & 0x80 != 0;
    let (mask, at) = match masked {
        true => (*bytes[at..].first_chunk()?, at + 4),
        false => ([0; 4], at),
    };
    if bytes.len() < at + length {
        return None;
    }
    let payload = bytes[at..at + length].iter().zip(mask.into_iter().cycle());
    let payload = payload.map(|(byte, mask)| byte ^ mask).collect();
    bytes.drain(..at + length);
    Some(Frame { last: first & 0x80 != 0, opcode: first & 0x0f, masked, payload })
}
