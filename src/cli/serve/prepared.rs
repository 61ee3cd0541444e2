//! What the services need is read and looked up before anything listens, so that a failure has changed nothing. At a
//! reload this runs in a thread of its own, which may block.

use std::collections::HashSet;
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
        let host =
            host.map_err(|failure| given.located(Failure::Runtime(format!("--host: {failure}"))))?;
        let mut students = Students::default();
        let mut prepare = |planned: PlannedService| -> Result<_, Failure> {
            let students = students.of(&planned.options.services.roulette);
            let students = students.map_err(|failure| planned.located(failure))?;
            let endpoints = planned.target.endpoints(&host, inherited);
            let endpoints = endpoints.and_then(|endpoints| {
                endpoints.into_iter().map(|it| it.look_up(LISTENER_LOOKUP)).collect()
            });
            let endpoints = endpoints.map_err(|failure| planned.located(failure))?;
            Ok(PreparedService { planned, endpoints, students })
        };
        let services = services.into_iter().map(&mut prepare).collect::<Result<Vec<_>, _>>()?;
        check_apart(&services)?;
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
            entrance.map_err(|failure| planned.located(failure))
        };
        self.services.iter().map(entrance).collect()
    }

    /// What they may have open at once.
    pub(super) fn demand(&self) -> Demand {
        self.demand_of(|_| true)
    }

    /// Fails if `limit` descriptors do not suffice for those services for which a number of clients was asked
    /// for.
    pub(super) fn check_descriptors(&self, limit: u64) -> Result<(), Failure> {
        let asked_for = |planned: &PlannedService| planned.options.max_connections.is_some();
        let mut planned = self.services.iter().map(|service| &service.planned);
        let first = planned.find(|planned| asked_for(planned));
        let outcome = self.demand_of(asked_for).check(limit);
        outcome.map_err(|failure| match first {
            Some(planned) => planned.located(failure),
            None => failure,
        })
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

/// Fails if an address is given twice: the second one that listens would say that the port is in use, as
/// if by somebody else.
fn check_apart(services: &[PreparedService]) -> Result<(), Failure> {
    let mut known = HashSet::new();
    for PreparedService { planned, endpoints, .. } in services {
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.socket.is_none()) {
            let addresses: HashSet<_> = endpoint.each().into_iter().map(|it| it.address).collect();
            let is_free = |address: &Address| address.as_socket().is_some_and(|it| it.port() == 0);
            for address in addresses.into_iter().filter(|address| !is_free(address)) {
                let text = address.to_string();
                if !known.insert(address) {
                    let why =
                        format!("{text} is given twice, and each client can have but one service");
                    return Err(planned.located(Failure::Usage(why)));
                }
            }
        }
    }
    Ok(())
}
