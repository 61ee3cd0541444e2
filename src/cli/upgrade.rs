use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::admin::{check_folder, folders, socket_of, sockets};
use super::asking::{Answer, Output, ask_within, find, list};
use super::failure::Failure;
use super::predecessor::FROM;

/// How long an upgrade may take: the new process has 10 s to start, and as long for each step.
const PATIENCE: Duration = Duration::from_secs(60);
/// After it, a process that was started is the one that serves.
const SETTLED: Duration = Duration::from_secs(25);

/// Upgrade a running server to the program that is on the disk now, without its clients noticing.
///
/// The server starts its program once more, with the same arguments, and hands on where it listens and all
/// connections, in the middle of a line if need be. If the new process cannot go on with them, whatever the
/// reason, nothing has changed. Connections with TLS or WebSocket, and those of reactor forward, stay with the
/// old process until they end, or for --upgrade-timeout. The same happens at SIGUSR2.
///
/// Exit status: 0 once the new process serves, 1 if nothing has changed or there is no such server, 2 if the
/// command line is wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct Upgrade {
    /// The server: its PID, or the path of its control socket; one without a control socket is sent SIGUSR2
    /// [default: the one that runs as this user].
    #[arg(value_name = "PID|PATH")]
    server: Option<String>,
}

/// Asks for it, and prints what has come of it.
pub(crate) fn upgrade(args: &Upgrade) -> Result<ExitCode, Failure> {
    let path = match &args.server {
        None => the_one()?,
        Some(server) => match server.parse().ok().filter(|pid| !has_socket(*pid)) {
            Some(pid) => return by_signal(pid),
            None => find(server)?,
        },
    };
    match ask_within(PATIENCE, &path, &["UPGRADE"], &mut Output::new(false))? {
        Answer::Printed | Answer::Unread => Ok(ExitCode::SUCCESS),
        Answer::Gone(why) => Err(why),
    }
}

/// The control socket of the only server of this user.
fn the_one() -> Result<PathBuf, Failure> {
    let folders = folders();
    for folder in folders.iter().filter(|folder| fs::symlink_metadata(folder).is_ok()) {
        check_folder(folder).map_err(Failure::Runtime)?;
    }
    let mut found: Vec<_> = folders.iter().flat_map(|folder| sockets(folder)).collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::Runtime(format!(
            "no server of this user runs: none is in {}; write its PID, or the PATH of --admin",
            list(&folders)
        ))),
        several => Err(Failure::Runtime(format!(
            "{several} servers of this user run; write the PID of one, as reactor status shows it"
        ))),
    }
}

fn has_socket(pid: u32) -> bool {
    folders().iter().any(|folder| socket_of(folder, pid).exists())
}

/// Sends SIGUSR2, and tells as much as can be seen from outside.
fn by_signal(server: u32) -> Result<ExitCode, Failure> {
    let failed = |why: String| Failure::Runtime(format!("process {server}: {why}"));
    let pid = i32::try_from(server).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| failed("there is none".to_owned()))?;
    test_kill_process(pid).map_err(|error| failed(error.to_string()))?;
    // It would end any other program.
    if !catches(server, Signal::USR2) {
        return Err(failed(
            "it does not wait for SIGUSR2; is it a server, and no older one?".to_owned(),
        ));
    }
    if let Some(child) = child_of(server) {
        return Err(failed(format!(
            "process {child} has taken over, or is about to; upgrade that one"
        )));
    }
    kill_process(pid, Signal::USR2).map_err(|error| failed(error.to_string()))?;
    let until = Instant::now() + SETTLED;
    let mut started = None;
    loop {
        // Its child is another one's once it is gone, so this comes in this order.
        let child = child_of(server);
        let is_gone = parent_of(server).is_none();
        let gone_on = || started.or_else(|| successor_of(server));
        let child = child.or_else(|| is_gone.then(gone_on)?);
        let over = Instant::now() >= until;
        let said = match (started, child) {
            (_, Some(child)) if is_gone => format!("process {child} goes on for process {server}"),
            (_, Some(child)) if over => {
                format!("process {child} goes on; process {server} serves what stays to its end")
            }
            (_, None) if is_gone => return Err(failed("it has ended".to_owned())),
            (Some(_), None) => {
                return Err(failed("nothing has changed; its log says why".to_owned()));
            }
            (None, None) if over => {
                return Err(failed("no new process is to be seen; its log says why".to_owned()));
            }
            _ => {
                started = child;
                thread::sleep(Duration::from_millis(20));
                continue;
            }
        };
        return Output::new(false).say(&said);
    }
}

/// Whether a process has a handler for the signal, as far as the system tells.
fn catches(pid: u32, signal: Signal) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_none_or(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}

/// A process that this one has started.
fn child_of(parent: u32) -> Option<u32> {
    pids()?.find(|pid| parent_of(*pid) == Some(parent))
}

/// The process that was started to go on for one that may have gone, as far as this user may see that.
fn successor_of(server: u32) -> Option<u32> {
    let mark = format!("{FROM}={server}");
    let has_mark = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
    };
    pids()?.find(has_mark)
}

fn pids() -> Option<impl Iterator<Item = u32>> {
    let entries = fs::read_dir("/proc").ok()?.flatten();
    Some(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// The parent of a process that has not ended.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold any of them; see proc_pid_stat(5).
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    fields.next().filter(|state| *state != "Z")?;
    fields.next()?.parse().ok()
}
