//! The mode time: the clients listen to the time service until it closes.

use jiff::civil::DateTime;
use reactor::{Context, ServiceContext};

use super::Workload;
use crate::cli::load::fault::Fault;
use crate::cli::load::greeting::Greeting;
use crate::cli::load::metrics::Metrics;
use crate::cli::load::run::{Client, Run};

/// How many times from line to line the interval is computed from.
const SAMPLES: usize = 100_000;

/// What one client has heard.
#[derive(Debug, Default)]
pub(crate) struct Session {
    lines: u64,
    /// When the last line came.
    when: u64,
    /// What the last line said.
    said: Option<DateTime>,
}

/// What the clients have in common.
#[derive(Debug, Default)]
pub(crate) struct Time {
    /// The last line that was parsed, and its time below: thousands of clients get the same.
    line: Vec<u8>,
    said: Option<DateTime>,
    /// Clients that have received something, but not a whole line yet.
    waiting: u64,
    /// The first times from line to line, until the interval is known.
    gaps: Vec<u64>,
}

impl Time {
    /// The time that a line tells, unless the line is malformed.
    fn read(&mut self, line: &[u8]) -> Option<DateTime> {
        if line != self.line {
            self.said = read(line);
            line.clone_into(&mut self.line);
        }
        self.said
    }

    /// Counts a time from line to line.
    fn gap(&mut self, metrics: &mut Metrics, gap: u64) {
        match metrics.interval {
            Some(interval) => metrics.latency(gap.abs_diff(interval), 1),
            None => {
                self.gaps.push(gap);
                if self.gaps.len() == SAMPLES {
                    self.find_interval(metrics);
                }
            }
        }
    }

    /// The interval is the median of what was seen, since the server does not tell it.
    fn find_interval(&mut self, metrics: &mut Metrics) {
        let middle = self.gaps.len() / 2;
        if metrics.interval.is_some() || self.gaps.is_empty() {
            return;
        }
        let (_, interval, _) = self.gaps.select_nth_unstable(middle);
        metrics.interval = Some(*interval);
        for gap in std::mem::take(&mut self.gaps) {
            self.gap(metrics, gap);
        }
    }
}

/// Parses `{'time' : 'Sat Nov 21 19:10:00 UTC 2026'}`. The zone may be any word.
fn read(line: &[u8]) -> Option<DateTime> {
    let line = str::from_utf8(line).ok()?;
    let date = line.strip_prefix("{'time' : '")?.strip_suffix("'}\n")?;
    let words: Vec<_> = date.split(' ').collect();
    let [day, month, number, time, zone, year] = words.try_into().ok()?;
    if zone.is_empty() {
        return None;
    }
    let bare = format!("{day} {month} {number} {time} {year}");
    let said = DateTime::strptime("%a %b %d %H:%M:%S %Y", &bare).ok()?;
    // strptime is more lenient than strftime about blanks, zeros and case.
    (said.strftime("%a %b %d %H:%M:%S %Y").to_string() == bare).then_some(said)
}

impl Workload for Time {
    type Session = Session;

    fn greeting(&self) -> Greeting {
        Greeting::Any
    }

    fn on_greeted(&mut self, _run: &mut Run, _cx: &mut Context<'_, Client<Session>>) {
        self.waiting += 1;
    }

    fn on_bytes(
        &mut self,
        run: &mut Run,
        cx: &mut Context<'_, Client<Session>>,
        bytes: &[u8],
    ) -> usize {
        let now = run.now(cx);
        let mut taken = 0;
        while let Some(end) = memchr::memchr(b'\n', &bytes[taken..]) {
            let line = &bytes[taken..=taken + end];
            taken += end + 1;
            let said = self.read(line);
            let session = &mut cx.session().own;
            self.waiting -= u64::from(session.lines == 0);
            session.lines += 1;
            // The zone may turn its clocks back by an hour meanwhile, but not by more.
            let before = session.said.replace(said.unwrap_or_default());
            let hour = jiff::Span::new().hours(1);
            let turned_back =
                |said: DateTime| before.is_some_and(|it| said.saturating_add(hour) < it);
            if said.is_none_or(turned_back) {
                run.metrics.wrong(Fault::WrongReply, line, b"{'time' : '...'}\n");
                // It is no time service, and may never end.
                cx.close();
                return bytes.len();
            }
            run.right(1, now);
            if session.lines > 1 {
                self.gap(&mut run.metrics, now - session.when);
            }
            session.when = now;
        }
        taken
    }

    /// The next line may be overdue.
    fn count_owed(&mut self, run: &mut Run, cx: &mut Context<'_, Client<Session>>) {
        let (now, session) = (run.now(cx), &cx.session().own);
        self.find_interval(&mut run.metrics);
        let overdue = run.metrics.interval.and_then(|it| (now - session.when).checked_sub(it));
        if let Some(overdue) = overdue.filter(|_| session.lines > 0) {
            run.metrics.latency(overdue, 1);
        }
    }

    fn say_goodbye(&mut self, run: &mut Run, cx: &mut ServiceContext<'_, Client<Session>>) -> bool {
        self.count_all_owed(run, cx);
        false
    }

    fn is_settled(&self, _run: &Run) -> bool {
        self.waiting == 0
    }

    fn give_up(&mut self, run: &mut Run, _cx: &mut ServiceContext<'_, Client<Session>>) {
        run.metrics.fault(Fault::MissingReply, self.waiting);
    }

    fn on_eof(&mut self, run: &mut Run, cx: &mut Context<'_, Client<Session>>) -> bool {
        let lines = cx.session().own.lines;
        if *run.metrics.lines_each.get_or_insert(lines) != lines {
            run.metrics.fault(Fault::LineCount, 1);
        }
        true
    }

    fn on_gone(&mut self, run: &mut Run, cx: &mut Context<'_, Client<Session>>, _right: bool) {
        if cx.session().own.lines == 0 && !run.has_given_up() {
            self.waiting -= 1;
            run.metrics.fault(Fault::MissingReply, 1);
        }
    }

    fn conclude(&mut self, run: &mut Run) {
        self.find_interval(&mut run.metrics);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_server_writes_and_nothing_else() {
        assert!(read(b"{'time' : 'Sat Nov 21 19:10:00 UTC 2026'}\n").is_some());
        assert!(read(b"{'time' : 'Sat Jul 04 03:02:01 CEST 2026'}\n").is_some());
        for wrong in [
            "",
            "\n",
            "{'time' : 'Sat Nov 21 19:10:00 UTC 2026'}",
            "{'time' : 'Sun Nov 21 19:10:00 UTC 2026'}\n",
            "{'time' : 'Sat Nov 31 19:10:00 UTC 2026'}\n",
            "{'time' : 'Sat Jul 4 03:02:01 CEST 2026'}\n",
            "{'time' : 'sat Jul 04 03:02:01 CEST 2026'}\n",
            "{'time' : 'Sat Jul 04 03:02:01  2026'}\n",
            "{'time' : 'Sat Jul 04 03:02:01 CEST 2026'} \n",
            "{\"time\" : \"Sat Jul 04 03:02:01 CEST 2026\"}\n",
        ] {
            assert_eq!(read(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_rhythm_is_the_median_and_jitter_what_deviates() {
        let (mut time, mut metrics) = (Time::default(), Metrics::new());
        for gap in [1_000_000, 1_000_100, 999_000, 1_000_000, 1_000_000] {
            time.gap(&mut metrics, gap);
        }
        assert_eq!((metrics.interval, metrics.latencies.len()), (None, 0));
        time.find_interval(&mut metrics);
        assert_eq!((metrics.interval, metrics.latencies.len()), (Some(1_000_000), 5));
        assert_eq!((metrics.latencies.min(), metrics.latencies.max()), (0, 1000));
    }
}
