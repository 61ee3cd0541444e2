//! Who is at the other end of a Unix socket, as the system knows it.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

/// The process at the other end of a Unix socket, as it was when it connected: what
/// [`Context::peer_credentials`](crate::Context::peer_credentials) gives. The system vouches for it, so
/// unlike an address it proves who the peer is.
///
/// A process can hand its end of a connection on to another one, and keeps the name of who has
/// connected. Users that this process's user namespace does not know all have the same uid, mostly 65534.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// The process, which may be gone by now. None if it is not in this process's PID namespace, as a
    /// client outside the container that the server is in, and on systems that do not tell.
    pub pid: Option<i32>,
}

/// Whether this system tells who connects to a Unix socket.
pub(super) const KNOWN: bool = cfg!(any(
    target_os = "android",
    target_os = "linux",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_vendor = "apple",
));

impl Credentials {
    /// Asks the system, with one call.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    pub(super) fn of(socket: &impl AsFd) -> io::Result<Credentials> {
        use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
        let found = getsockopt(socket, PeerCredentials)?;
        let pid = Some(found.pid()).filter(|pid| *pid != 0);
        Ok(Credentials { uid: found.uid(), gid: found.gid(), pid })
    }

    /// As above.
    #[cfg(any(
        target_os = "dragonfly",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
        target_vendor = "apple",
    ))]
    pub(super) fn of(socket: &impl AsFd) -> io::Result<Credentials> {
        let (uid, gid) = nix::unistd::getpeereid(socket)?;
        Ok(Credentials { uid: uid.as_raw(), gid: gid.as_raw(), pid: None })
    }

    /// Other systems do not tell, or in ways of their own.
    #[cfg(not(any(
        target_os = "android",
        target_os = "linux",
        target_os = "dragonfly",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
        target_vendor = "apple",
    )))]
    pub(super) fn of(_socket: &impl AsFd) -> io::Result<Credentials> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.uid)?;
        self.pid.map_or(Ok(()), |pid| write!(f, " pid {pid}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_cannot_be_seen_has_no_number() {
        let seen = Credentials { uid: 1000, gid: 100, pid: Some(77) };
        assert_eq!(seen.to_string(), "uid 1000 pid 77");
        assert_eq!(Credentials { pid: None, ..seen }.to_string(), "uid 1000");
    }
}
