use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use super::Service;
use crate::protocol::{GREETING, is_bye, reply, without_cr};

/// A thread for each connection, as one writes a first server.
pub(super) fn serve(_: Service, port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    super::ready(listener.local_addr()?.port())?;
    for stream in listener.incoming() {
        let stream = stream?;
        thread::Builder::new().spawn(move || {
            // What fails is a peer that is gone.
            let _ = session(&stream);
        })?;
    }
    Ok(())
}

fn session(stream: &TcpStream) -> io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    stream.set_nodelay(true)?;
    writer.write_all(GREETING.as_bytes())?;
    let (mut line, mut output) = (Vec::new(), Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = without_cr(line.strip_suffix(b"\n").unwrap_or(&line));
        reply(text, &mut output);
        writer.write_all(&output)?;
        if is_bye(text) {
            break;
        }
        line.clear();
        output.clear();
    }
    Ok(())
}
