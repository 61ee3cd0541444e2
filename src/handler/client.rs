//! Being a client: a handler that dials, and stays connected.
//!
//! A connection that was dialled is the handler's like an accepted one, with the same hooks. This page
//! is about what differs: where to begin, how to come back, and what to do where the server does not
//! read. [`Redial`] is for the second. Here is a whole client, with a test of it on a clock that stands
//! still:
//!
//! ```
//! use std::collections::VecDeque;
//!
//! use reactor::client::Redial;
//! use reactor::{CloseReason, Context, Error, Handler, Limits, ServiceContext, TimerId};
//!
//! /// Subscribes to the news of a server, publishes what other threads post, and comes back whenever
//! /// the connection is lost.
//! struct Newsroom {
//!     server: Redial,
//!     heard: Vec<String>,
//!     /// What the server has still to be sent. A real one has a bound.
//!     unsent: VecDeque<String>,
//! }
//!
//! impl Newsroom {
//!     fn new(address: &str) -> Result<Newsroom, Error> {
//!         let (heard, unsent) = Default::default();
//!         Ok(Newsroom { server: Redial::new(address)?, heard, unsent })
//!     }
//!
//!     fn publish(&mut self, cx: &mut ServiceContext<'_, ()>) {
//!         let Some(id) = self.server.connection() else { return };
//!         while let Some(text) = self.unsent.front() {
//!             if !cx.send_to(id, format!("PUB {text}\r\n")) {
//!                 // Full, or not open yet: `on_drain` goes on.
//!                 if let Some(mut server) = cx.connection(id).filter(|it| it.takes_output()) {
//!                     server.request_drain();
//!                 }
//!                 return;
//!             }
//!             self.unsent.pop_front();
//!         }
//!     }
//! }
//!
//! impl Handler for Newsroom {
//!     type Session = ();
//!     type Message = String;
//!
//!     fn on_start(&mut self, cx: &mut ServiceContext<'_, ()>) {
//!         self.server.start(cx);
//!     }
//!     fn on_open(&mut self, cx: &mut Context<'_, ()>) {
//!         self.server.on_open(cx);
//!         cx.send("SUB news\r\n"); // the server has forgotten us
//!         self.publish(cx);
//!     }
//!     fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
//!         match line {
//!             b"PING" => _ = cx.send("PONG\r\n"),
//!             line => self.heard.push(String::from_utf8_lossy(line).into_owned()),
//!         }
//!     }
//!     fn on_drain(&mut self, cx: &mut Context<'_, ()>) {
//!         self.publish(cx);
//!     }
//!     fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
//!         if let Some(delay) = self.server.on_close(cx) {
//!             eprintln!("{reason}; dialling again in {delay:?}");
//!         }
//!     }
//!     fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, ()>, timer: TimerId) {
//!         self.server.on_service_timer(cx, timer);
//!     }
//!     fn on_message(&mut self, cx: &mut ServiceContext<'_, ()>, text: String) {
//!         self.unsent.push_back(text);
//!         self.publish(cx);
//!     }
//! }
//!
//! // let service = reactor.add(Newsroom::new("127.0.0.1:4222")?, Limits::default())?;
//! use reactor::testing::Harness;
//!
//! let newsroom = Newsroom::new("127.0.0.1:4222")?;
//! let mut loop_of_it = Harness::without_listener(newsroom, Limits::default());
//! let (_, server) = loop_of_it.dialled()[0];
//! loop_of_it.post("early".to_owned());
//! loop_of_it.answer(server);
//! loop_of_it.feed(server, "PING\r\nit rains\r\n");
//! assert_eq!(loop_of_it.sent(server), b"SUB news\r\nPUB early\r\nPONG\r\n");
//!
//! loop_of_it.reset(server);
//! loop_of_it.post("late".to_owned());
//! assert!(loop_of_it.dialled().is_empty());
//! loop_of_it.advance(Redial::FIRST);
//! let (_, server) = loop_of_it.dialled()[0];
//! loop_of_it.answer(server);
//! assert_eq!(loop_of_it.sent(server), b"SUB news\r\nPUB late\r\n");
//! assert_eq!(loop_of_it.handler().heard, ["it rains"]);
//! # Ok::<(), Error>(())
//! ```
//!
//! # Where a client begins
//!
//! [`Reactor::add`](crate::Reactor::add) takes a handler without a listener, and
//! [`on_start`](crate::Handler::on_start) is called once the loop runs: dial there.
//! [`on_listening`](crate::Handler::on_listening) is never called without a listener.
//! [`Reactor::connect`](crate::Reactor::connect) dials from outside, for a client of one connection.
//!
//! Each connection has a session. [`ServiceContext::connect`] takes the one that it begins with, and a
//! connection that is being dialled can be had by its id, to change its session. `Reactor::connect`
//! begins with a default one: a service's key does not know the type of its sessions.
//!
//! The limits hold for dialled connections too. Where one of them closes a connection, the server is sent
//! no [`farewell`](crate::Handler::farewell), since it would take those words for a request.
//!
//! A [`Limits::connect_timeout`](crate::Limits::connect_timeout) bounds each attempt. One that fails is
//! told in `on_close`, without an `on_open`; [`Context::error`] has the reason for people.
//!
//! # Backpressure
//!
//! A dialled connection is always read, however much of its output is unsent: who stopped reading would
//! miss the PING of the server, and be cut off. It is no slow consumer either, since nobody but the
//! handler itself has sent too much.
//!
//! Instead it is full above [`Limits::max_output`](crate::Limits::max_output) unsent bytes, and takes
//! nothing more until some have gone out. Then [`send`](Context::send),
//! [`send_to`](ServiceContext::send_to) and [`reply_to`](ServiceContext::reply_to) give false, in every
//! hook, its own too: a server that asks and does not read the answers must not fill our memory. What is
//! taken is taken whole, so unsent bytes are never more than `max_output` and one message. A broadcast
//! passes it over.
//!
//! False says that nothing was taken, not why. If [`connection`](ServiceContext::connection) still gives
//! it and it [takes output](Context::takes_output), it is full, or not open yet: ask for
//! [`on_drain`](crate::Handler::on_drain) with [`request_drain`](Context::request_drain), which also
//! comes once it is open, and keep what is unsent until then, or drop it. Otherwise it is gone, broken or
//! half-closed, and takes nothing more; what its server has not taken is lost.
//!
//! A server that takes nothing for ever is not closed either. Set
//! [`idle_timeout`](crate::Limits::idle_timeout), or [abort](Context::abort) it at a timer of your own.
//! The limit is that of the service: it applies to a terminal that the same handler has
//! [adopted](ServiceContext::adopt) too.
//!
//! `idle_timeout` does not find a server that hangs while its system still takes what it is sent, since
//! that counts as movement. Where it matters, ask something at a timer, and abort if there is no answer
//! by the next one.
//!
//! Threads that publish through a [`Handle`](crate::Handle) fill its queue if the loop is slower than
//! they are. [`try_post`](crate::Handle::try_post) bounds it, and [`len`](crate::Handle::len) says how
//! far the handler is behind. That the server is behind, only the handler knows: it tells them, or keeps
//! no more than it wants to.
//!
//! # The end
//!
//! [`half_close`](Context::half_close) says that no request follows; the answers are read to their end,
//! then `on_close` comes with [`CloseReason::PeerClosed`](crate::CloseReason::PeerClosed). `close` throws
//! away what the server still says. After either, what was taken goes out first.
//!
//! [`stop`](ServiceContext::stop) ends the loop once everything that was taken is out.
//! [`Exit::Clean`](crate::Exit::Clean) then says that no connection had to be cut, and nothing of a
//! client's work: a server that refused, or closed too early, is as clean. So keep the result in a
//! place that the handler borrows, such as a [`Cell`](std::cell::Cell) of `main`, and look at it after
//! `run`; the example `client` does.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use super::{Context, ServiceContext};
use crate::connection::{ConnId, TimerId};
use crate::error::Error;
use crate::net::{Address, Connect, ToConnect};

/// One server that a handler is to stay connected to: dials, and dials again after a while whenever the
/// connection is lost or not made, also if the handler closes it. See [`client`](self) for a whole handler.
///
/// Three of its methods have the names of the hooks that they are to be called in. They look whose
/// connection and whose timer it is, so that a handler may have several of these, and other connections
/// and timers besides.
///
/// The delays are an exponential backoff with full jitter: before attempt `n` after a loss, some time
/// between nothing and `first` times 2ⁿ⁻¹, at most `most`. Without the jitter, all the clients of a
/// server that went down would come back at the same moments.
///
/// The delays begin anew with a connection that has been open for as long as `most`. To be accepted
/// proves little: a server that is full, or a proxy without one, accepts and closes, and would be dialled
/// as fast as it does. If your protocol has a better proof, such as a login that was answered, call
/// [`reset`](Self::reset) there.
///
/// There is no last attempt: [`attempts`](Self::attempts) says how many there were, and
/// [`stop`](Self::stop) ends it.
#[derive(Debug)]
pub struct Redial {
    target: Connect,
    first: Duration,
    most: Duration,
    /// The state of the random numbers.
    random: u64,
    /// Dialled since the last connection that was well.
    attempts: u32,
    /// The next delay is no shorter.
    hold_off: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Not begun, or stopped.
    Off,
    /// Being dialled.
    Dialling(ConnId),
    /// Connected since then.
    Open(ConnId, Instant),
    /// To be dialled at this timer.
    Waiting(TimerId),
}

impl Redial {
    /// The longest delay before the second attempt, unless [`with_delays`](Self::with_delays) says
    /// otherwise: 100 ms.
    pub const FIRST: Duration = Duration::from_millis(100);
    /// The longest delay at all, likewise: 30 s.
    pub const MOST: Duration = Duration::from_secs(30);

    /// Stays connected to an address, or to a [`Connect`]: what that puts before the bytes of the
    /// handler, such as TLS, is there each time. Nothing is dialled before [`start`](Self::start).
    ///
    /// The name of a [host](crate::Host) is looked up each time that it is dialled.
    ///
    /// # Errors
    /// [`Error::Address`] if a text is not an address.
    pub fn new(target: impl ToConnect) -> Result<Redial, Error> {
        Ok(Redial {
            target: target.to_connect()?,
            first: Self::FIRST,
            most: Self::MOST,
            random: RandomState::new().build_hasher().finish(),
            attempts: 0,
            hold_off: Duration::ZERO,
            state: State::Off,
        })
    }

    /// Delays of other lengths. The first is raised to a millisecond, so that a server that refuses is
    /// not dialled without a pause, and `most` to the first.
    pub fn with_delays(self, first: Duration, most: Duration) -> Redial {
        let first = first.max(Duration::from_millis(1));
        Redial { first, most: most.max(first), ..self }
    }

    /// Has the delays come out the same in every run, for a test.
    pub fn with_seed(self, seed: u64) -> Redial {
        Redial { random: seed, ..self }
    }

    /// Dials, unless that is under way or done. To be called in
    /// [`on_start`](crate::Handler::on_start), and after a [`stop`](Self::stop) to go on. While the
    /// reactor shuts down nothing is dialled. The session is a default one, until `on_open` or
    /// [`connection`](Self::connection) reaches it.
    pub fn start<S: Default>(&mut self, cx: &mut ServiceContext<'_, S>) {
        if matches!(self.state, State::Off) {
            self.dial(cx);
        }
    }

    /// To be called in [`on_open`](crate::Handler::on_open). Says whether the connection is this one.
    pub fn on_open<S>(&mut self, cx: &mut Context<'_, S>) -> bool {
        let this = self.connection() == Some(cx.id());
        if this {
            self.state = State::Open(cx.id(), cx.now());
        }
        this
    }

    /// To be called in [`on_close`](crate::Handler::on_close). Gives the time after which it is dialled
    /// again; none if the connection is another one, or this or the reactor was stopped.
    pub fn on_close<S>(&mut self, cx: &mut Context<'_, S>) -> Option<Duration> {
        let id = cx.id();
        match self.state {
            State::Dialling(this) if this == id => {}
            State::Open(this, since) if this == id => {
                if cx.now().saturating_duration_since(since) >= self.most {
                    self.reset();
                }
            }
            _ => return None,
        }
        if cx.service.state.is_ending() {
            self.state = State::Off;
            return None;
        }
        let delay = self.delay().max(std::mem::take(&mut self.hold_off));
        self.state = State::Waiting(cx.set_service_timer(delay));
        Some(delay)
    }

    /// To be called in [`on_service_timer`](crate::Handler::on_service_timer): dials if its time has
    /// come. Says whether the timer is this one's.
    pub fn on_service_timer<S: Default>(
        &mut self,
        cx: &mut ServiceContext<'_, S>,
        timer: TimerId,
    ) -> bool {
        let this = matches!(self.state, State::Waiting(due) if due == timer);
        if this {
            self.dial(cx);
        }
        this
    }

    /// Dials no more. A connection that there is, or is being dialled, stays and is not replaced.
    ///
    /// That connection does not belong to this any more: [`connection`](Self::connection) gives none, and
    /// [`on_open`](Self::on_open) and [`on_close`](Self::on_close) take it for another one. To close it
    /// too, ask for `connection` before this call. A later [`start`](Self::start) dials a second one.
    pub fn stop<S>(&mut self, cx: &mut ServiceContext<'_, S>) {
        if let State::Waiting(timer) = self.state {
            cx.cancel_service_timer(timer);
        }
        self.state = State::Off;
    }

    /// The server is well: after the next loss the delays begin anew, and so do the attempts. To be
    /// called at each proof of that, for instance for each answer; it costs nothing.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The delay after the next loss is no shorter than this, which may be more than `most`: for a server
    /// that has refused for a reason that does not pass by itself, or has said when to come back. To be
    /// called before [`on_close`](Self::on_close).
    pub fn hold_off(&mut self, delay: Duration) {
        self.hold_off = delay;
    }

    /// How often it was dialled since the last connection that was [well](Self::reset), or since the
    /// beginning.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The connection, which is open or being dialled; none after a [`stop`](Self::stop).
    pub fn connection(&self) -> Option<ConnId> {
        match self.state {
            State::Dialling(id) | State::Open(id, _) => Some(id),
            State::Off | State::Waiting(_) => None,
        }
    }

    /// Whether there is a connection and it is open.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(..))
    }

    /// The timer at which it is dialled next, if it waits for that: [`due`](ServiceContext::due) says
    /// when.
    pub fn waits_for(&self) -> Option<TimerId> {
        match self.state {
            State::Waiting(timer) => Some(timer),
            _ => None,
        }
    }

    /// The server's address.
    pub fn address(&self) -> &Address {
        self.target.address()
    }

    fn dial<S: Default>(&mut self, cx: &mut ServiceContext<'_, S>) {
        // It fails only while shutting down.
        self.state = cx.connect(&self.target, S::default()).map_or(State::Off, State::Dialling);
        self.attempts = self.attempts.saturating_add(u32::from(self.connection().is_some()));
    }

    /// Some time between nothing and the bound, which doubles with each attempt.
    fn delay(&mut self) -> Duration {
        let doubled = 2_u32.saturating_pow(self.attempts.saturating_sub(1));
        let bound = self.first.saturating_mul(doubled).min(self.most);
        // SplitMix64, by Steele, Lea and Flood.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = (mixed ^ mixed >> 31) >> 11;
        bound.mul_f64(part as f64 / (1_u64 << 53) as f64)
    }
}
