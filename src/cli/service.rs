//! The services that the program knows. One more is one more entry here.

use std::fmt;
use std::time::Duration;

use reactor::http::Sites;
use reactor::services::room::OverRedis;
use reactor::services::roulette::Version;
use reactor::services::views::ProcessReader;
use reactor::services::{Echo, Presence, Time, Web};
use reactor::{Address, Core, Cores, Error, Handler, Limits, Listen, Spread};

use super::failure::Failure;
use super::roulette_file::RouletteOptions;
use super::units::duration;

/// In the order of the help, and of `serve` without arguments.
pub(crate) static SERVICES: &[Service] = &[
    Service {
        name: "echo",
        port: 2323,
        http: false,
        about: "sends every line back in upper case, until BYE",
        add: |setup| setup.spread(|_| Echo),
    },
    Service {
        name: "time",
        port: 2205,
        http: false,
        about: "streams the time, one line per interval",
        add: |setup| {
            let ServiceOptions { time_interval, time_count, .. } = *setup.options;
            setup.spread(move |_| Time::new(time_interval, time_count))
        },
    },
    Service {
        name: "presence",
        port: 9907,
        http: false,
        about: "a room to talk in: HELLO, SAY, WHO, BYE",
        add: |setup| {
            let ServiceOptions { allow_kill, unique_names, .. } = *setup.options;
            let over_redis = setup.over_redis.cloned();
            setup.spread(move |core| {
                let room = Presence::new(allow_kill);
                let room = if unique_names { room.unique_names() } else { room };
                match &over_redis {
                    Some(redis) => room.on_bus(&core, || redis.bus(core.handle())),
                    None => room.on(&core),
                }
            })
        },
    },
    Service {
        name: "roulette",
        port: 1313,
        http: false,
        about: "picks a student at random: LOAD, RANDOM, INFO, BYE",
        add: |setup| setup.first(setup.options.roulette.roulette(Version::One, setup.students)?),
    },
    Service {
        name: "roulette2",
        port: 2613,
        http: false,
        about: "the same, protocol 2.0: CLEAR and LIST as well",
        add: |setup| setup.first(setup.options.roulette.roulette(Version::Two, setup.students)?),
    },
    Service {
        name: "web",
        port: 8023,
        http: true,
        about: "a page that shows all this, metrics, and the others over WebSocket",
        add: |setup| {
            setup.cores.set_accounting(true);
            let web = Web::new().process(setup.process.clone()).sites(setup.sites.clone());
            setup.first(web.admin(setup.options.web_admin))
        },
    },
];

pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// The default one.
    pub(crate) port: u16,
    /// It speaks HTTP rather than lines, and shows who is connected: so it has its own WebSocket, and
    /// `--host`, which lets the world in to the others, does not move it.
    pub(crate) http: bool,
    pub(crate) about: &'static str,
    /// Adds it, with its handler and without listeners.
    pub(crate) add: fn(&mut Setup<'_>) -> Result<Box<dyn Key>, Failure>,
}

impl Service {
    /// Its limits, as the options have them; web has its own.
    pub(crate) fn limits(&self, asked: Limits) -> Limits {
        let Limits { keepalive, user_timeout, .. } = asked;
        if self.http { Limits { keepalive, user_timeout, ..Web::limits() } } else { asked }
    }
}

/// The key of a service that runs, on all cores or on the first, whatever the type of its messages.
pub(crate) trait Key: Send {
    fn bind(&self, cores: &mut Cores<'static>, listen: Listen) -> Result<Address, Error>;
    fn rebind(&self, cores: &mut Cores<'static>, listen: Listen) -> Result<(), Error>;
    fn unbind(&self, cores: &mut Cores<'static>, address: &Address) -> Result<(), Error>;
    fn set_limits(&self, cores: &mut Cores<'static>, limits: Limits) -> Result<(), Error>;
    fn remove(&self, cores: &mut Cores<'static>) -> Result<(), Error>;
}

impl<M: Send> Key for Spread<M> {
    fn bind(&self, cores: &mut Cores<'static>, listen: Listen) -> Result<Address, Error> {
        cores.bind(self, listen)
    }

    fn rebind(&self, cores: &mut Cores<'static>, listen: Listen) -> Result<(), Error> {
        cores.rebind(self, listen)
    }

    fn unbind(&self, cores: &mut Cores<'static>, address: &Address) -> Result<(), Error> {
        cores.unbind(self, address)
    }

    fn set_limits(&self, cores: &mut Cores<'static>, limits: Limits) -> Result<(), Error> {
        cores.set_limits(self, limits)
    }

    fn remove(&self, cores: &mut Cores<'static>) -> Result<(), Error> {
        cores.remove(self)
    }
}

impl<M: Send> Key for reactor::Service<M> {
    fn bind(&self, cores: &mut Cores<'static>, listen: Listen) -> Result<Address, Error> {
        cores.first().bind(self, listen)
    }

    fn rebind(&self, cores: &mut Cores<'static>, listen: Listen) -> Result<(), Error> {
        cores.first().rebind(self, listen)
    }

    fn unbind(&self, cores: &mut Cores<'static>, address: &Address) -> Result<(), Error> {
        cores.first().unbind(self, address)
    }

    fn set_limits(&self, cores: &mut Cores<'static>, limits: Limits) -> Result<(), Error> {
        cores.first().set_limits(self, limits)
    }

    fn remove(&self, cores: &mut Cores<'static>) -> Result<(), Error> {
        cores.first().remove(self)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The options that single services have.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServiceOptions {
    /// Let the clients of presence shut the whole program down with KILL.
    #[arg(long)]
    allow_kill: bool,

    /// Let no two clients of presence have the same name: a HELLO with one that somebody else there
    /// has is refused.
    #[arg(long)]
    pub(crate) unique_names: bool,

    /// The time from one line of the time service to the next: 500ms, 30s, 5m, 1h.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    time_interval: Duration,

    /// Lines that each client of the time service gets; 0 for no end.
    #[arg(long, value_name = "N", default_value = "15", value_parser = lines)]
    time_count: u64,

    /// Let web's page close connections, for a browser on this machine that comes straight to it.
    #[arg(long)]
    web_admin: bool,

    #[command(flatten)]
    pub(crate) roulette: RouletteOptions,
}

/// Reads `--time-count`.
fn lines(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write a whole number, 0 for no end".to_owned())
}

/// Where a service is to be added, and with which options.
pub(crate) struct Setup<'a> {
    /// What it goes by in the log.
    pub(crate) name: &'a str,
    pub(crate) cores: &'a mut Cores<'static>,
    pub(crate) options: &'a ServiceOptions,
    /// What is in `--roulette-file`.
    pub(crate) students: &'a [u8],
    /// What the room of presence is shared over.
    pub(crate) over_redis: Option<&'a OverRedis>,
    pub(crate) limits: Limits,
    /// Whose pages may come in.
    pub(crate) sites: Sites,
    /// What there is to say of this process.
    pub(crate) process: &'a ProcessReader,
}

impl Setup<'_> {
    /// Adds the service with this handler, on the first core.
    fn first<H>(&mut self, handler: H) -> Result<Box<dyn Key>, Failure>
    where
        H: Handler<Message: Send> + 'static,
    {
        let reactor = self.cores.first();
        let service = reactor.add(handler, self.limits.clone())?;
        reactor.set_name(&service, self.name);
        Ok(Box::new(service))
    }

    /// The same with a handler on each core.
    fn spread<H>(
        &mut self,
        handler: impl Fn(Core<H::Message>) -> H + Send + Sync + 'static,
    ) -> Result<Box<dyn Key>, Failure>
    where
        H: Handler<Message: Send> + 'static,
    {
        let service = self.cores.add(handler, self.limits.clone())?;
        self.cores.set_name(&service, self.name);
        Ok(Box::new(service))
    }
}

pub(crate) fn named(name: &str) -> Option<&'static Service> {
    SERVICES.iter().find(|service| service.name == name)
}

/// Why this is no `SERVICE[=ADDR]`, and what was probably meant.
pub(crate) fn unknown(text: &str) -> String {
    let (name, place) = match text.split_once(['=', ':', '@']) {
        Some((name, place)) => (name, format!("={place}")),
        None => (text, String::new()),
    };
    if named(name).is_some() {
        return format!("write {name}{place}");
    }
    if text.split(',').all(begins_with_one) {
        return format!("write {}", text.replace(',', " "));
    }
    let meant = match nearest(name) {
        Some(name) => format!(": did you mean {name}{place}?"),
        None if is_address(text) => {
            return format!("that is where, and not what: write {}={text}", SERVICES[0].name);
        }
        None => ";".to_owned(),
    };
    let names: Vec<_> = SERVICES.iter().map(|service| service.name).collect();
    format!("unknown service{meant} the services are {}", names.join(", "))
}

/// Whether this looks like `SERVICE[=ADDR]`.
pub(crate) fn begins_with_one(text: &str) -> bool {
    text.split('=').next().is_some_and(|name| named(name).is_some())
}

/// Whether this looks like what stands after `SERVICE=`.
fn is_address(text: &str) -> bool {
    let port = text.rsplit_once(':').map_or(text, |(_, port)| port);
    text.starts_with("unix:") || port.parse::<u16>().is_ok()
}

/// The service whose name is written almost like that.
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    let distance = |service: &Service| strsim::osa_distance(service.name, &name);
    let nearest = SERVICES.iter().min_by_key(|service| distance(service))?;
    // More than half of a short name would be different.
    (distance(nearest) <= 2 && name.len() > 2).then_some(nearest.name)
}

/// What was probably meant by an option that there is not.
pub(crate) fn instead_of(option: &str) -> Option<String> {
    match option.trim_start_matches('-') {
        "port" | "p" | "listen" | "bind" | "address" => {
            Some(format!("write {}={}", SERVICES[0].name, SERVICES[0].port))
        }
        name => named(name).map(|service| format!("write {} without dashes", service.name)),
    }
}

/// The services as the help lists them.
pub(crate) fn table() -> String {
    let mut text = String::from("Services:\n");
    for Service { name, port, about, .. } in SERVICES {
        text.push_str(&format!("  {name:<10} {about} (port {port})\n"));
    }
    text
}
