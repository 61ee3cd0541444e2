//! Outbound connections: dialled, and then looked at until they are there.

use std::io;
use std::net::IpAddr;

use super::loop_state::{LoopState, Turn};
use super::table::Table;
use crate::connection::ConnId;
use crate::connection::flags::Flag;
use crate::error::Error;
use crate::net::stream::{Failed, Stream};
use crate::net::{Address, Connect};

impl<S> Table<S> {
    /// Begins an outbound connection. Whatever goes wrong, the handler learns from its `on_close`.
    pub(crate) fn dial(
        &mut self,
        source: Option<IpAddr>,
        target: &Connect,
        session: S,
        state: &mut LoopState,
    ) -> Result<ConnId, Error> {
        self.may_begin(state)?;
        state.counters(self.service).dialled += 1;
        let stream = (state.dial)(source, target);
        let id = self.insert_connecting(stream, session, state);
        let slot = &mut self.connections[id.slot()];
        if let Address::Tcp(peer) = &target.address {
            slot.conn.peer = Some(*peer).into();
        }
        slot.conn.flags.set(Flag::Outbound, true);
        slot.stream.set_options(&self.limits);
        if slot.stream.due().is_some() {
            self.enqueue(id);
        }
        self.arm(id);
        Ok(id)
    }

    /// Moves a connection's handshake on, as [`Stream::handshake`] does; says whether it is open.
    pub(crate) fn connected(&mut self, id: ConnId, state: &mut LoopState) -> io::Result<bool> {
        let Table { connections, peers, kept, .. } = self;
        let slot = &mut connections[id.slot()];
        let Turn { now, step, .. } = &mut state.turn;
        let opened = slot.counted(kept, |slot| slot.stream.handshake(*now, &mut step.spent));
        let Some(opened) = opened? else {
            self.arm(id);
            return Ok(false);
        };
        if opened.peer.is_some() {
            // If it was accepted, its peer is to be judged by the address that it gave.
            if slot.conn.flags.has(Flag::Handshaking) {
                peers.remove(&slot.conn);
                slot.conn.flags.set(Flag::Unjudged, true);
            }
            slot.conn.peer = opened.peer.into();
        }
        slot.conn.runs_over(slot.stream.traits());
        // What came with its end may have been read along with it: no event is going to tell of that.
        let read = slot.stream.has_handshake();
        slot.conn.flags.set(Flag::Readable, read || slot.conn.flags.has(Flag::Readable));
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
            Err(error) => (Stream::layer(Failed), Some(error)),
        };
        let (id, watched) = self.insert(stream, session, state);
        self.connections[id.slot()].conn.flags.set(Flag::Failed, true);
        self.places.add();
        if let Some(error) = error.or(watched.err()) {
            self.fail(id, &error);
        }
        id
    }
}

/// Makes a stream with its layers: from where, if that was asked for, and where to.
pub(crate) type Dial = dyn FnMut(Option<IpAddr>, &Connect) -> io::Result<Stream>;

/// Does so with a socket.
pub(crate) fn dial(source: Option<IpAddr>, target: &Connect) -> io::Result<Stream> {
    target.over(Stream::connect(source, &target.address)?)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::{ErrorKind, Read, Write};
    use std::rc::Rc;
    use std::sync::Arc;

    use mio::Registry;

    use super::*;
    use crate::Callbacks;
    use crate::connection::clock::Nanos;
    use crate::connection::input::Scratch;
    use crate::limits::Limits;
    use crate::net::layer::{Layer, Opened};
    use crate::reactor::handle::{Mailbox, Shared};
    use crate::reactor::loop_state::ServiceEntry;
    use crate::reactor::service::ActiveService;

    /// A layer whose handshake reads the server's first line along with its own.
    struct Greeted(&'static [u8]);

    impl Layer for Greeted {
        fn register(&mut self, _: &Rc<Registry>, _: mio::Token) -> io::Result<()> {
            Ok(())
        }

        fn has_handshake(&self) -> bool {
            true
        }

        fn handshake(&mut self, _: Nanos, _: &mut Nanos) -> io::Result<Option<Opened>> {
            Ok(Some(Opened::default()))
        }

        fn has_unread(&mut self) -> bool {
            !self.0.is_empty()
        }

        fn shutdown_write(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Read for Greeted {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buf) {
                Ok(0) => Err(ErrorKind::WouldBlock.into()),
                outcome => outcome,
            }
        }
    }

    impl Write for Greeted {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_handshake_has_read_too_is_handled_without_another_event() {
        let mut state = LoopState::new(None, Arc::new(Shared::default()));
        state.dial = Box::new(|_, _| Ok(Stream::layer(Greeted(b"welcome\n"))));
        let lines = RefCell::new(Vec::new());
        let heard =
            Callbacks::new().on_line(|_, line: &[u8]| lines.borrow_mut().push(line.to_vec()));
        let (mailbox, _) = Mailbox::new(&state.shared);
        state.services.push(ServiceEntry::new("dialling", true, mailbox.identity()));
        let mut service =
            ActiveService::new(heard, Table::new(0, "dialling", Limits::default()), mailbox);
        let target = Connect::to("127.0.0.1:9").unwrap();
        let id = service.table.dial(None, &target, (), &mut state).unwrap();
        // The socket is writable, and no event says that it is readable as well.
        service.table.enqueue(id);
        let mut scratch = Scratch::default();
        service.move_oldest_handshake(&mut state, &mut scratch);
        while let Some(id) = service.table.queues.ready.pop_front() {
            service.serve(id, &mut state, &mut scratch);
        }
        drop(service);
        assert_eq!(lines.into_inner(), [b"welcome"]);
    }
}
