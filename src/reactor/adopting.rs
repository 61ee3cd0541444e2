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
    /// Makes a connection of two descriptors. Whatever goes wrong, the handler learns from its
    /// `on_close`.
    pub(crate) fn adopt(
        &mut self,
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
        session: S,
        state: &mut LoopState,
    ) -> Result<ConnId, Error> {
        self.may_begin(state)?;
        let stream = (state.adopt)(input, output);
        let id = self.insert_connecting(stream, session, state);
        // A descriptor that cannot be watched, such as a file's, has no event to say so.
        self.connections[id.slot()].conn.flags.set(Flag::Readable, true);
        self.enqueue(id);
        Ok(id)
    }
}

/// Makes a stream of an input and an output.
pub(crate) type Adopt = dyn FnMut(BorrowedFd<'_>, BorrowedFd<'_>) -> io::Result<Stream>;
