//! What all kinds of client share: the server, the protocol, the time.

use std::cell::{Cell, RefCell};
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::client::Client;
use super::server::{Server, Starter};
use super::talk::Talk;
use crate::cli::process::Usage;
use crate::cli::protocol::{LineEnd, Protocol, Script};

/// A fault of the server: what was sent, what should have come, and what did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) sent: String,
    pub(super) expected: String,
    pub(super) came: String,
}

impl Finding {
    /// What was done before what it says was sent.
    pub(super) fn after(self, what: &str) -> Finding {
        Finding { sent: format!("{what}; then {}", self.sent), ..self }
    }
}

/// What is said of one kind of client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// With what was seen.
    Pass(String),
    Fail(Finding),
    /// It was not tried or cannot be judged, and why.
    Note(String),
}

impl From<Finding> for Verdict {
    fn from(finding: Finding) -> Verdict {
        Verdict::Fail(finding)
    }
}

/// A verdict, or the finding that made it early.
pub(super) type Judged = Result<Verdict, Finding>;

pub(super) fn pass(text: impl Into<String>) -> Judged {
    Ok(Verdict::Pass(text.into()))
}

pub(super) fn note(text: impl Into<String>) -> Judged {
    Ok(Verdict::Note(text.into()))
}

#[derive(Debug)]
pub(super) struct Lab {
    pub(super) address: SocketAddr,
    pub(super) protocol: Protocol,
    /// How long a reply may take.
    pub(super) patience: Duration,
    /// When all must be over.
    pub(super) deadline: Instant,
    pub(super) server_pid: Option<u32>,
    /// How the server is started, if that is our business.
    pub(super) starter: Option<Starter>,
    /// That which was started here.
    pub(super) server: RefCell<Option<Server>>,
    /// Each client has a number of its own.
    pub(super) clients: Cell<u64>,
}

impl Lab {
    pub(super) fn number(&self) -> u64 {
        self.clients.set(self.clients.get() + 1);
        self.clients.get()
    }

    /// Until when a reply must have come.
    pub(super) fn soon(&self) -> Instant {
        self.within(self.patience)
    }

    pub(super) fn within(&self, duration: Duration) -> Instant {
        (Instant::now() + duration).min(self.deadline)
    }

    pub(super) fn connect(&self) -> Result<Client, Finding> {
        Client::connect(self.address, self.soon()).map_err(unconnected)
    }

    /// Whether nobody listens there any more.
    pub(super) fn is_gone(&self) -> bool {
        let connect = Client::connect(self.address, self.soon());
        connect.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    }

    pub(super) fn connect_narrow(&self) -> Result<Client, Finding> {
        Client::connect_narrow(self.address, self.soon()).map_err(unconnected)
    }

    /// The dialogue that the kinds of client hold: the first that leaves the connection open.
    pub(super) fn usual(&self) -> Option<&Script> {
        self.protocol.dialogues.first().filter(|script| script.goes_on())
    }

    /// So many rounds of the usual dialogue, as bytes; none if it sends nothing, or if what it sends depends
    /// on what comes.
    pub(super) fn rounds(&self, client: u64, count: u64) -> Option<Vec<u8>> {
        let script = self.usual()?;
        let rounds = (1..=count).map(|n| script.ahead(client, n, self.protocol.line_end));
        let bytes = rounds.collect::<Option<Vec<_>>>()?.concat();
        (!bytes.is_empty()).then_some(bytes)
    }

    /// The other way to end a line.
    pub(super) fn other_line_end(&self) -> LineEnd {
        match self.protocol.line_end {
            LineEnd::Lf => LineEnd::CrLf,
            LineEnd::CrLf => LineEnd::Lf,
        }
    }

    /// Whether a newcomer is served, after all that was done; `what` says what that was.
    pub(super) fn serves_after(&self, what: &str) -> Result<(), Finding> {
        let Some(script) = self.usual() else { return Ok(()) };
        let talk = Talk::begin(self, script).and_then(|mut talk| talk.finish(self.soon()));
        talk.map_err(|finding| finding.after(&format!("{what}; a new client")))
    }

    fn pid(&self) -> Option<u32> {
        let started = self.server.borrow().as_ref().map(Server::pid);
        started.or(self.server_pid)
    }

    /// Resident memory of the server, in bytes.
    pub(super) fn memory(&self) -> Option<u64> {
        Some(Usage::of(self.pid()?)?.memory)
    }

    /// Open descriptors of the server.
    pub(super) fn descriptors(&self) -> Option<usize> {
        Some(fs::read_dir(format!("/proc/{}/fd", self.pid()?)).ok()?.count())
    }
}

/// What a failed connect means.
pub(super) fn unconnected(error: std::io::Error) -> Finding {
    use std::io::ErrorKind::{ConnectionRefused, TimedOut};
    let came = match error.kind() {
        ConnectionRefused => "a refusal: nobody listens there any more".to_owned(),
        TimedOut => "no answer: its queue of newcomers is full, and it accepts nobody".to_owned(),
        _ => error.to_string(),
    };
    Finding { sent: "a connect".to_owned(), expected: "a connection".to_owned(), came }
}
