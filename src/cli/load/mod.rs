//! `reactor load`: many clients against one server, in one thread of the library's own loop.

mod chart;
mod clock;
mod conversation;
mod crew;
mod fault;
mod json;
mod launcher;
mod options;
mod outcome;
mod pace;
mod part;
mod payload;
mod process;
mod progress;
mod room;
mod sources;
mod stage;
mod talk;
mod tally;
#[cfg(test)]
mod tests;
mod text;
mod units;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use reactor::Reactor;

use self::clock::Clock;
use self::crew::Crew;
use self::fault::Fault;
pub(crate) use self::options::Load;
use self::options::Mode;
use self::outcome::Outcome;
use self::part::Part;
use self::process::Usage;
use self::room::Room;
use self::stage::Stage;
use self::talk::Talk;
use super::descriptors;
use super::failure::Failure;
use super::given::Given;
use super::target::look_up_server;

/// The goodbyes have been said by then; what is still open is of no interest.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Clients that come again in one turn of the loop.
const AGAIN: u32 = 256;

/// Connects, loads, and prints the result.
pub(crate) fn load(args: &Load, given: &Given<'_>) -> Result<ExitCode, Failure> {
    args.check()?;
    let sends = !matches!(args.mode, Mode::Idle | Mode::Time);
    given.check(&["size"], sends, "the modes echo, pipeline, churn and presence")?;
    if let Ok(raised) = descriptors::raise() {
        // A client that comes again may do so before its last socket is given back.
        let spare = if args.mode == Mode::Churn { args.clients().min(AGAIN) } else { 0 };
        descriptors::check_clients(raised.limit, args.clients(), spare)?;
    }
    if let Some(pid) = args.server_pid
        && Usage::of(pid).is_none()
    {
        return Err(Failure::Runtime(format!("--server-pid {pid}: no such process in /proc")));
    }
    if let Some(path) = &args.svg {
        // Sooner than after the run: nobody wants to do that again. What there was stays.
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.map_err(|error| svg_failure(path, &error))?;
    }
    let mut plan = args.clone();
    plan.target = look_up_server(&args.target, args.limits().connect_timeout)?;
    let crew = Crew::new(plan);
    match args.mode {
        Mode::Echo | Mode::Pipeline | Mode::Idle | Mode::Churn => {
            let part = Talk::new(&crew);
            play(crew, part)
        }
        Mode::Presence => {
            let part = Room::new(&crew);
            play(crew, part)
        }
        Mode::Time => play(crew, Clock::default()),
    }
}

fn play<P: Part>(mut crew: Crew, mut part: P) -> Result<ExitCode, Failure> {
    let limits = crew.plan.limits();
    let mut reactor = Reactor::new()?;
    reactor.stop_on_signals()?;
    reactor.set_shutdown_timeout(SHUTDOWN);
    let service = reactor.add(Stage::new(&mut crew, &mut part), limits)?;
    reactor.set_name(&service, "load");
    // It cannot fail: the reactor is there.
    let _ = service.handle().post(());
    let _ = reactor.run()?;
    drop(reactor);

    crew.progress.clear();
    part.conclude(&mut crew);
    report(&crew)
}

fn report(crew: &Crew) -> Result<ExitCode, Failure> {
    let (plan, tally) = (&crew.plan, &crew.tally);
    if tally.connections == 0
        && let Some(refusal) = &crew.refusal
    {
        let (target, why) = (&plan.target, &refusal.why);
        return Err(Failure::Runtime(format!("cannot connect to {target}: {why}")));
    }
    let outcome = Outcome::new(crew);
    let text = match plan.json {
        true => json::json(crew, &outcome),
        false => text::text(crew, &outcome),
    };
    let mut stdout = std::io::stdout().lock();
    let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    drop(stdout);
    if let Some(path) = &plan.svg {
        let svg = chart::svg(&tally.latencies, &plan.describe(), plan.mode.measured());
        fs::write(path, svg.as_deref().unwrap_or(NOTHING))
            .map_err(|error| svg_failure(path, &error))?;
    }
    printed.map_err(|error| Failure::Runtime(format!("cannot write the result: {error}")))?;

    let (target, service) = (&plan.target, plan.mode.service());
    let greeting = tally.count(Fault::WrongGreeting) + tally.count(Fault::NoGreeting);
    Err(Failure::Runtime(match (tally.errors(), tally.connections) {
        (_, 0) if greeting > 0 => format!("{target} does not greet as the {service} service does"),
        (0, 0) => format!("ended before {target} has greeted anybody"),
        (0, _) => return Ok(ExitCode::SUCCESS),
        (1, _) => "1 error".to_owned(),
        (errors, _) => format!("{errors} errors"),
    }))
}

/// A drawing of no latencies.
const NOTHING: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n";

fn svg_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::Runtime(format!("--svg {}: {error}", path.display()))
}
