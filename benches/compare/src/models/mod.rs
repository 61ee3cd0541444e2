//! `compare models`: the concurrency models of the library's examples, one after the other under
//! the same load.

mod chart;
mod table;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::load::{Crowd, Echo, Sample, Span};
use crate::peers::{self, MODELS, Peer, Service};
use crate::server::Server;
use crate::{Result, check_writable, names, scenario, seconds, sys};

/// How many talk while all the others are there and say nothing.
const FEW: usize = 10;
/// The most clients: as many descriptors as a process asks for, less some of its own.
const MOST: i64 = 19_900;

/// Compare the models of concurrency: one client at a time, a process or a thread for each, a pool
/// of threads, readiness, callbacks, the reactor.
///
/// For each model and number of clients a server is started afresh. All clients connect and stay;
/// those who are greeted talk, first all of them and then ten, each with one line in flight. The
/// others show where the model gives up.
#[derive(clap::Args)]
pub struct Args {
    /// How many clients; may be repeated.
    #[arg(long, value_name = "N", default_values_t = [10, 100, 1000, 10_000])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=MOST))]
    clients: Vec<u32>,
    /// Only this model; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = names(MODELS.iter().map(|it| it.name)))]
    model: Vec<String>,
    /// Seconds of each of the two measurements.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Where to draw the table.
    #[arg(long, value_name = "FILE", default_value = "target/models.svg")]
    svg: PathBuf,
    /// Write the table as Markdown, too.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// A model under so many clients.
struct Row {
    model: &'static str,
    clients: usize,
    /// Or why there are no figures.
    result: Result<Figures>,
}

struct Figures {
    greeted: usize,
    waiting: usize,
    outside: usize,
    turned_away: usize,
    /// More of it with all clients there than before, for each that was greeted, in bytes.
    memory: f64,
    /// All who were greeted talk.
    all: Sample,
    /// Ten of them talk.
    few: Sample,
}

pub fn run(args: &Args) -> Result<()> {
    let limit = sys::raise_descriptors()?;
    let most = args.clients.iter().copied().max().unwrap_or(0);
    if limit < u64::from(most) + 100 {
        let remedy = "raise it (ulimit -n) or ask for fewer --clients";
        return Err(format!("{limit} descriptors are too few for {most} clients: {remedy}").into());
    }
    if !fs::exists("/proc/thread-self/children")? {
        return Err("this kernel keeps no list of a process's children in /proc".into());
    }
    check_writable([&args.svg].into_iter().chain(&args.markdown))?;
    eprintln!("building the servers, the example `models`");
    peers::build_models()?;
    let cores = scenario::cores();
    match cores {
        Some((_, load)) => sys::pin(load)?,
        None => eprintln!("one core only: the servers and the load share it"),
    }
    let core = cores.map(|(server, _)| server);
    let measured = Duration::from_secs_f64(args.seconds);
    let span = Span { warm: measured / 4, measured };

    let wanted = |name: &str| args.model.is_empty() || args.model.iter().any(|it| it == name);
    let mut rows = Vec::new();
    for clients in args.clients.iter().map(|&clients| clients as usize) {
        for model in MODELS.iter().filter(|model| wanted(model.name)) {
            eprintln!("{clients} clients, {}", model.name);
            let result = measure(model, clients, span, core);
            rows.push(Row { model: model.name, clients, result });
        }
    }
    print!("{}", table::text(&rows));
    if let Some(path) = &args.markdown {
        fs::write(path, table::markdown(&rows))?;
    }
    chart::draw(&args.svg, &rows)?;
    eprintln!("drawn in {}", args.svg.display());
    match rows.iter().filter(|row| row.result.is_err()).count() {
        0 => Ok(()),
        failed => Err(format!("{failed} of {} measurements failed", rows.len()).into()),
    }
}

fn measure(
    model: &'static Peer,
    clients: usize,
    span: Span,
    core: Option<usize>,
) -> Result<Figures> {
    let server = Server::start(model, Service::Echo, core)?;
    // What the first client sets up once and for all does not count, nor do a pool's threads.
    let mut first = Echo::new(&server)?;
    first.open(1, 1)?;
    drop(first);
    server.quiet()?;
    let before = server.memory()?;
    let crowd = Crowd::gather(&server, clients)?;
    let greeted = crowd.greeted.len();
    if greeted == 0 {
        return Err("nobody was greeted".into());
    }
    let mut echo = Echo::new(&server)?;
    echo.take_over(crowd.greeted)?;
    server.quiet()?;
    let memory = server.memory()?.saturating_sub(before) as f64 / greeted as f64;
    let all = echo.run(greeted, span)?;
    let few = echo.run(greeted.min(FEW), span)?;
    let (waiting, outside) = (crowd.waiting.len(), crowd.outside.len());
    let turned_away = crowd.turned_away;
    Ok(Figures { greeted, waiting, outside, turned_away, memory, all, few })
}
