//! The ready-made services, byte for byte.

#[path = "../util/mod.rs"]
mod util;

mod admin;
mod echo;
mod presence;
mod redis;
mod roulette;
mod time;
mod web;
