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
        found.peer = address.as_socket().into();
        found.flags.set(Flag::Outbound, true);
        found.stream.set_options(&self.limits);
        self.arm(id);
        Ok(id)
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
