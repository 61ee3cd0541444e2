//! The entries of the stream: how they are written, and what is believed of those that are read.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::str::FromStr;

use super::commands::{Command, word};
use super::table::MOST_MEMBERS;
use crate::services::redis::Reply;
use crate::text::{parse, printable};

/// How many characters of a name are believed.
const NAME_LENGTH: usize = 64;
/// How many bytes of what somebody says are believed.
const TEXT_LENGTH: usize = 64 << 10;

/// Who a server is: 128 bits that no other process has, as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u128);

impl ServerId {
    /// One that nobody else has.
    pub fn random() -> ServerId {
        // The keys of this hasher are from the system's generator, and new for each thread.
        let random = || u128::from(RandomState::new().build_hasher().finish());
        ServerId(random() << 64 | random())
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for ServerId {
    type Err = ();

    fn from_str(text: &str) -> Result<ServerId, ()> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).map_err(|_| ())?;
        if digits { Ok(ServerId(number)) } else { Err(()) }
    }
}

/// What is known of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// None before a HELLO, and after one without a name.
    pub name: Option<String>,
    /// Its place in WHO's list: above those of all who were known to its server when it came.
    pub order: u64,
}

impl Member {
    /// `ORDER NAME`; after the blank nothing if it has no name.
    pub(super) fn to_text(&self) -> String {
        format!("{} {}", self.order, self.name.as_deref().unwrap_or(""))
    }

    /// None if that is not what [`to_text`](Member::to_text) makes.
    pub(super) fn from_text(text: &[u8]) -> Option<Member> {
        let (order, name) = crate::text::command(text);
        Some(Member { order: parse(order)?, name: believed_name(name) })
    }
}

/// A name as somebody may see it; none if it is empty.
pub(super) fn believed_name(bytes: &[u8]) -> Option<String> {
    let name: String = String::from_utf8_lossy(bytes).chars().take(NAME_LENGTH).collect();
    (!name.is_empty()).then(|| printable(name.as_bytes()))
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A client has connected.
    Arrive { member: u64, order: u64 },
    /// A client has told its name, or that it wants none.
    Hello { member: u64, name: Option<String> },
    /// A client has said something.
    Say { member: u64, name: Option<String>, text: String },
    /// A client has said that it is about to leave.
    Bye { member: u64, name: Option<String> },
    /// A client is gone.
    Leave { member: u64 },
    /// A server is gone, and all its members; `last` is the last number that was read of it.
    Gone { server: ServerId, life: u64, last: u64 },
    /// A client has that name, and not one that it was refused.
    Name { member: u64, name: Option<String> },
    /// Somebody may have missed something: every server shall write its `Here`.
    Ask,
    /// All that the others have to know of a server.
    Here(Here),
}

/// All that the others have to know of a server. It has numbers of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Here {
    /// The last number of this server that it has read itself: who has not, has missed something.
    pub after: u64,
    /// The next entry has the number above this one.
    pub base: u64,
    /// How many lines its members have said among themselves so far.
    pub said: u64,
    /// Its members by their numbers.
    pub members: Vec<(u64, Member)>,
}

impl Content {
    /// The member that has done it, of the server that wrote it.
    pub(super) fn member(&self) -> Option<u64> {
        match self {
            Content::Arrive { member, .. }
            | Content::Hello { member, .. }
            | Content::Say { member, .. }
            | Content::Bye { member, .. }
            | Content::Leave { member } => Some(*member),
            _ => None,
        }
    }

    /// How many bytes it about takes.
    pub(super) fn size(&self) -> usize {
        match self {
            Content::Say { text, .. } => 16 + text.len(),
            Content::Hello { name, .. } | Content::Name { name, .. } => {
                16 + name.as_ref().map_or(0, String::len)
            }
            _ => 16,
        }
    }

    /// The kind, and the fields that go with it.
    fn fields(&self) -> (&'static str, Vec<(&'static str, String)>) {
        let member = self.member().map(|member| ("member", member.to_string()));
        let (kind, more) = match self {
            Content::Arrive { order, .. } => ("arrive", vec![("order", order.to_string())]),
            Content::Hello { name, .. } => {
                ("hello", vec![("name", name.clone().unwrap_or_default())])
            }
            Content::Say { name, text, .. } => {
                ("say", vec![("name", name.clone().unwrap_or_default()), ("text", text.clone())])
            }
            Content::Bye { name, .. } => ("bye", vec![("name", name.clone().unwrap_or_default())]),
            Content::Name { member, name } => {
                let name = name.clone().unwrap_or_default();
                ("name", vec![("member", member.to_string()), ("name", name)])
            }
            Content::Leave { .. } => ("leave", vec![]),
            Content::Ask => ("ask", vec![]),
            Content::Gone { server, life, last } => {
                let them = [("gone", server.to_string()), ("its_life", life.to_string())];
                ("gone", them.into_iter().chain([("last", last.to_string())]).collect())
            }
            Content::Here(here) => {
                let lines = here.members.iter().map(|(id, it)| format!("{id} {}\n", it.to_text()));
                let numbers = [("after", here.after), ("base", here.base), ("said", here.said)];
                let numbers = numbers.map(|(name, number)| (name, number.to_string()));
                ("here", numbers.into_iter().chain([("members", lines.collect())]).collect())
            }
        };
        (kind, member.into_iter().chain(more).collect())
    }
}

/// One entry: what happened, and which of its server's entries says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Who wrote it.
    pub server: ServerId,
    /// In which of its lives.
    pub life: u64,
    /// 1, 2, ..., never restarting; those of `Here` are counted by themselves.
    pub number: u64,
    /// What happened.
    pub content: Content,
}

impl Entry {
    /// `XADD KEY * FIELD VALUE ...`.
    pub(super) fn to_command(&self, key: &str) -> Command {
        let (kind, fields) = self.content.fields();
        let mut command = vec![word("XADD"), word(key), word("*")];
        let mut field = |name: &str, value: &str| command.extend([word(name), word(value)]);
        field("server", &self.server.to_string());
        field("life", &self.life.to_string());
        field("number", &self.number.to_string());
        field("kind", kind);
        fields.iter().for_each(|(name, value)| field(name, value));
        command
    }

    /// None of a kind or a shape that is not known. Unknown fields are passed over, and of two with one
    /// name the first counts.
    pub(super) fn from_reply(fields: &Reply) -> Option<Entry> {
        let field = |name: &str| {
            fields.pairs().find(|(field, _)| *field == name.as_bytes()).map(|(_, value)| value)
        };
        let number = |name: &str| field(name).and_then(parse::<u64>);
        let member = || number("member");
        let name = || field("name").and_then(believed_name);
        let content = match field("kind")? {
            b"arrive" => Content::Arrive { member: member()?, order: number("order")? },
            b"hello" => Content::Hello { member: member()?, name: name() },
            b"name" => Content::Name { member: member()?, name: name() },
            b"say" => {
                let text = field("text")?;
                let text = printable(&text[..text.len().min(TEXT_LENGTH)]);
                Content::Say { member: member()?, name: name(), text }
            }
            b"bye" => Content::Bye { member: member()?, name: name() },
            b"leave" => Content::Leave { member: member()? },
            b"ask" => Content::Ask,
            b"gone" => {
                let (server, life) = (parse(field("gone")?)?, number("its_life")?);
                Content::Gone { server, life, last: number("last")? }
            }
            b"here" => {
                let lines = field("members")?.split(|byte| *byte == b'\n');
                let members = lines.filter_map(|line| {
                    let (id, member) = crate::text::command(line);
                    Some((parse(id)?, Member::from_text(member)?))
                });
                let members = members.take(MOST_MEMBERS).collect();
                let (after, base) = (number("after")?, number("base")?);
                Content::Here(Here { after, base, said: number("said")?, members })
            }
            _ => return None,
        };
        let (server, life) = (parse(field("server")?)?, number("life")?);
        Some(Entry { server, life, number: number("number")?, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Redis makes of an `XADD`.
    fn read(command: &[Vec<u8>]) -> Option<Entry> {
        let fields = command[3..].iter().map(|field| Reply::Bulk(field.clone())).collect();
        Entry::from_reply(&Reply::Array(fields))
    }

    fn entry(content: Content) -> Entry {
        Entry { server: ServerId(7), life: 2, number: 3, content }
    }

    #[test]
    fn what_is_written_is_read() {
        let member = |name: Option<&str>, order| Member { name: name.map(str::to_owned), order };
        let members = vec![(1, member(Some("bob smith"), 5)), (9, member(None, 6))];
        for content in [
            Content::Arrive { member: 1, order: 9 },
            Content::Hello { member: 1, name: Some("é x".to_owned()) },
            Content::Hello { member: 1, name: None },
            Content::Say { member: 1, name: Some("bob".to_owned()), text: " hi ".to_owned() },
            Content::Bye { member: 1, name: None },
            Content::Name { member: 1, name: Some("bob".to_owned()) },
            Content::Leave { member: 1 },
            Content::Ask,
            Content::Gone { server: ServerId(u128::MAX), life: 1, last: 0 },
            Content::Here(Here { after: 1, base: 2, said: 3, members }),
        ] {
            assert_eq!(read(&entry(content.clone()).to_command("room")), Some(entry(content)));
        }
    }

    #[test]
    fn what_is_read_is_as_hostile_as_a_client() {
        let text = format!("\x1b[2J\n{}", "x".repeat(100_000));
        let Some(Entry { content: Content::Say { text, .. }, .. }) =
            read(&entry(Content::Say { member: 1, name: None, text }).to_command("room"))
        else {
            panic!()
        };
        assert!(text.starts_with("?[2J?x") && text.len() == TEXT_LENGTH);
        let name = Some("\u{202e}".repeat(100));
        let hello = read(&entry(Content::Hello { member: 1, name }).to_command("room")).unwrap();
        assert_eq!(hello.content, Content::Hello { member: 1, name: Some("?".repeat(64)) });
        // Kinds, numbers and servers that are none are passed over, whatever they are.
        for (place, value) in [(4, "7"), (6, "x"), (8, "-1"), (10, "sing"), (12, "")] {
            let mut command = entry(Content::Leave { member: 1 }).to_command("room");
            command[place] = word(value);
            assert_eq!(read(&command), None, "{value:?}");
        }
        let mut unknown = entry(Content::Ask).to_command("room");
        unknown.extend([word("mood"), word("good")]);
        assert_eq!(read(&unknown), Some(entry(Content::Ask)));
    }
}
