//! Each client gets a process of its own, as with Apache's first servers, inetd and sshd.
//!
//! Nothing is shared: a session that crashes or leaks takes nobody along, and the kernel cleans up
//! behind it. The price is a process for everyone who is connected, even to say nothing.
//!
//! C would `fork` and go on in the child. Here the program starts itself again and hands it the
//! client as its standard input, the way of inetd, which needs no unsafe code.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

use crate::blocking::{accept, converse};
use crate::listen;

/// Sessions at once. There is only so much room in the process table, which the server must
/// leave to others too; newcomers wait in the backlog until a session ends.
const MOST: usize = 1000;

pub(crate) fn serve(address: &str) -> io::Result<()> {
    let program = std::env::current_exe()?;
    let listener = listen(address)?;
    let mut sessions = 0;
    loop {
        bury(&mut sessions);
        let client = Stdio::from(OwnedFd::from(accept(&listener)));
        let mut session = Command::new(&program);
        session.arg("session").stdin(client).stdout(Stdio::null());
        match session.spawn() {
            Ok(_) => sessions += 1,
            // The client is closed with the `Command` that holds it.
            Err(error) => eprintln!("no process for a client: {error}"),
        }
    }
}

/// A process that has ended stays in the table, a zombie, until its parent has asked how. With
/// as many as there may be, waits until one has ended.
fn bury(sessions: &mut usize) {
    while *sessions > 0 {
        let options = if *sessions < MOST { WaitOptions::NOHANG } else { WaitOptions::empty() };
        match wait(options) {
            Ok(Some(_)) => *sessions -= 1,
            Err(Errno::INTR) => {}
            _ => return,
        }
    }
}

/// What the new process does: its standard input is the client.
pub(crate) fn session() -> io::Result<()> {
    let client = TcpStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    if client.local_addr().is_err() {
        return Err(io::Error::other("standard input is no socket: start process-per-client"));
    }
    let _ = converse(&client);
    Ok(())
}
