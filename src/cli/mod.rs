//! The program's command line: one file for each subcommand, with its arguments and what it does.
//! What a service says to its clients is not here, but in `reactor::services`.
//!
//! A file names only what stands above it in this list, so the list is also an order to read in:
//!
//! 1. `failure`: why the program gives up, and with which exit status.
//! 2. `units`: counts, bytes, durations and rates, as options take them. `crlf`: line ends.
//!    `multicast`: the group and the interface of announcements. `process`: CPU time and memory of one.
//! 3. `logging`: the log and stdout, from a thread of their own. `descriptors`: their limit.
//!    `unused_options`: those without effect are refused. Then `admin`: the control socket and where it
//!    is; `predecessor` and `successor`: the processes before and after this one at an upgrade; `systemd`: what
//!    it has opened and is told; `event_loop`: serving until a signal; `asking`: a client of a control socket.
//! 4. `service`: the list of services, and the options that single ones have; `roulette_file`
//!    is below it.
//! 5. `address`: `[LAYER:]...[HOST:]PORT` or `unix:PATH`, and looking a host up. `target`:
//!    `SERVICE[=ADDR[,ADDR]...]`.
//! 6. `access`: who may connect, and the certificate. `trust`: TLS towards servers. `announce`:
//!    `serve --announce`.
//! 7. `bus`: `serve --presence-bus`. `protocol`: what a client says and must hear, from a file.
//! 8. `config`: the options of `serve`, a file of them, and the subcommand that prints them.
//! 9. The subcommands: `serve`, `forward`, `connect`, `discover`, `status`, `close`, `upgrade`, `completions`, `man`, and
//!    `load` and `check`, which have lists of their own. None knows another, nor `args`.
//! 10. `args`: the list of subcommands, and what is said of a wrong command line.
//!
//! Nothing here uses `println!` and its like, which panic if the other end of the pipe is gone or
//! the disk is full. What cannot be said is not said.

mod access;
mod address;
mod admin;
mod announce;
pub(crate) mod args;
mod asking;
mod bus;
mod check;
mod close;
mod completions;
pub(crate) mod config;
mod connect;
mod crlf;
mod descriptors;
mod discover;
mod event_loop;
pub(crate) mod failure;
mod forward;
mod load;
mod logging;
mod man;
mod multicast;
mod predecessor;
mod process;
mod protocol;
mod roulette_file;
mod serve;
mod service;
mod status;
mod successor;
mod systemd;
mod target;
mod trust;
mod units;
pub(crate) mod unused_options;
mod upgrade;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::{Args, Command};
use failure::Failure;
use predecessor::Predecessor;
use systemd::Inherited;
use unused_options::GivenOptions;

/// Runs the program. Its exit status is 0 after a graceful end, 1 after a failure, and 2 when the
/// command line is wrong.
pub(crate) fn main() -> ExitCode {
    // Before anything else: see there.
    let predecessor = Predecessor::take();
    let inherited = Inherited::take(&predecessor);
    let matches = Args::command().try_get_matches();
    let read = |matches| Ok((Args::from_arg_matches(&matches)?, matches));
    let outcome = match matches.and_then(read) {
        Ok((Args { command: Some(command) }, matches)) => {
            run(&command, &GivenOptions::new(&matches), &inherited, &predecessor)
        }
        Ok((Args { command: None }, _)) => {
            let _ = Args::command().print_help();
            return ExitCode::SUCCESS;
        }
        // The help and the version that were asked for come as errors too.
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let command = std::env::args_os().nth(1).unwrap_or_default();
            Err(Failure::usage(&error, &command.to_string_lossy()))
        }
    };
    logging::finish();
    outcome.unwrap_or_else(|failure| {
        // What the failure quotes may be anything.
        let line = reactor::text::printable(failure.to_string().as_bytes());
        if !predecessor.refuse(&line) {
            let _ = writeln!(std::io::stderr(), "reactor: {line}");
        }
        failure.exit_code()
    })
}

fn run(
    command: &Command,
    given: &GivenOptions,
    inherited: &Inherited,
    predecessor: &Predecessor,
) -> Result<ExitCode, Failure> {
    predecessor.check()?;
    match command {
        Command::Serve(args) => serve::serve(args, given, inherited, predecessor),
        Command::Config(args) => config::config(args, given),
        Command::Load(args) => load::load(args, given),
        Command::Check(args) => check::check(args),
        Command::Discover(args) => discover::discover(args),
        Command::Status(args) => status::status(args),
        Command::Close(args) => close::close(args),
        Command::Upgrade(args) => upgrade::upgrade(args),
        Command::Forward(args) => forward::forward(args, given, inherited, predecessor),
        Command::Completions(args) => completions::completions(args, Args::command()),
        Command::Man(args) => man::man(args, Args::command()),
        Command::Connect(args) => connect::connect(args, given),
    }
}
