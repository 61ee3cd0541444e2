use std::collections::BTreeMap;
use std::time::Duration;

use reactor::testing::Harness;
use reactor::{CloseReason, ConnId, services};

use super::{Book, Choices, Model};

/// The date is the machine's: letters and digits are compared as such.
pub struct Time {
    interval: Duration,
    count: u64,
    line: Vec<u8>,
    /// Lines that each has had, and when the next one is due.
    clients: BTreeMap<ConnId, (u64, Duration)>,
}

impl Time {
    fn say(&mut self, book: &mut Book, id: ConnId, lines: u64, due: Duration) {
        book.say(id, &self.line);
        if lines == self.count {
            self.clients.remove(&id);
            return book.ends(id, CloseReason::Closed);
        }
        let next = due + self.interval;
        let next = if next <= book.clock { book.clock + self.interval } else { next };
        self.clients.insert(id, (lines, next));
    }
}

impl Model for Time {
    type Service = services::Time;

    const NAME: &'static str = "time";
    const CUTS_LINES: bool = false;

    fn start(choices: &mut Choices) -> (services::Time, Time) {
        let interval = Duration::from_millis(choices.one_of(&[1000, 1, 70_000]));
        let count = choices.one_of(&[15, 3, 1, 0]);
        let service = services::Time::new(interval, count);
        let mut probe = Harness::new(service.clone());
        let client = probe.connect();
        let mut time = Time { interval, count, line: Vec::new(), clients: BTreeMap::new() };
        time.line = probe.sent(client);
        let mut line = std::mem::take(&mut time.line);
        time.plain(&mut line);
        time.line = line;
        (service, time)
    }

    fn successor(&self) -> Option<services::Time> {
        Some(services::Time::new(self.interval, self.count))
    }

    fn talk(&self, _choices: &mut Choices, _longest: usize) -> Vec<u8> {
        Vec::new()
    }

    fn opened(&mut self, book: &mut Book, id: ConnId) {
        self.say(book, id, 1, book.clock);
    }

    fn timer(&mut self, book: &mut Book, id: ConnId) {
        match self.clients.remove(&id) {
            Some((lines, due)) if due <= book.clock => self.say(book, id, lines + 1, due),
            wrong => book.complain(format!("{id}: a line at the wrong time: {wrong:?}")),
        }
    }

    fn eof(&mut self, _book: &mut Book, _id: ConnId) {}

    fn closed(&mut self, _book: &mut Book, id: ConnId, _reason: CloseReason) {
        self.clients.remove(&id);
    }

    fn keeps(input: &[u8]) -> bool {
        input.is_empty()
    }

    fn overdue(&self, book: &Book) -> Option<String> {
        let mut due = self.clients.iter();
        let late = due.find(|(id, (_, due))| *due <= book.clock && book.is_open(**id));
        late.map(|(id, (_, due))| format!("a line for {id} at {due:?}"))
    }

    fn plain(&self, got: &mut [u8]) {
        for byte in got {
            match byte {
                b'0'..=b'9' => *byte = b'0',
                b'a'..=b'z' | b'A'..=b'Z' => *byte = b'A',
                _ => {}
            }
        }
    }

    fn left_over(&self) -> usize {
        self.clients.len()
    }
}
