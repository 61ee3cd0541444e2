use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use clap::ValueEnum;

use crate::peers::{Peer, Service};
use crate::{Result, sys};

/// How long a server may go on working after its clients have left.
const RESTLESS: Duration = Duration::from_secs(30);

/// A peer that serves in a process of its own; it ends with this value, and with this process.
pub struct Server {
    peer: &'static Peer,
    service: Service,
    child: Child,
    port: u16,
}

impl Server {
    pub fn start(peer: &'static Peer, service: Service, core: Option<usize>) -> Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        let value = service.to_possible_value().expect("none is skipped");
        command.args(["serve", peer.name, "0", "--service", value.get_name()]);
        command.env("TZ", "UTC").stdin(Stdio::null()).stdout(Stdio::piped());
        let parent = std::process::id().cast_signed();
        // SAFETY: only system calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                sys::die_with_parent(parent)?;
                sys::raise_descriptors()?;
                core.map_or(Ok(()), sys::pin)
            });
        }
        let child = command.spawn()?;
        let mut server = Server { peer, service, child, port: 0 };
        let mut line = String::new();
        if let Some(stdout) = server.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        // The port alone, or where an example says that it is listening.
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        server.port = port.ok_or_else(|| format!("{} does not start", peer.name))?;
        Ok(server)
    }

    pub fn peer(&self) -> &'static Peer {
        self.peer
    }

    pub fn name(&self) -> &'static str {
        self.peer.name
    }

    pub fn service(&self) -> Service {
        self.service
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The processes that it has started and not yet buried.
    fn children(&self) -> Vec<u32> {
        let pid = self.child.id();
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        // Not every kernel keeps that list; the models ask for it before they begin.
        let list = list.unwrap_or_default();
        list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Its CPU time and that of its children as long as they are there.
    pub fn cpu(&self) -> io::Result<Duration> {
        let children = self.children().into_iter();
        let theirs: Duration = children.filter_map(|pid| sys::cpu_time(pid).ok()).sum();
        Ok(sys::cpu_time(self.child.id())? + theirs)
    }

    /// Bytes of memory of its own and its children's: neither files nor the kernel's.
    pub fn memory(&self) -> Result<u64> {
        let children = self.children().into_iter();
        // One that has ended and is not buried yet has none.
        let theirs: u64 = children.filter_map(|pid| anonymous(pid).ok()).sum();
        Ok(anonymous(self.child.id())? + theirs)
    }

    /// Waits until it has done what its last clients left behind.
    pub fn quiet(&self) -> Result<()> {
        let (begin, mut calm, mut last) = (Instant::now(), 0, self.cpu()?);
        while calm < 3 && begin.elapsed() < RESTLESS {
            thread::sleep(Duration::from_millis(20));
            let now = self.cpu()?;
            // It is less when a process of its has ended.
            let idle = now.abs_diff(last) < Duration::from_micros(200);
            (calm, last) = (if idle { calm + 1 } else { 0 }, now);
        }
        Ok(())
    }
}

fn anonymous(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let size = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no Anonymous")?;
    Ok(size.trim().parse::<u64>()? * 1024)
}

impl Drop for Server {
    fn drop(&mut self) {
        // While it stands still it starts no others and buries none, so that their numbers cannot
        // come to mean somebody else.
        let _ = sys::signal(self.child.id(), libc::SIGSTOP);
        for child in self.children() {
            let _ = sys::signal(child, libc::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
