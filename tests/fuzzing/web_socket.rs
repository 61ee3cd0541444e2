//! WebSocket: what is read, against a reading of RFC 6455 that knows all bytes at once; what is written,
//! as a client that knows nothing of the code reads it.

#![allow(unreachable_pub, reason = "the fuzzers are a crate of their own")]

#[path = "../../src/net/websocket/reading.rs"]
#[allow(dead_code, reason = "only the decoder is looked at")]
mod reading;

use reactor::testing::Harness;
use reactor::{Handler, Listen, ServiceContext, WebSocket};

use self::reading::{Asked, Decoder, Fault};
use crate::world::Choices;
use crate::world::frames::{self, BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT};

/// Which end of a connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// What bytes mean.
#[derive(Debug, Default, PartialEq, Eq)]
struct Meaning {
    bytes: Vec<u8>,
    /// Pings with what they say, pongs without, and the codes of the close.
    control: Vec<(u8, Vec<u8>)>,
    /// Whether a rule is broken, and if so, whether it is that of UTF-8.
    fault: Option<bool>,
}

/// Whether a close frame breaks a rule, and if so, whether it is that of UTF-8.
fn broken_close(payload: &[u8]) -> Option<bool> {
    match *payload {
        [] => None,
        [high, low, ref reason @ ..] => {
            let code = u16::from_be_bytes([high, low]);
            let free = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            (!free || str::from_utf8(reason).is_err()).then_some(free)
        }
        _ => Some(false),
    }
}

/// Reads all bytes at once. Of the last frame some may be missing.
fn read(mut bytes: &[u8], masked: bool, lines: bool) -> Meaning {
    let mut meaning = Meaning::default();
    let (mut message, mut text, mut start) = (None, Vec::new(), 0);
    let broken = |utf8, meaning| Meaning { fault: Some(utf8), ..meaning };
    while let [first, second, rest @ ..] = bytes {
        let (opcode, last) = (first & 0x0f, first & 0x80 != 0);
        let (short, has_mask) = (u64::from(second & 0x7f), second & 0x80 != 0);
        let wide = [0, 2, 8][usize::from(short >= 126) + usize::from(short == 127)];
        let Some((length, rest)) = rest.split_at_checked(wide) else { break };
        let long = length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let length = if wide == 0 { short } else { long };
        let Some((mask, rest)) = rest.split_at_checked(if has_mask { 4 } else { 0 }) else { break };
        let (control, goes_on) = (opcode >= 8, opcode == CONTINUATION);
        let known = matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG);
        let least = [0, 126, 65_536][wide.div_ceil(2).min(2)];
        let wrong = !known
            || first & 0x70 != 0
            || has_mask != masked
            || length < least
            || length >> 63 != 0
            || control && (!last || length > 125)
            || !control && goes_on != message.is_some();
        if wrong {
            return broken(false, meaning);
        }
        let there = rest.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        let (payload, rest) = rest.split_at(there);
        let whole = there as u64 == length;
        let unmask = |(at, byte): (usize, &u8)| byte ^ mask.get(at % 4).unwrap_or(&0);
        let payload: Vec<u8> = payload.iter().enumerate().map(unmask).collect();
        bytes = rest;
        if control {
            if !whole {
                break;
            }
            if opcode == CLOSE {
                if let Some(utf8) = broken_close(&payload) {
                    return broken(utf8, meaning);
                }
                meaning.control.push((CLOSE, payload[..payload.len().min(2)].to_vec()));
                return meaning;
            }
            meaning.control.push((opcode, if opcode == PING { payload } else { Vec::new() }));
            continue;
        }
        if !goes_on {
            (message, start) = (Some(opcode), meaning.bytes.len());
            text.clear();
        }
        meaning.bytes.extend(&payload);
        if message == Some(TEXT) {
            text.extend(payload);
            let ends = whole && last;
            if str::from_utf8(&text).is_err_and(|error| ends || error.error_len().is_some()) {
                return broken(true, meaning);
            }
        }
        if whole && last {
            message = None;
            if lines && (meaning.bytes.len() == start || meaning.bytes.last() != Some(&b'\n')) {
                meaning.bytes.push(b'\n');
            }
        }
        if !whole {
            break;
        }
    }
    meaning
}

/// Any bytes in any pieces mean what they mean at once, from either end. Half of the inputs are made of
/// frames that are mostly right.
pub fn reads(data: &[u8]) {
    let mut choices = Choices::of_bytes(data.to_vec());
    let from = choices.one_of(&[Role::Client, Role::Server]);
    let lines = choices.below(2) == 0;
    let mut pieces = [0; 4].map(|_: u8| 1 + choices.below(200).pow(2) / 40).into_iter().cycle();
    let mut bytes = Vec::new();
    let made = choices.below(2) == 0;
    while made && !choices.are_over() && bytes.len() < 20_000 {
        let mask = (from == Role::Client).then(|| [7; 4].map(|_| choices.below(256) as u8));
        let opcode = choices.one_of(&[TEXT, CONTINUATION, BINARY, CONTINUATION, PING, PONG, CLOSE]);
        let length = choices.size(130, 3_000);
        let mut payload = choices.text(length);
        if opcode == CLOSE {
            payload.splice(..0, choices.one_of(&[1000_u16, 1001, 3000, 1006]).to_be_bytes());
        }
        bytes.extend(frames::frame(choices.below(3) > 0, opcode, mask, &payload));
    }
    bytes.extend(choices.text(20_000 * usize::from(!made)));
    let wanted = read(&bytes, from == Role::Client, lines);
    let mut got = Meaning::default();
    let mut decoder = Decoder::new(from, lines);
    let mut rest = &bytes[..];
    while !rest.is_empty() && got.fault.is_none() && !decoder.is_closed() {
        let count = rest.len().min(pieces.next().unwrap_or(1));
        let mut buf = [&[0], &rest[..count]].concat();
        rest = &rest[count..];
        let (end, outcome) = decoder.decode(&mut buf, 1..1 + count, 0, |asked| {
            got.control.push(match asked {
                Asked::Ping(payload) => (PING, payload.to_vec()),
                Asked::Pong => (PONG, Vec::new()),
                Asked::Close(code) => {
                    let code = code.map(|code| u16::from(code).to_be_bytes().to_vec());
                    (CLOSE, code.unwrap_or_default())
                }
            });
        });
        got.bytes.extend(&buf[..end]);
        got.fault = outcome.err().map(|fault| fault == Fault::NotUtf8);
    }
    if got.fault.is_some() {
        // How much of a piece with something wrong in it is given is open, and a header need not be whole.
        let same = got.bytes.len().min(wanted.bytes.len());
        assert_eq!(got.bytes[..same], wanted.bytes[..same]);
        assert_eq!(got.control, wanted.control);
        assert!(wanted.fault.is_none_or(|utf8| Some(utf8) == got.fault), "{got:?}, {wanted:?}");
    } else {
        assert_eq!(got, wanted);
    }
}

/// Sends everybody what is posted; nothing is the end.
struct Sender;

impl Handler for Sender {
    type Session = ();
    type Message = Vec<u8>;

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, message: Vec<u8>) {
        let everybody: Vec<_> = cx.connections().map(|(id, _)| id).collect();
        match &*message {
            [] => everybody.into_iter().for_each(|id| cx.connection(id).unwrap().close()),
            _ => cx.broadcast(message),
        }
    }
}

/// Any bytes, sent in any pieces to a client that takes any pieces, are a message of text for each
/// line, and then a close frame.
pub fn writes(data: &[u8]) {
    let Some((shape, data)) = data.split_first_chunk::<4>() else { return };
    let mut server = Harness::new(Sender);
    let listen = Listen::at("127.0.0.1:0").unwrap().web_socket(&WebSocket::new());
    let client = server.connect_through(&listen);
    server.feed(client, frames::request("localhost", "/"));
    server.take_only(client, Some(200));
    let mut came = Vec::new();
    let mut sizes = shape.iter().map(|size| 1 + usize::from(*size)).cycle();
    let mut rest = data;
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.len().min(sizes.next().unwrap_or(1)));
        server.post(piece.to_vec());
        rest = more;
        came.extend(server.sent(client));
        server.take_only(client, sizes.next());
    }
    server.take_only(client, None);
    server.post(Vec::new());
    came.extend(server.sent(client));
    let head = came.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer");
    came.drain(..head + 4);
    let (mut messages, mut begun) = (Vec::new(), None::<Vec<u8>>);
    let mut closed = false;
    while let Some(frame) = frames::take(&mut came) {
        assert!(!frame.masked && !closed, "{frame:?}");
        if frame.opcode == CLOSE {
            assert_eq!(frame.payload, 1000_u16.to_be_bytes());
            closed = true;
            continue;
        }
        assert_eq!(frame.opcode, if begun.is_some() { CONTINUATION } else { TEXT });
        // Each fragment is text by itself.
        assert!(str::from_utf8(&frame.payload).is_ok(), "{frame:?}");
        let mut message = begun.take().unwrap_or_default();
        message.extend(frame.payload);
        if frame.last { messages.push(message) } else { begun = Some(message) }
    }
    assert!(closed && begun.is_none() && came.is_empty());
    let mut lines: Vec<_> = data.split(|byte| *byte == b'\n').collect();
    lines.pop_if(|last| last.is_empty());
    let lines = lines.into_iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let wanted: Vec<_> = lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let got: Vec<_> = messages.iter().map(|message| String::from_utf8_lossy(message)).collect();
    assert_eq!(got, wanted);
}
