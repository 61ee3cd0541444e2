use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap_complete::{Shell, generate};

use super::failure::Failure;

/// Print the script with which a shell completes the subcommands and options of reactor.
///
/// For bash, eval "$(reactor completions bash)" in ~/.bashrc, or write it to
/// /usr/share/bash-completion/completions/reactor; for zsh, write it to a file _reactor in a folder of $fpath; for
/// fish, to ~/.config/fish/completions/reactor.fish. The Debian package has installed them.
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

/// Prints the script for this program.
pub(crate) fn completions(
    args: &Completions,
    mut program: clap::Command,
) -> Result<ExitCode, Failure> {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    generate(args.shell, &mut program, name, &mut script);
    let mut stdout = io::stdout().lock();
    match stdout.write_all(&script).and_then(|()| stdout.flush()) {
        // The reader has read enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Runtime(format!("cannot write the script: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
