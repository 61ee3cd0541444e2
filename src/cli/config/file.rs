//! The file as it is written: TOML whose keys are the long names of options. Each key becomes an option that
//! clap parses like those of the command line.

use std::ffi::OsString;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use clap::{Arg, ArgAction, Command};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::options::{EachService, Whole, command_of};
use super::words::check_alone;
use crate::cli::failure::Failure;
use crate::cli::service::{self, Service};
use crate::cli::target::Target;
use crate::cli::unused_options::{GivenOption, GivenOptions, Place};

/// The longest file; a service takes a few hundred bytes.
const LONGEST: u64 = 1 << 20;

/// The most tables: no reactor has more services. To read those of the longest file would take minutes.
const MOST_TABLES: usize = 250;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct File {
    /// The options of [`Whole`].
    pub(super) whole: GivenOptions,
    /// Those of [`EachService`] that stand above all tables.
    pub(super) each: GivenOptions,
    /// In the order of the file.
    pub(super) tables: Vec<Table>,
}

/// Where the address of a service is written.
#[derive(Clone, Debug)]
pub(super) enum AddressFrom {
    File(Place),
    /// On the command line, behind this name.
    CommandLine(String),
}

/// A service.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) target: Target,
    pub(super) address_from: AddressFrom,
    pub(super) options: GivenOptions,
}

impl File {
    pub(super) fn parse(bytes: &[u8], name: &str) -> Result<File, Failure> {
        let text = str::from_utf8(bytes).map_err(|error| {
            let line = line_of(bytes, error.valid_up_to());
            Place { file: name.into(), line }.failure("it is no UTF-8")
        })?;
        let reader = Reader {
            text,
            name: name.into(),
            whole: command_of::<Whole>(),
            each: command_of::<EachService>(),
        };
        let document = DeTable::parse(text).map_err(|error| {
            let what = error.message().lines().collect::<Vec<_>>().join("; ");
            reader.place(error.span().unwrap_or_default()).failure(what)
        })?;
        reader.file(document.get_ref())
    }
}

/// What is in the file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    read_regular(path).map_err(|error| {
        Failure::Runtime(format!("--config {}: cannot be read: {error}", path.display()))
    })
}

/// Reads a file that has an end: it is read again at a reload, when a pipe would have nothing more.
fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let no_wait = libc::O_NONBLOCK;
    let file = std::fs::File::options().read(true).custom_flags(no_wait).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        0..=LONGEST => Ok(bytes),
        _ => Err(io::Error::other("it is longer than 1 MiB")),
    }
}

/// The number of the line that this byte is in.
fn line_of(text: &[u8], at: usize) -> usize {
    text.iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

type Key<'t> = Spanned<DeString<'t>>;

/// The entries of a table in the order of the file.
fn in_order<'a, 't>(table: &'a DeTable<'t>) -> Vec<(&'a Key<'t>, &'a DeValue<'t>)> {
    let mut entries: Vec<_> = table.iter().map(|(key, value)| (key, value.get_ref())).collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

struct Reader<'t> {
    text: &'t str,
    name: Arc<str>,
    whole: Command,
    each: Command,
}

impl Reader<'_> {
    fn place(&self, span: Range<usize>) -> Place {
        Place { file: Arc::clone(&self.name), line: line_of(self.text.as_bytes(), span.start) }
    }

    fn file(&self, document: &DeTable<'_>) -> Result<File, Failure> {
        let mut file = File::default();
        for (key, value) in in_order(document) {
            if let Some(arg) = option_of(&self.whole, key) {
                file.whole.0.push(self.option(&self.whole, arg, key, value)?);
            } else if let Some(arg) = option_of(&self.each, key) {
                file.each.0.push(self.option(&self.each, arg, key, value)?);
            } else if let DeValue::Table(table) = value {
                if file.tables.len() == MOST_TABLES {
                    let what = format!(
                        "more than {MOST_TABLES} services: have another process serve the rest"
                    );
                    return Err(self.place(key.span()).failure(what));
                }
                file.tables.push(self.table(key, table)?);
            } else {
                return Err(self.place(key.span()).failure(self.unknown_at_top(key.get_ref())));
            }
        }
        Ok(file)
    }

    fn table(&self, key: &Key<'_>, table: &DeTable<'_>) -> Result<Table, Failure> {
        let name = key.get_ref();
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if name.is_empty() || !name.bytes().all(of_name) {
            let what = "the name of a service has letters, digits, - and _";
            return Err(self.place(key.span()).failure(what));
        }
        let (mut kind, mut addresses, mut options) = (None, None, GivenOptions::default());
        for (key, value) in in_order(table) {
            let place = self.place(key.span());
            let name = &**key.get_ref();
            match name {
                "service" => match value.as_str() {
                    Some(text) => kind = Some((place, text)),
                    None => return Err(place.failure("service: write its name, as \"echo\"")),
                },
                "address" => {
                    let values = values(value, true)
                        .map_err(|why| place.failure(format!("address: {why}")))?;
                    addresses = Some((place, values.join(",")));
                }
                _ => match option_of(&self.each, key) {
                    Some(arg) => options.0.push(self.option(&self.each, arg, key, value)?),
                    None => return Err(place.failure(self.unknown_in_table(name))),
                },
            }
        }
        let service = self.service(key, kind)?;
        let place = addresses.as_ref().map_or(self.place(key.span()), |(place, _)| place.clone());
        let target = match addresses {
            None => Target::usual(service),
            Some((place, text)) => Target::of(service, &format!("{}={text}", service.name))
                .map_err(|why| place.failure(format!("address: {why}")))?,
        };
        let address_from = AddressFrom::File(place);
        Ok(Table { name: name.to_string(), target, address_from, options })
    }

    /// The service of a table: its key `service`, or else its name.
    fn service(
        &self,
        key: &Key<'_>,
        kind: Option<(Place, &str)>,
    ) -> Result<&'static Service, Failure> {
        let name = &**key.get_ref();
        match (service::named(name), kind) {
            (Some(own), None) => Ok(own),
            (Some(own), Some((_, kind))) if kind == own.name => Ok(own),
            (Some(own), Some((place, _))) => {
                let own = own.name;
                Err(place
                    .failure(format!("[{own}] is the service {own}: give this one another name")))
            }
            (None, Some((place, kind))) => service::named(kind)
                .ok_or_else(|| place.failure(format!("service: {}", service::unknown(kind)))),
            (None, None) => {
                let why = service::unknown(name);
                let what = format!("[{name}]: {why}; say which one it is: service = \"…\"");
                Err(self.place(key.span()).failure(what))
            }
        }
    }

    fn option(
        &self,
        command: &Command,
        arg: &Arg,
        key: &Key<'_>,
        value: &DeValue<'_>,
    ) -> Result<GivenOption, Failure> {
        let place = self.place(key.span());
        let values = match (arg.get_action(), value) {
            (ArgAction::SetTrue, DeValue::Boolean(on)) => Ok(vec![on.to_string()]),
            (ArgAction::SetTrue, _) => Err("write true or false"),
            (action, value) => values(value, matches!(action, ArgAction::Append)),
        };
        let values = values.map_err(|why| place.failure(format!("{}: {why}", key.get_ref())))?;
        let values = values.into_iter().map(OsString::from).collect();
        let option = GivenOption { id: arg.get_id().to_string(), values, place: Some(place) };
        check_alone(&option, command)?;
        Ok(option)
    }

    fn unknown_at_top(&self, key: &str) -> String {
        if service::named(key).is_some() {
            return format!("a service is a table: write [{key}], and below it address = \"PORT\"");
        }
        if ["service", "address"].contains(&key) {
            return format!("{key} is about one service: write it below its name, as [echo]");
        }
        unknown(key, names(&self.whole).chain(names(&self.each)))
    }

    fn unknown_in_table(&self, key: &str) -> String {
        if names(&self.whole).any(|name| name == key) {
            return format!("{key} is about all services: write it above the first table");
        }
        unknown(key, names(&self.each).chain(["service", "address"]))
    }
}

fn option_of<'c>(command: &'c Command, key: &Key<'_>) -> Option<&'c Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(key.get_ref()))
}

fn names(command: &Command) -> impl Iterator<Item = &str> {
    command.get_arguments().filter_map(Arg::get_long)
}

/// The message about an unknown key, with the one that was probably meant.
fn unknown<'n>(key: &str, names: impl Iterator<Item = &'n str>) -> String {
    let near = names.map(|name| (strsim::jaro(name, key), name));
    match near.max_by(|one, other| one.0.total_cmp(&other.0)) {
        // One letter or two are like any name that has them.
        Some((likeness, name)) if likeness > 0.7 && key.len() > 2 => {
            format!("unknown key {key}: did you mean {name}?")
        }
        _ => format!("unknown key {key}: the keys are the options of reactor serve --help"),
    }
}

/// A value as it would stand on the command line, or several of them.
fn values(value: &DeValue<'_>, several: bool) -> Result<Vec<String>, &'static str> {
    match value {
        DeValue::Array(list) if several && !list.is_empty() => {
            list.iter().map(|value| text(value.get_ref())).collect()
        }
        DeValue::Array(_) if several => Err("the list is empty: leave the key out"),
        value => Ok(vec![text(value)?]),
    }
}

fn text(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Float(number) => Ok(number.to_string()),
        DeValue::Boolean(_) => Err("it takes a value, not true or false"),
        DeValue::Datetime(_) => Err("it takes no date: write the value in quotes"),
        DeValue::Array(_) => Err("it takes one value, and no list"),
        DeValue::Table(_) => Err("it is an option, and no table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::config::Plan;

    fn plan(text: &str) -> Result<Plan, String> {
        let file = File::parse(text.as_bytes(), "f");
        let plan = file.and_then(|file| Plan::merged(file, &[], &GivenOptions::default()));
        plan.map_err(|failure| failure.to_string())
    }

    #[test]
    fn what_a_table_says_wins_over_what_stands_above() {
        let text = "max-line = 10\nallow-kill = true\nrate = \"5/s\"\n[time]\n\n[echo]\nmax-line = \"1K\"\n\
                    burst = 7\naddress = [1, \"unix:/a\"]\n[presence]\n[quiet]\nservice = \"presence\"\n\
                    allow-kill = false\naddress = 0\n";
        let plan = plan(text).unwrap();
        let names: Vec<_> = plan.services.iter().map(|service| &*service.name).collect();
        assert_eq!(names, ["time", "echo", "presence", "quiet"]);
        let limits = |at: usize| plan.services[at].options.limits().unwrap();
        assert_eq!([0, 1, 2].map(|at| limits(at).max_line), [10, 1024, 10]);
        assert_eq!([0, 1].map(|at| limits(at).rate.lines.unwrap().burst), [5, 7]);
        let kill =
            |at: usize| format!("{:?}", plan.services[at].options).contains("allow_kill: true");
        assert_eq!([1, 2, 3].map(kill), [false, true, false]);
        let addresses = |at: usize| plan.services[at].target.addresses();
        assert_eq!(addresses(0), ["2205"]);
        assert_eq!(addresses(1), ["1", "unix:/a"]);
    }

    /// Each text is refused with a line that begins so.
    fn refused(cases: &[(&str, &str)]) {
        for (text, said) in cases {
            let why = plan(text).map(drop).expect_err(text);
            assert!(why.starts_with(said), "{text}: {why}");
        }
    }

    #[test]
    fn what_is_no_key_is_told_with_its_line_and_what_was_meant() {
        refused(&[
            ("max-lime = 5", "f:1: unknown key max-lime: did you mean max-line?"),
            ("x = 5", "f:1: unknown key x: the keys are the options of reactor serve --help"),
            ("\nmax_line = 5", "f:2: unknown key max_line: did you mean max-line?"),
            ("zzz = 5", "f:1: unknown key zzz: the keys are the options of reactor serve --help"),
            ("[echo]\n\nadress = 5", "f:3: unknown key adress: did you mean address?"),
            (
                "[echo]\nthreads = 5",
                "f:2: threads is about all services: write it above the first table",
            ),
            (
                "address = 5",
                "f:1: address is about one service: write it below its name, as [echo]",
            ),
            (
                "echo = 5",
                "f:1: a service is a table: write [echo], and below it address = \"PORT\"",
            ),
            ("[[echo]]", "f:1: a service is a table: write [echo]"),
            (
                "[ehco]",
                "f:1: [ehco]: unknown service: did you mean echo? the services are echo, time",
            ),
            ("[a]\nservice = \"tim\"", "f:2: service: unknown service: did you mean time?"),
            ("[a]\nservice = 5", "f:2: service: write its name, as \"echo\""),
            (
                "[echo]\nservice = \"time\"",
                "f:2: [echo] is the service echo: give this one another name",
            ),
            (
                "[\"a b\"]\nservice = \"echo\"",
                "f:1: the name of a service has letters, digits, - and _",
            ),
            ("[log]\nlevel = \"info\"", "f:1: log: it is an option, and no table"),
            ("[echo.log]", "f:1: log is about all services"),
        ]);
    }

    #[test]
    fn what_is_no_value_is_told_with_its_line() {
        refused(&[
            ("max-line = true", "f:1: max-line: it takes a value, not true or false"),
            ("max-line = [5]", "f:1: max-line: it takes one value, and no list"),
            ("max-line = 2001-01-01", "f:1: max-line: it takes no date: write the value in quotes"),
            ("allow = []", "f:1: allow: the list is empty: leave the key out"),
            ("allow = [\"::1\", [\"::1\"]]", "f:1: allow: it takes one value, and no list"),
            ("[presence]\nallow-kill = \"yes\"", "f:2: allow-kill: write true or false"),
            ("max-line = \"64KB\"", "f:1: invalid value '64KB' for max-line: write a number"),
            ("max-line = -5", "f:1: invalid value '-5' for max-line: write a number of bytes"),
            ("max-line = 0x10", "f:1: invalid value '0x10' for max-line"),
            ("time-interval = 1.5", "f:1: invalid value '1.5' for time-interval: add a unit"),
            ("log = \"loud\"", "f:1: invalid value 'loud' for log [possible values: off"),
            ("allow = [\"::1\",\n\"10.0.0.1/8\"]", "f:1: invalid value '10.0.0.1/8' for allow"),
            ("[echo]\naddress = \"here\"", "f:2: address: the port is missing: write here:PORT"),
            ("[echo]\naddress = []", "f:2: address: the list is empty: leave the key out"),
            ("[echo]\naddress = true", "f:2: address: it takes a value, not true or false"),
            ("[web]\naddress = \"ws:1\"", "f:2: address: web has WebSocket at its paths"),
            ("[echo]\n[echo]", "f:2: duplicate key"),
            ("max-line = 64K", "f:1: "),
            ("[echo", "f:1: "),
        ]);
    }

    #[test]
    fn what_is_wrong_only_together_with_something_else_is_told_with_its_line() {
        refused(&[
            ("[echo]\n\nburst = 5", "f:3: burst goes with --rate N/s; add it"),
            (
                "no-admin = true\nadmin = \"/a\"\n[echo]",
                "f:2: the argument no-admin cannot be used with admin",
            ),
            (
                "bus-timeout = \"1s\"\n[echo]",
                "f:1: bus-timeout goes with --presence-bus URL; add it",
            ),
            ("presence-bus = \"redis:/a\"\n[presence]", "f:1: presence-bus: "),
            (
                "bus-lease = \"1s\"\npresence-bus = \"redis://a\"\n[presence]",
                "f:1: bus-lease must be",
            ),
            (
                "presence-bus = \"redis://a\"\n[presence]\n[a]\nservice = \"presence\"",
                "f:1: presence-bus ",
            ),
            ("[echo]\nmax-output = \"2G\"", "f:2: max-output: it "),
            (
                "[echo]\ntime-interval = \"1s\"",
                "f:2: time-interval goes with the service time; add it",
            ),
            (
                "time-interval = \"1s\"\n[echo]",
                "f:1: time-interval goes with the service time; add it",
            ),
            ("[echo]\n[web]\nmax-line = 5", "f:3: max-line goes with another service than web"),
            ("host = \"::1\"\n[echo]\naddress = \"[::1]:5\"", "f:1: host goes with a port"),
            (
                "presence-bus = \"redis://a\"\n[echo]",
                "f:1: presence-bus goes with the service presence",
            ),
        ]);
    }

    #[test]
    fn a_value_that_nobody_would_use_is_checked_too() {
        let text = "max-line = \"10x\"\n[echo]\nmax-line = 5";
        assert!(plan(text).unwrap_err().starts_with("f:1: invalid value '10x'"));
    }
}
