use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Resource, getrlimit};

/// How long what was read of the process is good for.
const FRESH: Duration = Duration::from_secs(1);

/// What is to be known of the process around the loop.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Process {
    /// The program's version.
    pub version: Cow<'static, str>,
    /// The number of the process.
    pub pid: u32,
    /// When it started.
    pub started: SystemTime,
    /// How many file descriptors are open. None where the system does not say.
    pub open_fds: Option<u64>,
    /// How many may be: the soft limit. None is without a limit.
    pub max_fds: Option<u64>,
    /// Lines of the log that were lost since nobody took them.
    pub log_lines_dropped: u64,
}

/// Reads a [`Process`], at most once a second.
#[derive(Clone)]
pub struct ProcessReader {
    last: Process,
    read: Option<Instant>,
    log_lines_dropped: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl ProcessReader {
    /// Of a program of this version that starts now.
    pub fn new(version: impl Into<Cow<'static, str>>) -> ProcessReader {
        let last = Process {
            version: version.into(),
            pid: std::process::id(),
            started: SystemTime::now(),
            open_fds: None,
            max_fds: None,
            log_lines_dropped: 0,
        };
        ProcessReader { last, read: None, log_lines_dropped: Arc::new(|| 0) }
    }

    /// Who says how many lines of the log were lost, which the loop cannot know.
    pub fn log_lines_dropped(
        self,
        count: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> ProcessReader {
        ProcessReader { log_lines_dropped: Arc::new(count), ..self }
    }

    /// The process as it is now, or was a second ago at most.
    pub fn read(&mut self, now: Instant) -> &Process {
        if self.read.is_none_or(|read| now.saturating_duration_since(read) >= FRESH) {
            self.read = Some(now);
            self.last.open_fds = open_fds();
            self.last.max_fds = getrlimit(Resource::Nofile).current;
            self.last.log_lines_dropped = (self.log_lines_dropped)();
        }
        &self.last
    }
}

impl fmt::Debug for ProcessReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessReader").field("last", &self.last).finish_non_exhaustive()
    }
}

/// Since Linux 6.2 the size of the folder is the number; proc(5). Before, they are counted, which takes a
/// millisecond for a thousand.
#[cfg(target_os = "linux")]
fn open_fds() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match std::fs::metadata(FOLDER).ok()?.len() {
        // The folder itself is open while it is read.
        0 => Some(std::fs::read_dir(FOLDER).ok()?.count() as u64 - 1),
        known => Some(known),
    }
}

#[cfg(not(target_os = "linux"))]
fn open_fds() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn is_read_once_a_second() {
        let lost = Arc::new(AtomicU64::new(1));
        let count = Arc::clone(&lost);
        let mut reader = ProcessReader::new("1.2.3").log_lines_dropped(move || count.load(Relaxed));
        let start = Instant::now();
        let first = reader.read(start).clone();
        assert_eq!((first.version.as_ref(), first.log_lines_dropped), ("1.2.3", 1));
        assert_eq!(first.pid, std::process::id());
        assert!(first.open_fds.unwrap_or(3) <= first.max_fds.unwrap_or(u64::MAX));
        lost.store(2, Relaxed);
        assert_eq!(reader.read(start + FRESH / 2).log_lines_dropped, 1);
        assert_eq!(reader.read(start + FRESH).log_lines_dropped, 2);
    }
}
