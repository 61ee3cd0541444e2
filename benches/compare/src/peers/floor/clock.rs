use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use super::Table;
use crate::protocol::clock_line;
use crate::sys;

const INTERVAL: Duration = Duration::from_secs(1);

struct Conn {
    fd: OwnedFd,
    /// Tells it from an earlier one of the same descriptor.
    incarnation: u64,
}

/// The line of this second.
struct Line {
    second: i64,
    text: String,
}

impl Line {
    fn now(&mut self) -> &[u8] {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let second = now.as_secs().cast_signed();
        if second != self.second {
            *self = Line { second, text: clock_line(second) };
        }
        self.text.as_bytes()
    }
}

pub(super) fn run(epoll: &sys::Epoll, listener: &TcpListener) -> io::Result<()> {
    let mut conns: Table<Conn> = Table::new();
    // All have the same interval, so who comes last is due last.
    let mut due: VecDeque<(Instant, usize, u64)> = VecDeque::new();
    let mut line = Line { second: -1, text: String::new() };
    let mut events = sys::events();
    let mut input = vec![0; 4096];
    let mut arrived = 0;
    loop {
        let timeout = due.front().map_or(-1, |(when, ..)| {
            let left = when.saturating_duration_since(Instant::now());
            left.as_micros().div_ceil(1000) as i32
        });
        let happened = epoll.wait(&mut events, timeout)?;
        let now = Instant::now();
        for event in happened {
            let place = event.u64 as usize;
            if place == listener.as_raw_fd() as usize {
                while let Ok(fd) = sys::accept(listener.as_raw_fd()) {
                    let raw = fd.as_raw_fd();
                    epoll.add(raw, sys::INPUT, raw as u64)?;
                    if sys::write(raw, line.now()).is_ok() {
                        arrived += 1;
                        due.push_back((now + INTERVAL, raw as usize, arrived));
                        conns.put(fd, |fd| Conn { fd, incarnation: arrived });
                    }
                }
                continue;
            }
            while let Some(conn) = &conns.0[place] {
                match sys::read(conn.fd.as_raw_fd(), &mut input) {
                    Ok(1..) => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    _ => conns.0[place] = None,
                }
            }
        }
        while let Some(&(when, place, incarnation)) = due.front().filter(|(when, ..)| *when <= now)
        {
            due.pop_front();
            if let Some(conn) = &conns.0[place]
                && conn.incarnation == incarnation
            {
                // Who does not read 43 bytes a second is given up.
                match sys::write(conn.fd.as_raw_fd(), line.now()) {
                    Ok(_) => due.push_back((when + INTERVAL, place, incarnation)),
                    Err(_) => conns.0[place] = None,
                }
            }
        }
    }
}
