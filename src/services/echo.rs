use super::known_version;
use crate::{ConnId, Context, Decoder, Encoder, Handler, Saved, ServiceContext, Unreadable};

/// What a client is sent first.
const GREETING: &str = "\
Welcome to the Reactor Server.
Send me text lines and conclude with the BYE command.
";

/// More bytes than a read has, and so for the most part a line that grows: whether such are ASCII is not
/// asked each time that a part of it comes.
const LONG: usize = 128 * 1024;

/// Sends every line back in upper case, until the line `bye`: the smallest useful handler.
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
/// In a line that is not valid UTF-8 only the ASCII letters change. [Telnet commands](crate::Lines::skip_telnet)
/// in front of a line are no part of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Handler for Echo {
    // Nothing is kept from one line to the next, and no other thread posts anything.
    type Session = ();
    type Message = ();

    fn on_open(&mut self, cx: &mut Context<'_, ()>) {
        cx.send(GREETING);
    }

    // `on_line` with one `send` a line would do, but for telnet's commands. To check and change a
    // whole read at a time takes a fraction of the instructions.
    fn on_bytes(&mut self, cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
        if !is_plain(bytes) {
            return on_other_bytes(cx, bytes);
        }
        let mut lines = cx.lines(bytes);
        let mut reply = cx.writer();
        let mut bye = false;
        while !bye && let Some(line) = reply.next_line(&mut lines) {
            reply.put("> ");
            reply.put(line);
            reply.put("\n");
            bye = line.eq_ignore_ascii_case(b"bye");
        }
        reply.written().make_ascii_uppercase();
        drop(reply);
        if bye {
            // The answer still arrives: what was sent goes out before the connection ends.
            cx.close();
        }
        lines.taken()
    }

    // There is nothing to write down: a client is all that the loop knows of it.
    fn save(&self, _cx: &ServiceContext<'_, ()>) -> Option<Saved> {
        let Echo = self;
        Some(Saved::new(1))
    }

    fn save_session(&self, _cx: &ServiceContext<'_, ()>, _id: ConnId, (): &(), _to: &mut Encoder) {}

    fn restore(&mut self, version: u32, _from: &mut Decoder<'_>) -> Result<(), Unreadable> {
        known_version(version, 1)
    }
}

/// Whether bytes are changed as a whole.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.len() <= LONG && bytes.is_ascii()
}

/// The same, line by line, of bytes that may hold other letters and telnet's commands.
#[inline(never)]
fn on_other_bytes(cx: &mut Context<'_, ()>, bytes: &[u8]) -> usize {
    let mut lines = cx.lines(bytes);
    while lines.skip_telnet(cx)
        && let Some(line) = lines.next(cx)
    {
        let mut reply = cx.writer();
        reply.put("> ");
        match str::from_utf8(line) {
            Ok(text) => reply.put(text.to_uppercase()),
            Err(_) => reply.put_ascii_uppercase(line),
        }
        reply.put("\n");
        drop(reply);
        if line.eq_ignore_ascii_case(b"bye") {
            cx.close();
        }
    }
    lines.taken()
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
    fn telnet_commands_are_answered_and_not_sent_back() {
        let mut server = Harness::new(Echo);
        let client = server.connect();
        server.sent(client);
        // An option that is a letter stays as it is.
        server.feed(client, b"\xff\xfba\xff\xfd\x01h\xc3\xa9\xff\xf4\n\xff\xf4\xff\xfd\x06bye\n");
        let told = b"\xff\xfea\xff\xfc\x01> H\xc3\xa9\xff\xf4\n\xff\xfb\x06> BYE\n";
        assert_eq!(server.sent(client), told);
        assert!(server.is_shut(client));
    }

    /// With a large `max_line` each byte that was added to a line cost a quarter of a millisecond.
    #[test]
    fn of_a_long_line_that_grows_it_is_not_asked_again_whether_it_is_ascii() {
        let mut line = vec![b'x'; LONG];
        assert!(is_plain(&line));
        line.push(b'x');
        assert!(!is_plain(&line));
    }

    #[test]
    fn a_byte_order_mark_comes_back() {
        let mut server = Harness::new(Echo);
        let client = server.connect();
        server.sent(client);
        server.feed(client, "\u{feff}a\n");
        assert_eq!(server.sent(client), "> \u{feff}A\n".as_bytes());
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
