use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::{
    Address, CloseReason, ConnId, Connect, Context, Farewell, Handler, Limits, Saved,
    ServiceContext,
};

/// How often it is logged that there is no room for a client.
const FULL_EVERY: Duration = Duration::from_secs(10);

/// A port forwarder: each client gets a connection of its own to the target, and bytes are passed on
/// both ways as they are.
///
/// ```text
/// client -----> | client's connection |  on_bytes  | target's connection | -----> target
///        <----- |                     | <--------> |                     | <-----
/// ```
///
/// A side that does not read slows down the other to its own pace: while it has more than
/// [`low_water`](Limits::low_water) unsent bytes, its partner is paused. So a pair never holds more
/// than that and one read each way. While the target is being dialled, the client is not read. If the
/// target cannot be reached, the client is closed.
///
/// How a side ends is passed on:
///
/// * The end of one direction is passed on as such, and the other direction goes on.
/// * A reset is passed on as a reset. So is the end of a TLS client without `close_notify`, since
///   somebody may have cut it off.
/// * A reset by a side that had already ended its direction is passed on as an end: the side only did
///   not want to read the rest.
///
/// Each client takes two of the [`max_connections`](Limits::max_connections). A client for which there
/// are not two is closed. The clones of a forwarder count their clients together, so that the handlers on
/// several [cores](crate::Cores) can be clones of one.
///
/// [`soft_output`](Limits::soft_output) must be above `low_water` and
/// [`bytes_per_turn`](Limits::bytes_per_turn) together, as it is by default. Otherwise a client that
/// reads slowly is closed as a slow consumer, and the pair of a target that does is reset.
#[derive(Clone, Debug)]
pub struct Forward {
    target: Connect,
    /// The target is told who the client is.
    introduces: bool,
    /// How many clients have a connection to the target, or one under way.
    clients: Arc<AtomicUsize>,
    /// The last attempt to reach the target failed.
    gone: bool,
    /// When the log was last told that there is no room for one more.
    full: Option<Instant>,
}

impl Forward {
    /// Forwards every client to this address. The name of a host is looked up for each client, unless
    /// it was [resolved](Address::resolve) before.
    pub fn new(target: Address) -> Forward {
        Forward::to(target.into())
    }

    /// As [`new`](Self::new), with what is to go before the bytes of each client.
    pub fn to(target: Connect) -> Forward {
        Forward { target, introduces: false, clients: Arc::default(), gone: false, full: None }
    }

    /// Sends the target a header of the PROXY protocol, version 2, for each client: where it came
    /// from, and where it connected to. One over a Unix socket, which has no such addresses, is
    /// announced as unknown. The target must [expect](crate::Listen::proxy) the header, and believe
    /// this machine.
    pub fn introduce_clients(self) -> Forward {
        Forward { introduces: true, ..self }
    }

    /// Warns that there is no room for a client, as the loop does if it refuses one.
    fn refused(&mut self) {
        if self.full.is_none_or(|last| last.elapsed() >= FULL_EVERY) {
            self.full = Some(Instant::now());
            log::warn!(
                "forward: full with {} clients (max_connections): closing",
                self.clients.load(Relaxed)
            );
        }
    }

    /// Warns once of a target that can no longer be reached, rather than for each client.
    /// The log has a line for each of them besides.
    fn failed(&mut self, reason: CloseReason, error: Option<io::Error>) {
        if !std::mem::replace(&mut self.gone, true) {
            let target = self.target.address();
            let why = error.map_or_else(|| reason.to_string(), |error| error.to_string());
            log::warn!("forward: the target {target} cannot be reached: {why}; closing clients");
        }
    }
}

/// One side of a pair.
#[derive(Debug, Default)]
pub struct Session {
    /// The other side, which may be gone.
    partner: Option<ConnId>,
    /// This side was connected: false for a target that could not be reached.
    opened: bool,
    /// This side has ended its direction, and all it sent has been passed on.
    ended: bool,
}

/// The other side, unless it is gone or closing.
fn partner<'a>(cx: &'a mut Context<'_, Session>) -> Option<Context<'a, Session>> {
    let id = cx.session().partner?;
    cx.connection(id)
}

impl Handler for Forward {
    type Session = Session;
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, Session>) {
        cx.session().opened = true;
        if cx.is_outbound() {
            if std::mem::take(&mut self.gone) {
                // At the level of the warning that it takes back.
                log::warn!("forward: the target {} can be reached again", self.target.address());
            }
            if let Some(mut client) = partner(cx) {
                client.resume();
            }
            return;
        }
        // The loop made room for one connection when it accepted this client, and others may have
        // come during its handshake.
        let most = cx.limits().max_connections.div_ceil(2);
        let more = |clients| (clients < most).then_some(clients + 1);
        if self.clients.fetch_update(Relaxed, Relaxed, more).is_err() {
            self.refused();
            return cx.close();
        }
        // TCP keeps what the client sends until the target is connected.
        cx.pause();
        let client = Session { partner: Some(cx.id()), ..Session::default() };
        let mut target = self.target.clone();
        if self.introduces {
            target = target.proxy_for(cx.peer_addr(), cx.local_addr());
        }
        match cx.connect(target, client) {
            Ok(target) => {
                cx.session().partner = Some(target);
            }
            // Only while shutting down.
            Err(_) => {
                self.clients.fetch_sub(1, Relaxed);
                cx.close();
            }
        }
    }

    fn on_bytes(&mut self, cx: &mut Context<'_, Session>, bytes: &[u8]) -> usize {
        let enough = cx.limits().low_water;
        if let Some(mut partner) = partner(cx) {
            if !partner.send(bytes) && partner.unsent() > 0 {
                // It is full. These bytes are lost, and an end would claim that nothing is missing.
                partner.abort();
            } else if partner.unsent() > enough {
                partner.request_drain();
                cx.pause();
            }
        }
        bytes.len()
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Session>) {
        if let Some(mut partner) = partner(cx) {
            partner.resume();
        }
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Session>) {
        cx.session().ended = true;
        if let Some(mut partner) = partner(cx) {
            partner.half_close();
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, Session>, reason: CloseReason) {
        let client = !cx.is_outbound() && cx.session().partner.is_some();
        self.clients.fetch_sub(usize::from(client), Relaxed);
        let unreached = cx.is_outbound() && !cx.session().opened;
        let orderly = match reason {
            CloseReason::PeerClosed | CloseReason::Closed => true,
            CloseReason::IdleTimeout | CloseReason::Shutdown => true,
            // It only did not want to read the rest.
            CloseReason::Error(_) if cx.session().ended => true,
            // A target that resets at once was there, even if `on_open` was not called.
            CloseReason::Error(ErrorKind::ConnectionReset) => false,
            CloseReason::Error(_) | CloseReason::ConnectTimeout if unreached => {
                self.failed(reason, cx.error());
                true
            }
            // Nothing was passed on through a target that could not be reached.
            _ => !cx.session().opened,
        };
        match partner(cx) {
            Some(mut partner) if orderly => partner.close(),
            // An end would claim that nothing is missing.
            Some(mut partner) => partner.abort(),
            None => {}
        }
    }

    // The target knows this process only.
    fn save(&self, _cx: &ServiceContext<'_, Session>) -> Option<Saved> {
        Some(Saved::stay())
    }

    /// Nothing: the forwarder does not speak the protocol of its clients.
    fn farewell(&self, _why: Farewell, _limits: &Limits) -> Cow<'static, [u8]> {
        Cow::Borrowed(&[])
    }
}
