//! A fixed number of threads, each of which serves one client after the other.
//!
//! Whatever comes, the server never uses more than this. But it is made for clients that come, ask
//! and go: here, where they stay, as many as there are threads are served, and the others wait in
//! the backlog. A pool that is too small is "one at a time" with another number.

use std::io;
use std::thread;

use crate::blocking::{accept, converse};
use crate::listen;

/// Clients served at once.
const WORKERS: usize = 64;

pub(crate) fn serve(address: &str) -> io::Result<()> {
    let listener = listen(address)?;
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            // All wait at the same door; the kernel lets one through for each client.
            let worker = || {
                loop {
                    let _ = converse(&accept(&listener));
                }
            };
            thread::Builder::new().spawn_scoped(scope, worker)?;
        }
        Ok(())
    })
}
