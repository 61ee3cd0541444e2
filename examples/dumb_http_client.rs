//! A client that has not read the protocol: it sends words that are no HTTP to an HTTP server, and
//! prints all that comes back until the server closes. Servers say "400", each in its own way.
//!
//! ```text
//! $ python3 -m http.server        (or, to be the server yourself: nc -l 127.0.0.1 8000)
//! $ cargo run --example dumb_http_client
//! ...
//!         <p>Error code: 400</p>
//! ...
//! ```

use std::cell::Cell;
use std::io::{self, Write};

use reactor::{CloseReason, Context, Error, Handler, Limits, Reactor};

const NOT_HTTP: &str = "Hello, sorry, but I don't speak HTTP...\r\n\r\n";

/// Borrows where to leave how it ended, since the reactor keeps the handler.
struct Dumb<'a>(&'a Cell<Option<CloseReason>>);

impl Handler for Dumb<'_> {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send(NOT_HTTP);
    }
    /// Bytes, not lines: an answer may hold anything, and its last line may have no end.
    fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        let mut stdout = io::stdout();
        if let Err(error) = stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            eprintln!("cannot print the answer: {error}");
            cx.close();
        }
        bytes.len()
    }
    fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
        self.0.set(Some(reason));
        cx.stop();
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8000".to_owned());
    let end = Cell::new(None);
    let mut reactor = Reactor::new()?;
    let service = reactor.add(Dumb(&end), Limits::default())?;
    reactor.connect(&service, address.as_str())?;
    reactor.run()?;
    match end.get() {
        Some(CloseReason::PeerClosed) => Ok(()),
        reason => {
            eprintln!("{address}: {}", reason.unwrap_or(CloseReason::Shutdown));
            std::process::exit(1)
        }
    }
}
