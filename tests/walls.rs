//! The walls between the wings of `src`: what each may name of the others, and how large a file may
//! grow. CONTRIBUTING.md says why.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of code of the longest file, without comments and unit tests.
const LONGEST_FILE: usize = 400;

/// Each wing, and the wings that it must not name.
const WALLS: [(&str, &[&str]); 3] = [
    ("connection", &["net", "handler", "reactor", "datagram", "testing", "services", "mio"]),
    ("net", &["handler", "reactor", "datagram", "testing", "services"]),
    ("services", &["connection", "net", "handler", "reactor", "datagram", "limits", "error"]),
];

/// What `reactor` may name of `handler`.
const HANDLER_NAMES: [&str; 4] = ["Handler", "Farewell", "Context", "ServiceContext"];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// The code of every file below `src/WING`, without comments and unit tests: its path, then each
/// line with its number.
fn code(wing: &str) -> Vec<(PathBuf, Vec<(usize, String)>)> {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(wing), &mut found);
    assert!(!found.is_empty(), "no file in {wing}");
    found.sort();
    let lines = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
        let lines = text.lines().zip(1..).map(|(line, number)| {
            let line = line.split("//").next().unwrap_or("").trim().to_owned();
            (number, line)
        });
        lines.filter(|(_, line)| !line.is_empty()).collect()
    };
    found.iter().map(|path| (path.clone(), lines(path))).collect()
}

/// Whether a line of code names `crate::wing`, alone or in a group; for a crate, its name.
fn names(line: &str, wing: &str) -> bool {
    let path = if wing == "mio" { "mio::".to_owned() } else { format!("crate::{wing}::") };
    let grouped = line.strip_prefix("use crate::{").is_some_and(|group| {
        group.split([',', '{', '}', ' ']).any(|name| name.split("::").next() == Some(wing))
    });
    line.contains(&path) || grouped
}

#[test]
fn no_wing_reaches_above_itself() {
    for (wing, above) in WALLS {
        for (path, lines) in code(wing) {
            for (number, line) in lines {
                let broken = above.iter().find(|above| names(&line, above));
                assert_eq!(broken, None, "{}:{number} breaks a wall: {line}", path.display());
            }
        }
    }
}

#[test]
fn the_loop_knows_four_names_of_what_an_embedder_writes() {
    for (path, lines) in code("reactor") {
        for (number, line) in lines.iter().filter(|(_, line)| line.contains("crate::handler::")) {
            let (_, named) = line.split_once("crate::handler::").unwrap();
            let named = named.split(|c: char| !c.is_alphanumeric()).filter(|name| !name.is_empty());
            for name in named {
                let known = HANDLER_NAMES.contains(&name);
                assert!(known, "{}:{number} names {name}: {line}", path.display());
            }
        }
    }
}

#[test]
fn no_subcommand_knows_the_list_of_subcommands() {
    for (path, lines) in code("cli") {
        let list = path.ends_with("cli/mod.rs") || path.ends_with("cli/args.rs");
        for (number, line) in lines.iter().filter(|_| !list) {
            let knows = line.contains("args::");
            assert!(!knows, "{}:{number} knows the list: {line}", path.display());
        }
    }
}

#[test]
fn no_file_is_longer_than_one_sitting() {
    for (path, lines) in code("") {
        let long = lines.len();
        assert!(long <= LONGEST_FILE, "{}: {long} lines of code", path.display());
    }
}
