//! The transcripts of a document, run as they are printed: one terminal after the other, on a machine
//! of their own.
//!
//! A block of ```` ```console ```` is a terminal. A line with `$ ` is a command for bash, and continues
//! after a `\`; `^C` is Ctrl-C; every other line is what is printed, where `…` stands for anything and
//! a line of it for any number of lines. Lines of the log are left out: which there are depends on the
//! machine. A comment above the block says what the eye sees by itself:
//!
//! ```text
//! <!-- needs: redis-server; typed: hello | bye; later: 1; varies: numbers, Sat; stays -->
//! ```
//!
//! * `needs`: the block is left out where this program is not installed.
//! * `typed`: lines that are typed into the program, separated by ` | `.
//! * `later`: so many lines at the end are printed only after what the next block does.
//! * `varies`: words of which any other will do. `numbers` are all numbers, and the units of time and of
//!   bytes behind them.
//! * `stays`: the program runs on until the end of the document.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use crate::util::example::binary;
use crate::util::folder::Folder;
use crate::util::program::{REACTOR, lines_of};
use crate::util::{PATIENCE, skip};

const UNITS: [&str; 12] = ["ns", "µs", "ms", "s", "B", "KiB", "MiB", "GiB", "K", "M", "m", "bytes"];

/// Stands in for cargo, which has built all of it already.
const CARGO: &str = r#"#!/bin/sh
here=$(dirname "$0")
case "$*" in
"run --release -- "*) shift 3; exec "$here/reactor" "$@" ;;
"run --example "*) name=$3; shift 3; [ "$1" = -- ] && shift; exec "$here/examples/$name" "$@" ;;
esac
echo "cargo $*: no transcript may say that" >&2
exit 2
"#;

/// One line of a transcript.
#[derive(Clone, Debug, PartialEq)]
enum Item {
    Typed(String),
    Interrupt,
    Printed(String),
}

#[derive(Debug, Default)]
struct Block {
    /// Where it begins in the document.
    place: String,
    script: String,
    items: Vec<Item>,
    typed: Vec<String>,
    later: usize,
    varies: Vec<String>,
    stays: bool,
    needs: Option<String>,
}

/// A block under way.
struct Terminal {
    block: Block,
    child: Child,
    stdin: Option<ChildStdin>,
    output: Receiver<String>,
    done: usize,
}

/// Runs all transcripts of a document, which has so many at the least.
pub fn run(document: &str, name: &str, least: usize) {
    let blocks = blocks(document, name);
    assert!(blocks.len() >= least, "{} transcripts in {name}", blocks.len());
    let folder = Folder::new("transcript");
    let bin = prepare(&folder);
    let (mut waiting, mut staying) = (None, Vec::new());
    for block in blocks {
        if block.lacks_a_program() {
            continue;
        }
        let mut terminal = Terminal::open(block, &folder, &bin);
        terminal.go_on(terminal.block.later);
        if let Some(waiting) = waiting.take() {
            finish(waiting, &mut staying);
        }
        match terminal.block.later {
            0 => finish(terminal, &mut staying),
            _ => waiting = Some(terminal),
        }
    }
    if let Some(waiting) = waiting {
        finish(waiting, &mut staying);
    }
}

fn finish(mut terminal: Terminal, staying: &mut Vec<Terminal>) {
    terminal.go_on(0);
    match terminal.block.stays {
        true => staying.push(terminal),
        false => terminal.end(),
    }
}

/// A folder with the programs that a transcript may call, to be in front of all others.
fn prepare(folder: &Folder) -> String {
    let bin = folder.file("bin");
    fs::create_dir(&bin).unwrap();
    symlink(REACTOR, bin.join("reactor")).unwrap();
    symlink(binary("hello").parent().unwrap(), bin.join("examples")).unwrap();
    fs::write(bin.join("cargo"), CARGO).unwrap();
    fs::set_permissions(bin.join("cargo"), fs::Permissions::from_mode(0o755)).unwrap();
    bin.to_str().unwrap().to_owned()
}

fn blocks(document: &str, name: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = document.lines().zip(1..).peekable();
    let mut above = "";
    while let Some((line, number)) = lines.next() {
        if line == "```console" {
            let mut block = Block { place: format!("{name}:{number}"), ..Block::default() };
            block.obey(above);
            let mut continued = false;
            for (line, _) in lines.by_ref().take_while(|(line, _)| *line != "```") {
                continued = block.add(line, continued);
            }
            block.check();
            found.push(block);
        }
        above = if line.is_empty() { above } else { line };
    }
    found
}

impl Block {
    /// Reads the comment above.
    fn obey(&mut self, comment: &str) {
        let Some(comment) = comment.strip_prefix("<!-- ").and_then(|c| c.strip_suffix(" -->"))
        else {
            return;
        };
        for part in comment.split("; ") {
            match part.split_once(": ").unwrap_or((part, "")) {
                ("typed", lines) => self.typed = lines.split(" | ").map(str::to_owned).collect(),
                ("later", count) => self.later = count.parse().unwrap(),
                ("varies", words) => self.varies = words.split(", ").map(str::to_owned).collect(),
                ("stays", "") => self.stays = true,
                ("needs", program) => self.needs = Some(program.to_owned()),
                _ => panic!("{}: {part:?} means nothing", self.place),
            }
        }
    }

    /// Whether it cannot run here. Then it is skipped.
    fn lacks_a_program(&self) -> bool {
        let Some(program) = &self.needs else { return false };
        let version = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        if version.is_err() {
            skip(&format!("{}: {program} is not installed", self.place));
        }
        version.is_err()
    }

    /// Adds a line; says whether it is continued.
    fn add(&mut self, line: &str, continued: bool) -> bool {
        let command = if continued { Some(line) } else { line.strip_prefix("$ ") };
        if let Some(command) = command {
            self.script += command;
            self.script.push('\n');
            return command.ends_with('\\');
        }
        let typed = self.items.iter().filter(|item| matches!(item, Item::Typed(_))).count();
        self.items.push(match line {
            "^C" => Item::Interrupt,
            line if self.typed.get(typed).is_some_and(|next| next == line) => {
                Item::Typed(line.to_owned())
            }
            line => Item::Printed(line.to_owned()),
        });
        false
    }

    fn check(&self) {
        let typed = self.items.iter().filter(|item| matches!(item, Item::Typed(_))).count();
        assert_eq!(typed, self.typed.len(), "{}: not all that is typed is there", self.place);
        assert!(!self.script.is_empty(), "{}: no command", self.place);
    }

    /// Whether a line is what is printed here.
    fn is(&self, printed: &str, line: &str) -> bool {
        if let Some((before, after)) = printed.split_once('…') {
            let rest = line.strip_prefix(before);
            return rest.is_some_and(|rest| after.is_empty() || rest.ends_with(after));
        }
        if self.varies.is_empty() {
            return printed == line;
        }
        let (printed, line) = (words(printed), words(line));
        let alike = |(printed, word): (&&str, &&str)| {
            let any = self.varies.iter().any(|varies| varies == printed);
            printed == word || any || self.varies[0] == "numbers" && kind(printed) == kind(word)
        };
        printed.len() == line.len() && printed.iter().zip(&line).all(alike)
    }
}

/// Numbers with their points and commas, names, and all other characters one by one. Blanks only separate.
fn words(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = line.trim();
    while let Some(first) = rest.chars().next() {
        let inside = |c: char| match first {
            '0'..='9' => c.is_ascii_digit() || c == '.' || c == ',',
            first if first.is_alphabetic() => c.is_alphabetic(),
            _ => false,
        };
        let length = rest.find(|c| !inside(c)).unwrap_or(rest.len()).max(first.len_utf8());
        found.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    found
}

/// Whether a word is a number, or the unit of one.
fn kind(word: &str) -> Option<bool> {
    let number = word.starts_with(|c: char| c.is_ascii_digit());
    (number || UNITS.contains(&word)).then_some(number)
}

/// Whether it is a line of the log: a time in UTC, a level, and who says it.
fn is_log(line: &str) -> bool {
    let (time, rest) = line.split_once(' ').unwrap_or((line, ""));
    time.ends_with('Z') && time.contains('T') && rest.contains(" [")
}

impl Terminal {
    fn open(block: Block, folder: &Folder, bin: &str) -> Terminal {
        let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
        let mut child = Command::new("bash")
            .args(["-c", &format!("exec 2>&1\n{}", block.script)])
            .current_dir(folder.file(""))
            .env("PATH", path)
            .env("XDG_RUNTIME_DIR", folder.file(""))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, output) = (child.stdin.take(), lines_of(child.stdout.take().unwrap()));
        Terminal { block, child, stdin, output, done: 0 }
    }

    /// Types what is typed and expects what is printed, but for so many lines at the end.
    #[track_caller]
    fn go_on(&mut self, later: usize) {
        while self.done + later < self.block.items.len() {
            let item = self.block.items[self.done].clone();
            self.done += 1;
            match item {
                Item::Typed(line) => {
                    let stdin = self.stdin.as_mut().unwrap();
                    writeln!(stdin, "{line}").expect("nobody reads what is typed");
                }
                Item::Interrupt => {
                    let group = format!("-{}", self.child.id());
                    assert!(
                        Command::new("kill")
                            .args(["-INT", "--", &group])
                            .status()
                            .unwrap()
                            .success()
                    );
                }
                Item::Printed(line) if line == "…" => self.skip(),
                Item::Printed(line) => {
                    let said = self.line(&line);
                    let place = &self.block.place;
                    assert!(self.block.is(&line, &said), "{place}: {said:?} instead of {line:?}");
                }
            }
        }
    }

    /// Passes over lines until the next one that is printed.
    #[track_caller]
    fn skip(&mut self) {
        let any = Item::Printed("…".to_owned());
        while self.block.items.get(self.done) == Some(&any) {
            self.done += 1;
        }
        let Some(Item::Printed(next)) = self.block.items.get(self.done).cloned() else { return };
        while !self.block.is(&next, &self.line(&next)) {}
        self.done += 1;
    }

    #[track_caller]
    fn line(&self, wanted: &str) -> String {
        loop {
            match self.output.recv_timeout(PATIENCE) {
                Ok(line) if is_log(&line) => {}
                Ok(line) => return line,
                Err(error) => panic!("{}: no {wanted:?}: {error}", self.block.place),
            }
        }
    }

    /// Sees that nothing more is printed and that all ends by itself.
    #[track_caller]
    fn end(mut self) {
        // Ctrl-D, for `nc`.
        self.stdin = None;
        let place = &self.block.place;
        let open = self.block.items.last() == Some(&Item::Printed("…".to_owned()));
        loop {
            match self.output.recv_timeout(PATIENCE) {
                Ok(line) if is_log(&line) => {}
                Ok(line) => assert!(open, "{place}: {line:?} is printed besides"),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("{place}: it does not end"),
            }
        }
        self.child.wait().unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// Every block of Rust of a document is a piece of the file whose name was last linked to above it, as it
/// stands there.
pub fn extracts(document: &str, folder: &Path) -> Vec<String> {
    let mut named = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some((_, link)) = line.split_once(".rs](../examples/") {
            named.push(link.split_once(')').unwrap().0.to_owned());
        }
        if line == "```rust" {
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            let file = folder.join("examples").join(named.last().expect("no file is named"));
            let text = fs::read_to_string(&file).unwrap();
            let block = block.join("\n") + "\n";
            assert!(text.contains(&block), "this is not in {}:\n{block}", file.display());
        }
    }
    named
}
