//! What the services roulette and roulette2 begin with: `--roulette-file`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reactor::services::roulette::{Roulette, Version};

use super::failure::Failure;
use super::units::bytes;

/// The options of both roulettes.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct RouletteOptions {
    /// The students that roulette and roulette2 begin with: a text in UTF-8, a name on each line.
    #[arg(long, value_name = "PATH")]
    roulette_file: Option<PathBuf>,

    /// Memory for the names of each roulette; a LOAD that needs more is refused.
    ///
    /// A name takes its own bytes and four more. The names of a LOAD that has not ended count too,
    /// and those that were cleared while a LIST of them is still being sent.
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = bytes)]
    roulette_memory: usize,
}

/// The files that were read, with their options. One is read once for all roulettes, since it may be a
/// pipe.
#[derive(Default)]
pub(crate) struct Students(Vec<(RouletteOptions, Arc<[u8]>)>);

impl Students {
    /// What is in the file.
    pub(crate) fn of(&mut self, options: &RouletteOptions) -> Result<Arc<[u8]>, Failure> {
        if let Some((_, students)) = self.0.iter().find(|(same, _)| same == options) {
            return Ok(Arc::clone(students));
        }
        let students: Arc<[u8]> = options.read()?.into();
        self.0.push((options.clone(), Arc::clone(&students)));
        Ok(students)
    }
}

impl RouletteOptions {
    fn read(&self) -> Result<Vec<u8>, Failure> {
        let mut text = Vec::new();
        let Some(path) = &self.roulette_file else { return Ok(text) };
        // One byte more than fits: the file may have no end.
        let most = (self.roulette_memory as u64).saturating_add(1);
        match File::open(path).and_then(|file| file.take(most).read_to_end(&mut text)) {
            Ok(_) if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") => {
                let why = "it is UTF-16; write it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW";
                Err(self.failed(why))
            }
            Ok(_) if text.len() > self.roulette_memory => Err(self.too_many()),
            Ok(_) => {
                // A byte order mark is no part of the first name.
                if text.starts_with(b"\xef\xbb\xbf") {
                    text.drain(..3);
                }
                Ok(text)
            }
            Err(error) => {
                let why = format!("cannot be read ({error}); give a text with a name on each line");
                Err(self.failed(&why))
            }
        }
    }

    /// A roulette with these students in it.
    pub(crate) fn roulette(&self, version: Version, students: &[u8]) -> Result<Roulette, Failure> {
        let mut roulette = Roulette::new(version, self.roulette_memory);
        roulette.load(students).map_err(|_| self.too_many())?;
        Ok(roulette)
    }

    fn too_many(&self) -> Failure {
        let memory = self.roulette_memory;
        self.failed(&format!(
            "too many names for the {memory} bytes of --roulette-memory; raise it"
        ))
    }

    fn failed(&self, why: &str) -> Failure {
        let path = self.roulette_file.as_deref().unwrap_or(Path::new(""));
        Failure::Runtime(format!("--roulette-file {}: {why}", path.display()))
    }
}
