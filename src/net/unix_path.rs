//! The path of a Unix socket: whose it is, what mode it has, and what becomes of it at the end.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::Error;
use crate::net::Address;

/// Files named PATH.lock that may have gone while they were being locked: each was of a server that
/// came and went meanwhile.
const TRIES: usize = 100;

/// A path that is ours alone for as long as this lives. Dropping it removes the socket there if it
/// is still the same one.
pub(crate) struct UnixPath {
    path: PathBuf,
    inode: Option<(u64, u64)>,
    lock: Lock,
}

impl UnixPath {
    /// Makes it ours. What is there already is not looked at before nobody else may change it.
    pub(super) fn lock(address: &Address, path: &Path) -> Result<UnixPath, Error> {
        Ok(UnixPath { path: path.to_owned(), inode: None, lock: Lock::take(address, path)? })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that the socket is there, and gives it its mode.
    pub(super) fn bound(&mut self, mode: Option<u32>) -> io::Result<()> {
        self.inode = Some(inode(&self.path)?);
        self.set_mode(mode)
    }

    /// Sets the mode of the socket's file, unless another file has taken its place.
    pub(super) fn set_mode(&self, mode: Option<u32>) -> io::Result<()> {
        let Some(mode) = mode else { return Ok(()) };
        if Some(inode(&self.path)?) != self.inode {
            return Err(foreign());
        }
        set_mode(&self.path, mode)
    }

    /// The socket's file, and the lock, which two processes hold as one.
    pub(super) fn passed(&self) -> Option<((u64, u64), BorrowedFd<'_>)> {
        Some((self.inode?, self.lock.file.as_fd()))
    }

    /// The path of another process, until it is [owned](Self::own).
    pub(super) fn received(path: PathBuf, inode: (u64, u64), lock: OwnedFd) -> UnixPath {
        let lock = Lock { path: lock_of(&path), file: lock.into(), owned: false };
        UnixPath { path, inode: Some(inode), lock }
    }

    /// Whether it is this process that removes it.
    pub(super) fn own(&mut self, owned: bool) {
        self.lock.owned = owned;
    }
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        if let Some(own) = self.inode.filter(|_| self.lock.owned) {
            remove_own(&self.path, own);
        }
    }
}

/// Says no in the name of whatever has the path.
pub(super) fn taken(address: &Address, why: impl Into<String>) -> Error {
    let source = io::ErrorKind::AddrInUse.into();
    Error::Listen { address: address.clone(), why: why.into(), source }
}

/// Whether the file is this process's own user's.
pub(super) fn is_ours(found: &fs::Metadata) -> bool {
    found.uid() == rustix::process::geteuid().as_raw()
}

/// PATH.lock, locked until this is dropped or the process ends, however it ends.
///
/// Dropping it removes the file while it is still locked. A process that has opened it before that
/// and is given the lock after it holds a file that is gone, notices so, and opens the next one.
struct Lock {
    path: PathBuf,
    file: File,
    /// No other process goes on with it.
    owned: bool,
}

/// Where the lock of a path is.
fn lock_of(socket: &Path) -> PathBuf {
    let mut path = OsString::from(socket);
    path.push(".lock");
    path.into()
}

impl Lock {
    fn take(address: &Address, socket: &Path) -> Result<Lock, Error> {
        let path = lock_of(socket);
        let foreign = || {
            let why = format!("{} is something else than its lock", path.display());
            taken(address, why + "; choose another path")
        };
        let failed = |error: io::Error| match error.raw_os_error() {
            // A symbolic link, a folder, a socket.
            Some(libc::ELOOP | libc::EISDIR | libc::ENXIO) => foreign(),
            _ => Error::listen(address, error),
        };
        for _ in 0..TRIES {
            // Whatever is there is neither followed, nor waited for, nor changed.
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&path)
                .map_err(failed)?;
            let found = file.metadata().map_err(failed)?;
            if !found.is_file() || found.len() > 0 || !is_ours(&found) {
                return Err(foreign());
            }
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                Err(error) => return Err(failed(error.into())),
            }
            if inode(&path).is_ok_and(|now| now == (found.dev(), found.ino())) {
                return Ok(Lock { path, file, owned: true });
            }
        }
        let why = "another server is starting or running there; choose another path";
        Err(taken(address, why))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.owned
            && let Ok(found) = self.file.metadata()
        {
            remove_own(&self.path, (found.dev(), found.ino()));
        }
    }
}

/// Removes the file there, unless somebody has put another one in its place.
fn remove_own(path: &Path, own: (u64, u64)) {
    if inode(path).is_ok_and(|now| now == own) {
        let _ = fs::remove_file(path);
    }
}

fn foreign() -> io::Error {
    io::Error::other("somebody has put something else there; choose another path")
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Sets the mode of the socket there, and never that of something else by way of a symbolic link
/// that somebody has put in its place.
#[cfg(any(target_os = "android", target_os = "linux"))]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
    let found = file.metadata()?;
    if !found.file_type().is_socket() {
        return Err(foreign());
    }
    if found.mode() & 0o7777 == mode {
        return Ok(());
    }
    // Linux has a chmod of such a descriptor since 6.6 only; its name in /proc does as well.
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::set_permissions(name, fs::Permissions::from_mode(mode)).map_err(|error| {
        let umask = !mode & 0o777;
        let why = format!("its mode cannot be set by way of /proc ({error})");
        io::Error::other(format!("{why}; start with umask {umask:03o} instead"))
    })
}

/// As above.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Mode, chmodat};
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(foreign());
    }
    let mode = Mode::from_bits_truncate(mode as _);
    Ok(chmodat(CWD, path, mode, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_lock_that_goes_while_others_wait_for_it_is_nobodys() {
        let path = std::env::temp_dir().join(format!("reactor-{}-lock", std::process::id()));
        let address = Address::Unix(path.clone());
        let held = AtomicBool::new(false);
        let racer = || {
            for _ in 0..5_000 {
                let Ok(lock) = Lock::take(&address, &path) else { continue };
                assert!(!held.swap(true, Ordering::SeqCst), "two have it");
                held.store(false, Ordering::SeqCst);
                drop(lock);
            }
        };
        thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(racer))));
        assert!(fs::symlink_metadata(path.with_extension("lock")).is_err());
    }

    #[test]
    fn a_mode_is_not_set_through_a_symbolic_link() {
        let folder = std::env::temp_dir().join(format!("reactor-{}-mode", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let (victim, path) = (folder.join("victim"), folder.join("e.sock"));
        let listener = std::os::unix::net::UnixListener::bind(&victim).unwrap();
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
        // As if somebody had put it there right after our bind.
        symlink(&victim, &path).unwrap();
        let outcome = set_mode(&path, 0o666);
        let mode = fs::metadata(&victim).unwrap().permissions().mode();
        drop(listener);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(mode & 0o7777, 0o600);
        assert!(outcome.unwrap_err().to_string().contains("something else"));
    }
}
