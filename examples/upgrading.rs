//! A server that starts its program once more, which goes on with the clients: nobody is disconnected.
//!
//! ```text
//! $ cargo run --example upgrading
//! $ nc 127.0.0.1 8018
//! hello
//! line 1 of yours, 1 of all
//! upgrade                         (change a text below and build it first, if you like)
//! hello
//! line 2 of yours, 2 of all
//! stop
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::{cell::Cell, env, io, path::Path, process::Command, time::Duration};

use reactor::{
    ConnId, Context, Decoder, Encoder, Reactor, Saved, ServiceContext, Successor, Unreadable,
};

/// Counts the lines of all, and those of each client in its session.
struct Tally<'a> {
    lines: u64,
    upgrade: &'a Cell<bool>,
}

impl reactor::Handler for Tally<'_> {
    type Session = u64;
    type Message = ();

    fn on_line(&mut self, cx: &mut Context<'_, u64>, line: &[u8]) {
        match line {
            b"upgrade" => self.upgrade.set(true),
            b"stop" => cx.stop(),
            _ => {
                self.lines += 1;
                *cx.session() += 1;
                let own = *cx.session();
                writeln!(cx, "line {own} of yours, {} of all", self.lines);
            }
        }
    }
    // The old process writes, and the new one reads the same in the same order.
    fn save(&self, _: &ServiceContext<'_, u64>) -> Option<Saved> {
        let mut saved = Saved::new(1);
        saved.state().put_number(self.lines);
        Some(saved)
    }
    fn save_session(&self, _: &ServiceContext<'_, u64>, _: ConnId, own: &u64, to: &mut Encoder) {
        to.put_number(*own);
    }
    fn restore(&mut self, version: u32, from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        if version != 1 {
            return Err(Unreadable("an unknown version"));
        }
        self.lines = from.number()?;
        Ok(())
    }
    fn restore_session(
        &mut self,
        _: ConnId,
        _: u32,
        from: &mut Decoder<'_>,
    ) -> Result<u64, Unreadable> {
        from.number()
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Starts the program once more, with one end of a socket as its standard input.
fn upgrade(reactor: &mut Reactor<'_>, program: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (own, other) = UnixStream::pair()?;
    let mut command = Command::new(program);
    command.args(env::args_os().skip(1)).env("UPGRADED", "yes").stdin(OwnedFd::from(other));
    let mut child = command.spawn()?;
    drop(command); // The child alone has the other end now, so that its death is noticed.
    let handed_on = Successor::new(own, PATIENCE).and_then(|mut to| {
        reactor.offer(&mut to)?;
        reactor.hand_on(to, PATIENCE)
    });
    if handed_on.is_err() {
        child.kill()?;
        child.wait()?;
    }
    println!("process {} goes on with {} clients", child.id(), handed_on?.connections);
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:8018".to_owned());
    let program = env::current_exe()?; // Now: it has another path once its file is replaced.
    let wanted = Cell::new(false);
    let mut reactor = Reactor::new()?;
    let is_upgraded = env::var_os("UPGRADED").is_some();
    if is_upgraded {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        reactor.inherit(socket, PATIENCE)?;
    }
    let service = reactor.listen(address, Tally { lines: 0, upgrade: &wanted })?;
    if is_upgraded {
        reactor.succeed()?;
    }
    println!("listening on {service}");
    while reactor.exit().is_none() {
        reactor.turn(None)?;
        if wanted.take()
            && let Err(error) = upgrade(&mut reactor, &program)
        {
            println!("{error}; everybody is still served here");
        }
    }
    Ok(()) // Nobody is left here.
}
