//! The program, as a child process: a file for each subcommand, and some for what they share.

#[path = "../util/mod.rs"]
mod util;

#[cfg(target_os = "linux")]
mod bus;
mod connect;
mod descriptors;
mod discovery;
mod forward;
mod load;
mod load_faults;
mod proxy;
mod serve;
mod status;
mod threads;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_towards_servers;
mod web;
mod websocket;
