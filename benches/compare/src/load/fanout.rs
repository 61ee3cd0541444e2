use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use super::{BUFFER, Meter, Sample, Span, patience, receive, source, stalled, transmit, verify};
use crate::protocol::{ARRIVED, WELCOME};
use crate::server::Server;
use crate::{Result, sys};

/// A room in which everybody listens and the first one speaks.
struct Room<'s> {
    server: &'s Server,
    epoll: sys::Epoll,
    events: Vec<libc::epoll_event>,
    buffer: Vec<u8>,
    listeners: Vec<Listener>,
    /// What everybody is to hear, as far as its own end.
    expected: Vec<u8>,
    /// Listeners that have not heard all of it.
    waiting: usize,
}

struct Listener {
    fd: OwnedFd,
    got: usize,
    end: usize,
}

/// Bursts of `depth` messages to all listeners, the next when the last one has the whole burst.
pub fn fanout(server: &Server, listeners: usize, depth: usize, span: Span) -> Result<Sample> {
    let mut room = Room {
        server,
        epoll: sys::Epoll::new()?,
        events: sys::events(),
        buffer: vec![0; BUFFER],
        listeners: Vec::new(),
        expected: (WELCOME.to_owned() + &ARRIVED.repeat(listeners)).into_bytes(),
        waiting: 0,
    };
    room.enter(listeners)?;
    room.say("HELLO speaker\n", "speaker is in the room.\n".to_owned())?;
    let texts: Vec<_> = (0..depth).map(|n| format!("{n:03} the quick brown fox jumps\n")).collect();
    let burst: String = texts.iter().map(|text| format!("SAY {text}")).collect();
    let heard: String = texts.iter().map(|text| format!("speaker says: {text}")).collect();

    let mut meter = Meter::new(server, span)?;
    loop {
        let since = Instant::now();
        room.say(&burst, heard.clone())?;
        meter.count(depth * listeners, since.elapsed());
        if let Some(sample) = meter.tick()? {
            return Ok(sample);
        }
    }
}

impl Room<'_> {
    /// One after the other: each hears those that come after it.
    fn enter(&mut self, count: usize) -> Result<()> {
        for number in 0..count {
            let fd = sys::connect(source(number), self.server.port())?;
            self.epoll.add(fd.as_raw_fd(), sys::INPUT, number as u64)?;
            self.listeners.push(Listener { fd, got: 0, end: WELCOME.len() });
            self.waiting += 1;
            for earlier in &mut self.listeners[..number] {
                if earlier.got == earlier.end {
                    self.waiting += 1;
                }
                earlier.end += ARRIVED.len();
            }
            while self.listeners[number].got < WELCOME.len() {
                self.turn()?;
            }
        }
        self.settle()
    }

    fn say(&mut self, words: &str, heard: String) -> Result<()> {
        self.expected = heard.into_bytes();
        for listener in &mut self.listeners {
            (listener.got, listener.end) = (0, self.expected.len());
        }
        self.waiting = self.listeners.len();
        let taken = transmit(self.server, &self.listeners[0].fd, words.as_bytes())?;
        assert_eq!(taken, words.len(), "a few hundred bytes fit into an empty socket");
        self.settle()
    }

    fn settle(&mut self) -> Result<()> {
        while self.waiting > 0 {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<()> {
        let events = self.epoll.wait(&mut self.events, patience())?;
        if events.is_empty() {
            return Err(stalled(self.server, "a message"));
        }
        for event in events {
            let listener = &mut self.listeners[event.u64 as usize];
            loop {
                let count = receive(self.server, &listener.fd, &mut self.buffer)?;
                let expected = &self.expected[listener.got..listener.end];
                verify(self.server, &self.buffer[..count], expected)?;
                listener.got += count;
                if count > 0 && listener.got == listener.end {
                    self.waiting -= 1;
                }
                if count < self.buffer.len() {
                    break;
                }
            }
        }
        Ok(())
    }
}
