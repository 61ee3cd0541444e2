//! One client in a dialogue, without a socket: it says what is to be done next, and is told what came.

use super::pattern::{Pattern, Values};
use super::script::{Script, Step};
use super::shown::shown;
use super::{LineEnd, Protocol};

/// What the client has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Send these bytes. They are given once.
    Send(Vec<u8>),
    /// End its own side. This is told once.
    End,
    /// Wait for a line.
    AwaitLine,
    /// Wait until the server ends the connection.
    AwaitEnd,
    /// The round is over.
    Done,
}

/// The server has said something else than it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    pub(crate) expected: String,
    pub(crate) came: String,
}

/// A client's way through the greeting and the steps of a script, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Dialogue<'p> {
    protocol: &'p Protocol,
    steps: &'p [Step],
    /// What comes next, the lines of the greeting counted.
    at: usize,
    values: Values,
    line_end: LineEnd,
}

impl<'p> Dialogue<'p> {
    /// It begins with the greeting.
    pub(crate) fn new(protocol: &'p Protocol, script: &'p Script, client: u64) -> Dialogue<'p> {
        Dialogue { steps: &script.steps, ..Dialogue::greeting(protocol, client) }
    }

    /// Nothing but the greeting.
    pub(crate) fn greeting(protocol: &'p Protocol, client: u64) -> Dialogue<'p> {
        let values = Values::new(client, 1);
        Dialogue { protocol, steps: &[], at: 0, values, line_end: protocol.line_end }
    }

    /// Ends what it sends with something else than the protocol does.
    pub(crate) fn set_line_end(&mut self, line_end: LineEnd) {
        self.line_end = line_end;
    }

    /// Begins a round of this script behind the greeting, with the next {n}.
    pub(crate) fn begin_round(&mut self, script: &'p Script) {
        self.steps = &script.steps;
        self.at = self.protocol.greeting.len();
        self.values.n += 1;
    }

    /// The number of this round; each has the next one otherwise.
    pub(crate) fn set_round(&mut self, n: u64) {
        self.values.n = n;
    }

    /// Whether the greeting is behind it.
    pub(crate) fn is_greeted(&self) -> bool {
        self.at >= self.protocol.greeting.len()
    }

    pub(crate) fn next(&mut self) -> Next {
        let next = match self.step() {
            None => Next::AwaitLine,
            Some(None) => Next::Done,
            Some(Some(Step::Send(pattern))) => {
                let mut bytes = pattern.fill(&self.values);
                bytes.extend_from_slice(self.line_end.bytes());
                Next::Send(bytes)
            }
            Some(Some(Step::SendRaw(pattern))) => Next::Send(pattern.fill(&self.values)),
            Some(Some(Step::Expect(_))) => Next::AwaitLine,
            Some(Some(Step::EndByClient)) => Next::End,
            Some(Some(Step::EndByServer)) => Next::AwaitEnd,
        };
        if matches!(next, Next::Send(_) | Next::End) {
            self.at += 1;
        }
        next
    }

    /// A line has come, without its end.
    pub(crate) fn on_line(&mut self, line: &[u8]) -> Result<(), Mismatch> {
        // An LF in it is an end that the protocol does not have.
        let whole = !line.contains(&b'\n');
        if let Some(pattern) = self.awaited()
            && whole
            && pattern.matches(line, &mut self.values)
        {
            self.at += 1;
            return Ok(());
        }
        let mut values = self.values.clone();
        match whole && self.protocol.ignored.iter().any(|it| it.matches(line, &mut values)) {
            true => Ok(()),
            false => Err(Mismatch { expected: self.expected(), came: shown(line) }),
        }
    }

    /// The server has ended the connection; `rest` is what came behind the last line end.
    pub(crate) fn on_end(&mut self, rest: &[u8]) -> Result<(), Mismatch> {
        let awaited = matches!(self.step(), Some(None | Some(Step::EndByServer)));
        if awaited && rest.is_empty() {
            self.at += usize::from(matches!(self.step(), Some(Some(_))));
            return Ok(());
        }
        let came = match rest {
            [] => "the end of the connection".to_owned(),
            rest => format!("{} without a line end, and the end of the connection", shown(rest)),
        };
        Err(Mismatch { expected: self.expected(), came })
    }

    /// What must come next, for people.
    pub(crate) fn expected(&self) -> String {
        match (self.awaited(), self.step()) {
            (Some(pattern), _) => pattern.describe(&self.values),
            (None, Some(Some(Step::EndByServer))) => "the end of the connection".to_owned(),
            (None, _) => "nothing".to_owned(),
        }
    }

    /// The line that must come next.
    fn awaited(&self) -> Option<&'p Pattern> {
        match self.step() {
            None => self.protocol.greeting.get(self.at),
            Some(Some(Step::Expect(pattern))) => Some(pattern),
            Some(_) => None,
        }
    }

    /// None in the greeting, and none in some at the end.
    fn step(&self) -> Option<Option<&'p Step>> {
        let number = self.at.checked_sub(self.protocol.greeting.len())?;
        Some(self.steps.get(number))
    }
}
