//! How an open connection leaves its service for another one of the same reactor.
//!
//! 1. A hook asks for it: [`Table::hand_over`]. From then on the connection is not read and takes no
//!    output; what was sent before goes out, as before a close, under the same deadline.
//! 2. Once all is out, `closing` tells the handler and [sends it off](Table::send_off): the slot is
//!    freed, and what is left is a [`Traveller`]: a stream that no selector watches, and the input
//!    that the handler did not take. Whatever happens before that ends the connection where it is.
//! 3. At the end of the turn it is [delivered](deliver). A layer is put over the stream, with that input
//!    as the first that it reads, and the service judges the connection as it does any newcomer. It
//!    opens in the next turn, in the order of those that wait to be served.
//!
//! The selector knows it by another token then, so an event from before, which may have been fetched
//! already, finds nobody: its generation is that of a slot that was freed.

use std::net::SocketAddr;
use std::ops::DerefMut;

use super::handle::Identity;
use super::loop_state::LoopState;
use super::service::{ActiveService, AnyService};
use super::table::Table;
use crate::connection::connection::Stage;
use crate::connection::flags::Flag;
use crate::connection::{CloseReason, ConnId};
use crate::error::Error;
use crate::handler::Handler;
use crate::net::stream::Stream;

/// Puts a layer over a stream, which is open. The bytes were read from the stream before: they are the
/// beginning of the layer's input.
pub(crate) type PutOver = Box<dyn FnOnce(Stream, Vec<u8>) -> Stream>;

/// Where a connection goes that leaves.
pub(crate) struct Destination {
    /// The identity of the service, since it may be removed meanwhile and its place be taken.
    service: Identity,
    over: PutOver,
}

/// A connection between two services. It has no slot, no token and no id.
pub(crate) struct Traveller {
    to: Destination,
    stream: Stream,
    /// What was read of it and not taken.
    input: Vec<u8>,
    peer: Option<SocketAddr>,
    /// It was dialled.
    outbound: bool,
}

impl<S> Table<S> {
    /// Has the connection leave for the service of that name once all that it was sent is out, `words`
    /// last. Nothing has happened if that is refused.
    pub(crate) fn hand_over(
        &mut self,
        id: ConnId,
        to: &str,
        words: &[u8],
        over: PutOver,
        state: &mut LoopState,
    ) -> Result<(), Error> {
        if state.is_ending() {
            return Err(Error::ShuttingDown);
        }
        let refuse = |why| Err(Error::HandOver { to: to.to_owned(), why });
        let mut named = state.services.iter().enumerate().filter(|(_, entry)| *entry.name == *to);
        let found = named.find_map(|(place, entry)| Some((place, entry.identity.clone()?)));
        let Some((place, service)) = found else {
            return refuse("there is no service of that name");
        };
        if !state.services[place].connections {
            return Err(Error::Datagrams);
        }
        if state.services[place].guarded {
            return refuse("all its listeners ask who comes");
        }
        if place == self.service {
            return refuse("the connection is there already");
        }
        if !self.send(id.slot(), words, true, state) {
            return refuse("the connection takes no output");
        }
        let conn = &mut self.connections[id.slot()].conn;
        conn.stage = Stage::Leaving;
        conn.reason = CloseReason::HandedOver;
        conn.active = state.turn.now;
        self.open -= 1;
        self.leaving.insert(id, Destination { service, over });
        self.leave_line(id);
        // The flush looks whether all is out.
        self.mark_dirty(id.slot());
        Ok(())
    }

    /// The handler knows that the connection has left: frees the slot and passes the rest on.
    pub(super) fn send_off(&mut self, id: ConnId, state: &mut LoopState) {
        let to = self.leaving.remove(&id);
        let Some(((conn, mut stream), to)) = self.take_out(id, state).zip(to) else { return };
        if let Some(registry) = &state.registry
            && let Err(error) = stream.deregister(registry)
        {
            log::warn!("{}: {id} is lost on the way to another service: {error}", self.name);
            state.freed += 1;
            return;
        }
        let (peer, outbound) = (conn.peer.get(), conn.flags.has(Flag::Outbound));
        let input = conn.input.into_rest();
        state.travellers.push_back(Traveller { to, stream, input, peer, outbound });
    }
}

/// Moves connections that have left a service into the one that they are handed over to. If that one was
/// removed meanwhile, they are closed.
pub(super) fn deliver<S>(services: &mut [S], state: &mut LoopState)
where
    S: DerefMut<Target: AnyService>,
{
    // To make room for one may send off another.
    while let Some(traveller) = state.travellers.pop_front() {
        match state.place_of(&traveller.to.service) {
            Some(place) => services[place].arrive(traveller, state),
            None => {
                log::debug!("a connection is lost on the way to a service that was removed");
                (traveller.to.over)(traveller.stream, traveller.input).turn_away(b"");
                state.freed += 1;
            }
        }
    }
}

impl<H: Handler> ActiveService<H> {
    /// Judges a connection that another service has handed over as a newcomer, and takes it in or
    /// turns it away in the words of its layer.
    pub(super) fn take_in(&mut self, traveller: Traveller, state: &mut LoopState) {
        let Traveller { to, stream, input, peer, outbound } = traveller;
        let mut stream = (to.over)(stream, input);
        let judged = peer.filter(|_| !outbound);
        if let Some(refusal) = self.judge(judged, state) {
            let words = self.refuse(refusal, state);
            stream.turn_away(&words);
            state.freed += 1;
            return;
        }
        self.table.make_room();
        let Some(id) = self.enter(stream, peer, state) else {
            return self.table.give_back_place(judged);
        };
        // What has come so far has had its event, and so may the end of it.
        for flag in [Flag::Arrived, Flag::Readable, Flag::ReadOn] {
            self.table.connections[id.slot()].conn.flags.set(flag, true);
        }
        self.table.connections[id.slot()].conn.flags.set(Flag::Outbound, outbound);
        self.await_opening(id);
        self.table.enqueue(id);
    }
}

#[cfg(test)]
mod tests;
