//! The services that run, and how they become those of a new configuration: at a reload, and at the start, where there
//! are none yet. If any step that can fail does, everything is as before.

use reactor::services::room::OverRedis;
use reactor::services::views::ProcessReader;
use reactor::{Address, Cores, Error, Listen, Service};

use super::changes::{Changes, changed, overlap};
use super::prepared::PreparedService;
use crate::cli::access::{Certificates, Entrance};
use crate::cli::address::{Endpoint, Layer, Layers};
use crate::cli::announce::Announce;
use crate::cli::config::PlannedService;
use crate::cli::failure::Failure;
use crate::cli::service::{Key, Setup};

pub(super) struct Running {
    process: ProcessReader,
    /// The bus over which the room of presence is shared.
    over_redis: Option<OverRedis>,
    pub(super) services: Vec<RunningService>,
    /// What announces them, and what it announces.
    announcer: Option<Service<()>>,
    announced: Vec<(&'static str, Endpoint)>,
}

pub(super) struct RunningService {
    /// The configuration in force.
    pub(super) planned: PlannedService,
    key: Box<dyn Key>,
    listeners: Vec<Listening>,
    fate: Fate,
}

/// A listener of a service; several for a host.
struct Listening {
    /// Where it was asked for, with layers; port 0 is still 0.
    asked: Endpoint,
    /// The layers that it is to have.
    wanted: Layers,
    /// Where it is.
    at: Address,
    /// The mode that its file was given, if it is one: what the umask has made nobody could make again.
    mode: Option<u32>,
    fate: Fate,
}

/// What a change does with a service or a listener. Between two changes all of them stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    /// It was added by this change, and is removed if something fails.
    Comes,
    Goes,
    /// It was unbound by this change, since another one needs its address, and is bound again if something fails.
    Gone,
}

impl Listening {
    fn is_for(&self, endpoint: &Endpoint) -> bool {
        self.asked.address == endpoint.address && self.asked.socket == endpoint.socket
    }

    /// How to listen there, with the mode it has unless there is to be another one.
    fn listen(&self, entrance: &Entrance<'_>) -> Result<Listen, Failure> {
        let listen = entrance.listen(&self.endpoint())?;
        Ok(match self.mode {
            Some(mode) if entrance.unix_mode().is_none() => listen.unix_mode(mode),
            _ => listen,
        })
    }

    /// Whether it is a Unix socket that we have made.
    fn has_file(&self) -> bool {
        matches!(self.at, Address::Unix(_)) && self.asked.socket.is_none()
    }

    /// Says which layers are new, and which mode cannot be taken back.
    fn say_changes(&mut self, name: &str, entrance: &Entrance<'_>, changes: &mut Changes) {
        let endpoint = self.endpoint();
        if self.wanted != self.asked.layers {
            let endpoints = endpoint.each();
            endpoints.iter().for_each(|it| changes.say(format!("{name}: listening on {it}")));
        }
        match (self.mode, entrance.unix_mode()) {
            (Some(mode), None) if self.has_file() => changes.warn(format!(
                "{name}: {endpoint} keeps the mode {mode:04o} until a restart, or until unix-mode says another"
            )),
            (_, mode) => self.mode = mode,
        }
    }

    /// Where it is, with the layers that it is to have.
    fn endpoint(&self) -> Endpoint {
        let (address, socket) = (self.at.clone(), self.asked.socket.clone());
        Endpoint { address, layers: self.wanted, socket }
    }
}

impl RunningService {
    fn is(&self, planned: &PlannedService) -> bool {
        let kind = |planned: &PlannedService| planned.target.service.name;
        self.planned.name == planned.name && kind(&self.planned) == kind(planned)
    }

    /// Where it listens, one for each address.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        self.listeners.iter().flat_map(|listening| listening.endpoint().each()).collect()
    }
}

impl Running {
    /// Nothing yet.
    pub(super) fn new(process: ProcessReader, over_redis: Option<OverRedis>) -> Running {
        let (services, announced) = (Vec::new(), Vec::new());
        Running { process, over_redis, services, announcer: None, announced }
    }

    /// Refuses to add or remove rooms that are shared over Redis, since these are joined only at the start.
    pub(super) fn check_rooms(&self, prepared: &[PreparedService]) -> Result<(), Failure> {
        let is_room = |planned: &&PlannedService| planned.target.service.name == "presence";
        let rooms = self.services.iter().map(|service| &service.planned).filter(is_room);
        let wanted = prepared.iter().map(|service| &service.planned).filter(is_room);
        let same = rooms.map(|room| &room.name).eq(wanted.map(|room| &room.name));
        if same || self.over_redis.is_none() {
            return Ok(());
        }
        let what = "with presence-bus, the service presence comes and goes with a restart alone";
        Err(Failure::Runtime(what.to_owned()))
    }

    /// Changes the services to those that were prepared, and returns what has changed.
    pub(super) fn change(
        &mut self,
        cores: &mut Cores<'static>,
        prepared: &[PreparedService],
        entrances: &[Entrance<'_>],
    ) -> Result<Changes, Failure> {
        let missing = self.compare(prepared);
        let mut wanted = prepared.iter().zip(entrances).zip(missing);
        let outcome = wanted.try_for_each(|((service, entrance), missing)| {
            self.listen(cores, service, entrance, missing)
                .map_err(|failure| service.planned.given.located(failure))
        });
        if let Err(failure) = outcome {
            self.undo(cores);
            return Err(failure);
        }
        let mut changes = Changes::default();
        for (service, entrance) in prepared.iter().zip(entrances) {
            self.follow(cores, &service.planned, entrance, &mut changes);
        }
        self.leave(cores, &mut changes);
        Ok(changes)
    }

    /// Finds out what stays and what goes. Returns the addresses at which each service does not listen yet.
    fn compare(&mut self, prepared: &[PreparedService]) -> Vec<Vec<Endpoint>> {
        for service in &mut self.services {
            service.fate = Fate::Goes;
            service.listeners.iter_mut().for_each(|listening| listening.fate = Fate::Goes);
        }
        let missing = |wanted: &PreparedService| {
            let Some(service) = self.services.iter_mut().find(|it| it.is(&wanted.planned)) else {
                return wanted.endpoints.clone();
            };
            service.fate = Fate::Stays;
            let mut stays = |endpoint: &Endpoint| {
                let mut going = service.listeners.iter_mut().filter(|it| it.fate == Fate::Goes);
                let found = going.find(|listening| listening.is_for(endpoint));
                found.map(|it| (it.fate, it.wanted) = (Fate::Stays, endpoint.layers)).is_some()
            };
            let mut endpoints = wanted.endpoints.clone();
            endpoints.retain(|endpoint| !stays(endpoint));
            endpoints
        };
        prepared.iter().map(missing).collect()
    }

    /// Where a service is that stays, or has just come.
    fn place_of(&self, planned: &PlannedService) -> Option<usize> {
        self.services.iter().position(|it| it.fate != Fate::Goes && it.is(planned))
    }

    /// Has a service listen where it does not yet; adds it first if it is a new one.
    fn listen(
        &mut self,
        cores: &mut Cores<'static>,
        prepared: &PreparedService,
        entrance: &Entrance<'_>,
        missing: Vec<Endpoint>,
    ) -> Result<(), Failure> {
        let planned = &prepared.planned;
        let place = match self.place_of(planned) {
            Some(place) => place,
            None => {
                let key = self.add(cores, prepared)?;
                let (planned, listeners) = (planned.clone(), Vec::new());
                self.services.push(RunningService { planned, key, listeners, fate: Fate::Comes });
                self.services.len() - 1
            }
        };
        for asked in missing {
            self.make_room(cores, &asked.address);
            let service = &mut self.services[place];
            let at = service.key.bind(cores, entrance.listen(&asked)?);
            let at = at.map_err(|error| Failure::listen(error, &planned.how()))?;
            let (wanted, mode, fate) = (asked.layers, entrance.unix_mode(), Fate::Comes);
            service.listeners.push(Listening { asked, wanted, at, mode, fate });
        }
        Ok(())
    }

    fn add(
        &self,
        cores: &mut Cores<'static>,
        prepared: &PreparedService,
    ) -> Result<Box<dyn Key>, Failure> {
        let PreparedService { planned, students, .. } = prepared;
        let mut setup = Setup {
            name: &planned.name,
            cores,
            options: &planned.options.services,
            students,
            over_redis: self.over_redis.as_ref(),
            limits: planned.limits.clone(),
            sites: planned.options.access.sites(),
            process: &self.process,
        };
        (planned.target.service.add)(&mut setup)
    }

    /// Unbinds the listeners that go anyway and hold the address of a new one.
    fn make_room(&mut self, cores: &mut Cores<'static>, address: &Address) {
        for service in &mut self.services {
            let listeners = service.listeners.iter_mut();
            let in_the_way =
                listeners.filter(|it| it.fate == Fate::Goes && overlap(&it.at, address));
            for listening in in_the_way {
                // If this fails, the new listener fails too, and reports it.
                if service.key.unbind(cores, &listening.at).is_ok() {
                    listening.fate = Fate::Gone;
                }
            }
        }
    }

    /// Undoes the change.
    fn undo(&mut self, cores: &mut Cores<'static>) {
        for service in &mut self.services {
            for listening in service.listeners.extract_if(.., |it| it.fate == Fate::Comes) {
                ignore_end(service.key.unbind(cores, &listening.at));
            }
        }
        for service in self.services.extract_if(.., |it| it.fate == Fate::Comes) {
            ignore_end(service.key.remove(cores));
        }
        for service in &mut self.services {
            service.fate = Fate::Stays;
            let RunningService { planned, key, listeners, .. } = service;
            // One that cannot come back is forgotten: the next reload finds it missing.
            listeners.retain_mut(|listening| {
                let gone = std::mem::replace(&mut listening.fate, Fate::Stays) == Fate::Gone;
                listening.wanted = listening.asked.layers;
                if gone && let Err(failure) = listen_as(planned, &**key, cores, listening) {
                    let endpoint = listening.endpoint();
                    log::error!("{}: no longer listening on {endpoint}: {failure}", planned.name);
                    return false;
                }
                true
            });
        }
    }

    /// Applies new options to a service that stays, except for those that its handler reads only when it is made.
    fn follow(
        &mut self,
        cores: &mut Cores<'static>,
        planned: &PlannedService,
        entrance: &Entrance<'_>,
        changes: &mut Changes,
    ) {
        let place = self.place_of(planned).expect("what was prepared is there");
        let service = &mut self.services[place];
        let name = &*planned.name;
        let mut failures = Vec::new();
        let mut failed = |outcome: Result<(), Failure>| failures.extend(outcome.err());
        let options = changed(&service.planned.given, &planned.given);
        if service.planned.limits != planned.limits {
            failed(service.key.set_limits(cores, planned.limits.clone()).map_err(Failure::from));
        }
        for listening in service.listeners.iter_mut().filter(|it| it.fate == Fate::Stays) {
            let layers = listening.wanted;
            listening.say_changes(name, entrance, changes);
            if options.is_empty() && layers == listening.asked.layers && !layers.has(Layer::Tls) {
                continue;
            }
            listening.asked.layers = layers;
            let listen = listening.listen(entrance);
            failed(listen.and_then(|listen| Ok(service.key.rebind(cores, listen)?)));
            if let Some(file) = entrance.certificate().filter(|_| layers.has(Layer::Tls)) {
                changes.say(format!("{} reloaded, for those who come now", file.display()));
            }
        }
        failures.iter().for_each(|why| changes.warn(format!("{name}: {why}")));
        for (id, what) in options {
            match planned.is_of_handler(&id) {
                true => changes.warn(format!("{name}: {what} needs a restart")),
                false => changes.say(format!("{name}: {what}")),
            }
        }
        if service.fate == Fate::Comes {
            changes.say(format!("{name}: added"));
        }
        for listening in service.listeners.iter_mut().filter(|it| it.fate == Fate::Comes) {
            listening.fate = Fate::Stays;
            for endpoint in listening.endpoint().each() {
                changes.say(format!("{name}: listening on {endpoint}"));
                changes.opened(planned.options.access.warning(name, &endpoint));
            }
        }
        service.fate = Fate::Stays;
        service.planned = service.planned.followed_by(planned);
    }

    /// Removes the services and listeners that are no longer wanted.
    fn leave(&mut self, cores: &mut Cores<'static>, changes: &mut Changes) {
        for service in &mut self.services {
            let name = &*service.planned.name;
            for listening in service.listeners.extract_if(.., |it| it.fate != Fate::Stays) {
                let endpoint = listening.endpoint();
                match listening.fate {
                    Fate::Gone => {}
                    _ => ignore_end(service.key.unbind(cores, &listening.at)),
                }
                changes.say(format!("{name}: no longer listening on {endpoint}"));
            }
        }
        for service in self.services.extract_if(.., |it| it.fate == Fate::Goes) {
            ignore_end(service.key.remove(cores));
            changes.say(format!("{}: removed", service.planned.name));
        }
    }

    /// Announces the services if they or their addresses have changed, or if they are to be announced `again`.
    pub(super) fn announce(
        &mut self,
        cores: &mut Cores<'static>,
        options: &Announce,
        host: &Address,
        again: bool,
    ) -> Result<(), Failure> {
        let of_service = |service: &RunningService| {
            let kind = service.planned.target.service.name;
            service.endpoints().into_iter().map(move |endpoint| (kind, endpoint)).collect()
        };
        let all: Vec<_> = self.services.iter().flat_map(of_service as fn(&_) -> Vec<_>).collect();
        if all == self.announced && !again {
            return Ok(());
        }
        if let Some(announcer) = self.announcer.take() {
            cores.first().remove(&announcer)?;
        }
        // If it fails now, the next time is another one.
        self.announced.clear();
        self.announcer = options.start(host, &all, cores.first())?;
        self.announced = all;
        Ok(())
    }
}

/// Binds a service at an address again.
fn listen_as(
    planned: &PlannedService,
    key: &dyn Key,
    cores: &mut Cores<'static>,
    listening: &Listening,
) -> Result<(), Failure> {
    let places = &planned.target.places;
    let entrance = planned.options.access.entrance(places, &mut Certificates::default())?;
    key.bind(cores, listening.listen(&entrance)?)?;
    Ok(())
}

/// A failure in a shutdown does not matter, since everything ends then.
fn ignore_end(outcome: Result<(), Error>) {
    match outcome {
        Ok(()) | Err(Error::ShuttingDown) => {}
        Err(error) => log::warn!("{error}"),
    }
}
