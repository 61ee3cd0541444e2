//! Step 9 of docs/tutorial.md: what one client may use, and what it is told at the limit.

use std::time::Duration;

use reactor::{Context, Error, Farewell, Handler, Limits, Rate, Reactor};

struct Shout;

impl Handler for Shout {
    type Session = ();
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        cx.send(line.to_ascii_uppercase());
        cx.send("\n");
    }

    fn farewell(&self, why: Farewell, limits: &Limits) -> std::borrow::Cow<'static, [u8]> {
        match why {
            Farewell::LineTooLong => {
                format!("ERR at most {} bytes a line\n", limits.max_line).into_bytes().into()
            }
            _ => b"ERR bye for now\n".into(),
        }
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8109".to_owned());
    let limits = Limits {
        max_connections: 100,
        max_line: 20,
        idle_timeout: Some(Duration::from_secs(300)),
        peer_rate: Rate { per_second: 10, burst: 50 }.into(),
        ..Limits::default()
    };
    let mut reactor = Reactor::new()?;
    let service = reactor.listen_with(address, Shout, limits)?;
    println!("listening on {service}");
    reactor.run()?;
    Ok(())
}
