//! A client that is another user than the server.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::util::skip;

/// Neither root nor whoever runs the tests.
pub const STRANGER: u32 = 65534;

/// What another user hears at a Unix socket who sends this; none where nobody can become another user
/// or there is no `nc`, which [skips](skip) the test.
#[track_caller]
pub fn heard_by_stranger(path: &Path, sent: &str) -> Option<String> {
    let mut command = Command::new("sh");
    // The socket's end comes after the answer; nc waits for it.
    let script = "printf '%s' \"$1\" | timeout 30 nc -U \"$0\"";
    command.arg("-c").arg(script).arg(path).arg(sent).uid(STRANGER).gid(STRANGER);
    let installed = Command::new("sh").args(["-c", "command -v nc timeout"]).output().unwrap();
    if !installed.status.success() {
        skip("there is no program nc");
        return None;
    }
    // Where the tests run may be closed to others.
    command.current_dir("/");
    match command.stdin(Stdio::null()).stderr(Stdio::inherit()).output() {
        Ok(output) => Some(String::from_utf8(output.stdout).unwrap()),
        Err(error) => {
            skip(&format!("only root becomes another user ({error})"));
            None
        }
    }
}
