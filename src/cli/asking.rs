//! Asks a server at its control socket: a client like others, written with the library.

use std::cell::RefCell;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reactor::text::printable;
use reactor::{Address, CloseReason, Context, Handler, Limits, Reactor};

use super::admin::{folders, socket_of};
use super::failure::{Failure, unreachable};

/// How long a server may take to say something.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest line of an answer: what is said of all services is one in JSON.
const LINE: usize = 1 << 24;

/// The control socket that goes by a PID or a path.
pub(crate) fn find(server: &str) -> Result<PathBuf, Failure> {
    let Ok(pid) = server.parse() else {
        return Ok(server.strip_prefix("unix:").unwrap_or(server).into());
    };
    let folders = folders();
    let found = folders.iter().map(|folder| socket_of(folder, pid)).find(|path| path.exists());
    found.ok_or_else(|| {
        Failure::Runtime(format!(
            "no server {pid} of this user has its control socket in {}; reactor status shows those that \
             run, and one with --admin PATH goes by its PATH",
            list(&folders)
        ))
    })
}

/// The folders in one line.
pub(crate) fn list(folders: &[PathBuf]) -> String {
    let names: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    names.join(" or ")
}

/// Where the lines of answers go. If nobody reads them any more, that is the end and no failure.
pub(crate) struct Output {
    stdout: BufWriter<io::StdoutLock<'static>>,
    /// What a server says may not reach a terminal as it is. Neither may a table elsewhere: it is shown on
    /// one later. JSON is for programs, which want it unchanged.
    raw: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Output {
        let raw = json && !io::stdout().is_terminal();
        Output { stdout: BufWriter::new(io::stdout().lock()), raw }
    }

    pub(crate) fn line(&mut self, line: &[u8]) -> io::Result<()> {
        match self.raw {
            true => self.stdout.write_all(line)?,
            false => self.stdout.write_all(printable(line).as_bytes())?,
        }
        self.stdout.write_all(b"\n")
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

/// What came of a question.
#[derive(Debug)]
enum Outcome {
    Answered,
    /// The server's own words.
    Refused(String),
    /// The answer could not be printed.
    Unprintable(io::Error),
    /// The connection ended first; whether it was there, and whether anything was said.
    Broken {
        connected: bool,
        heard: bool,
        reason: CloseReason,
        error: Option<io::Error>,
    },
}

/// Sends the commands, and prints their answers with an empty line between them. This loop serves nobody
/// else, so it may wait for stdout.
struct Asking<'a> {
    commands: String,
    /// Answers that are still to come.
    left: usize,
    connected: bool,
    heard: bool,
    output: &'a RefCell<Output>,
    outcome: &'a RefCell<Option<Outcome>>,
}

impl Asking<'_> {
    fn end(&self, cx: &mut Context<'_, ()>, outcome: Outcome) {
        *self.outcome.borrow_mut() = Some(outcome);
        cx.close();
    }

    fn print(&self, cx: &mut Context<'_, ()>, line: &[u8]) {
        if let Err(error) = self.output.borrow_mut().line(line) {
            self.end(cx, Outcome::Unprintable(error));
        }
    }
}

impl Handler for Asking<'_> {
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        self.connected = true;
        cx.send(&self.commands);
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        self.heard = true;
        if line == b"OK" {
            self.left -= 1;
            match self.left {
                0 => self.end(cx, Outcome::Answered),
                _ => self.print(cx, b""),
            }
        } else if let Some(why) = line.strip_prefix(b"ERROR ") {
            self.end(cx, Outcome::Refused(printable(why)));
        } else {
            self.print(cx, line);
        }
    }

    fn on_close(&mut self, cx: &mut Context<'_, ()>, reason: CloseReason) {
        let Asking { connected, heard, .. } = *self;
        let error = cx.error();
        let broken = || Outcome::Broken { connected, heard, reason, error };
        self.outcome.borrow_mut().get_or_insert_with(broken);
        cx.stop();
    }
}

/// Asks and prints. Says whether somebody still reads the output.
pub(crate) fn ask(
    path: &Path,
    commands: &[&str],
    output: Output,
) -> Result<Option<Output>, Failure> {
    let output = RefCell::new(output);
    let outcome = RefCell::new(None);
    let handler = Asking {
        commands: commands.join("\n") + "\n",
        left: commands.len(),
        connected: false,
        heard: false,
        output: &output,
        outcome: &outcome,
    };
    let limits = Limits {
        connect_timeout: PATIENCE,
        idle_timeout: Some(PATIENCE),
        linger: Duration::ZERO,
        max_line: LINE,
        ..Limits::default()
    };
    let mut reactor = Reactor::new()?;
    let service = reactor.add(handler, limits)?;
    reactor.set_name(&service, "asking");
    reactor.connect(&service, path)?;
    let _ = reactor.run()?;
    drop(reactor);
    let mut output = output.into_inner();
    let outcome = outcome.into_inner().unwrap_or(Outcome::Answered);
    let printed = output.flush();
    let outcome = match (outcome, printed) {
        (Outcome::Answered, Err(error)) => Outcome::Unprintable(error),
        (outcome, _) => outcome,
    };
    match outcome {
        Outcome::Answered => Ok(Some(output)),
        Outcome::Unprintable(error) if error.kind() == ErrorKind::BrokenPipe => Ok(None),
        Outcome::Unprintable(error) => Err(Failure::Runtime(format!(
            "standard output cannot be written: {error}; redirect it with >FILE"
        ))),
        Outcome::Refused(why) => Err(Failure::Runtime(format!("{}: {why}", path.display()))),
        Outcome::Broken { connected, heard, reason, error } => Err(Failure::Runtime(format!(
            "{}: {}",
            path.display(),
            match (connected, heard) {
                (false, _) => format!(
                    "{}; reactor status shows the servers that run",
                    unreachable(&Address::Unix(path.into()), reason, error)
                ),
                _ if reason == CloseReason::IdleTimeout => {
                    format!(
                        "it says nothing for {PATIENCE:?}; is it stopped, or another program's?"
                    )
                }
                (_, false) => {
                    "it closes without a word; only the server's own user and root may ask"
                        .to_owned()
                }
                _ => format!(
                    "it broke off: {}",
                    error.map_or(reason.to_string(), |it| it.to_string())
                ),
            }
        ))),
    }
}
