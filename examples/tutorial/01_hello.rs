//! Step 1 of docs/tutorial.md: say hello and close.

use reactor::{Context, Error, Handler, Reactor};

struct Hello;

impl Handler for Hello {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send("Hello!\n");
        cx.close();
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8101".to_owned());
    let mut reactor = Reactor::new()?;
    let service = reactor.listen(address, Hello)?;
    println!("listening on {service}");
    reactor.run()?;
    Ok(())
}
