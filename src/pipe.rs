//! A connection's bytes without a socket: the seam that the testing module puts a client on.
//! It behaves as a socket does under edge triggers, and worse on demand.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

/// What a pipe does at a read or a write instead of all that it could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Moves at most this many bytes (at least one).
    Short(usize),
    /// Says `WouldBlock`; a new edge follows.
    WouldBlock,
    /// Says `Interrupted`, as a signal does.
    Interrupted,
    /// Says this error, a reset for instance, and the connection is broken from then on.
    Error(ErrorKind),
}

/// Both ends hold it: the loop's and the test's.
pub(crate) type SharedWire = Rc<RefCell<Wire>>;

/// The bytes between a client and the loop.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) inbound: VecDeque<u8>,
    pub(crate) outbound: Vec<u8>,
    /// Calls of read and write, whatever came of them.
    pub(crate) reads: usize,
    pub(crate) writes: usize,
    /// Output that still fits; none for any.
    pub(crate) room: Option<usize>,
    pub(crate) connected: bool,
    pub(crate) end: bool,
    pub(crate) shut: bool,
    pub(crate) error: Option<ErrorKind>,
    /// Edges to be delivered.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) read_faults: VecDeque<Fault>,
    pub(crate) write_faults: VecDeque<Fault>,
}

/// The loop's end of a wire.
pub(crate) struct Pipe(SharedWire);

impl Wire {
    /// How many of `count` bytes a fault lets through.
    fn suffer(&mut self, fault: Option<Fault>, count: usize) -> io::Result<usize> {
        match fault {
            None => Ok(count),
            Some(Fault::Short(most)) => Ok(count.min(most.max(1))),
            Some(Fault::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
            Some(Fault::Interrupted) => Err(ErrorKind::Interrupted.into()),
            Some(Fault::Error(kind)) => Err((*self.error.insert(kind)).into()),
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wire = &mut *self.0.borrow_mut();
        wire.reads += 1;
        if let Some(error) = wire.error {
            return Err(error.into());
        }
        let fault = wire.read_faults.pop_front();
        let count = wire.suffer(fault, buf.len().min(wire.inbound.len()));
        let left = *count.as_ref().unwrap_or(&0) < wire.inbound.len();
        match count {
            // As in the kernel, an edge follows whenever less came than there will be.
            Ok(0) if !wire.end => return Err(ErrorKind::WouldBlock.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            _ => wire.readable |= left && *count.as_ref().unwrap_or(&0) < buf.len(),
        }
        let count = count.inspect_err(|_| wire.readable |= left || wire.end)?;
        for (to, from) in buf.iter_mut().zip(wire.inbound.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let wire = &mut *self.0.borrow_mut();
        wire.writes += 1;
        if wire.error.is_some() || wire.shut {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let fits = buf.len().min(wire.room.unwrap_or(usize::MAX));
        if fits == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let fault = wire.write_faults.pop_front();
        let count = wire.suffer(fault, fits);
        if count.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            wire.writable = true;
        }
        let count = count?;
        wire.outbound.extend(&buf[..count]);
        if let Some(room) = &mut wire.room {
            *room -= count;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pipe {
    pub(crate) fn new(wire: SharedWire) -> Pipe {
        Pipe(wire)
    }

    pub(crate) fn is(&self, wire: &SharedWire) -> bool {
        Rc::ptr_eq(&self.0, wire)
    }

    pub(crate) fn connected(&self) -> io::Result<bool> {
        let wire = self.0.borrow();
        wire.error.map_or(Ok(wire.connected), |error| Err(error.into()))
    }

    pub(crate) fn shut(&self) {
        self.0.borrow_mut().shut = true;
    }

    pub(crate) fn reset(&self) {
        self.0.borrow_mut().error.get_or_insert(ErrorKind::ConnectionReset);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let wire = &mut *self.0.borrow_mut();
        wire.shut = true;
        if wire.error.is_none() && !wire.inbound.is_empty() {
            // As in the kernel: a close with unread input is a reset, which loses what is still on
            // its way to the client.
            wire.outbound.clear();
        }
    }
}
