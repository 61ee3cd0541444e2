//! The way of Node.js: say what is to be done when a client comes and when a line comes, and let
//! the loop call you. No loop, no socket and no state in sight; one thread.

use reactor::{Callbacks, Error, Reactor};

use crate::text::{GREETING, answer};

pub(crate) fn serve(address: &str) -> Result<(), Error> {
    let server = Callbacks::new()
        .on_listening(|address| println!("listening on {address}"))
        .on_connection(|cx| {
            cx.send(GREETING);
        })
        .on_line(|cx, line| {
            let mut reply = Vec::new();
            let over = answer(line, &mut reply);
            cx.send(reply);
            if over {
                cx.close();
            }
        });
    let mut reactor = Reactor::new()?;
    reactor.listen(address, server)?;
    reactor.run()?;
    Ok(())
}
