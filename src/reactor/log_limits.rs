//! How often what clients can cause again and again is done. A complaint is logged once in
//! [`LOG_EVERY`](super::fairness::LOG_EVERY), so that no client can fill the disk. The spare
//! descriptor turns a newcomer away once in [`STARVED_EVERY`](super::fairness::STARVED_EVERY).

use std::time::Duration;

use crate::connection::clock::{Nanos, nanos};

/// One complaint, or one thing to do: allowed, then not again for a while.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    /// When it was last allowed; 0 for never.
    last: Nanos,
}

impl LogLimit {
    /// Whether it may be logged, or done, now; then it counts as that.
    pub(crate) fn allows(&mut self, now: Nanos, every: Duration) -> bool {
        let allowed = self.last == 0 || now.saturating_sub(self.last) >= nanos(every);
        if allowed {
            self.last = now;
        }
        allowed
    }
}

/// What clients can make any service of the reactor complain of.
#[derive(Debug, Default)]
pub(crate) struct LogLimits {
    /// A service has as many connections as it may.
    pub(super) full: LogLimit,
    /// An address has as many connections as it may.
    pub(super) crowded: LogLimit,
    /// An address connects faster than it may.
    pub(super) hasty: LogLimit,
    /// A newcomer's address is not allowed.
    pub(super) barred: LogLimit,
    /// Somebody came to where a PROXY header is expected who may not send one, or sent none.
    pub(super) unproxied: LogLimit,
    /// A newcomer has no certificate that lets it in.
    #[cfg(feature = "tls")]
    pub(super) uncertified: LogLimit,
    /// A newcomer comes from a page that is not ours, or uses a name that is not.
    #[cfg(feature = "websocket")]
    pub(super) foreign: LogLimit,
    /// There is too much unsent output in all.
    pub(super) total_output: LogLimit,
    /// There is too much unfinished input in all.
    pub(super) total_input: LogLimit,
}
