use hdrhistogram::Histogram;

use super::fault::Fault;

/// The longest latency that is distinguished from longer ones, in nanoseconds: an hour.
const LONGEST: u64 = 3_600_000_000_000;
/// Bytes of a wrong line that are kept to be shown.
const SAMPLE: usize = 80;

/// What has been counted so far.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// Connections that were greeted.
    pub(crate) connections: u64,
    /// Right lines received.
    pub(crate) lines: u64,
    /// Mode presence: lines that every client has heard.
    pub(crate) messages: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    /// In nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    /// Requests that were sent, in the modes that count them.
    pub(crate) sent: Option<u64>,
    /// With `--rate`: lines that were due and could not be sent.
    pub(crate) unsent: Option<u64>,
    /// Mode time: nanoseconds from line to line.
    pub(crate) interval: Option<u64>,
    /// Mode time: lines of the first client that the server has closed.
    pub(crate) lines_each: Option<u64>,
    faults: [u64; Fault::ALL.len()],
    pub(crate) first_wrong: Option<Wrong>,
}

/// What came, what should have come instead, and the request it was to answer, if it was a reply. They are
/// escaped for a terminal, to stand between quotation marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) got: String,
    pub(crate) wanted: String,
    pub(crate) sent: Option<String>,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let latencies = Histogram::new_with_bounds(1, LONGEST, 3);
        Metrics {
            connections: 0,
            lines: 0,
            messages: 0,
            bytes_sent: 0,
            bytes_received: 0,
            latencies: latencies.expect("the bounds are in order"),
            sent: None,
            unsent: None,
            interval: None,
            lines_each: None,
            faults: Default::default(),
            first_wrong: None,
        }
    }

    /// Counts replies, each of which took this long.
    #[inline]
    pub(crate) fn latency(&mut self, nanos: u64, count: u64) {
        self.latencies.saturating_record_n(nanos, count);
    }

    pub(crate) fn fault(&mut self, fault: Fault, count: u64) {
        self.faults[fault as usize] += count;
    }

    /// Counts a line, or the part of it that came, that is not the one that was wanted.
    #[cold]
    pub(crate) fn wrong(&mut self, fault: Fault, got: &[u8], wanted: &[u8]) {
        self.fault(fault, 1);
        let wrong = || Wrong { got: sample(got), wanted: sample(wanted), sent: None };
        self.first_wrong.get_or_insert_with(wrong);
    }

    /// The same of the reply to a request.
    #[cold]
    pub(crate) fn wrong_reply(&mut self, sent: &[u8], got: &[u8], wanted: &[u8]) {
        let first = self.first_wrong.is_none();
        self.wrong(Fault::WrongReply, got, wanted);
        if let Some(wrong) = self.first_wrong.as_mut().filter(|_| first) {
            wrong.sent = Some(sample(sent));
        }
    }

    /// Forgets the load so far, but no fault and no connection.
    pub(crate) fn restart(&mut self) {
        self.latencies.reset();
        (self.lines, self.messages, self.bytes_sent, self.bytes_received) = (0, 0, 0, 0);
    }

    /// Adds what another thread has counted.
    pub(crate) fn add(&mut self, other: &Metrics) {
        self.connections += other.connections;
        self.lines += other.lines;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        let added = self.latencies.add(&other.latencies);
        added.expect("both have the same bounds");
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or(0) + other.unwrap_or(0)),
        };
        self.sent = sum(self.sent, other.sent);
        self.unsent = sum(self.unsent, other.unsent);
        self.faults.iter_mut().zip(other.faults).for_each(|(all, count)| *all += count);
        if self.first_wrong.is_none() {
            self.first_wrong.clone_from(&other.first_wrong);
        }
    }

    pub(crate) fn count(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }

    pub(crate) fn errors(&self) -> u64 {
        self.faults.iter().sum()
    }

    /// The kinds of faults that occurred.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (Fault, u64)> {
        Fault::ALL.into_iter().map(|fault| (fault, self.count(fault))).filter(|(_, n)| *n > 0)
    }
}

/// Escapes it for a terminal, to stand between quotation marks.
fn sample(bytes: &[u8]) -> String {
    let cut = if bytes.len() > SAMPLE { "..." } else { "" };
    let shown = bytes[..bytes.len().min(SAMPLE)].escape_ascii().to_string();
    shown.replace("\\'", "'") + cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_kind() {
        let mut metrics = Metrics::new();
        assert_eq!((metrics.errors(), metrics.faults().count()), (0, 0));
        metrics.fault(Fault::MissingReply, 3);
        metrics.wrong(Fault::WrongReply, b"\x1b[2J\n", b"> X\n");
        metrics.wrong(Fault::WrongReply, b"second", b"");
        assert_eq!(metrics.errors(), 5);
        let kinds: Vec<_> = metrics.faults().collect();
        assert_eq!(kinds, [(Fault::WrongReply, 2), (Fault::MissingReply, 3)]);
        metrics.wrong_reply(b"x\n", b"third", b"");
        let first =
            Wrong { got: "\\x1b[2J\\n".to_owned(), wanted: "> X\\n".to_owned(), sent: None };
        assert_eq!(metrics.first_wrong, Some(first));
    }

    #[test]
    fn every_kind_is_at_its_place() {
        for (index, fault) in Fault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, index);
        }
    }

    #[test]
    fn a_latency_beyond_all_bounds_is_still_one() {
        let mut metrics = Metrics::new();
        metrics.latency(0, 1);
        metrics.latency(u64::MAX, 2);
        assert_eq!(metrics.latencies.len(), 3);
        assert!(metrics.latencies.max() >= LONGEST);
    }

    #[test]
    fn long_lines_are_cut() {
        assert_eq!(sample(&[b'x'; 100]), format!("{}...", "x".repeat(80)));
        assert_eq!(sample(b"{'time'}\"\\\xff\r\n"), r#"{'time'}\"\\\xff\r\n"#);
    }
}
