use crate::text::make_ascii_uppercase;
use crate::{Context, Handler};

/// What a client hears first.
const GREETING: &str = "\
Welcome to the Reactor Server.
Send me text lines and conclude with the BYE command.
";

/// Upper-cases every line: the course's first server, and the smallest useful handler.
///
/// ```text
/// $ nc 127.0.0.1 2323
/// Welcome to the Reactor Server.
/// Send me text lines and conclude with the BYE command.
/// hello, été
/// > HELLO, ÉTÉ
/// bye
/// > BYE
/// ```
///
/// In a line that is not valid UTF-8 only the ASCII letters change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Handler for Echo {
    // Nothing has to be remembered from one line to the next, and no other thread has anything
    // to say here.
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send(GREETING);
    }

    fn on_line(&mut self, cx: &mut Context<'_, ()>, line: &[u8]) {
        let mut reply = cx.writer();
        reply.put("> ");
        // Most lines are ASCII: upper case then keeps the length, and needs no memory.
        let ascii = make_ascii_uppercase(reply.put(line));
        if !ascii && let Ok(text) = str::from_utf8(line) {
            reply.take_back(line.len());
            reply.put(text.to_uppercase());
        }
        reply.put("\n");
        drop(reply);
        if line.eq_ignore_ascii_case(b"bye") {
            // The answer still arrives: closing means after all that was sent has left.
            cx.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;

    #[test]
    fn speaks_as_the_protocol_says() {
        let mut server = Harness::new(Echo);
        let client = server.connect();
        assert_eq!(server.sent(client), GREETING.as_bytes());
        server.feed(client, "hello, été\r\n\nBye\nnever read\n".as_bytes());
        assert_eq!(server.sent(client), "> HELLO, ÉTÉ\n> \n> BYE\n".as_bytes());
        assert!(server.is_shut(client));
    }

    #[test]
    fn leaves_bytes_that_are_not_utf8_alone() {
        let mut server = Harness::new(Echo);
        let client = server.connect();
        server.sent(client);
        server.feed(client, b"caf\xe9 \xff\x00\n");
        assert_eq!(server.sent(client), b"> CAF\xe9 \xff\x00\n");
    }

    #[test]
    fn bye_is_a_whole_line() {
        let mut server = Harness::new(Echo);
        let client = server.connect();
        server.sent(client);
        server.feed(client, b"bye bye\n bye\n");
        assert_eq!(server.sent(client), b"> BYE BYE\n>  BYE\n");
        assert!(!server.is_shut(client));
    }
}
