//! README.md and docs/operating.md: their transcripts run as they are printed, and what README says of
//! embedding builds and serves.

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
        run(include_str!("../../docs/operating.md"), "docs/operating.md", 10);
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
