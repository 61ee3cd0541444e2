//! One room over three servers and a Redis made of a model, in a hostile world that a seed decides.

#![allow(unreachable_pub, reason = "the simulation names it by its path")]

mod aims;
pub mod hostile;
mod network;
mod oracle;
pub mod real;
mod redis;
mod world;

pub use aims::Aim;
pub use world::World;
