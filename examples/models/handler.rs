//! The reactor with a handler: the callbacks as methods of a type, which is where the state of the
//! service and of each connection has its place.
//!
//! Underneath, the kernel keeps the set (`epoll`) and reports only who is ready: a turn of the
//! loop costs as much as there is to do, however many are connected and say nothing.

use reactor::{Context, Error, Handler, Reactor};

use crate::text::{GREETING, answer};

/// Shared by all its connections: the memory in which replies are made.
#[derive(Default)]
struct Echo {
    reply: Vec<u8>,
}

impl Handler for Echo {
    type Session = (); // nothing to remember from one line to the next
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send(GREETING);
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        self.reply.clear();
        let over = answer(line, &mut self.reply);
        cx.send(&self.reply);
        if over {
            cx.close();
        }
    }
}

pub(crate) fn serve(address: &str) -> Result<(), Error> {
    let mut reactor = Reactor::new()?;
    let service = reactor.listen(address, Echo::default())?;
    println!("listening on {service}");
    reactor.run()?;
    Ok(())
}
