//! WebSocket by hand: frames as bytes.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::net::SocketAddr;

use super::Client;

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8A;
/// The first fragment of a text, one in between, and the last.
pub const FIRST: u8 = 0x01;
pub const MORE: u8 = 0x00;
pub const LAST: u8 = 0x80;

/// The key of the example in RFC 6455, section 1.3, and what has to be answered to it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A request with these headers besides those that it must have.
pub fn request(host: &str, headers: &str) -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
    )
}

fn header(first: u8, length: usize, masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    match length {
        0..=125 => vec![first, mask | length as u8],
        126..=65_535 => [&[first, mask | 126][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[first, mask | 127][..], &(length as u64).to_be_bytes()].concat(),
    }
}

/// A frame of a client.
pub fn masked(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let (payload, mask) = (payload.as_ref(), [0x37, 0xFA, 0x21, 0x3D]);
    let mut frame = header(first, payload.len(), true);
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A frame of a server.
pub fn plain(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    [&header(first, payload.len(), false)[..], payload].concat()
}

/// A close frame with a code.
pub fn closing(code: u16) -> Vec<u8> {
    plain(CLOSE, code.to_be_bytes())
}

/// A client that has shaken hands.
pub fn open(addr: SocketAddr) -> Client {
    open_with(addr, "")
}

/// One whose request has these headers too.
pub fn open_with(addr: SocketAddr, headers: &str) -> Client {
    let mut client = Client::connect(addr);
    client.stream.set_nodelay(true).unwrap();
    client.send(request(&addr.to_string(), headers));
    accepted(&mut client);
    client
}

/// Reads the answer to [`request`].
#[track_caller]
pub fn accepted(client: &mut Client) {
    let head = head(client);
    assert_eq!(head[0], "HTTP/1.1 101 Switching Protocols");
    for line in ["Upgrade: websocket", "Connection: Upgrade"] {
        assert!(head.iter().any(|it| it == line), "{head:?}");
    }
    assert!(head.contains(&format!("Sec-WebSocket-Accept: {ACCEPT}")), "{head:?}");
}

/// The lines of a head, without the empty one.
#[track_caller]
pub fn head(client: &mut Client) -> Vec<String> {
    let mut head = Vec::new();
    loop {
        match client.line().trim_end_matches("\r\n") {
            "" => return head,
            line => head.push(line.to_owned()),
        }
    }
}
