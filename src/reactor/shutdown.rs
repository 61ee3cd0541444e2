//! How a shutdown goes: asked for, moved on turn by turn, cut at its deadline; and how it ended.

use std::process::{ExitCode, Termination};

use super::Reactor;
use super::fairness::LINGER_AT_SHUTDOWN;
use super::loop_state::LoopState;
use super::service::{ActiveService, AnyService};
use crate::connection::CloseReason;
use crate::connection::clock::Nanos;
use crate::handler::Handler;

/// How a reactor came to its end. A `main` may return it, in a `Result` too: a clean end is exit
/// status 0, the other 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nobody had to be cut off: the kernel has taken all that was sent, or the client was gone
    /// or [closed](crate::CloseReason) for not taking it.
    Clean,
    /// Some did not take their last output before the shutdown timeout, or before a second
    /// signal.
    Cut {
        /// How many.
        connections: usize,
    },
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        match self {
            Exit::Clean => ExitCode::SUCCESS,
            Exit::Cut { .. } => ExitCode::FAILURE,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// Nobody else may come, and what was posted before the shutdown is handled before it.
    Stopping(Nanos),
    /// Everybody is being closed; what is not gone by then is cut.
    Draining(Nanos),
    Done(Exit),
}

impl Reactor<'_> {
    /// Begins a shutdown that was asked for, and moves it on.
    pub(super) fn advance(&mut self) {
        if self.phase == Phase::Running && self.state.is_ending() {
            log::debug!("shutting down");
            // A long turn must not use up the time that the shutdown has.
            self.state.tick();
            self.state.stopping = true;
            self.phase = Phase::Stopping(self.state.after(self.shutdown_timeout));
            self.services.iter_mut().for_each(|service| service.stop_listening());
        }
        if let Phase::Stopping(deadline) = self.phase
            && (deadline <= self.state.turn.now || !self.services.iter().any(|one| one.holds_up()))
        {
            self.phase = Phase::Draining(deadline);
            self.services.iter_mut().for_each(|service| service.shut_down(&mut self.state));
        }
        if let Phase::Draining(deadline) = self.phase {
            if self.services.iter().all(|service| service.is_empty()) {
                self.done(Exit::Clean);
            } else if deadline <= self.state.turn.now {
                log::warn!("shutdown timeout: cutting off those that do not take their output");
                self.cut();
            }
        }
    }

    pub(crate) fn cut(&mut self) {
        self.state.stopping = true;
        let connections =
            self.services.iter_mut().map(|service| service.cut(&mut self.state)).sum();
        self.done(match connections {
            0 => Exit::Clean,
            _ => Exit::Cut { connections },
        });
    }

    pub(super) fn done(&mut self, exit: Exit) {
        self.phase = Phase::Done(exit);
        self.state.shared.end();
        for service in &self.services {
            let lost = service.waiting();
            if lost > 0 {
                self.state.counters.messages_lost += lost;
                log::warn!("{}: {lost} messages were not handled before the end", service.name());
            }
        }
    }
}

impl<H: Handler> ActiveService<H> {
    pub(super) fn begin_shutdown(&mut self, state: &mut LoopState) {
        self.mailbox.stop();
        self.mail = true;
        self.call_service(state, H::on_shutdown);
        self.watch.check(&mut state.turn.clock, &self.table.name, self.table.limits.slow_call);
        self.table.limits.linger = self.table.limits.linger.min(LINGER_AT_SHUTDOWN);
        let everybody: Vec<_> =
            self.table.connections.iter().map(|(_, slot)| slot.conn.id).collect();
        for id in everybody {
            self.table.close(id, CloseReason::Shutdown, state);
        }
    }

    pub(super) fn cut_all(&mut self, state: &mut LoopState) -> usize {
        AnyService::stop_listening(self);
        let everybody: Vec<_> =
            self.table.connections.iter().map(|(_, slot)| slot.conn.id).collect();
        let mut unsent = 0;
        for id in everybody {
            let slot = &self.table.connections[id.slot()];
            unsent += usize::from(!slot.conn.output.is_empty() || slot.stream.unsent());
            self.table.end(id, CloseReason::Shutdown);
        }
        while !self.table.ending.is_empty() {
            self.reap_ended(state);
        }
        unsent
    }
}
