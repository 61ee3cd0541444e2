//! `serve --config` reads the file again at SIGHUP. A thread does so, which may wait for a disk or a name server,
//! and the loop only makes the change.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};

use reactor::text::printable;
use reactor::{Cores, Error, Remote};

use super::changes::{Changes, changed};
use super::prepared::Prepared;
use super::running::Running;
use crate::cli::config::Source;
use crate::cli::failure::{Failure, start_thread};
use crate::cli::logging;
use crate::cli::successor::Upgrades;
use crate::cli::systemd::{Inherited, Notices};
use crate::cli::unused_options::GivenOptions;

/// The options of the whole that may change while the program runs.
const LIVE: [&str; 7] = [
    "host",
    "max_total_output",
    "max_total_input",
    "announce",
    "announce_group",
    "announce_interface",
    "log",
];

/// What a reload changes.
pub(super) struct InForce {
    pub(super) running: Running,
    /// The options of the whole that are in force.
    pub(super) given: GivenOptions,
}

/// All that is needed to read the configuration again.
pub(super) struct Again {
    pub(super) source: Source,
    pub(super) inherited: Inherited,
    /// How many descriptors there may be.
    pub(super) limit: u64,
    pub(super) notices: Notices,
    pub(super) upgrades: Upgrades,
}

/// Reads the configuration again at each SIGHUP.
pub(super) fn at_hangup(
    cores: &mut Cores<'static>,
    again: Again,
    in_force: InForce,
) -> Result<(), Failure> {
    let (ask, asked) = sync_channel(1);
    // A SIGHUP during a reload causes one more reload after it, and so do several together.
    cores.on_hangup(move |_| {
        logging::reopen();
        let _ = ask.try_send(());
    })?;
    let remote = cores.remote();
    let in_force = Arc::new(Mutex::new(in_force));
    start_thread("reload", move || {
        for () in asked {
            again.notices.reloading();
            let outcome = again.reload(&remote, &in_force);
            again.notices.reloaded();
            if outcome.is_err() {
                return;
            }
        }
    })
}

impl Again {
    /// Reads it, and has the first core make the change. Fails once the cores have ended.
    fn reload(
        &self,
        remote: &Remote<'static>,
        in_force: &Arc<Mutex<InForce>>,
    ) -> Result<(), Error> {
        let prepared = match self.prepare() {
            Ok(prepared) => prepared,
            Err(failure) => {
                log_failure(&failure);
                return Ok(());
            }
        };
        let in_force = Arc::clone(in_force);
        let upgrades = self.upgrades.clone();
        // It is dropped when the change was made, or will never be made.
        let (end, ended) = sync_channel::<()>(0);
        remote.post(move |cores| {
            if let Some(pid) = upgrades.successor() {
                return log::warn!("reload: process {pid} has taken over; it is the one to reload");
            }
            let mut in_force = in_force.lock().unwrap_or_else(PoisonError::into_inner);
            match in_force.change(cores, &prepared) {
                Ok(changes) => changes.log(),
                Err(failure) => log_failure(&failure),
            }
            drop(end);
        })?;
        let _ = ended.recv();
        Ok(())
    }

    fn prepare(&self) -> Result<Prepared, Failure> {
        let prepared = Prepared::new(self.source.plan()?, &self.inherited)?;
        prepared.check_descriptors(self.limit)?;
        // They are read once more when they are needed: those in a thread are of use to that one alone.
        prepared.entrances()?;
        Ok(prepared)
    }
}

fn log_failure(failure: &Failure) {
    // It may quote anything from the file.
    let line = printable(failure.to_string().as_bytes());
    log::error!("reload: nothing has changed: {line}");
}

impl InForce {
    fn change(
        &mut self,
        cores: &mut Cores<'static>,
        prepared: &Prepared,
    ) -> Result<Changes, Failure> {
        let InForce { running, given } = self;
        let Prepared { whole, host, .. } = prepared;
        running.check_rooms(&prepared.services)?;
        let mut changes = running.change(cores, &prepared.services, &prepared.entrances()?)?;
        let mut announce = false;
        for (id, what) in changed(given, &prepared.given) {
            match LIVE.contains(&&*id) {
                true => changes.say(what),
                false => changes.warn(format!("{what} needs a restart")),
            }
            match &*id {
                "log" => log::set_max_level(whole.log.log),
                // The interface may go by the host.
                _ => announce |= id.starts_with("announce") || id == "host",
            }
        }
        cores.set_max_total_output(whole.max_total_output);
        cores.set_max_total_input(whole.max_total_input);
        if let Err(failure) = running.announce(cores, &whole.announce, host, announce) {
            changes.warn(failure.to_string());
        }
        given.0.retain(|option| !LIVE.contains(&&*option.id));
        let live = prepared.given.0.iter().filter(|option| LIVE.contains(&&*option.id));
        given.0.extend(live.cloned());
        Ok(changes)
    }
}
