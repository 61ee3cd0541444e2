use jiff::civil::DateTime;
use reactor::{Context, ServiceContext};

use crate::cli::load::fault::Fault;
use crate::cli::load::metrics::Tally;
use crate::cli::load::modes::Part;
use crate::cli::load::run::{Client, Crew};

/// Times from line to line that the rhythm is taken from.
const SAMPLES: usize = 100_000;

/// What one client of the time service has had.
#[derive(Debug, Default)]
pub(crate) struct Session {
    lines: u64,
    /// When the last line came, and what it said.
    when: u64,
    said: Option<DateTime>,
}

/// The mode time: every client listens until the server closes.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// The last line that was read, and its time: thousands of clients get the same.
    line: Vec<u8>,
    said: Option<DateTime>,
    /// Clients that something has come for, but not a whole line yet.
    waiting: u64,
    /// The first times from line to line, as long as the rhythm is not known.
    gaps: Vec<u64>,
}

impl Clock {
    /// The time that a line tells; none if it is not as it must be.
    fn read(&mut self, line: &[u8]) -> Option<DateTime> {
        if line != self.line {
            self.said = read(line);
            line.clone_into(&mut self.line);
        }
        self.said
    }

    fn gap(&mut self, tally: &mut Tally, gap: u64) {
        match tally.interval {
            Some(interval) => tally.latency(gap.abs_diff(interval), 1),
            None => {
                self.gaps.push(gap);
                if self.gaps.len() == SAMPLES {
                    self.find_rhythm(tally);
                }
            }
        }
    }

    /// The server does not tell its interval: it is the median of what was seen.
    fn find_rhythm(&mut self, tally: &mut Tally) {
        let middle = self.gaps.len() / 2;
        if tally.interval.is_some() || self.gaps.is_empty() {
            return;
        }
        let (_, interval, _) = self.gaps.select_nth_unstable(middle);
        tally.interval = Some(*interval);
        for gap in std::mem::take(&mut self.gaps) {
            self.gap(tally, gap);
        }
    }
}

/// Reads `{'time' : 'Sat Nov 21 19:10:00 UTC 2026'}`. The zone may be any word.
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
    // Reading is more lenient than writing, as to blanks, zeros and case.
    (said.strftime("%a %b %d %H:%M:%S %Y").to_string() == bare).then_some(said)
}

impl Part for Clock {
    type Session = Session;

    const GREETING: &str = "";

    fn arrived(&mut self, _crew: &mut Crew, _cx: &mut Context<'_, Client<Session>>) {
        self.waiting += 1;
    }

    fn take(
        &mut self,
        crew: &mut Crew,
        cx: &mut Context<'_, Client<Session>>,
        bytes: &[u8],
    ) -> usize {
        let now = crew.now(cx);
        let mut taken = 0;
        while let Some(end) = memchr::memchr(b'\n', &bytes[taken..]) {
            let line = &bytes[taken..=taken + end];
            taken += end + 1;
            let said = self.read(line);
            let session = &mut cx.session().part;
            self.waiting -= u64::from(session.lines == 0);
            session.lines += 1;
            // The zone may put its clocks back by an hour meanwhile, but not more.
            let before = session.said.replace(said.unwrap_or_default());
            let hour = jiff::Span::new().hours(1);
            let turned_back =
                |said: DateTime| before.is_some_and(|it| said.saturating_add(hour) < it);
            if said.is_none_or(turned_back) {
                crew.tally.wrong(Fault::WrongReply, line, b"{'time' : '...'}\n");
                // It is no clock, and may never end.
                cx.close();
                return bytes.len();
            }
            crew.right(1, now);
            if session.lines > 1 {
                self.gap(&mut crew.tally, now - session.when);
            }
            session.when = now;
        }
        taken
    }

    /// The next line may be overdue.
    fn owed(&mut self, crew: &mut Crew, cx: &mut Context<'_, Client<Session>>) {
        let (now, session) = (crew.now(cx), &cx.session().part);
        self.find_rhythm(&mut crew.tally);
        let overdue = crew.tally.interval.and_then(|it| (now - session.when).checked_sub(it));
        if let Some(overdue) = overdue.filter(|_| session.lines > 0) {
            crew.tally.latency(overdue, 1);
        }
    }

    fn leave(&mut self, crew: &mut Crew, cx: &mut ServiceContext<'_, Client<Session>>) -> bool {
        self.all_owed(crew, cx);
        false
    }

    fn is_settled(&self, _crew: &Crew) -> bool {
        self.waiting == 0
    }

    fn give_up(&mut self, crew: &mut Crew, _cx: &mut ServiceContext<'_, Client<Session>>) {
        crew.tally.fault(Fault::MissingReply, self.waiting);
    }

    fn ended(&mut self, crew: &mut Crew, cx: &mut Context<'_, Client<Session>>) -> bool {
        let lines = cx.session().part.lines;
        if *crew.tally.lines_each.get_or_insert(lines) != lines {
            crew.tally.fault(Fault::LineCount, 1);
        }
        true
    }

    fn left(&mut self, crew: &mut Crew, cx: &mut Context<'_, Client<Session>>, _right: bool) {
        if cx.session().part.lines == 0 && !crew.has_given_up() {
            self.waiting -= 1;
            crew.tally.fault(Fault::MissingReply, 1);
        }
    }

    fn conclude(&mut self, crew: &mut Crew) {
        self.find_rhythm(&mut crew.tally);
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
        let (mut clock, mut tally) = (Clock::default(), Tally::new());
        for gap in [1_000_000, 1_000_100, 999_000, 1_000_000, 1_000_000] {
            clock.gap(&mut tally, gap);
        }
        assert_eq!((tally.interval, tally.latencies.len()), (None, 0));
        clock.find_rhythm(&mut tally);
        assert_eq!((tally.interval, tally.latencies.len()), (Some(1_000_000), 5));
        assert_eq!((tally.latencies.min(), tally.latencies.max()), (0, 1000));
    }
}
