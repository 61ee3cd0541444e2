//! Everything that touches sockets and files: addresses, who may come from where, listening sockets,
//! and what a connection runs over. Nothing here knows the loop or a handler.
//!
//! Read `layer` first (the contract of what a connection runs over) and `stream` (a socket or a
//! layer). Then read what keeps the contract: `tcp`, `unix`, `descriptors`, `memory` (of the tests),
//! `happy_eyeballs` (a host before one of its addresses is connected), `proxy`, `tls`, `websocket`.
//! `listener` makes streams of newcomers, `inherited` does at sockets that others have opened, `unix_path` guards the
//! path of a Unix socket, and `credentials` tells who comes there. `passing` carries frames and descriptors to
//! another process, and `passed` makes sockets of them again. `http` reads the heads of requests. `address`, `host`,
//! `networks`, `listen` and `connect` are what a user writes.

pub(crate) mod address;
pub(crate) mod connect;
pub(crate) mod credentials;
pub(crate) mod descriptors;
pub(crate) mod happy_eyeballs;
pub(crate) mod host;
#[cfg(feature = "websocket")]
pub mod http;
pub(crate) mod inherited;
pub(crate) mod layer;
pub(crate) mod listen;
pub(crate) mod listener;
pub(crate) mod memory;
pub(crate) mod networks;
pub(crate) mod newcomers;
pub(crate) mod passed;
pub(crate) mod passing;
pub(crate) mod proxy;
pub(crate) mod stream;
pub(crate) mod tcp;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod unix;
pub(crate) mod unix_path;
#[cfg(feature = "websocket")]
pub(crate) mod websocket;

pub use address::{Address, ToAddress};
pub use connect::{Connect, ToConnect};
pub use credentials::Credentials;
pub use host::Host;
pub use listen::{Listen, ToListen};
pub use memory::Fault;
pub use networks::Networks;
