//! Step 6 of docs/tutorial.md: what one says, all hear.
//!
//! ```text
//! NAME who     everybody with a name gets: * who is here
//! SAY text     everybody with a name gets: who: text
//! WHO          OK, and the names
//! BYE          OK; the others get: * who has left
//! ```

use reactor::text::{command, printable};
use reactor::{CloseReason, Context, Error, Handler, Reactor};

struct Room;

#[derive(Default)]
struct Session {
    name: Option<String>,
}

/// Sends a line to everybody who has a name.
fn tell(cx: &mut Context<'_, Session>, line: String) {
    cx.broadcast_if(line + "\n", |_, session| session.name.is_some());
}

impl Handler for Room {
    type Session = Session;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        let (verb, rest) = command(line);
        let text = printable(rest);
        match (verb, cx.session().name.clone()) {
            (b"NAME", None) if !text.is_empty() => {
                cx.session().name = Some(text.clone());
                tell(cx, format!("* {text} is here"));
            }
            (b"SAY", Some(name)) => tell(cx, format!("{name}: {text}")),
            (b"WHO", _) => {
                let names: Vec<_> =
                    cx.connections().filter_map(|(_, other)| other.name.clone()).collect();
                writeln!(cx, "OK {}", names.join(", "));
            }
            (b"BYE", _) => {
                cx.send("OK\n");
                cx.close();
            }
            (b"NAME" | b"SAY", _) => writeln!(cx, "ERR first NAME who, once; then SAY text"),
            _ => writeln!(cx, "ERR there are NAME, SAY, WHO, BYE"),
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Session>, _reason: CloseReason) {
        if let Some(name) = cx.session().name.take() {
            tell(cx, format!("* {name} has left"));
        }
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8106".to_owned());
    let mut reactor = Reactor::new()?;
    let service = reactor.listen(address, Room)?;
    println!("listening on {service}");
    reactor.run()?;
    Ok(())
}
