//! How what is to go on in another process is written down: numbers, bytes and what is made of them, one
//! behind the other. Whoever reads them knows what they are.

use std::time::Duration;

use super::clock::{Nanos, nanos};

/// What a handler has saved of itself or of a session cannot be read.
///
/// It is displayed as a few words, such as `cut off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub &'static str);

/// Writes down what another process is to go on with. What is [put](Self::put_number) first is
/// [taken](Decoder::number) first.
///
/// ```
/// use reactor::{Decoder, Encoder};
///
/// let mut saved = Encoder::default();
/// saved.put_text("olivier");
/// saved.put_option(Some(7), Encoder::put_number);
/// let mut saved = Decoder::new(saved.as_bytes());
/// assert_eq!((saved.text()?, saved.option(Decoder::number)?), ("olivier", Some(7)));
/// saved.finish()?;
/// # Ok::<(), reactor::Unreadable>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// A yes or a no.
    pub fn put_flag(&mut self, flag: bool) {
        self.bytes.push(flag.into());
    }

    /// A number. It takes eight bytes.
    pub fn put_number(&mut self, number: u64) {
        self.bytes.extend(number.to_be_bytes());
    }

    /// Any bytes, with their length.
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_number(bytes.len() as u64);
        self.bytes.extend(bytes);
    }

    /// Text, with its length.
    pub fn put_text(&mut self, text: &str) {
        self.put_bytes(text.as_bytes());
    }

    /// A duration, in nanoseconds. One above 584 years becomes that.
    pub fn put_duration(&mut self, duration: Duration) {
        self.put_number(nanos(duration));
    }

    /// Whether there is something, and then what `put` writes of it.
    pub fn put_option<T>(&mut self, option: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.put_flag(option.is_some());
        if let Some(it) = option {
            put(self, it);
        }
    }

    /// What was put so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What another one has written.
    pub(crate) fn append(&mut self, other: &Encoder) {
        self.bytes.extend(&other.bytes);
    }

    /// A moment, as the time that has passed since.
    pub(crate) fn put_age(&mut self, since: Nanos, now: Nanos) {
        self.put_number(now.saturating_sub(since));
    }

    /// A moment, as the time that is still to pass until then.
    pub(crate) fn put_left(&mut self, until: Nanos, now: Nanos) {
        self.put_number(until.saturating_sub(now));
    }
}

/// Reads what an [`Encoder`] has written. It believes nothing: what is not there, is no text or cannot be is
/// [`Unreadable`], and no more memory is taken than the bytes have.
#[derive(Clone, Debug)]
pub struct Decoder<'b> {
    rest: &'b [u8],
}

impl<'b> Decoder<'b> {
    /// Reads these bytes from their beginning.
    pub fn new(bytes: &'b [u8]) -> Decoder<'b> {
        Decoder { rest: bytes }
    }

    /// A yes or a no.
    ///
    /// # Errors
    /// If neither is next.
    pub fn flag(&mut self) -> Result<bool, Unreadable> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Unreadable("neither yes nor no")),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// If eight bytes are not there.
    pub fn number(&mut self) -> Result<u64, Unreadable> {
        let (number, rest) = self.rest.split_first_chunk().ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*number))
    }

    /// Any bytes.
    ///
    /// # Errors
    /// If fewer are there than their length says.
    pub fn bytes(&mut self) -> Result<&'b [u8], Unreadable> {
        let length = self.size()?;
        self.take(length)
    }

    /// Text.
    ///
    /// # Errors
    /// If it is not all there, or no UTF-8.
    pub fn text(&mut self) -> Result<&'b str, Unreadable> {
        str::from_utf8(self.bytes()?).map_err(|_| Unreadable("no text"))
    }

    /// A duration.
    ///
    /// # Errors
    /// If it is not there.
    pub fn duration(&mut self) -> Result<Duration, Unreadable> {
        self.number().map(Duration::from_nanos)
    }

    /// What `take` reads, if there is something.
    ///
    /// # Errors
    /// If nothing says whether there is, and those of `take`.
    pub fn option<T>(
        &mut self,
        take: impl FnOnce(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, Unreadable> {
        self.flag()?.then(|| take(self)).transpose()
    }

    /// Whether all was read. Until then a loop may take one thing more.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All must have been read.
    ///
    /// # Errors
    /// If something is left: whoever has written it means more than was understood.
    pub fn finish(self) -> Result<(), Unreadable> {
        if self.is_empty() { Ok(()) } else { Err(Unreadable("more than was expected")) }
    }

    /// A number that counts something in memory.
    pub(crate) fn size(&mut self) -> Result<usize, Unreadable> {
        usize::try_from(self.number()?).map_err(|_| Unreadable("a number too large"))
    }

    /// The moment that an [age](Encoder::put_age) tells. None is 0, which is "never" in many places.
    pub(crate) fn since(&mut self, now: Nanos) -> Result<Nanos, Unreadable> {
        Ok(now.saturating_sub(self.number()?).max(1))
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], Unreadable> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(taken)
    }
}

const CUT_OFF: Unreadable = Unreadable("cut off");

/// What a handler hands on of the state that its connections share; see
/// [`Handler::save`](crate::Handler::save).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    pub(crate) version: u32,
    pub(crate) extent: Extent,
    pub(crate) state: Encoder,
}

/// Which connections of a handler go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Each that can.
    Each,
    /// Each that can, and the others are closed.
    Together,
    /// None.
    Nobody,
}

impl Saved {
    /// Nothing yet. The version is that of what is written from here on and of every session: raise it with
    /// each change of what is written. A handler that does not know it takes nothing over.
    pub fn new(version: u32) -> Saved {
        Saved { version, extent: Extent::Each, state: Encoder::default() }
    }

    /// The connections belong together, as those of a room do: none of them may stay behind with the old
    /// handler. Those that cannot be handed over are closed with
    /// [a line that says why](crate::Farewell::Upgrade), and the new handler is told of their end. The old one
    /// is told nothing more then, neither of messages nor of a shutdown.
    pub fn together(self) -> Saved {
        Saved { extent: Extent::Together, ..self }
    }

    /// Nothing goes, and nobody is closed: the old handler serves its connections to their end. New clients
    /// come to the new one, which hears nothing of those. It is for connections that are worth no more than
    /// what is under way over them, or that another one depends on, as those of
    /// [`Forward`](crate::services::Forward).
    pub fn stay() -> Saved {
        Saved { extent: Extent::Nobody, ..Saved::new(0) }
    }

    /// Where the state is written to.
    pub fn state(&mut self) -> &mut Encoder {
        &mut self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_comes_back_and_nothing_else_does() {
        let mut put = Encoder::default();
        put.put_flag(true);
        put.put_number(u64::MAX);
        put.put_bytes(b"\0\xff");
        put.put_option(None, Encoder::put_text);
        put.put_option(Some("é"), Encoder::put_text);
        put.put_duration(Duration::MAX);
        put.put_age(5, 3);
        put.put_left(5, 3);
        let all = put.as_bytes();
        let take = |bytes| {
            let mut from = Decoder::new(bytes);
            assert!(from.flag()?);
            assert_eq!(from.number()?, u64::MAX);
            assert_eq!(from.bytes()?, b"\0\xff");
            assert_eq!(from.option(Decoder::text)?, None);
            assert_eq!(from.option(Decoder::text)?, Some("é"));
            assert_eq!(from.duration()?, Duration::from_nanos(u64::MAX));
            // An age below 0 is 0, a moment before the first is the first.
            assert_eq!(from.since(3)?, 3);
            assert_eq!(from.number()?, 2);
            from.finish()
        };
        assert_eq!(take(all), Ok(()));
        for end in 0..all.len() {
            assert_eq!(take(&all[..end]), Err(CUT_OFF), "cut at {end}");
        }
        assert!(take(&[all, b"\0"].concat()).is_err());
    }

    #[test]
    fn what_cannot_be_is_unreadable() {
        assert!(Decoder::new(&[2]).flag().is_err());
        assert!(Decoder::new(&[0xff; 9]).bytes().is_err());
        assert!(Decoder::new(b"\0\0\0\0\0\0\0\x01\xff").text().is_err());
        assert_eq!(Decoder::new(&[0xff; 8]).since(7), Ok(1));
    }
}
