//! The descriptor that is kept for the moment when there is no other: to say no to a newcomer, and
//! to read certificates again.

use std::fs::File;

use super::fairness::STARVED_EVERY;
use super::log_limits::LogLimit;
use super::loop_state::LoopState;

#[derive(Debug, Default)]
pub(crate) struct SpareDescriptor {
    /// None while it is given up, and where it could not be had again.
    file: Option<File>,
    /// When it was last given up for a newcomer.
    used: LogLimit,
}

impl SpareDescriptor {
    pub(super) fn open() -> SpareDescriptor {
        let mut spare = SpareDescriptor::default();
        spare.take_back();
        spare
    }

    /// Says whether there was one.
    pub(super) fn give_up(&mut self) -> bool {
        self.file.take().is_some()
    }

    pub(super) fn take_back(&mut self) {
        self.file = File::open("/dev/null").ok();
    }
}

impl LoopState {
    /// Out of descriptors: gives the spare one up, runs `say_no`, takes it back. Says whether it
    /// turned out that nobody is waiting: the kernel wants a descriptor before it looks.
    pub(super) fn with_spare_descriptor(
        &mut self,
        say_no: impl FnOnce(&mut LoopState) -> bool,
    ) -> bool {
        if !self.spare_descriptor.used.allows(self.turn.now, STARVED_EVERY) {
            return false;
        }
        let nobody = self.spare_descriptor.give_up() && say_no(self);
        self.spare_descriptor.take_back();
        if !nobody {
            log::warn!(
                "out of file descriptors or memory: newcomers wait until a connection closes; \
                 raise the limit (ulimit -n) or lower max_connections"
            );
        }
        nobody
    }
}
