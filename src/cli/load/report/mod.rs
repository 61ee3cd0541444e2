//! The result: what is printed, as text or JSON, and what is drawn.

mod chart;
mod json;
pub(crate) mod summary;
mod text;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use self::summary::Summary;
use super::fault::Fault;
use super::run::Run;
use crate::cli::failure::Failure;

/// A drawing of no latencies.
const NOTHING: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n";

/// Prints and draws the result. A result with errors is a failure too.
pub(crate) fn report(run: &Run) -> Result<ExitCode, Failure> {
    let (plan, metrics) = (&run.plan, &run.metrics);
    if metrics.connections == 0
        && let Some(refusal) = &run.refusal
    {
        let (target, why) = (&plan.target, &refusal.why);
        return Err(Failure::Runtime(format!("cannot connect to {target}: {why}")));
    }
    let summary = Summary::new(run);
    let text = match plan.json {
        true => json::json(run, &summary),
        false => text::text(run, &summary),
    };
    let mut stdout = io::stdout().lock();
    let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    drop(stdout);
    if let Some(path) = &plan.svg {
        let svg = chart::svg(&metrics.latencies, &text::title(plan), plan.mode.measured());
        fs::write(path, svg.as_deref().unwrap_or(NOTHING))
            .map_err(|error| svg_failure(path, &error))?;
    }
    printed.map_err(|error| Failure::Runtime(format!("cannot write the result: {error}")))?;
    verdict(run)
}

/// Succeeds if the server made no error.
fn verdict(run: &Run) -> Result<ExitCode, Failure> {
    let Run { plan, metrics, .. } = run;
    let (target, service) = (&plan.target, plan.mode.service());
    let greeting = metrics.count(Fault::WrongGreeting) + metrics.count(Fault::NoGreeting);
    Err(Failure::Runtime(match (metrics.errors(), metrics.connections) {
        (_, 0) if greeting > 0 => format!("{target} does not greet as the {service} service does"),
        (0, 0) => format!("ended before {target} has greeted anybody"),
        (0, _) => return Ok(ExitCode::SUCCESS),
        (1, _) => "1 error".to_owned(),
        (errors, _) => format!("{errors} errors"),
    }))
}

/// The file for the drawing cannot be written.
pub(crate) fn svg_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::Runtime(format!("--svg {}: {error}", path.display()))
}
