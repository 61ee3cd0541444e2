//! What is sent and what must come back: a [`Payload`]. That of echo servers is here: each line begins
//! with the number of the client and its own, in hexadecimal, so that replies that are swapped, repeated
//! or left out are noticed.

use std::fmt::Debug;

use reactor::Context;

use super::greeting::{Greeted, Greeting};
use super::modes::exchange::Session;
use super::run::Client;

/// `00000.00000000`: the client, the line.
const NUMBERS: usize = CLIENT + 1 + SEQUENCE;
const CLIENT: usize = 5;
const SEQUENCE: usize = 8;
/// The numbers and an LF, rounded up.
pub(crate) const SHORTEST: usize = 16;

/// Clients beyond this many would share numbers.
pub(crate) const MOST_CLIENTS: usize = 1 << (4 * CLIENT);

pub(crate) const SAY: &str = "SAY ";

/// What our echo service says first.
pub(crate) const GREETING: &str = "\
Welcome to the Reactor Server.
Send me text lines and conclude with the BYE command.
";

const FILLER: &[u8] = b" the quick brown fox jumps over the lazy dog";

pub(crate) type Cx<'a, P> = Context<'a, Client<Session<<P as Payload>::Own>>>;

/// Requests and their replies, in the order of the requests.
pub(crate) trait Payload: Debug {
    /// What it keeps of each client.
    type Own: Debug + Default;

    /// What the server says first, unless the command line says otherwise.
    fn greeting(&self) -> Greeting;

    /// What ends a connection, and the reply to it. Without one, we just close.
    fn goodbye(&self) -> Option<(&'static [u8], &'static [u8])> {
        None
    }

    /// Sends the requests of a client that have these numbers. Returns how many bytes that were.
    fn send(&mut self, cx: &mut Cx<'_, Self>, client: u32, first: u32, count: u32) -> usize;

    /// Whose replies are read next.
    fn set_reader(&mut self, client: u32);

    /// Checks what has come of the greeting, if that is [`Greeting::Dialogue`].
    fn greet(&mut self, own: &mut Self::Own, bytes: &[u8]) -> Greeted {
        let _ = (own, bytes);
        Greeted::Yes(0)
    }

    /// Sends what has to be said in the middle of a request. Returns how many bytes that were.
    #[inline]
    fn flush(&mut self, cx: &mut Cx<'_, Self>) -> usize {
        let _ = cx;
        0
    }

    /// Reads the reply to a request.
    fn read(&mut self, own: &mut Self::Own, number: u32, bytes: &[u8]) -> Reply;

    /// Reads what comes although nothing was asked.
    fn read_unasked(&mut self, own: &mut Self::Own, bytes: &[u8]) -> Reply {
        let _ = own;
        Reply::Wrong(bytes.len())
    }

    /// What a request said and what should have come, to be shown of a reply that was wrong.
    fn explain(&mut self, own: &Self::Own, client: u32, number: u32) -> (Vec<u8>, Vec<u8>);
}

/// What is at the beginning of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The right reply, or its rest, in so many bytes.
    Right(usize),
    /// So many bytes of a reply that goes on.
    Part(usize),
    /// Another one. It takes so many bytes, and the next reply is behind it.
    Wrong(usize),
    /// Another one, in so many bytes. Where the next one begins is not known, so the client is lost.
    Broken(usize),
    /// Nothing that could be judged yet.
    Incomplete,
}

/// The lines for an echo server, ours or any other.
#[derive(Debug)]
pub(crate) struct EchoLines {
    line: Template,
    reply: Template,
    /// It greets, marks its replies, and knows `BYE`.
    ours: bool,
}

impl EchoLines {
    /// Lines of this size for our echo service, or for one that sends back what comes.
    pub(crate) fn new(size: usize, ours: bool) -> EchoLines {
        let line = Template::new("", size);
        EchoLines { reply: if ours { line.echoed() } else { line.clone() }, line, ours }
    }
}

impl Payload for EchoLines {
    type Own = ();

    fn greeting(&self) -> Greeting {
        if self.ours { Greeting::Text(GREETING.into()) } else { Greeting::None }
    }

    fn goodbye(&self) -> Option<(&'static [u8], &'static [u8])> {
        self.ours.then_some((b"BYE\n", b"> BYE\n"))
    }

    #[inline]
    fn set_reader(&mut self, client: u32) {
        self.reply.set_client(client);
    }

    #[inline]
    fn send(&mut self, cx: &mut Cx<'_, Self>, client: u32, first: u32, count: u32) -> usize {
        self.line.set_client(client);
        let mut out = cx.writer();
        let mut sequence = first;
        for _ in 0..count {
            self.line.set_sequence(sequence);
            out.put(self.line.bytes());
            sequence = sequence.wrapping_add(1);
        }
        drop(out);
        count as usize * self.line.len()
    }

    #[inline]
    fn read(&mut self, (): &mut (), number: u32, bytes: &[u8]) -> Reply {
        let length = self.reply.len();
        self.reply.set_sequence(number);
        if bytes.get(..length) == Some(self.reply.bytes()) {
            return Reply::Right(length);
        }
        another(bytes)
    }

    fn explain(&mut self, (): &(), client: u32, number: u32) -> (Vec<u8>, Vec<u8>) {
        self.line.set_client(client);
        self.line.set_sequence(number);
        self.reply.set_sequence(number);
        (self.line.bytes().to_vec(), self.reply.bytes().to_vec())
    }
}

/// A line that is not the right one, or a part of one.
#[cold]
fn another(bytes: &[u8]) -> Reply {
    memchr::memchr(b'\n', bytes).map_or(Reply::Incomplete, |end| Reply::Wrong(end + 1))
}

/// A line of which only the numbers change.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Where the numbers are.
    at: usize,
    ten: u8,
}

impl Template {
    /// `prefix`, numbers and filler, `size` bytes with the LF.
    pub(crate) fn new(prefix: &str, size: usize) -> Template {
        let mut bytes = prefix.as_bytes().to_vec();
        let at = bytes.len();
        bytes.extend_from_slice(b"00000.00000000");
        bytes.extend(FILLER.iter().cycle().take((size - 1).saturating_sub(bytes.len())));
        bytes.push(b'\n');
        Template { bytes, at, ten: b'a' }
    }

    /// What echo answers to it. Echo upper-cases ASCII, which is all that the line has.
    pub(crate) fn echoed(&self) -> Template {
        let bytes = [b"> ", self.bytes.to_ascii_uppercase().as_slice()].concat();
        Template { bytes, at: self.at + 2, ten: b'A' }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn set_client(&mut self, client: u32) {
        let digits = hex(client, self.ten);
        let from = SEQUENCE - CLIENT;
        self.bytes[self.at..][..CLIENT].copy_from_slice(&digits[from..]);
    }

    #[inline]
    pub(crate) fn set_sequence(&mut self, sequence: u32) {
        let at = self.at + CLIENT + 1;
        self.bytes[at..at + SEQUENCE].copy_from_slice(&hex(sequence, self.ten));
    }

    /// The number in a line of this form, whatever else is in the line.
    pub(crate) fn sequence_of(&self, line: &[u8]) -> Option<u32> {
        let digits = line.get(self.at..self.at + NUMBERS)?.get(CLIENT + 1..)?;
        u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    }
}

/// Eight digits at once, without a table or a branch: it is done twice for every line.
#[inline]
fn hex(number: u32, ten: u8) -> [u8; SEQUENCE] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // One nibble to a byte, the first digit in the highest.
    let mut spread = u64::from(number);
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (spread + 6 * EACH) >> 4 & EACH;
    let digits = spread + u64::from(b'0') * EACH + letters * u64::from(ten - 10 - b'0');
    digits.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits() {
        for number in [0, 1, 9, 10, 15, 16, 0x1234_5678, 0x9abc_def0, u32::MAX] {
            assert_eq!(hex(number, b'a'), *format!("{number:08x}").as_bytes());
            assert_eq!(hex(number, b'A'), *format!("{number:08X}").as_bytes());
        }
    }

    #[test]
    fn a_line_has_its_size_and_its_reply() {
        for size in [SHORTEST, 32, 33, 1000] {
            let mut line = Template::new("", size);
            let mut reply = line.echoed();
            line.set_client(0xabcde);
            line.set_sequence(0xfeed);
            reply.set_client(0xabcde);
            reply.set_sequence(0xfeed);
            assert_eq!(line.len(), size);
            assert!(line.bytes().starts_with(b"abcde.0000feed"));
            let wanted = [b"> ", line.bytes().to_ascii_uppercase().as_slice()].concat();
            assert_eq!(reply.bytes(), wanted);
            assert_eq!(reply.sequence_of(&wanted), Some(0xfeed));
        }
    }

    #[test]
    fn what_is_no_number_has_none() {
        let line = Template::new("x says: ", 40);
        assert_eq!(line.sequence_of(b"x says: 00000.0000000g"), None);
        assert_eq!(line.sequence_of(b"x says"), None);
    }
}
