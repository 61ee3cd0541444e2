//! Asks a server at its control socket: a client like others, written with the library.

use std::cell::RefCell;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use reactor::text::printable;
use reactor::{Address, CloseReason, Context, Handler, Limits, Reactor};

use super::admin::{check_folder, folders, socket_of};
use super::failure::{Failure, unreachable};

/// How long a server may take to say something.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest line of an answer: what is said of all services is one in JSON.
const LINE: usize = 1 << 24;

/// The control socket that goes by a PID or a path.
pub(crate) fn find(server: &str) -> Result<PathBuf, Failure> {
    if server.strip_prefix("unix:").unwrap_or(server).is_empty() {
        let why = "the server is missing: write its PID, or the PATH of its control socket";
        return Err(Failure::Usage(why.to_owned()));
    }
    let Ok(pid) = server.parse() else {
        return Ok(server.strip_prefix("unix:").unwrap_or(server).into());
    };
    let folders = folders();
    if let Some(folder) = folders.iter().find(|folder| socket_of(folder, pid).exists()) {
        check_folder(folder).map_err(Failure::Runtime)?;
        return Ok(socket_of(folder, pid));
    }
    Err(Failure::Runtime(format!(
        "no server {pid} of this user has its control socket in {}; reactor status shows those that \
         run, and one with --admin PATH goes by its PATH",
        list(&folders)
    )))
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
    /// An empty line goes before the next one.
    separate: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Output {
        let raw = json && !io::stdout().is_terminal();
        Output { stdout: BufWriter::new(io::stdout().lock()), raw, separate: false }
    }

    /// What comes next is about something else.
    pub(crate) fn separate(&mut self) {
        self.separate = true;
    }

    /// Prints one line of this program's own.
    pub(crate) fn say(mut self, line: &str) -> Result<ExitCode, Failure> {
        match self.line(line.as_bytes()).and_then(|()| self.stdout.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(unprintable(&error)),
            _ => Ok(ExitCode::SUCCESS),
        }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if std::mem::take(&mut self.separate) && !self.raw {
            self.stdout.write_all(b"\n")?;
        }
        match self.raw {
            true => self.stdout.write_all(line)?,
            false => self.stdout.write_all(printable(line).as_bytes())?,
        }
        self.stdout.write_all(b"\n")
    }
}

/// How a question ended.
pub(crate) enum Answer {
    Printed,
    /// Nobody reads the output any more.
    Unread,
    /// The server is not there, or has gone before it said anything.
    Gone(Failure),
}

/// What came of it, as the handler knows it.
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

fn unprintable(error: &io::Error) -> Failure {
    Failure::Runtime(format!("standard output cannot be written: {error}; redirect it with >FILE"))
}

/// Sends the commands, and prints their answers with an empty line between them. This loop serves nobody
/// else, so it may wait for stdout.
struct Asking<'a> {
    commands: String,
    /// Answers that are still to come.
    left: usize,
    connected: bool,
    heard: bool,
    output: &'a mut Output,
    outcome: &'a RefCell<Option<Outcome>>,
}

impl Asking<'_> {
    fn end(&self, cx: &mut Context<'_, ()>, outcome: Outcome) {
        *self.outcome.borrow_mut() = Some(outcome);
        cx.close();
    }

    fn print(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        if let Err(error) = self.output.line(line) {
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
                _ => self.output.separate(),
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

/// Asks, and prints the answers.
pub(crate) fn ask(path: &Path, commands: &[&str], output: &mut Output) -> Result<Answer, Failure> {
    ask_within(PATIENCE, path, commands, output)
}

/// The same for what may take the server longer than most.
pub(crate) fn ask_within(
    patience: Duration,
    path: &Path,
    commands: &[&str],
    output: &mut Output,
) -> Result<Answer, Failure> {
    let outcome = RefCell::new(None);
    let handler = Asking {
        commands: commands.join("\n") + "\n",
        left: commands.len(),
        connected: false,
        heard: false,
        output: &mut *output,
        outcome: &outcome,
    };
    let limits = Limits {
        connect_timeout: patience,
        idle_timeout: Some(patience),
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
    let outcome = match (outcome.into_inner(), output.stdout.flush()) {
        (None | Some(Outcome::Answered), Err(error)) => Outcome::Unprintable(error),
        (outcome, _) => outcome.unwrap_or(Outcome::Answered),
    };
    let failure = |why: String| Failure::Runtime(format!("{}: {why}", path.display()));
    match outcome {
        Outcome::Answered => Ok(Answer::Printed),
        Outcome::Unprintable(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Answer::Unread),
        Outcome::Unprintable(error) => Err(unprintable(&error)),
        Outcome::Refused(why) => Err(failure(why)),
        Outcome::Broken { reason: CloseReason::IdleTimeout, .. } => {
            Err(failure(format!("it says nothing for {patience:?}; is it stopped?")))
        }
        Outcome::Broken { reason: CloseReason::LineTooLong, .. } => Err(failure(format!(
            "a line of its answer has more than {LINE} bytes; is it a server's?"
        ))),
        Outcome::Broken { connected: false, reason, error, .. } => {
            let why = unreachable(&Address::Unix(path.into()), reason, error);
            Ok(Answer::Gone(failure(why + "; reactor status shows the servers that run")))
        }
        Outcome::Broken { heard: false, .. } => {
            let why = "it closes without a word; only the server's own user and root may ask";
            Ok(Answer::Gone(failure(why.to_owned())))
        }
        Outcome::Broken { reason, error, .. } => {
            let why = error.map_or_else(|| reason.to_string(), |error| error.to_string());
            Err(failure(format!("its answer broke off: {why}")))
        }
    }
}
