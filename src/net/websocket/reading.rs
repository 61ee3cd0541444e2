//! Frames to bytes: decoded as a stream, in the buffer that they were read into.

use std::fmt;
use std::io::Cursor;
use std::ops::Range;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::Role;

/// What a control frame may carry.
pub(super) const LONGEST_CONTROL: usize = 125;

/// The longest header: two bytes, eight of length, four of mask.
const LONGEST_HEADER: usize = 14;

/// Decodes one direction of a connection. It keeps nothing of a message: only a header that is
/// unfinished, where in the mask it is, what the UTF-8 is in the middle of, and a control frame
/// that is unfinished, which has 125 bytes at the most.
pub(super) struct Decoder {
    /// Whose frames these are.
    from: Role,
    /// Messages are lines; else they are bytes as they come.
    lines: bool,
    /// What has come of a header, and how much that is.
    header: ([u8; LONGEST_HEADER], u8),
    frame: Option<Frame>,
    /// What the message under way holds; none between messages.
    message: Option<Data>,
    utf8: Utf8,
    /// The line under way is to be ended with the message.
    owes_lf: bool,
    /// What has come of a control frame's payload.
    control: Vec<u8>,
    /// The peer has ended its side.
    closed: bool,
}

/// The frame whose payload is under way.
struct Frame {
    opcode: OpCode,
    is_final: bool,
    /// The mask, turned so that its first byte is for the next byte.
    mask: [u8; 4],
    /// How many bytes of payload are to come.
    left: u64,
}

/// What is wrong with what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It breaks this rule of RFC 6455.
    Protocol(&'static str),
    NotUtf8,
}

/// A control frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    Ping(&'a [u8]),
    Pong,
    /// The peer ends its side, with this code if it gives one.
    Close(Option<CloseCode>),
}

impl Fault {
    pub(super) fn code(self) -> CloseCode {
        match self {
            Fault::Protocol(_) => CloseCode::Protocol,
            Fault::NotUtf8 => CloseCode::Invalid,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Protocol(why) => write!(f, "it does not keep to WebSocket: {why}"),
            Fault::NotUtf8 => f.write_str("a WebSocket text message that is not UTF-8"),
        }
    }
}

impl Decoder {
    pub(super) fn new(from: Role, lines: bool) -> Decoder {
        Decoder {
            from,
            lines,
            header: ([0; LONGEST_HEADER], 0),
            frame: None,
            message: None,
            utf8: Utf8::default(),
            owes_lf: false,
            control: Vec::new(),
            closed: false,
        }
    }

    /// Whether the peer has ended its side. What comes after that is nothing.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the peer owes the rest of what it has begun. What is not lines need not end.
    pub(super) fn is_unfinished(&self) -> bool {
        let control = self.frame.as_ref().is_some_and(|it| matches!(it.opcode, OpCode::Control(_)));
        let message = self.lines && (self.frame.is_some() || self.message.is_some());
        self.header.1 > 0 || control || message
    }

    /// How much memory it takes.
    pub(super) fn kept(&self) -> usize {
        self.control.capacity()
    }

    /// Decodes the bytes of `buf` in `raw` and leaves what they hold in front, behind the first `to`
    /// bytes. Gives where that ends. `raw` begins at least one byte behind `to`: the end of a line
    /// may need it. Of control frames `asked` is told.
    pub(super) fn decode(
        &mut self,
        buf: &mut [u8],
        raw: Range<usize>,
        to: usize,
        mut asked: impl FnMut(Asked<'_>),
    ) -> (usize, Result<(), Fault>) {
        let (mut at, mut to) = (raw.start, to);
        while at < raw.end && !self.closed {
            let Some(frame) = &mut self.frame else {
                match self.begin_frame(&buf[at..raw.end]) {
                    Ok(count) => at += count,
                    Err(fault) => return (to, Err(fault)),
                }
                if self.frame.as_ref().is_some_and(|frame| frame.left == 0)
                    && let Err(fault) = self.end_frame(buf, &mut to, &mut asked)
                {
                    return (to, Err(fault));
                }
                continue;
            };
            let count = frame.left.min((raw.end - at) as u64) as usize;
            frame.left -= count as u64;
            let (mask, done) = (frame.mask, frame.left == 0);
            frame.mask.rotate_left(count % 4);
            let outcome = if let OpCode::Control(_) = frame.opcode {
                let payload = &mut buf[at..at + count];
                apply_mask(payload, mask);
                self.control.extend_from_slice(payload);
                Ok(())
            } else {
                buf.copy_within(at..at + count, to);
                let payload = &mut buf[to..to + count];
                apply_mask(payload, mask);
                to += count;
                self.look_at(payload)
            };
            at += count;
            let outcome = match outcome {
                Ok(()) if done => self.end_frame(buf, &mut to, &mut asked),
                outcome => outcome,
            };
            if let Err(fault) = outcome {
                return (to, Err(fault));
            }
        }
        (to, Ok(()))
    }

    /// Takes what there is of a header; gives how much that is.
    fn begin_frame(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let (header, had) = (&mut self.header.0, self.header.1 as usize);
        let more = bytes.len().min(LONGEST_HEADER - had);
        header[had..had + more].copy_from_slice(&bytes[..more]);
        let mut cursor = Cursor::new(&header[..had + more]);
        let Some((parsed, length)) = FrameHeader::parse(&mut cursor)
            .map_err(|_| Fault::Protocol("an opcode that is not known"))?
        else {
            self.header.1 = (had + more) as u8;
            return Ok(more);
        };
        let used = cursor.position() as usize;
        self.header.1 = 0;
        self.check(&parsed, length, used)?;
        self.frame = Some(Frame {
            opcode: parsed.opcode,
            is_final: parsed.is_final,
            mask: parsed.mask.unwrap_or_default(),
            left: length,
        });
        if let OpCode::Data(kind @ (Data::Text | Data::Binary)) = parsed.opcode {
            (self.message, self.owes_lf) = (Some(kind), true);
        }
        Ok(used - had)
    }

    fn check(&self, header: &FrameHeader, length: u64, size: usize) -> Result<(), Fault> {
        let is_control = matches!(header.opcode, OpCode::Control(_));
        let continues = header.opcode == OpCode::Data(Data::Continue);
        let wrong = if header.rsv1 || header.rsv2 || header.rsv3 {
            "a reserved bit is set"
        } else if header.mask.is_some() != (self.from == Role::Client) {
            "clients mask their frames, and servers do not"
        } else if size != header.len(length) || length > i64::MAX as u64 {
            "a length is not written as it should be"
        } else if is_control && !header.is_final {
            "a control frame in fragments"
        } else if is_control && length > LONGEST_CONTROL as u64 {
            "a control frame of more than 125 bytes"
        } else if continues && self.message.is_none() {
            "a message begins with its second fragment"
        } else if !continues && !is_control && self.message.is_some() {
            "a message begins before the last one has ended"
        } else {
            return Ok(());
        };
        Err(Fault::Protocol(wrong))
    }

    /// Looks at bytes of the message under way, which are handed on as they are.
    fn look_at(&mut self, payload: &[u8]) -> Result<(), Fault> {
        if let Some(last) = payload.last() {
            self.owes_lf = *last != b'\n';
        }
        match self.message {
            Some(Data::Text) => self.utf8.check(payload),
            _ => Ok(()),
        }
    }

    /// Does what a frame asks for that is whole.
    fn end_frame(
        &mut self,
        buf: &mut [u8],
        to: &mut usize,
        asked: &mut impl FnMut(Asked<'_>),
    ) -> Result<(), Fault> {
        let Some(Frame { opcode, is_final, .. }) = self.frame.take() else { return Ok(()) };
        match opcode {
            OpCode::Control(kind) => {
                let payload = std::mem::take(&mut self.control);
                match kind {
                    Control::Ping => asked(Asked::Ping(&payload)),
                    Control::Close => {
                        let code = close_code(&payload)?;
                        self.closed = true;
                        asked(Asked::Close(code));
                    }
                    Control::Pong | Control::Reserved(_) => asked(Asked::Pong),
                }
            }
            OpCode::Data(_) if is_final => {
                let text = self.message.take() == Some(Data::Text);
                if text && !self.utf8.is_whole() {
                    return Err(Fault::NotUtf8);
                }
                if self.lines && self.owes_lf {
                    buf[*to] = b'\n';
                    *to += 1;
                }
            }
            OpCode::Data(_) => {}
        }
        Ok(())
    }
}

/// What a close frame says.
fn close_code(payload: &[u8]) -> Result<Option<CloseCode>, Fault> {
    match payload {
        [] => Ok(None),
        [_] => Err(Fault::Protocol("a close frame with half a code")),
        [high, low, reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            if !code.is_allowed() {
                return Err(Fault::Protocol("a close frame with a code that is not for use"));
            }
            match std::str::from_utf8(reason) {
                Ok(_) => Ok(Some(code)),
                Err(_) => Err(Fault::NotUtf8),
            }
        }
    }
}

/// Masks, or takes the mask away.
pub(super) fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let both = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (blocks, rest) = bytes.as_chunks_mut::<8>();
    for block in blocks {
        *block = (u64::from_ne_bytes(*block) ^ both).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Whether bytes are UTF-8, however they are cut: what is kept is a character that is unfinished.
#[derive(Default)]
struct Utf8 {
    begun: [u8; 4],
    len: usize,
}

impl Utf8 {
    fn is_whole(&self) -> bool {
        self.len == 0
    }

    fn check(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while self.len > 0
            && let [next, rest @ ..] = bytes
        {
            self.begun[self.len] = *next;
            self.len += 1;
            bytes = rest;
            match std::str::from_utf8(&self.begun[..self.len]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Fault::NotUtf8),
            }
        }
        let Err(error) = std::str::from_utf8(bytes) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(Fault::NotUtf8);
        }
        let begun = &bytes[error.valid_up_to()..];
        self.begun[..begun.len()].copy_from_slice(begun);
        self.len = begun.len();
        Ok(())
    }
}
