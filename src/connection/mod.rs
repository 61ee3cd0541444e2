//! One connection, fed bytes and asked for bytes. Nothing here knows a socket, a selector or a handler,
//! so all of it can be tested without a network. Who calls it, and when, is up to `reactor`.
//!
//! Read `connection` first (what is kept of one client) with its `flags`. Then follow a byte in
//! (`input`, `framing`, `newlines`, `block`) and out (`output`). Then come the rules that judge a
//! client: `backpressure`, `deadlines`, `rate`. `portable` is what another process goes on with, in the
//! `encoding` of all that is handed on. The rest are small types that all wings share:
//! `id`, `clock`, `peer_address`, `close_reason`.

mod backpressure;
mod block;
pub(crate) mod clock;
pub(crate) mod close_reason;
#[expect(clippy::module_inception, reason = "the wing is named after what it is about")]
pub(crate) mod connection;
pub(crate) mod deadlines;
pub(crate) mod encoding;
pub(crate) mod flags;
pub(crate) mod framing;
pub(crate) mod id;
pub(crate) mod input;
pub(crate) mod newlines;
pub(crate) mod output;
pub(crate) mod peer_address;
mod portable;
pub(crate) mod rate;

pub use clock::TimerId;
pub use close_reason::CloseReason;
pub(crate) use encoding::Extent;
pub use encoding::{Decoder, Encoder, Saved, Unreadable};
pub use id::ConnId;
