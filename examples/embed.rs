//! A handler of one's own: a chat with a session for each client, broadcasts and a timer.
//!
//! ```text
//! $ cargo run --example embed
//! $ nc 127.0.0.1 8003             (in two terminals)
//! Who are you? Ten seconds to say it.
//! ann
//! * ann is here
//! hello
//! ann: hello                      (everybody with a name hears it)
//! ```

use reactor::{CloseReason, Context, Error, Handler, Reactor, TimerId, text::printable};

struct Chat;

/// The session of a client: its name, once it has said it.
type Name = Option<String>;

impl Handler for Chat {
    type Session = Name;
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, Name>) {
        cx.send("Who are you? Ten seconds to say it.\n");
        cx.set_timer(std::time::Duration::from_secs(10));
    }
    fn on_line(&mut self, cx: &mut Context<'_, Name>, line: &[u8]) {
        // An escape sequence of one must not reach the terminals of the others.
        let text = printable(line);
        let news = match cx.session() {
            Some(name) => format!("{name}: {text}\n"),
            name => format!("* {} is here\n", name.insert(text)),
        };
        cx.broadcast_if(news, |_, other| other.is_some());
    }
    fn on_timer(&mut self, cx: &mut Context<'_, Name>, _timer: TimerId) {
        if cx.session().is_none() {
            cx.send("* too late\n");
            cx.close();
        }
    }
    fn on_close(&mut self, cx: &mut Context<'_, Name>, _reason: CloseReason) {
        if let Some(name) = cx.session().take() {
            cx.broadcast_if(format!("* {name} left\n"), |_, other| other.is_some());
        }
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8003".to_owned());
    let mut reactor = Reactor::new()?;
    let service = reactor.listen(address, Chat)?;
    println!("listening on {service}");
    reactor.run()?;
    Ok(())
}
