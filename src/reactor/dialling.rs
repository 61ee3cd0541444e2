//! Connections that nobody has accepted: those that are dialled, and those made of descriptors.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use crate::core::Core;
use crate::flags::Flag;
use crate::net::Stream;
use crate::pool::Pool;
use crate::{Address, ConnId, Error};

impl<S> Pool<S> {
    /// Begins an outbound connection. Whatever goes wrong is reported by its `on_close`.
    pub(crate) fn dial(
        &mut self,
        source: Option<IpAddr>,
        address: &Address,
        session: S,
        core: &mut Core,
    ) -> Result<ConnId, Error> {
        if core.is_ending() {
            return Err(Error::ShuttingDown);
        }
        core.counters.dialled += 1;
        let stream = (core.dial)(source, address);
        let id = self.begin(stream, session, core);
        let found = &mut self.connections[id.slot()];
        if let Address::Tcp(peer) = address {
            found.peer = Some(*peer).into();
        }
        found.flags.set(Flag::Outbound, true);
        found.stream.set_options(&self.limits);
        if let Stream::Dialling(_) = found.stream {
            self.visit(id);
        }
        self.arm(id);
        Ok(id)
    }

    /// Whether a connection that was dialled is there now, as [`Stream::connected`] says. Of a
    /// host's addresses the first one that is there takes its place.
    pub(crate) fn connected(&mut self, id: ConnId, core: &Core) -> io::Result<bool> {
        let found = &mut self.connections[id.slot()];
        let Stream::Dialling(dialling) = &mut found.stream else {
            return found.stream.connected();
        };
        let Some((peer, stream)) = dialling.advance(core.now)? else {
            self.arm(id);
            return Ok(false);
        };
        stream.set_options(&self.limits);
        found.stream = stream;
        found.peer = Some(peer).into();
        Ok(true)
    }

    /// Makes a connection of two descriptors. Whatever goes wrong is reported by its `on_close`.
    pub(crate) fn adopt(
        &mut self,
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
        session: S,
        core: &mut Core,
    ) -> Result<ConnId, Error> {
        if core.is_ending() {
            return Err(Error::ShuttingDown);
        }
        let stream = (core.adopt)(input, output);
        let id = self.begin(stream, session, core);
        // For those that cannot be watched no event will say so.
        self.connections[id.slot()].flags.set(Flag::Readable, true);
        self.visit(id);
        Ok(id)
    }

    /// Takes in what is to become a connection, or what could not.
    fn begin(&mut self, stream: io::Result<Stream>, session: S, core: &mut Core) -> ConnId {
        let (stream, error) = match stream {
            Ok(stream) => (stream, None),
            Err(error) => (Stream::Failed, Some(error)),
        };
        let (id, watched) = self.insert(stream, session, core);
        self.connections[id.slot()].flags.set(Flag::Failed, true);
        self.open += 1;
        if let Some(error) = error.or(watched.err()) {
            self.fail(id, &error);
        }
        id
    }
}
