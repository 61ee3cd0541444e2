use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{AT_ONCE, source};
use crate::protocol::GREETING;
use crate::server::Server;
use crate::{Result, sys};

/// How long nobody may have been greeted until those who wait are taken to wait for good.
const STALLED: Duration = Duration::from_secs(5);
/// How long it may take to greet them all, however steadily that goes on.
const LONGEST: Duration = Duration::from_secs(60);

/// Clients of echo who come and stay, at a server that may not serve them all.
pub struct Crowd {
    pub greeted: Vec<OwnedFd>,
    /// Connected, and no word from the server: they wait in its backlog. They stay there as long
    /// as this value.
    pub waiting: Vec<OwnedFd>,
    /// Not even connected: the backlog is full, and their call is repeated every few seconds.
    pub outside: Vec<OwnedFd>,
    /// Connected and closed by the server.
    pub turned_away: usize,
}

/// One of them, in one of these states.
enum Guest {
    Calling(OwnedFd),
    /// Connected; so many bytes of the greeting have come.
    Connected(OwnedFd, usize),
    Greeted(OwnedFd),
    TurnedAway,
}

impl Crowd {
    /// Dials as many: a few at once, the next when one of them is greeted; and as soon as that
    /// no longer happens, all the others without waiting.
    pub fn gather(server: &Server, count: usize) -> Result<Crowd> {
        let (epoll, mut events) = (sys::Epoll::new()?, sys::events());
        let mut guests = Vec::new();
        let begin = Instant::now();
        let (mut settled, mut moved, mut stalled) = (0, begin, false);
        while settled < count && begin.elapsed() < LONGEST {
            let wanted = if stalled { count } else { count.min(settled + AT_ONCE) };
            for number in guests.len()..wanted {
                let fd = sys::connect(source(number), server.port())?;
                epoll.add(fd.as_raw_fd(), sys::BOTH, number as u64)?;
                guests.push(Guest::Calling(fd));
            }
            let left = STALLED.saturating_sub(moved.elapsed());
            for event in epoll.wait(&mut events, left.as_millis() as i32 + 1)? {
                let guest = &mut guests[event.u64 as usize];
                if guest.hear()? {
                    (settled, moved) = (settled + 1, Instant::now());
                }
            }
            if moved.elapsed() >= STALLED {
                if stalled || guests.len() == count {
                    break;
                }
                (stalled, moved) = (true, Instant::now());
            }
        }
        let mut crowd =
            Crowd { greeted: Vec::new(), waiting: Vec::new(), outside: Vec::new(), turned_away: 0 };
        for guest in guests {
            match guest {
                Guest::Greeted(fd) => crowd.greeted.push(fd),
                Guest::Connected(fd, _) => crowd.waiting.push(fd),
                Guest::Calling(fd) => crowd.outside.push(fd),
                Guest::TurnedAway => crowd.turned_away += 1,
            }
        }
        Ok(crowd)
    }
}

impl Guest {
    /// Takes note of an event; says whether it settled this one's fate.
    fn hear(&mut self) -> Result<bool> {
        let (fd, mut got) = match std::mem::replace(self, Guest::TurnedAway) {
            // The first event is that it is connected.
            Guest::Calling(fd) => (fd, 0),
            Guest::Connected(fd, got) => (fd, got),
            settled => {
                *self = settled;
                return Ok(false);
            }
        };
        let mut buffer = [0; GREETING.len() + 1];
        match sys::read(fd.as_raw_fd(), &mut buffer) {
            Ok(count) if count > 0 && GREETING.as_bytes()[got..].starts_with(&buffer[..count]) => {
                got += count;
            }
            // The end, or other words than a greeting.
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Ok(true),
        }
        let done = got == GREETING.len();
        *self = if done { Guest::Greeted(fd) } else { Guest::Connected(fd, got) };
        Ok(done)
    }
}
