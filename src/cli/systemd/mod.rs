//! What the program has to do with systemd: sockets that it has opened, and what it wants to be told.
//! Without systemd nothing of it is there.

mod inherited;
mod notify;

pub(crate) use inherited::{Inherited, Socket};
pub(crate) use notify::Notices;
