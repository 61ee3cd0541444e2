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
mod plan;
mod process;
mod progress;
mod room;
mod sources;
mod stage;
mod talk;
mod tally;
mod text;
mod units;

use std::fs;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use reactor::{CloseReason, Reactor};

use self::clock::Clock;
use self::crew::Crew;
use self::fault::Fault;
pub(crate) use self::options::Load;
use self::options::Mode;
use self::outcome::Outcome;
use self::part::Part;
use self::plan::Plan;
use self::process::Usage;
use self::room::Room;
use self::stage::Stage;
use self::talk::Talk;
use super::descriptors;
use super::failure::Failure;

/// The goodbyes have been said by then; what is still open is of no interest.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Clients that come again in one turn of the loop.
const AGAIN: u32 = 256;

/// Connects, loads, and prints the result.
pub(crate) fn load(args: &Load) -> Result<ExitCode, Failure> {
    let plan = args.plan()?;
    if let Ok(raised) = descriptors::raise() {
        // A client that comes again may do so before its last socket is given back.
        let spare = if plan.mode == Mode::Churn { plan.clients.min(AGAIN) } else { 0 };
        descriptors::check_clients(raised.limit, plan.clients, spare)?;
    }
    if let Some(pid) = plan.server_pid
        && Usage::of(pid).is_none()
    {
        return Err(Failure::Runtime(format!("--server-pid {pid}: no such process in /proc")));
    }
    if let Some(path) = &plan.svg {
        // Sooner than after the run: nobody wants to do that again.
        write(path, "")?;
    }
    let mode = plan.mode;
    let crew = Crew::new(plan);
    match mode {
        Mode::Echo | Mode::Pipeline | Mode::Idle => {
            let part = Talk::<false>::new(&crew);
            play(crew, part)
        }
        Mode::Churn => {
            let part = Talk::<true>::new(&crew);
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
    let service = reactor.add(Stage { crew: &mut crew, part: &mut part }, limits)?;
    // It cannot fail: the reactor is there.
    let _ = service.handle().post(());
    let _ = reactor.run()?;
    drop(reactor);

    crew.progress.clear();
    part.conclude(&mut crew);
    report(&crew, P::AT_ONCE)
}

fn report(crew: &Crew, at_once: bool) -> Result<ExitCode, Failure> {
    let (plan, tally) = (&crew.plan, &crew.tally);
    if tally.connections == 0
        && let Some(reason) = crew.refusal
    {
        return Err(no_connection(plan, reason));
    }
    let outcome = Outcome::new(crew, at_once);
    let text = match plan.json {
        true => json::json(crew, &outcome),
        false => text::text(crew, &outcome),
    };
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    drop(stdout);
    if let Some(path) = &plan.svg {
        let svg = chart::svg(&tally.latencies, &plan.describe());
        write(path, svg.as_deref().unwrap_or(NOTHING))?;
    }
    match tally.errors() {
        0 => Ok(ExitCode::SUCCESS),
        _ if tally.connections == 0 && tally.count(Fault::WrongGreeting) > 0 => {
            let service = match plan.mode {
                Mode::Presence => "presence",
                _ => "echo",
            };
            Err(Failure::Runtime(format!(
                "{} does not greet as the {service} service does",
                plan.target
            )))
        }
        1 => Err(Failure::Runtime("1 error".to_owned())),
        errors => Err(Failure::Runtime(format!("{errors} errors"))),
    }
}

/// A drawing of no latencies.
const NOTHING: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n";

fn write(path: &std::path::Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text)
        .map_err(|error| Failure::Runtime(format!("--svg {}: {error}", path.display())))
}

fn no_connection(plan: &Plan, reason: CloseReason) -> Failure {
    let why = match Fault::of_connect(reason) {
        Fault::Refused => "nobody listens there".to_owned(),
        Fault::ConnectTimeout => "nobody answers there".to_owned(),
        _ => reason.to_string(),
    };
    Failure::Runtime(format!("cannot connect to {}: {why}", plan.target))
}
