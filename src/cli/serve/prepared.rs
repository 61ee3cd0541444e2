//! What the services need is read and looked up before anything listens, so that a failure has changed nothing. At a
//! reload this runs in a thread of its own, which may block.

use std::sync::Arc;

use reactor::Address;

use crate::cli::access::{Certificates, Entrance};
use crate::cli::address::{Endpoint, LISTENER_LOOKUP, look_up};
use crate::cli::config::{Plan, PlannedService, Whole};
use crate::cli::descriptors::Demand;
use crate::cli::failure::Failure;
use crate::cli::roulette_file::Students;
use crate::cli::systemd::Inherited;
use crate::cli::unused_options::GivenOptions;

/// A plan with what was read and looked up for it.
pub(super) struct Prepared {
    pub(super) whole: Whole,
    /// Of [`Whole`].
    pub(super) given: GivenOptions,
    /// `--host`, looked up.
    pub(super) host: Address,
    pub(super) services: Vec<PreparedService>,
}

pub(super) struct PreparedService {
    pub(super) planned: PlannedService,
    /// Where it is to listen.
    pub(super) endpoints: Vec<Endpoint>,
    /// What is in `--roulette-file`.
    pub(super) students: Arc<[u8]>,
}

impl Prepared {
    pub(super) fn new(plan: Plan, inherited: &Inherited) -> Result<Prepared, Failure> {
        let Plan { whole, given, services } = plan;
        let host = look_up(&whole.host, LISTENER_LOOKUP);
        let host = host.map_err(|failure| given.located(failure))?;
        let mut students = Students::default();
        let mut prepare = |planned: PlannedService| -> Result<_, Failure> {
            let students = students.of(&planned.options.services.roulette);
            let students = students.map_err(|failure| planned.given.located(failure))?;
            let endpoints = planned.target.endpoints(&host, inherited);
            let endpoints =
                endpoints.map_err(|failure| planned.given.located(failure))?.into_iter();
            let endpoints = endpoints.map(|it| it.look_up(LISTENER_LOOKUP));
            let endpoints = endpoints.collect::<Result<_, _>>()?;
            Ok(PreparedService { planned, endpoints, students })
        };
        let services = services.into_iter().map(&mut prepare).collect::<Result<Vec<_>, _>>()?;
        let endpoints = services.iter().flat_map(|service| &service.endpoints);
        inherited.check_used(endpoints.filter_map(|endpoint| endpoint.socket.as_deref()))?;
        Ok(Prepared { whole, given, host, services })
    }

    /// Reads the certificates; one for each service.
    pub(super) fn entrances(&self) -> Result<Vec<Entrance<'_>>, Failure> {
        let mut known = Certificates::default();
        let entrance = |service| {
            let PreparedService { planned, .. }: &PreparedService = service;
            let access = &planned.options.access;
            let entrance = access.entrance(&planned.target.places, &mut known);
            entrance.map_err(|failure| planned.given.located(failure))
        };
        self.services.iter().map(entrance).collect()
    }

    /// What they may have open at once.
    pub(super) fn demand(&self) -> Demand {
        self.demand_of(|_| true)
    }

    /// The same, for the services alone whose number of connections was given.
    pub(super) fn asked_for(&self) -> Demand {
        self.demand_of(|planned| planned.options.max_connections.is_some())
    }

    fn demand_of(&self, counts: impl Fn(&PlannedService) -> bool) -> Demand {
        // The service web has few connections, whose number is no option.
        let services = self.services.iter().map(|service| &service.planned);
        let counted = services.filter(|it| !it.target.service.http && counts(it));
        let endpoints = self.services.iter().flat_map(|service| &service.endpoints);
        Demand {
            threads: self.whole.threads,
            listeners: endpoints.map(Endpoint::descriptors).sum(),
            clients: counted.map(|it| it.limits.max_connections).collect(),
            each: 1,
        }
    }
}
