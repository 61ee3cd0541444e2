//! The log on stderr, and what a command says on stdout.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::Timestamp;
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::failure::{Failure, start_thread};

/// Lines that may wait to be written. Those beyond it are lost, and their number is logged.
const QUEUE: usize = 1024;
/// How long the program waits for them at its end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Logs on stderr, from a thread of its own. A pipe that nobody reads, or a terminal that is held
/// with Ctrl-S, would otherwise stop the loop and all its clients, which are worth more than a line
/// of the log.
struct Stderr {
    colors: bool,
    queue: SyncSender<Entry>,
    /// Lines that were lost, and of which the log does not tell yet.
    lost: AtomicU64,
    lost_in_all: Arc<AtomicU64>,
}

/// Stdout, written by the same thread, so that the order of stdout and log is kept.
pub(crate) struct Stdout {
    queue: SyncSender<Entry>,
    lost_in_all: Arc<AtomicU64>,
}

enum Entry {
    Log(String),
    Say(String),
    /// Tells when all before it is written.
    Flush(SyncSender<()>),
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // At `trace` mio tells of each registration, and the turns are what one wants to see.
        let turns = metadata.level() < Level::Trace || !metadata.target().starts_with("mio");
        metadata.level() <= log::max_level() && turns
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let target = module_path!();
            let said = format_args!("{lost} lines of this log were lost");
            if !self.offer(Level::Warn, target, said) {
                self.lost.fetch_add(lost, Ordering::Relaxed);
            }
        }
        if !self.offer(record.level(), record.target(), *record.args()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.lost_in_all.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all is written, but not for ever.
    fn flush(&self) {
        let (tell, told) = sync_channel(1);
        if self.queue.try_send(Entry::Flush(tell)).is_ok() {
            // A writer that is stuck has been given its chance.
            let _ = told.recv_timeout(LAST_WORDS);
        }
    }
}

impl Stderr {
    /// Says whether there is room for the line.
    fn offer(&self, level: Level, target: &str, text: fmt::Arguments<'_>) -> bool {
        let (color, end) = if self.colors { (color(level), "\x1b[0m") } else { ("", "") };
        let now = Timestamp::now();
        let line = format!("{now:.3} {color}{level:<5}{end} [{target}] {text}\n");
        self.queue.try_send(Entry::Log(line)).is_ok()
    }
}

fn color(level: Level) -> &'static str {
    match level {
        Level::Error => "\x1b[31m",
        Level::Warn => "\x1b[33m",
        Level::Info => "\x1b[36m",
        Level::Debug => "\x1b[35m",
        Level::Trace => "",
    }
}

impl Stdout {
    /// Writes the lines. If stdout is gone, the program serves all the same.
    pub(crate) fn say(&self, lines: String) {
        let _ = self.queue.send(Entry::Say(lines));
    }

    /// Counts the lines of the log that were lost so far.
    pub(crate) fn lost_lines(&self) -> impl Fn() -> u64 + use<> {
        let lost = Arc::clone(&self.lost_in_all);
        move || lost.load(Ordering::Relaxed)
    }
}

/// The writer. Each entry is one write, since others may write to the same terminal. An entry that
/// cannot be written, because the pipe is closed or the disk full, is lost; the next one is tried
/// again.
fn write(entries: &Receiver<Entry>) {
    for entry in entries {
        match entry {
            Entry::Log(line) => drop(io::stderr().write_all(line.as_bytes())),
            Entry::Say(lines) => {
                let mut stdout = io::stdout().lock();
                let _ = stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush());
            }
            Entry::Flush(tell) => drop(tell.try_send(())),
        }
    }
}

/// To be called once, before anything is logged.
pub(crate) fn init(level: LevelFilter) -> Result<Stdout, Failure> {
    let (queue, entries) = sync_channel(QUEUE);
    start_thread("log", move || write(&entries))?;
    let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    let colors = io::stderr().is_terminal() && !plain;
    let lost_in_all = Arc::new(AtomicU64::new(0));
    let stdout = Stdout { queue: queue.clone(), lost_in_all: Arc::clone(&lost_in_all) };
    let stderr = Stderr { colors, queue, lost: AtomicU64::new(0), lost_in_all };
    // It fails only when there is a logger already.
    if log::set_boxed_logger(Box::new(stderr)).is_ok() {
        log::set_max_level(level);
    }
    Ok(stdout)
}

/// Logs this level and all more severe ones from now on.
pub(crate) fn set_level(level: &str) -> Result<(), String> {
    let level: LevelFilter = level.parse().map_err(|_| format!("there is no level {level:?}"))?;
    log::set_max_level(level);
    Ok(())
}

/// To be called last.
pub(crate) fn finish() {
    log::logger().flush();
}

/// The levels of the log, as an option takes them.
pub(crate) fn levels() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["off", "error", "warn", "info", "debug", "trace"])
        .try_map(|name| name.parse::<LevelFilter>())
}
