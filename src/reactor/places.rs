//! How many of a service's `max_connections` are taken. Where the service runs on several cores, they are
//! those of all of them: one number, which each changes by compare-exchange, so that the last place is
//! never given twice.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// The places that the connections of one service, on one core, have taken.
#[derive(Debug, Default)]
pub(crate) struct Places {
    taken: usize,
    /// None where there are no other cores.
    shared: Option<SharedPlaces>,
}

/// What the cores share of it. The numbers order nothing else, so the weakest ordering will do.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedPlaces {
    /// How many are taken on all cores together.
    pub(crate) taken: Arc<AtomicUsize>,
    /// How many are taken on this core, along with the newcomers that are on their way to it.
    pub(crate) here: Arc<AtomicUsize>,
}

impl Places {
    pub(super) fn shared(shared: SharedPlaces) -> Places {
        Places { taken: 0, shared: Some(shared) }
    }

    /// Whether so many are taken.
    pub(super) fn are_full(&self, most: usize) -> bool {
        let shared = self.shared.as_ref();
        shared.map_or(self.taken, |all| all.taken.load(Relaxed)) >= most
    }

    /// Takes one unless so many are taken; says whether it has.
    pub(super) fn take(&mut self, most: usize) -> bool {
        let Some(all) = &self.shared else {
            let free = self.taken < most;
            self.taken += usize::from(free);
            return free;
        };
        let more = |taken| (taken < most).then_some(taken + 1);
        let free = all.taken.fetch_update(Relaxed, Relaxed, more).is_ok();
        if free {
            all.here.fetch_add(1, Relaxed);
            self.taken += 1;
        }
        free
    }

    /// Takes one for a connection that was dialled or adopted, which no limit keeps out.
    pub(super) fn add(&mut self) {
        self.take(usize::MAX);
    }

    /// Gives one back.
    pub(super) fn free(&mut self) {
        self.taken -= 1;
        if let Some(all) = &self.shared {
            all.taken.fetch_sub(1, Relaxed);
            all.here.fetch_sub(1, Relaxed);
        }
    }

    /// How many newcomers are on their way to this core.
    pub(super) fn awaited(&self) -> usize {
        let all = self.shared.as_ref();
        all.map_or(0, |all| all.here.load(Relaxed).saturating_sub(self.taken))
    }

    /// How many are taken on this core.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        self.taken
    }
}
