//! What is said to servers that are not ours, as options.

use super::greeting::Greeting;

/// The options.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Servers that are not ours")]
pub(crate) struct Talk {
    /// The server sends back what comes, as echo servers do that are not ours: no greeting, no mark in front
    /// of the replies, no BYE.
    #[arg(long)]
    pub(crate) plain: bool,

    /// The server says this first: TEXT is the line, with \\n between several, LINES is how many, whatever
    /// they say [default: as the service of the mode; none with --plain].
    #[arg(long, value_name = "TEXT|LINES", value_parser = Greeting::parse)]
    greeting: Option<Greeting>,

    /// The server says nothing before it is asked.
    #[arg(long, conflicts_with = "greeting")]
    no_greeting: bool,
}

impl Talk {
    /// What the server says first, if the options say.
    pub(crate) fn greeting(&self) -> Option<Greeting> {
        if self.no_greeting { Some(Greeting::None) } else { self.greeting.clone() }
    }
}
