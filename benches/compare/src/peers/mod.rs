//! The peers: the same protocols, each written as the users of that library would.

mod calloop;
mod floor;
mod message_io;
mod models;
mod node;
mod ours;
mod threads;
mod tokio;

use std::io::{self, Write};

use clap::ValueEnum;

pub use models::{MODELS, build as build_models};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Service {
    Echo,
    Presence,
    Clock,
}

/// Serves on a port of 127.0.0.1, 0 for any, until it is killed.
type Serve = fn(Service, u16) -> io::Result<()>;

pub struct Peer {
    pub name: &'static str,
    pub services: &'static [Service],
    pub serve: Serve,
    /// Lines that are not UTF-8 come back; else they end the connection.
    pub any_bytes: bool,
}

use Service::{Clock, Echo, Presence};

pub const FLOOR: &str = "floor";
pub const OURS: &str = "ours";

pub const PEERS: &[Peer] = &[
    Peer { name: FLOOR, services: &[Echo, Presence, Clock], serve: floor::serve, any_bytes: true },
    Peer { name: OURS, services: &[Echo, Presence, Clock], serve: ours::serve, any_bytes: true },
    // What a handler costs that answers line by line.
    Peer { name: "ours-on-line", services: &[Echo], serve: ours::serve_lines, any_bytes: true },
    // What the limits cost that have to look at the clock.
    Peer { name: "ours-limited", services: &[Echo], serve: ours::serve_limited, any_bytes: true },
    Peer { name: "tokio", services: &[Echo], serve: tokio::serve_by_hand, any_bytes: true },
    Peer {
        name: "tokio-lines",
        services: &[Echo],
        serve: tokio::serve_lines_codec,
        any_bytes: false,
    },
    Peer {
        name: "tokio-broadcast",
        services: &[Presence],
        serve: tokio::serve_broadcast,
        any_bytes: true,
    },
    Peer { name: "calloop", services: &[Echo], serve: calloop::serve, any_bytes: true },
    Peer { name: "message-io", services: &[Echo], serve: message_io::serve, any_bytes: true },
    Peer { name: "threads", services: &[Echo], serve: threads::serve, any_bytes: true },
    Peer { name: "node", services: &[Echo], serve: node::serve, any_bytes: true },
];

/// Those of two threads, which need two cores and are compared where nothing is pinned to one.
pub const THREADED: &[Peer] = &[
    Peer {
        name: "ours-2",
        services: &[Echo, Presence, Clock],
        serve: ours::serve_threaded,
        any_bytes: true,
    },
    Peer { name: "tokio-2", services: &[Echo], serve: tokio::serve_threaded, any_bytes: true },
    Peer {
        name: "tokio-2-lines",
        services: &[Echo],
        serve: tokio::serve_lines_threaded,
        any_bytes: false,
    },
    Peer {
        name: "tokio-2-broadcast",
        services: &[Presence],
        serve: tokio::serve_broadcast_threaded,
        any_bytes: true,
    },
];

pub fn find(name: &str) -> Option<&'static Peer> {
    PEERS.iter().chain(THREADED).chain(MODELS).find(|peer| peer.name == name)
}

/// Those that can run here, and a word about those that cannot.
pub fn available() -> (Vec<&'static Peer>, Option<&'static str>) {
    let node = node::is_there();
    let peers = PEERS.iter().filter(|peer| node || peer.name != "node").collect();
    (peers, (!node).then_some("node is not installed: that peer is left out"))
}

/// Tells who started it where it listens.
fn ready(port: u16) -> io::Result<()> {
    let mut stdout = io::stdout();
    writeln!(stdout, "{port}")?;
    stdout.flush()
}
