//! Input: read into one scratch buffer that all connections share. A connection keeps only what its
//! handler has not taken.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;

use super::clock::Nanos;
use super::encoding::{Decoder, Encoder, Unreadable};

/// A rest of up to so many bytes is copied in front of the next read, so that the handler sees one
/// run of bytes. A longer rest grows in a buffer of its own instead.
const HEADROOM: usize = 4 * 1024;

/// The buffer is at least so large. Allocators take a block of this size straight from the system,
/// which gives a page only once it is written to: short lines need no more of it than they fill.
const FRESH: usize = 256 * 1024;

/// The buffer that all connections of a reactor are read into: room for a short rest, and behind it
/// room for one read.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    buffer: Vec<u8>,
}

impl Scratch {
    /// Room for one read of `want` bytes. The buffer grows to the largest read that the limits of
    /// some service ask for, and no further.
    pub(crate) fn room(&mut self, want: usize) -> &mut [u8] {
        if self.buffer.len() < HEADROOM + want {
            self.buffer = vec![0; (HEADROOM + want).max(FRESH)];
        }
        &mut self.buffer[HEADROOM..HEADROOM + want]
    }
}

/// What one connection has received and its handler has not taken.
#[derive(Debug, Default)]
pub(crate) struct Input {
    /// Boxed, because most connections keep nothing: 8 bytes instead of 48.
    kept: Option<Box<Kept>>,
}

/// What is kept of one connection's input. It is lent out while the handler looks at it.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    /// How many bytes at the front have been taken. They are dropped with the next append, so that
    /// taking many small pieces does not move the rest each time.
    taken: usize,
    /// The rest is known to hold no LF.
    searched: bool,
    /// The handler has seen all of the rest and needs more.
    hungry: bool,
    /// When the rest began to wait for more.
    since: Nanos,
}

impl Kept {
    /// What the handler has not taken.
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }
}

/// Where the bytes to offer to the handler lie.
pub(crate) enum Offer {
    /// In the scratch buffer.
    Scratch(Range<usize>),
    /// In a buffer of the connection's own.
    Kept(Box<Kept>),
}

impl Offer {
    /// No bytes, for a hook that needs none.
    pub(crate) const NOTHING: Offer = Offer::Scratch(0..0);

    /// The bytes to offer.
    pub(crate) fn bytes<'a>(&'a self, scratch: &'a Scratch) -> &'a [u8] {
        match self {
            Offer::Scratch(range) => &scratch.buffer[range.clone()],
            Offer::Kept(kept) => kept.rest(),
        }
    }
}

impl Input {
    /// How many bytes at the front of the next offer are known to hold no LF.
    pub(crate) fn known(&self) -> usize {
        self.kept.as_ref().filter(|kept| kept.searched).map_or(0, |kept| kept.rest().len())
    }

    /// How much memory is taken for what is kept, while it is not lent out.
    #[inline]
    pub(crate) fn kept(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.bytes.capacity())
    }

    /// Whether something is kept that the handler has not refused.
    pub(crate) fn has_work(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| !kept.hungry)
    }

    /// Since when the handler has been waiting for more; none if it does not.
    pub(crate) fn unfinished_since(&self) -> Option<Nanos> {
        self.kept.as_ref().filter(|kept| kept.hungry).map(|kept| kept.since)
    }

    /// Counts the wait of the handler from now on: until now it was the loop that did not read.
    pub(crate) fn wait_from(&mut self, now: Nanos) {
        if let Some(kept) = &mut self.kept {
            kept.since = now;
        }
    }

    /// Has what the handler refused offered once more, since nothing more will come.
    pub(crate) fn offer_again(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.hungry = false;
        }
    }

    /// Lends out what is kept, until [`give_back`](Self::give_back).
    pub(crate) fn lend(&mut self) -> Option<Offer> {
        self.kept.take().map(Offer::Kept)
    }

    /// Reads once, at most `want` bytes; EINTR is retried. Gives how many bytes came, and an offer
    /// of them behind what was kept. At the end of the input there are 0 bytes and no offer.
    pub(crate) fn read(
        &mut self,
        from: &mut impl Read,
        scratch: &mut Scratch,
        want: usize,
    ) -> io::Result<(usize, Option<Offer>)> {
        let count = loop {
            match from.read(scratch.room(want)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        if count == 0 {
            return Ok((0, None));
        }
        let fresh = HEADROOM..HEADROOM + count;
        let offer = match self.kept.take() {
            None => Offer::Scratch(fresh),
            Some(kept) if kept.rest().len() <= HEADROOM => {
                let start = HEADROOM - kept.rest().len();
                scratch.buffer[start..HEADROOM].copy_from_slice(kept.rest());
                Offer::Scratch(start..fresh.end)
            }
            Some(mut kept) => {
                kept.bytes.drain(..kept.taken);
                kept.taken = 0;
                let want = kept.bytes.len() + count;
                if kept.bytes.capacity() < want {
                    // Doubling would have thousands of half lines take twice what they are.
                    kept.bytes.reserve_exact(count + want / 8);
                }
                kept.bytes.extend_from_slice(&scratch.buffer[fresh]);
                Offer::Kept(kept)
            }
        };
        Ok((count, Some(offer)))
    }

    /// Takes an offer back, of which the handler took the first `taken` bytes, and keeps the
    /// rest. `hungry` says whether the handler needs more to go on, `searched` whether the rest is
    /// known to hold no LF, and `since` when it began to wait for more.
    pub(crate) fn give_back(
        &mut self,
        offer: Offer,
        scratch: &Scratch,
        taken: usize,
        hungry: bool,
        searched: bool,
        since: Nanos,
    ) {
        let rest = &offer.bytes(scratch)[taken..];
        self.kept = match offer {
            _ if rest.is_empty() => None,
            Offer::Kept(mut kept) if rest.len() > HEADROOM.max(kept.bytes.capacity() / 4) => {
                kept.taken += taken;
                (kept.searched, kept.hungry, kept.since) = (searched, hungry, since);
                Some(kept)
            }
            // A short rest gets a buffer of just its size, so that an idle connection holds no more,
            // and so does what is little of a large buffer.
            _ => Some(Box::new(Kept { bytes: rest.to_vec(), taken: 0, searched, hungry, since })),
        };
    }

    /// Writes down what the handler has not taken.
    pub(super) fn save(&self, now: Nanos, to: &mut Encoder) {
        to.put_option(
            self.kept.as_deref(),
            |to, Kept { bytes, taken, searched, hungry, since }| {
                to.put_bytes(&bytes[*taken..]);
                to.put_flag(*searched);
                to.put_flag(*hungry);
                to.put_age(*since, now);
            },
        );
    }

    /// Reads what [`save`](Self::save) has written.
    pub(super) fn restore(from: &mut Decoder<'_>, now: Nanos) -> Result<Input, Unreadable> {
        let kept = from.option(|from| {
            Ok(Box::new(Kept {
                bytes: from.bytes()?.to_vec(),
                taken: 0,
                searched: from.flag()?,
                hungry: from.flag()?,
                since: from.since(now)?,
            }))
        })?;
        if kept.as_ref().is_some_and(|kept| kept.bytes.is_empty()) {
            return Err(Unreadable("input of no bytes"));
        }
        Ok(Input { kept })
    }

    /// What the handler has not taken, to be given to somebody else.
    pub(crate) fn into_rest(self) -> Vec<u8> {
        let kept = self.kept.map_or_else(Kept::default, |kept| *kept);
        match kept.taken {
            0 => kept.bytes,
            _ => kept.rest().to_vec(),
        }
    }

    /// Throws away what is kept.
    pub(crate) fn discard(&mut self) {
        *self = Input::default();
    }
}

/// Reads and throws away, until WouldBlock or until there were `budget` bytes; EINTR is retried.
/// Gives how many bytes there were, and whether the input ended.
pub(crate) fn discard(
    from: &mut impl Read,
    scratch: &mut Scratch,
    budget: usize,
) -> io::Result<(usize, bool)> {
    let mut count = 0;
    while count < budget {
        match from.read(scratch.room(budget)) {
            Ok(0) => return Ok((count, true)),
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok((count, false))
}
