//! Newcomers: accepted until WouldBlock, since the selector tells of them only once; and not lost
//! when they cannot be accepted now.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::closing::farewell_text;
use super::counters::Refused;
use super::fairness::{ACCEPT_RETRY, LOG_EVERY, PASSED_OVER};
use super::loop_state::LoopState;
use super::peers::{Peers, Refusal};
use super::service::ActiveService;
use super::table::Table;
use super::timers::Timers;
use super::token::Token;
use crate::connection::clock::Nanos;
use crate::error::{self, Error};
use crate::handler::{Farewell, Handler};
use crate::limits::Limits;
use crate::net::layer::Acceptor;
use crate::net::listener::ListeningSocket;
use crate::net::newcomers::{Arrivals, Distributor, Newcomer};
use crate::net::stream::Stream;
use crate::net::tcp::BACKLOG;
use crate::net::{Address, Credentials, Listen};

pub(crate) struct Listener {
    pub(super) socket: ListeningSocket,
    /// Where it listens, with the real port, and who may come.
    rules: Listen,
    /// Whether it is still bound. If not, it serves clients that had connected before.
    bound: bool,
    /// What newcomers speak, as [`Listen::all_layers`] has it.
    layers: Vec<Rc<dyn Acceptor>>,
    /// Divides newcomers among cores; none where there is but one.
    distributor: Option<Box<Distributor>>,
    /// What the selector and the timers call it.
    token: Token,
    /// A newcomer may be waiting: set by an event, cleared by WouldBlock only.
    ready: bool,
    /// Accepting failed for want of descriptors: when to try again, and how many descriptors had
    /// been freed by then.
    stuck: Option<(Nanos, u64)>,
}

impl Listener {
    /// Makes a listener, whose token is [set](Self::set_token) later.
    pub(super) fn new(socket: ListeningSocket, rules: Listen, limits: &Limits) -> Listener {
        let layers = rules.all_layers(Peers::are_limited(limits));
        Listener {
            socket,
            rules,
            bound: true,
            layers,
            distributor: None,
            token: Token::listener(0, 0),
            ready: true,
            stuck: None,
        }
    }

    /// Sets the token that the selector and the timers have for it.
    pub(super) fn set_token(&mut self, token: Token) {
        self.token = token;
    }

    /// Registers it with the selector.
    pub(super) fn register(&mut self, state: &LoopState) -> Result<(), Error> {
        let Some(registry) = &state.registry else { return Ok(()) };
        let registered = self.socket.register(registry, self.token.into());
        registered.map_err(|error| Error::listen(&self.rules.address, error))
    }

    /// Deregisters it from the selector.
    pub(super) fn deregister(&mut self, state: &LoopState) {
        if let Some(registry) = &state.registry {
            self.socket.deregister(registry);
        }
    }

    /// Replaces the rules for newcomers. If that fails, nothing has changed.
    pub(super) fn set_rules(&mut self, rules: &Listen, per_peer: bool) -> Result<(), Error> {
        self.socket.set_rules(&self.rules, rules)?;
        self.rules = self.rules.under(rules);
        self.layers = self.rules.all_layers(per_peer);
        Ok(())
    }

    /// Applies new limits to newcomers.
    pub(super) fn set_limits(&mut self, limits: &Limits) {
        self.layers = self.rules.all_layers(Peers::are_limited(limits));
        self.socket.set_options(limits);
    }

    /// Closes its socket. The clients in the system's queue are accepted before, and wait here to be served
    /// within the bounds of a turn. Those for whom there is no descriptor are lost.
    pub(super) fn unbind(&mut self, timers: &mut Timers, state: &LoopState) {
        let mut waiting = Vec::new();
        for _ in 0..=BACKLOG {
            match self.socket.accept() {
                Ok(newcomer) => waiting.push(newcomer),
                Err(error) => match AcceptError::of(&error) {
                    AcceptError::Drained => break,
                    AcceptError::Gone => {}
                    AcceptError::Stuck => {
                        let why = error::why(&error);
                        log::warn!(
                            "{}: unbinding: whoever waits there is lost: {why}",
                            self.address()
                        );
                        break;
                    }
                },
            }
        }
        self.deregister(state);
        self.disarm(timers);
        self.socket = ListeningSocket::Handed(Arrivals::of(waiting));
        (self.bound, self.ready) = (false, true);
    }

    /// Whether it can still get newcomers.
    pub(super) fn is_bound(&self) -> bool {
        self.bound
    }

    /// Whether nobody comes from it any more.
    pub(super) fn is_over(&self) -> bool {
        self.socket.is_over()
    }

    /// Divides the newcomers from now on.
    pub(super) fn share_out(&mut self, distributor: Distributor) {
        self.distributor = Some(Box::new(distributor));
    }

    /// From now on all newcomers are this core's.
    pub(super) fn keep_newcomers(&mut self) {
        self.distributor = None;
    }

    /// The step of accepting is over: wakes those who have got newcomers.
    pub(super) fn wake_others(&mut self) {
        if let Some(distributor) = &mut self.distributor {
            distributor.wake();
        }
    }

    /// Another thread has woken the loop: newcomers may have been handed over.
    pub(super) fn woken(&mut self) {
        self.ready |= matches!(self.socket, ListeningSocket::Handed(_));
    }

    pub(crate) fn address(&self) -> &Address {
        &self.rules.address
    }

    pub(super) fn unix_mode(&self) -> Option<u32> {
        self.rules.unix_mode
    }

    /// What newcomers speak.
    pub(super) fn layers(&self) -> &[Rc<dyn Acceptor>] {
        &self.layers
    }

    /// As [`Listen::is_guarded`].
    pub(super) fn is_guarded(&self) -> bool {
        self.rules.is_guarded()
    }

    pub(super) fn mark_ready(&mut self) {
        self.ready = true;
    }

    /// A newcomer may be waiting, and there may be a descriptor for it.
    pub(super) fn may_accept(&self, state: &LoopState) -> bool {
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

    /// Says why a newcomer is not allowed; none if it is.
    fn bar(&self, stream: &Stream, peer: Option<SocketAddr>) -> Option<Barred> {
        let Listen { allow, proxies, uids, .. } = &self.rules;
        // Behind a proxy, it is the proxy that comes from there.
        match (peer, proxies.as_ref().or(allow.as_ref()), uids) {
            (Some(peer), Some(networks), _) if !networks.contain(peer.ip()) => {
                Some(match proxies {
                    Some(_) => Barred::Proxy(peer.ip()),
                    None => Barred::Network(peer.ip()),
                })
            }
            // Only a Unix socket has no address.
            (None, _, Some(uids)) => match stream.credentials() {
                Some(peer) if uids.contains(&peer.uid) => None,
                Some(peer) => Some(Barred::User(peer)),
                None => Some(Barred::Unknown),
            },
            _ => None,
        }
    }

    /// Counts a newcomer that is not allowed, and hears nothing.
    fn turn_away_unheard(&self, barred: &Barred, state: &mut LoopState) {
        let log_limits = &mut state.log_limits;
        let (why, limit) = match barred {
            Barred::Proxy(_) => (Refused::NotProxied, &mut log_limits.unproxied),
            _ => (Refused::NotAllowed, &mut log_limits.barred),
        };
        if limit.allows(state.turn.now, LOG_EVERY) {
            log::warn!("{}: {barred}: turning away", self.address());
        }
        state.counters(self.token.service()).refuse(why);
    }

    /// The socket's next newcomer, under all layers; none if another core gets it, or it is not allowed.
    fn next(&mut self, state: &mut LoopState) -> io::Result<Option<(Stream, Option<SocketAddr>)>> {
        let newcomer = self.socket.accept()?;
        match &mut self.distributor {
            None => self.receive(newcomer, state),
            Some(distributor) => match distributor.distribute(newcomer) {
                None => Ok(None),
                Some(newcomer) => self.receive(newcomer, state),
            },
        }
    }

    /// A newcomer under all layers; none if it is not allowed.
    fn receive(
        &self,
        (socket, peer): Newcomer,
        state: &mut LoopState,
    ) -> io::Result<Option<(Stream, Option<SocketAddr>)>> {
        let mut stream = Stream::Socket(socket);
        if let Some(why) = self.bar(&stream, peer) {
            self.turn_away_unheard(&why, state);
            return Ok(None);
        }
        for layer in &self.layers {
            stream = layer.accept(stream)?;
        }
        Ok(Some((stream, peer)))
    }

    /// The next newcomer; none when no more are waiting or none can be accepted. Newcomers that
    /// were gone before they could be accepted are passed over, and those that are not allowed.
    /// `farewell` gives what to say to one too many.
    pub(crate) fn accept(
        &mut self,
        timers: &mut Timers,
        state: &mut LoopState,
        farewell: impl FnOnce(&mut LoopState) -> Cow<'static, [u8]>,
    ) -> Option<(Stream, Option<SocketAddr>)> {
        self.disarm(timers);
        for _ in 0..PASSED_OVER {
            let error = match self.next(state) {
                Ok(None) => continue,
                Ok(newcomer) => return newcomer,
                Err(error) => error,
            };
            match AcceptError::of(&error) {
                AcceptError::Drained => {
                    self.ready = false;
                    return None;
                }
                AcceptError::Gone => log::debug!("{}: a newcomer is gone: {error}", self.address()),
                AcceptError::Stuck => {
                    log::debug!("{}: accept: {error}", self.address());
                    let nobody = state.with_spare_descriptor(|state| {
                        let next = self.socket.accept();
                        match next.and_then(|newcomer| self.receive(newcomer, state)) {
                            Ok(None) => false,
                            Ok(Some((mut stream, _))) => {
                                let counters = state.counters(self.token.service());
                                counters.refuse(Refused::NoDescriptor);
                                stream.turn_away(&farewell(state));
                                false
                            }
                            Err(error) => error.kind() == ErrorKind::WouldBlock,
                        }
                    });
                    if nobody {
                        self.ready = false;
                        return None;
                    }
                    state.starving = true;
                    let when = state.after(ACCEPT_RETRY);
                    timers.arm(when, self.token);
                    self.stuck = Some((when, state.freed));
                    return None;
                }
            }
        }
        None
    }
}

/// Why a newcomer is not allowed, in the words of the log.
#[derive(Debug, thiserror::Error)]
enum Barred {
    #[error("{0} is in none of the allowed networks")]
    Network(IpAddr),
    #[error("{0} is in none of the networks whose proxies are believed")]
    Proxy(IpAddr),
    #[error("{0} is none of the allowed users")]
    User(Credentials),
    #[error("the system does not say who has come")]
    Unknown,
}

/// What an error of `accept` means for the listener; see accept(2).
enum AcceptError {
    /// No newcomer is waiting.
    Drained,
    /// The newcomer is gone; the next one may be fine.
    Gone,
    /// No newcomer can be accepted until something is freed: no descriptor, no memory, or an error
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
            // The system's errors have a number: this is one of a layer, which has dropped it.
            None => AcceptError::Gone,
            Some(_) => AcceptError::Stuck,
        }
    }
}

impl<H: Handler> ActiveService<H> {
    /// Accepts what one listener has, up to `accepts_per_turn`.
    pub(super) fn accept(&mut self, number: usize, state: &mut LoopState) {
        for _ in 0..self.table.limits.accepts_per_turn {
            if state.turn.step_is_spent() {
                return;
            }
            let Table { limits, timers, name, .. } = &mut self.table;
            let farewell = |state: &mut LoopState| {
                farewell_text(&self.handler, Farewell::TooManyConnections, limits, name, state)
            };
            let newcomer = self.listeners[number].accept(timers, state, farewell);
            let Some((mut stream, peer)) = newcomer else {
                return self.drop_listener(number, state);
            };
            // If a handshake is to name the peer, it is judged after that.
            let known = peer.filter(|_| !stream.names_peer());
            match self.judge(known, state) {
                Some(refusal) => stream.turn_away(&self.refuse(refusal, state)),
                None => {
                    self.table.make_room();
                    self.admit(stream, peer, state);
                }
            }
        }
    }

    /// Asks the limits of newcomers whether one more may come from there. If so, its place is taken.
    pub(super) fn judge(
        &mut self,
        peer: Option<SocketAddr>,
        state: &mut LoopState,
    ) -> Option<Refusal> {
        let most = self.table.limits.max_connections;
        if self.table.places.are_full(most) {
            self.free_place(state);
        }
        if !self.table.places.take(most) {
            return Some(Refusal::Full(most));
        }
        let refusal = self.table.peers.judge(peer, self.table.service, state);
        if refusal.is_some() {
            self.table.places.free();
        }
        refusal
    }

    /// Counts a newcomer that is turned away, and gives what to say to it.
    pub(super) fn refuse(&self, refusal: Refusal, state: &mut LoopState) -> Cow<'static, [u8]> {
        let Table { limits, name, .. } = &self.table;
        let log_limits = &mut state.log_limits;
        let (why, limit, counted) = match refusal {
            Refusal::Full(_) => (Farewell::TooManyConnections, &mut log_limits.full, Refused::Full),
            Refusal::TooMany(..) => {
                (Farewell::TooManyFromPeer, &mut log_limits.crowded, Refused::PerPeer)
            }
            Refusal::TooFast(_) => {
                (Farewell::ConnectingTooFast, &mut log_limits.hasty, Refused::ConnectRate)
            }
        };
        if limit.allows(state.turn.now, LOG_EVERY) {
            log::warn!("{name}: {refusal}: turning away");
        }
        state.counters(self.table.service).refuse(counted);
        farewell_text(&self.handler, why, limits, name, state)
    }
}

#[cfg(test)]
mod tests;
