use std::collections::BTreeMap;

use reactor::services::roulette::{self, Version};
use reactor::{CloseReason, ConnId};

use super::{Book, Choices, FOREIGN, Model, is_foreign, judged, telnet_talk, without_mark};

/// What one client has done.
#[derive(Default)]
struct Guest {
    commands: u64,
    load: Option<Vec<String>>,
}

/// Protocol 2.0.
pub struct Roulette {
    students: Vec<String>,
    /// The same dice as the service's.
    dice: fastrand::Rng,
    guests: BTreeMap<ConnId, Guest>,
}

fn student(name: &str) -> String {
    let mut text = String::new();
    for (c, shows) in judged(name) {
        match c {
            '"' | '\\' | '\0'..' ' => {
                let quoted = serde_json::to_string(&c).unwrap();
                text.push_str(&quoted[1..quoted.len() - 1]);
            }
            c if shows => text.push(c),
            c => c.encode_utf16(&mut [0; 2]).iter().for_each(|u| text += &format!("\\u{u:04x}")),
        }
    }
    format!("{{\"fullname\":\"{text}\"}}")
}

impl Model for Roulette {
    type Service = roulette::Roulette;

    const NAME: &'static str = "roulette";
    const LAST_LINE: &'static str = "CLEAR";
    const TELNET: bool = true;

    fn start(choices: &mut Choices) -> (roulette::Roulette, Roulette) {
        let seed = choices.below(1 << 20) as u64;
        fastrand::seed(seed);
        let service = roulette::Roulette::new(Version::Two, 64 << 20);
        fastrand::seed(seed);
        let dice = fastrand::Rng::new();
        (service, Roulette { students: Vec::new(), dice, guests: BTreeMap::new() })
    }

    fn successor(&self) -> Option<roulette::Roulette> {
        Some(roulette::Roulette::new(Version::Two, 64 << 20))
    }

    fn talk(&self, choices: &mut Choices, longest: usize) -> Vec<u8> {
        const WORDS: &[&str] = &[
            "LOAD",
            "RANDOM",
            "info",
            "HELP",
            "ENDOFDATA",
            "ENDOFDATA",
            "",
            "LIST",
            "CLEAR",
            "BYE",
        ];
        match choices.below(40) {
            39 => {
                let many = "somebody of some renown\n".repeat(longest / 20);
                format!("LOAD\n{many}ENDOFDATA\nLIST").into()
            }
            38 => b"BYE".to_vec(),
            37 => b"CLEAR".to_vec(),
            _ => [&telnet_talk(choices)[..], WORDS[choices.below(8)].as_bytes()].concat(),
        }
    }

    fn opened(&mut self, book: &mut Book, id: ConnId) {
        self.guests.insert(id, Guest::default());
        book.say(id, "Hello. Online HELP is available. Will you find it?\n");
    }

    fn line(&mut self, book: &mut Book, id: ConnId, line: &[u8]) {
        let Some(guest) = self.guests.get_mut(&id) else { return };
        if let Some(names) = &mut guest.load {
            if !line.eq_ignore_ascii_case(b"ENDOFDATA") {
                return names.push(String::from_utf8_lossy(line).into_owned());
            }
            let success = "{\"status\":\"success\",\"numberOfNewStudents\":";
            book.say(id, format!("{success}{}}}\n", names.len()));
            self.students.append(names);
            guest.load = None;
            return;
        }
        let line = if guest.commands == 0 { without_mark(line) } else { line };
        if is_foreign(line) {
            book.say(id, FOREIGN);
            return book.ends(id, CloseReason::Closed);
        }
        guest.commands += 1;
        let reply = match line.to_ascii_uppercase().as_slice() {
            b"HELP" => "Commands: [HELP, RANDOM, LOAD, INFO, BYE, CLEAR, LIST]".to_owned(),
            b"INFO" => {
                let count = self.students.len();
                format!("{{\"protocolVersion\":\"2.0\",\"numberOfStudents\":{count}}}")
            }
            b"LOAD" => {
                guest.load = Some(Vec::new());
                "Send your data [end with ENDOFDATA]".to_owned()
            }
            b"RANDOM" if self.students.is_empty() => {
                "{\"error\":\"There is no student, you cannot pick a random one\"}".to_owned()
            }
            b"RANDOM" => student(&self.students[self.dice.usize(..self.students.len())]),
            b"LIST" => {
                let all: Vec<_> = self.students.iter().map(|name| student(name)).collect();
                return book.stream(id, format!("{{\"students\":[{}]}}\n", all.join(",")));
            }
            b"CLEAR" => {
                self.students = Vec::new();
                "DATASTORE CLEARED".to_owned()
            }
            b"BYE" => {
                let count = guest.commands;
                let success = "{\"status\":\"success\",\"numberOfCommands\":";
                book.say(id, format!("{success}{count}}}\n"));
                return book.ends(id, CloseReason::Closed);
            }
            _ => "Huh? please use HELP if you don't know what commands are available.".to_owned(),
        };
        book.say(id, reply + "\n");
    }

    fn closed(&mut self, _book: &mut Book, id: ConnId, _reason: CloseReason) {
        self.guests.remove(&id);
    }

    fn left_over(&self) -> usize {
        self.guests.len()
    }
}
