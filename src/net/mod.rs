//! All that touches sockets and files: addresses and who may come from where, listening sockets, and
//! what a connection can be over. Nothing here knows the loop or a handler; of mio it takes the token
//! that it is registered with.
//!
//! Read `stream` first (the contract of what a connection is over), then one that keeps it: `tcp`,
//! `unix`, `descriptors`, `memory` (the tests' own), `tls`. `listener` makes newcomers of them;
//! `address`, `networks` and `listen` are what a user writes.

pub(crate) mod address;
pub(crate) mod descriptors;
pub(crate) mod happy_eyeballs;
pub(crate) mod host;
pub(crate) mod layer;
pub(crate) mod listen;
pub(crate) mod listener;
pub(crate) mod memory;
pub(crate) mod networks;
pub(crate) mod stream;
pub(crate) mod tcp;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod unix;
pub(crate) mod unix_path;

pub use address::{Address, ToAddress};
pub use host::Host;
pub use listen::{Listen, ToListen};
pub use memory::Fault;
pub use networks::Networks;
