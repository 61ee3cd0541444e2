use std::fs;
use std::process::ExitCode;

use super::admin::{check_folder, folders, sockets};
use super::asking::{Answer, Output, ask, find, list};
use super::failure::Failure;

/// Look inside running servers: where they listen, who is connected, since when, how much, and what
/// each connection waits for.
///
/// It asks `reactor serve` and `reactor forward` at their control sockets. In the columns, IN and OUT are
/// bytes; UNSENT are those that the client has not taken. WAITS is for what: input (the client's),
/// reader (the client has to read), rate (--rate), turn (its share of a turn), paused (by the service),
/// held (too much is unsent), closing, lingering, handshake, connecting.
///
/// Exit status: 0 if all that were to be asked have answered, 1 if one has not or none runs, 2 if the
/// command line is wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// The server: its PID, or the path of its control socket [default: all that run as this user].
    #[arg(value_name = "PID|PATH")]
    server: Option<String>,

    /// Print one JSON object for each server.
    #[arg(long)]
    json: bool,
}

/// Asks and prints.
pub(crate) fn status(args: &Status) -> Result<ExitCode, Failure> {
    let commands: &[_] = if args.json { &["STATUS JSON"] } else { &["STATUS", "LIST"] };
    let mut output = Output::new(args.json);
    if let Some(server) = &args.server {
        return match ask(&find(server)?, commands, &mut output)? {
            Answer::Printed | Answer::Unread => Ok(ExitCode::SUCCESS),
            Answer::Gone(why) => Err(why),
        };
    }
    let folders = folders();
    for folder in folders.iter().filter(|folder| fs::symlink_metadata(folder).is_ok()) {
        check_folder(folder).map_err(Failure::Runtime)?;
    }
    let (mut any, mut failure) = (false, None);
    for path in folders.iter().flat_map(|folder| sockets(folder)) {
        match ask(&path, commands, &mut output) {
            Ok(Answer::Printed) => any = true,
            Ok(Answer::Unread) => return Ok(ExitCode::SUCCESS),
            // It has ended meanwhile.
            Ok(Answer::Gone(_)) => {}
            Err(why) => failure = failure.or(Some(why)),
        }
        output.separate();
    }
    match failure {
        Some(why) => Err(why),
        None if any => Ok(ExitCode::SUCCESS),
        None => Err(Failure::Runtime(format!(
            "no server of this user runs: none is in {}; one with --admin PATH goes by its PATH",
            list(&folders)
        ))),
    }
}
