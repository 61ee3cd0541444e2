use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use calloop::generic::Generic;
use calloop::{
    EventLoop, EventSource, Interest, LoopHandle, Mode, Poll, PostAction, Readiness, Token,
    TokenFactory,
};

use super::Service;
use crate::protocol::{GREETING, is_bye, reply, without_cr};

/// What all callbacks share.
struct State {
    handle: LoopHandle<'static, State>,
    buffer: Vec<u8>,
}

pub(super) fn serve(_: Service, port: u16) -> io::Result<()> {
    let mut event_loop: EventLoop<'static, State> = EventLoop::try_new()?;
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    super::ready(listener.local_addr()?.port())?;
    let handle = event_loop.handle();
    let source = Generic::new(listener, Interest::READ, Mode::Level);
    handle
        .insert_source(source, |_, listener, state: &mut State| accept(listener, state))
        .map_err(|error| io::Error::other(error.error))?;
    let mut state = State { handle, buffer: vec![0; 64 * 1024] };
    Ok(event_loop.run(None, &mut state, |_| ())?)
}

fn accept(listener: &TcpListener, state: &mut State) -> io::Result<PostAction> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(PostAction::Continue),
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let io = Generic::new(stream, Interest::READ, Mode::Level);
        let mut session = Session { io, input: Vec::new(), output: Vec::new(), closing: false };
        session.output.extend_from_slice(GREETING.as_bytes());
        session.flush()?;
        let inserted = state.handle.insert_source(session, |readiness, session, state| {
            // What fails is a peer that is gone.
            session.ready(readiness, &mut state.buffer).unwrap_or(PostAction::Remove)
        });
        inserted.map_err(|error| io::Error::other(error.error))?;
    }
}

struct Session {
    io: Generic<TcpStream>,
    /// An unfinished line.
    input: Vec<u8>,
    output: Vec<u8>,
    closing: bool,
}

impl Session {
    fn ready(&mut self, readiness: Readiness, buffer: &mut [u8]) -> io::Result<PostAction> {
        if readiness.writable {
            self.flush()?;
        }
        if readiness.readable && self.output.is_empty() {
            // SAFETY: the stream is neither closed nor replaced.
            let stream = unsafe { self.io.get_mut() };
            match stream.read(buffer) {
                Ok(0) => self.ended(),
                Ok(count) => self.take(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            self.flush()?;
        }
        if self.output.is_empty() && self.closing {
            return Ok(PostAction::Remove);
        }
        // While it does not read its replies it is not read.
        let interest = if self.output.is_empty() { Interest::READ } else { Interest::WRITE };
        if (interest.readable, interest.writable)
            == (self.io.interest.readable, self.io.interest.writable)
        {
            return Ok(PostAction::Continue);
        }
        self.io.interest = interest;
        Ok(PostAction::Reregister)
    }

    fn take(&mut self, bytes: &[u8]) {
        let joined;
        let bytes = if self.input.is_empty() {
            bytes
        } else {
            self.input.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.input);
            &joined
        };
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = without_cr(&bytes[start..end]);
            start = end + 1;
            reply(line, &mut self.output);
            if is_bye(line) {
                self.closing = true;
                return;
            }
        }
        self.input.extend_from_slice(&bytes[start..]);
    }

    fn ended(&mut self) {
        if !self.input.is_empty() {
            reply(without_cr(&self.input), &mut self.output);
        }
        self.closing = true;
    }

    fn flush(&mut self) -> io::Result<()> {
        // SAFETY: the stream is neither closed nor replaced.
        let stream = unsafe { self.io.get_mut() };
        if !self.output.is_empty() {
            match stream.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if self.output.is_empty() {
            self.output = Vec::new();
        }
        Ok(())
    }
}

impl EventSource for Session {
    type Event = Readiness;
    type Metadata = Session;
    type Ret = PostAction;
    type Error = io::Error;

    fn process_events<F>(
        &mut self,
        readiness: Readiness,
        _token: Token,
        mut callback: F,
    ) -> io::Result<PostAction>
    where
        F: FnMut(Readiness, &mut Session) -> PostAction,
    {
        Ok(callback(readiness, self))
    }

    fn register(&mut self, poll: &mut Poll, factory: &mut TokenFactory) -> calloop::Result<()> {
        self.io.register(poll, factory)
    }

    fn reregister(&mut self, poll: &mut Poll, factory: &mut TokenFactory) -> calloop::Result<()> {
        self.io.reregister(poll, factory)
    }

    fn unregister(&mut self, poll: &mut Poll) -> calloop::Result<()> {
        self.io.unregister(poll)
    }
}
