//! README.md and docs/operating.md: their transcripts run as they are printed, and what README says of
//! embedding builds and serves. Every option stands in a table of the documentation.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::util::folder::Folder;
use crate::util::namespace::inside;
use crate::util::program::{Program, Running};
use crate::util::transcript::run;
use crate::util::{Client, until};

const README: &str = include_str!("../../README.md");
const OPERATING: &str = include_str!("../../docs/operating.md");
const LOAD: &str = include_str!("../../docs/load.md");
const CHECK: &str = include_str!("../../docs/check.md");

#[test]
#[cfg(target_os = "linux")]
fn every_transcript_of_the_readme_runs_as_printed() {
    if !inside("true") {
        return;
    }
    // It says that one has to run. Where there is none, the transcripts that need it are skipped.
    let redis = Command::new("redis-server").args(["--save", ""]).stdout(Stdio::null()).spawn();
    let _redis = redis.ok().map(Running);
    if _redis.is_some() {
        until("Redis listens", || std::net::TcpStream::connect("127.0.0.1:6379").is_ok());
    }
    run(README, "README.md", 7);
}

#[test]
#[cfg(target_os = "linux")]
fn every_transcript_for_operators_runs_as_printed() {
    if inside("true") {
        run(OPERATING, "docs/operating.md", 10);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn what_the_readme_says_of_embedding_builds_beside_the_repository_and_serves() {
    if !inside("true") {
        return;
    }
    let folder = Folder::new("embed");
    // As somebody has it who has cloned the repository, but that it is not copied.
    symlink(env!("CARGO_MANIFEST_DIR"), folder.file("reactor")).unwrap();
    let package = folder.file("shout");
    fs::create_dir_all(package.join("src")).unwrap();
    let head = "[package]\nname = \"shout\"\nedition = \"2024\"\n\n";
    fs::write(package.join("Cargo.toml"), head.to_owned() + block("toml")).unwrap();
    fs::write(package.join("src/main.rs"), block("rust")).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).unwrap();
    // Kept from one run to the next, apart from what this very run may be building.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shout");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline"]).current_dir(&package).env("CARGO_TARGET_DIR", &target);
    let output = cargo.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let running = Program::spawn(&mut Command::new(target.join("debug/shout")));
    until("it listens", || std::net::TcpStream::connect("127.0.0.1:8000").is_ok());
    let mut client = Client::connect("127.0.0.1:8000".parse().unwrap());
    client.send("hello\n");
    client.expect("HELLO!\n");
    drop(running);
}

/// The one block of such a language.
fn block(language: &str) -> &'static str {
    let fence = format!("```{language}\n");
    let mut blocks = README.split(&fence);
    let block = blocks.nth(1).unwrap_or_else(|| panic!("README has no {language}"));
    assert!(blocks.next().is_none(), "which {language} is meant?");
    block.split("```").next().unwrap()
}

#[test]
fn the_readme_is_read_in_one_sitting() {
    assert!(README.lines().count() <= 200, "{} lines", README.lines().count());
}

#[test]
fn every_option_stands_in_a_table_with_its_default() {
    let texts = [
        ("serve", OPERATING),
        ("forward", OPERATING),
        ("connect", OPERATING),
        ("discover", OPERATING),
        ("status", OPERATING),
        ("close", OPERATING),
        ("load", LOAD),
        ("check", CHECK),
    ];
    let mut known = Vec::new();
    for (subcommand, text) in texts {
        for (option, default) in options(subcommand) {
            let stands = rows(text).any(|(names, value)| {
                names.contains(&format!("`{option}")) && value.contains(&default)
            });
            assert!(stands || option == "--help", "reactor {subcommand} {option}: {default:?}");
            known.push(option);
        }
    }
    for (names, _) in [OPERATING, LOAD, CHECK].into_iter().flat_map(rows) {
        for name in names.split(['`', ' ', ',']).filter(|word| word.starts_with("--")) {
            assert!(known.iter().any(|option| option == name), "there is no {name}: {names}");
        }
    }
}

/// The first two cells of the rows that begin with an option.
fn rows(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let of_option = |line: &&str| line.starts_with("| `-") || line.starts_with("| `reactor ");
    let row = |line: &'static str| {
        let mut cells = line.trim_start_matches("| ").split(" | ");
        (cells.next().unwrap(), cells.next().unwrap_or(""))
    };
    text.lines().filter(of_option).map(row)
}

/// The options of a subcommand, and their defaults where they are a word, as `--help` has them.
fn options(subcommand: &str) -> Vec<(String, String)> {
    let (_, help, _) = Program::run(&[subcommand, "--help"]);
    let mut found: Vec<(String, String)> = Vec::new();
    for line in help.split_once("\nOptions:\n").unwrap().1.lines() {
        let text = line.trim_start();
        let is_option = text.starts_with('-') && line.len() - text.len() < 10;
        if is_option && let Some(name) = text.split(' ').find(|word| word.starts_with("--")) {
            found.push((name.to_owned(), String::new()));
        }
        let default = text.strip_prefix("[default: ").and_then(|text| text.strip_suffix(']'));
        if let Some(default) = default.filter(|default| !default.contains(' ')) {
            found.last_mut().unwrap().1 = default.to_owned();
        }
    }
    found
}
