//! Options that were given, as the words of a command line, which clap parses.

use std::ffi::OsString;
use std::slice;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Command};

use super::options::command_of;
use crate::cli::failure::{Failure, on_a_line};
use crate::cli::unused_options::{GivenOption, GivenOptions};

/// The options of `above` that the command has, and those of `below` that they do not override.
pub(super) fn merge(above: &GivenOptions, below: &GivenOptions, command: &Command) -> GivenOptions {
    let has =
        |option: &&GivenOption| command.get_arguments().any(|arg| *arg.get_id() == *option.id);
    let above = || above.0.iter().filter(has);
    let kept = below.0.iter().filter(has);
    let kept = kept.filter(|option| !above().any(|over| displaces(over, option, command)));
    GivenOptions(above().chain(kept).cloned().collect())
}

/// Whether two options exclude each other.
fn displaces(above: &GivenOption, below: &GivenOption, command: &Command) -> bool {
    let exclude = |one: &GivenOption, other: &GivenOption| {
        let arg = command.get_arguments().find(|arg| *arg.get_id() == *one.id);
        let excluded = arg.map(|arg| command.get_arg_conflicts_with(arg)).unwrap_or_default();
        excluded.iter().any(|arg| *arg.get_id() == *other.id)
    };
    let both = !words(above, command).is_empty();
    above.id == below.id || both && (exclude(above, below) || exclude(below, above))
}

/// The words that give an option; none for a flag that is off.
fn words(option: &GivenOption, command: &Command) -> Vec<OsString> {
    let name = option.name();
    let flag = |arg: &clap::Arg| {
        *arg.get_id() == *option.id && matches!(arg.get_action(), ArgAction::SetTrue)
    };
    if command.get_arguments().any(flag) {
        let on = option.values.iter().any(|value| value == "true");
        return on.then(|| format!("--{name}").into()).into_iter().collect();
    }
    let word = |value: &OsString| {
        let mut word = OsString::from(format!("--{name}="));
        word.push(value);
        word
    };
    option.values.iter().map(word).collect()
}

/// What the options say.
pub(super) fn parse<T: clap::Args>(given: &GivenOptions) -> Result<T, Failure> {
    let command = command_of::<T>();
    let parse = |without: Option<&GivenOption>| {
        let kept = given.0.iter().filter(|option| without.is_none_or(|it| it.id != option.id));
        let words = kept.flat_map(|option| words(option, &command));
        let matches = command.clone().try_get_matches_from(words)?;
        T::from_arg_matches(&matches)
    };
    parse(None).map_err(|error| {
        // Each is right by itself, so one needs another, or excludes it.
        let culprit = given.0.iter().rev().find(|option| parse(Some(option)).is_ok());
        culprit.map_or_else(
            || Failure::Usage(on_a_line(&error)),
            |option| option.failure(said(&error, option)),
        )
    })
}

/// What clap says of an option. In a file the options are called like their keys.
fn said(error: &clap::Error, option: &GivenOption) -> String {
    let line = on_a_line(error);
    if option.place.is_none() {
        return line;
    }
    let args = error.context().flat_map(|(kind, value)| match (kind, value) {
        (ContextKind::InvalidArg | ContextKind::PriorArg, ContextValue::String(arg)) => {
            slice::from_ref(arg)
        }
        (ContextKind::InvalidArg | ContextKind::PriorArg, ContextValue::Strings(args)) => args,
        _ => &[],
    });
    args.fold(line, |line, arg| {
        let key = arg.trim_start_matches("--").split(' ').next().unwrap_or_default();
        line.replace(&format!("'{arg}'"), key).replace(arg, key)
    })
}

/// Refuses an option whose values are wrong, whatever is given besides.
pub(super) fn check_alone(option: &GivenOption, command: &Command) -> Result<(), Failure> {
    match command.clone().try_get_matches_from(words(option, command)) {
        Err(error) if error.kind() != ErrorKind::MissingRequiredArgument => {
            Err(option.failure(said(&error, option)))
        }
        _ => Ok(()),
    }
}
