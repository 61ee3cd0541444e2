//! What is said of each kind of client: to people, or as JSON.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use serde_json::json;

use super::kinds::{DIALOGUE, GREETING, KINDS};
use super::lab::Verdict;
use crate::cli::failure::Failure;
use crate::cli::protocol::Protocol;

/// Columns of the text.
const WIDTH: usize = 80;

#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) does: String,
    pub(super) why: String,
    pub(super) verdict: Verdict,
}

#[derive(Debug)]
pub(super) struct Report<'l> {
    pub(super) target: String,
    pub(super) protocol: &'l Protocol,
    pub(super) rows: Vec<Row>,
    pub(super) elapsed: Duration,
}

impl Report<'_> {
    pub(super) fn failed(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Fail(_)))
    }

    fn count(&self, is: impl Fn(&Verdict) -> bool) -> usize {
        self.rows.iter().filter(|row| is(&row.verdict)).count()
    }

    fn counts(&self) -> [usize; 3] {
        let passed = self.count(|verdict| matches!(verdict, Verdict::Pass(_)));
        let notes = self.count(|verdict| matches!(verdict, Verdict::Note(_)));
        [passed, self.failed(), notes]
    }

    pub(super) fn json(&self) -> String {
        let [passed, failed, notes] = self.counts();
        let results = self.rows.iter().map(|row| {
            let Row { name, does, why, verdict } = row;
            match verdict {
                Verdict::Pass(said) => {
                    json!({ "name": name, "verdict": "pass", "does": does, "why": why, "said": said })
                }
                Verdict::Note(said) => {
                    json!({ "name": name, "verdict": "note", "does": does, "why": why, "said": said })
                }
                Verdict::Fail(finding) => json!({
                    "name": name, "verdict": "fail", "does": does, "why": why,
                    "sent": finding.sent, "expected": finding.expected, "came": finding.came,
                }),
            }
        });
        let object = json!({
            "target": self.target, "protocol": self.protocol.name,
            "passed": passed, "failed": failed, "notes": notes,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "results": results.collect::<Vec<_>>(),
        });
        format!("{object}\n")
    }

    pub(super) fn text(&self) -> String {
        let paint = Paint::new();
        let names = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        let mut text = format!("{} at {}\n\n", self.protocol.name, self.target);
        for row in &self.rows {
            let name = format!("{:<names$}", row.name);
            match &row.verdict {
                Verdict::Pass(said) => {
                    wrapped(
                        &mut text,
                        &format!("{}  {name}  ", paint.green("pass")),
                        8 + names,
                        said,
                    );
                }
                Verdict::Note(said) => {
                    wrapped(&mut text, &format!("note  {name}  "), 8 + names, said);
                }
                Verdict::Fail(finding) => {
                    wrapped(
                        &mut text,
                        &format!("{}  {name}  ", paint.red("FAIL")),
                        8 + names,
                        &row.does,
                    );
                    for (what, said) in [
                        ("sent", &finding.sent),
                        ("expected", &finding.expected),
                        ("came", &finding.came),
                        ("why", &row.why),
                    ] {
                        wrapped(&mut text, &format!("      {what:<8}  "), 16, said);
                    }
                }
            }
        }
        let [passed, failed, notes] = self.counts();
        let of_notes = if notes == 1 { "note" } else { "notes" };
        let seconds = self.elapsed.as_secs_f64();
        text.push_str(&format!(
            "\n{passed} passed, {failed} failed, {notes} {of_notes} in {seconds:.1} s\n"
        ));
        text
    }
}

/// The kinds of client, and what each does.
pub(super) fn list(protocol: &Protocol) -> String {
    let dialogues = protocol.dialogues.iter().map(|script| (script.name.as_str(), DIALOGUE));
    let kinds = KINDS.iter().map(|kind| (kind.name, kind.does));
    let all: Vec<_> =
        [(GREETING.name, GREETING.does)].into_iter().chain(dialogues).chain(kinds).collect();
    let width = all.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, does) in all {
        wrapped(&mut text, &format!("{name:<width$}  "), width + 2, does);
    }
    text
}

/// Appends words behind a head of so many columns, over as many lines as it takes.
fn wrapped(text: &mut String, head: &str, indent: usize, words: &str) {
    let room = WIDTH.saturating_sub(indent).max(20);
    let mut column = 0;
    text.push_str(head);
    // Reasons are a file's, and may be anything.
    let words = reactor::text::printable(words.as_bytes());
    for (number, word) in words.split(' ').enumerate() {
        let mut word = word;
        if number > 0 && column + 1 + word.chars().count() > room {
            text.push_str(&format!("\n{:indent$}", ""));
            column = 0;
        } else if number > 0 {
            text.push(' ');
            column += 1;
        }
        // What has no blank is cut where it must be.
        while let Some((end, _)) = word.char_indices().nth(room - column) {
            text.push_str(&format!("{}\n{:indent$}", &word[..end], ""));
            (word, column) = (&word[end..], 0);
        }
        text.push_str(word);
        column += word.chars().count();
    }
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

/// Colours, on a terminal only.
struct Paint(bool);

impl Paint {
    fn new() -> Paint {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        Paint(!plain && io::stdout().is_terminal())
    }

    fn green(&self, text: &str) -> String {
        self.coloured("32", text)
    }

    fn red(&self, text: &str) -> String {
        self.coloured("1;31", text)
    }

    fn coloured(&self, colour: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    printed.map_err(|error| Failure::Runtime(format!("cannot write the result: {error}")))
}
