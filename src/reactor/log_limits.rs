//! How often the same complaint is logged, so that no client can fill the disk.

use std::net::SocketAddr;
use std::time::Duration;

use super::fairness::LOG_EVERY;
use crate::connection::clock::{Nanos, nanos};
use crate::net::Address;

/// One complaint: allowed, then silent for a while.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    /// When it was last allowed; 0 for never.
    last: Nanos,
}

impl LogLimit {
    /// Whether it may be logged now; then it counts as logged.
    pub(crate) fn allows(&mut self, now: Nanos, every: Duration) -> bool {
        let allowed = self.last == 0 || now - self.last >= nanos(every);
        if allowed {
            self.last = now;
        }
        allowed
    }
}

/// The complaints about clients that all services of a reactor have in common.
#[derive(Debug, Default)]
pub(crate) struct LogLimits {
    /// A service has as many connections as it may.
    full: LogLimit,
    /// An address has as many connections as it may.
    crowded: LogLimit,
    /// A newcomer's address is not allowed.
    barred: LogLimit,
    /// There was too much unsent output in all.
    total_output: LogLimit,
}

impl LogLimits {
    pub(super) fn full(&mut self, now: Nanos, name: &str, most: usize) {
        if self.full.allows(now, LOG_EVERY) {
            log::warn!("{name}: full with {most} connections (max_connections): turning away");
        }
    }

    pub(super) fn crowded(&mut self, now: Nanos, name: &str, peer: SocketAddr, most: usize) {
        if self.crowded.allows(now, LOG_EVERY) {
            let ip = peer.ip();
            log::warn!("{name}: {ip} has {most} connections (max_per_peer): turning away");
        }
    }

    pub(super) fn barred(&mut self, now: Nanos, listener: &Address, peer: SocketAddr) {
        if self.barred.allows(now, LOG_EVERY) {
            let ip = peer.ip();
            log::warn!("{listener}: {ip} is in none of the allowed networks: turning away");
        }
    }

    /// Each connection that is reset for it is logged by itself as well.
    pub(super) fn total_output(&mut self, now: Nanos, most: usize) {
        if self.total_output.allows(now, LOG_EVERY) {
            log::warn!("too much unsent output in all (max_total_output, {most} bytes): resetting");
        }
    }
}
