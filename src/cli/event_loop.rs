//! Runs the loop of a command that serves.

use std::process::ExitCode;

use reactor::{Exit, Reactor};

use super::admin;
use super::failure::Failure;

/// Serves until a signal or a hook stops the reactor. Clients that are cut off make it a failure.
pub(crate) fn run_until_stopped(reactor: &mut Reactor<'_>) -> Result<ExitCode, Failure> {
    let exit = reactor.run()?;
    let (accepted, refused) = admin::clients(reactor);
    log::info!("stopped after {accepted} connections; {refused} were turned away");
    Ok(match exit {
        Exit::Clean => ExitCode::SUCCESS,
        Exit::Cut { connections } => {
            log::warn!("cut off before they had all their output: {connections} connections");
            ExitCode::FAILURE
        }
    })
}
