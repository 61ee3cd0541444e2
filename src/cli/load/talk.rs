//! What is said to servers that are not ours, as options.

use super::dialogues::scripts;
use super::greeting::Greeting;
use super::options::Mode;
use crate::cli::failure::Failure;
use crate::cli::protocol::{LineEnd, Protocol, Written};

/// The options.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Servers that are not ours")]
pub(crate) struct Talk {
    /// The server sends back what comes, as echo servers do that are not ours: no greeting, no mark in front
    /// of the replies, no BYE.
    #[arg(long, conflicts_with_all = ["send", "script"])]
    pub(crate) plain: bool,

    /// What each request says: a line in which {client} stands for the number of the client, from 0 on, an
    /// n in such braces for that of its request, from 1 on, {1000*ab} for ab a thousand times, {0xE9} for that byte,
    /// and {{ for a {.
    #[arg(long, value_name = "LINE", requires = "expect", conflicts_with = "script")]
    send: Option<String>,

    /// The line that must come back, with the same places; {any} stands for anything. Where several lines
    /// answer a request, give one --expect for each. They may end with LF or CRLF.
    #[arg(long, value_name = "LINE", requires = "send")]
    expect: Vec<String>,

    /// The clients speak the dialogues of this file, as check has them, or of the service of ours that has
    /// this name. A latency is a round of a dialogue. Dialogues that end the connection are left out.
    ///
    /// Each client has one of them, by turns, and repeats it. In the mode pipeline a round does not wait for
    /// the one before.
    #[arg(long, visible_alias = "protocol", value_name = "FILE")]
    script: Option<String>,

    /// End what --send says with CRLF, for protocols that insist on it.
    #[arg(long, requires = "send")]
    crlf: bool,

    /// The server says this first: TEXT is the line, with \n between several, LINES is how many, whatever
    /// they say [default: as the service of the mode or the script does; none with --plain and --send].
    #[arg(long, value_name = "TEXT|LINES", value_parser = Greeting::parse, conflicts_with = "script")]
    greeting: Option<Greeting>,

    /// The server says nothing before it is asked.
    #[arg(long, conflicts_with_all = ["greeting", "script"])]
    no_greeting: bool,
}

impl Talk {
    /// What the server says first, if the options say.
    pub(crate) fn greeting(&self) -> Option<Greeting> {
        if self.no_greeting { Some(Greeting::None) } else { self.greeting.clone() }
    }

    /// What is counted as lines.
    pub(crate) fn counted(&self) -> &'static str {
        match (&self.script, &self.send) {
            (Some(_), _) => "rounds",
            (None, Some(_)) => "replies",
            (None, None) => "lines",
        }
    }

    /// What the server was asked to speak, unless that is the service of the mode.
    pub(crate) fn name(&self) -> Option<&str> {
        self.script.as_deref().or(self.send.as_deref()).or(self.plain.then_some("plain"))
    }

    /// What is said, for people. None where the lines are those of an echo service.
    pub(crate) fn words(&self) -> Option<String> {
        match (&self.script, &self.send) {
            (Some(script), _) => Some(format!("rounds of {script}")),
            (None, Some(send)) => Some(format!("{send:?}")),
            (None, None) => None,
        }
    }

    /// Whether a line that is received may end with either of LF and CRLF. That judges whether the server is
    /// fast, not its line ends; and behind the head of HTTP, whose lines end with CRLF, comes any body.
    pub(crate) fn is_lenient(&self, protocol: &Protocol) -> bool {
        self.send.is_some() || protocol.line_end == LineEnd::CrLf
    }

    /// What the clients say, if that is no echo. It is refused where the mode can do nothing with it.
    pub(crate) fn protocol(&self, mode: Mode) -> Result<Option<Protocol>, Failure> {
        let protocol = match (&self.script, &self.send) {
            (Some(name), _) => Protocol::named(name)?,
            (None, Some(send)) => {
                let expect = self.expect.iter().map(|line| Written::Expect(line));
                let steps: Vec<_> = [Written::Send(send)].into_iter().chain(expect).collect();
                let made = Protocol::of_steps(send, &steps);
                let line_end = if self.crlf { LineEnd::CrLf } else { LineEnd::Lf };
                let named = |why| Failure::Usage(format!("--send and --expect: {why}"));
                let mut protocol = made.map_err(named)?;
                protocol.line_end = line_end;
                protocol
            }
            (None, None) => return Ok(None),
        };
        let usage = |text: String| Err(Failure::Usage(text));
        if scripts(&protocol).next().is_none() {
            let name = &protocol.name;
            return usage(format!(
                "--script: {name} has no dialogue that can be repeated on a connection: add one without end"
            ));
        }
        for script in scripts(&protocol) {
            let name = &script.name;
            if script.lines().1 == 0 {
                return usage(format!(
                    "--script: the dialogue {name:?} expects nothing, so nothing can be measured"
                ));
            }
            if mode == Mode::Pipeline && script.ahead(0, 0, protocol.line_end).is_none() {
                return usage(format!(
                    "--script: the dialogue {name:?} says what the server said before, so it cannot be pipelined: \
                     leave out --mode pipeline"
                ));
            }
        }
        Ok(Some(protocol))
    }
}
