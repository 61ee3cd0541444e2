//! How other threads reach the loop: a mailbox for each service, its handles, and what wakes the
//! loop. Also [`Service`], the key that has a handle in it.

use std::fmt;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::net::Address;

/// What handles on other threads and the loop share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// None in tests, where nothing sleeps.
    waker: Option<mio::Waker>,
    /// The loop was woken and has not noticed yet: once is enough.
    woken: AtomicBool,
    /// A shutdown was asked for.
    stop: AtomicBool,
    /// The reactor has ended: nothing that is posted will be looked at any more.
    ended: AtomicBool,
    /// The counts of all mailboxes. Only a stop and a new service lock them.
    counts: Mutex<Vec<Arc<Count>>>,
}

impl Shared {
    pub(crate) fn new(waker: mio::Waker) -> Shared {
        Shared { waker: Some(waker), ..Shared::default() }
    }

    /// Wakes the loop, with one system call however many ask for it.
    pub(crate) fn wake(&self) {
        if !self.woken.swap(true, SeqCst)
            && let Some(waker) = &self.waker
            && let Err(error) = waker.wake()
        {
            self.woken.store(false, SeqCst);
            log::error!("cannot wake the reactor: {error}");
        }
    }

    /// The loop has noticed that it was woken. Called before the mailboxes are looked at, so that
    /// what is posted after that wakes the loop again.
    pub(super) fn awake(&self) {
        self.woken.store(false, SeqCst);
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, SeqCst);
    }

    /// Asks for a shutdown, which comes after all that has been posted to any service before.
    pub(crate) fn stop(&self) {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().for_each(|count| count.before_stop.store(count.posted.load(SeqCst), SeqCst));
        self.stop.store(true, SeqCst);
    }

    pub(crate) fn stop_asked(&self) -> bool {
        self.stop.load(SeqCst)
    }
}

/// Counts the messages of one mailbox.
#[derive(Debug)]
struct Count {
    /// Posted so far. A message counts before it is in the queue, so that the loop cannot take one
    /// that does not.
    posted: AtomicU64,
    /// Taken by the loop so far.
    taken: AtomicU64,
    /// How many come before the shutdown; all that ever come while none was asked for.
    before_stop: AtomicU64,
}

impl Count {
    fn waiting(&self) -> u64 {
        let taken = self.taken.load(SeqCst);
        self.posted.load(SeqCst).saturating_sub(taken)
    }

    /// A shutdown was asked for, and some messages that come before it are still to be taken.
    fn delays_shutdown(&self) -> bool {
        let before = self.before_stop.load(SeqCst);
        before != u64::MAX && self.taken.load(SeqCst) < before
    }

    /// Counts one more message, unless `most` are waiting already.
    fn reserve(&self, most: u64) -> bool {
        let more = |posted: u64| {
            let waiting = posted.saturating_sub(self.taken.load(SeqCst));
            (waiting < most).then_some(posted + 1)
        };
        self.posted.fetch_update(SeqCst, SeqCst, more).is_ok()
    }
}

/// The identity of a service, which no other service gets, not even once this one is gone.
#[derive(Clone, Debug)]
pub(crate) struct Identity(Arc<Count>);

impl PartialEq for Identity {
    fn eq(&self, other: &Identity) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Identity {
    /// How many messages wait for it.
    pub(crate) fn waiting(&self) -> u64 {
        self.0.waiting()
    }

    /// A shutdown was asked for, and some messages that come before it are still to be taken.
    pub(crate) fn delays_shutdown(&self) -> bool {
        self.0.delays_shutdown()
    }
}

/// Reaches a handler from any thread: posts messages to it, or stops the reactor.
///
/// This is how blocking work is done without blocking the loop: a thread pool does it and posts
/// the answer back, to [`Handler::on_message`](crate::Handler::on_message).
///
/// What one thread does with the handles of a reactor has one order: a stop comes after the
/// messages that it has posted before, to whichever services.
///
/// # Examples
///
/// Each line is worked on by a thread, while its connection waits and the others go on:
///
/// ```
/// use std::sync::mpsc::{Sender, channel};
///
/// use reactor::{ConnId, Context, Handler, Reactor, ServiceContext};
///
/// struct Words {
///     jobs: Sender<(ConnId, Vec<u8>)>,
/// }
///
/// impl Handler for Words {
///     type Session = ();
///     type Message = (ConnId, usize);
///
///     fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
///         if self.jobs.send((cx.id(), line.to_vec())).is_ok() {
///             cx.pause(); // its next line waits for this answer, and so does its end
///         }
///     }
///
///     fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, (id, count): (ConnId, usize)) {
///         cx.reply_to(id, format!("{count}\n"));
///         if let Some(mut client) = cx.connection(id) {
///             client.resume();
///         } // else it has gone meanwhile
///     }
/// }
///
/// let (jobs, work) = channel();
/// let mut reactor = Reactor::new()?;
/// let service = reactor.listen("127.0.0.1:0", Words { jobs })?;
/// let handle = service.handle();
/// std::thread::spawn(move || {
///     for (id, line) in work {
///         let count = line.split(|byte| *byte == b' ').count(); // or what takes long
///         if handle.post((id, count)).is_err() {
///             return; // the reactor has ended
///         }
///     }
/// });
/// # service.handle().stop();
/// reactor.run()?;
/// # Ok::<(), reactor::Error>(())
/// ```
pub struct Handle<M> {
    sender: Sender<M>,
    count: Arc<Count>,
    shared: Arc<Shared>,
}

impl<M> Handle<M> {
    /// Queues a message for the handler and wakes the loop. Never blocks; messages of one thread
    /// arrive in their order. The queue has no limit: a thread that posts faster than the handler
    /// works fills the memory; see [`try_post`](Self::try_post).
    ///
    /// # Errors
    /// Gives the message back when the reactor has ended or is gone, or the service was
    /// [removed](crate::Reactor::remove) and is gone.
    pub fn post(&self, message: M) -> Result<(), M> {
        self.count.posted.fetch_add(1, SeqCst);
        self.send(message)
    }

    /// As [`post`](Self::post), unless `most` messages of any thread wait for this handler. One that
    /// `on_message` has been called for waits no more. With a `most` of 0 every message is refused.
    /// `post` heeds no bound, but what it has posted counts here.
    ///
    /// There is no post that waits for room: on the loop's own thread it would wait for itself. Another
    /// thread tries again later, or waits for a token that
    /// [`on_message`](crate::Handler::on_message) gives back to it.
    ///
    /// It is the handler's queue that is bounded. What the handler sends on to a server that does not
    /// read is bounded by the [connection](crate::client#backpressure).
    ///
    /// # Errors
    /// [`TryPostError::Full`] where so many wait, and [`TryPostError::Gone`] when the reactor or the service
    /// is gone. Both give the message back.
    pub fn try_post(&self, message: M, most: usize) -> Result<(), TryPostError<M>> {
        if self.shared.ended.load(SeqCst) {
            return Err(TryPostError::Gone(message));
        }
        if !self.count.reserve(most as u64) {
            return Err(TryPostError::Full(message));
        }
        self.send(message).map_err(TryPostError::Gone)
    }

    /// As [`post`](Self::post), for who wakes the loop itself after this.
    pub(crate) fn leave(&self, message: M) -> Result<(), M> {
        self.count.posted.fetch_add(1, SeqCst);
        self.put(message)
    }

    /// The identity of the mailbox that it posts to.
    pub(crate) fn identity(&self) -> Identity {
        Identity(Arc::clone(&self.count))
    }

    /// Sends a message that is counted already.
    fn send(&self, message: M) -> Result<(), M> {
        self.put(message)?;
        self.shared.wake();
        Ok(())
    }

    fn put(&self, message: M) -> Result<(), M> {
        let ended = self.shared.ended.load(SeqCst);
        let sent = if ended { Err(message) } else { self.sender.send(message).map_err(|e| e.0) };
        if sent.is_err() {
            self.count.posted.fetch_sub(1, SeqCst);
        }
        sent
    }

    /// How many messages of any thread wait for the handler: how far it is behind.
    pub fn len(&self) -> usize {
        usize::try_from(self.count.waiting()).unwrap_or(usize::MAX)
    }

    /// Whether no message waits for the handler.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks the reactor for a graceful shutdown; nothing happens when it is gone already.
    ///
    /// It begins for newcomers, which are let in no more. For the others it does when the messages
    /// that were posted before, to any of its services, have been handled, or the
    /// [time for it](crate::Reactor::set_shutdown_timeout) is over; what was posted later may not
    /// be handled any more. [`Counters::messages_lost`](crate::Counters::messages_lost) tells.
    ///
    /// A message is handled once [`on_message`](crate::Handler::on_message) has been called for it. A
    /// connection that is still being dialled then ends without having been open, and what was to be
    /// sent over it is lost: a client that must deliver stops the reactor itself, when it has sent.
    pub fn stop(&self) {
        self.shared.stop();
        self.shared.wake();
    }
}

/// Why a message was [not posted](Handle::try_post): it is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TryPostError<M> {
    /// So many wait that this one has no room now.
    #[error("the handler is behind: its queue is full")]
    Full(M),
    /// The reactor has ended or is gone, or the service was removed.
    #[error("the reactor has ended, or the service was removed")]
    Gone(M),
}

impl<M> TryPostError<M> {
    /// The message.
    pub fn into_message(self) -> M {
        match self {
            TryPostError::Full(message) | TryPostError::Gone(message) => message,
        }
    }
}

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Handle {
            sender: self.sender.clone(),
            count: Arc::clone(&self.count),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<M> fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// The key to one handler in a reactor, which [`Reactor::listen`](crate::Reactor::listen) and
/// [`Reactor::datagrams`](crate::Reactor::datagrams) give: to learn the address, to post to the
/// handler, to dial out in its name, and to change the service while the loop runs.
///
/// Once the service was [removed](crate::Reactor::remove), the key is no key to any other: methods of the reactor
/// give [`Error::Removed`](crate::Error::Removed) or do nothing.
pub struct Service<M> {
    pub(crate) index: usize,
    pub(crate) address: Option<Address>,
    pub(crate) handle: Handle<M>,
}

impl<M> Service<M> {
    /// Where `listen` has had it listen, with the real port where port 0 was asked for. None for a service
    /// that was [added](crate::Reactor::add) without a listener. Later changes do not show here:
    /// [`bind`](crate::Reactor::bind) returns its address, and [`status`](crate::Reactor::status) has all.
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// The port it listens on; 0 for a Unix socket and without a listener.
    pub fn port(&self) -> u16 {
        self.address.as_ref().and_then(Address::as_socket).map_or(0, |addr| addr.port())
    }

    /// A handle for other threads. A handler that starts threads itself borrows a place for it,
    /// as a `OnceCell` that is filled before [`run`](crate::Reactor::run), so that
    /// [`on_start`](crate::Handler::on_start) finds it.
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
pub(crate) struct Mailbox<M> {
    receiver: Receiver<M>,
    pub(crate) inbox: Inbox,
}

/// What a mailbox holds, but for the messages themselves.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// There may be some: set by the waker, cleared when none was found.
    pub(crate) marked: bool,
    /// Shared with the handles.
    count: Arc<Count>,
    /// The shutdown has begun: there is no order to keep any more.
    stopped: bool,
}

impl<M> Mailbox<M> {
    pub(crate) fn new(shared: &Arc<Shared>) -> (Mailbox<M>, Handle<M>) {
        let (sender, receiver) = channel();
        let (posted, taken) = Default::default();
        let count = Arc::new(Count { posted, taken, before_stop: AtomicU64::new(u64::MAX) });
        let mut counts = shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        // The mailboxes of services that could not listen, or were removed, have no other owner.
        counts.retain(|count| Arc::strong_count(count) > 1);
        counts.push(Arc::clone(&count));
        drop(counts);
        let handle = Handle { sender, count: Arc::clone(&count), shared: Arc::clone(shared) };
        (Mailbox { receiver, inbox: Inbox { marked: false, count, stopped: false } }, handle)
    }

    /// Whose it is.
    pub(crate) fn identity(&self) -> Identity {
        Identity(Arc::clone(&self.inbox.count))
    }

    /// The next message, unless it has to wait for the shutdown. Without handles left there is none
    /// for good, which is no error.
    pub(crate) fn next(&mut self) -> Option<M> {
        let Inbox { marked, count, stopped } = &mut self.inbox;
        let may = *stopped || count.taken.load(SeqCst) < count.before_stop.load(SeqCst);
        let message = if may { self.receiver.try_recv().ok() } else { None };
        match message {
            Some(_) => _ = count.taken.fetch_add(1, SeqCst),
            None => *marked = false,
        }
        message
    }
}

impl Inbox {
    /// A mailbox that nobody posts to.
    pub(crate) fn of_nobody() -> Inbox {
        let (posted, taken, before_stop) = Default::default();
        let count = Arc::new(Count { posted, taken, before_stop });
        Inbox { marked: false, count, stopped: true }
    }

    /// Begins the removal of the service, which comes after all messages that were posted before.
    pub(crate) fn retire(&mut self) {
        self.count.before_stop.store(self.count.posted.load(SeqCst), SeqCst);
        // Messages that this thread itself has posted have not woken the loop yet.
        self.marked = true;
    }

    /// A shutdown was asked for, and some messages that come before it are still to be taken.
    pub(crate) fn delays_shutdown(&self) -> bool {
        self.count.delays_shutdown()
    }

    /// The shutdown begins: what was posted after it was asked for may be taken too.
    pub(crate) fn stop(&mut self) {
        (self.stopped, self.marked) = (true, true);
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.count.waiting()
    }
}

/// Messages that nobody has taken are counted as waiting no more.
impl Drop for Inbox {
    fn drop(&mut self) {
        self.count.taken.fetch_max(self.count.posted.load(SeqCst), SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Callbacks, Reactor};

    #[test]
    fn a_service_that_cannot_listen_leaves_no_count() {
        let mut reactor = Reactor::new().unwrap();
        let service = reactor.listen("127.0.0.1:0", Callbacks::new()).unwrap();
        for _ in 0..10 {
            reactor.listen(service.address().unwrap(), Callbacks::new()).unwrap_err();
        }
        let last = reactor.listen("127.0.0.1:0", Callbacks::new()).unwrap();
        let shared = &last.handle.shared;
        assert_eq!(shared.counts.lock().unwrap().len(), 2);
    }
}
