//! Step 4 of docs/tutorial.md: state of one connection.

use reactor::text::printable;
use reactor::{Context, Error, Handler, Reactor};

struct Room;

#[derive(Default)]
struct Session {
    name: Option<String>,
}

impl Handler for Room {
    type Session = Session;
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, Session>) {
        cx.send("Who are you?\n");
    }

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        let text = printable(line);
        match &cx.session().name {
            Some(name) => {
                let reply = format!("{name}: {text}\n");
                cx.send(reply);
            }
            None => {
                writeln!(cx, "Hello, {text}.");
                cx.session().name = Some(text);
            }
        }
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8104".to_owned());
    let mut reactor = Reactor::new()?;
    let service = reactor.listen(address, Room)?;
    println!("listening on {service}");
    reactor.run()?;
    Ok(())
}
