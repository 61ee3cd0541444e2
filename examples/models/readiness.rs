//! One thread for all clients, the way of `select`: ask the kernel which of the sockets are ready,
//! do what can be done with those without waiting, ask again.
//!
//! It asks with `poll`, which is `select` without its limit of 1,024 descriptors. Both are
//! level-triggered: what is left unread is reported again, so nothing is ever missed. And both
//! remember nothing: each call hands over the whole set and gets the whole set back, to be searched
//! for the few that are ready. With many clients who say little, that search is all the work.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::listen;
use crate::text::{GREETING, answer, is_too_long, without_end};

/// How long nobody is accepted after there was no descriptor for a newcomer: it would be reported
/// as ready again and again.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

pub(crate) fn serve(address: &str) -> io::Result<()> {
    let listener = listen(address)?;
    listener.set_nonblocking(true)?;
    let mut clients: Vec<Client> = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let mut resting = false;
    loop {
        let newcomers = if resting { PollFlags::empty() } else { PollFlags::IN };
        let mut set = vec![PollFd::new(&listener, newcomers)];
        set.extend(clients.iter().map(|client| PollFd::new(&client.stream, client.waits_for())));
        match poll(&mut set, resting.then_some(&REST)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = set.iter().map(|socket| !socket.revents().is_empty()).collect();
        resting = false;
        for (client, _) in clients.iter_mut().zip(&ready[1..]).filter(|(_, ready)| **ready) {
            if client.go_on(&mut buffer).is_err() {
                client.stage = Stage::Gone;
            }
        }
        clients.retain(|client| client.stage != Stage::Gone);
        if ready[0]
            && let Err(error) = welcome(&listener, &mut clients)
        {
            eprintln!("cannot accept: {error}");
            resting = true;
        }
    }
}

/// Accepts all who wait.
fn welcome(listener: &TcpListener, clients: &mut Vec<Client>) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => clients.extend(Client::new(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// What a blocking server has on the stack of its thread must be kept here, between one event and
/// the next.
struct Client {
    stream: TcpStream,
    /// An unfinished line.
    input: Vec<u8>,
    /// What the socket has not taken yet.
    output: Vec<u8>,
    stage: Stage,
}

#[derive(PartialEq)]
enum Stage {
    Talking,
    /// No more is answered, but the last reply is not all sent.
    Leaving,
    /// All is sent and said to be all; the client has yet to close its side, however long it takes.
    Lingering,
    Gone,
}

impl Client {
    /// None where it is gone already.
    fn new(stream: TcpStream) -> Option<Client> {
        let output = GREETING.as_bytes().to_vec();
        let mut client = Client { stream, input: Vec::new(), output, stage: Stage::Talking };
        client.stream.set_nonblocking(true).ok()?;
        client.stream.set_nodelay(true).ok()?;
        client.write().ok()?;
        Some(client)
    }

    /// Who does not take the replies is not read: so it cannot make them pile up.
    fn waits_for(&self) -> PollFlags {
        if self.output.is_empty() { PollFlags::IN } else { PollFlags::OUT }
    }

    /// One read or one write, and no more: the others wait too.
    fn go_on(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.output.is_empty() {
            match self.stream.read(buffer) {
                Ok(0) => self.ended(),
                Ok(count) => self.take(&buffer[..count]),
                Err(error) if is_for_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.write()
    }

    fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.stage != Stage::Talking {
                return;
            }
            self.input.extend_from_slice(piece);
            if piece.ends_with(b"\n") || is_too_long(&self.input) {
                self.answer();
            }
        }
    }

    fn answer(&mut self) {
        if answer(without_end(&self.input), &mut self.output) {
            self.stage = Stage::Leaving;
        }
        self.input.clear();
    }

    /// The client has ended its side; its last line may have no end.
    fn ended(&mut self) {
        if !self.input.is_empty() {
            self.answer();
        }
        self.stage = if self.stage == Stage::Lingering { Stage::Gone } else { Stage::Leaving };
    }

    fn write(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if is_for_later(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if self.output.is_empty() && self.stage == Stage::Leaving {
            self.stream.shutdown(Shutdown::Write)?;
            self.stage = Stage::Lingering;
        }
        Ok(())
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
