//! Each client gets a thread of its own: the classical way of Java, with n clients and n + 1
//! threads.
//!
//! The conversation reads as if it were the only one, and the kernel deals out the time. A thread
//! costs less than a process, but each has a stack, in memory and once more in the kernel, and
//! every line that comes is a change from one thread to another.

use std::io;
use std::thread;

use crate::blocking::{accept, converse};
use crate::listen;

pub(crate) fn serve(address: &str) -> io::Result<()> {
    let listener = listen(address)?;
    loop {
        let client = accept(&listener);
        let servant = thread::Builder::new().spawn(move || converse(&client));
        if let Err(error) = servant {
            // The client is closed with the closure that holds it.
            eprintln!("no thread for a client: {error}");
        }
    }
}
