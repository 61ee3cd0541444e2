//! The limit: bare epoll, every connection registered once and edge-triggered, one read per
//! event, one write per read, and a line loop without anything else. It lacks what a server that
//! is left alone needs: limits, fairness, time-outs, a lingering close, a shutdown.

mod clock;
mod echo;
mod presence;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::Service;
use crate::sys;

/// What one read takes at most; a line that does not fit ends its connection.
const BUFFER: usize = 64 * 1024;
/// Unsent bytes of broadcasts past which a connection is ended.
const MOST_UNSENT: usize = 1024 * 1024;

pub(super) fn serve(service: Service, port: u16) -> io::Result<()> {
    let (listener, port) = sys::listen(port)?;
    let epoll = sys::Epoll::new()?;
    epoll.add(listener.as_raw_fd(), sys::LISTENER, listener.as_raw_fd() as u64)?;
    super::ready(port)?;
    match service {
        Service::Echo => echo::run(&epoll, &listener),
        Service::Presence => presence::run(&epoll, &listener),
        Service::Clock => clock::run(&epoll, &listener),
    }
}

/// What only a connection in trouble has: an unfinished line, unsent bytes.
#[derive(Default)]
struct Rest {
    input: Vec<u8>,
    output: Vec<u8>,
    closing: bool,
}

/// The connections by descriptor.
struct Table<T>(Vec<Option<T>>);

impl<T> Table<T> {
    fn new() -> Table<T> {
        Table(Vec::new())
    }

    fn put(&mut self, fd: OwnedFd, of: impl FnOnce(OwnedFd) -> T) {
        let place = fd.as_raw_fd() as usize;
        if place >= self.0.len() {
            self.0.resize_with(place + 1, || None);
        }
        self.0[place] = Some(of(fd));
    }
}

/// Whether all went out; what did not is added to `unsent`.
fn send(fd: &OwnedFd, data: &[u8], unsent: &mut Option<Box<Rest>>) -> io::Result<bool> {
    let sent = match sys::write(fd.as_raw_fd(), data) {
        Ok(sent) if sent == data.len() => return Ok(true),
        Ok(sent) => sent,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    unsent.get_or_insert_default().output.extend_from_slice(&data[sent..]);
    Ok(false)
}

/// Tries the unsent bytes again; says whether none are left.
fn resend(fd: &OwnedFd, rest: &mut Option<Box<Rest>>) -> io::Result<bool> {
    let Some(waiting) = rest.as_mut().filter(|rest| !rest.output.is_empty()) else {
        return Ok(true);
    };
    match sys::write(fd.as_raw_fd(), &waiting.output) {
        Ok(sent) => waiting.output.drain(..sent),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
        Err(error) => return Err(error),
    };
    let done = waiting.output.is_empty();
    if done && waiting.input.is_empty() && !waiting.closing {
        *rest = None;
    }
    Ok(done)
}
