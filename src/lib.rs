//! One thread that serves thousands of clients at once.
#![forbid(unsafe_code)]

mod accept;
mod address;
mod callbacks;
mod connection;
mod context;
mod core;
mod counters;
mod error;
mod feed;
mod handle;
mod handler;
mod id;
mod input;
mod limits;
mod line;
mod net;
mod output;
mod pipe;
mod pool;
mod reactor;
mod reason;
mod serve;
mod server;
#[cfg(feature = "services")]
pub mod services;
pub mod testing;
mod timer;
mod watch;

pub use address::{Address, ToAddress};
pub use callbacks::Callbacks;
pub use context::{Context, ServiceContext};
pub use counters::Counters;
pub use error::Error;
pub use handle::{Handle, Service};
pub use handler::{Farewell, Handler};
pub use id::ConnId;
pub use limits::Limits;
pub use line::Lines;
pub use reactor::{Exit, Reactor};
pub use reason::CloseReason;
pub use timer::TimerId;
