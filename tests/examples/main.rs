//! The examples, as child processes.

#[path = "../util/mod.rs"]
mod util;

mod each;
mod memcached;
mod models;
mod redis_follow;
