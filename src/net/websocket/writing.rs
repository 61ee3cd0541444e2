//! Bytes to frames: a line is a text message.

use std::io::BufRead;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::Role;
use super::reading::apply_mask;

/// A long line goes out in fragments of this size, so that it needs no room as a whole.
pub(super) const FRAGMENT: usize = 16 * 1024;

/// Encodes one direction of a connection. It keeps nothing of a line but what cannot be judged yet:
/// a CR that an LF may follow, or up to three bytes of a character.
pub(super) struct Encoder {
    /// Who writes these frames.
    role: Role,
    /// Lines are messages; else what comes is.
    lines: bool,
    /// The first fragment of a message has been written, and not the last.
    begun: bool,
    undecided: ([u8; 3], u8),
}

impl Encoder {
    pub(super) fn new(role: Role, lines: bool) -> Encoder {
        Encoder { role, lines, begun: false, undecided: ([0; 3], 0) }
    }

    /// Appends frames for a prefix of the bytes, and gives how long that is. It ends once there are
    /// [`FRAGMENT`] bytes of frames.
    pub(super) fn put(&mut self, bytes: &[u8], frames: &mut Vec<u8>) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && frames.len() < FRAGMENT {
            let rest = &bytes[taken..];
            let mut piece = &rest[..rest.len().min(FRAGMENT)];
            if !self.lines {
                self.frame(OpCode::Data(Data::Binary), true, piece, frames);
                taken += piece.len();
                continue;
            }
            // A slice never fails to be read.
            let length = (&mut &*piece).skip_until(b'\n').unwrap_or(piece.len());
            piece = &piece[..length];
            taken += length;
            match piece.strip_suffix(b"\n") {
                Some(line) => self.put_text(line, true, frames),
                None => self.put_text(piece, false, frames),
            }
        }
        taken
    }

    /// Appends what ends a message that is unfinished, if there is one.
    pub(super) fn finish(&mut self, frames: &mut Vec<u8>) {
        if self.begun || self.undecided.1 > 0 {
            self.put_text(b"", true, frames);
        }
    }

    pub(super) fn pong(&self, payload: &[u8], frames: &mut Vec<u8>) {
        self.frame(OpCode::Control(Control::Pong), true, payload, frames);
    }

    pub(super) fn close(&self, code: Option<CloseCode>, frames: &mut Vec<u8>) {
        let code = code.map(|code| u16::from(code).to_be_bytes());
        let payload = code.as_ref().map_or(&[][..], |code| code);
        self.frame(OpCode::Control(Control::Close), true, payload, frames);
    }

    /// Writes the next piece of a line; with `ends` it is the last one.
    fn put_text(&mut self, piece: &[u8], ends: bool, frames: &mut Vec<u8>) {
        let (undecided, count) = std::mem::take(&mut self.undecided);
        let joined;
        let mut piece = match count {
            0 => piece,
            _ => {
                joined = [&undecided[..count as usize], piece].concat();
                &joined
            }
        };
        if ends {
            piece = piece.strip_suffix(b"\r").unwrap_or(piece);
        } else {
            let (decided, rest) = piece.split_at(piece.len() - undecided_at_end(piece));
            self.undecided.0[..rest.len()].copy_from_slice(rest);
            self.undecided.1 = rest.len() as u8;
            piece = decided;
            if piece.is_empty() {
                return;
            }
        }
        let kind = if self.begun { Data::Continue } else { Data::Text };
        let text = String::from_utf8_lossy(piece);
        self.frame(OpCode::Data(kind), ends, text.as_bytes(), frames);
        self.begun = !ends;
    }

    fn frame(&self, opcode: OpCode, is_final: bool, payload: &[u8], frames: &mut Vec<u8>) {
        let mask = (self.role == Role::Client).then(rand::random::<[u8; 4]>);
        let header = FrameHeader { opcode, is_final, mask, ..FrameHeader::default() };
        // A vector takes all that it is given.
        let _ = header.format(payload.len() as u64, frames);
        let start = frames.len();
        frames.extend_from_slice(payload);
        if let Some(mask) = mask {
            apply_mask(&mut frames[start..], mask);
        }
    }
}

/// How many bytes at the end have a meaning only with those that follow: a CR, or the beginning of
/// a character.
fn undecided_at_end(piece: &[u8]) -> usize {
    if piece.ends_with(b"\r") {
        return 1;
    }
    for len in 1..=piece.len().min(3) {
        let end = &piece[piece.len() - len..];
        // It begins a character.
        if end[0] >= 0xC0 {
            let cut = std::str::from_utf8(end).err().filter(|error| error.valid_up_to() == 0);
            return if cut.is_some_and(|error| error.error_len().is_none()) { len } else { 0 };
        }
        if end[0] < 0x80 {
            return 0;
        }
    }
    0
}
