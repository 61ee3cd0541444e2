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
use crate::table::median;
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
    /// How often each is measured; the table has the medians.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Seconds of each of the two measurements.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Where to draw the figures.
    #[arg(long, value_name = "FILE", default_value = "target/models.svg")]
    svg: PathBuf,
    /// Write the table as Markdown, too: CPU time and memory first, and no latencies, which do not repeat.
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

/// Of one run, or the medians of several.
struct Figures {
    greeted: f64,
    waiting: f64,
    /// Not even connected, or closed by the server.
    outside: f64,
    /// More of it with all clients there than before, for each that was greeted, in KiB.
    memory: f64,
    /// All who were greeted talk.
    all: Talk,
    /// Ten of them talk.
    few: Talk,
}

struct Talk {
    lines_a_second: f64,
    /// Latencies in microseconds.
    p50: f64,
    p99: f64,
    /// The server's CPU time a line, in nanoseconds.
    cost: f64,
    /// How much of its core the load used.
    load: f64,
}

impl Talk {
    fn of(sample: &Sample) -> Talk {
        let (lines, seconds) = (sample.units as f64, sample.elapsed.as_secs_f64());
        let quantile = |quantile| sample.latency.value_at_quantile(quantile) as f64 / 1e3;
        Talk {
            lines_a_second: lines / seconds,
            p50: quantile(0.5),
            p99: quantile(0.99),
            cost: sample.cpu.as_nanos() as f64 / lines.max(1.0),
            load: sample.own.as_secs_f64() / seconds,
        }
    }

    fn median(all: &[&Talk]) -> Talk {
        let of = |metric: fn(&Talk) -> f64| {
            median(all.iter().map(|talk| metric(talk)).collect()).unwrap_or(f64::NAN)
        };
        Talk {
            lines_a_second: of(|talk| talk.lines_a_second),
            p50: of(|talk| talk.p50),
            p99: of(|talk| talk.p99),
            cost: of(|talk| talk.cost),
            load: of(|talk| talk.load),
        }
    }
}

impl Figures {
    /// The median of each figure by itself.
    fn median(runs: &[Figures]) -> Figures {
        let of = |metric: fn(&Figures) -> f64| {
            median(runs.iter().map(metric).collect()).unwrap_or(f64::NAN)
        };
        Figures {
            greeted: of(|run| run.greeted),
            waiting: of(|run| run.waiting),
            outside: of(|run| run.outside),
            memory: of(|run| run.memory),
            all: Talk::median(&runs.iter().map(|run| &run.all).collect::<Vec<_>>()),
            few: Talk::median(&runs.iter().map(|run| &run.few).collect::<Vec<_>>()),
        }
    }
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
    let models: Vec<_> = MODELS.iter().filter(|model| wanted(model.name)).collect();
    let mut rows = Vec::new();
    for clients in args.clients.iter().map(|&clients| clients as usize) {
        let mut results: Vec<Result<Vec<Figures>>> =
            models.iter().map(|_| Ok(Vec::new())).collect();
        // All models before the next run: what disturbs the machine for a while disturbs them alike.
        for run in 1..=args.runs {
            for (model, result) in models.iter().zip(&mut results) {
                let Ok(runs) = result else { continue };
                eprintln!("{clients} clients, {}, run {run} of {}", model.name, args.runs);
                match measure(model, clients, span, core) {
                    Ok(figures) => runs.push(figures),
                    Err(error) => *result = Err(error),
                }
            }
        }
        rows.extend(models.iter().zip(results).map(|(model, result)| {
            let result = result.map(|runs| Figures::median(&runs));
            Row { model: model.name, clients, result }
        }));
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
    let memory = server.memory()?.saturating_sub(before) as f64 / greeted as f64 / 1024.0;
    let all = Talk::of(&echo.run(greeted, span)?);
    let few = Talk::of(&echo.run(greeted.min(FEW), span)?);
    Ok(Figures {
        greeted: greeted as f64,
        waiting: crowd.waiting.len() as f64,
        outside: (crowd.outside.len() + crowd.turned_away) as f64,
        memory,
        all,
        few,
    })
}
