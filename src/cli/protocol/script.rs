//! The steps of a dialogue.

use super::pattern::{Names, Pattern, Values};
use super::{LineEnd, Protocol};

/// A step as it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Written<'t> {
    Send(&'t str),
    SendRaw(&'t str),
    Expect(&'t str),
    EndByClient,
    EndByServer,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A line.
    Send(Pattern),
    /// These bytes, whatever they end with.
    SendRaw(Pattern),
    /// This line must come.
    Expect(Pattern),
    /// The client has nothing more to say, and listens on.
    EndByClient,
    /// The server must end the connection.
    EndByServer,
}

impl Step {
    fn parse(written: Written<'_>, names: &mut Names) -> Result<Step, String> {
        let line = |text: &str, other: &str| match text.contains('\n') {
            true => Err(format!("a line holds no LF: {other}")),
            false => Ok(()),
        };
        match written {
            Written::Send(text) => {
                line(text, "write two steps, or send_raw for bytes as they are")?;
                Pattern::to_send(text, names).map(Step::Send)
            }
            Written::SendRaw(text) => Pattern::to_send(text, names).map(Step::SendRaw),
            Written::Expect(text) => {
                line(text, "write two steps")?;
                Pattern::to_expect(text, names).map(Step::Expect)
            }
            Written::EndByClient => Ok(Step::EndByClient),
            Written::EndByServer => Ok(Step::EndByServer),
        }
    }
}

/// A dialogue as it is written: what one client says, and what it must hear.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) name: String,
    /// What it is good for, in a sentence.
    pub(crate) why: Option<String>,
    pub(super) steps: Vec<Step>,
}

impl Script {
    /// `names` are those that the greeting captures. A mistake is told with the number of its step.
    pub(crate) fn parse(
        name: &str,
        why: Option<String>,
        steps: &[Written<'_>],
        names: &Names,
    ) -> Result<Script, (usize, String)> {
        let mut names = names.clone();
        let parse = |(number, written): (usize, &Written<'_>)| {
            Step::parse(*written, &mut names).map_err(|what| (number, what))
        };
        let steps = steps.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
        for (number, step) in steps.iter().enumerate() {
            let rest = &steps[number + 1..];
            let what = match step {
                Step::EndByServer if !rest.is_empty() => {
                    "after the end by the server nothing comes"
                }
                Step::EndByClient if rest.iter().any(Step::is_from_client) => {
                    "after the end by the client it says nothing"
                }
                _ => continue,
            };
            return Err((number + 1, format!("{what}: leave out this step")));
        }
        Ok(Script { name: name.to_owned(), why, steps })
    }

    /// Whether the connection goes on behind it.
    pub(crate) fn goes_on(&self) -> bool {
        !self.steps.iter().any(|step| matches!(step, Step::EndByClient | Step::EndByServer))
    }

    /// How many lines a round of it sends, and how many it expects.
    pub(crate) fn lines(&self) -> (usize, usize) {
        let of = |wanted: fn(&Step) -> bool| self.steps.iter().filter(|step| wanted(step)).count();
        (of(Step::is_sent), of(|step| matches!(step, Step::Expect(_))))
    }

    /// How many bytes a round of it is answered with at least, line ends counted.
    pub(crate) fn least_reply(&self) -> usize {
        let of = |step: &Step| match step {
            Step::Expect(pattern) => pattern.least() + 1,
            _ => 0,
        };
        self.steps.iter().map(of).sum()
    }

    /// All that a round of it sends, or none if that depends on what the server says.
    pub(crate) fn ahead(&self, client: u64, n: u64, line_end: LineEnd) -> Option<Vec<u8>> {
        let values = Values::new(client, n);
        let mut bytes = Vec::new();
        for step in &self.steps {
            match step {
                Step::Send(pattern) | Step::SendRaw(pattern) if pattern.needs_captures() => {
                    return None;
                }
                Step::Send(pattern) => {
                    bytes.extend(pattern.fill(&values));
                    bytes.extend_from_slice(line_end.bytes());
                }
                Step::SendRaw(pattern) => bytes.extend(pattern.fill(&values)),
                Step::Expect(_) | Step::EndByClient | Step::EndByServer => {}
            }
        }
        Some(bytes)
    }
}

impl Step {
    fn is_sent(&self) -> bool {
        matches!(self, Step::Send(_) | Step::SendRaw(_))
    }

    fn is_from_client(&self) -> bool {
        self.is_sent() || matches!(self, Step::EndByClient)
    }
}

impl Protocol {
    /// One that is nothing but this dialogue.
    pub(crate) fn of_steps(name: &str, steps: &[Written<'_>]) -> Result<Protocol, String> {
        let script = Script::parse(name, None, steps, &Names::default());
        Ok(Protocol {
            name: name.to_owned(),
            line_end: LineEnd::Lf,
            greeting: Vec::new(),
            ignored: Vec::new(),
            left_out: Vec::new(),
            dialogues: vec![script.map_err(|(_, what)| what)?],
        })
    }
}
