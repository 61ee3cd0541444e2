//! The server as a process that the checker starts (`--run`), and ends.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::client::Client;

/// Between two attempts to connect to a server that starts.
const AGAIN: Duration = Duration::from_millis(20);
/// Bytes of a line that it wrote, at most.
const LINE: u64 = 500;

#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    /// What it wrote last on stderr.
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
            keep_last_words(stderr, Arc::clone(&said));
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

    /// The same, watched for so long.
    pub(super) fn ended_within(&mut self, patience: Duration) -> Option<String> {
        let until = Instant::now() + patience;
        loop {
            let ended = self.ended();
            if ended.is_some() || Instant::now() > until {
                return ended;
            }
            thread::sleep(Duration::from_millis(5));
        }
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

/// Reads on, so that it is never held up by what it writes. What counts is the last line that names an error, as
/// tracebacks do, or else the last one.
fn keep_last_words(stderr: ChildStderr, said: Arc<Mutex<String>>) {
    // Without a thread the last words are missing, and nothing else.
    let _ = thread::Builder::new().spawn(move || {
        let mut stderr = BufReader::new(stderr);
        let mut is_error = false;
        loop {
            let mut line = Vec::new();
            match stderr.by_ref().take(LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            let first = line.split(' ').next().unwrap_or_default();
            let names_error = first.contains("Error") || first.contains("Exception");
            if names_error || !is_error && !line.is_empty() {
                is_error |= names_error;
                *said.lock().unwrap_or_else(PoisonError::into_inner) = line;
            }
        }
    });
}
