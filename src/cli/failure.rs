use std::process::ExitCode;
use std::{fmt, io, thread};

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use reactor::{Address, CloseReason, Error};

use super::args::Args;
use super::service;

/// Why the program gives up: one line, with the remedy where there is one.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line is wrong, wherever it is run.
    Usage(String),
    /// It cannot be done here and now.
    Runtime(String),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Runtime(_) => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Runtime(text) => f.write_str(text),
        }
    }
}

impl Failure {
    /// It cannot listen there; another port is chosen `how`.
    pub(crate) fn listen(error: Error, how: &str) -> Failure {
        match error {
            Error::Listen {
                address: address @ (Address::Tcp(_) | Address::Host(_)),
                why,
                source,
            } if source.kind() == io::ErrorKind::AddrInUse => {
                let port = match &address {
                    Address::Host(host) => host.port(),
                    _ => address.as_socket().map_or(0, |addr| addr.port()),
                };
                let holder = match cfg!(target_os = "linux") {
                    true => format!("ss -ltnp 'sport = :{port}'"),
                    false => format!("lsof -nP -iTCP:{port} -sTCP:LISTEN"),
                };
                // Of a host, it begins with the one address that is taken.
                let why = why.split(';').next().unwrap_or_default();
                Failure::Runtime(format!(
                    "cannot listen on {address}: {why}; choose another one {how}, 0 for any free \
                     one, or see who has it: {holder}"
                ))
            }
            error => error.into(),
        }
    }
}

/// Starts a thread. Where the system has none left, that is a failure and no panic.
pub(crate) fn start_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<(), Failure> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map(drop).map_err(|error| {
        Failure::Runtime(format!(
            "no thread for the {name} ({error}): end some processes, or allow more (ulimit -u)"
        ))
    })
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error {
            // The limits that are no options follow from those that are, and are never wrong.
            Error::Limit { name, why } => {
                Failure::Usage(format!("--{}: it {why}", name.replace('_', "-")))
            }
            Error::Address { .. } => Failure::Usage(error.to_string()),
            _ => Failure::Runtime(error.to_string()),
        }
    }
}

/// Why a server cannot be had, with the remedy where there is one.
pub(crate) fn unreachable(
    server: &Address,
    reason: CloseReason,
    error: Option<io::Error>,
) -> String {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied, WouldBlock};
    let Some(error) = error else {
        return match reason {
            CloseReason::ConnectTimeout => "nobody answers there".to_owned(),
            _ => reason.to_string(),
        };
    };
    match (error.kind(), server) {
        (ConnectionRefused, _) => "nobody listens there".to_owned(),
        (NotFound, _) => "there is no such socket".to_owned(),
        (PermissionDenied, Address::Unix(_)) => "its owner lets only others connect".to_owned(),
        // Over TCP a newcomer waits.
        (WouldBlock, Address::Unix(_)) => {
            "its queue of newcomers is full; come later, or fewer at once (load --ramp)".to_owned()
        }
        _ => why(&error),
    }
}

/// What the system said, with the remedy where it does not say it.
pub(crate) fn why(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => format!("{error}; allow more of them (ulimit -n)"),
        Some(libc::EPROTOTYPE) => format!("{error}; it is a socket, but not of streams"),
        _ => error.to_string(),
    }
}

/// What clap says takes several paragraphs: the error, tips, the usage, where to find help. The
/// first two matter.
impl Failure {
    /// `command` is the word that was given for one.
    pub(crate) fn usage(error: &clap::Error, command: &str) -> Failure {
        let text = error.render().to_string();
        let mut line = String::new();
        for paragraph in text.split("\n\n") {
            let words: Vec<_> = paragraph.split_whitespace().collect();
            match words[..] {
                [] | ["For" | "Usage:", ..] => {}
                // It would not help: no argument begins with a dash.
                ["tip:", "to", "pass", ..] => {}
                ["error:", ref rest @ ..] => line.push_str(&rest.join(" ")),
                _ => {
                    line.push_str("; ");
                    line.push_str(&words.join(" "));
                }
            }
        }
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
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        _ => return None,
    };
    let Some(ContextValue::String(word)) = error.get(word) else { return None };
    if command == "serve" {
        return service::instead_of(word);
    }
    // As nc has it.
    if matches!(command, "connect" | "load" | "forward") && word.parse::<u16>().is_ok() {
        return Some(format!("host and port are one word: write HOST:{word}"));
    }
    let name = word.split('=').next().filter(|_| !word.contains(char::is_whitespace))?;
    service::named(name).map(|_| format!("write reactor serve {word}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

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

    #[test]
    fn limits_go_by_the_names_of_their_options() {
        let failure = Failure::from(Error::Limit { name: "max_line", why: "is bad".to_owned() });
        assert_eq!(failure.to_string(), "--max-line: it is bad");
    }
}
