//! From a socket that is there to a connection that the handler knows.

#[cfg(feature = "tls")]
use std::io;
use std::net::SocketAddr;

use super::fairness::LOG_EVERY;
use super::loop_state::LoopState;
use super::peers::Refusal;
use super::service::ActiveService;
use super::table::Table;
use super::turn_trace::Happened;
use crate::connection::connection::Stage;
use crate::connection::flags::Flag;
use crate::connection::{CloseReason, ConnId};
use crate::handler::Handler;
#[cfg(feature = "websocket")]
use crate::net::http::Forbidden;
use crate::net::proxy::Rejected;
use crate::net::stream::Stream;
#[cfg(feature = "tls")]
use crate::net::tls::Refused;
#[cfg(feature = "websocket")]
use crate::net::websocket::Refusal as WebRefusal;

impl<H: Handler> ActiveService<H> {
    /// Takes in a newcomer, which has its place already: [`judge`](Self::judge) has given it one. With a
    /// handshake to do it opens later.
    pub(crate) fn admit(
        &mut self,
        stream: Stream,
        peer: Option<SocketAddr>,
        state: &mut LoopState,
    ) -> Option<ConnId> {
        let known = peer.filter(|_| !stream.names_peer());
        let Some(id) = self.enter(stream, peer, state) else {
            self.table.give_back_place(known);
            return None;
        };
        let slot = &mut self.table.connections[id.slot()];
        if slot.stream.has_handshake() {
            slot.conn.flags.set(Flag::Unjudged, slot.stream.names_peer());
            self.await_opening(id);
        } else {
            self.opened(id, state);
        }
        Some(id)
    }

    /// As [`admit`](Self::admit), for who asks no limits.
    pub(crate) fn admit_unjudged(
        &mut self,
        stream: Stream,
        peer: Option<SocketAddr>,
        state: &mut LoopState,
    ) -> Option<ConnId> {
        self.table.places.add();
        self.table.peers.count(peer);
        self.admit(stream, peer, state)
    }

    /// Gives a newcomer its slot in the table.
    pub(super) fn enter(
        &mut self,
        stream: Stream,
        peer: Option<SocketAddr>,
        state: &mut LoopState,
    ) -> Option<ConnId> {
        let session = state.guard(&self.table.name, H::Session::default)?;
        let (id, watched) = self.table.insert(stream, session, state);
        if let Err(error) = watched {
            log::warn!("{}: cannot watch a newcomer: {error}", self.table.name);
            self.table.remove(id, state);
            return None;
        }
        state.counters(self.table.service).accepted += 1;
        state.trace(self.table.service, Some(id), Happened::Accepted);
        self.table.connections[id.slot()].conn.peer = peer.into();
        Some(id)
    }

    /// A newcomer that does not open yet.
    pub(super) fn await_opening(&mut self, id: ConnId) {
        let conn = &mut self.table.connections[id.slot()].conn;
        conn.flags.set(Flag::Handshaking, true);
        self.table.arm(id);
    }

    /// A connection is there: it is the handler's from now on.
    pub(super) fn opened(&mut self, id: ConnId, state: &mut LoopState) {
        let slot = &mut self.table.connections[id.slot()];
        slot.conn.stage = Stage::Open;
        slot.conn.active = state.turn.now;
        slot.conn.flags.set(Flag::Open, true);
        slot.conn.flags.set(Flag::Handshaking, false);
        slot.conn.flags.set(Flag::Failed, false);
        let asked = slot.conn.flags.has(Flag::Drain) || slot.conn.flags.has(Flag::Finished);
        self.table.open += 1;
        state.counters(self.table.service).open += 1;
        if asked {
            // The handler asked for it while the connection was being dialled.
            self.table.mark_dirty(id.slot());
        }
        if log::log_enabled!(log::Level::Debug) {
            log::debug!("{}: {} is here", self.table.name, self.describe(id));
        }
        if self.gone {
            // Its handshake ends where nobody is any more.
            self.dismiss(id, state);
        } else {
            self.call(id, true, state, H::on_open);
        }
        self.table.arm(id);
    }

    /// Looks whether a connection that was dialled, or has a handshake to do, is there now.
    pub(super) fn finish_connect(&mut self, id: ConnId, state: &mut LoopState) {
        if self.table.connections[id.slot()].conn.flags.take(Flag::Arrived) {
            return self.opened(id, state);
        }
        match self.table.connected(id, state) {
            Ok(false) => {}
            Ok(true) => match self.table.judge_named(id, state) {
                None => self.opened(id, state),
                Some(refusal) => self.turn_away(id, refusal, state),
            },
            Err(error) => {
                if let Some(why) = Rejected::of(&error) {
                    self.report_rejected(id, why, state);
                }
                #[cfg(feature = "tls")]
                if Refused::is(&error) {
                    self.report_uncertified(id, &error, state);
                }
                #[cfg(feature = "websocket")]
                if let Some(WebRefusal::Forbidden(why)) = WebRefusal::of(&error) {
                    self.report_foreign(id, why, state);
                }
                self.table.fail(id, &error);
            }
        }
    }

    /// Logs that a newcomer is turned away for the page that it comes from, or the name that it uses.
    #[cfg(feature = "websocket")]
    fn report_foreign(&self, id: ConnId, why: Forbidden, state: &mut LoopState) {
        if state.log_limits.foreign.allows(state.turn.now, LOG_EVERY) {
            log::warn!("{}: {}: {why}: turning away", self.table.name, self.describe(id));
        }
    }

    /// Logs that a newcomer that a proxy has sent is turned away.
    fn report_rejected(&self, id: ConnId, why: &Rejected, state: &mut LoopState) {
        let limit = match why {
            Rejected::Header(_) => &mut state.log_limits.unproxied,
            Rejected::NotAllowed(_) | Rejected::Unknown => &mut state.log_limits.barred,
        };
        if limit.allows(state.turn.now, LOG_EVERY) {
            log::warn!("{}: {}: {why}: turning away", self.table.name, self.describe(id));
        }
    }

    /// Logs that a newcomer is turned away for its certificate, or for having none.
    #[cfg(feature = "tls")]
    fn report_uncertified(&self, id: ConnId, why: &io::Error, state: &mut LoopState) {
        let slot = &self.table.connections[id.slot()];
        let newcomer = slot.conn.flags.has(Flag::Handshaking);
        if newcomer && state.log_limits.uncertified.allows(state.turn.now, LOG_EVERY) {
            log::warn!("{}: {}: {why}: turning away", self.table.name, self.describe(id));
        }
    }

    /// Closes a newcomer whose handshake has named a peer that may not have one more connection. The
    /// handler is not told of it.
    fn turn_away(&mut self, id: ConnId, refusal: Refusal, state: &mut LoopState) {
        let words = self.refuse(refusal, state);
        let slot = &mut self.table.connections[id.slot()];
        slot.conn.flags.set(Flag::Handshaking, false);
        self.table.places.free();
        slot.stream.turn_away(&words);
        self.table.end(id, CloseReason::Closed);
    }

    /// The connection as the log names it.
    pub(super) fn describe(&self, id: ConnId) -> String {
        let Some(slot) = self.table.get(id) else { return id.to_string() };
        match (slot.conn.peer.get(), slot.stream.host()) {
            (_, Some(host)) => format!("{id} ({host})"),
            (Some(peer), None) => format!("{id} ({peer})"),
            (None, None) => match slot.stream.credentials() {
                Some(peer) => format!("{id} ({peer})"),
                None => id.to_string(),
            },
        }
    }
}

impl<S> Table<S> {
    /// Nothing came of a newcomer that was judged by this peer.
    pub(super) fn give_back_place(&mut self, peer: Option<SocketAddr>) {
        self.places.free();
        self.peers.uncount(peer);
    }

    /// Asks the limits by peer, if the handshake has told whom to ask them for; none if it may come.
    fn judge_named(&mut self, id: ConnId, state: &mut LoopState) -> Option<Refusal> {
        let Table { service, connections, peers, .. } = self;
        let conn = &mut connections[id.slot()].conn;
        if !conn.flags.take(Flag::Unjudged) {
            return None;
        }
        peers.judge(conn.peer.get(), *service, state)
    }
}
