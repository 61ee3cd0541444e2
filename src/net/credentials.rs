//! Who is at the other end of a Unix socket, as the system knows it.

/// The process at the other end of a Unix socket, as it was when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// The process, which may be gone by now.
    pub pid: Option<i32>,
}
