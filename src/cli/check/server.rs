//! The server as a process that the checker starts (`--run`), and ends.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::client::Client;

/// Between two attempts to connect to a server that starts.
const AGAIN: Duration = Duration::from_millis(20);
/// Bytes of a line that it wrote, at most.
const LINE: usize = 500;

#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    /// The last line that it wrote on stderr.
    said: Arc<Mutex<String>>,
}

impl Server {
    /// Starts it, and waits until it listens.
    pub(super) fn start(
        command: &str,
        address: SocketAddr,
        within: Duration,
    ) -> Result<Server, String> {
        let until = Instant::now() + within;
        // The shell is replaced, so that the process is the server itself.
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("exec {command}"));
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = shell.spawn().map_err(|error| format!("sh: {error}"))?;
        let said = Arc::default();
        if let Some(stderr) = child.stderr.take() {
            keep_last_line(stderr, Arc::clone(&said));
        }
        let mut server = Server { child, said };
        loop {
            if Client::connect(address, until).is_ok() {
                return Ok(server);
            }
            if let Some(why) = server.ended() {
                return Err(why);
            }
            if Instant::now() > until {
                return Err(format!("it does not listen after {within:?}{}", server.last_words()));
            }
            thread::sleep(AGAIN);
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("the server ended, {status}{}", self.last_words()))
    }

    fn last_words(&self) -> String {
        // What it wrote before it ended is about to be read.
        thread::sleep(AGAIN);
        match self.said.lock().unwrap_or_else(PoisonError::into_inner).as_str() {
            "" => String::new(),
            said => format!("; its last words: {said}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads on, so that it is never held up by what it writes.
fn keep_last_line(stderr: ChildStderr, said: Arc<Mutex<String>>) {
    // Without a thread the last words are missing, and nothing else.
    let _ = thread::Builder::new().spawn(move || {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        while let Ok(bytes) = stderr.fill_buf() {
            let count = bytes.len();
            if count == 0 {
                return;
            }
            for byte in bytes {
                match byte {
                    b'\n' if line.is_empty() => {}
                    b'\n' => {
                        let text = String::from_utf8_lossy(&line).into_owned();
                        *said.lock().unwrap_or_else(PoisonError::into_inner) = text;
                        line.clear();
                    }
                    byte if line.len() < LINE => line.push(*byte),
                    _ => {}
                }
            }
            stderr.consume(count);
        }
    });
}
