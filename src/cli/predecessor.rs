//! The process that has started this one by an upgrade, and whose clients this one goes on to serve.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use reactor::{Cores, Error, Reactor};
use rustix::process::{Pid, getppid};

use super::failure::Failure;

/// Who has started it. Its standard input is then a socket to that one.
pub(crate) const FROM: &str = "REACTOR_UPGRADE_FROM";

/// The most that either process waits for the other one.
pub(crate) fn patience() -> Duration {
    const USUAL: Duration = Duration::from_secs(10);
    if !cfg!(debug_assertions) {
        return USUAL;
    }
    // For tests, in milliseconds.
    let shorter = env::var("REACTOR_UPGRADE_PATIENCE").ok().and_then(|text| text.parse().ok());
    shorter.map_or(USUAL, Duration::from_millis)
}

/// None for most processes, which somebody else has started.
#[derive(Debug, Default)]
pub(crate) struct Predecessor(Option<Previous>);

#[derive(Debug)]
struct Previous {
    pid: Pid,
    socket: UnixStream,
    /// This process serves its clients.
    succeeded: Arc<AtomicBool>,
}

impl Predecessor {
    /// Takes the socket. To be called first of all, while nothing reads standard input.
    pub(crate) fn take() -> Predecessor {
        let pid = env::var(FROM).ok().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { return Predecessor(None) };
        let taken = || {
            let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
            socket.local_addr()?;
            rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
            Ok::<_, io::Error>(socket)
        };
        let previous = |socket| Previous { pid, socket, succeeded: Arc::default() };
        Predecessor(taken().ok().map(previous))
    }

    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Fails if it has gone already: nobody has asked for a server of its own.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        match &self.0 {
            Some(Previous { pid, .. }) if getppid() != Some(*pid) => {
                Err(Failure::Runtime(format!(
                    "process {pid}, whose clients this one was to take over, has gone (or it has \
                     started a script, which has to exec this program)"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Tells it that this process cannot go on, and why. Says whether it has heard that, or else knows why, so
    /// that it is the one to say so.
    pub(crate) fn refuse(&self, why: &str) -> bool {
        let Some(Previous { pid, socket, succeeded }) = &self.0 else { return false };
        if succeeded.load(SeqCst) {
            return false;
        }
        let refused = socket.try_clone().map(|socket| Reactor::refuse(socket, why));
        matches!(refused, Ok(Ok(()))) || getppid() == Some(*pid)
    }

    /// Has the cores go on with what it has once they run. To be called before they listen anywhere.
    pub(crate) fn inherit(&self, cores: &mut Cores<'_>) -> Result<(), Error> {
        let Some(previous) = &self.0 else { return Ok(()) };
        let socket = previous.socket.try_clone();
        cores.inherit(socket.map_err(unusable)?, patience())
    }

    /// Says something once the clients are this process's: at once if there was none before it.
    pub(crate) fn once_succeeded(
        &self,
        cores: &Cores<'static>,
        then: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        let Some(Previous { pid, succeeded, .. }) = &self.0 else {
            then();
            return Ok(());
        };
        let (pid, succeeded) = (*pid, Arc::clone(succeeded));
        cores.remote().post(move |_| {
            succeeded.store(true, SeqCst);
            let version = env!("CARGO_PKG_VERSION");
            log::info!("upgraded: version {version} goes on for process {pid}");
            then();
        })
    }

    /// What waits until it has told systemd of this process, whose words are not heard before. To be called once
    /// this process serves its clients.
    pub(crate) fn told(&self) -> Option<impl FnOnce() + Send + use<>> {
        let mut socket = self.0.as_ref()?.socket.try_clone().ok()?;
        Some(move || {
            // It closes its end then.
            let _ = socket.set_read_timeout(Some(patience()));
            let _ = socket.read(&mut [0]);
        })
    }
}

fn unusable(source: io::Error) -> Error {
    Error::Upgrade { why: format!("the socket of the other process cannot be used: {source}") }
}
