//! Runs the loop of a command that serves.

use std::process::ExitCode;

use reactor::{Cores, Exit};

use super::admin;
use super::failure::Failure;

/// Serves until a signal or a hook stops the cores. Clients that are cut off make it a failure.
pub(crate) fn run_until_stopped(cores: &mut Cores<'_>) -> Result<ExitCode, Failure> {
    let exit = cores.run()?;
    let (accepted, refused) = admin::clients(cores);
    log::info!("stopped after {accepted} connections; {refused} were turned away");
    Ok(match exit {
        Exit::Clean => ExitCode::SUCCESS,
        Exit::Cut { connections } => {
            log::warn!("cut off before they had all their output: {connections} connections");
            ExitCode::FAILURE
        }
    })
}
