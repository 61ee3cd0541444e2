//! Step 3 of docs/tutorial.md: state that all connections share.

use reactor::{Context, Error, Handler, Reactor};

#[derive(Default)]
struct Counter {
    total: i64,
}

impl Handler for Counter {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        match reactor::text::parse::<i64>(line) {
            Some(number) => {
                self.total = self.total.saturating_add(number);
                writeln!(cx, "total {}", self.total);
            }
            None => writeln!(cx, "a number, please"),
        }
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8103".to_owned());
    let mut reactor = Reactor::new()?;
    let service = reactor.listen(address, Counter::default())?;
    println!("listening on {service}");
    reactor.run()?;
    Ok(())
}
