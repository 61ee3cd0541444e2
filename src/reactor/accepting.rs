//! A listener under edge triggers: accepted until WouldBlock, and not lost when it cannot be.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;

use super::closing::farewell_text;
use super::fairness::{PASSED_OVER, RETRY};
use super::loop_state::LoopState;
use super::service::ActiveService;
use super::table::Table;
use super::timers::Timers;
use super::token::Token;
use crate::connection::clock::Nanos;
use crate::error::Error;
use crate::handler::{Farewell, Handler};
use crate::limits::Limits;
use crate::net::layer::Acceptor;
use crate::net::listener::ListeningSocket;
use crate::net::stream::Stream;
use crate::net::{Address, Host, Listen, Networks};

/// Free ports of one family that are tried with the other one.
const PORTS_TRIED: usize = 16;

pub(crate) struct Listener {
    socket: ListeningSocket,
    address: Address,
    allow: Option<Networks>,
    layers: Vec<Rc<dyn Acceptor>>,
    token: Token,
    /// Somebody may be waiting: set by an event, cleared by WouldBlock only.
    ready: bool,
    /// Accepting failed for want of descriptors; when to try again, and how many had been freed.
    stuck: Option<(Nanos, u64)>,
}

impl Listener {
    /// One, or one for each address of a host; and the address in force. `token` gives each its own.
    pub(crate) fn bind(
        listen: Listen,
        token: impl Fn(usize) -> Token,
        limits: &Limits,
        state: &mut LoopState,
    ) -> Result<(Address, Vec<Listener>), Error> {
        let listen = Listen { address: listen.address.resolve()?, ..listen };
        let Address::Host(host) = &listen.address else {
            let listener = Listener::bind_one(listen, token(0), limits, state)?;
            return Ok((listener.address.clone(), vec![listener]));
        };
        let mut tries = if host.port() == 0 { PORTS_TRIED } else { 1 };
        loop {
            tries -= 1;
            match Listener::bind_each(&listen, host, &token, limits, state) {
                // Free for one family and not for the other.
                Err(Error::Listen { source, .. })
                    if source.kind() == ErrorKind::AddrInUse && tries > 0 => {}
                outcome => return outcome,
            }
        }
    }

    /// All addresses of a host that this machine has, at one port.
    fn bind_each(
        listen: &Listen,
        host: &Host,
        token: impl Fn(usize) -> Token,
        limits: &Limits,
        state: &mut LoopState,
    ) -> Result<(Address, Vec<Listener>), Error> {
        let (mut listeners, mut bound, mut lacking) = (Vec::new(), Vec::new(), Vec::new());
        for addr in host.addresses() {
            let mut addr = *addr;
            addr.set_port(bound.first().map_or(addr.port(), SocketAddr::port));
            let one = Listen { address: Address::Tcp(addr), ..listen.clone() };
            match Listener::bind_one(one, token(listeners.len()), limits, state) {
                Ok(listener) => {
                    bound.extend(listener.address.as_socket());
                    listeners.push(listener);
                }
                Err(Error::Listen { source, .. }) if is_lacking(&source) => {
                    lacking.push((addr, source));
                }
                Err(Error::Listen { why, source, .. }) => {
                    let why = format!("{}: {why}", addr.ip());
                    return Err(Error::Listen { address: listen.address.clone(), why, source });
                }
                Err(error) => return Err(error),
            }
        }
        if listeners.is_empty() {
            let source = lacking.pop().map_or(ErrorKind::NotFound.into(), |(_, source)| source);
            return Err(Error::listen(&listen.address, source));
        }
        for (addr, _) in lacking {
            log::warn!("{host}: not listening on {}, which this machine lacks", addr.ip());
        }
        Ok((host.bound_at(bound).into(), listeners))
    }

    fn bind_one(
        listen: Listen,
        token: Token,
        limits: &Limits,
        state: &mut LoopState,
    ) -> Result<Listener, Error> {
        let address = listen.address;
        let mut socket = ListeningSocket::bind(&address, listen.unix_mode, limits)?;
        let local = socket.local_addr().map_err(|error| Error::listen(&address, error))?;
        if let Some(registry) = &state.registry {
            let registered = socket.register(registry, token.into());
            registered.map_err(|error| Error::listen(&address, error))?;
        }
        state.add_layers(&listen.layers);
        Ok(Listener {
            socket,
            address: local,
            allow: listen.allow,
            layers: listen.layers,
            token,
            ready: true,
            stuck: None,
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn ready(&mut self) {
        self.ready = true;
    }

    /// Somebody may be waiting, and there may be a descriptor.
    pub(crate) fn wants(&self, state: &LoopState) -> bool {
        self.ready && self.stuck.is_none_or(|(_, freed)| freed != state.freed)
    }

    /// The moment for another try has come.
    pub(crate) fn retry(&mut self) {
        self.stuck = None;
    }

    /// Takes its retry out of the timers.
    pub(crate) fn disarm(&mut self, timers: &mut Timers) {
        if let Some((when, _)) = self.stuck.take() {
            timers.disarm(when, self.token);
        }
    }

    /// Who comes from there may not.
    fn bars(&self, peer: SocketAddr) -> bool {
        self.allow.as_ref().is_some_and(|allowed| !allowed.contain(peer.ip()))
    }

    /// The socket's next newcomer, under all layers.
    fn next(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        let (mut stream, peer) = self.socket.accept()?;
        for layer in &self.layers {
            stream = layer.accept(stream)?;
        }
        Ok((stream, peer))
    }

    /// One newcomer; none when nobody is left or nobody can be had. Those that were gone before
    /// they could be accepted are passed over, and those that may not come. `no` gives what to say
    /// to one too many.
    pub(crate) fn accept(
        &mut self,
        timers: &mut Timers,
        state: &mut LoopState,
        no: impl FnOnce(&mut LoopState) -> Cow<'static, [u8]>,
    ) -> Option<(Stream, Option<SocketAddr>)> {
        self.disarm(timers);
        for _ in 0..PASSED_OVER {
            let error = match self.next() {
                Ok((_, Some(peer))) if self.bars(peer) => {
                    state.count_barred(&self.address, peer);
                    continue;
                }
                Ok(newcomer) => return Some(newcomer),
                Err(error) => error,
            };
            match AcceptError::of(&error) {
                AcceptError::Drained => {
                    self.ready = false;
                    return None;
                }
                AcceptError::Gone => {}
                AcceptError::Stuck => {
                    log::debug!("{}: accept: {error}", self.address);
                    let nobody = state.with_reserve(|state| match self.next() {
                        Ok((_, Some(peer))) if self.bars(peer) => {
                            state.count_barred(&self.address, peer);
                            false
                        }
                        Ok((mut stream, _)) => {
                            state.counters.refused += 1;
                            stream.turn_away(&no(state));
                            false
                        }
                        Err(error) => error.kind() == ErrorKind::WouldBlock,
                    });
                    if nobody {
                        self.ready = false;
                        return None;
                    }
                    state.starving = true;
                    let when = state.after(RETRY);
                    timers.arm(when, self.token);
                    self.stuck = Some((when, state.freed));
                    return None;
                }
            }
        }
        None
    }
}

/// This machine does not have the address, or nothing of its family.
fn is_lacking(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

/// What an error of `accept` means for the listener; see accept(2).
enum AcceptError {
    /// Nobody is waiting.
    Drained,
    /// That newcomer is gone; the next one may be fine.
    Gone,
    /// Nobody can be accepted until something is freed: no descriptor, no memory, or an error
    /// that would only repeat.
    Stuck,
}

impl AcceptError {
    fn of(error: &io::Error) -> AcceptError {
        if error.kind() == ErrorKind::WouldBlock {
            return AcceptError::Drained;
        }
        match error.raw_os_error() {
            Some(
                libc::EINTR
                | libc::ECONNABORTED
                | libc::EPROTO
                | libc::EPERM
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENOPROTOOPT,
            ) => AcceptError::Gone,
            _ => AcceptError::Stuck,
        }
    }
}

impl<H: Handler> ActiveService<H> {
    pub(crate) fn accept(&mut self, number: usize, state: &mut LoopState) {
        for _ in 0..self.table.limits.accepts_per_turn {
            if self.table.step_is_spent(state) {
                return;
            }
            let Table { limits, timers, open, name, .. } = &mut self.table;
            let no = |state: &mut LoopState| {
                farewell_text(&self.handler, Farewell::TooManyConnections, limits, name, state)
            };
            match self.listeners[number].accept(timers, state, no) {
                None => return,
                Some((mut stream, _)) if *open >= limits.max_connections => {
                    state.count_full(name, limits.max_connections);
                    stream.turn_away(&no(state));
                }
                Some((mut stream, peer)) if self.table.peer_is_full(peer) => {
                    let Table { limits, name, .. } = &self.table;
                    state.count_crowded(name, peer, limits.max_per_peer.unwrap_or_default());
                    let why = Farewell::TooManyFromPeer;
                    stream.turn_away(&farewell_text(&self.handler, why, limits, name, state));
                }
                Some((stream, peer)) => {
                    self.table.make_room();
                    self.adopt(stream, peer, state);
                }
            }
        }
    }
}
