//! The system calls that the floor and the load generator are made of.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use libc::{EPOLL_CTL_ADD, c_int, epoll_event};

/// What a connection is registered for, once and for all.
pub const BOTH: u32 =
    (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET).cast_unsigned();
/// For those that always read until nothing is left, and so need no notice of an early end.
pub const INPUT: u32 = (libc::EPOLLIN | libc::EPOLLET).cast_unsigned();
/// Level-triggered: who could not be accepted for want of a descriptor is told of again.
pub const LISTENER: u32 = libc::EPOLLIN.cast_unsigned();
/// The peer has ended or reset it: then a short read is not the end of the input.
pub const ENDING: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR).cast_unsigned();

/// The most descriptors that a process asks for.
const DESCRIPTORS: u64 = 20_000;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A number of bytes, or why there are none.
fn bytes(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

pub struct Epoll(OwnedFd);

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: no pointer; the descriptor is new and so nobody else's.
        unsafe {
            let fd = check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            Ok(Epoll(OwnedFd::from_raw_fd(fd)))
        }
    }

    pub fn add(&self, fd: RawFd, events: u32, key: u64) -> io::Result<()> {
        let mut event = epoll_event { events, u64: key };
        // SAFETY: the event lives through the call, which copies it.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), EPOLL_CTL_ADD, fd, &mut event) })?;
        Ok(())
    }

    /// Waits for `timeout` milliseconds at most, or for ever where it is negative.
    #[inline]
    pub fn wait<'e>(
        &self,
        events: &'e mut [epoll_event],
        timeout: c_int,
    ) -> io::Result<&'e [epoll_event]> {
        let most = c_int::try_from(events.len()).unwrap_or(c_int::MAX);
        // SAFETY: the kernel writes no more than `most` events, which the slice holds.
        let count =
            unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), most, timeout) };
        match check(count) {
            Ok(count) => Ok(&events[..count.cast_unsigned() as usize]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(&[]),
            Err(error) => Err(error),
        }
    }
}

/// Room for the events of one wait.
pub fn events() -> Vec<epoll_event> {
    vec![epoll_event { events: 0, u64: 0 }; 1024]
}

#[inline]
pub fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes no more than the slice holds.
    bytes(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) })
}

#[inline]
pub fn write(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads no more than the slice holds.
    bytes(unsafe { libc::send(fd, data.as_ptr().cast(), data.len(), libc::MSG_NOSIGNAL) })
}

/// A listener on loopback that does not block, and its port.
pub fn listen(port: u16) -> io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    // SAFETY: no pointer; a second call only changes the backlog, of which std has 128.
    check(unsafe { libc::listen(listener.as_raw_fd(), 1024) })?;
    // Newcomers inherit it.
    set(&listener, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// A newcomer that does not block.
pub fn accept(listener: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the address is not asked for, and the descriptor is new.
    unsafe {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let (nobody, nothing) = (std::ptr::null_mut(), std::ptr::null_mut());
        let fd = check(libc::accept4(listener, nobody, nothing, flags))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A connection on its way from `source` to a port of 127.0.0.1.
pub fn connect(source: Ipv4Addr, port: u16) -> io::Result<OwnedFd> {
    // SAFETY: no pointer; the descriptor is new.
    let fd = unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        OwnedFd::from_raw_fd(check(libc::socket(libc::AF_INET, kind, 0))?)
    };
    set(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    // The port is chosen by connect, which may then use one again for another destination.
    set(&fd, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    let (from, length) = address(source, 0);
    let (to, _) = address(Ipv4Addr::LOCALHOST, port);
    // SAFETY: both addresses live through the calls, and their length is right.
    unsafe {
        check(libc::bind(fd.as_raw_fd(), (&raw const from).cast(), length))?;
        match check(libc::connect(fd.as_raw_fd(), (&raw const to).cast(), length)) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(fd),
        }
    }
}

fn address(ip: Ipv4Addr, port: u16) -> (libc::sockaddr_in, libc::socklen_t) {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    };
    (address, size_of::<libc::sockaddr_in>() as libc::socklen_t)
}

fn set(fd: &impl AsRawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the value lives through the call, and its length is right.
    check(unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), length)
    })?;
    Ok(())
}

/// The cores that this process may use.
pub fn cores() -> Vec<usize> {
    // SAFETY: a set of zeros is an empty one, and the kernel fills in no more than its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Vec::new();
        }
        (0..libc::CPU_SETSIZE as usize).filter(|&core| libc::CPU_ISSET(core, &set)).collect()
    }
}

/// Keeps the calling thread, and those it starts from now on, on one core.
pub fn pin(core: usize) -> io::Result<()> {
    // SAFETY: a set of zeros is an empty one; the kernel only reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set))?;
    }
    Ok(())
}

/// The kernel ends the calling process when its parent is gone, however that came about.
pub fn die_with_parent(parent: libc::pid_t) -> io::Result<()> {
    // SAFETY: no pointers.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        // It may be gone already.
        if libc::getppid() != parent {
            return Err(io::ErrorKind::NotFound.into());
        }
    }
    Ok(())
}

pub fn signal(pid: u32, signal: c_int) -> io::Result<()> {
    // SAFETY: no pointer.
    check(unsafe { libc::kill(pid.cast_signed(), signal) })?;
    Ok(())
}

/// Raises the soft limit of descriptors as far as it may be, and says where it is.
pub fn raise_descriptors() -> io::Result<u64> {
    // SAFETY: the structure lives through both calls.
    unsafe {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        limit.rlim_cur = limit.rlim_max.min(DESCRIPTORS).max(limit.rlim_cur.min(DESCRIPTORS));
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
        Ok(limit.rlim_cur)
    }
}

/// The CPU time of all threads of a process, those that have ended included, to the nanosecond.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    // SAFETY: both structures live through the calls.
    unsafe {
        let mut clock = 0;
        let error = libc::clock_getcpuclockid(pid.cast_signed(), &mut clock);
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        check(libc::clock_gettime(clock, &mut time))?;
        Ok(Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned() as u32))
    }
}

/// Where the first LF is. The C library's search costs a short line less than the crate's, which
/// chooses among its versions at each call.
#[inline]
pub fn newline(bytes: &[u8]) -> Option<usize> {
    // SAFETY: no more than the slice is read.
    let found = unsafe { libc::memchr(bytes.as_ptr().cast(), i32::from(b'\n'), bytes.len()) };
    (!found.is_null()).then(|| found.addr() - bytes.as_ptr().addr())
}
