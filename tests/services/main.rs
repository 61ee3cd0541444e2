//! The ready-made services, byte for byte.

#[path = "../util/mod.rs"]
mod util;

mod admin;
mod echo;
mod presence;
#[path = "presence.rs"]
#[expect(clippy::duplicate_mod, reason = "the same tests on several cores")]
mod presence_on_cores;
mod redis;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod redis_servers;
mod room;
mod roulette;
mod time;
#[cfg(target_os = "linux")]
mod upgrade;
mod web;
