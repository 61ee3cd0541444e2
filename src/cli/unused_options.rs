//! Options that would have no effect are refused: a user that gives one expects an effect.

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::failure::Failure;

/// Which options of a subcommand were given. Those left at their defaults are not.
pub(crate) struct GivenOptions<'a>(&'a ArgMatches);

impl<'a> GivenOptions<'a> {
    /// Those of the subcommand in `matches`.
    pub(crate) fn new(matches: &'a ArgMatches) -> GivenOptions<'a> {
        GivenOptions(matches.subcommand().map_or(matches, |(_, own)| own))
    }

    /// Refuses these options unless they are used; `user` is what would use them.
    pub(crate) fn refuse_unless(
        &self,
        used: bool,
        options: &[&str],
        user: &str,
    ) -> Result<(), Failure> {
        let given = |option: &&&str| self.0.value_source(option) == Some(ValueSource::CommandLine);
        match options.iter().find(given) {
            Some(option) if !used => {
                Err(Failure::Usage(format!("--{} goes with {user}", option.replace('_', "-"))))
            }
            _ => Ok(()),
        }
    }
}
