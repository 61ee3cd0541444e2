//! The command line as a whole: the list of subcommands, and what is said of a wrong one.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

use super::check::Check;
use super::close::Close;
use super::completions::Completions;
use super::config::Config;
use super::connect::Connect;
use super::discover::Discover;
use super::failure::{Failure, on_a_line};
use super::forward::Forward;
use super::load::Load;
use super::man::Man;
use super::serve::Serve;
use super::service;
use super::status::Status;
use super::upgrade::Upgrade;

/// One thread that serves thousands of clients of line protocols.
#[derive(Debug, Parser)]
#[command(name = "reactor", version, about, subcommand_value_name = "COMMAND")]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(Box<Serve>),
    Config(Box<Config>),
    Load(Box<Load>),
    Check(Check),
    Forward(Box<Forward>),
    Connect(Connect),
    Discover(Discover),
    Status(Status),
    Close(Close),
    Upgrade(Upgrade),
    Completions(Completions),
    Man(Man),
}

impl Failure {
    /// `command` is the word that was given for one.
    pub(crate) fn usage(error: &clap::Error, command: &str) -> Failure {
        let mut line = on_a_line(error);
        if let Some(instead) = meant(error, command) {
            line.push_str(&format!("; {instead}"));
        }
        let known = Args::command().find_subcommand(command).map(|_| format!("{command} "));
        line.push_str(&format!("; see reactor {}--help", known.unwrap_or_default()));
        Failure::Usage(line)
    }
}

/// What was probably meant by what clap does not know.
fn meant(error: &clap::Error, command: &str) -> Option<String> {
    let word = match error.kind() {
        ErrorKind::MissingRequiredArgument if command == "close" => {
            return Some("for the shell an ID with # stands in quotes, '#17'".to_owned());
        }
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        _ => return None,
    };
    let Some(ContextValue::String(word)) = error.get(word) else { return None };
    if command == "serve" {
        return service::instead_of(word);
    }
    // As nc has it.
    if matches!(command, "connect" | "load" | "check" | "forward") && word.parse::<u16>().is_ok() {
        return Some(format!("host and port are one word: write HOST:{word}"));
    }
    let name = word.split('=').next().filter(|_| !word.contains(char::is_whitespace))?;
    service::named(name).map(|_| format!("write reactor serve {word}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_is_used_as_it_wants_to_be() {
        Args::command().debug_assert();
    }

    fn said(args: &[&str]) -> String {
        let error = Args::try_parse_from([&["reactor"], args].concat()).unwrap_err();
        Failure::usage(&error, args[0]).to_string()
    }

    #[test]
    fn what_clap_says_fits_on_a_line() {
        assert_eq!(
            said(&["serve", "--max-lin", "5"]),
            "unexpected argument '--max-lin' found; tip: a similar argument exists: '--max-line'; \
             see reactor serve --help"
        );
        let level = said(&["serve", "--log", "loud"]);
        assert!(level.contains("[possible values: off, error, warn"), "{level}");
        assert!(said(&["load"]).ends_with("; see reactor load --help"), "{}", said(&["load"]));
        let mode = said(&["load", "1", "--mode", "loud"]);
        assert!(mode.ends_with("; see reactor load --help"), "{mode}");
        let dash = said(&["load", "1", "--clients", "-1"]);
        assert_eq!(dash, "unexpected argument '-1' found; see reactor load --help");
        let serf = said(&["serf"]);
        assert!(serf.starts_with("unrecognized subcommand 'serf'; tip: "), "{serf}");
        assert!(serf.ends_with("; see reactor --help"), "{serf}");
        let torn = said(&["echo=0\n0"]);
        assert!(torn.starts_with("unrecognized subcommand 'echo=0 0'; see "), "{torn}");
    }
}
