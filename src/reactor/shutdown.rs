//! How a shutdown goes: asked for, moved on turn by turn, cut at its deadline; and how it ended.

use std::ops::DerefMut;
use std::process::{ExitCode, Termination};

use super::Reactor;
use super::fairness::LINGER_AT_SHUTDOWN;
use super::handle::Identity;
use super::loop_state::LoopState;
use super::service::{ActiveService, AnyService};
use crate::connection::CloseReason;
use crate::connection::clock::Nanos;
use crate::handler::Handler;

/// How a reactor came to its end. A `main` may return it, in a `Result` too: a clean end is exit
/// status 0, the other 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// No connection had to be cut off: the kernel has taken all that was sent, or the client was
    /// gone or was [closed](crate::CloseReason) for not taking it. It says nothing of what a
    /// [client](crate::client) was to do.
    Clean,
    /// Some clients did not take their last output before the shutdown timeout, or before a second
    /// signal.
    Cut {
        /// How many clients.
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

/// How far the shutdown is; it only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No shutdown was noticed yet.
    Running,
    /// Another loop goes on with all that could go. What has stayed is served to its end, until this moment at
    /// the latest.
    HandedOn(Nanos),
    /// Newcomers are not accepted any more, and messages that were posted before the shutdown are
    /// handled before it, until this moment at the latest.
    Stopping(Nanos),
    /// Every connection is being closed. Those that are not gone at this moment are cut off.
    Draining(Nanos),
    /// The reactor has ended.
    Done(Exit),
}

/// Notices that a shutdown was asked for: nothing new begins from then on. Says whether that is just
/// now.
pub(crate) fn begin<S>(services: &mut [S], state: &mut LoopState) -> bool
where
    S: DerefMut<Target: AnyService>,
{
    let begins = state.is_ending() && !state.stopping;
    if begins {
        log::debug!("shutting down");
        state.stopping = true;
        for service in services {
            service.stop_listening();
            // What this very thread has posted has not woken it yet.
            service.inbox().marked = true;
        }
    }
    begins
}

impl Reactor<'_> {
    /// Begins a shutdown that was asked for, and moves it on.
    pub(super) fn advance_shutdown(&mut self) {
        if let Phase::HandedOn(until) = self.phase
            && !self.state.is_ending()
        {
            if !self.is_one_of_several() && self.is_deserted() {
                return self.finish(Exit::Clean);
            }
            if until <= self.state.turn.now {
                log::warn!("upgrade timeout: closing the connections that have stayed");
                self.stop();
            }
        }
        if begin(&mut self.services, &mut self.state) {
            // The turn may have been long, which must not use up the time that the shutdown has.
            self.state.tick();
            self.phase = Phase::Stopping(self.state.after(self.shutdown_timeout));
        }
        if let Phase::Stopping(deadline) = self.phase
            && (deadline <= self.state.turn.now || !self.is_shutdown_delayed())
        {
            self.phase = Phase::Draining(deadline);
            for (place, service) in self.services.iter_mut().enumerate() {
                if !self.removals.iter().any(|removal| removal.has_told(place)) {
                    service.shut_down(&mut self.state);
                }
            }
            self.removals.iter_mut().for_each(|removal| removal.told = true);
            // Messages may have used up the time: what was just said leaves before the cut.
            self.settle();
        }
        if let Phase::Draining(deadline) = self.phase {
            if self.services.iter().all(|service| service.is_empty()) {
                self.finish(Exit::Clean);
            } else if deadline <= self.state.turn.now {
                log::warn!("shutdown timeout: cutting off those that do not take their output");
                self.cut_off();
            }
        }
    }

    /// Whether messages that were posted before the shutdown are still to be handled.
    fn is_shutdown_delayed(&mut self) -> bool {
        self.services.iter_mut().any(|service| service.inbox().delays_shutdown())
            || self.state.changes.as_ref().is_some_and(Identity::delays_shutdown)
    }

    /// Whether nobody is left here after an upgrade, and no message waits.
    pub(crate) fn is_deserted(&mut self) -> bool {
        let serves = matches!(self.phase, Phase::HandedOn(_)) && !self.state.is_ending();
        let mut services = self.services.iter_mut();
        serves && services.all(|service| service.is_empty() && service.inbox().waiting() == 0)
    }

    /// Ends a loop that is [deserted](Self::is_deserted).
    pub(crate) fn end_deserted(&mut self) {
        self.finish(Exit::Clean);
    }

    /// Ends every connection at once, and with that the reactor.
    pub(crate) fn cut_off(&mut self) {
        self.state.stopping = true;
        let connections =
            self.services.iter_mut().map(|service| service.cut_off(&mut self.state)).sum();
        self.finish(match connections {
            0 => Exit::Clean,
            _ => Exit::Cut { connections },
        });
    }

    fn finish(&mut self, exit: Exit) {
        self.phase = Phase::Done(exit);
        self.state.shared.end();
        for (number, service) in self.services.iter_mut().enumerate() {
            lose_messages(&mut **service, number, &mut self.state);
        }
    }
}

/// Drops all messages that still wait for the service.
pub(super) fn lose_messages(service: &mut dyn AnyService, place: usize, state: &mut LoopState) {
    let lost = service.inbox().waiting();
    if lost > 0 {
        state.counters(place).messages_lost += lost;
        log::warn!("{}: {lost} messages were not handled before the end", service.name());
    }
}

impl<H: Handler> ActiveService<H> {
    /// Tells the handler, and closes every connection gracefully, unless it wants to keep them for a
    /// while.
    pub(super) fn begin_shutdown(&mut self, state: &mut LoopState) {
        self.mailbox.inbox.stop();
        // At once, unless the handler wants otherwise.
        self.table.kept_open = Some(state.turn.now);
        self.call_service(state, H::on_shutdown);
        self.slow_hooks.check(state, &self.table.name, self.table.limits.slow_call);
        self.table.limits.linger = self.table.limits.linger.min(LINGER_AT_SHUTDOWN);
        if self.table.kept_open.is_none_or(|until| until <= state.turn.now) {
            self.close_all(state);
        }
    }

    /// Closes every connection gracefully, for the shutdown.
    pub(super) fn close_all(&mut self, state: &mut LoopState) {
        self.table.kept_open = None;
        for id in self.table.ids() {
            self.table.close(id, CloseReason::Shutdown, state);
        }
    }

    /// Ends every connection at once. Says how many had not got all their output.
    pub(super) fn cut_off_all(&mut self, state: &mut LoopState) -> usize {
        AnyService::stop_listening(self);
        let mut unsent = 0;
        for id in self.table.ids() {
            let slot = &self.table.connections[id.slot()];
            unsent += usize::from(!slot.conn.output.is_empty() || slot.stream.unsent());
            self.table.end(id, CloseReason::Shutdown);
        }
        while !self.table.queues.ending.is_empty() {
            self.reap_ended(state);
        }
        unsent
    }
}
