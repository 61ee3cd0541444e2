//! The loop: one thread, one selector, any number of services, one turn at a time. What a
//! connection is lives in `connection`, what it runs over in `net`, and what the hooks are given in
//! `handler`.
//!
//! Read `reactor` first (the public methods), then `turn` (the whole turn, top to bottom),
//! `service` (what one service is) and `table` with `queues` (its connections, and which of them
//! something is due for). A connection's life in order: `accepting`, `dialling` or `adopting`,
//! `handshakes`, `opening`, `readiness`, `reading`, `writing`, `broadcast`, `timers`, `hand_over`,
//! `closing`. What bounds it: `fairness`, `total_memory`, `peers` with `peer_accounts` and
//! `peer_lines`, `throttling`. What keeps the loop alive: `panics`, `slow_hooks`, `spare_descriptor`,
//! `log_limits`. Around it: `handle`, `shutdown`, `signals`, `reload`, `upgrade`. What changes while it runs: `changing`
//! (the public methods), `limits_change`, `listening`, `removing`. What can be seen from outside:
//! `counters`, `turns`, `turn_trace`, `usage`, `status`, which `reports` collects. What several `cores` have
//! of it: `for_cores`, `places`. What the services share is in
//! `loop_state`, what the selector and the timers carry in `token`.

pub(crate) mod accepting;
mod adopting;
mod broadcast;
mod changing;
mod closing;
pub(crate) mod counters;
mod dialling;
pub(crate) mod fairness;
pub(crate) mod for_cores;
pub(crate) mod hand_over;
pub(crate) mod handle;
pub(crate) mod handshakes;
mod limits_change;
pub(crate) mod listening;
pub(crate) mod log_limits;
pub(crate) mod loop_state;
mod opening;
mod panics;
mod peer_accounts;
mod peer_lines;
pub(crate) mod peers;
pub(crate) mod places;
mod queues;
#[expect(clippy::module_inception, reason = "the wing is named after what it is about")]
mod reactor;
pub(crate) mod readiness;
mod reading;
mod reload;
mod removing;
pub(crate) mod reports;
pub(crate) mod service;
pub(crate) mod shutdown;
#[cfg(feature = "signals")]
mod signals;
pub(crate) mod slow_hooks;
mod spare_descriptor;
pub(crate) mod status;
pub(crate) mod table;
mod throttling;
pub(crate) mod timers;
pub(crate) mod token;
pub(crate) mod total_memory;
pub(crate) mod turn;
mod turn_trace;
pub(crate) mod turns;
pub(crate) mod upgrade;
pub(crate) mod usage;
mod writing;

pub use counters::{Counters, Refused};
pub use handle::{Handle, Service, TryPostError};
pub use reactor::Reactor;
pub use shutdown::Exit;
pub use status::{
    Ask, ConnectionStatus, CoreStatus, Cursor, ListenerStatus, Order, Page, Report, Selection,
    ServiceStatus, Status, Usage, Waits,
};
pub use turns::{Steps, Turns};
pub use upgrade::{HandedOn, Successor};
