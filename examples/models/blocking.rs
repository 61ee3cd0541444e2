//! What the four blocking models share: waiting for a client, and talking to one until it leaves.
//! They differ only in who does the talking.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::text::{GREETING, MAX_LINE, answer, is_too_long, without_end};

/// How long a client that has been told goodbye may take to close its side.
const LINGER: Duration = Duration::from_secs(1);
/// Between two attempts to accept when there is no descriptor for a newcomer.
const REST: Duration = Duration::from_millis(100);

/// Waits for the next client.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept() {
            Ok((client, _)) => return client,
            Err(error) => {
                // Out of descriptors, or the client is gone already.
                eprintln!("cannot accept: {error}");
                thread::sleep(REST);
            }
        }
    }
}

/// Talks to one client until it leaves. Every `read` and `write` in here waits as long as the
/// client likes: without a time limit, a silent one occupies whoever called this for ever.
///
/// An error means that the client is gone without goodbye, and is nobody else's business.
pub(crate) fn converse(client: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (mut reader, mut writer) = (BufReader::new(client), client);
    writer.write_all(GREETING.as_bytes())?;
    let (mut line, mut reply) = (Vec::new(), Vec::new());
    let mut over = false;
    while !over && read_line(&mut reader, &mut line)? {
        reply.clear();
        over = answer(without_end(&line), &mut reply);
        writer.write_all(&reply)?;
    }
    hang_up(client)
}

/// Reads one line, its end included, or as much of it as shows that it is too long; the last one
/// may have no end. Whether there was one: not after the client has ended its side.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    while !line.ends_with(b"\n") && !is_too_long(line) {
        // One byte above the limit shows that it is too long, unless that is the CR of the end.
        let most = (MAX_LINE + 1).saturating_sub(line.len()).max(1);
        if reader.by_ref().take(most as u64).read_until(b'\n', line)? == 0 {
            break;
        }
    }
    Ok(!line.is_empty())
}

/// To close while there is unread input would reset the connection, and a reset destroys what the
/// client has not read yet. So: say that nothing more comes, and wait a moment for its end.
fn hang_up(client: &TcpStream) -> io::Result<()> {
    client.shutdown(Shutdown::Write)?;
    client.set_read_timeout(Some(LINGER))?;
    let (mut client, deadline) = (client, Instant::now() + LINGER);
    while Instant::now() < deadline && client.read(&mut [0; 4096])? > 0 {}
    Ok(())
}
