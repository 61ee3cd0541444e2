//! A server out of callbacks, the way Node.js teaches it: lines come back in upper case. No type
//! to declare; what the callbacks share is a variable of `main`, without a lock.
//!
//! ```text
//! $ cargo run --example callbacks
//! $ nc 127.0.0.1 8002
//! Welcome! You are 1 of 1. Say `bye` to leave.
//! hello, été
//! HELLO, ÉTÉ
//! bye
//! BYE
//! ```

use std::cell::Cell;

use reactor::{Callbacks, Error, Reactor};

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8002".to_owned());
    let (seen, here) = (Cell::new(0), Cell::new(0));

    let server = Callbacks::new()
        .on_listening(|address| println!("listening on {address}"))
        .on_connection(|cx| {
            seen.set(seen.get() + 1);
            here.set(here.get() + 1);
            let (seen, here) = (seen.get(), here.get());
            writeln!(cx, "Welcome! You are {here} of {seen}. Say `bye` to leave.");
        })
        .on_line(|cx, line| {
            let text = String::from_utf8_lossy(line);
            writeln!(cx, "{}", text.to_uppercase());
            if text == "bye" {
                cx.close();
            }
        })
        .on_close(|_, reason| {
            here.set(here.get() - 1);
            println!("one left ({reason}), {} still here", here.get());
        });

    let mut reactor = Reactor::new()?;
    reactor.listen(address, server)?;
    reactor.run()?;
    Ok(())
}
