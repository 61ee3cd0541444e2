//! `reactor serve`.
//!
//! 1. `prepared`: what is read and looked up before anything listens.
//! 2. `changes`: what a reload has changed, for the log.
//! 3. `running`: the services that run, and how a reload changes them.
//! 4. `reload`: the configuration is read again at SIGHUP.

mod changes;
mod prepared;
mod reload;
mod running;

use std::io::{self, Write};
use std::process::ExitCode;

use reactor::Cores;
use reactor::services::views::ProcessReader;

use self::prepared::Prepared;
use self::reload::{Again, InForce};
use self::running::Running;
use super::access::Entrance;
use super::bus::PresenceBus;
use super::config::{Arguments, Source};
use super::event_loop::{catch_signals, ready, run_until_stopped};
use super::failure::Failure;
use super::predecessor::Predecessor;
use super::service;
use super::successor::Upgrades;
use super::systemd::Inherited;
use super::unused_options::GivenOptions;
use super::{descriptors, logging};

/// Serve one or more services until SIGINT or SIGTERM.
///
/// Once all of them listen, stdout says where, one line for each address; the log goes to stderr.
/// The first SIGINT or SIGTERM ends after the clients have received what was sent to them, a second
/// one ends at once. SIGHUP reads the TLS certificate and the file of --config again, and opens the
/// file of the log anew. SIGUSR2 has the program go on as it is on the disk now: see reactor upgrade.
///
/// With --config, services and options stand in a file. Limits hold for each SERVICE separately, those
/// per connection for each of its connections. The service web has limits of its own: 1,000
/// connections, 10 s for a request, idle for a minute.
///
/// Exit status: 0 after a graceful end, 1 after a failure or if clients were cut off before they
/// had all their output, 2 if the command line is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = service::table(), after_long_help = service::table())]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) arguments: Arguments,

    /// Only check the configuration, with all that can be read and looked up without listening.
    #[arg(long)]
    check_config: bool,
}

/// Listens, says where, and serves until a signal or KILL.
pub(crate) fn serve(
    args: &Serve,
    given: &GivenOptions,
    inherited: &Inherited,
    predecessor: &Predecessor,
) -> Result<ExitCode, Failure> {
    let source = args.arguments.source(given);
    let plan = source.plan()?;
    let bus = plan.whole.bus.read().map_err(|failure| plan.given.located(failure))?;
    if !args.check_config
        && let Some(bus) = &bus
    {
        plan.whole.bus.reach(bus).map_err(|failure| plan.given.located(failure))?;
    }
    // Before signals are caught: a lookup may take long, and Ctrl-C must end it.
    // A check is started by hand, without sockets of systemd.
    let any = Inherited::any();
    let prepared = Prepared::new(plan, if args.check_config { &any } else { inherited })?;
    let entrances = prepared.entrances()?;
    if args.check_config {
        return Ok(say_right(&prepared));
    }
    let (mut cores, upgrades) =
        start(source, &prepared, &entrances, bus, (inherited, predecessor))?;
    drop(entrances);
    drop(prepared);
    run_until_stopped(&mut cores, &upgrades)
}

/// Says that nothing is wrong with the configuration.
fn say_right(prepared: &Prepared) -> ExitCode {
    let services = prepared.services.iter();
    let names: Vec<_> = services.map(|service| &*service.planned.name).collect();
    let line = format!("the configuration is right: {}\n", names.join(", "));
    // If stdout is closed, the exit status still says it.
    let _ = io::stdout().write_all(line.as_bytes());
    ExitCode::SUCCESS
}

/// Has the services listen, and says where.
fn start(
    source: Source,
    prepared: &Prepared,
    entrances: &[Entrance<'_>],
    bus: Option<PresenceBus>,
    (inherited, predecessor): (&Inherited, &Predecessor),
) -> Result<(Cores<'static>, Upgrades), Failure> {
    let Prepared { whole, given, host, services } = prepared;
    let located = |failure| given.located(failure);
    let stdout = logging::init(&whole.log)?;
    let raised = descriptors::raise();
    let limit = raised.as_ref().map_or(u64::MAX, |raised| raised.limit);
    prepared.check_descriptors(limit)?;
    let mut cores = Cores::new(whole.threads)?;
    let notices = catch_signals(&mut cores, predecessor)?;
    let upgrades = Upgrades::start(&cores, &whole.upgrade, inherited, &notices)?;
    predecessor.inherit(&mut cores)?;
    cores.set_max_total_output(whole.max_total_output);
    cores.set_max_total_input(whole.max_total_input);
    let process = ProcessReader::new(env!("CARGO_PKG_VERSION"));
    let process = process.log_lines_dropped(stdout.lost_lines());
    let mut planned = services.iter().map(|service| &service.planned);
    let room = planned.find(|planned| planned.target.service.name == "presence");
    let unique_names = room.is_some_and(|room| room.options.services.unique_names);
    let over_redis = bus.map(|bus| bus.dial(cores.first(), unique_names)).transpose()?;
    let mut running = Running::new(process, over_redis);
    let changes = running.change(&mut cores, services, entrances)?;
    running.announce(&mut cores, &whole.announce, host, false).map_err(located)?;
    let warning = whole.admin.start(&mut cores, upgrades.on_request()).map_err(located)?;
    // Not earlier, so that a failure is one line alone.
    descriptors::report(&raised, &prepared.demand());
    warning.inspect(|why| log::warn!("{why}"));
    changes.log_open();
    let mut lines = String::new();
    for service in &running.services {
        for endpoint in service.endpoints() {
            lines.push_str(&format!("{} listening on {endpoint}\n", service.planned.label()));
        }
    }
    if source.file.is_some() {
        let in_force = InForce { running, given: given.clone() };
        let notices = notices.clone();
        let (inherited, upgrades) = (inherited.clone(), upgrades.clone());
        let again = Again { source, inherited, limit, notices, upgrades };
        reload::at_hangup(&mut cores, again, in_force)?;
    }
    ready(&cores, predecessor, &notices, move || stdout.say(lines))?;
    Ok((cores, upgrades))
}
