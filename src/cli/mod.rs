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
mod log;
mod quantity;
mod roulette;
mod serve;
mod service;
mod target;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Args, Command};
use failure::Failure;

/// Runs the program. Its exit status is 0 after a graceful end, 1 after a failure, and 2 when the
/// command line is wrong.
pub(crate) fn main() -> ExitCode {
    let outcome = match Args::try_parse() {
        Ok(Args { command: Some(Command::Serve(args)) }) => serve::serve(&args),
        Ok(Args { command: Some(Command::Load(args)) }) => load::load(&args),
        Ok(Args { command: Some(Command::Discover(args)) }) => discover::discover(&args),
        Ok(Args { command: Some(Command::Forward(args)) }) => forward::forward(&args),
        Ok(Args { command: Some(Command::Connect(args)) }) => connect::connect(&args),
        Ok(Args { command: None }) => {
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
    log::finish();
    outcome.unwrap_or_else(|failure| {
        // What it quotes may be anything.
        let line = reactor::text::printable(failure.to_string().as_bytes());
        let _ = writeln!(std::io::stderr(), "reactor: {line}");
        failure.exit_code()
    })
}
