//! The server as a process that the checker starts (`--run`), and ends.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::client::Client;
use crate::cli::protocol::shown;

/// Between two attempts to connect to a server that starts.
const AGAIN: Duration = Duration::from_millis(20);
/// Bytes of a line that it wrote, at most.
const LINE: u64 = 500;

/// The group of processes that runs, if one does. Its number is nobody else's until its leader was waited for.
type Running = Arc<Mutex<Option<Pid>>>;

/// How the server is started. No process of it is left behind, however the checker ends.
#[derive(Debug)]
pub(super) struct Starter {
    command: String,
    running: Running,
}

impl Starter {
    pub(super) fn new(command: &str) -> io::Result<Starter> {
        let running = Running::default();
        end_with_signals(Arc::clone(&running))?;
        Ok(Starter { command: command.to_owned(), running })
    }

    /// Starts it, and waits until it listens.
    pub(super) fn start(&self, address: SocketAddr, until: Instant) -> Result<Server, String> {
        let begun = Instant::now();
        let mut server = self.spawn().map_err(|error| format!("sh: {error}"))?;
        loop {
            if Client::connect(address, until).is_ok() {
                return Ok(server);
            }
            if let Some(why) = server.ended() {
                return Err(why);
            }
            if Instant::now() > until {
                let waited = begun.elapsed().as_secs();
                return Err(format!("it does not listen after {waited} s{}", server.last_words()));
            }
            thread::sleep(AGAIN);
        }
    }

    fn spawn(&self) -> io::Result<Server> {
        // The shell is replaced, so that the process is the server itself; env takes NAME=VALUE in front.
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("exec env {}", self.command));
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // Its children are found by their group.
        shell.process_group(0);
        let mut running = lock(&self.running);
        let mut child = shell.spawn()?;
        *running = Some(Pid::from_child(&child));
        drop(running);
        let said = Arc::default();
        if let Some(stderr) = child.stderr.take() {
            keep_last_words(stderr, Arc::clone(&said));
        }
        Ok(Server { child, running: Arc::clone(&self.running), said })
    }
}

/// A signal that ends the checker ends the server first: in its own group it is sent none by the terminal.
fn end_with_signals(running: Running) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    thread::Builder::new().spawn(move || {
        for signal in &mut signals {
            // None is started any more: the lock is kept.
            let mut running = lock(&running);
            kill(running.take());
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

fn kill(group: Option<Pid>) {
    if let Some(group) = group {
        // It fails only if all of them have ended.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    running: Running,
    /// What it wrote last on stderr.
    said: Arc<Mutex<String>>,
}

impl Server {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Option<String> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let pid = Pid::from_child(&self.child);
        waitid(WaitId::Pid(pid), options).ok().flatten()?;
        self.kill();
        let status = self.child.wait().ok()?;
        let remedy = if status.success() { " (it must stay in the foreground)" } else { "" };
        Some(format!("the server ended, {status}{remedy}{}", self.last_words()))
    }

    /// The same, watched until then.
    pub(super) fn ended_by(&mut self, until: Instant) -> Option<String> {
        loop {
            let ended = self.ended();
            if ended.is_some() || Instant::now() > until {
                return ended;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends all its processes, unless that was done.
    fn kill(&self) {
        let pid = Pid::from_child(&self.child);
        kill(lock(&self.running).take_if(|group| *group == pid));
    }

    fn last_words(&self) -> String {
        // What it wrote before it ended is about to be read.
        thread::sleep(AGAIN);
        match lock(&self.said).as_str() {
            "" => String::new(),
            said => format!("; its last words: {said}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        // It fails only if it has ended by itself.
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
            let line = shown(line.trim_ascii());
            let first = line.split(' ').next().unwrap_or_default();
            let names_error = first.contains("Error") || first.contains("Exception");
            if names_error || !is_error && !line.is_empty() {
                is_error |= names_error;
                *lock(&said) = line;
            }
        }
    });
}
