//! `compare` where not everything can be measured.

use std::path::Path;
use std::process::{Command, Output};

const COMPARE: &str = env!("CARGO_BIN_EXE_compare");

fn ended(output: &Output) -> (bool, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// One measurement that failed lost all the others: minutes of them.
#[test]
fn what_cannot_be_measured_is_left_out() {
    let svg = Path::new(env!("CARGO_TARGET_TMPDIR")).join("comparison.svg");
    // Enough for eight clients, not for ten thousand.
    let script = "ulimit -n 64 && exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, COMPARE, "--rounds", "2", "--seconds", "2", "--peer", "floor"]);
    command.args(["--scenario", "ping-pong-10000", "--scenario", "pipelined-512", "--svg"]);
    let (success, stdout, stderr) = ended(&command.arg(svg).output().unwrap());
    assert!(!success && stderr.contains("1 failed and had to be left out"), "{stderr}");
    assert!(stderr.contains("floor is left out: "), "{stderr}");
    assert!(stdout.contains("pipelined-512") && !stdout.contains("ping-pong-10000"), "{stdout}");
}

/// An empty table, and all was well.
#[test]
fn nothing_to_measure_is_an_error() {
    for check in [&[][..], &["--check"]] {
        let mut command = Command::new(COMPARE);
        command.args(["--peer", "tokio-broadcast", "--scenario", "ping-pong-100"]).args(check);
        let (success, stdout, stderr) = ended(&command.output().unwrap());
        assert!(!success && stdout.is_empty(), "{stdout}");
        assert!(stderr.contains("no such --peer has the service"), "{stderr}");
    }
}
