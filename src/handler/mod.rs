//! What an embedder writes, and what it is given for that: the hooks, the contexts that they get, and
//! the help for lines and text. The loop that calls the hooks is in `reactor`.
//!
//! Read `handler` first (the hooks and their contract), then `context` (what a hook can do with its
//! connection) and `service_context` (with all of them); `lines` and `writer` are the two ends of a
//! line; `callbacks` is the same in closures.

pub(crate) mod callbacks;
pub(crate) mod context;
pub(crate) mod farewell;
#[expect(clippy::module_inception, reason = "the wing is named after what it is about")]
pub(crate) mod handler;
pub(crate) mod lines;
pub(crate) mod service_context;
pub mod text;
pub(crate) mod writer;

pub use callbacks::Callbacks;
pub use context::Context;
pub use farewell::Farewell;
pub use handler::Handler;
pub use lines::Lines;
pub use service_context::ServiceContext;
pub use writer::Writer;
