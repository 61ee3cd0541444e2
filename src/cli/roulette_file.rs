//! What the roulette services begin with.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use reactor::services::roulette::{Roulette, Version};

use super::args::Serve;
use super::failure::Failure;

/// What is in `--roulette-file`. It is read once for all, since it may be a pipe.
pub(crate) fn students(args: &Serve) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let Some(path) = &args.roulette_file else { return Ok(text) };
    // One byte more than fits: it may have no end.
    let most = (args.roulette_memory as u64).saturating_add(1);
    match File::open(path).and_then(|file| file.take(most).read_to_end(&mut text)) {
        Ok(_) if text.len() > args.roulette_memory => Err(too_many(args)),
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::Runtime(format!(
            "--roulette-file {}: cannot be read ({error}); give a text with a name on each line",
            path.display()
        ))),
    }
}

/// A roulette with these students in it.
pub(crate) fn roulette(
    version: Version,
    students: &[u8],
    args: &Serve,
) -> Result<Roulette, Failure> {
    let mut roulette = Roulette::new(version, args.roulette_memory);
    roulette.load(students).map_err(|_| too_many(args))?;
    Ok(roulette)
}

fn too_many(args: &Serve) -> Failure {
    let path = args.roulette_file.as_deref().unwrap_or(Path::new(""));
    let memory = args.roulette_memory;
    Failure::Runtime(format!(
        "--roulette-file {}: too many names for the {memory} bytes of --roulette-memory; raise it",
        path.display()
    ))
}
