//! Measures line-reactor against its peers: one command, one table, one drawing.
//!
//! ```text
//! cargo run --release -p compare
//! cargo run --release -p compare -- --scenario pipelined-64 --peer floor --peer ours --rounds 9
//! cargo run --release -p compare -- --peer ours --peer ours-2 --peer tokio-2     # two threads
//! cargo run --release -p compare -- models          # the concurrency models, examples/models
//! ```
//!
//! Each server runs in a process of its own, pinned to one core, and stays up through all rounds;
//! the load runs on another core, and the servers take turns. What holds on a noisy machine is the
//! CPU time of the server per line, as a ratio to that of `floor` in the same round. Where one of the
//! peers has two threads, nothing is pinned, unless `--pin` keeps those on one core as well.

mod chart;
mod check;
mod load;
mod models;
mod peers;
mod protocol;
mod room;
mod scenario;
mod server;
mod sys;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, thread};

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};

use load::Span;
use peers::{MODELS, PEERS, Peer, Service, THREADED};
use scenario::{SCENARIOS, Scenario};
use server::Server;
use table::{Group, Row};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measure the reactor against its peers and against a bare epoll loop, the floor.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only this scenario; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = names(SCENARIOS.iter().map(|it| it.name)))]
    scenario: Vec<String>,
    /// Only this peer; may be repeated. Without floor or ours there are no ratios to them. Those of two
    /// threads have to be named.
    #[arg(long, value_name = "NAME")]
    #[arg(value_parser = names(PEERS.iter().chain(THREADED).map(|it| it.name)))]
    peer: Vec<String>,
    /// How often each peer has its turn in each scenario.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Keep servers of two threads on one core too, so that they do not take turns with the load. What
    /// their second thread costs is seen apart from where the kernel puts it.
    #[arg(long)]
    pin: bool,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Where to draw the ratios to the floor.
    #[arg(long, value_name = "FILE", default_value = "target/compare.svg")]
    svg: PathBuf,
    /// Write the table as Markdown, too.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Only see whether every peer's replies are right; no figures.
    #[arg(long)]
    check: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Serve on a port of 127.0.0.1 until killed, which is how the peers are run.
    Serve {
        #[arg(value_parser = names(PEERS.iter().chain(THREADED).chain(MODELS).map(|it| it.name)))]
        peer: String,
        /// 0 for any; it is printed.
        port: u16,
        #[arg(long, value_enum)]
        service: Option<Service>,
    },
    Models(models::Args),
    /// What a line costs in a room of running servers, and how long it takes.
    Room(room::Args),
}

fn names(names: impl Iterator<Item = &'static str>) -> PossibleValuesParser {
    names.collect::<Vec<_>>().into()
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.01..=3600.0).contains(&seconds) { Ok(seconds) } else { Err("0.01 to 3600".to_owned()) }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.command {
        Some(Command::Serve { peer, port, service }) => serve(peer, *port, *service),
        Some(Command::Models(args)) => models::run(args),
        Some(Command::Room(args)) => room::run(args),
        None => run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(name: &str, port: u16, service: Option<Service>) -> Result<()> {
    let peer = peers::find(name).ok_or("no such peer")?;
    let service = service.unwrap_or(peer.services[0]);
    if !peer.services.contains(&service) {
        return Err(format!("{name} does not have that service").into());
    }
    sys::raise_descriptors()?;
    Ok((peer.serve)(service, port)?)
}

fn run(args: &Args) -> Result<()> {
    let (peers, word) = peers::available();
    if let Some(word) = word {
        eprintln!("{word}");
    }
    let wanted = |name: &str, of: &[String]| of.is_empty() || of.iter().any(|it| it == name);
    let mut peers: Vec<_> = peers.into_iter().filter(|it| wanted(it.name, &args.peer)).collect();
    let named = |it: &&Peer| args.peer.iter().any(|name| name == it.name);
    let everyone = args.check && args.peer.is_empty();
    let threaded: Vec<_> = THREADED.iter().filter(|it| everyone || named(it)).collect();
    let pinned = threaded.is_empty() || args.pin;
    peers.extend(threaded);
    let scenarios: Vec<_> = SCENARIOS.iter().filter(|it| wanted(it.name, &args.scenario)).collect();
    // For 10,100 clients at once.
    let limit = sys::raise_descriptors()?;
    if limit < 10_200 && !args.check {
        eprintln!("only {limit} descriptors are allowed: scenarios of 10,000 clients will fail");
    }
    let cores = scenario::cores().filter(|_| pinned);
    match cores {
        Some((_, load)) => sys::pin(load)?,
        None if !pinned => {}
        None => eprintln!("one core only: the servers and the load share it"),
    }
    let core = cores.map(|(server, _)| server);
    if args.check {
        return check::run(&peers, &scenarios, core);
    }
    check_writable([&args.svg].into_iter().chain(&args.markdown))?;
    let (groups, failed) = measure(args, &peers, &scenarios, core)?;
    print!("{}", table::text(&groups));
    if let Some(path) = &args.markdown {
        fs::write(path, table::markdown(&groups))?;
    }
    chart::draw(&args.svg, &groups)?;
    eprintln!("drawn in {}", args.svg.display());
    match failed {
        0 => Ok(()),
        _ => Err(format!("{failed} failed and had to be left out, see above").into()),
    }
}

/// What cannot be written is said before the minutes of measuring, not after them.
fn check_writable<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    for file in files {
        let folder = file.parent().map_or(Ok(()), fs::create_dir_all);
        let open = |()| fs::File::options().append(true).create(true).open(file);
        folder.and_then(open).map_err(|error| {
            format!("{}: cannot be written ({error}); choose another file", file.display())
        })?;
    }
    Ok(())
}

fn start(
    peers: &[&'static Peer],
    scenarios: &[&Scenario],
    core: Option<usize>,
) -> Result<Vec<Server>> {
    let mut servers = Vec::new();
    for service in [Service::Echo, Service::Presence, Service::Clock] {
        if scenarios.iter().any(|scenario| scenario.service() == service) {
            for peer in peers.iter().filter(|peer| peer.services.contains(&service)) {
                servers.push(Server::start(peer, service, core)?);
            }
        }
    }
    match servers.len() {
        0 => Err("no such --peer has the service of such a --scenario".into()),
        _ => Ok(servers),
    }
}

/// Who fails in a scenario is left out of it, and the others go on; tells how often that was.
fn measure<'s>(
    args: &Args,
    peers: &[&'static Peer],
    scenarios: &[&'s Scenario],
    core: Option<usize>,
) -> Result<(Vec<Group<'s>>, usize)> {
    let measured = Duration::from_secs_f64(args.seconds);
    let span = Span { warm: (measured / 4).max(Duration::from_millis(100)), measured };
    let servers = start(peers, scenarios, core)?;
    // Until all have set up whatever they set up.
    thread::sleep(Duration::from_millis(300));
    let (mut groups, mut failed) = (Vec::new(), 0);
    for &scenario in scenarios {
        let of = |server: &&Server| server.service() == scenario.service();
        let row = |server| (server, Row { peer: Server::name(server), rounds: Vec::new() });
        let mut rows: Vec<_> = servers.iter().filter(of).map(row).collect();
        for round in 1..=args.rounds {
            eprintln!("{}, round {round} of {}", scenario.title, args.rounds);
            rows.retain_mut(|(server, row)| {
                let figures = scenario.measure(server, span, core);
                match figures.and_then(|figures| Ok((figures, server.quiet()?))) {
                    Ok((figures, ())) => row.rounds.push(figures),
                    Err(error) => {
                        eprintln!("{} is left out: {error}", server.name());
                        failed += 1;
                        return false;
                    }
                }
                true
            });
        }
        if !rows.is_empty() {
            let rows = rows.into_iter().map(|(_, row)| row).collect();
            groups.push(Group { scenario, rows });
        }
    }
    Ok((groups, failed))
}
