//! The log, on stderr or in a file, and what a command says on stdout.
//!
//! Both are written by a thread of their own. A pipe that nobody reads, a terminal that is held with Ctrl-S,
//! or a slow disk would otherwise stop the loop and all its clients, which are worth more than a line of the log.
//!
//! 1. `line`: the format of a line.
//! 2. `output`: stderr or a file.
//! 3. `writer`: the thread.

mod line;
mod output;
mod writer;

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::failure::{Failure, start_thread};
use line::{Format, Style};
use output::Output;
use writer::{Entry, Shared, Writer};

/// Lines that may wait to be written. Those beyond it are lost, and their number is logged.
const QUEUE: usize = 1024;
/// How long the program waits for them at its end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The options.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LogOptions {
    /// Log this level, and all more severe ones; debug has connections, trace what each turn of the loop did.
    #[arg(long, value_name = "LEVEL", default_value = "info", ignore_case = true)]
    #[arg(value_parser = levels())]
    pub(crate) log: LevelFilter,

    /// The format of a line of the log: text, or json, an object with time, level, target and message.
    #[arg(long, value_name = "FORMAT", default_value = "text", value_enum)]
    pub(crate) log_format: Format,

    /// Append the log to this file instead of writing it to stderr; SIGHUP opens it anew, for rotation.
    #[arg(long, value_name = "PATH")]
    pub(crate) log_file: Option<PathBuf>,
}

impl LogOptions {
    /// For a command that has no such options.
    pub(crate) fn on_stderr(log: LevelFilter) -> LogOptions {
        LogOptions { log, log_format: Format::Text, log_file: None }
    }
}

/// The logger. It lasts as long as the process, as `log` wants it.
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Makes the lines and hands them to the writer.
struct Logger {
    style: Style,
    queue: Sender<Entry>,
    /// Lines for which there was no room, and of which the log does not tell yet.
    lost: AtomicU64,
    shared: Arc<Shared>,
}

fn lost_lines(count: impl Display) -> String {
    format!("{count} lines of this log were lost")
}

/// Stdout, written by the same thread, so that the order of stdout and log is kept.
pub(crate) struct Stdout {
    queue: Sender<Entry>,
    shared: Arc<Shared>,
}

impl Log for Logger {
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
            if !self.offer(Level::Warn, target, format_args!("{}", lost_lines(lost))) {
                self.lost.fetch_add(lost, Ordering::Relaxed);
            }
        }
        if !self.offer(record.level(), record.target(), *record.args()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.shared.lost_in_all.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all is written, but not for ever.
    fn flush(&self) {
        let (tell, told) = sync_channel(1);
        if self.queue.send(Entry::Flush(tell)).is_ok() {
            // A writer that is stuck has been given its chance.
            let _ = told.recv_timeout(LAST_WORDS);
        }
    }
}

impl Logger {
    /// Says whether there is room for the line.
    fn offer(&self, level: Level, target: &str, message: fmt::Arguments<'_>) -> bool {
        if self.shared.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.queue.send(Entry::Log(self.style.line(level, target, message))).is_ok()
    }
}

impl Stdout {
    /// Writes the lines. If stdout is gone, the program serves all the same.
    pub(crate) fn say(&self, lines: String) {
        let _ = self.queue.send(Entry::Say(lines));
    }

    /// Counts the lines of the log that were lost so far.
    pub(crate) fn lost_lines(&self) -> impl Fn() -> u64 + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.lost_in_all.load(Ordering::Relaxed)
    }
}

/// To be called once, before anything is logged.
pub(crate) fn init(options: &LogOptions) -> Result<Stdout, Failure> {
    let output = match &options.log_file {
        Some(path) => Output::file(path)
            .map_err(|why| Failure::Runtime(format!("--log-file {}: {why}", path.display())))?,
        None => Output::stderr(),
    };
    let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    let style = Style { format: options.log_format, colors: output.is_terminal() && !plain };
    let (queue, entries) = channel();
    let shared = Arc::<Shared>::default();
    let writer = Writer::new(output, style, Arc::clone(&shared));
    start_thread("log", move || writer.run(&entries))?;
    let stdout = Stdout { queue: queue.clone(), shared: Arc::clone(&shared) };
    let logger = LOGGER.get_or_init(|| Logger { style, queue, lost: AtomicU64::new(0), shared });
    // It fails only when there is a logger already.
    if log::set_logger(logger).is_ok() {
        log::set_max_level(options.log);
    }
    Ok(stdout)
}

/// Has the file of the log opened anew, since somebody has moved it away. Does not wait for it. What was
/// logged before goes to the old one.
pub(crate) fn reopen() {
    if let Some(logger) = LOGGER.get()
        && !logger.shared.reopening.swap(true, Ordering::AcqRel)
    {
        let _ = logger.queue.send(Entry::Reopen);
    }
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
fn levels() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["off", "error", "warn", "info", "debug", "trace"])
        .try_map(|name| name.parse::<LevelFilter>())
}
