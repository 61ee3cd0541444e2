//! Waits for input with a deadline, as the manual page of select(2) does: five seconds.
//!
//! ```text
//! $ cargo run --example watch_stdin
//! (a line is typed) Data is available now.
//! (nothing is) No data within five seconds.
//! ```

use std::io::{stdin, stdout};
use std::time::Duration;

use reactor::{Context, Error, Handler, Limits, Reactor, TimerId};

struct Watch;

impl Handler for Watch {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.set_timer(Duration::from_secs(5));
    }
    fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        say(cx, "Data is available now.\n");
        bytes.len()
    }
    fn on_eof(&mut self, cx: &mut Context<'_, ()>) {
        // As for select, an end is something to read.
        say(cx, "Data is available now.\n");
    }
    fn on_timer(&mut self, cx: &mut Context<'_, ()>, _timer: TimerId) {
        say(cx, "No data within five seconds.\n");
    }
}

fn say(cx: &mut Context<'_, ()>, line: &str) {
    cx.send(line);
    cx.close();
    cx.stop();
}

fn main() -> Result<(), Error> {
    let mut reactor = Reactor::new()?;
    let service = reactor.add(Watch, Limits::default())?;
    // From here on standard input is one more thing that the loop watches.
    reactor.adopt(&service, stdin(), stdout())?;
    reactor.run()?;
    Ok(())
}
