//! What all cores share: how to wake and to stop each other, and a few numbers.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::driver::Driver;
use crate::reactor::handle::Shared;
use crate::reactor::total_memory::Memory;
use crate::reactor::{Ask, Reactor, Report};

/// What a core asks of another one, the answer to that, and tasks that the first core gives to others.
pub(super) enum Mail<'h> {
    Ask { from: usize, ticket: u64, what: Ask },
    Answer { ticket: u64, core: usize, report: Box<Report> },
    Do(Box<Task<'h>>),
}

/// Something to do on a core, between two turns of its loop.
pub(super) type Task<'h> = dyn FnOnce(&mut Reactor<'h>, &mut Driver<'h>) + Send + 'h;

/// One of it for all cores.
pub(super) struct Common<'h> {
    cores: Vec<Place<'h>>,
    /// Every loop is to end at once.
    cut: AtomicBool,
    /// How many loops run, but for the first one.
    pub(super) running: AtomicUsize,
    /// How many cores nobody is left on after an upgrade.
    deserted: AtomicUsize,
}

/// What others know of one core.
struct Place<'h> {
    shared: Arc<Shared>,
    mail: Sender<Mail<'h>>,
    /// What its connections have of each [`Memory`].
    used: [AtomicUsize; 2],
    /// Somebody waits until it has taken its messages.
    awaited: AtomicBool,
}

impl<'h> Common<'h> {
    /// Also gives where each core finds its mail.
    pub(super) fn new(cores: &[Arc<Shared>]) -> (Arc<Common<'h>>, Vec<Receiver<Mail<'h>>>) {
        let (mut places, mut mail) = (Vec::new(), Vec::new());
        for shared in cores {
            let (sender, receiver) = channel();
            let (used, awaited) = Default::default();
            places.push(Place { shared: Arc::clone(shared), mail: sender, used, awaited });
            mail.push(receiver);
        }
        let (cut, running, deserted) = Default::default();
        (Arc::new(Common { cores: places, cut, running, deserted }), mail)
    }

    pub(super) fn len(&self) -> usize {
        self.cores.len()
    }

    /// The flags and the waker of a core.
    pub(super) fn shared(&self, core: usize) -> &Arc<Shared> {
        &self.cores[core].shared
    }

    pub(super) fn wake(&self, core: usize) {
        self.shared(core).wake();
    }

    pub(super) fn wake_all(&self) {
        self.cores.iter().for_each(|core| core.shared.wake());
    }

    /// Asks every core that has not been asked for a graceful shutdown.
    pub(super) fn stop(&self) {
        for core in self.cores.iter().filter(|core| !core.shared.stop_asked()) {
            core.shared.stop();
            core.shared.wake();
        }
    }

    /// Has every loop end at once.
    pub(super) fn cut(&self) {
        if !self.cut.swap(true, SeqCst) {
            self.wake_all();
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(SeqCst)
    }

    /// The last connection of a core has ended after an upgrade, or it has one again.
    pub(super) fn set_deserted(&self, deserted: bool) {
        if !deserted {
            self.deserted.fetch_sub(1, SeqCst);
        } else if self.deserted.fetch_add(1, SeqCst) + 1 == self.len() {
            self.wake_all();
        }
    }

    /// Whether all cores are deserted.
    pub(super) fn are_deserted(&self) -> bool {
        self.deserted.load(SeqCst) == self.len()
    }

    /// Another loop than the first has ended.
    pub(super) fn leave(&self) {
        self.running.fetch_sub(1, SeqCst);
        self.wake(0);
    }

    /// Says whether it will arrive: not if that core has ended.
    pub(super) fn send(&self, to: usize, mail: Mail<'h>) -> bool {
        let sent = self.cores[to].mail.send(mail).is_ok();
        if sent {
            self.wake(to);
        }
        sent
    }

    /// A core says what its connections have of it. Gives what all cores have, and the one with most.
    pub(super) fn publish(&self, core: usize, memory: Memory, used: usize) -> (usize, usize) {
        self.cores[core].used[memory as usize].store(used, SeqCst);
        let used = |core: &Place<'_>| core.used[memory as usize].load(SeqCst);
        let sum = self.cores.iter().map(used).sum();
        let most = (0..self.len()).max_by_key(|core| used(&self.cores[*core]));
        (sum, most.unwrap_or(core))
    }

    /// Somebody waits for this core to catch up.
    pub(super) fn await_core(&self, core: usize) {
        self.cores[core].awaited.store(true, SeqCst);
    }

    pub(super) fn is_awaited(&self, core: usize) -> bool {
        self.cores[core].awaited.load(SeqCst)
    }

    /// This core has caught up: whoever waits may look.
    pub(super) fn catch_up(&self, core: usize) {
        self.cores[core].awaited.store(false, SeqCst);
        (0..self.len()).filter(|other| *other != core).for_each(|other| self.wake(other));
    }
}
