use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Stdout, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use log::LevelFilter;
use reactor::Reactor;
use reactor::services::{Announced, Announcer, Change, Directory};

use super::failure::Failure;
use super::logging::{self, LogOptions};
use super::multicast::{at, group, interface};
use super::units::duration;

/// How long `--once` listens: each announcer speaks once a second.
const ONCE: Duration = Duration::from_secs(1);

/// List the services that servers announce (reactor serve --announce).
///
/// Prints `+ SERVICE ADDR` for each that comes and `- SERVICE ADDR` for each that has been silent
/// for three and a half seconds, until SIGINT or SIGTERM. What is printed is what was heard: on a
/// network, anybody can announce anything. At most 1,024 services are kept; beyond that, one of the
/// sender that has announced most goes when another sender's comes.
///
/// Exit status: 0, also after a signal; 1 if nothing was heard within the time of --once or --for,
/// and after a failure; 2 if the command line is wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct Discover {
    /// The multicast group to listen to, IPv4.
    #[arg(long, value_name = "GROUP:PORT", default_value_t = Announcer::GROUP)]
    #[arg(value_parser = group)]
    group: SocketAddr,

    /// The interface to listen at, by its IPv4 address; 127.0.0.1 for this machine alone, 0.0.0.0
    /// for the one that the system's routes lead to.
    #[arg(long, value_name = "IP", default_value_t = Ipv4Addr::LOCALHOST)]
    #[arg(value_parser = interface)]
    interface: Ipv4Addr,

    /// Listen for a second, or as long as --for says, print the list as `SERVICE ADDR` and end.
    #[arg(long)]
    once: bool,

    /// End after this long: 500ms, 30s, 5m, 1h [default: never].
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    time: Option<Duration>,

    /// Print a JSON object on each line: "event" ("came" or "went", not with --once), "service",
    /// "address".
    #[arg(long)]
    json: bool,
}

/// What was heard, and where it is printed.
struct Listing<'a> {
    args: &'a Discover,
    here: BTreeSet<Announced>,
    heard: bool,
    stdout: Stdout,
    /// Why the list could not be written.
    unwritten: Option<io::Error>,
}

impl Listing<'_> {
    fn note(&mut self, change: Change<'_>) {
        let (announced, sign, event) = match change {
            Change::Came(announced) => {
                self.heard = true;
                self.here.insert(announced.clone());
                (announced, "+ ", "came")
            }
            Change::Went(announced) => {
                self.here.remove(announced);
                (announced, "- ", "went")
            }
        };
        if !self.args.once {
            self.print(announced, sign, Some(event));
        }
    }

    fn print_all(&mut self) {
        for announced in std::mem::take(&mut self.here) {
            self.print(&announced, "", None);
        }
    }

    fn print(&mut self, announced: &Announced, sign: &str, event: Option<&str>) {
        let line = if self.args.json {
            let Announced { service, address } = announced;
            let mut line = serde_json::json!({ "service": service, "address": address });
            if let Some(event) = event {
                line["event"] = event.into();
            }
            format!("{line}\n")
        } else {
            format!("{sign}{announced}\n")
        };
        let done = self.stdout.write_all(line.as_bytes()).and_then(|()| self.stdout.flush());
        self.unwritten = self.unwritten.take().or(done.err());
    }
}

/// Listens and prints.
pub(crate) fn discover(args: &Discover) -> Result<ExitCode, Failure> {
    logging::init(&LogOptions::on_stderr(LevelFilter::Warn))?;
    let stdout = io::stdout();
    let listing = RefCell::new(Listing {
        args,
        here: BTreeSet::new(),
        heard: false,
        stdout,
        unwritten: None,
    });
    let mut reactor = Reactor::new()?;
    reactor.stop_on_signals()?;
    let directory = Directory::new(|change: Change<'_>| listing.borrow_mut().note(change));
    let service = reactor.datagrams_with(args.group, directory, at(args.interface))?;
    reactor.set_name(&service, "discover");

    let time = args.time.or(args.once.then_some(ONCE));
    let end = time.map(|time| Instant::now() + time);
    let left = || end.map(|end| end.saturating_duration_since(Instant::now()));
    while reactor.exit().is_none() {
        reactor.turn(left())?;
        if left().is_some_and(|left| left.is_zero()) || listing.borrow().unwritten.is_some() {
            reactor.stop();
        }
    }
    drop(reactor);
    let mut listing = listing.into_inner();
    if args.once {
        listing.print_all();
    }
    match listing.unwritten {
        // The reader has read enough.
        Some(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        Some(error) => {
            return Err(Failure::Runtime(format!("cannot write the list: {error}")));
        }
        None => {}
    }
    if !listing.heard && left().is_some_and(|left| left.is_zero()) {
        return Err(Failure::Runtime(format!(
            "nobody announces anything to {} at {}; reactor serve --announce does",
            args.group, args.interface
        )));
    }
    Ok(ExitCode::SUCCESS)
}
