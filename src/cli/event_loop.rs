//! Signals and the loop of a command that serves.

use std::process::ExitCode;

use reactor::{Cores, Error, Exit};

use super::failure::{Failure, start_thread};
use super::predecessor::Predecessor;
use super::successor::Upgrades;
use super::systemd::Notices;
use super::{admin, logging};

/// Ends at SIGINT and SIGTERM, opens and reads files again at SIGHUP, and notifies systemd of all this. To be
/// called before the first line on stdout, since whoever reads that may send a signal.
pub(crate) fn catch_signals(
    cores: &mut Cores<'_>,
    predecessor: &Predecessor,
) -> Result<Notices, Error> {
    cores.stop_on_signals()?;
    let notices = Notices::start(cores, predecessor.is_there())?;
    let told = notices.clone();
    cores.on_hangup(move |cores| {
        told.reloading();
        logging::reopen();
        cores.reload();
        told.reloaded();
    })?;
    Ok(notices)
}

/// Says what is to be said once all listen: now, or at an upgrade once the clients have come.
pub(crate) fn ready(
    cores: &Cores<'static>,
    predecessor: &Predecessor,
    notices: &Notices,
    say: impl FnOnce() + Send + 'static,
) -> Result<(), Error> {
    let (told, notices) = (predecessor.told(), notices.clone());
    predecessor.once_succeeded(cores, move || {
        say();
        let begin = told.map(|told| {
            start_thread("systemd", move || {
                told();
                notices.begin();
            })
        });
        if let Some(Err(failure)) = begin {
            log::error!("{failure}");
        }
    })
}

/// Serves until a signal or a hook stops the cores, or until the last client has gone that has stayed after an
/// upgrade. Clients that are cut off make it a failure.
pub(crate) fn run_until_stopped(
    cores: &mut Cores<'_>,
    upgrades: &Upgrades,
) -> Result<ExitCode, Failure> {
    let exit = cores.run()?;
    let (accepted, refused) = admin::clients(cores);
    log::info!("stopped after {accepted} connections; {refused} were turned away");
    if let Some(code) = upgrades.outlast() {
        return Ok(code);
    }
    Ok(match exit {
        Exit::Clean => ExitCode::SUCCESS,
        Exit::Cut { connections } => {
            log::warn!("cut off before they had all their output: {connections} connections");
            ExitCode::FAILURE
        }
    })
}
