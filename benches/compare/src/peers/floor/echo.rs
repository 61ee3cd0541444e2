use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};

use memchr::memchr_iter;

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
    output: Vec<u8>,
}

pub(super) fn run(epoll: &sys::Epoll, listener: &TcpListener) -> io::Result<()> {
    let mut conns = Table::new();
    // Room for the replies to the worst input, empty lines.
    let mut buffers = Buffers { input: vec![0; BUFFER], output: Vec::with_capacity(4 * BUFFER) };
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
            // One pass over all of it, not one for each line: with what is not UTF-8, only ASCII
            // letters change, and with what is, they change alike.
            let bytes = &mut buffers.input[..kept + count];
            bytes[kept..].make_ascii_uppercase();
            buffers.output.clear();
            let (taken, mut bye) = answer(bytes, &mut buffers.output);
            let left = &bytes[taken..];
            if ended && !left.is_empty() && !bye {
                line(without_cr(left), &mut buffers.output);
            }
            bye |= ended;
            if !bye && !left.is_empty() {
                self.keep(left);
            }
            if !buffers.output.is_empty() && !send(&self.fd, &buffers.output, &mut self.rest)? {
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
fn answer(bytes: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
    let ascii = bytes.is_ascii();
    let mut start = 0;
    for end in memchr_iter(b'\n', bytes) {
        let text = without_cr(&bytes[start..end]);
        start = end + 1;
        if ascii {
            out.extend_from_slice(b"> ");
            out.extend_from_slice(text);
            out.push(b'\n');
        } else {
            line(text, out);
        }
        if text == b"BYE" {
            return (start, true);
        }
    }
    (start, false)
}

fn line(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"> ");
    match str::from_utf8(text) {
        Ok(text) => out.extend_from_slice(text.to_uppercase().as_bytes()),
        Err(_) => out.extend_from_slice(text),
    }
    out.push(b'\n');
}
