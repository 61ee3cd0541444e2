//! A connection over two descriptors, as standard input and output.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::PIPE_BUF;

use super::layer::Layer;

/// Duplicates of descriptors that somebody else owns and goes on to use. Whether a descriptor blocks
/// is a property of all its duplicates, those of the shell too, and must not be changed; so each
/// read and write is preceded by the question whether it would block.
pub(crate) struct Descriptors {
    input: File,
    /// None once our side has ended.
    output: Option<File>,
    /// The selector that watches them. It watches the file behind a descriptor, which stays open
    /// when ours is closed.
    registry: Option<Rc<Registry>>,
}

impl Descriptors {
    pub(crate) fn new(input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> io::Result<Descriptors> {
        let input = input.try_clone_to_owned()?.into();
        let output = output.try_clone_to_owned()?.into();
        Ok(Descriptors { input, output: Some(output), registry: None })
    }

    /// Ends our side. Its reader sees that once nobody else holds it.
    fn shut(&mut self) {
        if let Some(output) = self.output.take() {
            self.forget(&output);
        }
    }

    fn forget(&self, file: &File) {
        if let Some(registry) = &self.registry {
            // It fails where the file could not be watched.
            let _ = registry.deregister(&mut SourceFd(&file.as_raw_fd()));
        }
    }
}

impl Layer for Descriptors {
    fn register(&mut self, registry: &Rc<Registry>, token: mio::Token) -> io::Result<()> {
        self.registry = Some(Rc::clone(registry));
        watch(registry, &self.input, token, Interest::READABLE)?;
        self.output.iter().try_for_each(|file| watch(registry, file, token, Interest::WRITABLE))
    }

    fn deregister(&mut self, _: &Registry) -> io::Result<()> {
        [&self.input].into_iter().chain(&self.output).for_each(|file| self.forget(file));
        self.registry = None;
        Ok(())
    }

    /// A terminal gives a line at a time.
    fn may_read_short(&self) -> bool {
        true
    }

    /// What is unread is for the next reader.
    fn has_unread(&mut self) -> bool {
        false
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.shut();
        Ok(())
    }

    /// An output that nobody reads any more.
    fn noted_error(&self) -> Option<io::Error> {
        let gone = |file| is_ready(file, PollFlags::empty()).unwrap_or(false);
        self.output.as_ref().filter(|file| gone(file)).map(|_| ErrorKind::BrokenPipe.into())
    }

    /// If only the output is gone, there may be input yet.
    fn fails_as_one(&self) -> bool {
        false
    }

    fn is_socket(&self) -> bool {
        false
    }
}

/// Regular files and some devices cannot be watched, being always ready.
pub(crate) fn watch(
    registry: &Registry,
    file: &File,
    token: mio::Token,
    interest: Interest,
) -> io::Result<()> {
    match registry.register(&mut SourceFd(&file.as_raw_fd()), token, interest) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome,
    }
}

/// Whether something can be read or written without waiting; an end or an error can.
fn is_ready(file: &File, what: PollFlags) -> io::Result<bool> {
    let found = poll(&mut [PollFd::new(file, what)], Some(&Timespec::default()))?;
    Ok(found > 0)
}

impl Read for Descriptors {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match is_ready(&self.input, PollFlags::IN)? {
            true => self.input.read(buf),
            false => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Descriptors {
    /// A pipe that has any room takes `PIPE_BUF` bytes; terminals and sockets take more.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Some(output) = &mut self.output else { return Err(ErrorKind::BrokenPipe.into()) };
        match is_ready(output, PollFlags::OUT)? {
            true => output.write(&buf[..buf.len().min(PIPE_BUF)]),
            false => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        self.forget(&self.input);
        self.shut();
    }
}
