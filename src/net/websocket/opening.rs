//! The handshake of the layer, step by step.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;

use super::handshake::{Asking, Refusal};
use super::{WebSocket, WebSocketStream};
use crate::connection::clock::Nanos;
use crate::net::http::{Head, MAX_HEAD};

/// Reads of a layer below that may give none of a head although there is more: each is some 16 KiB.
const FRUITLESS_READS: u8 = 16;

/// What one that is refused may go on sending before it is cut off.
const UNHEARD: usize = 64 * 1024;

/// A handshake under way.
pub(super) struct Opening {
    /// The handshake of the stream below is not done.
    pub(super) below: bool,
    /// What that handshake says of the peer.
    pub(super) peer: Option<SocketAddr>,
    /// How many reads of a layer below have given nothing although it had more.
    pub(super) fruitless: u8,
    /// What has come of the head.
    pub(super) bytes: Vec<u8>,
    pub(super) step: Step,
}

pub(super) enum Step {
    /// A server waits for a request, which it accepts like this.
    Request(Head, WebSocket),
    /// A client sends its request, and waits for the answer.
    Answer(Asking, Vec<u8>),
    /// The answer goes out.
    Accepted,
    /// The answer goes out, and what comes meanwhile, so many bytes by now, is thrown away.
    Refused(Refusal, usize),
}

impl WebSocketStream {
    /// Moves the handshakes on; true when they are done.
    pub(super) fn open(
        &mut self,
        opening: &mut Opening,
        now: Nanos,
        spent: &mut Nanos,
    ) -> io::Result<bool> {
        if opening.below {
            let Some(opened) = self.below.handshake(now, spent)? else { return Ok(false) };
            (opening.below, opening.peer) = (false, opened.peer);
        }
        // It computes no longer than a few system calls take, so that is not measured.
        self.shake_hands(opening)
    }

    /// Moves WebSocket's own handshake on; true when it is done.
    fn shake_hands(&mut self, opening: &mut Opening) -> io::Result<bool> {
        loop {
            match self.step(opening) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if is_passing(&error) => {}
                Ok(false) => {}
                outcome => return outcome,
            }
        }
    }

    fn step(&mut self, opening: &mut Opening) -> io::Result<bool> {
        self.push()?;
        let mut buf = [0; 4096];
        match &mut opening.step {
            Step::Accepted => return Ok(true),
            Step::Refused(why, unheard) => {
                // To close it at once would be a reset if more comes, which destroys the answer.
                let shut = self.below.shutdown_write();
                return match shut.and_then(|()| self.below.raw().read(&mut buf)) {
                    Ok(count @ 1..) if *unheard < UNHEARD => {
                        *unheard += count;
                        Ok(false)
                    }
                    Err(error) if is_passing(&error) => Err(error),
                    _ => Err((*why).into()),
                };
            }
            Step::Answer(_, request) if !request.is_empty() => {
                self.frames = std::mem::take(request);
                return Ok(false);
            }
            Step::Request(..) | Step::Answer(..) => {}
        }
        // Not above what a head may have.
        let room = buf.len().min(MAX_HEAD - opening.bytes.len());
        match self.below.read(&mut buf[..room]) {
            Ok(0) => return Err(opening.cut_short()),
            Ok(count) => opening.bytes.extend_from_slice(&buf[..count]),
            // No event follows. One that has come so often with nothing waits for its timeout.
            Err(_) if self.below.has_more() && opening.fruitless < FRUITLESS_READS => {
                opening.fruitless += 1;
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        self.look_at_head(opening)?;
        Ok(false)
    }

    /// Looks whether the head is there, and does what it says.
    fn look_at_head(&mut self, opening: &mut Opening) -> io::Result<()> {
        let Opening { bytes, step, .. } = opening;
        let length = match step {
            Step::Request(head, config) => {
                let answered = match head.parse(bytes) {
                    Ok(None) => return Ok(()),
                    Ok(Some((request, length))) => {
                        config.answer(&request).map(|upgrade| (upgrade, length))
                    }
                    Err(bad) => Err(Refusal::Bad(bad)),
                };
                match answered {
                    Ok((upgrade, length)) => {
                        self.frames = upgrade.response();
                        *step = Step::Accepted;
                        length
                    }
                    Err(why) => {
                        self.frames = why.response();
                        *step = Step::Refused(why, 0);
                        bytes.len()
                    }
                }
            }
            Step::Answer(asking, _) => match asking.check(bytes)? {
                Some(length) => {
                    *step = Step::Accepted;
                    length
                }
                None if bytes.len() < MAX_HEAD => return Ok(()),
                None => {
                    let why = "its answer has a head above 8 KiB";
                    return Err(io::Error::new(ErrorKind::InvalidData, why));
                }
            },
            Step::Accepted | Step::Refused(..) => return Ok(()),
        };
        self.rest = bytes[length..].to_vec();
        *bytes = Vec::new();
        Ok(())
    }
}

impl Opening {
    /// Why the peer ended it before it began.
    fn cut_short(&self) -> io::Error {
        let why = match self.step {
            Step::Answer(..) => {
                "it ended the connection during the handshake; does it speak WebSocket?"
            }
            _ => "it ended the connection before its request was there",
        };
        io::Error::new(ErrorKind::UnexpectedEof, why)
    }
}

/// Whether it will do later, or if tried again.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
