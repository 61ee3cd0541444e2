//! The thread that writes the log and stdout.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use log::Level;

use super::line::Style;
use super::lost_lines;
use super::output::Output;

/// What the thread does, in the order of the queue.
pub(super) enum Entry {
    Log(String),
    Say(String),
    /// Reports that all before it is written.
    Flush(SyncSender<()>),
    /// Opens the file anew.
    Reopen,
}

/// What both sides of the queue look at.
#[derive(Default)]
pub(super) struct Shared {
    /// Lines of the log in the queue. They alone are bounded: nothing else may be lost.
    pub(super) waiting: AtomicUsize,
    /// Whether [`Entry::Reopen`] is in the queue; once is enough.
    pub(super) reopening: AtomicBool,
    /// Lines of the log that were lost.
    pub(super) lost_in_all: AtomicU64,
}

pub(super) struct Writer {
    output: Output,
    style: Style,
    shared: Arc<Shared>,
    /// Lines that could not be written, and of which the log does not tell yet.
    unwritten: u64,
}

impl Writer {
    pub(super) fn new(output: Output, style: Style, shared: Arc<Shared>) -> Writer {
        Writer { output, style, shared, unwritten: 0 }
    }

    pub(super) fn run(mut self, entries: &Receiver<Entry>) {
        for entry in entries {
            match entry {
                Entry::Log(line) => {
                    self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                    self.log(&line);
                }
                Entry::Say(lines) => {
                    let mut stdout = io::stdout().lock();
                    let _ = stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush());
                }
                Entry::Flush(tell) => drop(tell.try_send(())),
                Entry::Reopen => {
                    // First, so that one who asks from now on is not taken for the one before.
                    self.shared.reopening.store(false, Ordering::Release);
                    self.reopen();
                }
            }
        }
    }

    /// A line that cannot be written, because the pipe is closed or the disk full, is lost; the next one is tried
    /// again.
    fn log(&mut self, line: &str) {
        if self.unwritten > 0 {
            let said = lost_lines(self.unwritten);
            let line = self.style.line(Level::Warn, module_path!(), format_args!("{said}"));
            if self.output.write(&line) {
                self.unwritten = 0;
            }
        }
        if !self.output.write(line) {
            self.unwritten += 1;
            self.shared.lost_in_all.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn reopen(&mut self) {
        let Some((path, opened)) = self.output.reopen() else { return };
        let path = path.display().to_string();
        match opened {
            Ok(()) => self.say(Level::Info, format_args!("log file {path}: opened anew")),
            Err(why) => self.say(
                Level::Error,
                format_args!("log file {path}: {why}; until then the log goes on in the old one"),
            ),
        }
    }

    fn say(&mut self, level: Level, message: fmt::Arguments<'_>) {
        if level <= log::max_level() {
            self.log(&self.style.line(level, module_path!(), message));
        }
    }
}
