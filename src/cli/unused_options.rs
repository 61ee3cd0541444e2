use clap::ArgMatches;
use clap::parser::ValueSource;

use super::failure::Failure;

/// The options of a command that were given, those at their defaults not counted.
pub(crate) struct Given<'a>(&'a ArgMatches);

impl<'a> Given<'a> {
    /// Those of the subcommand in these.
    pub(crate) fn new(matches: &'a ArgMatches) -> Given<'a> {
        Given(matches.subcommand().map_or(matches, |(_, own)| own))
    }

    /// Refuses these options where nothing heeds them: who gives one expects something of it.
    pub(crate) fn check(&self, options: &[&str], heeded: bool, by: &str) -> Result<(), Failure> {
        let given = |option: &&&str| self.0.value_source(option) == Some(ValueSource::CommandLine);
        match options.iter().find(given) {
            Some(option) if !heeded => {
                Err(Failure::Usage(format!("--{} goes with {by}", option.replace('_', "-"))))
            }
            _ => Ok(()),
        }
    }
}
