//! `reactor load`: many clients against one server, in one thread of the library's own loop.
//!
//! A [`Run`] holds what all modes share. A [`Driver`] is the handler of all connections: it leads
//! them through the phases of the run. What the clients say meanwhile is a [`Workload`], one for
//! each mode. Read in this order:
//!
//! 1. `options`: the arguments, and `Mode`, the list of modes.
//! 2. `run`: the clients, the phases, the times. Below it are `ramp` (who is connected when,
//!    `--ramp`), `source_addresses`, `metrics`, `fault` (the kinds of errors) and
//!    `progress` (the bar).
//! 3. `driver`: connect, greet, load, wait for the last replies, say goodbye.
//! 4. `modes`: one file for each workload, above `payload` (the lines, and the replies that must
//!    come) and `rate` (`--rate`).
//! 5. `report`: latencies, throughput and errors, as text, JSON or SVG, above `format`.

mod driver;
mod fault;
mod format;
mod metrics;
mod modes;
mod options;
mod payload;
mod progress;
mod ramp;
mod rate;
mod report;
mod run;
mod source_addresses;
#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::process::ExitCode;
use std::time::Duration;

use reactor::Reactor;

use self::driver::Driver;
use self::modes::Workload;
use self::modes::echo::Echo;
use self::modes::presence::Presence;
use self::modes::time::Time;
pub(crate) use self::options::Load;
use self::options::Mode;
use self::report::{report, svg_failure};
use self::run::Run;
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
pub(crate) fn load(args: &Load, given: &GivenOptions<'_>) -> Result<ExitCode, Failure> {
    args.check()?;
    let sends = !matches!(args.mode, Mode::Idle | Mode::Time);
    given.refuse_unless(sends, &["size"], "the modes echo, pipeline, churn and presence")?;
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
    if let Some(path) = &args.svg {
        // Better now than after the run, which nobody wants to repeat. The old content stays.
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.map_err(|error| svg_failure(path, &error))?;
    }
    let mut plan = args.clone();
    plan.target = look_up_server(&args.target, args.limits().connect_timeout)?;
    let connect = args.trust.connect(&plan.target, given)?;
    let run = Run::new(plan, connect);
    match args.mode {
        Mode::Echo | Mode::Pipeline | Mode::Idle | Mode::Churn => {
            let workload = Echo::new(&run);
            drive(run, workload)
        }
        Mode::Presence => {
            let workload = Presence::new(&run);
            drive(run, workload)
        }
        Mode::Time => drive(run, Time::default()),
    }
}

fn drive<W: Workload>(mut run: Run, mut workload: W) -> Result<ExitCode, Failure> {
    let limits = run.plan.limits();
    let mut reactor = Reactor::new()?;
    reactor.stop_on_signals()?;
    reactor.set_shutdown_timeout(SHUTDOWN);
    let service = reactor.add(Driver::new(&mut run, &mut workload), limits)?;
    reactor.set_name(&service, "load");
    let _ = reactor.run()?;
    drop(reactor);

    run.progress.clear();
    workload.conclude(&mut run);
    report(&run)
}
