//! An echo for browsers: a text message comes back line by line, over plain WebSocket at one port; at the
//! next one bytes come back as they are.
//!
//! ```text
//! $ cargo run --example websocket
//! $ node -e 's = new WebSocket("ws://127.0.0.1:8014"); s.onopen = () => s.send("hello");
//!            s.onmessage = (message) => console.log(message.data)'
//! hello
//! $ printf 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n' | nc 127.0.0.1 8014
//! HTTP/1.1 426 Upgrade Required
//! ```

use reactor::{Callbacks, Context, Error, Handler, Limits, Listen, Reactor, WebSocket};

struct Bytes;

impl Handler for Bytes {
    type Session = ();
    type Message = ();

    fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        cx.send(bytes);
        bytes.len()
    }
}

fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8014".to_owned());
    let binary = std::env::args().nth(2).unwrap_or("127.0.0.1:8015".to_owned());
    // A message of this size is a line, and its echo too.
    let limits = Limits { max_line: 16 << 20, max_output: 64 << 20, ..Limits::default() };

    let lines = Callbacks::new().on_line(|cx, line| {
        cx.send(line);
        cx.send("\n");
    });

    let mut reactor = Reactor::new()?;
    let listen = Listen::at(address)?.web_socket(&WebSocket::new());
    let service = reactor.listen_with(listen, lines, limits.clone())?;
    println!("listening on {service}");
    let listen = Listen::at(binary)?.web_socket(&WebSocket::new().binary());
    let service = reactor.listen_with(listen, Bytes, limits)?;
    println!("listening for bytes on {service}");
    reactor.run()?;
    Ok(())
}
