//! Protocols as TOML. Unknown keys, wrong types and dialogues that say nothing are refused, each with its
//! line and what to write.

use std::collections::HashSet;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::pattern::{Names, Pattern, repeated};
use super::script::{Script, Written};
use super::{LineEnd, Protocol};

/// Bytes that all repetitions of a file may make.
const MOST_REPEATED: usize = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Spanned<String>,
    #[serde(default)]
    line_end: LineEnd,
    #[serde(default)]
    greeting: Vec<Spanned<String>>,
    #[serde(default)]
    ignore: Vec<Spanned<String>>,
    #[serde(default)]
    leave_out: Vec<String>,
    #[serde(default)]
    dialogue: Vec<Spanned<FileDialogue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileDialogue {
    name: Spanned<String>,
    why: Option<String>,
    steps: Spanned<Vec<Spanned<FileStep>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileStep {
    send: Option<String>,
    send_raw: Option<String>,
    expect: Option<String>,
    end: Option<End>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum End {
    Client,
    Server,
}

impl FileStep {
    fn written(&self) -> Option<Written<'_>> {
        Some(match (&self.send, &self.send_raw, &self.expect, self.end) {
            (Some(text), None, None, None) => Written::Send(text),
            (None, Some(text), None, None) => Written::SendRaw(text),
            (None, None, Some(text), None) => Written::Expect(text),
            (None, None, None, Some(End::Client)) => Written::EndByClient,
            (None, None, None, Some(End::Server)) => Written::EndByServer,
            _ => return None,
        })
    }

    fn text(&self) -> Option<&str> {
        self.send.as_deref().or(self.send_raw.as_deref()).or(self.expect.as_deref())
    }
}

/// What is wrong with a file, and at which byte.
pub(super) struct Mistake {
    pub(super) at: usize,
    pub(super) what: String,
}

fn mistake(place: Range<usize>, what: impl Into<String>) -> Mistake {
    Mistake { at: place.start, what: what.into() }
}

/// The number of the line that this byte is in.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

pub(super) fn parse(text: &str) -> Result<Protocol, Mistake> {
    let file: File = toml::from_str(text).map_err(|error| {
        let what = error.message().lines().collect::<Vec<_>>().join("; ");
        mistake(error.span().unwrap_or_default(), what)
    })?;
    named(&file.name)?;
    bounded(&file)?;
    let mut names = Names::default();
    let lines = |written: &[Spanned<String>], names: &mut Names| {
        let parse = |text: &Spanned<String>| match text.get_ref().contains('\n') {
            true => Err(mistake(text.span(), "a line holds no LF: write two lines")),
            false => {
                Pattern::to_expect(text.get_ref(), names).map_err(|what| mistake(text.span(), what))
            }
        };
        written.iter().map(parse).collect::<Result<Vec<_>, _>>()
    };
    let greeting = lines(&file.greeting, &mut names)?;
    // What these capture is nobody's business.
    let ignored = lines(&file.ignore, &mut names.clone())?;
    let mut taken = HashSet::new();
    let mut dialogues = Vec::new();
    for dialogue in &file.dialogue {
        let FileDialogue { name, why, steps } = dialogue.get_ref();
        named(name)?;
        if !taken.insert(name.get_ref()) {
            let what = format!(
                "another dialogue is called {name:?}: choose another name",
                name = name.get_ref()
            );
            return Err(mistake(name.span(), what));
        }
        dialogues.push(script(name.get_ref(), why.clone(), steps, &names)?);
    }
    if greeting.is_empty() && dialogues.is_empty() {
        let what = "there is nothing to judge by: add a greeting or a [[dialogue]]";
        return Err(mistake(0..0, what));
    }
    let name = file.name.into_inner();
    Ok(Protocol {
        name,
        line_end: file.line_end,
        greeting,
        ignored,
        left_out: file.leave_out,
        dialogues,
    })
}

/// Refuses what is short as a file and fills the memory.
fn bounded(file: &File) -> Result<(), Mistake> {
    let lines = file.greeting.iter().chain(&file.ignore);
    let lines = lines.map(|line| (line.span(), line.get_ref().as_str()));
    let steps = file.dialogue.iter().flat_map(|dialogue| dialogue.get_ref().steps.get_ref());
    let steps = steps.filter_map(|step| Some((step.span(), step.get_ref().text()?)));
    let mut length: usize = 0;
    for (place, text) in lines.chain(steps) {
        length = length.saturating_add(repeated(text));
        if length > MOST_REPEATED {
            let what = format!(
                "up to here the repetitions make more than {MOST_REPEATED} bytes: write less"
            );
            return Err(mistake(place, what));
        }
    }
    Ok(())
}

fn script(
    name: &str,
    why: Option<String>,
    steps: &Spanned<Vec<Spanned<FileStep>>>,
    names: &Names,
) -> Result<Script, Mistake> {
    if steps.get_ref().is_empty() {
        let what =
            "the dialogue is empty: write steps, as { send = \"hello\" }, { expect = \"HELLO\" }";
        return Err(mistake(steps.span(), what));
    }
    let mut written = Vec::new();
    for step in steps.get_ref() {
        let what = "a step has one key: send, send_raw, expect or end";
        written.push(step.get_ref().written().ok_or_else(|| mistake(step.span(), what))?);
    }
    Script::parse(name, why, &written, names)
        .map_err(|(number, what)| mistake(steps.get_ref()[number].span(), what))
}

/// Names stand in reports, a line each.
fn named(name: &Spanned<String>) -> Result<(), Mistake> {
    let text = name.get_ref();
    match text.is_empty() || text.chars().count() > 30 || text.chars().any(char::is_control) {
        true => Err(mistake(name.span(), "a name has from 1 to 30 characters, on one line")),
        false => Ok(()),
    }
}
