//! Frames in any pieces, and what the layer does with them.

use std::cell::RefCell;
use std::io::{Cursor, ErrorKind, Read, Write};
use std::rc::Rc;

use proptest::collection::vec;
use proptest::prelude::*;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::reading::{Asked, Decoder, Fault, apply_mask};
use super::writing::{Encoder, FRAGMENT};
use super::{Role, WebSocket, WebSocketStream};
use crate::connection::CloseReason;
use crate::net::layer::Layer;
use crate::net::memory::{Pipe, SharedWire, Wire};
use crate::net::stream::Stream;

const TEXT: OpCode = OpCode::Data(Data::Text);
const BINARY: OpCode = OpCode::Data(Data::Binary);
const MORE: OpCode = OpCode::Data(Data::Continue);
const PING: OpCode = OpCode::Control(Control::Ping);
const PONG: OpCode = OpCode::Control(Control::Pong);
const CLOSE: OpCode = OpCode::Control(Control::Close);

/// A frame of a client.
fn frame(opcode: OpCode, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mask = Some([1, 2, 3, 4]);
    let mut frame = Vec::new();
    let header = FrameHeader { opcode, is_final, mask, ..FrameHeader::default() };
    header.format(payload.len() as u64, &mut frame).unwrap();
    let start = frame.len();
    frame.extend(payload);
    apply_mask(&mut frame[start..], [1, 2, 3, 4]);
    frame
}

/// What frames hold: opcode, whether it is the last fragment, payload.
fn frames(mut bytes: &[u8]) -> Vec<(OpCode, bool, Vec<u8>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let mut cursor = Cursor::new(bytes);
        let (header, length) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        bytes = &bytes[cursor.position() as usize..];
        let mut payload = bytes[..length as usize].to_vec();
        bytes = &bytes[length as usize..];
        apply_mask(&mut payload, header.mask.unwrap_or_default());
        all.push((header.opcode, header.is_final, payload));
    }
    all
}

/// Decodes in pieces of these sizes, in turn: what the messages hold, what was asked, and the fault.
fn decode(lines: bool, bytes: &[u8], sizes: &[usize]) -> (Vec<u8>, Vec<String>, Result<(), Fault>) {
    let mut decoder = Decoder::new(Role::Client, lines);
    let (mut all, mut asked) = (Vec::new(), Vec::new());
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    while !rest.is_empty() {
        let count = rest.len().min(*sizes.next().unwrap());
        let mut buf = [b"?", &rest[..count]].concat();
        rest = &rest[count..];
        let (end, outcome) =
            decoder.decode(&mut buf, 1..1 + count, 0, |it| asked.push(format!("{it:?}")));
        all.extend(&buf[..end]);
        if outcome.is_err() {
            return (all, asked, outcome);
        }
    }
    assert!(decoder.kept() <= 256, "{}", decoder.kept());
    (all, asked, Ok(()))
}

#[test]
fn a_message_is_a_line() {
    for (messages, lines) in [
        (&[&b"hello"[..]][..], &b"hello\n"[..]),
        (&[b""], b"\n"),
        (&[b"hello\n"], b"hello\n"),
        (&[b"hello\r\n"], b"hello\r\n"),
        (&[b"one\ntwo", b"\n", b"three"], b"one\ntwo\n\nthree\n"),
    ] {
        let bytes: Vec<u8> = messages.iter().flat_map(|it| frame(TEXT, true, it)).collect();
        for size in [1, 2, 3, 1000] {
            assert_eq!(decode(true, &bytes, &[size]), (lines.to_vec(), vec![], Ok(())));
        }
        let bytes = messages.iter().flat_map(|it| frame(BINARY, true, it)).collect::<Vec<_>>();
        assert_eq!(decode(true, &bytes, &[9]).0, lines);
        assert_eq!(decode(false, &bytes, &[9]).0, messages.concat());
    }
}

#[test]
fn control_frames_may_come_between_fragments() {
    let bytes = [
        frame(TEXT, false, b"hel"),
        frame(PING, true, b"there?"),
        frame(MORE, false, b""),
        frame(PONG, true, b""),
        frame(MORE, true, b"lo"),
        frame(CLOSE, true, b"\x03\xE8bye"),
        b"whatever".to_vec(),
    ];
    let ping = format!("{:?}", Asked::Ping(b"there?"));
    let asked = vec![ping, "Pong".to_owned(), "Close(Some(Normal))".to_owned()];
    for size in [1, 4, 1000] {
        let wanted = (b"hello\n".to_vec(), asked.clone(), Ok(()));
        assert_eq!(decode(true, &bytes.concat(), &[size]), wanted);
    }
}

#[test]
fn what_breaks_the_protocol() {
    let with = |at: usize, byte: u8, mut frame: Vec<u8>| {
        frame[at] = byte;
        frame
    };
    let long = |length: u64| [&[0x81, 0xFF][..], &length.to_be_bytes(), &[0; 4]].concat();
    for (bytes, code) in [
        (with(0, 0xC1, frame(TEXT, true, b"x")), 1002), // reserved bits
        (with(0, 0xA1, frame(TEXT, true, b"x")), 1002),
        (with(0, 0x91, frame(TEXT, true, b"x")), 1002),
        (with(0, 0x83, frame(TEXT, true, b"x")), 1002), // opcodes
        (with(0, 0x87, frame(TEXT, true, b"x")), 1002),
        (with(0, 0x8B, frame(TEXT, true, b"x")), 1002),
        (with(0, 0x8F, frame(TEXT, true, b"x")), 1002),
        (b"\x81\x01x".to_vec(), 1002), // no mask
        (frame(PING, false, b""), 1002),
        (frame(CLOSE, false, b""), 1002),
        (frame(PING, true, &[b'x'; 126]), 1002),
        (frame(MORE, true, b"x"), 1002),
        ([frame(TEXT, false, b"x"), frame(TEXT, true, b"y")].concat(), 1002),
        ([frame(TEXT, true, b"x"), frame(MORE, true, b"y")].concat(), 1002),
        (long(1 << 63), 1002),
        (long(65_535), 1002), // fits into two bytes
        (b"\x81\xFE\x00\x7D\0\0\0\0".to_vec(), 1002),
        (frame(CLOSE, true, b"\x03"), 1002),
        (frame(CLOSE, true, b"\x03\xEE"), 1002), // 1006 is never sent
        (frame(CLOSE, true, b"\x03\xEC"), 1002),
        (frame(CLOSE, true, b"\x07\xD0"), 1002), // 2000
        (frame(CLOSE, true, b"\x13\x88"), 1002), // 5000
        (frame(CLOSE, true, b"\x03\xE8\xFF"), 1007),
        (frame(TEXT, true, b"\xC3"), 1007),
        (frame(TEXT, true, b"\xFF"), 1007),
        (frame(TEXT, true, b"\xED\xA0\x80"), 1007), // a surrogate
        (frame(TEXT, true, b"\xF4\x90\x80\x80"), 1007), // above U+10FFFF
        (frame(TEXT, true, b"\xC0\xAF"), 1007),     // too long
        ([frame(TEXT, false, b"\xE2\x82"), frame(MORE, true, b"x")].concat(), 1007),
    ] {
        for size in [1, 3, 1000] {
            let fault = decode(true, &bytes, &[size]).2.unwrap_err();
            assert_eq!(u16::from(fault.code()), code, "{bytes:x?}: {fault}");
        }
    }
    // What is binary is any bytes.
    assert_eq!(decode(true, &frame(BINARY, true, b"\xFF"), &[9]).0, b"\xFF\n");
}

/// Encodes in pieces of these sizes, in turn.
fn encode(role: Role, lines: bool, bytes: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut encoder = Encoder::new(role, lines);
    let (mut all, mut rest, mut sizes) = (Vec::new(), bytes, sizes.iter().cycle());
    while !rest.is_empty() {
        let mut piece = Vec::new();
        let taken = encoder.put(&rest[..rest.len().min(*sizes.next().unwrap())], &mut piece);
        assert!((1..=FRAGMENT).contains(&taken) && piece.len() <= 3 * FRAGMENT + 8);
        rest = &rest[taken..];
        all.extend(piece);
    }
    encoder.finish(&mut all);
    all
}

/// The messages of these frames, which are fragmented as they should be.
fn messages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut all, mut begun) = (Vec::new(), None);
    for (opcode, is_final, payload) in frames(bytes) {
        assert_eq!(opcode == MORE, begun.is_some());
        let mut message = begun.take().unwrap_or_else(Vec::new);
        message.extend(payload);
        if is_final { all.push(message) } else { begun = Some(message) }
    }
    assert_eq!(begun, None);
    all
}

#[test]
fn a_line_is_a_text_message() {
    for (bytes, lines) in [
        (&b"hello\n"[..], &["hello"][..]),
        (b"hello\r\n\r\n\n", &["hello", "", ""]),
        (b"a\rb\r\r\n", &["a\rb\r"]),
        (b"prompt> ", &["prompt> "]),
        (b"one\ntwo", &["one", "two"]),
        (b"J\xFCrgen\n", &["J\u{FFFD}rgen"]),
        (b"\xE2\x82\n\xE2\x82\xAC\n", &["\u{FFFD}", "\u{20AC}"]),
    ] {
        for size in [1, 2, 1000] {
            let sent = encode(Role::Server, true, bytes, &[size]);
            let heard: Vec<String> =
                messages(&sent).into_iter().map(|it| String::from_utf8(it).unwrap()).collect();
            assert_eq!(heard, lines, "in pieces of {size}");
        }
    }
    let short = encode(Role::Server, true, b"hello\nyou\n", &[1000]);
    assert_eq!(short, b"\x81\x05hello\x81\x03you");
}

#[test]
fn a_long_line_goes_out_in_fragments() {
    let line = ["x".repeat(3 * FRAGMENT + 7), "\n".to_owned()].concat();
    let sent = encode(Role::Server, true, line.as_bytes(), &[usize::MAX]);
    let sizes: Vec<_> = frames(&sent).iter().map(|(_, end, part)| (*end, part.len())).collect();
    let full = (false, FRAGMENT);
    assert_eq!(sizes, [full, full, full, (true, 7)]);
}

#[test]
fn no_two_masks_of_a_client_are_the_same() {
    let sent = encode(Role::Client, true, b"\n".repeat(1000).as_slice(), &[1000]);
    let mut masks: Vec<[u8; 4]> = sent.chunks(6).map(|it| it[2..].try_into().unwrap()).collect();
    assert_eq!(masks.len(), 1000);
    masks.sort_unstable();
    masks.dedup();
    // Two of a thousand are the same once in 8,600 times.
    assert!(masks.len() >= 998, "{}", masks.len());
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop_oneof![
        4 => Just(b'\n'), 4 => Just(b'\r'), 8 => Just(b'x'), 1 => any::<u8>(),
        1 => Just(0xE2), 1 => Just(0x82), 1 => Just(0xAC),
    ];
    vec(bytes, 0..40)
}

proptest! {
    #[test]
    fn bytes_get_through_in_any_pieces(
        bytes in vec(any::<u8>(), 0..600),
        out in vec(1..90usize, 1..9),
        into in vec(1..90usize, 1..9),
    ) {
        let sent = encode(Role::Client, false, &bytes, &out);
        prop_assert_eq!(decode(false, &sent, &into), (bytes, vec![], Ok(())));
    }

    #[test]
    fn lines_get_through_in_any_pieces(
        bytes in piece(),
        out in vec(1..9usize, 1..9),
        into in vec(1..9usize, 1..9),
    ) {
        let whole = [&bytes[..], b"\n"].concat();
        let sent = encode(Role::Client, true, &whole, &out);
        let lines = whole.split_inclusive(|byte| *byte == b'\n').map(|line| {
            let line = line.strip_suffix(b"\n").unwrap();
            String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned() + "\n"
        });
        let lines: String = lines.collect();
        let (heard, _, outcome) = decode(true, &sent, &into);
        prop_assert_eq!(outcome, Ok(()));
        prop_assert_eq!(String::from_utf8(heard).unwrap(), lines);
    }

    #[test]
    fn utf8_is_judged_alike_in_any_pieces(
        parts in vec(piece(), 1..4),
        into in vec(1..9usize, 1..9),
    ) {
        let last = parts.len() - 1;
        let sent = parts.iter().enumerate().flat_map(|(number, part)| {
            frame(if number == 0 { TEXT } else { MORE }, number == last, part)
        });
        let outcome = decode(true, &sent.collect::<Vec<_>>(), &into).2;
        let right = std::str::from_utf8(&parts.concat()).map(drop).map_err(|_| Fault::NotUtf8);
        prop_assert_eq!(outcome, right);
    }

    #[test]
    fn no_bytes_are_a_panic(bytes in vec(any::<u8>(), 0..300), into in vec(1..90usize, 1..9)) {
        let _ = decode(true, &bytes, &into);
    }

    #[test]
    fn a_mask_is_the_same_in_any_pieces(bytes in vec(any::<u8>(), 0..99), mask: [u8; 4]) {
        let mut masked = bytes.clone();
        apply_mask(&mut masked, mask);
        let plainly = bytes.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        prop_assert_eq!(masked, plainly.collect::<Vec<_>>());
    }
}

/// The layer without its handshake, and the wire below.
fn open(wire: Wire) -> (WebSocketStream, SharedWire) {
    let wire = Rc::new(RefCell::new(Wire { connected: true, ..wire }));
    let below = Stream::layer(Pipe::new(Rc::clone(&wire)));
    (WebSocketStream::upgraded(below, &WebSocket::new(), Vec::new()), wire)
}

#[test]
fn a_read_of_one_byte_gets_all() {
    let (mut stream, wire) = open(Wire::default());
    wire.borrow_mut().inbound.extend([frame(TEXT, true, b"hi"), frame(TEXT, true, b"")].concat());
    let (mut all, mut buf): (Vec<u8>, _) = (Vec::new(), [0]);
    loop {
        match stream.read(&mut buf) {
            Ok(count) => all.extend(&buf[..count]),
            Err(_) if stream.has_more() => {}
            Err(error) => break assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    assert_eq!(all, b"hi\n\n");
    assert!(!stream.has_unread());
}

#[test]
fn a_line_each_way_allocates_nothing() {
    let config = WebSocket::new();
    let wire = Rc::new(RefCell::new(Wire { connected: true, ..Wire::default() }));
    let below = Stream::layer(Pipe::new(Rc::clone(&wire)));
    let mut stream = WebSocketStream::upgraded(below, &config, Vec::new());
    let hello = frame(TEXT, true, b"hello");
    let mut buf = [0; 1000];
    let mut talk = || {
        wire.borrow_mut().inbound.extend(&hello);
        assert_eq!(stream.read(&mut buf).unwrap(), 6);
        stream.write_all(b"hello\n").unwrap();
        wire.borrow_mut().outbound.clear();
    };
    talk();
    let used = allocation_counter::measure(talk);
    assert_eq!((used.count_total, used.bytes_current), (0, 0));
}

#[test]
fn pings_are_answered_within_a_bound_and_the_last_one_in_any_case() {
    let (mut stream, wire) = open(Wire { room: Some(0), ..Wire::default() });
    let pings = 1000_u32;
    for number in 0..pings {
        let ping = [&number.to_be_bytes()[..], &[b'x'; 100]].concat();
        wire.borrow_mut().inbound.extend(frame(PING, true, &ping));
        assert!(stream.read(&mut [0; 500]).is_err());
        assert!(stream.kept() < FRAGMENT + 500, "{}", stream.kept());
    }
    assert_eq!(stream.take_cost().lines, pings as usize, "each costs a line");
    wire.borrow_mut().room = None;
    stream.flush().unwrap();
    assert_eq!(stream.kept(), 0);
    let pongs = frames(&wire.borrow().outbound);
    assert!(pongs.iter().all(|(opcode, ..)| *opcode == PONG) && pongs.len() < 200);
    assert_eq!(pongs.last().unwrap().2[..4], (pings - 1).to_be_bytes());
}

#[test]
fn the_close_frame_says_why() {
    let closed = |input: &[u8], why: Option<CloseReason>| {
        let (mut stream, wire) = open(Wire::default());
        wire.borrow_mut().inbound.extend(input);
        while stream.read(&mut [0; 100]).is_ok_and(|count| count > 0) {}
        why.into_iter().for_each(|why| stream.tell_why(why));
        stream.shutdown_write().unwrap();
        assert_eq!(stream.write(b"!").unwrap_err().kind(), ErrorKind::BrokenPipe);
        let (opcode, _, payload) = frames(&wire.borrow().outbound).pop().unwrap();
        assert_eq!(opcode, CLOSE);
        <[u8; 2]>::try_from(payload).map(|code| CloseCode::from(u16::from_be_bytes(code))).ok()
    };
    let error = Some(CloseReason::Error(ErrorKind::InvalidData));
    for (input, why, code) in [
        (&b""[..], None, Some(CloseCode::Normal)),
        (b"", Some(CloseReason::Closed), Some(CloseCode::Normal)),
        (b"", Some(CloseReason::Shutdown), Some(CloseCode::Away)),
        (b"", Some(CloseReason::LineTooLong), Some(CloseCode::Size)),
        (b"", Some(CloseReason::IdleTimeout), Some(CloseCode::Policy)),
        (b"", Some(CloseReason::LineTimeout), Some(CloseCode::Policy)),
        (b"", Some(CloseReason::Panicked), Some(CloseCode::Error)),
        (b"\x81\x00", error, Some(CloseCode::Protocol)),
        (&frame(TEXT, true, b"\xFF"), error, Some(CloseCode::Invalid)),
        (&frame(CLOSE, true, b""), Some(CloseReason::PeerClosed), None),
        (&frame(CLOSE, true, b"\x0F\xA0"), None, Some(CloseCode::Library(4000))),
    ] {
        assert_eq!(closed(input, why), code, "{input:x?} {why:?}");
    }
}

#[test]
fn a_message_is_unfinished_and_a_line_in_it_counts_anew() {
    let (mut stream, wire) = open(Wire::default());
    let mut hear = |bytes: &[u8], now| {
        wire.borrow_mut().inbound.extend(bytes);
        let _ = stream.read(&mut [0; 100]);
        stream.tell_time(now, false);
        stream.unfinished_since()
    };
    assert_eq!(hear(&frame(TEXT, false, b"one"), 1), Some(1));
    assert_eq!(hear(&frame(PING, true, b""), 2), Some(1), "a ping finishes nothing");
    assert_eq!(hear(&frame(MORE, false, b" line\ntwo"), 3), Some(3));
    assert_eq!(hear(&frame(MORE, true, b""), 4), None);
    assert_eq!(hear(&[0x81], 5), Some(5));
}
