//! A reply of any length in bounded memory: each piece is made when the client has taken those before.
//!
//! ```text
//! $ cargo run --example stream
//! $ nc 127.0.0.1 8004
//! 1000000000
//! 0
//! 1
//! 2
//! ```

use std::ops::Range;

use reactor::{Context, Error, Handler, Reactor, text};

/// Counts up to any number.
struct Count;

impl Handler for Count {
    /// The numbers that a client is still to be sent.
    type Session = Range<u64>;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, Range<u64>>, line: &[u8]) {
        match text::parse(line.trim_ascii()) {
            Some(count) => {
                *cx.session() = 0..count;
                self.on_drain(cx);
            }
            None => writeln!(cx, "a number, please"),
        }
    }
    fn on_drain(&mut self, cx: &mut Context<'_, Range<u64>>) {
        // Until the last piece is sent, what else the client says waits.
        cx.send_pieces(|left| left.next().map(|number| format!("{number}\n")));
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8004".to_owned());
    let mut reactor = Reactor::new()?;
    let service = reactor.listen(address, Count)?;
    println!("listening on {service}");
    reactor.run()?;
    Ok(())
}
