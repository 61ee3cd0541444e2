//! Where the log goes: stderr, or a file that can be moved while it is written.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// The owner reads and writes it, and the group, on many systems that of log readers, reads it.
const MODE: u32 = 0o640;

pub(super) struct Output {
    sink: Sink,
    /// Whether the last line there has no end, since the disk was full in the middle of it.
    torn: bool,
}

enum Sink {
    Stderr,
    File {
        path: PathBuf,
        file: File,
        /// A spare descriptor, so that the file can be opened anew when clients have all others.
        spare: Option<File>,
    },
}

impl Output {
    pub(super) fn stderr() -> Output {
        Output { sink: Sink::Stderr, torn: false }
    }

    /// Opens or makes the file; or says why not, with the remedy.
    pub(super) fn file(path: &Path) -> Result<Output, String> {
        let file = open(path).map_err(|error| why(path, &error))?;
        let spare = file.try_clone().ok();
        Ok(Output { sink: Sink::File { path: path.to_owned(), file, spare }, torn: false })
    }

    /// Opens the path anew. If that fails, the old file stays. Does nothing for stderr.
    pub(super) fn reopen(&mut self) -> Option<(&Path, Result<(), String>)> {
        let Sink::File { path, file, spare } = &mut self.sink else { return None };
        *spare = None;
        let opened = open(path).map_err(|error| why(path, &error)).map(|new| {
            *file = new;
            self.torn = false;
        });
        *spare = file.try_clone().ok();
        Some((path, opened))
    }

    pub(super) fn is_terminal(&self) -> bool {
        match &self.sink {
            Sink::Stderr => io::stderr().is_terminal(),
            Sink::File { file, .. } => file.is_terminal(),
        }
    }

    /// Writes a line in one write, since others may write there too. Says whether it is all there.
    pub(super) fn write(&mut self, line: &str) -> bool {
        if !self.torn {
            return self.write_all(line.as_bytes());
        }
        // End a torn line first, so that the next one is whole.
        self.write_all(format!("\n{line}").as_bytes())
    }

    fn write_all(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let outcome = match &mut self.sink {
                Sink::Stderr => io::stderr().write(rest),
                Sink::File { file, .. } => file.write(rest),
            };
            match outcome {
                Ok(count) if count > 0 => {
                    self.torn = rest[count - 1] != b'\n';
                    rest = &rest[count..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return false,
            }
        }
        true
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Without these flags, a FIFO that nobody reads would block, and a terminal would become the controlling one.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    let mut options = File::options();
    let file = options.append(true).create(true).mode(MODE).custom_flags(flags).open(path)?;
    // From now on only the writer's thread can block on it.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

fn why(path: &Path, error: &io::Error) -> String {
    let kind = path.metadata().map(|found| found.file_type());
    let remedy = match error.kind() {
        ErrorKind::NotFound => "make its folder first",
        ErrorKind::PermissionDenied => "let this user write there, or choose another file",
        ErrorKind::IsADirectory => "give a file in it",
        _ if kind.as_ref().is_ok_and(FileTypeExt::is_fifo) => "start first what reads this FIFO",
        _ if kind.as_ref().is_ok_and(FileTypeExt::is_socket) => {
            "a socket cannot be opened; without this option the log goes to stderr, whatever that is"
        }
        _ => return error.to_string(),
    };
    format!("{error}; {remedy}")
}
