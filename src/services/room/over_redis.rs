//! The bus over Redis: a room, the two clients that are its connections, and what they tell.

use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::bus::{Action, Bus, Event, MemberId};
use super::{Demand, Failure, Link, Message, Room, STOP_WAIT, ServerId, Settings};
use crate::services::redis::{self, Ask, Login, Order, Redis, Reply, State, Unanswered};
use crate::{Connect, Decoder, Encoder, Error, Handle, Limits, Reactor, Unreadable};

/// What Redis has for the end of the connections, after the room has waited for it.
const CLOSING: Duration = Duration::from_millis(500);

/// The connections of one server to the Redis that its room is shared over: two clients in a reactor,
/// which has to be that of the first core.
///
/// ```no_run
/// use reactor::services::Presence;
/// use reactor::services::redis::RedisUrl;
/// use reactor::services::room::{OverRedis, Settings};
/// use reactor::Cores;
///
/// let url: RedisUrl = "redis://127.0.0.1".parse()?;
/// let mut cores = Cores::new(2)?;
/// let redis =
///     OverRedis::dial(cores.first(), url.connect()?, url.login(None), Settings::default())?;
/// cores.listen("127.0.0.1:9907", move |core| {
///     Presence::new(false).on_bus(&core, || redis.bus(core.handle()))
/// })?;
/// cores.run()?;
/// # Ok::<(), reactor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OverRedis {
    settings: Settings,
    commands: Handle<Order>,
    reader: Handle<Order>,
}

impl OverRedis {
    /// Adds the clients. They dial once the reactor runs, and again whenever a connection is lost.
    ///
    /// A Redis that is not there is no error. Members wait for it for up to [`timeout`](Settings::timeout);
    /// then the room is [cut off](super::bus::News::CutOff), until Redis is there. To know before the room
    /// is opened, ask for the [state](redis::State) of a [client](Redis) that dials once.
    ///
    /// # Errors
    /// [`Error::Limit`] for settings that cannot be kept, and [`Error::TooManyServices`].
    pub fn dial(
        reactor: &mut Reactor<'_>,
        redis: Connect,
        login: Login,
        settings: Settings,
    ) -> Result<OverRedis, Error> {
        settings.check()?;
        // The room gives a connection up before its client does, and knows why.
        let limits = Limits { connect_timeout: 2 * settings.timeout, ..Limits::default() };
        let mut add = |name: &str| {
            let client = Redis::new(&redis, login.clone())?
                .with_reply_timeout(2 * settings.timeout)
                .with_shutdown_time(STOP_WAIT + CLOSING);
            let service = reactor.add(client, limits.clone())?;
            reactor.set_name(&service, name);
            Ok::<_, Error>(service.handle())
        };
        let (commands, reader) = (add("redis")?, add("redis-reader")?);
        Ok(OverRedis { settings, commands, reader })
    }

    /// What the room is.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The bus. `seat` is the handle of the [`Seat`](super::Seat) that holds it, which is woken when
    /// something comes: [`Core::handle`](crate::Core::handle), also where there is but one core. There can
    /// be one of it.
    pub fn bus(&self, seat: Handle<Message>) -> RedisBus {
        let (tell, heard) = channel();
        let connections = [&self.commands, &self.reader].map(|client| Connection {
            client: client.clone(),
            number: 0,
            given_up: 0,
        });
        let room = Room::new(self.settings.clone(), ServerId::random(), Instant::now());
        RedisBus { room, connections, watching: false, heard, tell, seat }
    }
}

/// A [bus](Bus) over Redis: a [`Room`] with its connections. Made by [`OverRedis::bus`].
pub struct RedisBus {
    room: Room,
    connections: [Connection; 2],
    /// They tell how it stands with them.
    watching: bool,
    /// What the clients have told.
    heard: Receiver<(Link, Heard)>,
    /// For the answers to what is asked.
    tell: Sender<(Link, Heard)>,
    /// To be woken by.
    seat: Handle<Message>,
}

/// What a client tells.
enum Heard {
    State(State),
    /// On the connection of this number.
    Replies(u64, Result<Vec<Reply>, Unanswered>),
}

/// How a client tells something.
struct Teller {
    link: Link,
    tell: Sender<(Link, Heard)>,
    seat: Handle<Message>,
}

impl Teller {
    /// If that fails the reactor has ended.
    fn tell(&self, heard: Heard) {
        let _ = self.tell.send((self.link, heard));
        let _ = self.seat.post(Message::wake());
    }
}

/// One of the two.
struct Connection {
    client: Handle<Order>,
    /// Its number, as far as the client has told.
    number: u64,
    /// The room has given this one up, and is to hear nothing more of it.
    given_up: u64,
}

impl Connection {
    /// If that fails the reactor has ended.
    fn order(&self, order: Order) {
        let _ = self.client.post(order);
    }
}

impl RedisBus {
    fn connection(&mut self, link: Link) -> &mut Connection {
        &mut self.connections[link as usize]
    }

    fn teller(&self, link: Link) -> Teller {
        Teller { link, tell: self.tell.clone(), seat: self.seat.clone() }
    }

    /// Has the clients tell how it stands with them. Not before the reactor runs: what is posted to one
    /// that never does is a message lost.
    fn watch(&mut self) {
        if std::mem::replace(&mut self.watching, true) {
            return;
        }
        for link in [Link::Commands, Link::Reader] {
            let teller = self.teller(link);
            let watch = Order::watch(move |state| teller.tell(Heard::State(state.clone())));
            self.connection(link).order(watch);
        }
    }

    /// Tells the room what the clients have told.
    fn hear(&mut self, now: Instant) {
        while let Ok((link, heard)) = self.heard.try_recv() {
            let connection = self.connection(link);
            let number = match &heard {
                Heard::State(state) => state.number(),
                Heard::Replies(number, _) => *number,
            };
            if let Heard::State(_) = heard {
                connection.number = connection.number.max(number);
            }
            if number <= connection.given_up {
                continue;
            }
            match heard {
                Heard::State(State::Up { .. }) => self.room.connected(link, now),
                Heard::State(State::Down { failure, .. }) => {
                    let failure = match failure {
                        redis::Failure::Login => Failure::Password,
                        redis::Failure::Other => Failure::Other,
                    };
                    self.room.lost(link, failure, now);
                }
                Heard::State(State::Off | State::Dialling { .. }) => {}
                Heard::Replies(_, Ok(replies)) => self.room.replies(link, &replies, now),
                // Its loss is told as a state.
                Heard::Replies(number, Err(_)) => connection.order(Order::Drop(number)),
            }
        }
    }

    /// Has the clients do what the room wants of them.
    fn carry_out(&mut self) {
        while let Some(demand) = self.room.poll_redis() {
            match demand {
                Demand::Connect(link) => self.connection(link).order(Order::Dial),
                Demand::Disconnect(link) => {
                    let connection = self.connection(link);
                    connection.given_up = connection.number;
                    connection.order(Order::Drop(connection.number));
                }
                Demand::Send(link, commands) => {
                    let teller = self.teller(link);
                    let connection = self.connection(link);
                    let number = connection.number;
                    let answer = Box::new(move |it| teller.tell(Heard::Replies(number, it)));
                    let ask = Ask { connection: Some(number), commands, answer };
                    connection.order(Order::Ask(ask));
                }
                Demand::Stopped => self.connections.iter().for_each(|it| it.order(Order::Stop)),
            }
        }
    }
}

impl Bus for RedisBus {
    fn event(&mut self, member: MemberId, event: Event, now: Instant) {
        self.room.event(member, event, now);
        self.carry_out();
    }

    fn poll(&mut self) -> Option<Action> {
        self.watch();
        let action = self.room.poll();
        self.carry_out();
        action
    }

    fn deadline(&self) -> Option<Instant> {
        self.room.deadline()
    }

    fn tick(&mut self, now: Instant) {
        self.hear(now);
        self.room.tick(now);
        self.carry_out();
    }

    fn drained(&mut self, now: Instant) {
        self.room.drained(now);
        self.carry_out();
    }

    fn stop(&mut self, now: Instant) {
        self.room.stop(now);
        self.carry_out();
    }

    /// The connections do not go along: the other process dials.
    fn save(&self, now: Instant, to: &mut Encoder) -> Option<()> {
        let RedisBus { room, connections: _, watching: _, heard: _, tell: _, seat: _ } = self;
        room.save(now, to)
    }

    fn restore(&mut self, from: &mut Decoder<'_>, now: Instant) -> Result<(), Unreadable> {
        self.room.restore(from, now)
    }
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBus").field("room", &self.room).finish_non_exhaustive()
    }
}
