use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};

use super::{BUFFER, Rest, Table, resend, send};
use crate::protocol::{GREETING, without_cr};
use crate::sys;

struct Conn {
    fd: OwnedFd,
    rest: Option<Box<Rest>>,
}

/// The buffers that all connections share.
struct Buffers {
    input: Vec<u8>,
    output: Replies,
}

/// Replies are written over earlier ones, so that none has to ask for room.
struct Replies {
    room: Vec<u8>,
    len: usize,
}

pub(super) fn run(epoll: &sys::Epoll, listener: &TcpListener) -> io::Result<()> {
    let mut conns = Table::new();
    // Room for the replies to the worst input: an empty line becomes three bytes, and no letter
    // more than three times as long in upper case.
    let output = Replies { room: vec![0; 4 * BUFFER], len: 0 };
    let mut buffers = Buffers { input: vec![0; BUFFER], output };
    let mut events = sys::events();
    loop {
        for event in epoll.wait(&mut events, -1)? {
            let (fd, happened) = (event.u64 as usize, event.events);
            if fd == listener.as_raw_fd() as usize {
                while let Ok(fd) = sys::accept(listener.as_raw_fd()) {
                    // A greeting always fits into a new socket.
                    let _ = sys::write(fd.as_raw_fd(), GREETING.as_bytes());
                    epoll.add(fd.as_raw_fd(), sys::BOTH, fd.as_raw_fd() as u64)?;
                    conns.put(fd, |fd| Conn { fd, rest: None });
                }
            } else if let Some(conn) = &mut conns.0[fd]
                && !conn.serve(happened, &mut buffers).unwrap_or(false)
            {
                conns.0[fd] = None;
            }
        }
    }
}

impl Conn {
    /// Whether it stays.
    fn serve(&mut self, happened: u32, buffers: &mut Buffers) -> io::Result<bool> {
        if self.rest.is_some() {
            if !resend(&self.fd, &mut self.rest)? {
                return Ok(true);
            }
            if self.rest.as_ref().is_some_and(|rest| rest.closing) {
                return Ok(false);
            }
        }
        loop {
            let kept = match &mut self.rest {
                Some(rest) => {
                    let kept = rest.input.len();
                    buffers.input[..kept].copy_from_slice(&rest.input);
                    rest.input.clear();
                    kept
                }
                None => 0,
            };
            let room = BUFFER - kept;
            let (count, ended) = match sys::read(self.fd.as_raw_fd(), &mut buffers.input[kept..]) {
                Ok(0) if room == 0 => return Ok(false),
                Ok(0) => (0, true),
                Ok(count) => (count, false),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.keep(&buffers.input[..kept]);
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
            let bytes = &buffers.input[..kept + count];
            let replies = &mut buffers.output;
            replies.len = 0;
            let (taken, mut bye) = answer(bytes, replies);
            let left = &bytes[taken..];
            if ended && !left.is_empty() && !bye {
                replies.put_any(without_cr(left));
            }
            bye |= ended;
            if !bye && !left.is_empty() {
                self.keep(left);
            }
            let replies = &replies.room[..replies.len];
            if !replies.is_empty() && !send(&self.fd, replies, &mut self.rest)? {
                self.rest.get_or_insert_default().closing = bye;
                return Ok(true);
            }
            if bye {
                return Ok(false);
            }
            if count < room && happened & sys::ENDING == 0 {
                return Ok(true);
            }
        }
    }

    fn keep(&mut self, left: &[u8]) {
        if !left.is_empty() {
            self.rest.get_or_insert_default().input = left.to_vec();
        }
    }
}

/// Answers the complete lines; says how many bytes they were, and whether the last was BYE.
fn answer(bytes: &[u8], replies: &mut Replies) -> (usize, bool) {
    let ascii = bytes.is_ascii();
    let mut start = 0;
    while let Some(len) = sys::newline(&bytes[start..]) {
        let text = without_cr(&bytes[start..start + len]);
        start += len + 1;
        if ascii {
            replies.put(text);
        } else {
            replies.put_any(text);
        }
        if text.eq_ignore_ascii_case(b"BYE") {
            return (start, true);
        }
    }
    (start, false)
}

impl Replies {
    /// In what is not UTF-8, only ASCII letters change.
    #[cold]
    fn put_any(&mut self, text: &[u8]) {
        match str::from_utf8(text) {
            Ok(text) => self.put(text.to_uppercase().as_bytes()),
            Err(_) => self.put(text),
        }
    }

    /// Copies and changes in one pass.
    #[inline(always)]
    fn put(&mut self, text: &[u8]) {
        let reply = &mut self.room[self.len..][..text.len() + 3];
        self.len += reply.len();
        reply[..2].copy_from_slice(b"> ");
        for (to, from) in reply[2..].iter_mut().zip(text) {
            *to = from.to_ascii_uppercase();
        }
        reply[text.len() + 2] = b'\n';
    }
}
