//! What the roulette says in JSON: without spaces, with the keys in this order.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use super::names::Names;
use crate::text::unprintable;

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub(super) enum Reply<'a> {
    Info { protocol_version: &'a str, number_of_students: usize },
    Student { fullname: &'a str },
    Loaded { status: &'a str, number_of_new_students: usize },
    Bye { status: &'a str, number_of_commands: u64 },
    Error { error: &'a str },
}

impl Reply<'_> {
    /// The line that it is sent as.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = Vec::new();
        self.put(&mut line);
        line.push(b'\n');
        line
    }

    fn put(&self, json: &mut Vec<u8>) {
        let mut json = Serializer::with_formatter(json, Escaping);
        self.serialize(&mut json).expect("text and numbers can always be written");
    }
}

/// Escapes what JSON would let pass and a terminal or an eye should not get, so that it still comes
/// back whole.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut from = 0;
        for (at, c) in unprintable(fragment) {
            writer.write_all(&fragment.as_bytes()[from..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            from = at + c.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[from..])
    }
}

/// The reply to LIST, in pieces: with half a million students it is too long to be made at once.
#[derive(Debug)]
pub(super) struct Listing {
    /// The store that the client asked for. It may have grown since, or been cleared for the others.
    pub(super) students: Rc<RefCell<Names>>,
    /// How many were before the first of them: those that everybody was sent before another process went on
    /// with the rest of a store that was cleared.
    pub(super) before: usize,
    /// Which of them, in the order of the store, are still to be sent. Those that were loaded since
    /// are not among these. None once the end is sent.
    pub(super) left: Option<Range<usize>>,
}

impl Listing {
    pub(super) fn new(students: &Rc<RefCell<Names>>) -> Listing {
        let left = Some(0..students.borrow().len());
        Listing { students: Rc::clone(students), before: 0, left }
    }

    /// The next piece of the reply; none after the last. It has no more than some 200 KiB, however many
    /// students there are, unless a single name is longer.
    pub(super) fn next_piece(&mut self) -> Option<Vec<u8>> {
        let mut left = self.left.take()?;
        let mut json = Vec::new();
        if left.start == 0 {
            json.extend(b"{\"students\":[");
        }
        let range = left.start - self.before..left.end - self.before;
        for fullname in self.students.borrow().piece(range) {
            if left.start > 0 {
                json.push(b',');
            }
            Reply::Student { fullname }.put(&mut json);
            left.start += 1;
        }
        match left.is_empty() {
            true => json.extend(b"]}\n"),
            false => self.left = Some(left),
        }
        Some(json)
    }
}
