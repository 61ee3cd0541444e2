use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};

use super::options::{EachService, Whole, command_of};
use super::plan::{Arguments, Plan};
use crate::cli::failure::Failure;
use crate::cli::unused_options::{GivenOption, GivenOptions};

/// Print the configuration that serve would have with the same arguments, as a file for --config.
///
/// Each service has a table with all the options that were given for it. The comments above the first table
/// are the options that have their defaults. Errors are those of serve.
#[derive(Debug, clap::Args)]
pub(crate) struct Config {
    #[command(flatten)]
    arguments: Arguments,
}

/// Prints it.
pub(crate) fn config(args: &Config, given: &GivenOptions) -> Result<ExitCode, Failure> {
    let text = args.arguments.source(given).plan()?.written()?;
    // Who has enough of it closes the pipe.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

impl Plan {
    /// The plan as a file.
    pub(crate) fn written(&self) -> Result<String, Failure> {
        let (whole, each) = (command_of::<Whole>(), command_of::<EachService>());
        let mut text = entries(&whole, &self.given)?;
        text.push_str(&defaults(&whole, &self.given));
        text.push_str("\n# For each service that has nothing else:\n");
        text.push_str(&defaults(&each, &GivenOptions::default()));
        for service in &self.services {
            let (name, kind) = (&*service.name, service.target.service.name);
            text.push_str(&format!("\n[{name}]\n"));
            if name != kind {
                text.push_str(&format!("service = {}\n", string(kind)));
            }
            text.push_str(&format!("address = {}\n", list(&service.target.addresses())));
            text.push_str(&entries(&each, &service.given)?);
        }
        Ok(text)
    }
}

fn find<'g>(given: &'g GivenOptions, arg: &Arg) -> Option<&'g GivenOption> {
    given.0.iter().find(|option| *arg.get_id() == *option.id)
}

/// The options that were given.
fn entries(command: &Command, given: &GivenOptions) -> Result<String, Failure> {
    let args = command.get_arguments();
    args.filter_map(|arg| Some(entry(arg, find(given, arg)?))).collect()
}

/// Those that were not, as comments, where they have a default.
fn defaults(command: &Command, given: &GivenOptions) -> String {
    let args = command.get_arguments().filter(|arg| find(given, arg).is_none());
    args.map(default).collect()
}

fn entry(arg: &Arg, option: &GivenOption) -> Result<String, Failure> {
    let values = option.values.iter().map(|value| value.to_str().map(str::to_owned));
    let values = values.collect::<Option<Vec<_>>>().ok_or_else(|| {
        option.refused("is no UTF-8, and cannot stand in a file: choose another value")
    })?;
    let value = match arg.get_action() {
        ArgAction::SetTrue => values.join(""),
        _ => list(&values),
    };
    Ok(format!("{} = {value}\n", option.name()))
}

fn default(arg: &Arg) -> String {
    let values = arg.get_default_values().iter().filter_map(|value| value.to_str());
    let values: Vec<_> = values.map(str::to_owned).collect();
    match (arg.get_long(), arg.get_action()) {
        (Some(name), ArgAction::SetTrue) => format!("# {name} = false\n"),
        (Some(name), _) if !values.is_empty() => format!("# {name} = {}\n", list(&values)),
        _ => String::new(),
    }
}

/// One value, or the list of several.
fn list(values: &[String]) -> String {
    match values {
        [value] => string(value),
        several => {
            let several: Vec<_> = several.iter().map(|value| string(value)).collect();
            format!("[{}]", several.join(", "))
        }
    }
}

/// A string of TOML, or a number that is the same.
fn string(text: &str) -> String {
    match text.parse::<u32>() {
        Ok(number) if number.to_string() == text => text.to_owned(),
        // TOML reads the escapes of JSON, but wants one more character escaped.
        _ => serde_json::Value::from(text).to_string().replace('\x7f', "\\u007f"),
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::cli::config::file::File;

    /// Values for an option, two for one that may be given several times.
    fn samples(id: &str) -> &'static [&'static str] {
        match id {
            "host" => &["localhost"],
            "threads" => &["auto"],
            "max_total_output" | "max_total_input" => &["2G"],
            "presence_bus" => &["rediss://localhost/7?room=a"],
            "bus_timeout" => &["2s"],
            "upgrade_timeout" => &["10m"],
            "bus_lease" => &["1h30m"],
            "bus_keep" => &["1M"],
            "server_name" => &["quotes \" and \\ and \u{7f}\t\u{e9}"],
            "announce_group" => &["239.1.2.3:4"],
            "announce_interface" => &["127.0.0.1"],
            "log" => &["DEBUG"],
            "log_format" => &["json"],
            "ca" | "cert" | "key" | "admin" | "tls_cert" | "tls_key" | "tls_client_ca"
            | "roulette_file" | "log_file" => &["/a b"],
            "allow" | "proxy_from" => &["10.0.0.0/8", "::1"],
            "unix_mode" => &["0660"],
            "allow_uid" => &["0", "1000"],
            "origin" => &["https://a.org", "http://b.org:8080"],
            "web_host" => &["a.org", "7"],
            "max_connections" | "max_per_peer" | "burst" => &["7"],
            "max_line" => &["1K"],
            "max_output" => &["2M"],
            "idle_timeout" | "user_timeout" | "time_interval" => &["500ms"],
            "line_timeout" | "keepalive" => &["never"],
            "rate" | "peer_rate" => &["5/s,1K/s"],
            "peer_connect_rate" => &["5/s"],
            "time_count" => &["0"],
            "roulette_memory" => &["32M"],
            _ => panic!("a new option, {id}: write values for it here"),
        }
    }

    /// All options of a kind with their values, except for one.
    fn all<T: clap::Args>(without: &str) -> Vec<String> {
        let command = command_of::<T>();
        let args = command.get_arguments().filter(|arg| *arg.get_id() != *without);
        let words = args.flat_map(|arg| {
            let name = arg.get_long().unwrap();
            match arg.get_action() {
                ArgAction::SetTrue => vec![format!("--{name}")],
                _ => {
                    let values = samples(arg.get_id().as_str()).iter();
                    values.map(|value| format!("--{name}={value}")).collect()
                }
            }
        });
        words.collect()
    }

    fn plan_of(words: &[String]) -> Plan {
        let matches = command_of::<Arguments>().try_get_matches_from(words).unwrap();
        let arguments = Arguments::from_arg_matches(&matches).unwrap();
        arguments.source(&GivenOptions::new(&matches)).plan().unwrap()
    }

    #[test]
    fn what_is_printed_gives_the_same_for_every_option() {
        for without in ["admin", "no_admin"] {
            let mut words = all::<Whole>(without);
            words.extend(all::<EachService>(""));
            let layers = if cfg!(feature = "tls") { "proxy:tls:ws:0" } else { "proxy:ws:0" };
            words.push(format!("echo=0,{layers},unix:/a b,[::1]:80,localhost:7"));
            words.extend(
                ["echo", "time", "presence", "roulette", "roulette2", "web"].map(String::from),
            );
            let plan = plan_of(&words);
            let text = plan.written().unwrap();
            let (whole, each) = (command_of::<Whole>(), command_of::<EachService>());
            for arg in whole.get_arguments().chain(each.get_arguments()) {
                let entry = format!("\n{} = ", arg.get_long().unwrap());
                let is_there = format!("\n{text}").contains(&entry);
                assert_eq!(is_there, *arg.get_id() != *without, "{entry}: {text}");
            }
            assert!(text.contains("[echo-2]\nservice = \"echo\"\naddress = 2323\n"), "{text}");

            let file =
                File::parse(text.as_bytes(), "f").unwrap_or_else(|why| panic!("{why}: {text}"));
            let again = Plan::merged(file, &[], &GivenOptions::default()).unwrap();
            assert_eq!(again.written().unwrap(), text);
            let shown = |plan: &Plan| {
                let services = plan.services.iter();
                let services =
                    services.map(|it| format!("{} {:?} {:?}", it.name, it.target, it.options));
                format!("{:?} {:?}", plan.whole, services.collect::<Vec<_>>())
            };
            assert_eq!(shown(&again), shown(&plan));
        }
    }

    #[test]
    fn what_was_left_out_is_a_comment() {
        let text = plan_of(&["echo=0".to_owned()]).written().unwrap();
        assert!(
            text.contains("\n# max-line = \"64K\"\n") && text.contains("\n# allow-kill = false\n")
        );
        assert!(text.ends_with("\n\n[echo]\naddress = 0\n"), "{text}");
    }
}
