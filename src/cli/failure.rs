//! Why the program gives up, and the remedies.

use std::process::ExitCode;
use std::{fmt, io, thread};

use reactor::{Address, CloseReason, Error};

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
    /// Listening failed. `how` says how another port is chosen.
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

/// What clap says, on a line. It takes several paragraphs: the error, tips, the usage, where to find
/// help. The first two matter.
pub(crate) fn on_a_line(error: &clap::Error) -> String {
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
    line
}

/// Starts a thread. If the system has none left, that is a failure and no panic.
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
            // Limits that are no options follow from those that are, and are never wrong.
            Error::Limit { name, why } => {
                Failure::Usage(format!("--{}: it {why}", name.replace('_', "-")))
            }
            Error::Address { .. } => Failure::Usage(error.to_string()),
            _ => Failure::Runtime(error.to_string()),
        }
    }
}

/// Why a server cannot be reached, with the remedy where there is one.
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
        (NotFound, Address::Unix(_)) => "there is no such socket".to_owned(),
        (PermissionDenied, Address::Unix(_)) => "its owner lets only others connect".to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_go_by_the_names_of_their_options() {
        let failure = Failure::from(Error::Limit { name: "max_line", why: "is bad".to_owned() });
        assert_eq!(failure.to_string(), "--max-line: it is bad");
    }
}
