use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::Service;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/peers/node.js");

pub(super) fn is_there() -> bool {
    let mut node = Command::new("node");
    node.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    node.status().is_ok_and(|status| status.success())
}

/// This process becomes Node.js.
pub(super) fn serve(_: Service, port: u16) -> io::Result<()> {
    Err(Command::new("node").arg(SCRIPT).arg(port.to_string()).exec())
}
