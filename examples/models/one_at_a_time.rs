//! The receptionist serves each client itself, to the end, before it looks at the next one.
//!
//! The others are not turned away: the kernel completes their connections and keeps them in the
//! listener's backlog, where they hear nothing. One client that stays silent stops them all.

use std::io;

use crate::blocking::{accept, converse};
use crate::listen;

pub(crate) fn serve(address: &str) -> io::Result<()> {
    let listener = listen(address)?;
    loop {
        let client = accept(&listener);
        // Only when this line is done is the next client accepted.
        let _ = converse(&client);
    }
}
