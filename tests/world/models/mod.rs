//! What each service must say, written from its protocol.

mod echo;
mod forward;
mod presence;
mod puppet;
mod roulette;
mod time;

use reactor::{CloseReason, ConnId, Handler};
use unicode_general_category::{GeneralCategory as Category, get_general_category};

use super::book::Book;
use super::choices::Choices;

pub use echo::Echo;
pub use forward::Forward;
pub use presence::Presence;
pub use puppet::Puppet;
pub use roulette::Roulette;
pub use time::Time;

pub trait Model: Sized {
    type Service: Handler;

    const NAME: &'static str;
    /// It has lines handed to it, rather than bytes.
    const CUTS_LINES: bool = true;
    /// Telnet's commands are no part of these.
    const TELNET: bool = false;
    /// It is tried with little room for the output of all together. Not where its answers tell who
    /// is open, which that changes in the middle of a hook.
    const BUDGET: bool = true;
    /// It pauses its clients as their partners read, which its model does not know.
    const PAUSES: bool = false;
    /// Other threads may post to it.
    const POSTS: bool = false;
    /// What brings the service back to its beginning.
    const LAST_LINE: &'static str = "";

    /// A service and its model.
    fn start(choices: &mut Choices) -> (Self::Service, Self);

    /// Another service, in the place of the one that there is; none where that saves nothing.
    fn successor(&self) -> Option<Self::Service> {
        None
    }

    /// The beginning of something that one of its clients might say, of `longest` bytes at most
    /// if it is long.
    fn talk(&self, choices: &mut Choices, longest: usize) -> Vec<u8>;

    /// Something that another thread might post.
    fn post(&mut self, _choices: &mut Choices) -> Option<<Self::Service as Handler>::Message> {
        None
    }

    /// One more connection is there, or under way.
    fn met(&mut self, _id: ConnId) {}

    /// The service has dialled out.
    fn dialled(&mut self, _book: &mut Book, _id: ConnId) {}

    fn opened(&mut self, book: &mut Book, id: ConnId);

    fn line(&mut self, _book: &mut Book, _id: ConnId, _line: &[u8]) {}

    /// A piece of a block.
    fn piece(&mut self, book: &mut Book, id: ConnId, _piece: &[u8], _end: bool) {
        book.complain(format!("{id}: a block that nobody took"));
    }

    /// The handler took these bytes, for a service that does not have lines cut.
    fn took(&mut self, _book: &mut Book, _id: ConnId, _bytes: &[u8]) {}

    fn drained(&mut self, _book: &mut Book, _id: ConnId) {}

    fn eof(&mut self, book: &mut Book, id: ConnId) {
        book.ends(id, CloseReason::Closed);
    }

    fn closed(&mut self, _book: &mut Book, _id: ConnId, _reason: CloseReason) {}

    fn timer(&mut self, book: &mut Book, id: ConnId) {
        book.complain(format!("{id}: a timer that nobody set"));
    }

    fn service_timer(&mut self, book: &mut Book) {
        book.complain("a service timer that nobody set".to_owned());
    }

    /// A message is about to be handled.
    fn arrived(&mut self, _book: &mut Book, _message: &<Self::Service as Handler>::Message) {}

    fn message(&mut self, _book: &mut Book, _message: &<Self::Service as Handler>::Message) {}

    /// The service may leave this input for later, when nothing else is to be done.
    fn keeps(input: &[u8]) -> bool {
        !input.contains(&b'\n')
    }

    /// What should have happened by now, when nothing is left to do.
    fn overdue(&self, _book: &Book) -> Option<String> {
        None
    }

    /// More is to be said to it as soon as it has taken what was.
    fn has_more(&self, _id: ConnId) -> bool {
        false
    }

    /// Timers of the service itself that are still to come.
    fn service_timers(&self) -> usize {
        0
    }

    /// Makes what differs from run to run the same.
    fn plain(&self, _got: &mut [u8]) {}

    /// Says what the service keeps of clients though all are gone.
    fn left_over(&self) -> usize {
        0
    }
}

/// The lines in these bytes, cut in the plainest way.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    })
}

/// What is said to those that begin as a browser does.
const FOREIGN: &str = "This is neither HTTP nor TLS.\n";

fn is_foreign(line: &[u8]) -> bool {
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let request = matches!(words[..], [method, target, version]
        if !method.is_empty()
            && (target.starts_with(b"/") || target == b"*")
            && version.starts_with(b"HTTP/"));
    request || line.to_ascii_lowercase().starts_with(b"host:") || line.starts_with(b"\x16\x03")
}

/// A text and, of each of its characters, whether other clients may see it as it is.
fn judged(text: &str) -> Vec<(char, bool)> {
    use Category::*;
    let hidden = |c: char| {
        let ignorable = matches!(u32::from(c), 0x34f | 0x115f | 0x1160 | 0x17b4 | 0x17b5 | 0x180b..=0x180f
            | 0x2060..=0x206f | 0x2800 | 0x3164 | 0xfe00..=0xfe0f | 0xffa0 | 0xfff0..=0xfff8
            | 0xe0000..=0xe0fff);
        let category = get_general_category(c);
        ignorable
            || matches!(
                category,
                Control | Format | LineSeparator | ParagraphSeparator | PrivateUse
            )
    };
    let joins = |c: char| {
        let category = get_general_category(c);
        let mark = matches!(category, NonspacingMark | SpacingMark | EnclosingMark);
        (c.is_alphabetic() || mark) && !hidden(c)
    };
    let all: Vec<char> = text.chars().collect();
    let at = |index: usize| all.get(index).copied();
    let judge = |(index, c): (usize, &char)| {
        let (before, after) = (index.checked_sub(1).and_then(at), at(index + 1));
        let shows = match c {
            '\u{200c}' | '\u{200d}' => before.is_some_and(joins) && after.is_some_and(joins),
            '\u{fe0e}' | '\u{fe0f}' => before.is_some_and(|c| !c.is_whitespace() && !hidden(c)),
            c => !hidden(*c),
        };
        (*c, shows)
    };
    all.iter().enumerate().map(judge).collect()
}

/// Text as other clients may see it.
fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    judged(&text).into_iter().map(|(c, shows)| if shows { c } else { '?' }).collect()
}

/// A line of a client that has sent none before.
fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

/// The length of a telnet command at the front of these bytes, and what is answered.
pub fn telnet(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let (&first, &command) = (bytes.first()?, bytes.get(1)?);
    if first != 0xff {
        return None;
    }
    match (command, bytes.get(2)) {
        (0xf1..=0xf9, _) => Some((2, Vec::new())),
        (0xfb..=0xfe, Some(b'\r' | b'\n')) => None,
        (0xfb, Some(option)) => Some((3, vec![0xff, 0xfe, *option])),
        (0xfd, Some(6)) => Some((3, vec![0xff, 0xfb, 6])),
        (0xfd, Some(option)) => Some((3, vec![0xff, 0xfc, *option])),
        (0xfc | 0xfe, Some(_)) => Some((3, Vec::new())),
        (0xfa, _) => {
            let line = bytes.split(|byte| *byte == b'\n').next()?;
            let mut end = 2;
            while line.get(end..end + 2)? != b"\xff\xf0" {
                end += match line[end..] {
                    [0xff, 0xff, ..] => 2,
                    [0xff, ..] => return None,
                    _ => 1,
                };
            }
            (end + 2 <= 512).then_some((end + 2, Vec::new()))
        }
        _ => None,
    }
}

/// Something that a telnet client says in front of a line, mostly nothing.
fn telnet_talk(choices: &mut Choices) -> Vec<u8> {
    const COMMANDS: &[&[u8]] = &[
        b"\xff\xfb\x18\xff\xfd\x03",
        b"\xff\xf4\xff\xfd\x06",
        b"\xff\xfa\x18\x00xterm\xff\xff\xff\xf0\xff\xfc\x01",
        b"\xff\xfa\x18",
        b"\xff\xff\xff\xf4",
        b"\xff\xfd",
    ];
    if choices.once_in(12) { choices.one_of(COMMANDS).into() } else { Vec::new() }
}
