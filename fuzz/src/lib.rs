//! The targets, which are those of `tests/fuzzing`, for libFuzzer.

#[path = "../../src/cli/mod.rs"]
#[allow(dead_code, reason = "only its options are looked at")]
mod cli;
#[path = "../../src/net/proxy/header.rs"]
mod proxy_header;
#[path = "../../tests/fuzzing/redis.rs"]
pub mod redis;
#[path = "../../tests/fuzzing/targets.rs"]
pub mod targets;
#[path = "../../tests/fuzzing/web_socket.rs"]
pub mod web_socket;
#[path = "../../tests/world/mod.rs"]
mod world;

pub use world::models;
