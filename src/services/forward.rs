use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use crate::{Address, CloseReason, ConnId, Context, Farewell, Handler, Limits};

/// How often being full is logged.
const FULL_EVERY: Duration = Duration::from_secs(10);

/// A port forwarder: each client gets a connection of its own to the target, and bytes go both
/// ways as they are.
///
/// ```text
/// client -----> | client's connection |  on_bytes  | target's connection | -----> target
///        <----- |                     | <--------> |                     | <-----
/// ```
///
/// A side that does not read slows the other down to its own pace: past
/// [`low_water`](Limits::low_water) unsent bytes its partner is paused, so that a pair never holds
/// more than that and one read each way. The end of one direction is passed on, and the other goes
/// on; a reset is passed on as a reset, and so is a TLS client's end without `close_notify`, since
/// somebody may have cut it off. One that comes after the end of its own direction, since the
/// peer did not want to hear the rest, is passed on as an end. While the target is being dialled the client waits, unread;
/// if it cannot be had, the client is closed.
///
/// Each client takes two connections of [`max_connections`](Limits::max_connections); one for whom
/// there are not two is closed.
/// [`soft_output`](Limits::soft_output) must be above `low_water` and
/// [`bytes_per_turn`](Limits::bytes_per_turn) together, as it is by default, or slow sides are
/// taken for slow consumers.
#[derive(Clone, Debug)]
pub struct Forward {
    target: Address,
    /// Those that have a connection to it, or one under way.
    clients: usize,
    /// The last try to reach it failed.
    gone: bool,
    /// When the log was last told that there is no room for one more.
    full: Option<Instant>,
}

impl Forward {
    /// Forwards every client to this address. The name of a host is looked up for each of them,
    /// unless it [was](Address::resolve) already.
    pub fn new(target: Address) -> Forward {
        Forward { target, clients: 0, gone: false, full: None }
    }

    /// Warns of being full, as the loop does where it is the one to notice.
    fn refused(&mut self) {
        if self.full.is_none_or(|last| last.elapsed() >= FULL_EVERY) {
            self.full = Some(Instant::now());
            log::warn!("forward: full with {} clients (max_connections): closing", self.clients);
        }
    }

    /// Warns of a target that can no longer be reached, once: that each client is closed for it is
    /// in the log besides, a thousand times for a thousand clients.
    fn failed(&mut self, reason: CloseReason, error: Option<io::Error>) {
        if !std::mem::replace(&mut self.gone, true) {
            let target = &self.target;
            let why = error.map_or_else(|| reason.to_string(), |error| error.to_string());
            log::warn!("forward: the target {target} cannot be reached: {why}; closing clients");
        }
    }
}

/// One side of a pair.
#[derive(Debug, Default)]
pub struct Session {
    /// The other side. Its id stays when it is gone, and then speaks of nobody.
    partner: Option<ConnId>,
    /// It was there: false for a target that could not be had.
    opened: bool,
    /// All that it had to say has been passed on.
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
                // As loud as what it takes back.
                log::warn!("forward: the target {} can be reached again", self.target);
            }
            if let Some(mut client) = partner(cx) {
                client.resume();
            }
            return;
        }
        // The loop counted one connection for it, and others may have come during its handshake.
        if self.clients >= cx.limits().max_connections.div_ceil(2) {
            self.refused();
            return cx.close();
        }
        // TCP keeps what the client sends until there is somebody to send it to.
        cx.pause();
        let client = Session { partner: Some(cx.id()), ..Session::default() };
        match cx.connect(&self.target, client) {
            Ok(target) => {
                cx.session().partner = Some(target);
                self.clients += 1;
            }
            // Only while shutting down.
            Err(_) => cx.close(),
        }
    }

    fn on_bytes(&mut self, cx: &mut Context<'_, Session>, bytes: &[u8]) -> usize {
        let enough = cx.limits().low_water;
        if let Some(mut partner) = partner(cx) {
            partner.send(bytes);
            if partner.unsent() > enough {
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
        self.clients -= usize::from(client);
        let unreached = cx.is_outbound() && !cx.session().opened;
        let orderly = match reason {
            CloseReason::PeerClosed | CloseReason::Closed => true,
            CloseReason::IdleTimeout | CloseReason::Shutdown => true,
            // It only did not want to hear the rest.
            CloseReason::Error(_) if cx.session().ended => true,
            // A target that resets at once was there, though we may not have been told of it.
            CloseReason::Error(ErrorKind::ConnectionReset) => false,
            CloseReason::Error(_) | CloseReason::ConnectTimeout if unreached => {
                self.failed(reason, cx.error());
                true
            }
            // Nothing was said through a target that could not be had.
            _ => !cx.session().opened,
        };
        match partner(cx) {
            Some(mut partner) if orderly => partner.close(),
            // An end would claim that this was all that there was.
            Some(mut partner) => partner.abort(),
            None => {}
        }
    }

    /// Nothing: whatever the protocol is, it is not ours to speak.
    fn farewell(&self, _why: Farewell, _limits: &Limits) -> Cow<'static, [u8]> {
        Cow::Borrowed(&[])
    }
}
