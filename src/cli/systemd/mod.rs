//! Under systemd: the sockets that it passes, and the notifications that it expects. Without systemd, nothing of
//! this runs.

mod inherited;
mod notify;

pub(crate) use inherited::{Inherited, PASSED_ON, Socket};
pub(crate) use notify::{NAME, Notices};
