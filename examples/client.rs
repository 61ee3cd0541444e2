//! The other side: dials a server, asks it three things, prints what it says and ends.
//!
//! ```text
//! $ nc -l 127.0.0.1 8007          (answer: your lines are printed at the other side)
//! $ cargo run --example client
//! hello
//! ```

use std::cell::Cell;

use reactor::{CloseReason, Context, Error, Handler, Limits, Reactor};

/// Borrows where to leave how it ended, since the reactor keeps the handler.
struct Asks<'a>(&'a Cell<Option<CloseReason>>);

impl Handler for Asks<'_> {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send("hello\nhow are you\nbye\n");
    }
    fn on_line(&mut self, _cx: &mut Context<'_, ()>, line: &[u8]) {
        println!("{}", String::from_utf8_lossy(line));
    }
    fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
        // It comes also when nobody listens there, and then without an `on_open`.
        self.0.set(Some(reason));
        cx.stop();
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8007".to_owned());
    let end = Cell::new(None);
    let mut reactor = Reactor::new()?;
    let service = reactor.add(Asks(&end), Limits::default())?;
    reactor.connect(&service, address)?;
    reactor.run()?;
    match end.get() {
        Some(CloseReason::PeerClosed) => Ok(()),
        reason => {
            eprintln!("the server is gone: {}", reason.unwrap_or(CloseReason::Shutdown));
            std::process::exit(1)
        }
    }
}
