//! Step 7 of docs/tutorial.md: who does not say a name in time has to leave.

use std::time::Duration;

use reactor::text::printable;
use reactor::{Context, Error, Handler, Reactor, TimerId};

const PATIENCE: Duration = Duration::from_secs(3);

struct Door;

#[derive(Default)]
struct Session {
    /// Runs until the name is said.
    timer: Option<TimerId>,
}

impl Handler for Door {
    type Session = Session;
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, Session>) {
        cx.send("Who are you? You have three seconds.\n");
        let timer = cx.set_timer(PATIENCE);
        cx.session().timer = Some(timer);
    }

    fn on_line(&mut self, cx: &mut Context<'_, Session>, line: &[u8]) {
        if let Some(timer) = cx.session().timer.take() {
            cx.cancel_timer(timer);
            writeln!(cx, "Welcome, {}.", printable(line));
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Session>, _timer: TimerId) {
        cx.send("Too late.\n");
        cx.close();
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8107".to_owned());
    let mut reactor = Reactor::new()?;
    let service = reactor.listen(address, Door)?;
    println!("listening on {service}");
    reactor.run()?;
    Ok(())
}
