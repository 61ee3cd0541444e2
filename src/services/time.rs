use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::known_version;
use crate::{
    ConnId, Context, Decoder, Encoder, Handler, Saved, ServiceContext, TimerId, Unreadable,
};

/// Streams the time to each client: one line at once, then one per interval.
///
/// ```text
/// $ nc 127.0.0.1 2205
/// {'time' : 'Sat Nov 21 19:10:00 UTC 2026'}
/// {'time' : 'Sat Nov 21 19:10:01 UTC 2026'}
/// ```
///
/// The date is written as by Java's `Date.toString()`, in the time zone of the machine or of the
/// environment variable `TZ`. By default each client gets 15 lines, a second apart. What a client sends
/// is read and ignored. If the machine's clock is outside the years -9999 to 9999, clients are closed
/// without a line, and the log says so.
#[derive(Clone, Debug)]
pub struct Time {
    interval: Duration,
    count: u64,
    zone: TimeZone,
    /// The last line, which thousands of clients share, and the second that it is for.
    line: String,
    second: Option<i64>,
    /// The log has been told that there is no time to tell.
    has_complained: bool,
}

/// How far one client's stream has come.
#[derive(Debug, Default)]
pub struct Session {
    /// How many lines it was sent.
    lines: u64,
    /// When the next line is due. It counts from the one before, so that the rhythm does not drift.
    next: Option<Instant>,
    /// The same, from now on, until its timer is set again in another process.
    left: Option<Duration>,
}

impl Time {
    /// Streams `count` lines to each client, the first at once and the others `interval` apart. A
    /// count of 0 streams until the client leaves.
    ///
    /// # Panics
    /// If the interval is zero.
    pub fn new(interval: Duration, count: u64) -> Time {
        assert!(!interval.is_zero(), "the interval must not be zero");
        // A machine without any time zone, such as a small container, is taken to be at UTC.
        let zone = Some(TimeZone::system()).filter(|zone| !zone.is_unknown());
        Time {
            interval,
            count,
            zone: zone.unwrap_or(TimeZone::UTC),
            line: String::new(),
            second: None,
            has_complained: false,
        }
    }

    /// The line for a time of day. None if it cannot be written.
    fn line(&mut self, time: SystemTime) -> Option<&str> {
        let now = Timestamp::try_from(time).ok()?;
        if self.second != Some(now.as_second()) {
            self.second = Some(now.as_second());
            let date = now.to_zoned(self.zone.clone()).strftime("%a %b %d %H:%M:%S %Z %Y");
            self.line = format!("{{'time' : '{date}'}}\n");
        }
        Some(&self.line)
    }

    fn send(&mut self, cx: &mut Context<'_, Session>) {
        let Some(line) = self.line(cx.wall_clock()) else {
            if !std::mem::replace(&mut self.has_complained, true) {
                log::error!("no time to tell: set this machine's clock to a year up to 9999");
            }
            return cx.close();
        };
        cx.send(line);
        let (now, interval, count) = (cx.now(), self.interval, self.count);
        let session = cx.session();
        session.lines += 1;
        // It may have had more of another process.
        if count > 0 && session.lines >= count {
            return cx.close();
        }
        // After a long sleep of the machine, the lines that were missed are not sent in a burst.
        let due = session.next.unwrap_or(now).checked_add(interval);
        // None is further away than the clock can count, which is never.
        let next = if due.is_some_and(|due| due <= now) { now.checked_add(interval) } else { due };
        session.next = next;
        if let Some(next) = next {
            cx.set_timer_at(next);
        }
    }
}

impl Default for Time {
    fn default() -> Self {
        Time::new(Duration::from_secs(1), 15)
    }
}

impl Handler for Time {
    type Session = Session;
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, Session>) {
        self.send(cx);
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Session>, _timer: TimerId) {
        self.send(cx);
    }

    fn on_bytes(&mut self, _cx: &mut Context<'_, Session>, bytes: &[u8]) -> usize {
        // Not cut into lines, so that no line is too long.
        bytes.len()
    }

    fn on_eof(&mut self, _cx: &mut Context<'_, Session>) {
        // Stays open: `nc -N 127.0.0.1 2205 </dev/null` ends its side at once and reads all lines.
    }

    fn save(&self, _cx: &ServiceContext<'_, Session>) -> Option<Saved> {
        // How it was made, and what it finds out again.
        let Time { interval: _, count: _, zone: _, line: _, second: _, has_complained: _ } = self;
        Some(Saved::new(1))
    }

    fn save_session(
        &self,
        cx: &ServiceContext<'_, Session>,
        _id: ConnId,
        session: &Session,
        to: &mut Encoder,
    ) {
        let Session { lines, next, left: _ } = session;
        to.put_number(*lines);
        let left = next.map(|next| next.saturating_duration_since(cx.now()));
        to.put_option(left, Encoder::put_duration);
    }

    fn restore(&mut self, version: u32, _from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        known_version(version, 1)
    }

    fn restore_session(
        &mut self,
        _id: ConnId,
        _version: u32,
        from: &mut Decoder<'_>,
    ) -> Result<Session, Unreadable> {
        Ok(Session { lines: from.number()?, next: None, left: from.option(Decoder::duration)? })
    }

    fn on_restored(&mut self, cx: &mut Context<'_, Session>) {
        let left = cx.session().left.take();
        let next = left.and_then(|left| cx.now().checked_add(left));
        cx.session().next = next;
        if let Some(next) = next {
            cx.set_timer_at(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CloseReason;
    use crate::testing::Harness;

    const SECOND: Duration = Duration::from_secs(1);

    /// A server whose first line is of ten past seven.
    fn at_ten_past_seven(count: u64) -> Harness<Time> {
        let time = Time { zone: TimeZone::UTC, ..Time::new(SECOND, count) };
        let mut server = Harness::new(time);
        let start: Timestamp = "2026-11-21T19:10:00Z".parse().unwrap();
        server.set_wall_clock(start.into());
        server
    }

    /// The lines of these seconds.
    fn lines(seconds: impl Iterator<Item = u32>) -> String {
        seconds.map(|s| format!("{{'time' : 'Sat Nov 21 19:10:{s:02} UTC 2026'}}\n")).collect()
    }

    #[test]
    fn the_rhythm_and_the_count_of_lines_go_on_in_another_process() {
        let mut server = at_ten_past_seven(3);
        let client = server.connect();
        server.advance(SECOND * 14 / 10);
        let next = Time { zone: TimeZone::UTC, ..Time::new(SECOND, 3) };
        assert!(server.upgrade(next).is_ok());
        assert_eq!(server.sent(client), lines(0..2).as_bytes());
        server.advance(SECOND * 59 / 100);
        assert_eq!(server.sent(client), b"");
        server.advance(SECOND / 100);
        assert_eq!(server.sent(client), lines(2..3).as_bytes());
        assert_eq!(server.closed(client), Some(CloseReason::Closed));
    }

    /// It was never reached, and the stream had no end.
    #[test]
    fn who_has_had_more_lines_than_the_next_process_gives_is_closed_behind_another() {
        let mut server = at_ten_past_seven(0);
        let client = server.connect();
        server.advance(SECOND);
        let next = Time { zone: TimeZone::UTC, ..Time::new(SECOND, 1) };
        assert!(server.upgrade(next).is_ok());
        server.advance(SECOND);
        assert_eq!(server.sent(client), lines(0..3).as_bytes());
        assert!(server.is_shut(client));
    }

    #[test]
    fn streams_fifteen_lines_from_each_clients_own_arrival() {
        let mut server = at_ten_past_seven(15);
        let first = server.connect();
        assert_eq!(server.sent(first), lines(0..1).as_bytes());
        server.advance(SECOND / 2);
        let second = server.connect();
        assert_eq!(server.sent(second), lines(0..1).as_bytes());
        assert_eq!(server.sent(first), b"");
        server.advance(SECOND / 2);
        assert_eq!(server.sent(first), lines(1..2).as_bytes());
        assert_eq!(server.sent(second), b"");
        for _ in 0..13 {
            server.advance(SECOND);
        }
        assert_eq!(server.sent(first), lines(2..15).as_bytes());
        assert!(server.is_shut(first) && !server.is_shut(second));
    }

    #[test]
    fn ignores_what_it_is_sent_even_the_end() {
        let mut server = at_ten_past_seven(3);
        let client = server.connect();
        server.feed(client, vec![b'x'; 200_000]);
        server.end(client);
        server.advance(2 * SECOND);
        server.advance(SECOND);
        assert_eq!(server.sent(client), lines(0..3).as_bytes());
        assert_eq!(server.closed(client), Some(CloseReason::PeerClosed));
    }

    #[test]
    fn a_clock_that_jumps_makes_no_burst() {
        let mut server = at_ten_past_seven(0);
        let client = server.connect();
        server.jump(50 * SECOND);
        assert_eq!(server.sent(client), lines([0, 50].into_iter()).as_bytes());
    }

    /// It panicked for each client.
    #[test]
    fn a_clock_beyond_all_years_is_told_of_and_tells_nothing() {
        for time in [
            SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_800),
            SystemTime::UNIX_EPOCH - Duration::from_secs(1 << 40),
        ] {
            let mut server = Harness::new(Time::default());
            server.set_wall_clock(time);
            let client = server.connect();
            assert_eq!((server.sent(client), server.is_shut(client)), (Vec::new(), true));
            server.end(client);
            assert_eq!(server.closed(client), Some(CloseReason::Closed));
        }
    }

    #[test]
    fn writes_the_day_as_java_does_and_the_zone_by_its_abbreviation() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let mut summer = Time { zone, ..Time::default() };
        let time: Timestamp = "2026-07-04T01:02:01Z".parse().unwrap();
        let line = summer.line(time.into());
        assert_eq!(line, Some("{'time' : 'Sat Jul 04 03:02:01 CEST 2026'}\n"));
    }
}
