//! Connecting to a host by its name: looking it up on a thread, then its addresses in turn, under
//! one connection that is not open yet (RFC 8305).

use std::io::{self, ErrorKind, PipeReader};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use super::layer::{Layer, Opened, refuse_input_and_output};
use super::stream::Stream;
use super::{Address, Host};
use crate::connection::clock::{Nanos, nanos};
use crate::error::Error;
use crate::limits::Limits;

/// How long the next attempt waits for one that neither succeeds nor fails, as RFC 8305 recommends.
const NEXT_AFTER: Duration = Duration::from_millis(250);

/// A dial by name. The first attempt that connects takes its place.
pub(super) struct Dialling {
    host: Host,
    source: Option<IpAddr>,
    /// Whose options each attempt gets.
    limits: Option<Limits>,
    /// Where everything is watched, under the connection's own token.
    watch: Option<(Rc<Registry>, mio::Token)>,
    lookup: Option<Lookup>,
    /// How many addresses have been tried.
    tried: usize,
    /// Those under way.
    attempts: Vec<(SocketAddr, Stream)>,
    /// When the next address is tried even if none fails before.
    next: Nanos,
    /// What to report if no address is left to try.
    error: Option<io::Error>,
}

impl Dialling {
    /// Begins with the first step of the handshake.
    pub(super) fn new(host: &Host, source: Option<IpAddr>) -> Dialling {
        Dialling {
            host: host.clone(),
            source,
            limits: None,
            watch: None,
            lookup: None,
            tried: 0,
            attempts: Vec::new(),
            // At once: the loop counts from 1, and 0 is "no deadline" to it.
            next: 1,
            error: None,
        }
    }

    /// Moves it on: the connection once it is there, none while that may still come.
    fn advance(
        &mut self,
        now: Nanos,
        spent: &mut Nanos,
    ) -> io::Result<Option<(SocketAddr, Stream)>> {
        if !self.host.is_known() && !self.look_up()? {
            return Ok(None);
        }
        let mut failed = self.attempts.is_empty();
        let mut number = 0;
        while let Some((_, stream)) = self.attempts.get_mut(number) {
            match stream.handshake(now, spent) {
                Ok(Some(_)) => return Ok(Some(self.attempts.swap_remove(number))),
                Ok(None) => number += 1,
                Err(error) => {
                    self.attempts.remove(number);
                    self.note(error);
                    failed = true;
                }
            }
        }
        while (failed || self.next <= now) && self.tried < self.host.addresses().len() {
            let addr = self.host.addresses()[self.tried];
            self.tried += 1;
            match self.attempt(addr) {
                Ok(stream) => {
                    self.attempts.push((addr, stream));
                    self.next = now.saturating_add(nanos(NEXT_AFTER));
                    failed = false;
                }
                Err(error) => self.note(error),
            }
        }
        match self.attempts.is_empty() {
            true => Err(self.error.take().unwrap_or(ErrorKind::NotFound.into())),
            false => Ok(None),
        }
    }

    fn attempt(&self, addr: SocketAddr) -> io::Result<Stream> {
        if self.source.is_some_and(|source| source.is_ipv4() != addr.is_ipv4()) {
            return Err(ErrorKind::AddrNotAvailable.into());
        }
        let mut stream = Stream::connect(self.source, &Address::Tcp(addr))?;
        if let Some(limits) = &self.limits {
            stream.set_options(limits);
        }
        if let Some((registry, token)) = &self.watch {
            stream.register(registry, *token)?;
        }
        Ok(stream)
    }

    /// Keeps the most telling error: that of an address that was reached, if there is one.
    fn note(&mut self, error: io::Error) {
        use ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable};
        let unreachable = |error: &io::Error| {
            matches!(error.kind(), AddrNotAvailable | HostUnreachable | NetworkUnreachable)
        };
        if self.error.as_ref().is_none_or(unreachable) {
            self.error = Some(error);
        }
    }

    /// Says whether the host's addresses are known now.
    fn look_up(&mut self) -> io::Result<bool> {
        let Some(lookup) = &self.lookup else {
            self.lookup = Some(Lookup::start(&self.host, self.watch.as_ref())?);
            return Ok(false);
        };
        match lookup.answer.try_recv() {
            Ok(Ok(host)) => self.host = host,
            Ok(Err(error)) => return Err(io::Error::new(ErrorKind::NotFound, error.to_string())),
            Err(TryRecvError::Empty) => return Ok(false),
            Err(TryRecvError::Disconnected) => return Err(ErrorKind::NotFound.into()),
        }
        self.lookup = None;
        Ok(true)
    }
}

impl Layer for Dialling {
    /// Nothing is there to be watched before the first step.
    fn register(&mut self, registry: &Rc<Registry>, token: mio::Token) -> io::Result<()> {
        self.watch = Some((Rc::clone(registry), token));
        Ok(())
    }

    fn handshake(&mut self, now: Nanos, spent: &mut Nanos) -> io::Result<Option<Opened>> {
        let first = self.advance(now, spent)?;
        Ok(first.map(|(peer, stream)| Opened { peer: Some(peer), instead: Some(stream) }))
    }

    fn due(&self) -> Option<Nanos> {
        let begun = self.host.is_known() || self.lookup.is_some();
        (!begun || self.tried < self.host.addresses().len()).then_some(self.next)
    }

    fn host(&self) -> Option<&Host> {
        Some(&self.host)
    }

    fn set_options(&mut self, limits: &Limits) {
        self.limits = Some(limits.clone());
    }

    /// An attempt that fails leaves the others.
    fn fails_as_one(&self) -> bool {
        false
    }
}

refuse_input_and_output!(Dialling);

/// The system's resolver at work on a thread, which ends with its answer, wanted or not.
struct Lookup {
    answer: Receiver<Result<Host, Error>>,
    /// At its end once there is an answer.
    _bell: PipeReader,
}

impl Lookup {
    fn start(host: &Host, watch: Option<&(Rc<Registry>, mio::Token)>) -> io::Result<Lookup> {
        let (bell, ringer) = io::pipe()?;
        if let Some((registry, token)) = watch {
            registry.register(&mut SourceFd(&bell.as_raw_fd()), *token, Interest::READABLE)?;
        }
        let (tell, answer) = channel();
        let host = host.clone();
        thread::Builder::new().name("lookup".to_owned()).spawn(move || {
            // Nobody may want to know any more.
            let _ = tell.send(host.resolve());
            drop(ringer);
        })?;
        Ok(Lookup { answer, _bell: bell })
    }
}
