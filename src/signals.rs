//! Signals of the process as one more source of the loop.

use mio::{Interest, Registry};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::Error;
use crate::id::Token;

/// Those that end the loop.
pub(crate) const ENDING: [i32; 2] = [SIGINT, SIGTERM];
/// The one that asks to read again what may have changed.
pub(crate) const HANGUP: [i32; 1] = [SIGHUP];

/// Catches some signals; the others do what they always do.
#[derive(Default)]
pub(crate) struct Signals(Option<signal_hook_mio::v1_0::Signals>);

/// What was caught.
#[derive(Debug, Default)]
pub(crate) struct Caught {
    /// How many of [`ENDING`].
    pub(crate) ending: usize,
    pub(crate) hangup: bool,
}

impl Signals {
    /// Catches these too.
    pub(crate) fn catch(&mut self, signals: &[i32], registry: &Registry) -> Result<(), Error> {
        if let Some(caught) = &self.0 {
            let added = signals.iter().try_for_each(|signal| caught.add_signal(*signal));
            return added.map_err(Error::io("cannot catch signals"));
        }
        let mut source = signal_hook_mio::v1_0::Signals::new(signals)
            .map_err(Error::io("cannot catch signals"))?;
        registry
            .register(&mut source, Token::SIGNALS.into(), Interest::READABLE)
            .map_err(Error::io("cannot watch for signals"))?;
        self.0 = Some(source);
        Ok(())
    }

    /// What has come since the last time.
    pub(crate) fn take(&mut self) -> Caught {
        let mut caught = Caught::default();
        for signal in self.0.iter_mut().flat_map(|source| source.pending()) {
            match signal {
                SIGHUP => caught.hangup = true,
                _ => caught.ending += 1,
            }
        }
        caught
    }
}
