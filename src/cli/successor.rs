//! An upgrade: the program is started once more, as it is on the disk now, and goes on with the clients that this
//! process has. `reactor upgrade` and SIGUSR2 ask for it.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{self, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use reactor::text::printable;
use reactor::{Cores, Error, HandedOn, Remote, Successor};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, getpgrp, kill_process};
use rustix::termios::tcgetpgrp;
use signal_hook::consts::{SIGHUP, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

use super::admin::{self, Tell};
use super::failure::{self, Failure, start_thread};
use super::predecessor::{FROM, patience};
use super::systemd::{self, Inherited, Notices};
use super::units::{duration, grouped};

/// What is about this process alone.
const OWN: [&str; 4] = ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// How long a process that cannot go on may take to end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The options.
#[derive(Debug, clap::Args)]
pub(crate) struct UpgradeOptions {
    /// After an upgrade, how long the old process serves those connections to their end that cannot go over to
    /// the new one, as those with TLS or WebSocket: 500ms, 30s, 5m, 1h.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    upgrade_timeout: Duration,
}

/// Begins an upgrade; for SIGUSR2 and the control socket.
#[derive(Clone)]
pub(crate) struct Upgrades(Arc<Shared>);

struct Shared {
    /// What is started: it stays the same path while other programs come to be there.
    program: io::Result<PathBuf>,
    timeout: Duration,
    remote: Remote<'static>,
    notices: Notices,
    inherited: Inherited,
    under_way: AtomicBool,
    /// A SIGHUP has come meanwhile. The new process may have read its configuration and opened its log before.
    hung_up: AtomicBool,
    /// The process that has taken over; 0 for none.
    successor: AtomicU32,
    /// How that one has ended.
    ended: Mutex<Option<ExitCode>>,
    end: Condvar,
}

impl Upgrades {
    /// From now on SIGUSR2 begins an upgrade.
    pub(crate) fn start(
        cores: &Cores<'static>,
        options: &UpgradeOptions,
        inherited: &Inherited,
        notices: &Notices,
    ) -> Result<Upgrades, Failure> {
        let upgrades = Upgrades(Arc::new(Shared {
            program: program(),
            timeout: options.upgrade_timeout,
            remote: cores.remote(),
            notices: notices.clone(),
            inherited: inherited.clone(),
            under_way: AtomicBool::new(false),
            hung_up: AtomicBool::new(false),
            successor: AtomicU32::new(0),
            ended: Mutex::new(None),
            end: Condvar::new(),
        }));
        let failed = |error| {
            let why = failure::why(&error);
            Failure::Runtime(format!("SIGUSR2 cannot be caught: {why}"))
        };
        let mut signals = Signals::new([SIGUSR2, SIGTERM, SIGHUP]).map_err(failed)?;
        let own = upgrades.clone();
        start_thread("signals", move || {
            for signal in signals.forever() {
                match signal {
                    // It ends the loop, and after that the wait.
                    SIGTERM if own.successor().is_some() => own.0.has_ended(ExitCode::SUCCESS),
                    SIGHUP => own.0.hung_up.store(true, SeqCst),
                    SIGUSR2 => {
                        if let Err(why) = own.begin(Arc::new(|_| {})) {
                            log::error!("upgrade: {why}");
                        }
                    }
                    _ => {}
                }
            }
        })?;
        Ok(upgrades)
    }

    /// The process that has taken over.
    pub(crate) fn successor(&self) -> Option<u32> {
        Some(self.0.successor.load(SeqCst)).filter(|pid| *pid != 0)
    }

    /// Where a shell in a terminal waits for this process: waits for the one that has taken over, which belongs to the
    /// same job, and gives its exit status. Otherwise the shell would go on, and Ctrl-C reach nobody.
    pub(crate) fn outlast(&self) -> Option<ExitCode> {
        let pid = self.successor().filter(|_| is_in_foreground())?;
        log::info!("waiting for process {pid}, since a terminal waits for this one");
        let ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = self.0.end.wait_while(ended, |ended| ended.is_none());
        *ended.unwrap_or_else(PoisonError::into_inner)
    }

    /// What the control socket does when it is asked for one.
    pub(crate) fn on_request(&self) -> impl Fn(Tell) -> Result<(), String> + use<> {
        let own = self.clone();
        move |tell| own.begin(tell)
    }

    /// Begins an upgrade, in a thread. What has come of it is told and logged.
    fn begin(&self, tell: Tell) -> Result<(), String> {
        if let Some(pid) = self.successor() {
            return Err(format!("process {pid} has taken over; upgrade that one"));
        }
        if std::process::id() == 1 {
            return Err(
                "process 1 is what its container runs, which ends with it: restart the container"
                    .to_owned(),
            );
        }
        if self.0.under_way.swap(true, SeqCst) {
            return Err("an upgrade is under way; wait until it has ended".to_owned());
        }
        self.0.hung_up.store(false, SeqCst);
        let own = self.clone();
        let started = start_thread("upgrade", move || own.0.upgrade(&tell));
        started.map_err(|failure| {
            self.0.under_way.store(false, SeqCst);
            failure.to_string()
        })
    }
}

impl Shared {
    fn upgrade(self: &Arc<Self>, tell: &Tell) {
        let (mut child, socket) = match self.start_child() {
            Ok(started) => started,
            Err(why) => return self.failed(&why, tell),
        };
        match self.hand_on(child.id(), socket, tell) {
            // Nobody else would wait for it, should it end before this process does.
            Ok(()) => match child.wait() {
                Ok(status) => {
                    log::info!("process {} has ended: {status}", child.id());
                    let code = status.code().and_then(|code| u8::try_from(code).ok());
                    self.has_ended(code.map_or(ExitCode::FAILURE, ExitCode::from));
                }
                // Where SIGCHLD is ignored nobody is told how.
                Err(_) => self.has_ended(ExitCode::SUCCESS),
            },
            Err(why) => {
                let ended = end(child).map(|status| format!(" ({status})")).unwrap_or_default();
                self.failed(&format!("{why}{ended}"), tell);
            }
        }
    }

    fn has_ended(&self, code: ExitCode) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.get_or_insert(code);
        self.end.notify_all();
    }

    fn failed(&self, why: &str, tell: &Tell) {
        // It may quote anything.
        let why = printable(why.as_bytes());
        log::error!("upgrade: nothing has changed: {why}");
        self.under_way.store(false, SeqCst);
        tell(Err(format!("nothing has changed: {why}")));
    }

    /// Starts the program as this process was started, with one end of a socket to this process.
    fn start_child(&self) -> Result<(Child, UnixStream), String> {
        let program =
            self.program.as_ref().map_err(|error| format!("where it is is unknown: {error}"))?;
        let failed = |error| format!("{} cannot be started: {error}", program.display());
        let (own, other) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new(program);
        let mut args = env::args_os();
        command.arg0(args.next().unwrap_or_else(|| OsString::from("reactor")));
        command.args(args).stdin(OwnedFd::from(other));
        for name in OWN {
            command.env_remove(name);
        }
        command.env(FROM, std::process::id().to_string());
        command.env(systemd::PASSED_ON, self.inherited.passed_on());
        Ok((command.spawn().map_err(failed)?, own))
    }

    /// Hands on once the child is ready; the loop goes on until then.
    fn hand_on(self: &Arc<Self>, pid: u32, socket: UnixStream, tell: &Tell) -> Result<(), String> {
        let again = socket.try_clone().map_err(|error| error.to_string())?;
        let mut successor = Successor::new(socket, patience()).map_err(why)?;
        let (offered, successor) = self.in_loop(move |cores| {
            let offered = cores.offer(&mut successor);
            (offered, successor)
        })?;
        let wait = if offered.is_ok() { patience() } else { Duration::ZERO };
        match (is_heard(&successor, wait), offered) {
            // It may have refused before it was offered anything.
            (true, _) => {}
            (false, Ok(())) => return Err(format!("process {pid} says nothing for {wait:?}")),
            (false, Err(error)) => return Err(why(error)),
        }
        let (own, tell) = (Arc::clone(self), Arc::clone(tell));
        let outcome = self.in_loop(move |cores| {
            let handed_on = cores.hand_on(successor, own.timeout)?;
            own.handed_on(cores, pid, handed_on, &tell);
            // The new process waits for that before it tells systemd anything.
            drop(again);
            Ok(())
        })?;
        outcome.map_err(why)
    }

    /// The child serves the clients now. This is still in the turn of that, since the next one may be the last.
    fn handed_on(&self, cores: &mut Cores<'static>, pid: u32, what: HandedOn, tell: &Tell) {
        self.successor.store(pid, SeqCst);
        self.notices.main_pid(pid);
        let new =
            i32::try_from(pid).ok().and_then(Pid::from_raw).filter(|_| self.hung_up.load(SeqCst));
        if let Some(Err(error)) = new.map(|new| kill_process(new, Signal::HUP)) {
            log::warn!("process {pid} is not told of a SIGHUP: {error}");
        }
        // Those of the program itself are nobody's clients.
        let status = cores.first().status();
        let own =
            status.services.iter().filter(|it| [admin::NAME, systemd::NAME].contains(&&*it.name));
        let stay = what.left.saturating_sub(own.map(|service| service.connections).sum());
        let connections = |count: usize| match count {
            1 => "1 connection".to_owned(),
            count => format!("{} connections", grouped(count as u64)),
        };
        let stays = match stay {
            0 => String::new(),
            1 => "; 1 stays".to_owned(),
            stay => format!("; {} stay", grouped(stay as u64)),
        };
        let said = format!("handed on {} to process {pid}{stays}", connections(what.connections));
        log::info!("upgrade: {said}");
        tell(Ok(said));
    }

    /// Has the first core do this between two turns.
    fn in_loop<R: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Cores<'static>) -> R + Send + 'static,
    ) -> Result<R, String> {
        let (tell, told) = sync_channel(1);
        let posted = self.remote.post(move |cores| {
            let _ = tell.send(what(cores));
        });
        posted.map_err(why)?;
        // A change that is dropped drops its end of the channel.
        told.recv().map_err(|_| why(Error::ShuttingDown))
    }
}

fn why(error: Error) -> String {
    match error {
        Error::Upgrade { why } => why,
        error => error.to_string(),
    }
}

/// Whether it has said something, or has ended, before that time is over.
fn is_heard(successor: &Successor, within: Duration) -> bool {
    let until = Instant::now() + within;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(successor, PollFlags::IN)], timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => return outcome.is_ok_and(|ready| ready > 0),
        }
    }
}

/// Ends a process that does not go on. Says how it has ended if it has done so by itself.
fn end(mut child: Child) -> Option<ExitStatus> {
    let until = Instant::now() + LAST_WORDS;
    while Instant::now() < until {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// Whether it belongs to the job in the foreground of a terminal.
fn is_in_foreground() -> bool {
    let job = File::open("/dev/tty").and_then(|terminal| Ok(tcgetpgrp(terminal)?));
    job.is_ok_and(|job| job == getpgrp())
}

/// The path of this program. By the word it was started with, so that a symbolic link leads to what is there at
/// an upgrade; otherwise as the system knows it.
fn program() -> io::Result<PathBuf> {
    let this = env::current_exe()?;
    let word = env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let folders = match word.components().count() {
        // As a shell looks for it.
        1 => env::var_os("PATH").unwrap_or_default(),
        _ => OsString::new(),
    };
    let named = env::split_paths(&folders).map(|folder| folder.join(&word));
    // The word may be anything; and the file may be another one already.
    let is_this = |path: PathBuf| path == this || !this.exists();
    let mut same = named.filter(|path| fs::canonicalize(path).is_ok_and(is_this));
    same.next().map_or(Ok(this), path::absolute)
}
