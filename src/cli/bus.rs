//! `serve presence --presence-bus`: the room is one with those of other servers.

use std::sync::mpsc::channel;
use std::time::Duration;

use reactor::services::redis::{self, Login, Order, Redis, RedisUrl, State};
use reactor::services::room::{OverRedis, Settings};
use reactor::{Connect, Limits, Reactor};

use super::failure::Failure;
use super::trust::Trust;
use super::units::{bytes, duration};
use super::unused_options::GivenOptions;

/// What the password is in.
const PASSWORD: &str = "REACTOR_REDIS_PASSWORD";
/// The room of a URL without one.
const ROOM: &str = "room";

/// The options.
#[derive(Debug, clap::Args)]
pub(crate) struct BusOptions {
    /// Make the room of presence one with those of all servers that have the same URL here. Redis
    /// carries what is said between them.
    ///
    /// redis://[USER@]HOST[:PORT][/DB][?room=NAME], rediss:// for TLS (see --ca), or
    /// redis+unix:PATH[?db=DB&room=NAME]. The password, if there is one, is taken from the environment:
    /// REACTOR_REDIS_PASSWORD. The keys in Redis begin with reactor:NAME. Without Redis the program does not
    /// start; if it is lost later, the room is cut off from the others, and whole again once it is back.
    // Not parsed by clap, which would show a password in it.
    #[arg(long, value_name = "URL")]
    presence_bus: Option<String>,

    /// How long clients of the room wait for a Redis that does not answer, before the room is cut off.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    bus_timeout: Duration,

    /// How long a server of the room may be gone before its clients have left, at least twice
    /// --bus-timeout; the same for all of them.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    bus_lease: Duration,

    /// Bytes of what was said that Redis keeps for servers that were cut off.
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = bytes)]
    bus_keep: usize,

    /// Start without Redis too, cut off until it is there; but not with a wrong password.
    #[arg(long)]
    bus_optional: bool,

    #[command(flatten)]
    trust: Trust,
}

/// A room over Redis, before its connections are made.
pub(crate) struct PresenceBus {
    url: RedisUrl,
    redis: Connect,
    login: Login,
    settings: Settings,
}

impl BusOptions {
    /// Refuses options that are wrong, or have no effect, where there are so many rooms.
    pub(crate) fn check(&self, given: &GivenOptions, rooms: usize) -> Result<(), Failure> {
        given.refuse_unless(rooms > 0, &["presence_bus"], "the service presence; add it")?;
        let options = ["bus_timeout", "bus_lease", "bus_keep", "bus_optional"];
        given.refuse_unless(self.presence_bus.is_some(), &options, "--presence-bus URL; add it")?;
        let url = self.url()?;
        self.trust.refuse_unless(
            url.as_ref().is_some_and(|url| url.tls),
            given,
            "a bus with TLS; write --presence-bus rediss://HOST",
        )?;
        if url.is_some() && rooms > 1 {
            let what = "--presence-bus is for one room: give presence once, with all its addresses, as in \
                        presence=9907,9908";
            return Err(Failure::Usage(what.to_owned()));
        }
        if url.is_some() && self.bus_lease / 2 < self.bus_timeout {
            let what = "--bus-lease must be at least twice --bus-timeout";
            return Err(Failure::Usage(what.to_owned()));
        }
        Ok(())
    }

    /// The bus; none without a URL.
    pub(crate) fn read(&self) -> Result<Option<PresenceBus>, Failure> {
        let Some(url) = self.url()? else { return Ok(None) };
        let settings = Settings {
            key: format!("reactor:{}", url.room.as_deref().unwrap_or(ROOM)),
            timeout: self.bus_timeout,
            lease: self.bus_lease,
            keep: self.bus_keep as u64,
            ..Settings::default()
        };
        let plainly = Connect::to(&url.address)?;
        let redis = if url.tls { self.trust.over(plainly)? } else { plainly };
        let login = url.login(password()?);
        Ok(Some(PresenceBus { url, redis, login, settings }))
    }

    fn url(&self) -> Result<Option<RedisUrl>, Failure> {
        let url = self.presence_bus.as_ref().map(|text| text.parse::<RedisUrl>()).transpose();
        url.map_err(|error| Failure::Usage(format!("--presence-bus: {error}")))
    }

    /// Makes sure that Redis is there: connects once, with nothing else in the loop.
    pub(crate) fn reach(&self, bus: &PresenceBus) -> Result<(), Failure> {
        let url = &bus.url;
        let (failure, why) = match bus.try_once()? {
            State::Down { failure, why, .. } => (failure, why),
            _ => return Ok(()),
        };
        match failure {
            redis::Failure::Login => Err(Failure::Runtime(format!(
                "{url} refuses the login: {why} (the password is taken from {PASSWORD})"
            ))),
            redis::Failure::Other if self.bus_optional => Ok(()),
            redis::Failure::Other => Err(Failure::Runtime(format!(
                "no connection to {url}: {why}; to start without it, add --bus-optional"
            ))),
        }
    }
}

impl PresenceBus {
    /// Connects once, and says what has come of it.
    fn try_once(&self) -> Result<State, Failure> {
        let mut reactor = Reactor::new()?;
        let patience = self.settings.timeout;
        let client = Redis::new(&self.redis, self.login.clone())?.with_reply_timeout(patience);
        let limits = Limits { connect_timeout: patience, ..Limits::default() };
        let client = reactor.add(client, limits)?.handle();
        let (tell, told) = channel();
        let stop = client.clone();
        let posted = client.post(Order::watch(move |state| {
            if let State::Up { .. } | State::Down { .. } = state {
                let _ = tell.send(state.clone());
                stop.stop();
            }
        }));
        posted.expect("the reactor is there");
        reactor.run()?;
        Ok(told.try_recv().unwrap_or(State::Off))
    }

    /// Makes the connections of the room, in the loop of the first core.
    pub(crate) fn dial(
        self,
        reactor: &mut Reactor<'_>,
        unique_names: bool,
    ) -> Result<OverRedis, Failure> {
        let settings = Settings { unique_names, ..self.settings };
        Ok(OverRedis::dial(reactor, self.redis, self.login, settings)?)
    }
}

/// The password in the environment; none if it is empty.
fn password() -> Result<Option<String>, Failure> {
    match std::env::var(PASSWORD) {
        Ok(password) => Ok(Some(password).filter(|it| !it.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::Runtime(format!("{PASSWORD}: the password is no UTF-8")))
        }
    }
}
