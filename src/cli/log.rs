use std::cell::Cell;
use std::io::IsTerminal;
use std::panic::{self, AssertUnwindSafe};

use log::{LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

thread_local! {
    static WRITING: Cell<bool> = const { Cell::new(false) };
}

/// Logs on stderr. [`SimpleLogger`] panics where stderr cannot be written to, as when it is a
/// pipe that nobody reads any longer or a file on a full disk. A log line is worth less than the
/// clients: it is lost, and those after it are tried again.
struct Stderr(SimpleLogger);

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        WRITING.set(true);
        // Nothing of it is looked at afterwards that a panic could have left half done.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| self.0.log(record)));
        WRITING.set(false);
    }

    fn flush(&self) {}
}

/// To be called once, before anything is logged.
pub(crate) fn init(level: LevelFilter) {
    // The hook's report would go to the same stderr, and on a disk with a little room left it
    // would fill the log with panics that are none. Those of handlers are still reported.
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !WRITING.get() {
            report(panic);
        }
    }));
    let colors = std::io::stderr().is_terminal();
    let logger = SimpleLogger::new().with_level(level).with_colors(colors).with_utc_timestamps();
    // It fails only when there is a logger already.
    if log::set_boxed_logger(Box::new(Stderr(logger))).is_ok() {
        log::set_max_level(level);
    }
}
