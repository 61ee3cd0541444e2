use reactor::{CloseReason, ConnId, services};

use super::{Book, Choices, Model, lines, telnet, telnet_talk};

pub struct Echo;

impl Model for Echo {
    type Service = services::Echo;

    const NAME: &'static str = "echo";
    const CUTS_LINES: bool = false;

    fn start(_choices: &mut Choices) -> (services::Echo, Echo) {
        (services::Echo, Echo)
    }

    fn successor(&self) -> Option<services::Echo> {
        Some(services::Echo)
    }

    fn talk(&self, choices: &mut Choices, _longest: usize) -> Vec<u8> {
        if choices.once_in(60) { b"Bye".to_vec() } else { telnet_talk(choices) }
    }

    fn opened(&mut self, book: &mut Book, id: ConnId) {
        book.say(
            id,
            "Welcome to the Reactor Server.\n\
             Send me text lines and conclude with the BYE command.\n",
        );
    }

    fn took(&mut self, book: &mut Book, id: ConnId, bytes: &[u8]) {
        let mut rest = bytes;
        loop {
            while let Some((length, answer)) = telnet(rest) {
                book.say(id, answer);
                rest = &rest[length..];
            }
            let Some(line) = lines(rest).next() else { break };
            let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
            rest = &rest[end..];
            book.line(id, line);
            let text = match std::str::from_utf8(line) {
                Ok(text) => text.to_uppercase().into_bytes(),
                Err(_) => line.to_ascii_uppercase(),
            };
            book.say(id, [b"> ", &text[..], b"\n"].concat());
            if line.eq_ignore_ascii_case(b"bye") {
                book.ends(id, CloseReason::Closed);
            }
        }
    }
}
