//! Signals of the process as one more source of the loop.

use mio::{Interest, Registry};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::Reactor;
use super::token::Token;
use crate::error::Error;

/// The signals that end the loop.
const ENDING: [i32; 2] = [SIGINT, SIGTERM];

/// The signal that asks to read again what may have changed.
const HANGUP: [i32; 1] = [SIGHUP];

/// Catches the signals that it is asked to; the others do what they always do.
#[derive(Default)]
pub(crate) struct Signals {
    /// What the selector watches; none while none is caught.
    source: Option<signal_hook_mio::v1_0::Signals>,
    /// How many of [`ENDING`] there have been.
    seen: usize,
    /// [`HANGUP`] is for whoever runs the turns, by [`take_hangup`](Reactor::take_hangup).
    minded: bool,
    /// There was one since `take_hangup` was last called.
    hung_up: bool,
}

impl Signals {
    /// Catches these too.
    fn catch(&mut self, signals: &[i32], registry: &Registry) -> Result<(), Error> {
        if let Some(caught) = &self.source {
            let added = signals.iter().try_for_each(|signal| caught.add_signal(*signal));
            return added.map_err(Error::io("cannot catch signals"));
        }
        let mut source = signal_hook_mio::v1_0::Signals::new(signals)
            .map_err(Error::io("cannot catch signals"))?;
        registry
            .register(&mut source, Token::SIGNALS.into(), Interest::READABLE)
            .map_err(Error::io("cannot watch for signals"))?;
        self.source = Some(source);
        Ok(())
    }

    /// What has come since the last time.
    pub(crate) fn take(&mut self) -> Vec<i32> {
        self.source.iter_mut().flat_map(|source| source.pending()).collect()
    }
}

impl Signals {
    /// Whether there was a second one that ends the loop.
    pub(crate) fn is_hurried(&self) -> bool {
        self.seen > 1
    }
}

impl Reactor<'_> {
    /// Makes SIGINT and SIGTERM a graceful shutdown, and a second one an end at once. They
    /// arrive in the loop like everything else. Needs the feature `signals`.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses.
    pub fn stop_on_signals(&mut self) -> Result<(), Error> {
        self.signals.catch(&ENDING, self.poll.registry())
    }

    /// Makes SIGHUP, which would end the process, read the certificates of the listeners again
    /// (`Tls::reload`, with the feature `tls`); the log says what came of it. Where there are none
    /// it only says that. A hook of your own at SIGHUP is `Cores::on_hangup`, also for one core. Needs the
    /// feature `signals`.
    ///
    /// # Errors
    /// [`Error::Io`] when the system refuses.
    pub fn reload_on_hangup(&mut self) -> Result<(), Error> {
        self.signals.minded = false;
        self.signals.catch(&HANGUP, self.poll.registry())
    }

    /// Catches SIGHUP for whoever runs the turns, who asks [`take_hangup`](Self::take_hangup).
    pub(crate) fn leave_hangup(&mut self) -> Result<(), Error> {
        self.reload_on_hangup()?;
        self.signals.minded = true;
        Ok(())
    }

    /// Whether there was a SIGHUP since the last time.
    pub(crate) fn take_hangup(&mut self) -> bool {
        std::mem::take(&mut self.signals.hung_up)
    }

    /// Does what the signals ask for.
    pub(super) fn handle_signals(&mut self, caught: &[i32]) {
        for signal in caught {
            if HANGUP.contains(signal) {
                if self.signals.minded {
                    self.signals.hung_up = true;
                } else {
                    self.reload_layers("hangup signal: ");
                }
                continue;
            }
            self.signals.seen += 1;
            if self.signals.seen == 1 {
                log::info!("signal: shutting down; a second one ends at once");
                self.state.stop();
            } else if self.exit().is_none() {
                log::warn!("second signal: ending at once");
                self.cut_off();
            }
        }
    }
}
