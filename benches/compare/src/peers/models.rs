//! The concurrency models, `examples/models` of the library's package: programs of their own, so
//! that a process per client weighs what that program weighs and not what this one does.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::{env, io};

use super::{Peer, Serve, Service};
use crate::Result;

/// In the order in which they are taught.
pub const MODELS: &[Peer] = &[
    model("one-at-a-time", |_, port| exec("one-at-a-time", port)),
    model("process-per-client", |_, port| exec("process-per-client", port)),
    model("thread-per-client", |_, port| exec("thread-per-client", port)),
    model("thread-pool", |_, port| exec("thread-pool", port)),
    model("readiness", |_, port| exec("readiness", port)),
    model("callbacks", |_, port| exec("callbacks", port)),
    model("reactor", |_, port| exec("reactor", port)),
];

const fn model(name: &'static str, serve: Serve) -> Peer {
    Peer { name, services: &[Service::Echo], serve, any_bytes: true }
}

/// This process becomes the example.
fn exec(name: &str, port: u16) -> io::Result<()> {
    Err(Command::new(program()?).arg(name).arg(format!("127.0.0.1:{port}")).exec())
}

/// Where cargo puts the example: beside this program.
fn program() -> io::Result<PathBuf> {
    let own = env::current_exe()?;
    let folder = own.parent().ok_or(io::ErrorKind::NotFound)?;
    Ok(folder.join("examples").join("models"))
}

/// Has cargo build the example in the same way as this program was built: a package cannot depend
/// on another one's examples.
pub fn build() -> Result<()> {
    let program = program()?;
    let profile = program.ancestors().nth(2).ok_or("this program lies in no build folder")?;
    let target = profile.parent().ok_or("this program lies in no build folder")?;
    let profile = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(cargo);
    cargo.args(["build", "--quiet", "--example", "models", "--profile", profile]);
    cargo.args(["--manifest-path", manifest, "--target-dir"]).arg(target);
    match cargo.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err("cargo could not build the example `models`; see above".into()),
        Err(error) => Err(format!("cargo, to build the example `models`: {error}").into()),
    }
}
