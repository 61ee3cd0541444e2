//! The examples as child processes.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use crate::util::{Client, PATIENCE};

/// A running example; killed when dropped.
pub struct Example {
    child: Child,
    pub addr: SocketAddr,
    lines: mpsc::Receiver<String>,
}

impl Example {
    /// Starts it on a free port and waits until it says where it listens.
    #[track_caller]
    pub fn start(name: &str) -> Example {
        Example::start_by(Command::new(binary(name)).arg("127.0.0.1:0"))
    }

    /// The same by a command of one's own.
    #[track_caller]
    pub fn start_by(command: &mut Command) -> Example {
        Example::start_typing(command, Stdio::null())
    }

    /// The same, with this as its stdin.
    #[track_caller]
    pub fn start_typing(command: &mut Command, stdin: impl Into<Stdio>) -> Example {
        // From here on whatever goes wrong kills the child.
        let mut example = Example::spawn(command, stdin);
        let first = example.line();
        let addr = first.strip_prefix("listening on ").and_then(|addr| addr.parse().ok());
        example.addr = addr.unwrap_or_else(|| panic!("the first line is {first:?}"));
        example
    }

    /// Starts one that listens nowhere.
    #[track_caller]
    pub fn run(name: &str, args: &[&str]) -> Example {
        Example::spawn(Command::new(binary(name)).args(args), Stdio::null())
    }

    fn spawn(command: &mut Command, stdin: impl Into<Stdio>) -> Example {
        let mut child = command.stdin(stdin).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|l| tell.send(l)));
        Example { child, addr: SocketAddr::from(([0; 4], 0)), lines }
    }

    /// The next line of its stdout.
    #[track_caller]
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the example printed no line")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.addr)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where cargo puts an example: beside the folder of this test's own program.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --examples`", path.display());
    path
}
