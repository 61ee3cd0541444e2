//! docs/tutorial.md: its transcripts run as they are printed, and its extracts are those of the examples.

use std::path::Path;

use crate::util::namespace::inside;
use crate::util::transcript::{extracts, run};

const TUTORIAL: &str = include_str!("../../docs/tutorial.md");

#[test]
#[cfg(target_os = "linux")]
fn every_transcript_of_the_tutorial_runs_as_printed() {
    if !inside("true") {
        return;
    }
    run(TUTORIAL, "docs/tutorial.md", 21);
}

#[test]
fn what_the_tutorial_shows_stands_in_its_examples() {
    let mut named = extracts(TUTORIAL, Path::new(env!("CARGO_MANIFEST_DIR")));
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tutorial");
    let name = |file: std::io::Result<std::fs::DirEntry>| file.unwrap().file_name().into_string();
    let mut there: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| format!("tutorial/{}", name(file).unwrap()))
        .collect();
    there.sort();
    named.dedup();
    assert_eq!(named, there, "each step is told of, in order");
}
