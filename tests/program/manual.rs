//! The manual pages, and the completions of shells.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::util::folder::Folder;
use crate::util::program::{Program, REACTOR, fails};
use crate::util::skip;

/// The pages by their names, with dashes as people read them.
fn pages(folder: &Path) -> BTreeMap<String, String> {
    let (code, stdout, stderr) = Program::run(&["man", folder.to_str().unwrap()]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
    let page = |path: &Path| fs::read_to_string(path).unwrap().replace("\\-", "-");
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), page(&path)))
        .collect()
}

/// The first words of a list in a help.
fn listed(help: &str, heading: &str) -> Vec<String> {
    let list = help.split_once(heading).unwrap_or_else(|| panic!("{heading} in {help}")).1;
    let lines = list.lines().filter_map(|line| line.strip_prefix("  "));
    // What is indented further goes on with the line before.
    let names = lines.filter(|line| line.starts_with(char::is_alphabetic));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

/// The long options that a help explains.
fn options(help: &str) -> Vec<&str> {
    let explained = |line: &&str| line.starts_with("      --") || line.starts_with("  -");
    let lines = help.lines().filter(explained);
    let words = lines.flat_map(|line| line.split_whitespace().take(2));
    words.filter(|word| word.starts_with("--")).collect()
}

#[test]
fn each_subcommand_has_a_page_with_all_its_options() {
    let folder = Folder::new("man");
    let pages = pages(&folder.file("new/folder"));
    let (_, help, _) = Program::run(&["--help"]);
    let commands = listed(&help, "Commands:");
    assert!(commands.len() > 9, "{help}");
    for command in commands.iter().filter(|name| **name != "help") {
        assert!(pages["reactor"].contains(&format!("reactor-{command}(1)")));
        let (_, help, _) = Program::run(&[command, "--help"]);
        let page = &pages[&format!("reactor-{command}")];
        assert!(page.contains(&format!(".TH reactor-{command} 1 \" \" \"reactor ")), "{page}");
        for option in options(&help) {
            assert!(page.contains(&format!("\\fB{option}\\fR")), "{option} is not in {page}");
        }
    }
    assert_eq!(pages.len(), commands.len());
    let serve = &pages["reactor-serve"];
    assert!(serve.contains("\n  echo       sends every line back"), "{serve}");
    assert!(options(&Program::run(&["serve", "--help"]).1).contains(&"--max-line"));
}

#[test]
fn the_pages_are_the_same_each_time() {
    let folder = Folder::new("man-twice");
    assert_eq!(pages(&folder.file("a")), pages(&folder.file("b")));
}

/// As lintian does it.
#[test]
fn those_who_format_pages_have_nothing_to_say() {
    for program in ["man", "groff", "mandoc"] {
        let found = Command::new(program).arg("--version").stdin(Stdio::null()).output();
        if found.is_err() {
            skip(&format!("{program} is not installed"));
            return;
        }
    }
    let folder = Folder::new("man-lint");
    for name in pages(folder.path()).keys() {
        let path = folder.file(&format!("{name}.1"));
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]).arg(&path);
        man.envs([("LC_ALL", "C.UTF-8"), ("MANROFFSEQ", ""), ("MANWIDTH", "80")]);
        let output = man.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
        let output =
            Command::new("mandoc").args(["-Tlint", "-Wwarning"]).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        // There is none on purpose.
        let mut said = said.lines().filter(|line| !line.contains("cannot parse date"));
        assert_eq!(said.next(), None, "{name}");
    }
}

#[test]
fn pages_that_cannot_be_written_are_status_1() {
    fails(Program::spawn(Command::new(REACTOR).args(["man", "/dev/null/x"])), 1, &["/dev/null/x"]);
    let folder = Folder::new("man-taken");
    fs::create_dir(folder.file("reactor-serve.1")).unwrap();
    let program = Program::spawn(Command::new(REACTOR).arg("man").arg(folder.path()));
    fails(program, 1, &["reactor-serve.1: cannot be written"]);
}

/// What a real bash offers for the last of these words.
fn offered(words: &[&str]) -> Vec<String> {
    let script = r#"
        source <("$0" completions bash)
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        # As readline calls what `complete` has noted.
        function=$(complete -p reactor | sed 's/.* -F \([^ ]*\) .*/\1/')
        "$function" reactor "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    let output = bash.args(["--norc", "-c", script, REACTOR]).args(words).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes() {
    assert_eq!(offered(&["reactor", "serve", "--max-l"]), ["--max-line"]);
    assert_eq!(offered(&["reactor", "ser"]), ["serve"]);
    assert_eq!(offered(&["reactor", "forward", "--log-form"]), ["--log-format"]);
    assert_eq!(offered(&["reactor", "serve", "--log-format", ""]), ["text", "json"]);
    assert_eq!(offered(&["reactor", "completions", "b"]), ["bash"]);
}

#[test]
fn each_shell_has_a_script() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, script, stderr) = Program::run(&["completions", shell]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{shell}");
        assert!(script.contains("max-line") && script.contains("discover"), "{shell}: {script}");
    }
    let wrong = ["completions", "tcsh"];
    fails(Program::spawn(Command::new(REACTOR).args(wrong)), 2, &["'tcsh'", "bash, elvish, fish"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_script_that_cannot_be_written_is_status_1() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(REACTOR);
    let output = command.args(["completions", "bash"]).stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("cannot write the script"), "{said}");
}
