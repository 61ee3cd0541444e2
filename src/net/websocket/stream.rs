//! Either end of WebSocket over another stream.

use std::io::{self, ErrorKind, Read, Write};

use tungstenite::protocol::frame::coding::CloseCode;

use super::handshake::Asking;
use super::opening::{Opening, Step};
use super::reading::{Asked, Decoder, Fault};
use super::writing::{Encoder, FRAGMENT};
use super::{NAME, Role, Spare, WebSocket};
use crate::connection::CloseReason;
use crate::connection::clock::Nanos;
use crate::connection::rate::Share;
use crate::net::Address;
use crate::net::http::{Head, response};
use crate::net::layer::{Layer, Opened};
use crate::net::stream::Stream;

/// A stream that speaks WebSocket over another one, as non-blocking as that is.
///
/// An idle one owns no buffer. Frames for some 16 KiB of output, and what answers pings, wait in here
/// for as long as the stream below does not take them.
pub(crate) struct WebSocketStream {
    pub(super) below: Stream,
    /// None once the handshake is done.
    opening: Option<Box<Opening>>,
    decoder: Decoder,
    encoder: Encoder,
    /// What the handshake has read too.
    pub(super) rest: Vec<u8>,
    /// The end of a line that the last read had no room for.
    lf: bool,
    /// Frames, of which the first `sent` bytes are out.
    pub(super) frames: Vec<u8>,
    sent: usize,
    /// What answers the last ping, if there was no room for that among the frames.
    pong: Option<Box<[u8]>>,
    spare: Spare,
    /// The last read gave nothing and there may be more all the same.
    more: bool,
    /// Something went out since this was last asked for.
    moved: bool,
    /// What came in since this was last asked for; each control frame costs a line.
    cost: Share,
    /// Since when the peer has owed the rest of a message, by the time that was told.
    since: Option<Nanos>,
    /// What is wrong with what came.
    fault: Option<Fault>,
    /// The close frame has been written.
    shut: bool,
    /// What the close frame is to say; that of the peer is said in return.
    why: CloseCode,
    answer: Option<Option<CloseCode>>,
    /// Why the stream below takes nothing any more.
    refused: Option<ErrorKind>,
}

impl WebSocketStream {
    /// Takes over a stream that was accepted.
    pub(super) fn server(below: Stream, config: &WebSocket) -> WebSocketStream {
        let step = Step::Request(Head::default(), config.clone());
        let opening = Opening::new(below.has_handshake(), step);
        WebSocketStream {
            opening: Some(Box::new(opening)),
            ..WebSocketStream::upgraded(below, config, Vec::new())
        }
    }

    /// Takes over a stream on which the handshake is done.
    pub(super) fn upgraded(below: Stream, config: &WebSocket, rest: Vec<u8>) -> WebSocketStream {
        let spare = config.spare.clone();
        WebSocketStream { rest, ..WebSocketStream::new(below, Role::Server, config.binary, spare) }
    }

    /// Takes over a stream that is being dialled.
    pub(super) fn client(
        below: Stream,
        address: &Address,
        path: &str,
        binary: bool,
    ) -> WebSocketStream {
        let (asking, request) = Asking::at(address, path);
        let opening = Opening::new(true, Step::Answer(asking, request));
        let stream = WebSocketStream::new(below, Role::Client, binary, Spare::default());
        WebSocketStream { opening: Some(Box::new(opening)), ..stream }
    }

    fn new(below: Stream, role: Role, binary: bool, spare: Spare) -> WebSocketStream {
        let peer = if role == Role::Server { Role::Client } else { Role::Server };
        WebSocketStream {
            below,
            opening: None,
            decoder: Decoder::new(peer, !binary),
            encoder: Encoder::new(role, !binary),
            rest: Vec::new(),
            lf: false,
            frames: Vec::new(),
            sent: 0,
            pong: None,
            spare,
            more: false,
            moved: false,
            cost: Share::default(),
            since: None,
            fault: None,
            shut: false,
            why: CloseCode::Normal,
            answer: None,
            refused: None,
        }
    }

    /// As `read`, with room for two bytes at the least.
    fn read_frames(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(fault) = self.fault {
            return Err(told(fault));
        }
        if self.decoder.is_closed() {
            return Ok(0);
        }
        // The decoded bytes need one in front at the most.
        let count = match &*self.rest {
            [] => self.below.read(&mut buf[1..])?,
            rest => {
                let count = rest.len().min(buf.len() - 1);
                buf[1..=count].copy_from_slice(&rest[..count]);
                self.rest.drain(..count);
                if self.rest.is_empty() {
                    self.rest = Vec::new();
                }
                count
            }
        };
        if count == 0 {
            let why = "it ended without a close frame of WebSocket";
            return Err(io::Error::new(ErrorKind::UnexpectedEof, why));
        }
        self.cost.bytes += count;
        let WebSocketStream { decoder, encoder, frames, spare, pong, cost, answer, shut, .. } =
            self;
        let (end, outcome) = decoder.decode(buf, 1..1 + count, 0, |asked| {
            cost.lines += 1;
            match asked {
                Asked::Close(code) => *answer = Some(code),
                Asked::Ping(_) if *shut => {}
                Asked::Ping(payload) if frames.len() < FRAGMENT => {
                    spare.lend(frames);
                    encoder.pong(payload, frames);
                }
                Asked::Ping(payload) => *pong = Some(payload.into()),
                Asked::Pong => {}
            }
        });
        self.fault = outcome.err();
        if !self.decoder.is_unfinished() || self.since.is_some() && buf[..end].contains(&b'\n') {
            self.since = None;
        }
        match self.fault {
            None if end == 0 && !self.decoder.is_closed() => {
                self.more = true;
                Err(ErrorKind::WouldBlock.into())
            }
            Some(fault) if end == 0 => Err(told(fault)),
            _ => Ok(end),
        }
    }

    /// Writes what waits.
    pub(super) fn push(&mut self) -> io::Result<()> {
        if let Some(kind) = self.refused {
            return Err(kind.into());
        }
        loop {
            while self.sent < self.frames.len() {
                let failed = match self.below.write(&self.frames[self.sent..]) {
                    Ok(0) => ErrorKind::WriteZero,
                    Ok(count) => {
                        self.sent += count;
                        self.moved = true;
                        continue;
                    }
                    Err(error) => error.kind(),
                };
                match failed {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => return Err(failed.into()),
                    _ => {
                        (self.refused, self.pong) = (Some(failed), None);
                        (self.frames, self.sent) = (Vec::new(), 0);
                        return Err(failed.into());
                    }
                }
            }
            self.sent = 0;
            self.spare.take_back(&mut self.frames);
            match self.pong.take().filter(|_| !self.shut) {
                Some(payload) => self.encoder.pong(&payload, &mut self.frames),
                // A layer below may hold some of it back.
                None => return self.below.flush(),
            }
        }
    }
}

/// The error that tells of it.
fn told(fault: Fault) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, fault.to_string())
}

/// What tells a peer why it is closed.
fn code_for(reason: CloseReason) -> CloseCode {
    match reason {
        CloseReason::Shutdown => CloseCode::Away,
        CloseReason::Upgrade => CloseCode::Restart,
        CloseReason::LineTooLong => CloseCode::Size,
        CloseReason::LineTimeout
        | CloseReason::IdleTimeout
        | CloseReason::SlowConsumer
        | CloseReason::TotalOutput
        | CloseReason::TotalInput
        | CloseReason::Stalled
        | CloseReason::Administrator => CloseCode::Policy,
        CloseReason::Error(_) | CloseReason::Panicked => CloseCode::Error,
        _ => CloseCode::Normal,
    }
}

impl Layer for WebSocketStream {
    fn below(&self) -> Option<&Stream> {
        Some(&self.below)
    }

    fn below_mut(&mut self) -> Option<&mut Stream> {
        Some(&mut self.below)
    }

    fn has_handshake(&self) -> bool {
        true
    }

    fn handshaking(&self) -> Option<&'static str> {
        self.below.handshaking().or(self.opening.as_ref().map(|_| NAME))
    }

    fn handshake(&mut self, now: Nanos, spent: &mut Nanos) -> io::Result<Option<Opened>> {
        let Some(mut opening) = self.opening.take() else { return Ok(Some(Opened::default())) };
        let done = self.open(&mut opening, now, spent);
        if let Ok(true) = done {
            return Ok(Some(Opened { peer: opening.below.peer, instead: None }));
        }
        self.opening = Some(opening);
        done.map(|_| None)
    }

    fn may_read_short(&self) -> bool {
        true
    }

    fn has_more(&self) -> bool {
        self.more || self.below.has_more()
    }

    fn has_unread(&mut self) -> bool {
        self.lf || !self.rest.is_empty() || self.below.has_unread()
    }

    fn read_raw(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.rest = Vec::new();
        self.below.raw().read(buf)
    }

    /// That is what a close frame is for.
    fn announces_end(&self) -> bool {
        true
    }

    fn take_cost(&mut self) -> Share {
        let (own, below) = (std::mem::take(&mut self.cost), self.below.take_cost());
        Share { lines: own.lines + below.lines, bytes: own.bytes.max(below.bytes) }
    }

    fn unfinished_since(&self) -> Option<Nanos> {
        // If the stream below has begun something, this layer may not have seen any of it.
        self.since.into_iter().chain(self.below.unfinished_since()).min()
    }

    fn tell_time(&mut self, now: Nanos, anew: bool) {
        if self.decoder.is_unfinished() && (anew || self.since.is_none()) {
            self.since = Some(now);
        }
        self.below.tell_time(now, anew);
    }

    fn kept(&self) -> usize {
        let opening = self.opening.as_ref().map_or(0, |opening| opening.bytes.capacity());
        let pong = self.pong.as_ref().map_or(0, |payload| payload.len());
        let unsent = self.frames.len() - self.sent;
        opening + self.rest.len() + self.decoder.kept() + pong + unsent + self.below.kept()
    }

    fn unsent(&self) -> bool {
        self.refused.is_none() && (self.sent < self.frames.len() || self.below.unsent())
    }

    fn take_moved(&mut self) -> bool {
        // Both are to be asked.
        std::mem::take(&mut self.moved) | self.below.take_moved()
    }

    fn tell_why(&mut self, reason: CloseReason) {
        self.why = code_for(reason);
        self.below.tell_why(reason);
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        if !self.shut {
            self.shut = true;
            self.spare.lend(&mut self.frames);
            self.encoder.finish(&mut self.frames);
            let why = self.fault.map_or(self.why, Fault::code);
            self.encoder.close(self.answer.unwrap_or(Some(why)), &mut self.frames);
        }
        self.push()?;
        self.below.shutdown_write()
    }

    /// In front of the handshake it is told in HTTP, which costs nothing; behind it, in a message.
    fn turn_away(&mut self, notice: &[u8]) {
        match &self.opening {
            Some(opening) if matches!(opening.step, Step::Request(..)) => {
                let headers =
                    [("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close")];
                self.below.turn_away(&response(503, &headers, notice));
            }
            Some(_) => self.below.turn_away(b""),
            None => {
                self.why = CloseCode::Again;
                let _ = self.write(notice);
                let _ = self.shutdown_write();
                let _ = self.below.raw().read(&mut [0; 4096]);
            }
        }
    }
}

/// What messages hold; 0 after the peer's close frame. An end of the stream below without that is
/// `UnexpectedEof`.
impl Read for WebSocketStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.more = false;
        match buf {
            [] => Ok(0),
            [first, ..] if self.lf => {
                (self.lf, *first) = (false, b'\n');
                Ok(1)
            }
            [only] => {
                let mut two = [0; 2];
                let count = self.read_frames(&mut two)?;
                (self.lf, *only) = (count == 2, two[0]);
                Ok(count.min(1))
            }
            buf => self.read_frames(buf),
        }
    }
}

impl Write for WebSocketStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.shut {
            return Err(ErrorKind::BrokenPipe.into());
        }
        // While something waits nothing more is taken, so that what waits is bounded.
        self.push()?;
        self.spare.lend(&mut self.frames);
        let count = self.encoder.put(buf, &mut self.frames);
        match self.push() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(count),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}
