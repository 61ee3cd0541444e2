use std::process::ExitCode;

use reactor::{Exit, Reactor};

use super::args::Serve;
use super::failure::Failure;
use super::given::Given;
use super::service::Place;
use super::target::Spot;
use super::{descriptors, log as output, roulette};

/// Listens, says where, and serves until a signal or KILL.
pub(crate) fn serve(args: &Serve, given: &Given<'_>) -> Result<ExitCode, Failure> {
    args.check(given)?;
    let limits = args.limits()?;
    let targets = args.targets();
    let students = roulette::students(args)?;
    let entrance = args.access.entrance(targets.iter().any(|target| target.tls))?;
    let stdout = output::init(args.log)?;
    let raised = descriptors::raise();
    // The default is meant for any machine: where descriptors run out before, newcomers wait.
    if let (Ok(raised), Some(most)) = (&raised, args.max_connections) {
        descriptors::check(raised.limit, targets.len(), most)?;
    }

    let mut reactor = Reactor::new()?;
    // Before the first line is out: who has read it may send a signal.
    reactor.stop_on_signals()?;
    reactor.reload_on_hangup()?;
    reactor.set_max_total_output(args.max_total_output);
    let mut ready = String::new();
    let mut services = Vec::new();
    for target in &targets {
        let spot = target.spot(args.host);
        let listen = entrance.listen(&spot)?;
        let limits = limits.clone();
        let students = &students;
        let name = target.service.name;
        let mut place = Place { name, reactor: &mut reactor, listen, args, students, limits };
        let spot = Spot { address: (target.service.listen)(&mut place)?, ..spot };
        ready.push_str(&format!("{name} listening on {spot}\n"));
        services.push((name, spot));
    }
    drop(students);
    args.announce.start(args.host, &services, &mut reactor)?;
    // Not sooner: a failure is to be one line, and alone.
    descriptors::report(&raised);
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
