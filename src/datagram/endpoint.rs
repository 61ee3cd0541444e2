//! A datagram socket with all that belongs to it except the handler. It is what the handler's context
//! works on.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use super::DatagramOptions;
use super::outbox::Outbox;
use super::socket::{LARGEST, Socket};
use crate::reactor::fairness::{DATAGRAM_ERRORS, DATAGRAM_REST, LOG_EVERY};
use crate::reactor::log_limits::LogLimit;
use crate::reactor::loop_state::LoopState;
use crate::reactor::table::Label;
use crate::reactor::timers::Timers;
use crate::reactor::token::Token;

/// Room for the largest datagram and one byte more: a datagram that fills it has been cut.
pub(crate) const ROOM: usize = LARGEST + 1;

/// A datagram socket, what waits for it, and the handler's timers.
pub(crate) struct Endpoint {
    /// What the service goes by in the log.
    pub(super) name: Label,
    pub(super) options: DatagramOptions,
    /// The address that the socket is bound to.
    pub(super) local: SocketAddr,
    pub(super) timers: Timers,
    /// What the kernel did not take at once.
    pub(super) outbox: Outbox,
    /// None once the service is over.
    socket: Option<Socket>,
    /// Something may have come: set by an event, cleared by WouldBlock only.
    readable: bool,
    /// The kernel takes no more: set by WouldBlock, cleared by an event only.
    blocked: bool,
    /// Errors of receiving in a row.
    errors: u32,
    /// Receiving only fails. It is tried again when a deadline comes.
    pub(super) resting: bool,
    loss_logged: LogLimit,
}

impl Endpoint {
    pub(crate) fn new(
        service: usize,
        name: &str,
        socket: Socket,
        local: SocketAddr,
        options: DatagramOptions,
    ) -> Endpoint {
        Endpoint {
            name: Label::new(service, name),
            options,
            local,
            timers: Timers::default(),
            outbox: Outbox::default(),
            socket: Some(socket),
            readable: false,
            blocked: false,
            errors: 0,
            resting: false,
            loss_logged: LogLimit::default(),
        }
    }

    /// The token of the socket and of its timers.
    pub(crate) fn token(&self) -> Token {
        Token::listener(self.name.service, 0)
    }

    /// Has the selector watch the socket; in a harness there is no selector.
    pub(crate) fn register(&mut self, state: &LoopState) -> io::Result<()> {
        let token = self.token();
        match (&state.registry, &mut self.socket) {
            (Some(registry), Some(socket)) => socket.register(registry, token),
            _ => Ok(()),
        }
    }

    /// What the socket goes by to another loop.
    pub(crate) fn passed(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref()?.passed()
    }

    /// Another loop has the socket: what waits is sent if the kernel takes it, and lost otherwise.
    pub(crate) fn leave(&mut self, state: &mut LoopState) {
        self.flush(state);
        if let (Some(registry), Some(socket)) = (&state.registry, &mut self.socket)
            && let Err(error) = socket.deregister(registry)
        {
            log::debug!("{}: watched although another loop has it: {error}", self.name);
        }
        self.close(state);
    }

    /// Notes an event.
    pub(crate) fn ready(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.blocked &= !writable;
    }

    /// Whether something may have come that can be received now.
    pub(crate) fn may_receive(&self) -> bool {
        self.readable && !self.resting
    }

    /// Whether something waits that the kernel may take now.
    pub(crate) fn may_flush(&self) -> bool {
        !self.outbox.is_empty() && !self.blocked
    }

    /// Receives the next datagram into a buffer of [`ROOM`] bytes; gives its length and its sender.
    /// None if there was an error, or nothing: [`may_receive`](Self::may_receive) says whether to go
    /// on.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        state: &mut LoopState,
    ) -> Option<(usize, SocketAddr)> {
        match self.socket.as_ref()?.receive(buffer) {
            Ok((count, from)) => {
                self.errors = 0;
                state.counters(self.name.service).bytes_in += count as u64;
                if count < buffer.len() {
                    state.counters(self.name.service).datagrams_in += 1;
                    return Some((count, from));
                }
                state.counters(self.name.service).datagram_errors += 1;
                log::debug!("{}: a datagram from {from} is too large to be had whole", self.name);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                log::debug!("{}: receiving: {error}", self.name);
                state.counters(self.name.service).datagram_errors += 1;
                self.errors += 1;
                if self.errors >= DATAGRAM_ERRORS {
                    self.errors = 0;
                    self.resting = true;
                    let token = self.token();
                    self.timers.arm(state.after(DATAGRAM_REST), token);
                }
            }
        }
        None
    }

    /// Sends a datagram, or has it wait in the outbox. False if it is lost.
    pub(crate) fn send(&mut self, to: SocketAddr, bytes: &[u8], state: &mut LoopState) -> bool {
        if self.outbox.is_empty() && !self.blocked {
            match self.offer(to, bytes, state) {
                Ok(()) => return true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.blocked = true,
                Err(error) => return self.lose(to, &error.to_string(), state),
            }
        }
        if self.outbox.push(to, bytes, self.options.max_unsent) {
            return true;
        }
        self.lose(to, "the kernel takes no more, and the queue is full (max_unsent)", state)
    }

    /// Sends what waits in the outbox, until nothing is left or the kernel takes no more.
    pub(crate) fn flush(&mut self, state: &mut LoopState) {
        let mut outbox = std::mem::take(&mut self.outbox);
        while let Some((to, bytes)) = outbox.first() {
            match self.offer(to, bytes, state) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    break;
                }
                Err(error) => {
                    self.lose(to, &error.to_string(), state);
                }
            }
            outbox.pop();
        }
        self.outbox = outbox;
    }

    /// Closes the socket. What waits in the outbox is lost.
    pub(crate) fn close(&mut self, state: &mut LoopState) {
        state.counters(self.name.service).datagrams_lost += self.outbox.len() as u64;
        self.outbox = Outbox::default();
        if self.socket.take().is_some() {
            state.freed += 1;
        }
    }

    /// Offers a datagram to the kernel; EINTR is retried.
    fn offer(&self, to: SocketAddr, bytes: &[u8], state: &mut LoopState) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(ErrorKind::NotConnected)?;
        loop {
            match socket.send_to(to, bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => {
                    if outcome.is_ok() {
                        state.counters(self.name.service).datagrams_out += 1;
                        state.counters(self.name.service).bytes_out += bytes.len() as u64;
                    }
                    return outcome;
                }
            }
        }
    }

    /// Counts and logs a datagram that is lost; gives false.
    fn lose(&mut self, to: SocketAddr, why: &str, state: &mut LoopState) -> bool {
        state.counters(self.name.service).datagrams_lost += 1;
        if self.loss_logged.allows(state.turn.now, LOG_EVERY) {
            log::warn!("{}: a datagram to {to} is lost: {why}", self.name);
        }
        false
    }
}
