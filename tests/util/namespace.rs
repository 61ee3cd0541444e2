//! A test in a network of its own: multicast, broadcast and narrow settings must not reach the
//! machine's interfaces, nor theirs the test.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::process::{Command, Stdio};

use crate::util::skip;

/// Set to the name of the test that runs inside.
const INSIDE: &str = "REACTOR_TEST_IN_NAMESPACE";
/// How long that may take, in seconds.
const PATIENCE: &str = "300";
/// Root of a network, of mounts and of a process tree of its own; whatever that test leaves behind,
/// also when it is killed itself, ends with it.
const UNSHARE: [&str; 8] =
    ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child"];

/// Makes these lines the hosts that the system knows, for [`inside`].
pub fn hosts(lines: &[&str]) -> String {
    let lines = lines.join("\\n");
    format!(
        "mount -t tmpfs none /mnt && printf '{lines}\\n' >/mnt/hosts && \
         printf 'nameserver 127.0.0.53\\noptions timeout:30\\n' >/mnt/resolv.conf && \
         mount --bind /mnt/hosts /etc/hosts && mount --bind /mnt/resolv.conf /etc/resolv.conf"
    )
}

/// Runs the rest of this test in a fresh network namespace, in which there is loopback and
/// nothing else: starts this very program once more in there, for this test alone. Says whether
/// the caller is inside and is to go on; outside, all is done when this returns.
///
/// `setup` is a line of shell, for root of that namespace. Where the system does not allow
/// namespaces the test is [skipped](skip).
#[track_caller]
pub fn inside(setup: &str) -> bool {
    let test = std::thread::current().name().expect("a test's thread has its name").to_owned();
    if std::env::var_os(INSIDE).is_some_and(|name| *name == *test) {
        return true;
    }
    if let Err(why) = possible() {
        skip(&why);
        return false;
    }
    let script = format!("ip link set lo up && {setup} && exec \"$@\"");
    let own = std::env::current_exe().unwrap();
    let output = Command::new("timeout")
        .arg(PATIENCE)
        .args(UNSHARE)
        .args(["sh", "-c", &script, "sh"])
        .arg(own)
        .args(["--exact", &test, "--nocapture"])
        .env(INSIDE, &test)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let one = text.contains("1 passed");
    assert!(output.status.success() && one, "in its namespace: {}\n{text}", output.status);
    false
}

/// Or why not.
fn possible() -> Result<(), String> {
    let mut command = Command::new(UNSHARE[0]);
    command.args(&UNSHARE[1..]).args(["ip", "link", "set", "lo", "up"]);
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
            Err(format!("a network namespace cannot be made here ({said})"))
        }
        Err(error) => Err(format!("there is no program unshare ({error})")),
    }
}
