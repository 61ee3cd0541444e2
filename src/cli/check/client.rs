//! A client's socket. No call waits longer than until a moment that its caller names.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, SockRef, Socket, Type};

/// Bytes of the longest line that is taken; no more of what a server sends is kept.
const LONGEST: usize = 1 << 20;
/// Bytes read at once.
const READ: usize = 64 * 1024;

/// How long a client that goes, or a crowd of them, listens for the server's end. What a server says later
/// it is told to be a reset.
const GOODBYE: Duration = Duration::from_millis(500);

/// How long one wait of a [`Silence`] may last.
const SLICE: Duration = Duration::from_millis(10);

/// How long a server has to learn that a client did not wait for its end.
const AFTERMATH: Duration = Duration::from_millis(300);

/// What has come from the server.
#[derive(Debug)]
pub(super) enum Came {
    /// A line, its end included.
    Line(Vec<u8>),
    /// The server has ended the connection; behind the last line end came these.
    End(Vec<u8>),
    /// The connection is broken.
    Broken(io::Error),
    /// More bytes without a line end than anybody keeps.
    Endless,
    /// Nothing, or no whole line, until now.
    Nothing,
}

/// Why not all was sent.
#[derive(Debug)]
pub(super) enum Unsent {
    /// The server took no more until now.
    Stuck,
    Broken(io::Error),
}

#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    /// Received and not taken yet.
    input: Vec<u8>,
    /// So much of it holds no LF.
    searched: usize,
    /// It goes without goodbye, or has said it.
    is_rude: bool,
}

impl Client {
    pub(super) fn connect(address: SocketAddr, until: Instant) -> io::Result<Client> {
        // The limit of a connect must not be 0.
        let within = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        Client::new(TcpStream::connect_timeout(&address, within)?)
    }

    /// One for whom the kernel keeps as little as it can of what he does not read.
    pub(super) fn connect_narrow(address: SocketAddr, until: Instant) -> io::Result<Client> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // Before the connect, which tells the server how much room there is.
        socket.set_recv_buffer_size(4096)?;
        // So each bit of progress shows.
        socket.set_send_buffer_size(32 * 1024)?;
        let within = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.connect_timeout(&address.into(), within)?;
        Client::new(socket.into())
    }

    /// Begins to connect; [`Client::is_connected`] says when that is done.
    pub(super) fn dial(address: SocketAddr) -> io::Result<Client> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
            _ => Client::new(socket.into()),
        }
    }

    /// Whether what [`Client::dial`] has begun is done.
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            outcome => outcome.map(|_| true),
        }
    }

    fn new(stream: TcpStream) -> io::Result<Client> {
        stream.set_nonblocking(true)?;
        // What is sent in pieces is to leave in pieces.
        stream.set_nodelay(true)?;
        Ok(Client { stream, input: Vec::new(), searched: 0, is_rude: false })
    }

    /// The next thing that comes, if it comes by then.
    pub(super) fn receive(&mut self, until: Instant) -> Came {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.input[self.searched..]) {
                let end = self.searched + end + 1;
                let line = self.input.drain(..end).collect();
                self.searched = 0;
                return Came::Line(line);
            }
            self.searched = self.input.len();
            if self.searched > LONGEST {
                return Came::Endless;
            }
            match self.read() {
                Ok(0) => return Came::End(std::mem::take(&mut self.input)),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.wait(PollFlags::IN, until) {
                        return Came::Nothing;
                    }
                }
                Err(error) => return Came::Broken(error),
            }
        }
    }

    /// Reads and forgets what is there. How many bytes it was; none at the end of the connection.
    pub(super) fn discard(&mut self) -> Option<usize> {
        self.input.clear();
        self.searched = 0;
        match self.read() {
            Ok(0) => None,
            Ok(count) => Some(count),
            Err(error) => (error.kind() == ErrorKind::WouldBlock).then_some(0),
        }
    }

    /// Says goodbye and reads on until the server's end, so that it closes with nothing unread, which would be a
    /// reset. If that does not come by then, the server has a moment to learn what it is told. How many bytes came.
    pub(super) fn leave(mut self, until: Instant) -> usize {
        self.end();
        // Failing that, it is slower.
        let _ = SockRef::from(&self.stream).set_recv_buffer_size(1 << 20);
        let received = self.listen(until);
        let ended = Instant::now() < until;
        self.is_rude = true;
        drop(self);
        if !ended {
            std::thread::sleep(AFTERMATH);
        }
        received
    }

    /// Reads and forgets until the server ends the connection, or until then. How many bytes it was.
    pub(super) fn listen(&mut self, until: Instant) -> usize {
        let mut received = 0;
        while let Some(count) = self.discard() {
            received += count;
            if Instant::now() >= until {
                break;
            }
            self.wait(PollFlags::IN, until);
        }
        received
    }

    fn read(&mut self) -> io::Result<usize> {
        let before = self.input.len();
        self.input.resize(before + READ, 0);
        let outcome = loop {
            match self.stream.read(&mut self.input[before..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        self.input.truncate(before + outcome.as_ref().map_or(0, |count| *count));
        outcome
    }

    /// Whether a line was received and not taken yet.
    fn has_line(&self) -> bool {
        memchr::memchr(b'\n', &self.input[self.searched..]).is_some()
    }

    /// Bytes that came, without a line end.
    pub(super) fn unfinished(&self) -> &[u8] {
        &self.input
    }

    /// Sends all of it, or says how much it was and why no more.
    pub(super) fn send(&mut self, bytes: &[u8], until: Instant) -> Result<(), (usize, Unsent)> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.wait(PollFlags::OUT, until) {
                        return Err((sent, Unsent::Stuck));
                    }
                }
                Err(error) => return Err((sent, Unsent::Broken(error))),
            }
        }
        Ok(())
    }

    /// Has nothing more to say.
    pub(super) fn end(&self) {
        // It fails if the connection is gone, which reading tells better.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Is gone without goodbye.
    pub(super) fn reset(mut self) {
        self.is_rude = true;
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Whether it can go on by then.
    fn wait(&self, what: PollFlags, until: Instant) -> bool {
        wait(&[self], what, until)
    }
}

impl Drop for Client {
    /// To close with something unread would be a reset, which is a kind of client of its own.
    fn drop(&mut self) {
        if !self.is_rude {
            self.end();
            self.listen(Instant::now() + GOODBYE);
        }
    }
}

/// All say goodbye at once, and then listen together.
pub(super) fn leave(clients: Vec<Client>) {
    clients.iter().for_each(Client::end);
    let until = Instant::now() + GOODBYE;
    for mut client in clients {
        client.listen(until);
        client.is_rude = true;
    }
}

/// How long many clients wait for one of them to get on, in time that the checker itself is given: where it waits for
/// the processor, a server on the same machine does too, and must not fail for that.
#[derive(Debug)]
pub(super) struct Silence {
    longest: Duration,
    left: Duration,
    /// When it is over in any case.
    deadline: Instant,
}

impl Silence {
    pub(super) fn new(longest: Duration, deadline: Instant) -> Silence {
        Silence { longest, left: longest, deadline }
    }

    /// One of them has got on.
    pub(super) fn restart(&mut self) {
        self.left = self.longest;
    }

    /// Waits for a moment, or less if something happens. False if there is nothing left to wait for; until
    /// then the caller looks once more.
    pub(super) fn wait(&mut self, clients: &[&Client], what: PollFlags) -> bool {
        let begun = Instant::now();
        if self.left.is_zero() || begun >= self.deadline {
            return false;
        }
        wait(clients, what, begun + SLICE);
        // What lasted longer was no wait for the server.
        self.left = self.left.saturating_sub(begun.elapsed().min(SLICE));
        true
    }
}

/// Whether one of them can go on by then.
fn wait(clients: &[&Client], what: PollFlags, until: Instant) -> bool {
    if what == PollFlags::IN && clients.iter().any(|client| client.has_line()) {
        return Instant::now() < until;
    }
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let mut set: Vec<_> = clients.iter().map(|it| PollFd::new(&it.stream, what)).collect();
        match poll(&mut set, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(Errno::INTR) => {}
            // Not even asked: whoever reads or writes now learns why.
            Err(_) => return false,
        }
    }
}
