//! The program, as a child process: a file for each subcommand, and some for what they share.

#[path = "../util/mod.rs"]
mod util;

#[cfg(target_os = "linux")]
mod bus;
mod check;
mod config;
mod connect;
mod descriptors;
mod discovery;
mod exercises;
mod forward;
mod load;
mod load_faults;
mod load_others;
mod logs;
mod manual;
mod proxy;
mod readme;
mod reload;
mod serve;
mod status;
mod systemd;
mod threads;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_towards_servers;
mod trace;
mod tutorial;
#[cfg(target_os = "linux")]
mod upgrade;
mod web;
mod websocket;
