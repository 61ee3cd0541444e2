use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use super::{
    AT_ONCE, BUFFER, Meter, Sample, Span, patience, receive, source, stalled, transmit, verify,
};
use crate::protocol::GREETING;
use crate::server::Server;
use crate::{Result, sys};

/// Clients of echo, each with a burst of lines in flight or none.
pub struct Echo<'s> {
    server: &'s Server,
    epoll: sys::Epoll,
    events: Vec<libc::epoll_event>,
    clients: Vec<Client>,
    buffer: Vec<u8>,
    /// Clients that wait for something.
    waiting: usize,
}

struct Client {
    fd: OwnedFd,
    request: Box<[u8]>,
    reply: Box<[u8]>,
    lines: usize,
    greeted: bool,
    sent: usize,
    got: usize,
    since: Instant,
}

impl Client {
    /// Lines of 32 bytes, no two of them the same.
    fn new(fd: OwnedFd, number: usize, lines: usize) -> Client {
        let request: String = (0..lines)
            .map(|line| format!("{number:05} {line:03} the quick brown fox j\n"))
            .collect();
        let reply: String =
            request.lines().map(|line| format!("> {}\n", line.to_uppercase())).collect();
        let (request, reply) = (request.into_bytes().into(), reply.into_bytes().into());
        let since = Instant::now();
        Client { fd, sent: 0, got: 0, request, reply, lines, greeted: false, since }
    }

    fn send(&mut self, server: &Server) -> Result<()> {
        self.sent += transmit(server, &self.fd, &self.request[self.sent..])?;
        Ok(())
    }

    /// It has heard the greeting and not said anything yet.
    fn greet(&mut self) {
        (self.greeted, self.got, self.sent) = (true, 0, self.request.len());
    }

    fn begin(&mut self, server: &Server) -> Result<()> {
        (self.sent, self.got, self.since) = (0, 0, Instant::now());
        self.send(server)
    }
}

impl<'s> Echo<'s> {
    pub fn new(server: &'s Server) -> Result<Echo<'s>> {
        let (epoll, events, buffer) = (sys::Epoll::new()?, sys::events(), vec![0; BUFFER]);
        Ok(Echo { server, epoll, events, clients: Vec::new(), buffer, waiting: 0 })
    }

    /// Takes over clients that have been greeted; each has had one reply before this returns.
    pub fn take_over(&mut self, greeted: Vec<OwnedFd>) -> Result<()> {
        let first = self.clients.len();
        for (number, fd) in (first..).zip(greeted) {
            self.epoll.add(fd.as_raw_fd(), sys::BOTH, number as u64)?;
            let mut client = Client::new(fd, number, 1);
            client.greet();
            self.clients.push(client);
        }
        self.each(first..self.clients.len())?;
        self.settle()
    }

    /// Adds clients that have been greeted and have had one reply.
    pub fn open(&mut self, count: usize, depth: usize) -> Result<()> {
        let end = self.clients.len() + count;
        while self.clients.len() < end {
            let first = self.clients.len();
            for number in first..end.min(first + AT_ONCE) {
                let fd = sys::connect(source(number), self.server.port())?;
                self.epoll.add(fd.as_raw_fd(), sys::BOTH, number as u64)?;
                self.clients.push(Client::new(fd, number, depth));
                self.waiting += 1;
            }
            self.settle()?;
            self.each(first..self.clients.len())?;
            self.settle()?;
        }
        Ok(())
    }

    /// Lets the first `active` of them send burst after burst.
    pub fn run(&mut self, active: usize, span: Span) -> Result<Sample> {
        let mut meter = Meter::new(self.server, span)?;
        self.each(0..active)?;
        loop {
            self.turn(&mut Some(&mut meter))?;
            if let Some(sample) = meter.tick()? {
                self.settle()?;
                return Ok(sample);
            }
        }
    }

    fn each(&mut self, range: Range<usize>) -> Result<()> {
        for client in &mut self.clients[range] {
            client.begin(self.server)?;
            self.waiting += 1;
        }
        Ok(())
    }

    /// Until all have what they wait for.
    fn settle(&mut self) -> Result<()> {
        while self.waiting > 0 {
            self.turn(&mut None)?;
        }
        Ok(())
    }

    /// With a meter, who is done begins again.
    fn turn(&mut self, meter: &mut Option<&mut Meter<'_>>) -> Result<()> {
        let events = self.epoll.wait(&mut self.events, patience())?;
        if events.is_empty() {
            return Err(stalled(self.server, "a reply"));
        }
        for event in events {
            let client = &mut self.clients[event.u64 as usize];
            if client.greeted && client.sent < client.request.len() {
                client.send(self.server)?;
            }
            loop {
                let count = receive(self.server, &client.fd, &mut self.buffer)?;
                let expected = if client.greeted { &client.reply } else { GREETING.as_bytes() };
                verify(self.server, &self.buffer[..count], &expected[client.got..])?;
                client.got += count;
                if count > 0 && client.got == expected.len() {
                    if !client.greeted {
                        client.greet();
                        self.waiting -= 1;
                    } else if let Some(meter) = meter {
                        meter.count(client.lines, client.since.elapsed());
                        client.begin(self.server)?;
                    } else {
                        self.waiting -= 1;
                    }
                }
                if count < self.buffer.len() {
                    break;
                }
            }
        }
        Ok(())
    }
}
