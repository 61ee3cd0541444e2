//! The result: what is printed, as text or JSON, and what is drawn.

mod chart;
mod compare;
mod json;
pub(crate) mod summary;
mod text;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use jiff::Timestamp;

use self::chart::{Curve, MARKED};
pub(crate) use self::compare::Earlier;
use self::summary::Summary;
use super::fault::Fault;
use super::format::grouped;
use super::run::Run;
use crate::cli::failure::Failure;

/// A drawing of no latencies.
const NOTHING: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n";

/// Prints and draws the result, beside an earlier one if there is one. A result with errors is a failure
/// too.
pub(crate) fn report(run: &Run, earlier: Option<&Earlier>) -> Result<ExitCode, Failure> {
    let (plan, metrics) = (&run.plan, &run.metrics);
    if metrics.connections == 0
        && let Some(refusal) = &run.refusal
    {
        let (target, why) = (&plan.target, &refusal.why);
        return Err(Failure::Runtime(format!("cannot connect to {target}: {why}")));
    }
    let summary = Summary::new(run);
    let result = || json::json(run, &summary);
    let text = match (plan.json, earlier) {
        (true, Some(earlier)) => {
            let mut result = result();
            result["compared"] = compare::json(earlier, &summary, &result);
            format!("{result}\n")
        }
        (true, None) => format!("{}\n", result()),
        (false, Some(earlier)) => {
            text::text(run, &summary) + &compare::text(earlier, &summary, &result())
        }
        (false, None) => text::text(run, &summary),
    };
    let mut stdout = io::stdout().lock();
    let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    drop(stdout);
    if let Some(path) = &plan.svg {
        let svg =
            chart::svg(&curves(run, &summary, earlier), &text::title(plan), plan.mode.measured());
        fs::write(path, svg.as_deref().unwrap_or(NOTHING))
            .map_err(|error| file_failure("svg", path, &error))?;
    }
    printed.map_err(|error| Failure::Runtime(format!("cannot write the result: {error}")))?;
    verdict(run)
}

/// What is drawn: this run, and the earlier one below it.
fn curves(run: &Run, summary: &Summary, earlier: Option<&Earlier>) -> Vec<Curve> {
    let label = |date: &str, lines_per_s: f64| {
        format!("{date}: {} lines/s", grouped(lines_per_s.round() as u64))
    };
    let before = earlier.map(|earlier| Curve {
        nanos: earlier.curve(),
        marked: earlier.marked(),
        label: label(earlier.date(), earlier.lines_per_s()),
    });
    let now = Curve {
        nanos: chart::curve(&run.metrics.latencies),
        marked: MARKED
            .map(|(quantile, _)| run.metrics.latencies.value_at_quantile(quantile) as f64),
        label: label(&date(summary.date), summary.lines_per_s),
    };
    [Some(now), before].into_iter().flatten().filter(|curve| !curve.nanos.is_empty()).collect()
}

/// As people and programs read it, to the second.
fn date(date: Timestamp) -> String {
    date.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Succeeds if the server made no error.
fn verdict(run: &Run) -> Result<ExitCode, Failure> {
    let Run { plan, metrics, .. } = run;
    let target = &plan.target;
    let service = format!("the {} service does", plan.mode.service());
    let greeting = metrics.count(Fault::WrongGreeting) + metrics.count(Fault::NoGreeting);
    let answered = metrics.lines;
    let missing = plan.requests.filter(|asked| answered < *asked && !run.interrupted);
    let errors = match metrics.errors() {
        1 => "1 error".to_owned(),
        errors => format!("{errors} errors"),
    };
    Err(Failure::Runtime(match (metrics.errors(), metrics.connections, missing) {
        (_, 0, _) if greeting > 0 => {
            let (what, remedy) = match plan.talk.name() {
                Some(_) => ("it should", ""),
                None => (
                    service.as_str(),
                    "; for other servers there are --plain, --send and --no-greeting",
                ),
            };
            format!("{target} does not greet as {what}{remedy}")
        }
        (0, 0, _) => format!("ended before {target} has greeted anybody"),
        (0, _, None) => return Ok(ExitCode::SUCCESS),
        (0, _, Some(asked)) => format!("{answered} of {asked} requests answered"),
        (_, _, Some(asked)) => format!("{errors}, {answered} of {asked} requests answered"),
        (_, _, None) => errors,
    }))
}

/// The file of an option cannot be written.
pub(crate) fn file_failure(option: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Runtime(format!("--{option} {}: {error}", path.display()))
}
