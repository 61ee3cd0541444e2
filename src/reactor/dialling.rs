//! Outbound connections: dialled, and then looked at until they are there.

use std::io;
use std::net::IpAddr;

use super::loop_state::LoopState;
use super::table::Table;
use crate::connection::ConnId;
use crate::connection::flags::Flag;
use crate::error::Error;
use crate::net::Address;
use crate::net::stream::Stream;

impl<S> Table<S> {
    /// Begins an outbound connection. Whatever goes wrong, the handler learns from its `on_close`.
    pub(crate) fn dial(
        &mut self,
        source: Option<IpAddr>,
        address: &Address,
        session: S,
        state: &mut LoopState,
    ) -> Result<ConnId, Error> {
        if state.is_ending() {
            return Err(Error::ShuttingDown);
        }
        state.counters.dialled += 1;
        let stream = (state.dial)(source, address);
        let id = self.insert_connecting(stream, session, state);
        let slot = &mut self.connections[id.slot()];
        if let Address::Tcp(peer) = address {
            slot.conn.peer = Some(*peer).into();
        }
        slot.conn.flags.set(Flag::Outbound, true);
        slot.stream.set_options(&self.limits);
        if let Stream::Dialling(_) = slot.stream {
            self.enqueue(id);
        }
        self.arm(id);
        Ok(id)
    }

    /// Whether a connection that was dialled is there now, as [`Stream::connected`] says. Of the
    /// attempts at a host's addresses, the first that is there takes the stream's place.
    pub(crate) fn connected(&mut self, id: ConnId, state: &LoopState) -> io::Result<bool> {
        let slot = &mut self.connections[id.slot()];
        let Stream::Dialling(dialling) = &mut slot.stream else {
            return slot.stream.connected();
        };
        let Some((peer, stream)) = dialling.advance(state.turn.now)? else {
            self.arm(id);
            return Ok(false);
        };
        stream.set_options(&self.limits);
        slot.stream = stream;
        slot.conn.peer = Some(peer).into();
        Ok(true)
    }

    /// Takes in a stream that is to become a connection, or the error that kept it from that: then
    /// the connection has failed from the start.
    pub(super) fn insert_connecting(
        &mut self,
        stream: io::Result<Stream>,
        session: S,
        state: &mut LoopState,
    ) -> ConnId {
        let (stream, error) = match stream {
            Ok(stream) => (stream, None),
            Err(error) => (Stream::Failed, Some(error)),
        };
        let (id, watched) = self.insert(stream, session, state);
        self.connections[id.slot()].conn.flags.set(Flag::Failed, true);
        self.counted += 1;
        if let Some(error) = error.or(watched.err()) {
            self.fail(id, &error);
        }
        id
    }
}

/// Makes a stream: from where, if that was asked for, and where to.
pub(crate) type Dial = dyn FnMut(Option<IpAddr>, &Address) -> io::Result<Stream>;
