//! Connections that are made of two descriptors.

use std::io;
use std::os::fd::BorrowedFd;

use super::loop_state::LoopState;
use super::table::Table;
use crate::connection::ConnId;
use crate::connection::flags::Flag;
use crate::error::Error;
use crate::net::stream::Stream;

impl<S> Table<S> {
    /// Makes a connection of two descriptors. Whatever goes wrong is reported by its `on_close`.
    pub(crate) fn adopt(
        &mut self,
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
        session: S,
        state: &mut LoopState,
    ) -> Result<ConnId, Error> {
        if state.is_ending() {
            return Err(Error::ShuttingDown);
        }
        let stream = (state.adopt)(input, output);
        let id = self.begin(stream, session, state);
        // For those that cannot be watched no event will say so.
        self.connections[id.slot()].conn.flags.set(Flag::Readable, true);
        self.visit(id);
        Ok(id)
    }
}

/// From an input and an output.
pub(crate) type Adopt = dyn FnMut(BorrowedFd<'_>, BorrowedFd<'_>) -> io::Result<Stream>;
