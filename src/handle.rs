use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::Address;

/// What handles on other threads and the loop share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// None in tests, where nothing sleeps.
    pub(crate) waker: Option<mio::Waker>,
    woken: AtomicBool,
    stop: AtomicBool,
    /// Nothing that is posted will be looked at any more.
    ended: AtomicBool,
}

impl Shared {
    pub(crate) fn new(waker: mio::Waker) -> Shared {
        Shared { waker: Some(waker), ..Shared::default() }
    }

    /// Wakes the loop, with one system call however many ask for it.
    fn wake(&self) {
        if !self.woken.swap(true, Ordering::SeqCst)
            && let Some(waker) = &self.waker
            && let Err(error) = waker.wake()
        {
            self.woken.store(false, Ordering::SeqCst);
            log::error!("cannot wake the reactor: {error}");
        }
    }

    /// To be called before the mailboxes are looked at: what is posted after this wakes again.
    pub(crate) fn awake(&self) {
        self.woken.store(false, Ordering::SeqCst);
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    pub(crate) fn stop_asked(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

/// Reaches a handler from any thread: posts messages to it, or stops the reactor.
///
/// This is how blocking work is done without blocking the loop: a thread pool does it and posts
/// the answer back, to [`Handler::on_message`](crate::Handler::on_message).
pub struct Handle<M> {
    sender: Sender<M>,
    shared: Arc<Shared>,
}

impl<M> Handle<M> {
    /// Queues a message for the handler and wakes the loop. Never blocks; messages of one thread
    /// arrive in their order. The queue has no limit: who posts faster than the handler works
    /// fills the memory.
    ///
    /// # Errors
    /// Gives the message back when the reactor has ended or is gone.
    pub fn post(&self, message: M) -> Result<(), M> {
        if self.shared.ended.load(Ordering::SeqCst) {
            return Err(message);
        }
        self.sender.send(message).map_err(|error| error.0)?;
        self.shared.wake();
        Ok(())
    }

    /// Asks the reactor for a graceful shutdown; nothing happens when it is gone already.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake();
    }
}

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Handle { sender: self.sender.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<M> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// One handler in a reactor: the key that [`Reactor::listen`](crate::Reactor::listen) and
/// [`Reactor::datagrams`](crate::Reactor::datagrams) give, to learn the address, to post to the
/// handler and to dial out in its name.
pub struct Service<M> {
    pub(crate) index: usize,
    pub(crate) address: Option<Address>,
    pub(crate) handle: Handle<M>,
}

impl<M> Service<M> {
    /// Where it listens; the real port where port 0 was asked for. None for a service that was
    /// [added](crate::Reactor::add) without a listener.
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// The port it listens on; 0 for a Unix socket and without a listener.
    pub fn port(&self) -> u16 {
        self.address.as_ref().and_then(Address::as_socket).map_or(0, |addr| addr.port())
    }

    /// A handle for other threads. A handler that starts threads itself borrows a place for it,
    /// as a `OnceCell` that is filled before [`run`](crate::Reactor::run); where
    /// [`on_listening`](crate::Handler::on_listening) is to find it, [add](crate::Reactor::add)
    /// the service, fill it, then [bind](crate::Reactor::bind).
    pub fn handle(&self) -> Handle<M> {
        self.handle.clone()
    }
}

impl<M> Clone for Service<M> {
    fn clone(&self) -> Self {
        Service { address: self.address.clone(), handle: self.handle.clone(), ..*self }
    }
}

impl<M> fmt::Debug for Service<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({self})")
    }
}

/// Where it listens, as `127.0.0.1:2323`.
impl<M> fmt::Display for Service<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("no listener"),
        }
    }
}

/// The loop's end of a handle.
#[derive(Debug)]
pub(crate) struct Mailbox<M>(Receiver<M>);

impl<M> Mailbox<M> {
    pub(crate) fn new(shared: &Arc<Shared>) -> (Mailbox<M>, Handle<M>) {
        let (sender, receiver) = channel();
        (Mailbox(receiver), Handle { sender, shared: Arc::clone(shared) })
    }

    /// Without handles left it is empty for good, which is no error.
    pub(crate) fn next(&self) -> Option<M> {
        self.0.try_recv().ok()
    }
}
