//! Line protocols as data: a file says what a client sends and what must come back, `check` judges a server
//! by it and `load` speaks it. docs/check.md teaches the files. Read in this order:
//!
//! 1. `pattern`: a line with places in it. `shown`: bytes for people.
//! 2. `script`: the steps of a dialogue.
//! 3. `dialogue`: one client in one of them, without a socket.
//! 4. `file`: the TOML, strictly.
//!
//! Those of our services are files of this kind too, beside this one.

mod dialogue;
mod file;
mod pattern;
mod script;
mod shown;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;

pub(crate) use self::dialogue::{Dialogue, Mismatch, Next};
use self::pattern::Pattern;
pub(crate) use self::script::{Script, Written};
pub(crate) use self::shown::shown;
use super::failure::Failure;

/// Those of our services.
const OURS: [(&str, &str); 5] = [
    ("echo", include_str!("echo.toml")),
    ("time", include_str!("time.toml")),
    ("presence", include_str!("presence.toml")),
    ("roulette", include_str!("roulette.toml")),
    ("roulette2", include_str!("roulette2.toml")),
];

/// Bytes of the longest file.
const LONGEST_FILE: u64 = 1 << 20;

/// What a line ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LineEnd {
    #[default]
    Lf,
    CrLf,
}

impl LineEnd {
    pub(crate) fn bytes(self) -> &'static [u8] {
        match self {
            LineEnd::Lf => b"\n",
            LineEnd::CrLf => b"\r\n",
        }
    }
}

/// What a server says, and what is said to it.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    pub(crate) name: String,
    /// In both directions.
    pub(crate) line_end: LineEnd,
    /// The lines that every client gets first.
    greeting: Vec<Pattern>,
    /// Lines that may come at any time, because of other clients.
    ignored: Vec<Pattern>,
    /// Kinds of client that it promises nothing for.
    pub(crate) left_out: Vec<String>,
    /// At least one, unless there is a greeting.
    pub(crate) dialogues: Vec<Script>,
}

impl Protocol {
    /// By the name of a service of ours, or else from a file.
    pub(crate) fn named(name: &str) -> Result<Protocol, Failure> {
        if let Some((_, text)) = OURS.iter().find(|(ours, _)| *ours == name) {
            return Protocol::parse(text, name).map_err(Failure::Runtime);
        }
        let path = Path::new(name);
        let failure = |why: String| Failure::Runtime(format!("--protocol {name}: {why}"));
        let file = fs::File::open(path).map_err(|error| {
            let ours = OURS.map(|(name, _)| name).join(", ");
            failure(format!("{error}; give a file, or one of {ours}"))
        })?;
        let mut bytes = Vec::new();
        let read = file.take(LONGEST_FILE + 1).read_to_end(&mut bytes);
        read.map_err(|error| failure(error.to_string()))?;
        if bytes.len() as u64 > LONGEST_FILE {
            return Err(failure(format!(
                "it has more than {LONGEST_FILE} bytes: is it a protocol?"
            )));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let end = error.utf8_error().valid_up_to();
            let line = file::line_of(&String::from_utf8_lossy(&error.as_bytes()[..end]), end);
            Failure::Runtime(format!("{name}:{line}: it is not UTF-8; a byte is written {{0xE9}}"))
        })?;
        Protocol::parse(&text, name).map_err(Failure::Runtime)
    }

    /// `origin` is what a mistake goes by, as `origin:line: what is wrong`.
    pub(crate) fn parse(text: &str, origin: &str) -> Result<Protocol, String> {
        file::parse(text).map_err(|mistake| {
            format!("{origin}:{}: {}", file::line_of(text, mistake.at), mistake.what)
        })
    }

    /// Whether some lines may come at any time.
    pub(crate) fn ignores_lines(&self) -> bool {
        !self.ignored.is_empty()
    }

    /// How many lines the greeting has.
    pub(crate) fn greeting_lines(&self) -> usize {
        self.greeting.len()
    }

    /// A line as it came, its end included, without it. Where the end is not that of the protocol, it stays as a
    /// part of the line, and so the line is wrong.
    pub(crate) fn without_end<'l>(&self, line: &'l [u8]) -> &'l [u8] {
        line.strip_suffix(self.line_end.bytes()).unwrap_or(line)
    }
}
