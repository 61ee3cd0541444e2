//! Step 8 of docs/tutorial.md: another thread has something to say.

use std::io::stdin;

use reactor::{Context, Error, Handler, Reactor, ServiceContext};

struct Board;

impl Handler for Board {
    type Session = ();
    type Message = String;

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send("Wait for the news.\n");
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, news: String) {
        println!("{} hear it", cx.connection_count());
        cx.broadcast(news + "\n");
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8108".to_owned());
    let mut reactor = Reactor::new()?;
    let service = reactor.listen(address, Board)?;
    println!("listening on {service}");

    let handle = service.handle();
    std::thread::spawn(move || {
        // Blocks, but its own thread only.
        for line in stdin().lines().map_while(Result::ok) {
            if handle.post(line).is_err() {
                return; // The reactor is gone.
            }
        }
    });
    reactor.run()?;
    Ok(())
}
