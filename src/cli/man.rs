use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io, iter};

use clap_mangen::roff::{Roff, roman};

use super::failure::Failure;

/// Write the manual pages of reactor: reactor.1, and one for each subcommand.
///
/// They have the content of --help. To read one: man DIR/reactor-serve.1. The Debian package has installed them.
#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// The directory to write them to; it is created if it does not exist.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes the pages of this program.
pub(crate) fn man(args: &Man, program: clap::Command) -> Result<ExitCode, Failure> {
    let failure = |path: &Path, error: io::Error| {
        Failure::Runtime(format!("{}: cannot be written: {error}", path.display()))
    };
    fs::create_dir_all(&args.folder).map_err(|error| failure(&args.folder, error))?;
    let mut program = program.disable_help_subcommand(true);
    program.build();
    for command in iter::once(&program).chain(program.get_subcommands()) {
        let name = command.get_display_name().unwrap_or(command.get_name());
        let path = args.folder.join(format!("{name}.1"));
        let written = page(command).and_then(|text| fs::write(&path, text));
        written.map_err(|error| failure(&path, error))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A page as clap_mangen makes it, except for the end of the help, which has lines and columns of its own.
fn page(command: &clap::Command) -> io::Result<String> {
    let bare = command.clone().after_help(None::<&str>).after_long_help(None::<&str>);
    let page = clap_mangen::Man::new(bare)
        .source(concat!("reactor ", env!("CARGO_PKG_VERSION")))
        .manual("reactor")
        // No date, so that pages can be reproduced. An empty one would be left out, and the next field taken for it.
        .date(" ");
    let mut text = Vec::new();
    page.render(&mut text)?;
    let mut rest = Roff::new();
    if let Some(notes) = command.get_after_long_help() {
        rest.control("SH", ["NOTES"]).control("nf", []);
        for line in notes.to_string().lines() {
            rest.text([roman(line)]);
        }
        rest.control("fi", []);
    }
    if !command.has_subcommands() {
        rest.control("SH", ["SEE ALSO"]).text([roman("reactor(1)")]);
    }
    rest.to_writer(&mut text)?;
    // Two breaks around an empty line, which is one break too many for mandoc.
    Ok(String::from_utf8_lossy(&text).replace("\n.br\n\n.br\n", "\n.sp\n"))
}
