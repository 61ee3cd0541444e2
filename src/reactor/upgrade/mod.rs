//! How the services go over to another loop, most often that of another process, with their connections.
//!
//! ```text
//!            the old loop                                          the new loop
//!  offer:    listening sockets, clock    -- OFFER, LISTENER --->   inherit; `listen` takes them
//!            (turns go on)               <------------ READY ---   succeed
//!  hand_on:  freeze: messages that wait, save, encode
//!            parcel, sockets lent        -- PIECE, END -------->   decode, restore, register
//!                                        <------------ TAKEN ---   for each service, yes or why not
//!            ------------------------------- COMMIT ----------->   install, on_start, on_restored
//!            leave: deregister, forget, close what cannot go       (its next turn)
//! ```
//!
//! * **To freeze is to read.** Handlers save by reference, connections are written down where they lie, and
//!   sockets are lent. So until COMMIT is written nothing has changed in the old loop, and whatever happens
//!   to the new one, there is nothing to undo: the selector of the old one has kept the events of meanwhile.
//! * **To restore is to compute.** Until COMMIT has come, the new loop calls no hook that has a context, but for those
//!   that tell where it listens, and neither reads nor writes a socket; what it has made is dropped with it.
//! * **Ids stay**, and so does the clock. What a handler knows by an id it still knows, and ages go on.
//!
//! `departing` is the old side and `arriving` the new one, of a service whatever carries them: `over_sockets` for
//! processes, the harness for tests.

mod arriving;
mod departing;
mod over_sockets;
mod steps;

use std::os::fd::BorrowedFd;

use super::loop_state::LoopState;
use crate::connection::{ConnId, Decoder, Encoder};
use crate::net::Address;
use crate::net::passed::{Inode, Passed, Received};

pub(super) use arriving::Arriving;
pub(crate) use arriving::{Restored, install, restore};
pub(crate) use departing::{Frozen, freeze};
pub use over_sockets::{HandedOn, Successor};
pub(crate) use over_sockets::{Inheritance, Parcel};
pub(crate) use steps::{Refusals, come_to_rest};

/// Where a service listens, and what the socket goes by.
pub(crate) struct Listening<'s> {
    pub(crate) address: Address,
    /// It is one of datagrams.
    pub(crate) datagrams: bool,
    pub(crate) socket: BorrowedFd<'s>,
    /// With a path, what it takes to own that.
    pub(crate) path: Option<(Inode, BorrowedFd<'s>)>,
}

/// Which connections of a service go.
#[derive(Debug)]
pub(crate) struct Going {
    /// In the order of their ids.
    pub(crate) connections: Vec<ConnId>,
    /// Those that cannot, and of whose end the new handler is told.
    pub(super) absent: Vec<ConnId>,
    /// Nothing of the service goes on here.
    together: bool,
}

impl Going {
    /// All connections are served to their end where they are.
    const NOBODY: Going = Going { connections: Vec::new(), absent: Vec::new(), together: false };

    pub(crate) fn has(&self, id: ConnId) -> bool {
        self.connections.binary_search(&id).is_ok()
    }
}

/// What the loop asks of a service when it goes over. The default bodies are those of one that does not.
pub(crate) trait Succession {
    /// Has the handler take the messages that were posted before. Says how many there were.
    fn take_posted(&mut self, _state: &mut LoopState) -> u64 {
        0
    }
    /// How many newcomers are on their way here from another core.
    fn awaited(&self) -> usize {
        0
    }
    /// How many were accepted and are let in here, whatever becomes of the service.
    fn accepted_before(&self) -> usize {
        0
    }
    /// Writes the service down, or nothing if all of it stays. None if the handler does not save.
    fn save(&mut self, _state: &mut LoopState, _to: &mut Encoder) -> Option<Going> {
        None
    }
    /// What the connections run over, in their order.
    fn passed(&self, _going: &Going) -> Vec<Passed<'_>> {
        Vec::new()
    }
    /// Another loop has the service: forgets the connections that it has taken over, and closes others where
    /// nobody is to go on with them here. With none, it has not taken the service over.
    fn leave(&mut self, _going: Option<Going>, _state: &mut LoopState) {}
    /// Reads what [`save`](Self::save) has written in another loop. `Err` if the upgrade cannot take place, since
    /// the handler may have restored a part; `Ok(Err)` if it goes on without this service, whose handler has
    /// changed nothing.
    fn restore(
        &mut self,
        _from: &mut Decoder<'_>,
        _received: Vec<Received>,
        _state: &mut LoopState,
    ) -> Result<Result<(), String>, String> {
        Ok(Err("there are no connections".to_owned()))
    }
    /// Where it listens with sockets of its own, and what these go by.
    fn listening(&self) -> Vec<Listening<'_>> {
        Vec::new()
    }
    /// Another loop listens there: nobody is accepted here any more.
    fn give_up_listening(&mut self, _state: &mut LoopState) {}
    /// The other loop listens no more: the paths of Unix sockets are this one's.
    fn own_listeners(&mut self) {}
    /// What was restored is not to go on here: the handler is told of the end of each connection.
    fn lose_restored(&mut self, _state: &mut LoopState) {}
    /// Puts what was restored into its place.
    fn install(&mut self, _state: &mut LoopState) {}
    /// Tells the handler of each connection that is there again.
    fn tell_restored(&mut self, _state: &mut LoopState) {}
}
