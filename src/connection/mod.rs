//! The ground: one connection, fed bytes and asked for bytes. It knows no socket, no selector and no
//! handler, so all of it can be tested and fuzzed without a network, and nothing here reaches a wing
//! above.
//!
//! Read `connection` first (what is kept of one client, and the flags), then the way of a byte in
//! (`input`, `framing`) and out (`output`), then the rules that judge it: `backpressure`, `deadlines`,
//! `rate`. The rest are names that all wings share: `id`, `clock`, `peer_address`, `close_reason`.

pub(crate) mod backpressure;
pub(crate) mod clock;
pub(crate) mod close_reason;
#[expect(clippy::module_inception, reason = "the wing is named after what it is about")]
pub(crate) mod connection;
pub(crate) mod deadlines;
pub(crate) mod flags;
pub(crate) mod framing;
pub(crate) mod id;
pub(crate) mod input;
pub(crate) mod newlines;
pub(crate) mod output;
pub(crate) mod peer_address;
pub(crate) mod rate;

pub use clock::TimerId;
pub use close_reason::CloseReason;
pub use id::ConnId;
