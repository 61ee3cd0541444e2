//! A connection's bytes without a socket: the seam that the testing module puts a client on.
//! It behaves as a socket does under edge triggers, and worse on demand.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;

use mio::Registry;

use super::layer::{Layer, Opened};
use crate::connection::clock::Nanos;

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
    /// What the steps of its handshake are still to cost.
    pub(crate) steps: VecDeque<Nanos>,
    pub(crate) end: bool,
    pub(crate) shut: bool,
    pub(crate) error: Option<ErrorKind>,
    /// It has been told of the error, which a socket tells once.
    pub(crate) told: bool,
    /// Edges to be delivered.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) read_faults: VecDeque<Fault>,
    pub(crate) write_faults: VecDeque<Fault>,
    /// Bytes of output that the pipe takes and cannot send yet, as TLS does.
    pub(crate) holds: usize,
    pub(crate) held: VecDeque<u8>,
    /// Some of them went out since this was last asked for.
    pub(crate) moved: bool,
    /// How many ends of the loop's there are: two while a connection goes over to another loop, as a socket
    /// then has two descriptors.
    pub(crate) ends: usize,
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
            Some(Fault::Error(kind)) => {
                self.told = true;
                Err((*self.error.insert(kind)).into())
            }
        }
    }

    /// Takes output as a socket does.
    fn take(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        if let Some(error) = self.error {
            let told = std::mem::replace(&mut self.told, true);
            return Err(if told { ErrorKind::BrokenPipe } else { error }.into());
        }
        if self.shut {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let fits = buf.len().min(self.room.unwrap_or(usize::MAX));
        if fits == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let fault = self.write_faults.pop_front();
        let count = self.suffer(fault, fits);
        if count.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            self.writable = true;
        }
        let count = count?;
        self.outbound.extend(&buf[..count]);
        if let Some(room) = &mut self.room {
            *room -= count;
        }
        Ok(count)
    }

    /// Leaves an error to be told of later, unless it had been `told` of before.
    fn ignore(&mut self, outcome: &io::Result<()>, told: bool) {
        if outcome.is_err() && self.error.is_some() && !told {
            (self.told, self.readable) = (false, true);
        }
    }

    /// Sends what the pipe holds.
    fn push(&mut self) -> io::Result<()> {
        while !self.held.is_empty() {
            let held: Vec<u8> = self.held.iter().copied().collect();
            match self.take(&held) {
                Ok(count) => {
                    self.held.drain(..count);
                    self.moved = true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wire = &mut *self.0.borrow_mut();
        wire.reads += 1;
        let fault = match wire.error {
            None => wire.read_faults.pop_front(),
            // What came before the error is still there.
            Some(_) if !wire.inbound.is_empty() => None,
            Some(error) if !std::mem::replace(&mut wire.told, true) => return Err(error.into()),
            Some(ErrorKind::BrokenPipe) if !wire.end => return Err(ErrorKind::WouldBlock.into()),
            Some(_) => return Ok(0),
        };
        if let Some(Fault::Error(_)) = fault {
            wire.inbound.clear();
        }
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
        if wire.holds == 0 {
            return wire.take(buf);
        }
        wire.push()?;
        let told = wire.told;
        let count = buf.len().min(wire.holds);
        wire.held.extend(&buf[..count]);
        match wire.push() {
            // None of it was taken, then.
            Err(error) if error.kind() != ErrorKind::WouldBlock && wire.held.len() >= count => {
                wire.held.truncate(wire.held.len() - count);
                Err(error)
            }
            outcome => {
                wire.ignore(&outcome, told);
                Ok(count)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().push()
    }
}

impl Pipe {
    pub(crate) fn new(wire: SharedWire) -> Pipe {
        wire.borrow_mut().ends += 1;
        Pipe(wire)
    }

    /// What another end is made of; none while it stands for a layer.
    pub(super) fn wire(&self) -> Option<&SharedWire> {
        let wire = self.0.borrow();
        (wire.holds == 0 && wire.held.is_empty()).then_some(&self.0)
    }

    /// An end in another loop, whose selector tells of what holds now.
    pub(super) fn again(wire: SharedWire) -> Pipe {
        let pipe = Pipe::new(wire);
        let mut ready = pipe.0.borrow_mut();
        ready.readable |= !ready.inbound.is_empty() || ready.end || ready.error.is_some();
        ready.writable = true;
        drop(ready);
        pipe
    }

    pub(crate) fn is(&self, wire: &SharedWire) -> bool {
        Rc::ptr_eq(&self.0, wire)
    }
}

impl Layer for Pipe {
    /// The harness marks it by hand.
    fn register(&mut self, _: &Rc<Registry>, _: mio::Token) -> io::Result<()> {
        Ok(())
    }

    fn has_handshake(&self) -> bool {
        !self.0.borrow().steps.is_empty()
    }

    fn handshake(&mut self, _now: Nanos, spent: &mut Nanos) -> io::Result<Option<Opened>> {
        let wire = &mut *self.0.borrow_mut();
        if let Some(error) = wire.error {
            return Err(error.into());
        }
        *spent = spent.saturating_add(wire.steps.pop_front().unwrap_or(0));
        Ok((wire.connected && wire.steps.is_empty()).then(Opened::default))
    }

    fn has_unread(&mut self) -> bool {
        !self.0.borrow().inbound.is_empty()
    }

    fn kept(&self) -> usize {
        self.0.borrow().held.len()
    }

    fn unsent(&self) -> bool {
        !self.0.borrow().held.is_empty()
    }

    fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.0.borrow_mut().moved)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        let wire = &mut *self.0.borrow_mut();
        let told = wire.told;
        let pushed = wire.push();
        wire.shut = pushed.is_ok();
        // A loop that shuts its side leaves errors to the next read.
        wire.ignore(&pushed, told);
        pushed
    }

    /// One that holds back stands for a layer.
    fn shuts_with_drop(&self) -> bool {
        self.0.borrow().holds == 0
    }

    fn noted_error(&self) -> Option<io::Error> {
        let wire = &mut *self.0.borrow_mut();
        wire.error.filter(|_| !std::mem::replace(&mut wire.told, true)).map(io::Error::from)
    }

    fn reset(&mut self) {
        self.0.borrow_mut().error.get_or_insert(ErrorKind::ConnectionReset);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let wire = &mut *self.0.borrow_mut();
        wire.ends -= 1;
        if wire.ends > 0 {
            return;
        }
        wire.shut = true;
        if wire.error.is_none() && !wire.inbound.is_empty() {
            // As in the kernel: a close with unread input is a reset, which loses what is still on
            // its way to the client.
            wire.outbound.clear();
        }
    }
}
