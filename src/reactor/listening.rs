//! The listeners of a service: how they are added, changed and removed.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use super::accepting::Listener;
use super::fairness::PORTS_TRIED;
use super::loop_state::LoopState;
use super::peers::Peers;
use super::service::ActiveService;
use super::token::Token;
use crate::error::Error;
use crate::handler::Handler;
use crate::limits::Limits;
use crate::net::listen::ListenElsewhere;
use crate::net::listener::ListeningSocket;
use crate::net::newcomers::Arrivals;
use crate::net::{Address, Host, Listen};

/// New listeners of a service.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The address, with the real port.
    pub(crate) local: Address,
    /// The numbers of the listeners and their addresses: one, or several for a host.
    pub(crate) listeners: Vec<(usize, Address)>,
}

/// A listener on its way to a core that gets its share of the newcomers.
pub(crate) struct Share {
    pub(crate) listen: ListenElsewhere,
    pub(crate) arrivals: Arrivals,
}

impl Share {
    /// It has arrived.
    pub(super) fn listener(self, limits: &Limits) -> Listener {
        Listener::new(ListeningSocket::Handed(self.arrivals), self.listen.here(), limits)
    }
}

impl Listener {
    /// Makes one listener, or one for each address of a host, and gives the address in force.
    pub(super) fn bind(
        listen: Listen,
        limits: &Limits,
        state: &mut LoopState,
    ) -> Result<(Address, Vec<Listener>), Error> {
        let listen = Listen { address: listen.address.resolve()?, ..listen };
        let Address::Host(host) = &listen.address else {
            let listener = Listener::bind_one(listen, limits, state)?;
            return Ok((listener.address().clone(), vec![listener]));
        };
        let mut tries = if host.port() == 0 { PORTS_TRIED } else { 1 };
        loop {
            tries -= 1;
            match Listener::bind_each(&listen, host, limits, state) {
                // The port was free for one family and not for the other.
                Err(Error::Listen { source, .. })
                    if source.kind() == ErrorKind::AddrInUse && tries > 0 => {}
                outcome => return outcome,
            }
        }
    }

    /// Listens on all addresses of a host that this machine has, at one port.
    fn bind_each(
        listen: &Listen,
        host: &Host,
        limits: &Limits,
        state: &mut LoopState,
    ) -> Result<(Address, Vec<Listener>), Error> {
        let (mut listeners, mut bound, mut lacking) = (Vec::new(), Vec::new(), Vec::new());
        for addr in host.addresses() {
            let mut addr = *addr;
            addr.set_port(bound.first().map_or(addr.port(), SocketAddr::port));
            let one = Listen { address: Address::Tcp(addr), ..listen.clone() };
            match Listener::bind_one(one, limits, state) {
                Ok(listener) => {
                    bound.extend(listener.address().as_socket());
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

    fn bind_one(listen: Listen, limits: &Limits, state: &mut LoopState) -> Result<Listener, Error> {
        let socket = state.listening_socket(&listen, limits)?;
        let local = socket.local_addr().map_err(|error| Error::listen(&listen.address, error))?;
        Ok(Listener::new(socket, Listen { address: local, ..listen }, limits))
    }
}

/// This machine does not have the address, or no address of its family.
fn is_lacking(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

impl<H: Handler> ActiveService<H> {
    pub(super) fn begin_to_listen(
        &mut self,
        listen: Listen,
        state: &mut LoopState,
    ) -> Result<Bound, Error> {
        let (local, listeners) = Listener::bind(listen, &self.table.limits, state)?;
        let mut numbers = Vec::new();
        for listener in listeners {
            numbers.push(self.put_listener(listener));
        }
        let mut each = numbers.iter();
        if let Err(error) = each.try_for_each(|number| self.listeners[*number].register(state)) {
            numbers.into_iter().for_each(|number| drop(self.listeners.remove(number)));
            return Err(error);
        }
        self.tell_of_listeners(&numbers, state);
        let address = |number| (number, self.listeners[number].address().clone());
        Ok(Bound { local, listeners: numbers.into_iter().map(address).collect() })
    }

    pub(super) fn take_over_listener(&mut self, share: Share, state: &mut LoopState) {
        let number = self.put_listener(share.listener(&self.table.limits));
        self.tell_of_listeners(&[number], state);
    }

    /// Gives a listener its place, and with that its token.
    fn put_listener(&mut self, mut listener: Listener) -> usize {
        let place = self.listeners.vacant_entry();
        let number = place.key();
        listener.set_token(Token::listener(self.table.service, number));
        place.insert(listener);
        number
    }

    /// Tells the handler of these listeners.
    fn tell_of_listeners(&mut self, numbers: &[usize], state: &mut LoopState) {
        self.note_guard(state);
        for number in numbers {
            let local = self.listeners[*number].address().clone();
            self.call_service(state, |handler, cx| handler.on_listening(cx, &local));
        }
    }

    /// Notes whether all listeners ask who comes. When the last one is gone, the note stays as it is: without
    /// a listener nobody gets in anyway.
    fn note_guard(&self, state: &mut LoopState) {
        let mut there =
            self.listeners.iter().filter(|(_, listener)| listener.is_bound()).peekable();
        if there.peek().is_some() {
            let guarded = there.all(|(_, listener)| listener.is_guarded());
            state.services[self.table.service].guarded = guarded;
        }
    }

    /// The numbers of the listeners at an address: one, or several for a host.
    fn listeners_at(&self, address: &Address) -> Result<Vec<usize>, Error> {
        let mut bound = self.listeners.iter().filter(|(_, listener)| listener.is_bound());
        let is_at = |listener: &Listener| match (address, listener.address()) {
            (Address::Host(host), Address::Tcp(addr)) => host.addresses().contains(addr),
            (wanted, address) => wanted == address,
        };
        let found: Vec<_> = bound
            .clone()
            .filter(|(_, listener)| is_at(listener))
            .map(|(number, _)| number)
            .collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let all = bound.by_ref().map(|(_, listener)| listener.address().to_string());
        let all = all.collect::<Vec<_>>().join(", ");
        let name = &self.table.name;
        let why = match all.is_empty() {
            true => format!("{name} listens nowhere; bind it"),
            false => format!("{name} listens on {all}"),
        };
        Err(Error::NotListening { address: address.clone(), why })
    }

    pub(super) fn end_listening(
        &mut self,
        address: &Address,
        state: &mut LoopState,
    ) -> Result<(), Error> {
        for number in self.listeners_at(address)? {
            self.listeners[number].unbind(&mut self.table.timers, state);
        }
        self.note_guard(state);
        Ok(())
    }

    /// Forgets a listener from which nobody comes any more.
    pub(super) fn drop_listener(&mut self, number: usize, state: &mut LoopState) {
        if self.listeners[number].is_over() {
            self.listeners.remove(number).disarm(&mut self.table.timers);
            self.note_guard(state);
        }
    }

    pub(super) fn listen_otherwise(
        &mut self,
        listen: &Listen,
        state: &mut LoopState,
    ) -> Result<Bound, Error> {
        let per_peer = Peers::are_limited(&self.table.limits);
        let mut listeners = Vec::new();
        // Only a Unix socket, which is a single one, may refuse.
        for number in self.listeners_at(&listen.address)? {
            self.listeners[number].set_rules(listen, per_peer)?;
            listeners.push((number, self.listeners[number].address().clone()));
        }
        self.note_guard(state);
        Ok(Bound { local: listen.address.clone(), listeners })
    }
}
