//! The configuration of `serve`: its options, and a file that gives some of them.
//!
//! A file has nothing that the command line does not have. Each key is the long name of an option, and
//! what is given there and what is given on the command line become the words of one command line, which clap
//! parses. So names, units, checks and messages are the same, and a new option is a key without further
//! work.
//!
//! 1. `options`: [`Whole`] and [`EachService`].
//! 2. `words`: options that were given, as words for clap.
//! 3. `file`: the file, each key an option that was given, with its line.
//! 4. `plan`: file and command line together, a [`Plan`].
//! 5. `print`: `reactor config`, a plan as a file.

mod file;
mod options;
mod plan;
mod print;
mod words;

pub(crate) use options::Whole;
pub(crate) use plan::{Arguments, Plan, PlannedService, Source};
pub(crate) use print::{Config, config};
