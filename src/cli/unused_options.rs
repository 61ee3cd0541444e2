//! Options that would have no effect are refused: a user that gives one expects an effect.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::failure::Failure;

/// Where something stands in a file.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) file: Arc<str>,
    pub(crate) line: usize,
}

impl Place {
    /// Why the value there cannot be used.
    pub(crate) fn failure(&self, what: impl fmt::Display) -> Failure {
        Failure::Runtime(format!("{self}: {what}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// An option that was given.
#[derive(Clone, Debug)]
pub(crate) struct GivenOption {
    /// What clap calls it, as `max_line`.
    pub(crate) id: String,
    /// As they were written; `true` or `false` for a flag.
    pub(crate) values: Vec<OsString>,
    /// Where, if that is in a file and not on the command line.
    pub(crate) place: Option<Place>,
}

impl GivenOption {
    /// Its long name, as `max-line`.
    pub(crate) fn name(&self) -> String {
        self.id.replace('_', "-")
    }

    /// Why it cannot be used, with its place if it has one.
    pub(crate) fn failure(&self, what: impl fmt::Display) -> Failure {
        match &self.place {
            None => Failure::Usage(what.to_string()),
            Some(place) => place.failure(what),
        }
    }

    /// Why it is refused; `what` goes behind its name.
    pub(crate) fn refused(&self, what: impl fmt::Display) -> Failure {
        let dashes = if self.place.is_none() { "--" } else { "" };
        self.failure(format_args!("{dashes}{} {what}", self.name()))
    }
}

/// Which options were given. Those left at their defaults were not.
#[derive(Clone, Debug, Default)]
pub(crate) struct GivenOptions(pub(crate) Vec<GivenOption>);

impl GivenOptions {
    /// Those of the subcommand in `matches`.
    pub(crate) fn new(matches: &ArgMatches) -> GivenOptions {
        let matches = matches.subcommand().map_or(matches, |(_, own)| own);
        let ids = matches.ids().map(clap::Id::as_str);
        let given = ids.filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine));
        let option = |id: &str| GivenOption {
            id: id.to_owned(),
            values: matches.get_raw(id).unwrap_or_default().map(OsString::from).collect(),
            place: None,
        };
        GivenOptions(given.map(option).collect())
    }

    pub(crate) fn get(&self, id: &str) -> Option<&GivenOption> {
        self.0.iter().find(|option| option.id == id)
    }

    /// Refuses these options unless they are used; `user` is what would use them.
    pub(crate) fn refuse_unless(
        &self,
        used: bool,
        options: &[&str],
        user: &str,
    ) -> Result<(), Failure> {
        match options.iter().find_map(|id| self.get(id)) {
            Some(option) if !used => Err(option.refused(format_args!("goes with {user}"))),
            _ => Ok(()),
        }
    }

    /// Refuses the options that nobody uses.
    pub(crate) fn refuse_unused(&self, uses: &[Use]) -> Result<(), Failure> {
        uses.iter().try_for_each(|it| self.refuse_unless(it.used, it.options, it.user))
    }

    /// The same failure, with its place if it begins with the name of an option that a file gives.
    pub(crate) fn located(&self, failure: Failure) -> Failure {
        let text = failure.to_string();
        let rest = text.strip_prefix("--").unwrap_or_default();
        let end = rest.find([' ', ':']).unwrap_or(rest.len());
        match self.get(&rest[..end].replace('-', "_")) {
            Some(GivenOption { place: Some(place), .. }) => place.failure(rest),
            _ => failure,
        }
    }
}

/// Who uses options.
pub(crate) struct Use {
    pub(crate) options: &'static [&'static str],
    /// Whether something does.
    pub(crate) used: bool,
    /// What would.
    pub(crate) user: &'static str,
}
