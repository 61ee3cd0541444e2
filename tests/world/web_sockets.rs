//! A client's end of WebSocket, whose messages carry bytes as they come. It writes and reads frames by
//! the RFC, and not with the code under test.

use std::collections::VecDeque;

use super::Choices;
use super::frames::{self, BINARY, CLOSE, CONTINUATION, PING, PONG};

/// With what codes the loop may close.
const CODES: [u16; 5] = [1000, 1001, 1008, 1009, 1011];

#[derive(Default)]
pub struct WebSocketClient {
    /// What is to be sent.
    queue: VecDeque<Sent>,
    /// The last frame was not the last of its message.
    in_message: bool,
    /// What has come and is no whole frame, or no whole answer.
    came: Vec<u8>,
    /// The answer to the request has come.
    accepted: bool,
    /// What its pings said that were not answered.
    pings: VecDeque<Vec<u8>>,
    closed: bool,
}

/// One byte on the wire.
struct Sent {
    byte: u8,
    /// What it stands for, in a payload.
    means: Option<u8>,
    /// More of its message is to come.
    owes: bool,
}

impl WebSocketClient {
    /// The request that comes first.
    pub fn request(choices: &mut Choices) -> Vec<u8> {
        let mut request = frames::request("localhost", "/");
        let length = choices.size(300, 2_000);
        let more = format!("X-More: {}\r\n\r\n", "x".repeat(length));
        request.truncate(request.len() - 2);
        (request + &more).into()
    }

    /// Whether something of a message was not sent yet.
    pub fn has_rest(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Puts it into frames of any size, pings in between. What `ends` leaves no message unfinished.
    pub fn say(&mut self, mut words: &[u8], ends: bool, choices: &mut Choices) {
        while !words.is_empty() || ends && self.in_message {
            while choices.once_in(6) {
                let length = choices.size(30, 125);
                let mut payload = choices.text(length);
                payload.truncate(125);
                if choices.once_in(2) {
                    self.pings.push_back(payload.clone());
                    self.put(true, PING, &payload, choices);
                } else {
                    self.put(true, PONG, &payload, choices);
                }
            }
            // Some frames are empty.
            let most = if choices.once_in(9) { 0 } else { 1 + choices.size(130, 70_000) };
            let (piece, rest) = words.split_at(words.len().min(most));
            words = rest;
            let opcode = if self.in_message { CONTINUATION } else { BINARY };
            let last = words.is_empty() && ends || choices.once_in(2);
            self.in_message = !last;
            self.put(last, opcode, piece, choices);
        }
    }

    /// Ends its side.
    pub fn close(&mut self, choices: &mut Choices) {
        self.in_message = false;
        let code = 1000_u16.to_be_bytes();
        self.put(true, CLOSE, choices.one_of(&[&[][..], &code]), choices);
    }

    fn put(&mut self, last: bool, opcode: u8, payload: &[u8], choices: &mut Choices) {
        let mask = [0; 4].map(|_: u8| choices.below(256) as u8);
        let bytes = frames::frame(last, opcode, Some(mask), payload);
        let header = bytes.len() - payload.len();
        let data = matches!(opcode, BINARY | CONTINUATION);
        for (at, byte) in bytes.iter().enumerate() {
            let means = at.checked_sub(header).map(|at| payload[at]).filter(|_| data);
            let owes = self.in_message || at + 1 < bytes.len();
            self.queue.push_back(Sent { byte: *byte, means, owes });
        }
    }

    /// Sends so many bytes at the most; gives them, what they mean, and whether more is owed then.
    pub fn send(&mut self, most: usize) -> (Vec<u8>, Vec<u8>, bool) {
        let sent: Vec<_> = self.queue.drain(..self.queue.len().min(most)).collect();
        let owes = sent.last().is_some_and(|sent| sent.owes);
        let means = sent.iter().filter_map(|sent| sent.means).collect();
        (sent.iter().map(|sent| sent.byte).collect(), means, owes)
    }

    /// What has come means this.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        self.came.extend(bytes);
        if !self.accepted {
            let end = self.came.windows(4).position(|four| four == b"\r\n\r\n");
            let Some(end) = end else { return Ok(Vec::new()) };
            let answer = String::from_utf8_lossy(&self.came[..end]);
            if !answer.starts_with(frames::ACCEPTED) || !answer.contains(frames::ACCEPT) {
                return Err(format!("was answered {answer:?}"));
            }
            self.came.drain(..end + 4);
            self.accepted = true;
        }
        let mut means = Vec::new();
        while let Some(frame) = frames::take(&mut self.came) {
            let code = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            match frame.opcode {
                _ if self.closed || frame.masked => return Err(format!("got {frame:?}")),
                BINARY | CONTINUATION => means.extend(frame.payload),
                // Only the last ping need be answered.
                PONG => match self.pings.iter().position(|ping| *ping == frame.payload) {
                    Some(at) => _ = self.pings.drain(..=at),
                    None => return Err(format!("got {frame:?}, and did not ask for it")),
                },
                CLOSE if code.is_none_or(|code| CODES.contains(&code)) => self.closed = true,
                _ => return Err(format!("got {frame:?}")),
            }
        }
        Ok(means)
    }
}
