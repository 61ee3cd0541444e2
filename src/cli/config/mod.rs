//! The configuration of `serve`: its options, and the configuration file.
//!
//! Each key of a file is the long name of an option. The options of the file and of the command line become the
//! words of one command line, which clap parses. So names, units, checks and messages are the same, and a new
//! option is a key without further work.
//!
//! 1. `options`: [`Whole`] and [`EachService`].
//! 2. `words`: options that were given, as words for clap.
//! 3. `file`: the file, read into options with their lines.
//! 4. `plan`: file and command line together make a [`Plan`].
//! 5. `print`: `reactor config` prints a plan as a file.

mod file;
mod options;
mod plan;
mod print;
mod words;

pub(crate) use options::Whole;
pub(crate) use plan::{Arguments, Plan, PlannedService, Source};
pub(crate) use print::{Config, config};
