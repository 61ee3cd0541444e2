use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use memchr::memchr_iter;

use super::{BUFFER, MOST_UNSENT, Rest, Table, resend, send};
use crate::protocol::{ANONYMOUS, ARRIVED, HINT, WELCOME, command, name, saying, without_cr};
use crate::sys;

struct Conn {
    fd: OwnedFd,
    name: Option<Box<str>>,
    /// Where in what the room hears this turn begins what it has not been sent.
    heard: usize,
    rest: Option<Box<Rest>>,
    /// Its place in the list of those in the room.
    place: usize,
}

struct Room {
    conns: Table<Conn>,
    present: Vec<RawFd>,
    /// What everybody hears, gathered over one turn.
    spoken: Vec<u8>,
    input: Vec<u8>,
}

pub(super) fn run(epoll: &sys::Epoll, listener: &TcpListener) -> io::Result<()> {
    let mut room = Room {
        conns: Table::new(),
        present: Vec::new(),
        spoken: Vec::with_capacity(BUFFER),
        input: vec![0; BUFFER],
    };
    let mut events = sys::events();
    loop {
        for event in epoll.wait(&mut events, -1)? {
            let (fd, happened) = (event.u64 as RawFd, event.events);
            if fd == listener.as_raw_fd() {
                while let Ok(fd) = sys::accept(listener.as_raw_fd()) {
                    epoll.add(fd.as_raw_fd(), sys::BOTH, fd.as_raw_fd() as u64)?;
                    room.open(fd);
                }
            } else if !room.serve(fd, happened).unwrap_or(false) {
                room.close(fd);
            }
        }
        room.tell();
    }
}

impl Room {
    fn open(&mut self, fd: OwnedFd) {
        self.spoken.extend_from_slice(ARRIVED.as_bytes());
        let _ = sys::write(fd.as_raw_fd(), WELCOME.as_bytes());
        let (heard, place) = (self.spoken.len(), self.present.len());
        self.present.push(fd.as_raw_fd());
        self.conns.put(fd, |fd| Conn { fd, name: None, heard, rest: None, place });
    }

    fn close(&mut self, fd: RawFd) {
        let Some(conn) = self.conns.0[fd as usize].take() else { return };
        self.present.swap_remove(conn.place);
        if let Some(&moved) = self.present.get(conn.place)
            && let Some(moved) = &mut self.conns.0[moved as usize]
        {
            moved.place = conn.place;
        }
        let name = conn.name.as_deref().unwrap_or(ANONYMOUS);
        self.spoken.extend_from_slice(format!("{name} has left the room.\n").as_bytes());
    }

    /// One write to each, whatever was said in this turn.
    fn tell(&mut self) {
        while !self.spoken.is_empty() {
            let mut gone = Vec::new();
            for &fd in &self.present {
                if let Some(conn) = &mut self.conns.0[fd as usize] {
                    if !conn.hear(&self.spoken).unwrap_or(false) {
                        gone.push(fd);
                    }
                    conn.heard = 0;
                }
            }
            self.spoken.clear();
            for fd in gone {
                self.close(fd);
            }
        }
    }

    /// Whether it stays.
    fn serve(&mut self, fd: RawFd, happened: u32) -> io::Result<bool> {
        let Some(conn) = &mut self.conns.0[fd as usize] else { return Ok(true) };
        if conn.rest.is_some() {
            resend(&conn.fd, &mut conn.rest)?;
        }
        loop {
            let mut kept = 0;
            if let Some(rest) = &mut conn.rest {
                kept = rest.input.len();
                self.input[..kept].copy_from_slice(&rest.input);
                rest.input.clear();
            }
            let count = match sys::read(fd, &mut self.input[kept..]) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            let bytes = &self.input[..kept + count];
            let mut start = 0;
            for end in memchr_iter(b'\n', bytes) {
                let line = without_cr(&bytes[start..end]);
                start = end + 1;
                if !conn.line(line, &mut self.spoken)? {
                    return Ok(false);
                }
            }
            if start < bytes.len() {
                conn.rest.get_or_insert_default().input = bytes[start..].to_vec();
            }
            if kept + count < BUFFER && happened & sys::ENDING == 0 || count == 0 {
                return Ok(true);
            }
        }
    }
}

impl Conn {
    /// Sends it what it has not heard yet; says whether it stays.
    fn hear(&mut self, spoken: &[u8]) -> io::Result<bool> {
        let news = &spoken[self.heard..];
        self.heard = spoken.len();
        if news.is_empty() {
            return Ok(true);
        }
        self.send(news)
    }

    fn send(&mut self, data: &[u8]) -> io::Result<bool> {
        match &mut self.rest {
            Some(rest) if !rest.output.is_empty() => rest.output.extend_from_slice(data),
            _ => {
                send(&self.fd, data, &mut self.rest)?;
            }
        }
        Ok(self.rest.as_ref().is_none_or(|rest| rest.output.len() <= MOST_UNSENT))
    }

    fn line(&mut self, line: &[u8], spoken: &mut Vec<u8>) -> io::Result<bool> {
        let (word, rest) = command(line);
        match word.as_slice() {
            b"HELLO" => {
                let name = name(rest);
                spoken.extend_from_slice(format!("{name} is in the room.\n").as_bytes());
                self.name = Some(name.into());
            }
            b"SAY" => {
                spoken.extend_from_slice(self.name.as_deref().unwrap_or(ANONYMOUS).as_bytes());
                spoken.extend_from_slice(b" says: ");
                if rest.iter().all(|byte| (b' '..0x7f).contains(byte)) && !rest.is_empty() {
                    spoken.extend_from_slice(rest);
                } else {
                    spoken.extend_from_slice(saying(rest).as_bytes());
                }
                spoken.push(b'\n');
            }
            b"BYE" => {
                let name = self.name.as_deref().unwrap_or(ANONYMOUS);
                let line = format!("{name} is about to leave the room.\n");
                spoken.extend_from_slice(line.as_bytes());
                self.hear(spoken)?;
                return Ok(false);
            }
            _ => {
                self.hear(spoken)?;
                self.send(HINT.as_bytes())?;
            }
        }
        Ok(true)
    }
}
