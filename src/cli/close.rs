use std::process::ExitCode;

use reactor::text::printable;

use super::asking::{Answer, Output, ask, find};
use super::failure::Failure;

/// Close a connection of a running server: its client still gets what was sent to it.
///
/// Exit status: 0 if it is closed, 1 if there is no such connection or server, 2 if the command line is
/// wrong.
#[derive(Debug, clap::Args)]
pub(crate) struct Close {
    /// The server: its PID, or the path of its control socket.
    #[arg(value_name = "PID|PATH")]
    server: String,

    /// The connection, as reactor status shows it: 17 or '#17', in quotes for the shell.
    #[arg(value_name = "ID", value_parser = number)]
    id: u64,

    /// Why, for the server's log.
    #[arg(value_name = "WHY")]
    why: Vec<String>,
}

/// Asks for it.
pub(crate) fn close(args: &Close) -> Result<ExitCode, Failure> {
    let why = printable(args.why.join(" ").as_bytes());
    let command = format!("CLOSE #{} {why}", args.id);
    match ask(&find(&args.server)?, &[&command], &mut Output::new(false))? {
        Answer::Printed | Answer::Unread => Ok(ExitCode::SUCCESS),
        Answer::Gone(why) => Err(why),
    }
}

fn number(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix('#').unwrap_or(text).parse();
    number.map_err(|_| "write the ID that reactor status shows, as 17 or '#17'".to_owned())
}
