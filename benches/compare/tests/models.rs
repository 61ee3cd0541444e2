//! `compare models` in little: it measures every model, shows who is not served, and ends.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

const MODELS: [&str; 7] = [
    "one-at-a-time",
    "process-per-client",
    "thread-per-client",
    "thread-pool",
    "readiness",
    "callbacks",
    "reactor",
];

#[test]
fn measures_every_model_and_shows_where_it_gives_up() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (svg, markdown) = (folder.join("models.svg"), folder.join("models.md"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    command.args([
        "models",
        "--clients",
        "3",
        "--clients",
        "70",
        "--seconds",
        "0.05",
        "--runs",
        "2",
    ]);
    let output = command.arg("--svg").arg(&svg).arg("--markdown").arg(&markdown).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let markdown = fs::read_to_string(markdown).unwrap();
    assert!(
        !markdown.contains("p99") && text.contains("p99"),
        "latencies do not repeat:\n{markdown}"
    );
    for clients in ["3", "70"] {
        for model in MODELS {
            let served = match (model, clients) {
                ("one-at-a-time", _) => "1",
                ("thread-pool", "70") => "64",
                _ => clients,
            };
            let row = markdown.lines().find(|line| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                cells[1..4] == [clients, model, served]
            });
            assert!(row.is_some(), "{model} does not serve {served} of {clients}:\n{text}");
        }
    }
    for model in MODELS {
        let told = match model {
            "one-at-a-time" => "one-at-a-time gives up at 1, before 3\n".to_owned(),
            "thread-pool" => "thread-pool gives up at 64, before 70\n".to_owned(),
            _ => format!("{model} serves all 70\n"),
        };
        assert!(text.contains(&told), "{told}\n{text}");
    }
    let svg = fs::read_to_string(svg).unwrap();
    assert!(svg.starts_with("<svg") && MODELS.iter().all(|model| svg.contains(model)), "{svg}");
}

#[test]
fn refuses_what_it_cannot_do() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_compare")).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (args, words) in [
        (&["models", "--model", "fork"][..], "invalid value 'fork'"),
        (&["models", "--clients", "0"], "invalid value '0'"),
        (&["models", "--clients", "1000000"], "invalid value '1000000'"),
        (&["--rounds", "3", "models"], "cannot be used with"),
    ] {
        let (status, error) = run(args);
        assert!(status == Some(2) && error.contains(words), "{args:?}: {error}");
    }
    // Said before anything is measured, not after.
    for args in [&["models", "--svg", "/dev/null/models.svg"][..], &["--svg", "/"]] {
        let (status, error) = run(args);
        let said = error.lines().last().unwrap_or_default().to_owned();
        assert!(status == Some(1) && said.contains(": cannot be written ("), "{args:?}: {error}");
        assert!(!error.contains("building"), "{args:?}: {error}");
    }
}
