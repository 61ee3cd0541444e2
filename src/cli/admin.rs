//! The control socket of a command that serves, and where others find it.

use std::env;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mio::net::UnixStream;
use reactor::services::{Admin, Upgraded};
use reactor::{Cores, Handle, Limits, Listen};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, geteuid, getpid, kill_process, test_kill_process};

use super::failure::Failure;
use super::logging;

/// What the service goes by.
pub(crate) const NAME: &str = "admin";
/// Clients at once. They have no part in `--max-connections`.
const CLIENTS: usize = 8;
/// So that no client that was forgotten takes up a place for ever.
const IDLE: Duration = Duration::from_secs(300);
/// The longest command.
const COMMAND: usize = 4096;

/// Is told the outcome of an upgrade.
pub(crate) type Tell = Arc<dyn Fn(Result<String, String>) + Send + Sync>;

/// The options.
#[derive(Debug, clap::Args)]
pub(crate) struct AdminOptions {
    /// Where the control socket is [default: PID.sock in $XDG_RUNTIME_DIR/reactor, else in /run/reactor
    /// for root and in /tmp/reactor-UID for others].
    ///
    /// It lets in this user and root alone: see reactor status, reactor close, or nc -U PATH and HELP.
    #[arg(long, value_name = "PATH")]
    admin: Option<PathBuf>,

    /// Have no control socket.
    #[arg(long, conflicts_with = "admin")]
    no_admin: bool,
}

impl AdminOptions {
    /// Listens there. At the usual place, the server can do without: then this gives the warning. `upgrade` begins
    /// an upgrade.
    pub(crate) fn start(
        &self,
        cores: &mut Cores<'_>,
        upgrade: impl Fn(Tell) -> Result<(), String> + 'static,
    ) -> Result<Option<String>, Failure> {
        if self.no_admin {
            return Ok(None);
        }
        let path = match &self.admin {
            Some(path) => Ok(path.clone()),
            None => usual_path(),
        };
        let outcome = match path {
            Ok(path) => listen(&path, cores, upgrade).map_err(|error| error.to_string()),
            Err(why) => Err(why),
        };
        match outcome {
            Ok(()) => Ok(None),
            Err(why) if self.admin.is_some() => Err(Failure::Runtime(format!("--admin: {why}"))),
            Err(why) => Ok(Some(format!(
                "no control socket, so reactor status cannot look inside: {why}; or give --admin PATH, \
                 or --no-admin"
            ))),
        }
    }
}

fn listen(
    path: &Path,
    cores: &mut Cores<'_>,
    upgrade: impl Fn(Tell) -> Result<(), String> + 'static,
) -> Result<(), reactor::Error> {
    let limits = Limits {
        max_connections: CLIENTS,
        max_line: COMMAND,
        idle_timeout: Some(IDLE),
        ..Limits::default()
    };
    let private = Listen::at(path)?.unix_mode(0o600).allow_uids([geteuid().as_raw(), 0]);
    let own = Arc::new(OnceLock::<Handle<Upgraded>>::new());
    let to = Arc::clone(&own);
    let tell: Tell = Arc::new(move |outcome| {
        // After the end of the loop nobody takes the message.
        let _ = to.get().map(|to| to.post(Upgraded(outcome)));
    });
    let begin = move || upgrade(Arc::clone(&tell));
    let admin = Admin::new().on_log(logging::set_level).on_reload(hang_up).on_upgrade(begin);
    let reactor = cores.first();
    let service = reactor.add(admin, limits)?;
    reactor.set_name(&service, NAME);
    reactor.bind(&service, private)?;
    let _ = own.set(service.handle());
    cores.set_accounting(true);
    Ok(())
}

/// As `kill -HUP` does.
fn hang_up() -> Result<(), String> {
    kill_process(getpid(), Signal::HUP).map_err(|error| format!("no signal can be sent: {error}"))
}

/// How many clients were accepted and turned away, but for those of the control socket.
pub(crate) fn clients(cores: &Cores<'_>) -> (u64, u64) {
    let services = cores.status().services;
    let others = services.iter().filter(|service| service.name != NAME);
    others.fold((0, 0), |(accepted, refused), service| {
        (accepted + service.counters.accepted, refused + service.counters.refused)
    })
}

/// Where this process's control socket goes unless somebody says otherwise.
fn usual_path() -> Result<PathBuf, String> {
    let folder = folders().remove(0);
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(format!("the folder {} cannot be made: {error}", folder.display()));
        }
        _ => check_folder(&folder)?,
    }
    // Removes what killed servers have left.
    sockets(&folder);
    Ok(socket_of(&folder, std::process::id()))
}

/// The folders where control sockets of this user may be: where they go, and where they go without
/// `XDG_RUNTIME_DIR`, as services of the system do.
pub(crate) fn folders() -> Vec<PathBuf> {
    let uid = geteuid().as_raw();
    // That of somebody else is left over from before a `sudo`.
    let own = |folder: &PathBuf| fs::metadata(folder).is_ok_and(|found| found.uid() == uid);
    let session = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let session = session.filter(|it| it.is_absolute() && own(it)).map(|it| it.join("reactor"));
    let usual = match uid {
        0 => PathBuf::from("/run/reactor"),
        _ => PathBuf::from(format!("/tmp/reactor-{uid}")),
    };
    session.into_iter().chain([usual]).collect()
}

/// Says what is wrong with a folder that somebody else could put sockets into, or take some out of.
pub(crate) fn check_folder(folder: &Path) -> Result<(), String> {
    let name = folder.display();
    let found = fs::symlink_metadata(folder).map_err(|error| format!("{name}: {error}"))?;
    if found.is_symlink() {
        Err(format!("{name} is a symbolic link and no folder; remove it"))
    } else if !found.is_dir() {
        Err(format!("{name} is no folder; remove it"))
    } else if found.uid() != geteuid().as_raw() {
        Err(format!("{name} belongs to another user, uid {}", found.uid()))
    } else if found.mode() & 0o077 != 0 {
        Err(format!("{name} is open to others; close it with chmod 700"))
    } else {
        Ok(())
    }
}

pub(crate) fn socket_of(folder: &Path, pid: u32) -> PathBuf {
    folder.join(format!("{pid}.sock"))
}

/// The control sockets in a folder, by PID. Those that servers have left that are gone are removed.
pub(crate) fn sockets(folder: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let pids = names
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".sock")?.parse::<u32>().ok());
    let mut pids: Vec<_> = pids.collect();
    pids.sort_unstable();
    let paths = pids.into_iter().map(|pid| (pid, socket_of(folder, pid)));
    let (gone, there): (Vec<_>, Vec<_>) = paths.partition(|(pid, path)| is_gone(*pid, path));
    for (_, path) in gone {
        let _ = fs::remove_file(path.with_extension("sock.lock"));
        let _ = fs::remove_file(path);
    }
    there.into_iter().map(|(_, path)| path).collect()
}

/// Whether nobody can come back to it. A process that cannot be seen may be in another PID namespace, and
/// one that does not listen may be about to.
fn is_gone(pid: u32, path: &Path) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let dead = pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH));
    dead && UnixStream::connect(path).is_err_and(|error| {
        matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound)
    })
}
