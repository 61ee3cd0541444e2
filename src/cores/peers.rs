//! What the handlers of a service on several cores say to each other.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use crate::handler::Context;
use crate::reactor::Handle;
use crate::reactor::handle::Identity;

/// Messages that may wait for a handler before who sends it more is held back: a turn's worth.
const AHEAD: usize = 1024;

/// How many may wait when those go on.
const CAUGHT_UP: usize = AHEAD / 2;

/// What a core is told of itself when it makes its handler; see [`Cores::listen`](crate::Cores::listen).
/// A handler keeps what it needs of it: its number, its [peers](Self::peers), or its own
/// [handle](Self::handle), to which others post their answers.
pub struct Core<M> {
    index: usize,
    peers: Peers<M>,
}

/// The handlers of one service on all cores, as one of them sees the others: to post messages to, which
/// arrive at their [`on_message`](crate::Handler::on_message).
///
/// Messages of one core arrive at another one in their order, and none is lost unless that core ends.
/// However many are posted in a turn, each core is woken once, when the turn is over.
///
/// A queue is bounded by holding back who fills it: with more than 1,024 messages waiting for a handler,
/// the connection on whose behalf another one was [posted](Self::post) is not read until that handler has
/// taken half of them. So there are never more than that and what one read of each connection brings.
pub struct Peers<M> {
    own: usize,
    handles: Rc<[Handle<M>]>,
    others: Rc<Others>,
}

/// What one core has to do for the others after the turn, on behalf of all its services.
#[derive(Default)]
pub(super) struct Others {
    /// Those to wake.
    wake: Vec<Cell<bool>>,
    /// How many messages wait where, for the queues that this core posts to, its own too.
    queues: RefCell<Vec<(usize, Identity)>>,
}

impl<M> Core<M> {
    pub(super) fn new(index: usize, handles: Vec<Handle<M>>, others: &Rc<Others>) -> Core<M> {
        let others = Rc::clone(others);
        Core { index, peers: Peers { own: index, handles: handles.into(), others } }
    }

    /// Which one it is: the first is 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.peers.handles.len()
    }

    /// The way to the handler on this core, from any thread.
    pub fn handle(&self) -> Handle<M> {
        self.peers.handles[self.index].clone()
    }

    /// The way to the handlers on the other cores.
    pub fn peers(&self) -> Peers<M> {
        self.peers.clone()
    }
}

impl<M> Peers<M> {
    /// Posts to the handler on one core, which may be this one, on behalf of a connection: if that core
    /// is behind, no more input of the connection is handled until it has caught up. (A core that is alone
    /// holds nobody back.)
    ///
    /// # Errors
    /// Gives the message back when that core has ended.
    ///
    /// # Panics
    /// If there is no such core.
    pub fn post<S>(&self, cx: &mut Context<'_, S>, core: usize, message: M) -> Result<(), M> {
        self.tell(core, message)?;
        if self.handles[core].len() > AHEAD {
            cx.wait_for_cores();
        }
        Ok(())
    }

    /// Posts to the handlers on all other cores, likewise. Those that have ended are passed over.
    pub fn post_all<S>(&self, cx: &mut Context<'_, S>, message: &M)
    where
        M: Clone,
    {
        for core in self.others() {
            let _ = self.post(cx, core, message.clone());
        }
    }

    /// As [`post`](Self::post), on nobody's behalf: for what cannot be held back, as that a connection
    /// has gone. The queue has room for it whatever waits there.
    ///
    /// # Errors
    /// Gives the message back when that core has ended.
    ///
    /// # Panics
    /// If there is no such core.
    pub fn tell(&self, core: usize, message: M) -> Result<(), M> {
        if core == self.own {
            // It wakes itself, also where it is alone and nobody looks whom to wake.
            return self.handles[core].post(message);
        }
        self.handles[core].leave(message)?;
        self.others.wake(core);
        Ok(())
    }

    /// As [`post_all`](Self::post_all), on nobody's behalf.
    pub fn tell_all(&self, message: &M)
    where
        M: Clone,
    {
        for core in self.others() {
            let _ = self.tell(core, message.clone());
        }
    }

    /// Handles no more input of a connection while any core is behind, also with what this one has not
    /// posted. For who says something to one core that this says to all.
    pub fn hold_back<S>(&self, cx: &mut Context<'_, S>) {
        if self.handles.iter().any(|core| core.len() > AHEAD) {
            cx.wait_for_cores();
        }
    }

    /// The numbers of the other cores.
    pub fn others(&self) -> impl Iterator<Item = usize> + use<M> {
        let own = self.own;
        (0..self.handles.len()).filter(move |core| *core != own)
    }
}

impl Others {
    pub(super) fn new(cores: usize) -> Others {
        Others { wake: vec![Cell::new(false); cores], queues: RefCell::default() }
    }

    /// The cores to wake, each once.
    pub(super) fn to_wake(&self) -> impl Iterator<Item = usize> + '_ {
        self.wake.iter().enumerate().filter(|(_, wake)| wake.take()).map(|(core, _)| core)
    }

    /// Has a core woken after this turn.
    pub(super) fn wake(&self, core: usize) {
        self.wake[core].set(true);
    }

    /// Notes the handlers of a service, one on each core: others are held back when one is behind.
    pub(super) fn note<M>(&self, handles: &[Handle<M>]) {
        self.queues.borrow_mut().extend(handles.iter().map(Handle::identity).enumerate());
    }

    /// Forgets handlers of a service that was removed: nobody is held back for them any more.
    pub(super) fn forget(&self, gone: &[Identity]) {
        self.queues.borrow_mut().retain(|(_, queue)| !gone.contains(queue));
    }

    /// The cores that are behind with what this one has posted.
    pub(super) fn behind(&self) -> Vec<usize> {
        let queues = self.queues.borrow();
        let behind = queues.iter().filter(|(_, queue)| !Others::has_caught_up(queue.waiting()));
        behind.map(|(core, _)| *core).collect()
    }

    /// Whether so few messages wait that nobody has to wait for that.
    pub(super) fn has_caught_up(waiting: u64) -> bool {
        waiting <= CAUGHT_UP as u64
    }
}

impl<M> Clone for Peers<M> {
    fn clone(&self) -> Self {
        let (handles, others) = (Rc::clone(&self.handles), Rc::clone(&self.others));
        Peers { own: self.own, handles, others }
    }
}

impl<M> fmt::Debug for Peers<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("cores", &self.handles.len()).finish_non_exhaustive()
    }
}

impl<M> fmt::Debug for Core<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("index", &self.index).field("count", &self.count()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use crate::{Callbacks, Cores, Limits};

    #[test]
    fn nothing_is_kept_of_a_service_that_was_removed() {
        let mut cores = Cores::new(2).unwrap();
        for _ in 0..3 {
            let service = cores.add(|_| Callbacks::new(), Limits::default()).unwrap();
            cores.remove(&service).unwrap();
            cores.listen("192.0.2.1:1", |_| Callbacks::new()).unwrap_err();
            let panics = || cores.add(|_| -> Callbacks { panic!("on purpose") }, Limits::default());
            catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
        }
        let queues = |cores: &Cores<'_>| cores.driver.others.queues.borrow().len();
        cores.turn_first(Some(Duration::ZERO)).unwrap();
        assert_eq!(queues(&cores), 0);
        cores.add(|_| Callbacks::new(), Limits::default()).unwrap();
        assert_eq!(queues(&cores), 2);
        let (_, driver) = cores.others.remove(0).make(&cores.common);
        assert_eq!(driver.others.queues.borrow().len(), 2);
    }
}
