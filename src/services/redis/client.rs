//! The handler: one connection, and what waits for it.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::login::{Login, judge, said};
use super::messages::{Answer, Ask, Failure, Order, State, Unanswered, Watcher, encode};
use super::reader::{Broken, Reader, Step};
use super::reply::Reply;
use crate::client::Redial;
use crate::services::known_version;
use crate::{
    CloseReason, Context, Decoder, Error, Handler, Saved, ServiceContext, TimerId, ToConnect,
    Unreadable,
};

/// The wait after a login that was refused. Nothing changes it but a person.
const REFUSED_WAIT: Duration = Duration::from_secs(30);
/// The longest wait otherwise.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What was sent, and is not answered yet.
struct Sent {
    /// How many replies are to come.
    left: usize,
    replies: Vec<Reply>,
    /// None for the login.
    answer: Option<Answer>,
}

/// What waits until Redis takes more.
struct Unsent {
    bytes: Vec<u8>,
    sent: Sent,
}

/// A client of one Redis, with one connection; see [the module](super).
///
/// * It dials at the start, and again whenever the connection is lost: the first time at once, then
///   after a growing and jittered wait of up to 5 seconds ([`Redial`]). The connection is
///   [up](State::Up) once Redis has taken the [login](Login) and has answered. The waits begin anew with
///   one that has been up for 5 seconds: what ends each connection may come behind the login.
/// * Requests are pipelined, in the order in which they were asked. Nothing is asked again by itself: at a
///   loss each is answered, and only who has asked knows whether it may be done twice.
/// * Backpressure: while more than [`max_output`](crate::Limits::max_output) bytes are unsent, requests
///   wait here, and beyond as many bytes again they are answered [`Full`](Unanswered::Full).
/// * A connection that owes a reply is aborted when nothing has come for the
///   [reply timeout](Redis::with_reply_timeout). A server that blocks, as in `XREAD BLOCK`, has to
///   answer within it.
/// * What comes from the server is bounded: a reply above the [limit](Redis::with_max_reply), one that is
///   nested more than eight deep, or what is no RESP2 ends the connection.
/// * A loss is logged once, and again only when its reason has changed.
///
/// What Redis says by itself, as to subscribers, is not for this client: it takes that for a broken server.
pub struct Redis {
    server: Redial,
    login: Login,
    reply_timeout: Duration,
    max_reply: usize,
    shutdown_time: Duration,
    state: State,
    watcher: Option<Watcher>,
    /// How often it was dialled.
    number: u64,
    unsent: VecDeque<Unsent>,
    unsent_bytes: usize,
    sent: VecDeque<Sent>,
    /// When something was last read, or became owed.
    moved: Instant,
    /// Looks whether something is owed for too long.
    patience: Option<TimerId>,
    /// Why we end the connection.
    failure: Option<(Failure, String)>,
    /// The last loss that was logged, since the last connection that has lasted.
    logged: Option<String>,
    /// A loss was logged, and not that there is a connection again.
    logged_down: bool,
    /// Since when the connection is up.
    up: Option<Instant>,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut redis = f.debug_struct("Redis");
        redis.field("server", &self.server).field("state", &self.state).finish_non_exhaustive()
    }
}

impl Redis {
    /// The time that a connection may owe a reply, unless
    /// [`with_reply_timeout`](Self::with_reply_timeout) says otherwise: 10 s.
    pub const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
    /// The largest reply, unless [`with_max_reply`](Self::with_max_reply) says otherwise: 64 MiB.
    pub const MAX_REPLY: usize = 64 << 20;

    /// A client of the Redis at an address, or at a [`Connect`](crate::Connect), such as
    /// [`RedisUrl::connect`](super::RedisUrl::connect) gives. Nothing is dialled before the loop runs.
    ///
    /// # Errors
    /// [`Error::Address`] if a text is not an address.
    pub fn new(target: impl ToConnect, login: Login) -> Result<Redis, Error> {
        Ok(Redis {
            server: Redial::new(target)?.with_delays(Redial::FIRST, LONGEST_WAIT),
            login,
            reply_timeout: Self::REPLY_TIMEOUT,
            max_reply: Self::MAX_REPLY,
            shutdown_time: Duration::ZERO,
            state: State::Off,
            watcher: None,
            number: 0,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            sent: VecDeque::new(),
            moved: Instant::now(),
            patience: None,
            failure: None,
            logged: None,
            logged_down: false,
            up: None,
        })
    }

    /// How long a connection may owe a reply without sending anything.
    pub fn with_reply_timeout(self, reply_timeout: Duration) -> Redis {
        Redis { reply_timeout, ..self }
    }

    /// How large one reply may be, with 32 bytes for each of its parts.
    pub fn with_max_reply(self, max_reply: usize) -> Redis {
        Redis { max_reply, ..self }
    }

    /// At a shutdown, keeps the connection for so long, or until [`Order::Stop`]: for who has to tell
    /// Redis of the end, and wants to know that it has heard. Without this it is closed at once, and what
    /// is not answered yet will not be.
    pub fn with_shutdown_time(self, shutdown_time: Duration) -> Redis {
        Redis { shutdown_time, ..self }
    }

    /// Whether there is a connection, and why not.
    pub fn state(&self) -> &State {
        &self.state
    }
}

impl Handler for Redis {
    type Session = Reader;
    type Message = Order;

    fn on_start(&mut self, cx: &mut ServiceContext<'_, Reader>) {
        self.server.start(cx);
        self.dialled();
    }

    fn on_open(&mut self, cx: &mut Context<'_, Reader>) {
        if !self.server.on_open(cx) {
            // Somebody was handed over to us, who would answer in the name of Redis.
            return cx.abort();
        }
        let commands = self.login.commands();
        cx.session().set_most(self.max_reply);
        cx.send(encode(&commands));
        let sent = Sent { left: commands.len(), replies: Vec::new(), answer: None };
        self.await_replies(cx, sent);
    }

    fn on_bytes(&mut self, cx: &mut Context<'_, Reader>, bytes: &[u8]) -> usize {
        self.moved = cx.now();
        let mut lines = cx.lines(bytes);
        while let Some(line) = lines.next(cx) {
            // A line that was cut off at the end of the input may be a part of a number.
            if lines.is_whole() {
                let step = cx.session().line(line);
                self.step(cx, step);
            }
        }
        lines.taken()
    }

    fn on_block(&mut self, cx: &mut Context<'_, Reader>, piece: &[u8], end: bool) {
        self.moved = cx.now();
        let step = cx.session().piece(piece, end);
        self.step(cx, step);
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Reader>) {
        self.flush(cx);
    }

    fn on_close(&mut self, cx: &mut Context<'_, Reader>, reason: CloseReason) {
        if self.server.connection() != Some(cx.id()) {
            return;
        }
        let detail = || cx.close_detail().unwrap_or_else(|| reason.to_string());
        let (failure, why) = self.failure.take().unwrap_or_else(|| (Failure::Other, detail()));
        if failure == Failure::Login {
            self.server.hold_off(REFUSED_WAIT);
        }
        let again = self.server.on_close(cx);
        self.forget();
        // To have logged in proves little: what ends each connection may come behind it.
        if self.up.take().is_some_and(|up| cx.now() - up >= LONGEST_WAIT) {
            self.logged = None;
        }
        if self.logged.as_ref() != Some(&why) {
            let address = self.server.address();
            match self.state {
                State::Up { .. } => log::warn!("redis {address}: connection lost: {why}"),
                _ => log::warn!("redis {address}: cannot connect: {why}"),
            }
            (self.logged, self.logged_down) = (Some(why.clone()), true);
        }
        self.change(State::Down { number: self.number, failure, why, again });
    }

    fn on_service_timer(&mut self, cx: &mut ServiceContext<'_, Reader>, timer: TimerId) {
        if self.server.on_service_timer(cx, timer) {
            self.dialled();
        } else if self.patience == Some(timer) {
            self.patience = None;
            self.check_patience(cx);
        }
    }

    fn on_shutdown(&mut self, cx: &mut ServiceContext<'_, Reader>) {
        if !self.shutdown_time.is_zero() {
            cx.keep_open(self.shutdown_time);
        }
    }

    /// The connection does not go, and whoever goes on dials one of its own in [`on_start`](Handler::on_start). Since
    /// this one then has nothing any more, it does not dial again.
    fn save(&self, _cx: &ServiceContext<'_, Reader>) -> Option<Saved> {
        Some(Saved::new(1).together())
    }

    fn restore(&mut self, version: u32, _from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        known_version(version, 1)
    }

    fn on_message(&mut self, cx: &mut ServiceContext<'_, Reader>, order: Order) {
        match order {
            Order::Ask(ask) => self.ask(cx, ask),
            Order::Watch(mut watcher) => {
                watcher(&self.state);
                self.watcher = Some(watcher);
            }
            Order::Dial if self.server.connection().is_none() => {
                self.server.stop(cx);
                self.server.start(cx);
                self.dialled();
            }
            Order::Dial => {}
            Order::Drop(number) => self.abort(cx, number, "given up by who uses it".to_owned()),
            Order::Stop => {
                let id = self.server.connection();
                self.server.stop(cx);
                if let Some(mut connection) = id.and_then(|id| cx.connection(id)) {
                    connection.close();
                }
                self.forget();
                self.change(State::Off);
            }
        }
    }
}

impl Redis {
    fn change(&mut self, state: State) {
        self.state = state;
        self.watcher.iter_mut().for_each(|watcher| watcher(&self.state));
    }

    /// An attempt has begun.
    fn dialled(&mut self) {
        if self.server.connection().is_some() {
            self.number += 1;
            self.change(State::Dialling { number: self.number });
        }
    }

    fn abort(&mut self, cx: &mut ServiceContext<'_, Reader>, number: u64, why: String) {
        let id = self.server.connection().filter(|_| number == self.number);
        if let Some(mut connection) = id.and_then(|id| cx.connection(id)) {
            self.failure.get_or_insert((Failure::Other, why));
            connection.abort();
        }
    }

    fn ask(&mut self, cx: &mut ServiceContext<'_, Reader>, ask: Ask) {
        let Ask { connection, commands, answer } = ask;
        let up = self.state == State::Up { number: self.number };
        if !up || connection.is_some_and(|number| number != self.number) {
            return answer(Err(Unanswered::NotConnected));
        }
        if commands.is_empty() {
            return answer(Ok(Vec::new()));
        }
        let bytes = encode(&commands);
        if self.unsent_bytes + bytes.len() > cx.limits().max_output && !self.unsent.is_empty() {
            return answer(Err(Unanswered::Full));
        }
        self.unsent_bytes += bytes.len();
        let sent = Sent { left: commands.len(), replies: Vec::new(), answer: Some(answer) };
        self.unsent.push_back(Unsent { bytes, sent });
        self.flush(cx);
    }

    /// Sends what the connection takes.
    fn flush(&mut self, cx: &mut ServiceContext<'_, Reader>) {
        let Some(id) = self.server.connection() else { return };
        while let Some(next) = self.unsent.front() {
            if !cx.send_to(id, &next.bytes) {
                if let Some(mut server) = cx.connection(id).filter(|it| it.takes_output()) {
                    server.request_drain();
                }
                return;
            }
            let Unsent { bytes, sent } = self.unsent.pop_front().expect("it is there");
            self.unsent_bytes -= bytes.len();
            self.await_replies(cx, sent);
        }
    }

    fn await_replies(&mut self, cx: &mut ServiceContext<'_, Reader>, sent: Sent) {
        if self.sent.is_empty() {
            self.moved = cx.now();
        }
        self.sent.push_back(sent);
        if self.patience.is_none() {
            self.patience = Some(cx.set_service_timer(self.reply_timeout));
        }
    }

    /// Gives up a connection that has owed a reply for too long.
    fn check_patience(&mut self, cx: &mut ServiceContext<'_, Reader>) {
        if self.sent.is_empty() {
            return;
        }
        let due = self.moved + self.reply_timeout;
        if due <= cx.now() {
            let why = format!("no reply within {:?}", self.reply_timeout);
            return self.abort(cx, self.number, why);
        }
        self.patience = Some(cx.set_service_timer_at(due));
    }

    /// Goes on after a line or a piece of a block.
    fn step(&mut self, cx: &mut Context<'_, Reader>, step: Result<Step, Broken>) {
        match step {
            Ok(Step::More) => {}
            Ok(Step::Block(length)) => cx.take_block(length),
            Ok(Step::Reply(reply)) => self.reply(cx, reply),
            Err(Broken(why)) => self.abort(cx, self.number, why),
        }
    }

    fn reply(&mut self, cx: &mut Context<'_, Reader>, reply: Reply) {
        let Some(first) = self.sent.front_mut() else {
            let why = match reply.error() {
                Some(error) => said(error),
                None => "it replies to what nobody has asked".to_owned(),
            };
            return self.abort(cx, self.number, why);
        };
        first.replies.push(reply);
        first.left -= 1;
        if first.left > 0 {
            return;
        }
        let Sent { replies, answer, .. } = self.sent.pop_front().expect("it is there");
        match (answer, judge(&replies)) {
            (Some(answer), _) => answer(Ok(replies)),
            (None, Ok(())) => {
                if std::mem::take(&mut self.logged_down) {
                    log::info!("redis {}: connected again", self.server.address());
                }
                self.up = Some(cx.now());
                self.change(State::Up { number: self.number });
            }
            (None, Err(failure)) => {
                self.failure = Some(failure);
                cx.abort();
            }
        }
    }

    /// Nothing that was asked is answered any more.
    fn forget(&mut self) {
        let sent = self.sent.drain(..).map(|sent| (sent, Unanswered::Lost));
        let unsent = self.unsent.drain(..).map(|it| (it.sent, Unanswered::NotConnected));
        for (sent, why) in sent.chain(unsent) {
            if let Some(answer) = sent.answer {
                answer(Err(why));
            }
        }
        self.unsent_bytes = 0;
    }
}
