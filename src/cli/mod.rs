//! The program's command line. Nothing here uses `println!` and its like, which panic where the
//! other end of the pipe is gone or the disk is full; what cannot be said is not said.

mod access;
mod announce;
pub(crate) mod args;
mod connect;
mod crlf;
mod descriptors;
mod discover;
pub(crate) mod failure;
mod forward;
mod load;
mod logging;
mod roulette_file;
mod serve;
mod service;
mod target;
mod units;
mod unused_options;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::{Args, Command};
use failure::Failure;
use unused_options::Given;

/// Runs the program. Its exit status is 0 after a graceful end, 1 after a failure, and 2 when the
/// command line is wrong.
pub(crate) fn main() -> ExitCode {
    let matches = Args::command().try_get_matches();
    let read = |matches| Ok((Args::from_arg_matches(&matches)?, matches));
    let outcome = match matches.and_then(read) {
        Ok((Args { command: Some(command) }, matches)) => run(&command, &Given::new(&matches)),
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
        // What it quotes may be anything.
        let line = reactor::text::printable(failure.to_string().as_bytes());
        let _ = writeln!(std::io::stderr(), "reactor: {line}");
        failure.exit_code()
    })
}

fn run(command: &Command, given: &Given<'_>) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(args) => serve::serve(args, given),
        Command::Load(args) => load::load(args, given),
        Command::Discover(args) => discover::discover(args),
        Command::Forward(args) => forward::forward(args, given),
        Command::Connect(args) => connect::connect(args),
    }
}
