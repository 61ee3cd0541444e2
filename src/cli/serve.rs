use std::process::ExitCode;
use std::time::Duration;

use reactor::{Exit, Reactor};

use super::args::Serve;
use super::descriptors::Demand;
use super::failure::Failure;
use super::service::Place;
use super::target::{Spot, look_up};
use super::unused_options::Given;
use super::{descriptors, logging, roulette_file};

/// How long the name of a host to listen on may take to be looked up.
pub(super) const LOOKUP: Duration = Duration::from_secs(10);

/// Listens, says where, and serves until a signal or KILL.
pub(crate) fn serve(args: &Serve, given: &Given<'_>) -> Result<ExitCode, Failure> {
    args.check(given)?;
    let limits = args.limits()?;
    let targets = args.targets();
    let students = roulette_file::students(args)?;
    let entrance = args.access.entrance(targets.iter().any(|target| target.tls))?;
    // Before signals are caught: it may take its time, and Ctrl-C is to end it.
    let host = look_up(&args.host, LOOKUP)?;
    let spots = targets.iter().map(|target| target.spot(&host).look_up(LOOKUP));
    let spots = spots.collect::<Result<Vec<_>, _>>()?;
    let stdout = logging::init(args.log)?;
    let raised = descriptors::raise();
    let demand = Demand {
        services: targets.len(),
        listeners: spots.iter().map(|spot| spot.each().len()).sum(),
        clients: limits.max_connections,
        each: 1,
    };
    if let (Ok(raised), Some(_)) = (&raised, args.max_connections) {
        demand.check(raised.limit)?;
    }

    let mut reactor = Reactor::new()?;
    // Before the first line is out: who has read it may send a signal.
    reactor.stop_on_signals()?;
    reactor.reload_on_hangup()?;
    reactor.set_max_total_output(args.max_total_output);
    let mut ready = String::new();
    let mut services = Vec::new();
    for (target, spot) in targets.iter().zip(spots) {
        let listen = entrance.listen(&spot)?;
        let limits = limits.clone();
        let students = &students;
        let name = target.service.name;
        let mut place = Place { name, reactor: &mut reactor, listen, args, students, limits };
        let spot = Spot { address: (target.service.listen)(&mut place)?, ..spot };
        for spot in spot.each() {
            ready.push_str(&format!("{name} listening on {spot}\n"));
            services.push((name, spot));
        }
    }
    drop(students);
    args.announce.start(&host, &services, &mut reactor)?;
    // Not sooner: a failure is to be one line, and alone.
    descriptors::report(&raised, demand);
    services.iter().for_each(|(name, at)| args.access.warn_if_open(name, &at.address));
    stdout.say(ready);
    run(&mut reactor)
}

/// Serves until somebody stops it.
pub(super) fn run(reactor: &mut Reactor<'_>) -> Result<ExitCode, Failure> {
    let exit = reactor.run()?;
    let counters = reactor.counters();
    let (accepted, refused) = (counters.accepted, counters.refused);
    log::info!("stopped after {accepted} connections; {refused} were turned away");
    Ok(match exit {
        Exit::Clean => ExitCode::SUCCESS,
        Exit::Cut { connections } => {
            log::warn!("cut off before they had all their output: {connections} connections");
            ExitCode::FAILURE
        }
    })
}
