//! Upgrades of the program: each starts `reactor` once more, which goes on with the clients.

mod asking;
mod many;
mod staying;

use std::net::SocketAddr;

use rustix::process::{Pid, Signal, kill_process};

use crate::util::folder::Folder;
use crate::util::program::Program;

const GREETING: &str = "Welcome to the Reactor Server.\n\
                        Send me text lines and conclude with the BYE command.\n";

/// A server, and those that go on for it. What they say comes out of the same pipes.
struct Generations {
    /// None once it has ended.
    program: Option<Program>,
    folder: Folder,
    pids: Vec<u32>,
}

impl Generations {
    /// `reactor` with these arguments, which listens on a control socket too.
    fn start(name: &str, args: &[&str]) -> Generations {
        let folder = Folder::new(name);
        let admin = format!("--admin={}", folder.file("admin.sock").display());
        let mut command = std::process::Command::new(crate::util::program::REACTOR);
        let first = Program::spawn(command.args(args).arg(admin));
        let pids = vec![first.pid()];
        Generations { program: Some(first), folder, pids }
    }

    /// Has the next one go on; gives what `reactor upgrade` says, without the PID.
    #[track_caller]
    fn upgrade(&mut self) -> String {
        let path = self.folder.file("admin.sock");
        let (status, said, error) = Program::run(&["upgrade", path.to_str().unwrap()]);
        assert_eq!((status, &*error), (0, ""), "{said}");
        let (what, pid) = said.trim_end().split_once(" to process ").expect("no process");
        let (pid, rest) = pid.split_at(pid.find(';').unwrap_or(pid.len()));
        self.pids.push(pid.parse().expect("a PID"));
        format!("{what}{rest}")
    }

    /// Where it says that the service listens, without the layers.
    #[track_caller]
    fn addr(&self, service: &str) -> SocketAddr {
        let place = self.program.as_ref().unwrap().place(service);
        place
            .trim_start_matches("tls:")
            .trim_start_matches("proxy:")
            .trim_start_matches("ws:")
            .parse()
            .unwrap()
    }

    fn signal(&self, generation: usize, signal: Signal) {
        kill_process(pid(self.pids[generation]), signal).unwrap();
    }

    /// Waits until so many more have ended by themselves.
    #[track_caller]
    fn wait_for_ends(&self, count: usize) {
        for _ in 0..count {
            self.program.as_ref().unwrap().wait_for_log("stopped after");
        }
    }

    /// Stops the last one. Once all have ended, gives what they have logged.
    #[track_caller]
    fn end(mut self) -> String {
        self.signal(self.pids.len() - 1, Signal::TERM);
        let (status, _, log) = self.program.take().unwrap().end();
        self.pids.clear();
        assert_eq!(status, 0, "{log}");
        log
    }
}

impl Drop for Generations {
    fn drop(&mut self) {
        // The first one is the program's.
        for number in self.pids.iter().skip(1) {
            let _ = kill_process(pid(*number), Signal::KILL);
        }
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.try_into().unwrap()).unwrap()
}
