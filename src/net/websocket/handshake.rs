//! The HTTP in front of the frames: what a client asks for, and what a server answers.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::{error, fmt};

use httparse::{EMPTY_HEADER, Header, Status};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

use super::{WebSocket, WebSocketStream};
use crate::net::Address;
use crate::net::http::{BadRequest, Forbidden, MAX_HEADERS, Request, head, response};
use crate::net::stream::Stream;

/// The only version of the protocol.
const VERSION: &str = "13";

/// A key is 16 bytes in base64.
const KEY: usize = 24;

/// A request that becomes a WebSocket: what [`WebSocket::answer`] gives.
#[derive(Debug)]
pub struct Upgrade {
    accept: String,
    config: WebSocket,
}

/// Why a request becomes no WebSocket: what [`WebSocket::answer`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It asks for something else.
    NoUpgrade,
    /// It asks for a version of WebSocket that there is not.
    Version,
    /// It has no key, or a wrong one.
    Key,
    /// Its `Host` or its `Origin` is not ours.
    Forbidden(Forbidden),
    /// It is no request that is taken.
    Bad(BadRequest),
}

impl Upgrade {
    /// The answer that goes out in front of the frames, with status 101.
    pub fn response(&self) -> Vec<u8> {
        head(
            101,
            &[
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Accept", &self.accept),
            ],
        )
    }

    /// Puts the layer over a stream on which the answer has been sent. `rest` is what came behind
    /// the head of the request.
    pub(crate) fn over(self, stream: Stream, rest: Vec<u8>) -> Stream {
        Stream::layer(WebSocketStream::upgraded(stream, &self.config, rest))
    }
}

impl Refusal {
    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::NoUpgrade | Refusal::Version => 426,
            Refusal::Key => 400,
            Refusal::Forbidden(_) => 403,
            Refusal::Bad(bad) => bad.status(),
        }
    }

    /// The answer. The connection has to end behind it.
    pub fn response(&self) -> Vec<u8> {
        let mut headers = vec![("Content-Type", "text/plain; charset=utf-8")];
        if self.status() == 426 {
            headers.extend([("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION)]);
            headers.push(("Connection", "Upgrade, close"));
        } else {
            headers.push(("Connection", "close"));
        }
        response(self.status(), &headers, format!("{self}\n"))
    }

    /// The refusal that an error has, if it is one.
    pub(crate) fn of(error: &io::Error) -> Option<Refusal> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoUpgrade => f.write_str(
                "this port speaks WebSocket, one line a message: connect to it as ws://HOST:PORT",
            ),
            Refusal::Version => {
                write!(f, "there is no other WebSocket here than version {VERSION}")
            }
            Refusal::Key => f.write_str("it has no Sec-WebSocket-Key of 16 bytes in base64"),
            Refusal::Forbidden(why) => why.fmt(f),
            Refusal::Bad(why) => why.fmt(f),
        }
    }
}

impl error::Error for Refusal {}

/// Who is not allowed was refused; any other request is a handshake that failed.
impl From<Refusal> for io::Error {
    fn from(why: Refusal) -> io::Error {
        let kind = match why {
            Refusal::Forbidden(_) => ErrorKind::PermissionDenied,
            _ => ErrorKind::InvalidData,
        };
        io::Error::new(kind, why)
    }
}

/// Judges a request: RFC 6455, section 4.2.
pub(super) fn answer(config: &WebSocket, request: &Request<'_>) -> Result<Upgrade, Refusal> {
    let upgrades = request.method() == "GET"
        && request.minor_version() > 0
        && request.has_token("Upgrade", "websocket")
        && request.has_token("Connection", "Upgrade");
    if !upgrades {
        return Err(Refusal::NoUpgrade);
    }
    config.sites.check(request).map_err(Refusal::Forbidden)?;
    if request.header("Sec-WebSocket-Version") != Some(VERSION.as_bytes()) {
        return Err(Refusal::Version);
    }
    let key = request.header("Sec-WebSocket-Key").filter(|key| is_key(key));
    let accept = derive_accept_key(key.ok_or(Refusal::Key)?);
    Ok(Upgrade { accept, config: config.clone() })
}

fn is_key(key: &[u8]) -> bool {
    let of_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    key.len() == KEY && key.ends_with(b"==") && key[..KEY - 2].iter().all(of_base64)
}

/// What a client asks for, and the answer that it then wants.
pub(super) struct Asking {
    accept: String,
}

impl Asking {
    /// Gives the request too.
    pub(super) fn at(address: &Address) -> (Asking, Vec<u8>) {
        let key = generate_key();
        let host = match address {
            // Without the zone of an IPv6 address, which means something on this machine only.
            Address::Tcp(addr) => SocketAddr::new(addr.ip(), addr.port()).to_string(),
            Address::Host(host) => format!("{}:{}", host.name(), host.port()),
            Address::Unix(_) => "localhost".to_owned(),
        };
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: {VERSION}\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        (Asking { accept: derive_accept_key(key.as_bytes()) }, request.into_bytes())
    }

    /// Looks for the answer at the front of these bytes, and gives how many it takes; none if it is
    /// not complete.
    pub(super) fn check(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        let length = match answer.parse(bytes) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(_) => return Err(wrong("it answers with no HTTP; does it speak WebSocket?")),
        };
        match answer.code {
            Some(101) => {}
            Some(code) => {
                let why = format!("it answers with status {code}, not with WebSocket");
                return Err(io::Error::new(ErrorKind::InvalidData, why));
            }
            None => return Err(wrong("it answers without a status")),
        }
        let those = |name: &'static str| values(answer.headers, name);
        let has_token = |name: &'static str, token: &str| {
            let mut tokens = those(name).flat_map(|value| value.split(|byte| *byte == b','));
            tokens.any(|one| one.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
        };
        let unasked = ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"];
        if !has_token("Upgrade", "websocket") || !has_token("Connection", "Upgrade") {
            Err(wrong("it switches to another protocol than WebSocket"))
        } else if !those("Sec-WebSocket-Accept").eq([self.accept.as_bytes()]) {
            Err(wrong("its answer is to another request than ours"))
        } else if unasked.into_iter().any(|name| those(name).next().is_some()) {
            Err(wrong("it wants an extension or a protocol that nobody asked for"))
        } else {
            Ok(Some(length))
        }
    }
}

fn values<'h>(headers: &'h [Header<'h>], name: &'h str) -> impl Iterator<Item = &'h [u8]> {
    headers.iter().filter(move |one| one.name.eq_ignore_ascii_case(name)).map(|one| one.value)
}

fn wrong(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}
