//! `reactor load`: many clients against one server, in threads of which each has a loop of the library.
//!
//! A [`Run`] holds what all modes share. A [`Driver`] is the handler of all connections: it leads
//! them through the phases of the run. What the clients do meanwhile is a [`Workload`], and what they
//! say in those workloads in which each client asks and is answered is a [`Payload`]: lines of an echo
//! service, or the dialogues of any protocol. Read in this order:
//!
//! 1. `options`: the arguments, and `Mode`, the list of modes. `talk`: those about servers that are not
//!    ours.
//! 2. `run`: the clients, the phases, the times. Below it are `ramp` (who is connected when,
//!    `--ramp`), `source_addresses`, `metrics` and `fault` (the kinds of errors).
//! 3. `driver`: connect, greet (`greeting`), warm up, load, wait for the last replies, say goodbye.
//! 4. `modes`: one file for each workload, above `payload` (the lines, and the replies that must
//!    come), `dialogues` (those of a protocol) and `rate` (`--rate`).
//! 5. `team`: what the threads share, above `seconds` (the run second by second) and `progress` (the
//!    live view).
//! 6. `report`: latencies, throughput and errors, as text, JSON or SVG, and beside an earlier result;
//!    above `format`.
//!
//! [`Payload`]: payload::Payload

mod dialogues;
mod driver;
mod fault;
mod format;
mod greeting;
mod metrics;
mod modes;
mod options;
mod payload;
mod progress;
mod ramp;
mod rate;
mod report;
mod run;
mod seconds;
mod source_addresses;
mod talk;
mod team;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::panic;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use reactor::{Connect, Reactor};

use self::dialogues::Dialogues;
use self::driver::Driver;
use self::modes::Workload;
use self::modes::exchange::Exchange;
use self::modes::presence::Presence;
use self::modes::time::Time;
pub(crate) use self::options::Load;
use self::options::Mode;
use self::payload::EchoLines;
use self::report::{Earlier, file_failure, report};
use self::run::Run;
use self::seconds::Second;
use self::team::{Member, Team};
use super::address::look_up_server;
use super::descriptors;
use super::failure::Failure;
use super::process::Usage;
use super::unused_options::GivenOptions;

/// The goodbyes have been said by then; what is still open is of no interest.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Clients that connect again in one turn of the loop.
const AGAIN: u32 = 256;

/// Connects, loads, and prints the result.
pub(crate) fn load(args: &Load, given: &GivenOptions) -> Result<ExitCode, Failure> {
    args.check()?;
    args.check_mode(given)?;
    let protocol = args.talk.protocol(args.mode)?;
    if let Ok(raised) = descriptors::raise() {
        // A client that connects again may do so before its last socket is given back.
        let spare = if args.mode == Mode::Churn { args.clients().min(AGAIN) } else { 0 };
        descriptors::check_clients(raised.limit, args.clients(), spare)?;
    }
    if let Some(pid) = args.server_pid
        && Usage::of(pid).is_none()
    {
        return Err(Failure::Runtime(format!("--server-pid {pid}: no such process in /proc")));
    }
    // What is wrong with a file is better told now than after the run, which nobody wants to repeat.
    let earlier = args.compare.as_deref().map(Earlier::read).transpose()?;
    if let Some(path) = &args.svg {
        // The old content stays.
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.map_err(|error| file_failure("svg", path, &error))?;
    }
    let mut plan = args.clone();
    plan.target = look_up_server(&args.target, args.limits().connect_timeout)?;
    let team = Team::new(&plan, args.series.as_deref().map(series).transpose()?);
    let work = |number, first, share: Load| {
        let connect = share.trust.connect(&share.target, given)?;
        let mut run = Run::new(share, Member::new(team.clone(), number), first);
        match run.plan.mode {
            Mode::Echo | Mode::Pipeline | Mode::Idle | Mode::Churn => match &protocol {
                Some(protocol) => {
                    let pipelined = run.plan.mode == Mode::Pipeline;
                    let lenient = run.plan.talk.is_lenient(protocol);
                    let payload = Dialogues::new(protocol, pipelined, lenient);
                    let workload = Exchange::new(&run, payload);
                    drive(&mut run, workload, connect)?;
                }
                None => {
                    let payload = EchoLines::new(run.plan.size, !run.plan.talk.plain);
                    let workload = Exchange::new(&run, payload);
                    drive(&mut run, workload, connect)?;
                }
            },
            Mode::Presence => {
                let workload = Presence::new(&run);
                drive(&mut run, workload, connect)?;
            }
            Mode::Time => drive(&mut run, Time::default(), connect)?,
        }
        run.cut_rest();
        Ok(run)
    };
    let mut run = in_threads(team::shares(&plan), work)?;
    run.plan = plan;
    let (seconds, written) = team.conclude();
    run.seconds = seconds;
    let reported = report(&run, earlier.as_ref())?;
    match (written, &args.series) {
        (Err(error), Some(path)) => Err(file_failure("series", path, &error)),
        _ => Ok(reported),
    }
}

/// The file for the seconds, with its head.
fn series(path: &Path) -> Result<File, Failure> {
    let file = File::create(path).and_then(|mut file| {
        file.write_all(Second::HEAD.as_bytes())?;
        Ok(file)
    });
    file.map_err(|error| file_failure("series", path, &error))
}

/// Does each share in a thread of its own, and adds up what they have done.
fn in_threads(
    shares: Vec<(u32, Load)>,
    work: impl Fn(usize, u32, Load) -> Result<Run, Failure> + Sync,
) -> Result<Run, Failure> {
    let mut shares = shares.into_iter().enumerate();
    let (_, (_, own)) = shares.next().expect("there is one thread at least");
    thread::scope(|scope| {
        let work = &work;
        let start = |(number, (first, share))| {
            let thread = thread::Builder::new().name(format!("load {number}"));
            thread.spawn_scoped(scope, move || work(number, first, share)).map_err(|error| {
                Failure::Runtime(format!("--threads: none left for number {number}: {error}"))
            })
        };
        let others: Vec<_> = shares.map(start).collect();
        let mut run = work(0, 0, own)?;
        for other in others {
            let other = other?.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
            run.add(&other?);
        }
        Ok(run)
    })
}

fn drive<W: Workload>(run: &mut Run, mut workload: W, connect: Connect) -> Result<(), Failure> {
    let limits = run.plan.limits();
    let mut reactor = Reactor::new()?;
    reactor.stop_on_signals()?;
    reactor.set_shutdown_timeout(SHUTDOWN);
    let service = reactor.add(Driver::new(run, &mut workload, connect), limits)?;
    reactor.set_name(&service, "load");
    let _ = reactor.run()?;
    drop(reactor);
    workload.conclude(run);
    Ok(())
}
