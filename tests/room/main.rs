//! One room over several servers and a real Redis: what is heard at each fault.
//!
//! `cargo test --test room` runs it with a hundred members a server. The sizes that a night may take:
//!
//! ```sh
//! ROOM=full cargo test --release --test room
//! ```
//!
//! Without `redis-server` its tests say so and are [skipped](util::skip).
#![cfg(target_os = "linux")]
#![allow(unreachable_pub, reason = "what the tests share is theirs alone")]

#[path = "../util/mod.rs"]
mod util;

mod judge;
mod link;
mod rooms;
mod swarm;

mod alone;
mod foreign;
mod lost_data;
mod redis_faults;
mod server_faults;
mod together;
mod upgrade;
