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
        server.port = line.trim().parse().map_err(|_| format!("{} does not start", peer.name))?;
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

    pub fn cpu(&self) -> io::Result<Duration> {
        sys::cpu_time(self.child.id())
    }

    /// Bytes of memory of its own: neither files nor the kernel's.
    pub fn memory(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
        let size = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no Anonymous")?;
        Ok(size.trim().parse::<u64>()? * 1024)
    }

    /// Waits until it has done what its last clients left behind.
    pub fn quiet(&self) -> Result<()> {
        let (begin, mut calm, mut last) = (Instant::now(), 0, self.cpu()?);
        while calm < 3 && begin.elapsed() < RESTLESS {
            thread::sleep(Duration::from_millis(20));
            let now = self.cpu()?;
            let idle = now - last < Duration::from_micros(200);
            (calm, last) = (if idle { calm + 1 } else { 0 }, now);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
