//! Attacks over real sockets, each with the bound that it must keep: nobody panics, the others are
//! served, and afterwards descriptors, memory and timers are back where they were.
//!
//! `cargo test --test hostile` runs the short form. The sizes that a night may take, with the
//! figures on stdout:
//!
//! ```sh
//! HOSTILE=full cargo test --release --test hostile -- --nocapture
//! ```
#![cfg(target_os = "linux")]
#![allow(unreachable_pub, reason = "what the attacks share is theirs alone")]

#[path = "../util/mod.rs"]
mod util;

mod lab;
mod swarm;
mod victim;

mod churn;
mod doors;
mod flood;
mod foreign;
mod frozen;
mod handlers;
#[cfg(feature = "tls")]
mod hellos;
mod lines;
mod outward;
mod readers;
mod slow;
