//! The encoding of state that moves to another process: values one behind the other, without tags. The reader
//! must know their order and types.

use std::time::Duration;

use super::clock::{Nanos, nanos};

/// Saved state that cannot be read, and why. An error of [`Decoder`] and of
/// [`Handler::restore`](crate::Handler::restore).
///
/// It is displayed as the few words that it has, such as `cut off`. They end up in the log of the old process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub &'static str);

impl From<Unreadable> for String {
    fn from(why: Unreadable) -> String {
        why.0.to_owned()
    }
}

/// Encodes state for another process; see [`Handler::save`](crate::Handler::save). A [`Decoder`] must read the values
/// in the order in which they were put, each by the method of the same name.
///
/// The encoding has no tags and no names of fields. To change what is written, raise the version of [`Saved::new`].
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
    /// Puts a boolean. It takes one byte.
    pub fn put_flag(&mut self, flag: bool) {
        self.bytes.push(flag.into());
    }

    /// Puts a number. It takes eight bytes.
    pub fn put_number(&mut self, number: u64) {
        self.bytes.extend(number.to_be_bytes());
    }

    /// Puts bytes, with their length in front.
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_number(bytes.len() as u64);
        self.bytes.extend(bytes);
    }

    /// Puts text, with its length in front.
    pub fn put_text(&mut self, text: &str) {
        self.put_bytes(text.as_bytes());
    }

    /// Puts a duration, in nanoseconds. It is cut at `u64::MAX` of them, some 584 years.
    pub fn put_duration(&mut self, duration: Duration) {
        self.put_number(nanos(duration));
    }

    /// Puts whether there is a value, and then that value by `put`.
    pub fn put_option<T>(&mut self, option: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.put_flag(option.is_some());
        if let Some(it) = option {
            put(self, it);
        }
    }

    /// The encoding of all that was put so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The place of a number that is [set](Self::set_number) later.
    pub(crate) fn put_number_later(&mut self) -> usize {
        self.put_number(0);
        self.bytes.len() - size_of::<u64>()
    }

    pub(crate) fn set_number(&mut self, place: usize, number: u64) {
        self.bytes[place..][..size_of::<u64>()].copy_from_slice(&number.to_be_bytes());
    }

    /// Takes back what was put after so many bytes.
    pub(crate) fn truncate(&mut self, bytes: usize) {
        self.bytes.truncate(bytes);
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

/// Decodes what an [`Encoder`] has encoded. The bytes need not be trusted: what is cut off or invalid is
/// [`Unreadable`], and nothing is allocated for a length that the bytes only claim.
#[derive(Clone, Debug)]
pub struct Decoder<'b> {
    rest: &'b [u8],
}

impl<'b> Decoder<'b> {
    /// A decoder at the beginning of these bytes.
    pub fn new(bytes: &'b [u8]) -> Decoder<'b> {
        Decoder { rest: bytes }
    }

    /// The next boolean.
    ///
    /// # Errors
    /// [`Unreadable`] if there are no bytes left, or the next one is neither 0 nor 1.
    pub fn flag(&mut self) -> Result<bool, Unreadable> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Unreadable("neither yes nor no")),
        }
    }

    /// The next number.
    ///
    /// # Errors
    /// [`Unreadable`] if there are fewer than eight bytes left.
    pub fn number(&mut self) -> Result<u64, Unreadable> {
        let (number, rest) = self.rest.split_first_chunk().ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(u64::from_be_bytes(*number))
    }

    /// The next bytes, without their length. They are borrowed.
    ///
    /// # Errors
    /// [`Unreadable`] if fewer bytes are left than the length says.
    pub fn bytes(&mut self) -> Result<&'b [u8], Unreadable> {
        let length = self.size()?;
        self.take(length)
    }

    /// The next text. It is borrowed.
    ///
    /// # Errors
    /// [`Unreadable`] if it is cut off, or is not UTF-8.
    pub fn text(&mut self) -> Result<&'b str, Unreadable> {
        str::from_utf8(self.bytes()?).map_err(|_| Unreadable("no text"))
    }

    /// The next duration.
    ///
    /// # Errors
    /// [`Unreadable`] if there are fewer than eight bytes left.
    pub fn duration(&mut self) -> Result<Duration, Unreadable> {
        self.number().map(Duration::from_nanos)
    }

    /// The next optional value, which `take` decodes if it is there.
    ///
    /// # Errors
    /// Those of [`flag`](Self::flag) and of `take`.
    pub fn option<T>(
        &mut self,
        take: impl FnOnce(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, Unreadable> {
        self.flag()?.then(|| take(self)).transpose()
    }

    /// Whether all was decoded. A loop may decode values until then.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends the decoding. The library calls it for what it gives to a handler, so that is needed only for a
    /// decoder of your own.
    ///
    /// # Errors
    /// [`Unreadable`] if bytes are left, since part of the state would be lost.
    pub fn finish(self) -> Result<(), Unreadable> {
        if self.is_empty() { Ok(()) } else { Err(Unreadable("more than was expected")) }
    }

    /// The next number, as a `usize`.
    ///
    /// # Errors
    /// [`Unreadable`] if there are fewer than eight bytes left, or the number does not fit. Do not allocate so much
    /// memory because the bytes say so.
    pub fn size(&mut self) -> Result<usize, Unreadable> {
        usize::try_from(self.number()?).map_err(|_| Unreadable("a number too large"))
    }

    /// The moment that an [age](Encoder::put_age) tells. It is at least 1, because 0 means "never" in many places.
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

/// What [`Handler::save`](crate::Handler::save) returns: the saved state of a handler, its version, and what is to
/// happen to the connections.
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
    /// An empty state, whose connections move to the new process. `version` is the version of the format of this
    /// state and of the sessions, and is passed to [`Handler::restore`](crate::Handler::restore). Raise it with each
    /// change of the format. A handler may restore several versions; one that it does not know it must refuse.
    pub fn new(version: u32) -> Saved {
        Saved { version, extent: Extent::Each, state: Encoder::default() }
    }

    /// Declares that the connections belong together, such as those of a chat room, so that none may stay with the
    /// old handler. Those that cannot move are closed with [`Farewell::Upgrade`](crate::Farewell::Upgrade), and the new
    /// handler has their [`on_close`](crate::Handler::on_close). Of the old handler only `farewell` is still called: it
    /// loses its timers, and hears neither messages nor the shutdown.
    pub fn together(self) -> Saved {
        Saved { extent: Extent::Together, ..self }
    }

    /// Nothing moves and nothing is closed: the old handler serves its connections until they end, and the new
    /// handler serves new clients, with no state of the old one. This is for short connections, such as those of
    /// HTTP, and for those that depend on another connection of the same process, such as a forwarder's.
    pub fn stay() -> Saved {
        Saved { extent: Extent::Nobody, ..Saved::new(0) }
    }

    /// The encoder of the state.
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
