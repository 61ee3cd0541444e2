//! What a connection can be: TCP from and to whom, TLS, Unix sockets, pipes and files; and datagrams.

#[path = "../util/mod.rs"]
mod util;

mod access;
mod adopt;
mod datagrams;
mod inherited;
mod multicast;
mod proxy;
mod source_address;
#[cfg(all(feature = "services", feature = "tls"))]
mod tls;
#[cfg(feature = "tls")]
mod tls_by_hand;
#[cfg(feature = "tls")]
mod tls_towards_servers;
mod unix_sockets;
#[cfg(feature = "websocket")]
mod websocket;
