//! The loop: what it waits for, whose turn it is, and that whatever one client, hook or thread does is
//! nothing to the others.

#[path = "../util/mod.rs"]
mod util;

mod changing;
mod cores;
mod counters;
mod edges;
mod fairness;
#[cfg(feature = "websocket")]
mod hand_over;
mod one_thread;
mod outbound;
mod panics;
mod ready;
mod regressions;
mod shutdown;
mod status;
mod timers;
mod upgrade;
