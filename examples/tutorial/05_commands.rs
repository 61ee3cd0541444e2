//! Step 5 of docs/tutorial.md: a protocol of commands.
//!
//! ```text
//! NAME who     OK, or ERR with a reason; once
//! SAY text     who: text
//! BYE          OK, and the connection is closed
//! ```

use reactor::text::{command, printable};
use reactor::{Context, Error, Handler, Reactor};

struct Room;

#[derive(Default)]
struct Session {
    name: Option<String>,
}

impl Handler for Room {
    type Session = Session;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        let (verb, rest) = command(line);
        let text = printable(rest);
        match (verb, cx.session().name.clone()) {
            (b"NAME", None) if !text.is_empty() => {
                cx.session().name = Some(text);
                cx.send("OK\n");
            }
            (b"NAME", None) => writeln!(cx, "ERR a name, please"),
            (b"NAME", Some(name)) => writeln!(cx, "ERR you are {name}"),
            (b"SAY", Some(name)) => writeln!(cx, "{name}: {text}"),
            (b"SAY", None) => writeln!(cx, "ERR say NAME first"),
            (b"BYE", _) => {
                cx.send("OK\n");
                cx.close();
            }
            _ => writeln!(cx, "ERR there are NAME, SAY, BYE"),
        }
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8105".to_owned());
    let mut reactor = Reactor::new()?;
    let service = reactor.listen(address, Room)?;
    println!("listening on {service}");
    reactor.run()?;
    Ok(())
}
