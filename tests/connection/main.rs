//! One connection: what it is sent and answered, what it may and what it is held to, and how it ends.

#[path = "../util/mod.rs"]
mod util;

mod blocks;
mod coalescing;
mod drain;
mod endings;
mod half_close;
mod identity;
mod limits;
mod lines;
mod on_bytes;
mod properties;
mod system_calls;
