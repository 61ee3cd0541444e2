//! A client of the presence service: one loop for what is typed and what is heard. A line that
//! begins with a command, as BYE, is sent as it is, any other one is said; Ctrl-D says BYE too.
//!
//! ```text
//! $ cargo run -- serve presence       (somebody else in the room: nc 127.0.0.1 9907)
//! $ cargo run --example presence_client
//! $ cargo run --example presence_client -- 127.0.0.1:9907 zoe     (where, and who)
//! ```

use reactor::{CloseReason, ConnId, Context, Error, Handler, Limits, Reactor, text};
use std::{cell::Cell, io};

struct Client<'a> {
    name: String,
    end: &'a Cell<Option<CloseReason>>,
}

impl Handler for Client<'_> {
    type Session = Option<ConnId>; // the other one: the server's, or that of what is typed
    type Message = ();
    fn on_open(&mut self, cx: &mut Context<'_, Option<ConnId>>) {
        if cx.is_outbound() {
            writeln!(cx, "HELLO {}", self.name);
            let server = cx.id();
            *cx.session() = cx.adopt(io::stdin(), io::stdout(), Some(server)).ok();
        }
    }
    fn on_line(&mut self, cx: &mut Context<'_, Option<ConnId>>, line: &[u8]) {
        let Some(other) = *cx.session() else { return };
        let known = matches!(text::command(line).0, b"HELLO" | b"SAY" | b"WHO" | b"BYE" | b"KILL");
        let verb = if known || cx.is_outbound() { "" } else { "SAY " };
        cx.send_to(other, [verb.as_bytes(), line, b"\n"].concat());
    }
    fn on_eof(&mut self, cx: &mut Context<'_, Option<ConnId>>) {
        match (cx.is_outbound(), *cx.session()) {
            (false, Some(server)) => drop(cx.send_to(server, "BYE\n")),
            _ => cx.close(),
        }
    }
    fn on_close(&mut self, cx: &mut Context<'_, Option<ConnId>>, reason: CloseReason) {
        self.end.set(self.end.get().or(Some(reason)));
        cx.stop();
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:9907".to_owned());
    let name = std::env::args().nth(2).unwrap_or("somebody".to_owned());
    let end = Cell::new(None);
    let mut reactor = Reactor::new()?;
    let service = reactor.add(Client { name, end: &end }, Limits::default())?;
    reactor.connect(&service, address)?;
    reactor.run()?;
    if let Some(reason) = end.get().filter(|reason| *reason != CloseReason::PeerClosed) {
        eprintln!("it ended: {reason}");
        std::process::exit(1)
    }
    Ok(())
}
