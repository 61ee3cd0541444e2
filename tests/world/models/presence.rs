use std::collections::{BTreeMap, BTreeSet};

use reactor::{CloseReason, ConnId, services};
use unicode_normalization::UnicodeNormalization;

use super::{
    Book, Choices, FOREIGN, Model, harmless, is_foreign, judged, telnet_talk, without_mark,
};

pub struct Presence {
    unique: bool,
    names: BTreeMap<ConnId, String>,
    /// Those that have sent a line.
    heard: BTreeSet<ConnId>,
}

fn service(unique: bool) -> services::Presence {
    let service = services::Presence::default();
    if unique { service.unique_names() } else { service }
}

/// What two names that are the same have in common.
fn essence(name: &str) -> String {
    let seen = name.chars().filter(|c| judged(&c.to_string())[0].1);
    let name: String = seen.nfkc().collect();
    name.to_uppercase().to_lowercase().nfkc().collect()
}

impl Presence {
    fn name(&self, id: ConnId) -> &str {
        self.names.get(&id).map_or("An anonymous user", String::as_str)
    }

    fn is_taken(&self, name: &str, by: ConnId) -> bool {
        let mut others = self.names.iter().filter(|(id, _)| **id != by);
        self.unique && others.any(|(_, other)| essence(other) == essence(name))
    }
}

impl Model for Presence {
    type Service = services::Presence;

    const NAME: &'static str = "presence";
    const TELNET: bool = true;

    fn start(choices: &mut Choices) -> (services::Presence, Presence) {
        let unique = choices.once_in(2);
        (service(unique), Presence { unique, names: BTreeMap::new(), heard: BTreeSet::new() })
    }

    fn successor(&self) -> Option<services::Presence> {
        Some(service(self.unique))
    }

    fn talk(&self, choices: &mut Choices, _longest: usize) -> Vec<u8> {
        let words =
            ["SAY ", "say hello", "HELLO ", "hello", "WHO", "\u{feff}WHO ", "SAY", "KILL", ""];
        let mut talk = telnet_talk(choices);
        talk.extend(if choices.once_in(60) { "bye" } else { choices.one_of(&words) }.bytes());
        talk
    }

    fn opened(&mut self, book: &mut Book, id: ConnId) {
        for other in book.open().into_iter().filter(|other| *other != id) {
            book.say(other, "Someone has arrived...\n");
        }
        book.say(
            id,
            "Welcome to the Presence Server\n  \
             Tell me who you are with 'HELLO name'\n  \
             Say something to other users with 'SAY message'\n  \
             Ask me who is connected with 'WHO'\n  \
             Leave with 'BYE'\n  \
             Shutdown server with 'KILL'\n",
        );
    }

    fn line(&mut self, book: &mut Book, id: ConnId, line: &[u8]) {
        let line = if self.heard.insert(id) { without_mark(line) } else { line };
        if is_foreign(line) {
            book.say(id, FOREIGN);
            return book.ends(id, CloseReason::Closed);
        }
        let end = line.iter().position(|byte| b" \t".contains(byte));
        let (word, rest) = end.map_or((line, &b""[..]), |end| (&line[..end], &line[end + 1..]));
        match word.to_ascii_uppercase().as_slice() {
            b"HELLO" => {
                let text = String::from_utf8_lossy(rest);
                match text.split_whitespace().next() {
                    Some(name) => {
                        let name: String = name.chars().take(64).collect();
                        let name = harmless(name.as_bytes());
                        if self.is_taken(&name, id) {
                            let choose = "choose another with 'HELLO name'";
                            return book.say(id, format!("The name {name} is taken; {choose}\n"));
                        }
                        self.names.insert(id, name);
                    }
                    None => _ = self.names.remove(&id),
                }
                book.say_all(format!("{} is in the room.\n", self.name(id)));
            }
            b"SAY" => {
                let text = if rest.is_empty() { "nothing...".to_owned() } else { harmless(rest) };
                book.say_all(format!("{} says: {text}\n", self.name(id)));
            }
            b"WHO" => {
                let here = book.open().into_iter().map(|id| format!(" - {}\n", self.name(id)));
                let here: String = here.collect();
                book.say(id, format!("Currently connected users:\n{here}"));
            }
            b"BYE" => {
                book.say_all(format!("{} is about to leave the room.\n", self.name(id)));
                book.ends(id, CloseReason::Closed);
            }
            b"KILL" => book.say(id, "KILL is disabled on this server.\n"),
            _ => {
                book.say(id, "What? I only understand HELLO, SAY, WHO, BYE and KILL commands\n");
            }
        }
    }

    fn closed(&mut self, book: &mut Book, id: ConnId, _reason: CloseReason) {
        book.say_all(format!("{} has left the room.\n", self.name(id)));
        self.names.remove(&id);
        self.heard.remove(&id);
    }

    fn left_over(&self) -> usize {
        self.names.len() + self.heard.len()
    }
}
