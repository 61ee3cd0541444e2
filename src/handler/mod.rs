//! What the user of the library writes, and what it is given for that: the hooks, the contexts that
//! are passed to them, and helpers for lines and text. The loop that calls the hooks is in `reactor`.
//!
//! Read `handler` first (the hooks and their contract), then `context` (what a hook can do with its
//! connection) and `service_context` (what it can do with all of them). `lines` cuts input into
//! lines and `writer` makes replies; `farewell` is what a client is told when it is closed for a
//! limit. `callbacks` is a handler made of closures, `client` is for those that dial, and `text`
//! has helpers for protocols of commands, of which `unprintable` knows the characters that are not
//! safe to show, and `telnet` the commands that its clients send.

pub(crate) mod callbacks;
pub mod client;
pub(crate) mod context;
pub(crate) mod farewell;
#[expect(clippy::module_inception, reason = "the wing is named after what it is about")]
pub(crate) mod handler;
pub(crate) mod lines;
mod service_context;
mod telnet;
pub mod text;
mod unprintable;
pub(crate) mod writer;

pub use callbacks::Callbacks;
pub use context::Context;
pub use farewell::Farewell;
pub use handler::Handler;
pub use lines::Lines;
pub use service_context::ServiceContext;
pub use writer::Writer;
