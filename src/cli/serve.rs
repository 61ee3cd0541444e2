use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use reactor::services::room::OverRedis;
use reactor::services::views::ProcessReader;
use reactor::{Address, Cores};

use super::access::{Certificates, Entrance};
use super::address::{Endpoint, LISTENER_LOOKUP, look_up};
use super::bus::PresenceBus;
use super::config::{Arguments, Plan, PlannedService};
use super::descriptors::Demand;
use super::event_loop::run_until_stopped;
use super::failure::Failure;
use super::roulette_file::Students;
use super::service::{self, Setup};
use super::systemd::{Inherited, Notices};
use super::unused_options::GivenOptions;
use super::{descriptors, logging};

/// Serve one or more services until SIGINT or SIGTERM.
///
/// Once all of them listen, stdout says where, one line for each address; the log goes to stderr.
/// The first SIGINT or SIGTERM ends after the clients have received what was sent to them, a second
/// one ends at once. SIGHUP reads the TLS certificate again, and opens the
/// file of the log anew.
///
/// With --config, services and options stand in a file. Limits hold for each SERVICE separately, those per connection for each of its connections. The
/// service web has limits of its own: 1,000 connections, 10 s for a request, idle for a minute.
///
/// Exit status: 0 after a graceful end, 1 after a failure or if clients were cut off before they
/// had all their output, 2 if the command line is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = service::table(), after_long_help = service::table())]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) arguments: Arguments,

    /// Only check the configuration: what can be read and looked up without listening.
    #[arg(long)]
    check_config: bool,
}

/// A service before it listens, with what was read and looked up for it.
struct Prepared<'p> {
    planned: &'p PlannedService,
    endpoints: Vec<Endpoint>,
    /// What is in `--roulette-file`.
    students: Arc<[u8]>,
}

/// Reads and looks up what the services need, in front of everything that others could notice.
fn prepare<'p>(
    plan: &'p Plan,
    host: &Address,
    inherited: &Inherited,
) -> Result<Vec<Prepared<'p>>, Failure> {
    let mut students = Students::default();
    let mut prepare = |planned: &'p PlannedService| {
        let PlannedService { options, target, .. } = planned;
        let students = students.of(&options.services.roulette)?;
        let endpoints = target.endpoints(host, inherited)?.into_iter();
        let endpoints = endpoints.map(|it| it.look_up(LISTENER_LOOKUP));
        Ok(Prepared { planned, endpoints: endpoints.collect::<Result<_, _>>()?, students })
    };
    let prepared = plan
        .services
        .iter()
        .map(|planned| prepare(planned).map_err(|failure| planned.given.located(failure)));
    let prepared = prepared.collect::<Result<Vec<_>, _>>()?;
    let endpoints = prepared.iter().flat_map(|service| &service.endpoints);
    inherited.check_used(endpoints.filter_map(|endpoint| endpoint.socket.as_deref()))?;
    Ok(prepared)
}

/// What they may have open at once; `all` or only those for which a number of clients was asked for.
fn demand(services: &[Prepared<'_>], threads: usize, all: bool) -> Demand {
    // Those of web are few, and nobody has asked for a number of them.
    let counted = services.iter().filter(|it| !it.planned.target.service.http);
    let counted = counted.filter(|it| all || it.planned.options.max_connections.is_some());
    let endpoints = services.iter().flat_map(|service| &service.endpoints);
    Demand {
        threads,
        listeners: endpoints.map(Endpoint::descriptors).sum(),
        clients: counted.map(|it| it.planned.limits.max_connections).collect(),
        each: 1,
    }
}

/// Listens, says where, and serves until a signal or KILL.
pub(crate) fn serve(
    args: &Serve,
    given: &GivenOptions,
    inherited: &Inherited,
) -> Result<ExitCode, Failure> {
    let plan = Plan::new(&args.arguments, given)?;
    let Plan { whole, given, .. } = &plan;
    let located = |failure| given.located(failure);
    let bus = whole.bus.read().map_err(located)?;
    if !args.check_config
        && let Some(bus) = &bus
    {
        whole.bus.reach(bus).map_err(located)?;
    }
    // Before signals are caught: a lookup may take long, and Ctrl-C must end it.
    let host = look_up(&whole.host, LISTENER_LOOKUP).map_err(located)?;
    // Who only checks is started by hand.
    let any = Inherited::any();
    let prepared = prepare(&plan, &host, if args.check_config { &any } else { inherited })?;
    let mut certificates = Certificates::default();
    let mut entrances = Vec::new();
    for Prepared { planned, .. } in &prepared {
        let places = &planned.target.places;
        let entrance = planned.options.access.entrance(places, &mut certificates);
        entrances.push(entrance.map_err(|failure| planned.given.located(failure))?);
    }
    if args.check_config {
        return say_right(&plan);
    }
    run(&plan, prepared, &entrances, bus, &host)
}

/// Says that nothing is wrong with the configuration.
fn say_right(plan: &Plan) -> Result<ExitCode, Failure> {
    let names: Vec<_> = plan.services.iter().map(|service| &*service.name).collect();
    let line = format!("the configuration is right: {}\n", names.join(", "));
    // What cannot be said is not said.
    let _ = io::stdout().write_all(line.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// Starts what was prepared, and serves.
fn run(
    plan: &Plan,
    prepared: Vec<Prepared<'_>>,
    entrances: &[Entrance<'_>],
    bus: Option<PresenceBus>,
    host: &Address,
) -> Result<ExitCode, Failure> {
    let Plan { whole, given, .. } = plan;
    let located = |failure| given.located(failure);
    let stdout = logging::init(&whole.log)?;
    let raised = descriptors::raise();
    if let Ok(raised) = &raised {
        demand(&prepared, whole.threads, false).check(raised.limit)?;
    }
    let demand = demand(&prepared, whole.threads, true);
    let mut cores = Cores::new(whole.threads)?;
    // Before the first line on stdout: whoever has read it may send a signal.
    cores.stop_on_signals()?;
    Notices::start(&mut cores)?.reload_on_hangup(&mut cores)?;
    cores.set_max_total_output(whole.max_total_output);
    cores.set_max_total_input(whole.max_total_input);
    let process = ProcessReader::new(env!("CARGO_PKG_VERSION"));
    let process = process.log_lines_dropped(stdout.lost_lines());
    let room = plan.services.iter().find(|service| service.target.service.name == "presence");
    let unique_names = room.is_some_and(|room| room.options.services.unique_names);
    let over_redis = bus.map(|bus| bus.dial(cores.first(), unique_names)).transpose()?;
    let (mut ready, mut services) = (String::new(), Vec::new());
    for (service, entrance) in prepared.into_iter().zip(entrances) {
        let PlannedService { target, given, .. } = service.planned;
        let at = service.start(&mut cores, entrance, over_redis.as_ref(), &process);
        for endpoint in at.map_err(|failure| given.located(failure))? {
            ready.push_str(&format!("{} listening on {endpoint}\n", service.planned.label()));
            services.push((target.service.name, endpoint, service.planned));
        }
    }
    let announced: Vec<_> = services.iter().map(|(kind, at, _)| (*kind, at.clone())).collect();
    whole.announce.start(host, &announced, cores.first()).map_err(located)?;
    let warning = whole.admin.start(&mut cores).map_err(located)?;
    // Not earlier: a failure must be one line, and alone.
    descriptors::report(&raised, &demand);
    warning.inspect(|why| log::warn!("{why}"));
    for (_, at, planned) in &services {
        planned.options.access.warn_if_open(&planned.name, at);
    }
    stdout.say(ready);
    run_until_stopped(&mut cores)
}

impl Prepared<'_> {
    /// Has it listen; gives where, one for each address.
    fn start(
        &self,
        cores: &mut Cores<'static>,
        entrance: &Entrance<'_>,
        over_redis: Option<&OverRedis>,
        process: &ProcessReader,
    ) -> Result<Vec<Endpoint>, Failure> {
        let Prepared { planned, endpoints, students } = self;
        let mut setup = Setup {
            name: &planned.name,
            how: &planned.how(),
            cores,
            listens: endpoints.iter().map(|it| entrance.listen(it)).collect::<Result<_, _>>()?,
            options: &planned.options.services,
            students,
            over_redis,
            limits: planned.limits.clone(),
            sites: planned.options.access.sites(),
            process,
        };
        let addresses = (planned.target.service.start)(&mut setup)?;
        let bound = endpoints.iter().zip(addresses);
        let bound = bound.map(|(asked, address)| Endpoint::new(asked.layers, address));
        Ok(bound.flat_map(|endpoint| endpoint.each()).collect())
    }
}
