//! What the roulette says in JSON: without spaces, with the keys in this order.

use serde::Serialize;

use super::names::Names;

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
        serde_json::to_writer(json, self).expect("text and numbers can always be written");
    }
}

/// The reply to LIST, in pieces: with half a million students it is too long to be made at once.
#[derive(Debug)]
pub(super) struct Listing {
    /// As they were when the client asked.
    students: Names,
    /// The next piece of them.
    piece: usize,
}

impl Listing {
    pub(super) fn new(students: Names) -> Listing {
        Listing { students, piece: 0 }
    }

    /// The next piece of the reply. It has no more than some 100 KiB, however many students there
    /// are, unless a single name is longer.
    pub(super) fn next_piece(&mut self) -> Vec<u8> {
        let mut json = Vec::new();
        if self.piece == 0 {
            json.extend(b"{\"students\":[");
        }
        for (number, fullname) in self.students.piece(self.piece).enumerate() {
            if (self.piece, number) != (0, 0) {
                json.push(b',');
            }
            Reply::Student { fullname }.put(&mut json);
        }
        self.piece += 1;
        if self.is_done() {
            json.extend(b"]}\n");
        }
        json
    }

    pub(super) fn is_done(&self) -> bool {
        self.piece >= self.students.pieces()
    }
}
