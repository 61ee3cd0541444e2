use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use reactor::{Address, CloseReason, ConnId, services};

use super::{Book, Choices, Model};

/// What comes in at one side of a pair goes out at the other.
#[derive(Default)]
pub struct Forward {
    /// Those that are there, from when they opened until they closed.
    opened: BTreeSet<ConnId>,
    /// Clients by the number that the connection dialled for them must have.
    clients: BTreeMap<u64, ConnId>,
    /// How the last clients left whose partners had not been met.
    left: BTreeMap<u64, CloseReason>,
    /// The number of the next connection.
    next: u64,
    pairs: BTreeMap<ConnId, ConnId>,
}

const MOST_LEFT: usize = 100;

/// Connections are numbered as they are made, and the target is dialled as soon as a client opens.
fn number(id: ConnId) -> u64 {
    id.to_string()[1..].parse().expect("an id shows its number")
}

impl Forward {
    fn partner(&self, book: &Book, id: ConnId) -> Option<ConnId> {
        self.pairs.get(&id).copied().filter(|partner| book.is_there(*partner))
    }
}

impl Model for Forward {
    type Service = services::Forward;

    const NAME: &'static str = "forward";
    const CUTS_LINES: bool = false;
    const PAUSES: bool = true;

    fn start(_choices: &mut Choices) -> (services::Forward, Forward) {
        let target = Address::Tcp(([127, 0, 0, 1], 1).into());
        (services::Forward::new(target), Forward::default())
    }

    fn talk(&self, _choices: &mut Choices, _longest: usize) -> Vec<u8> {
        Vec::new()
    }

    fn met(&mut self, id: ConnId) {
        self.next = self.next.max(number(id) + 1);
    }

    fn dialled(&mut self, book: &mut Book, id: ConnId) {
        match self.clients.get(&number(id)) {
            Some(client) => {
                self.pairs.insert(id, *client);
                self.pairs.insert(*client, id);
            }
            // It has left meanwhile.
            None => {
                let left = self.left.remove(&number(id));
                book.ends(id, left.unwrap_or(CloseReason::Closed));
            }
        }
    }

    fn opened(&mut self, _book: &mut Book, id: ConnId) {
        self.opened.insert(id);
        self.met(id);
        if !self.pairs.contains_key(&id) {
            self.clients.insert(self.next, id);
            self.next += 1;
        }
    }

    fn took(&mut self, book: &mut Book, id: ConnId, bytes: &[u8]) {
        let Some(partner) = self.partner(book, id) else { return };
        if book.is_healthy(partner) && book.backlog(partner) > book.limits.low_water {
            book.complain(format!("{id} is read although {partner} does not read"));
        }
        book.answer(partner, bytes);
    }

    fn eof(&mut self, book: &mut Book, id: ConnId) {
        if let Some(partner) = self.partner(book, id) {
            if book.heard_all(partner) {
                book.ends(partner, CloseReason::Closed);
            } else {
                book.finishes(partner);
            }
        }
        if !book.takes_output(id) {
            // Both sides have ended.
            book.ends(id, CloseReason::PeerClosed);
        }
    }

    fn closed(&mut self, book: &mut Book, id: ConnId, reason: CloseReason) {
        let was_there = self.opened.remove(&id);
        let orderly = match reason {
            CloseReason::PeerClosed
            | CloseReason::Closed
            | CloseReason::IdleTimeout
            | CloseReason::Shutdown => true,
            CloseReason::Error(_) if book.heard_all(id) => true,
            CloseReason::Error(ErrorKind::ConnectionReset) => false,
            _ => !was_there,
        };
        let reason = if orderly { CloseReason::Closed } else { CloseReason::Aborted };
        if let Some(partner) = self.partner(book, id) {
            book.ends(partner, reason);
        }
        if let Some(number) =
            self.clients.iter().find(|(_, client)| **client == id).map(|(number, _)| *number)
        {
            self.clients.remove(&number);
            self.left.insert(number, reason);
            if self.left.len() > MOST_LEFT {
                self.left.pop_first();
            }
        }
        if let Some(partner) = self.pairs.remove(&id)
            && !book.is_there(partner)
        {
            self.pairs.remove(&partner);
        }
    }

    fn keeps(input: &[u8]) -> bool {
        input.is_empty()
    }

    fn left_over(&self) -> usize {
        self.opened.len() + self.clients.len() + self.pairs.len()
    }
}
