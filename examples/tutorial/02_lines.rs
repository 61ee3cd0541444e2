//! Step 2 of docs/tutorial.md: answer each line.

use reactor::{Context, Error, Handler, Reactor};

struct Shout;

impl Handler for Shout {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send("Say something, or bye.\n");
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        cx.send(line.to_ascii_uppercase());
        cx.send("\n");
        if line == b"bye" {
            cx.close();
        }
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8102".to_owned());
    let mut reactor = Reactor::new()?;
    let service = reactor.listen(address, Shout)?;
    println!("listening on {service}");
    reactor.run()?;
    Ok(())
}
