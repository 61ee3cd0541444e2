use std::io::{IsTerminal, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use simple_logger::SimpleLogger;

/// Lines that may wait to be written; those beyond it are lost, and how many is logged.
const QUEUE: usize = 1024;
/// How long the end of the program waits for them.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// The name of the thread that writes.
const WRITER: &str = "log";

/// Logs on stderr, from a thread of its own: a pipe that nobody reads, or a terminal that is
/// held with Ctrl-S, would otherwise stop the loop and with it everybody. A log line is worth less
/// than the clients.
struct Stderr {
    level: LevelFilter,
    queue: SyncSender<Entry>,
    lost: AtomicU64,
}

enum Entry {
    Line(Level, String, String),
    /// Say when all before it is written.
    Flush(SyncSender<()>),
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.offer(Level::Warn, module_path!(), format!("{lost} lines of this log were lost"));
        }
        self.offer(record.level(), record.target(), record.args().to_string());
    }

    /// Waits until all is written, though not for ever.
    fn flush(&self) {
        let (tell, told) = sync_channel(1);
        if self.queue.try_send(Entry::Flush(tell)).is_ok() {
            // A writer that is stuck has been given its chance.
            let _ = told.recv_timeout(LAST_WORDS);
        }
    }
}

impl Stderr {
    fn offer(&self, level: Level, target: &str, text: String) {
        if self.queue.try_send(Entry::Line(level, target.to_owned(), text)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The writer. [`SimpleLogger`] panics where stderr cannot be written to, as when it is a pipe
/// that nobody holds any longer or a file on a full disk: that line is lost, and the next is
/// tried again.
fn write(logger: &SimpleLogger, entries: &Receiver<Entry>) {
    for entry in entries {
        match entry {
            Entry::Line(level, target, text) => {
                // Nothing of it is looked at afterwards that a panic could have left half done.
                let _ = panic::catch_unwind(AssertUnwindSafe(|| {
                    let metadata = Metadata::builder().level(level).target(&target).build();
                    let mut record = Record::builder();
                    logger.log(&record.metadata(metadata).args(format_args!("{text}")).build());
                }));
            }
            Entry::Flush(tell) => {
                let _ = std::io::stderr().flush();
                let _ = tell.try_send(());
            }
        }
    }
}

/// To be called once, before anything is logged.
pub(crate) fn init(level: LevelFilter) {
    // The writer's panics are no news, and their report would go to the same stderr. Those of
    // handlers are still reported.
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if thread::current().name() != Some(WRITER) {
            report(panic);
        }
    }));
    let colors = std::io::stderr().is_terminal();
    let logger = SimpleLogger::new().with_level(level).with_colors(colors).with_utc_timestamps();
    let (queue, entries) = sync_channel(QUEUE);
    let writer = thread::Builder::new().name(WRITER.to_owned());
    // Without a thread there is no log, and the services are served all the same.
    let _ = writer.spawn(move || write(&logger, &entries));
    let stderr = Stderr { level, queue, lost: AtomicU64::new(0) };
    // It fails only when there is a logger already.
    if log::set_boxed_logger(Box::new(stderr)).is_ok() {
        log::set_max_level(level);
    }
}

/// To be called last.
pub(crate) fn finish() {
    log::logger().flush();
}
