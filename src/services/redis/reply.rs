//! What Redis answers.

use std::str::FromStr;

/// One answer of Redis, as RESP2 has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// No such thing; of `EXEC`: what was watched has changed, nothing was done.
    Nil,
    /// `+OK` and the like.
    Status(String),
    /// `-OOM ...`: the word in front says which.
    Error(String),
    /// `:1`.
    Integer(i64),
    /// A string of any bytes.
    Bulk(Vec<u8>),
    /// Several.
    Array(Vec<Reply>),
}

impl Reply {
    /// What an error says; none if it is none.
    pub fn error(&self) -> Option<&str> {
        match self {
            Reply::Error(error) => Some(error),
            _ => None,
        }
    }

    /// Whether no error is in it.
    pub fn is_good(&self) -> bool {
        match self {
            Reply::Error(_) => false,
            Reply::Array(parts) => parts.iter().all(Reply::is_good),
            _ => true,
        }
    }

    /// Whether Redis is out of memory: `-OOM` for a command, or for one of an `EXEC`.
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Reply::Error(error) => error.starts_with("OOM "),
            Reply::Array(parts) => parts.iter().any(Reply::is_out_of_memory),
            _ => false,
        }
    }

    /// The parts of an array; none of what is none.
    pub fn parts(&self) -> &[Reply] {
        match self {
            Reply::Array(parts) => parts,
            _ => &[],
        }
    }

    /// The bytes of a string; none of what is none.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Reply::Bulk(bytes) => bytes,
            _ => &[],
        }
    }

    /// The value of a string, such as a number.
    pub fn value<T: FromStr>(&self) -> Option<T> {
        crate::text::parse(self.bytes())
    }

    /// The pairs of a hash, or the fields of an entry.
    pub fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.parts().chunks_exact(2).map(|pair| (pair[0].bytes(), pair[1].bytes()))
    }

    /// The id and the fields of each entry, as `XRANGE` and, one level deeper, `XREAD` have them.
    pub fn entries(&self) -> impl Iterator<Item = (EntryId, &Reply)> {
        self.parts().iter().filter_map(|entry| {
            let [id, fields] = entry.parts() else { return None };
            Some((id.value()?, fields))
        })
    }
}

/// Where an entry lies in the stream: `1700000000000-0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// When it was written, by Redis's clock.
    milliseconds: u64,
    /// Which it was in that millisecond.
    sequence: u64,
}

impl EntryId {
    /// A place on the way from here to a later one, as the clock tells it.
    pub(in crate::services) fn between(self, later: EntryId, part: u64, of: u64) -> EntryId {
        let time = u128::from(later.milliseconds.saturating_sub(self.milliseconds));
        let passed = time * u128::from(part) / u128::from(of);
        EntryId { milliseconds: self.milliseconds + passed as u64, sequence: 0 }
    }
}

impl FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<EntryId, ()> {
        let (milliseconds, sequence) = text.split_once('-').ok_or(())?;
        let number = |text: &str| text.parse().map_err(|_| ());
        Ok(EntryId { milliseconds: number(milliseconds)?, sequence: number(sequence)? })
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.sequence)
    }
}
