//! Input on its way in: read into one scratch buffer that all connections share; a connection
//! keeps only what its handler has not taken yet.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;

use super::clock::Nanos;

/// A kept rest up to this size is copied in front of the next read, so that the handler sees one
/// run of bytes; a longer one grows in its own buffer instead.
const HEADROOM: usize = 4 * 1024;

/// Allocators take this much straight from the system, which gives a page only once it is written
/// to: short lines need no more of it than they fill.
const FRESH: usize = 256 * 1024;

/// The buffer that all connections of a reactor are read into: room for a short rest, then for
/// one read.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    buffer: Vec<u8>,
}

impl Scratch {
    /// The buffer only ever grows to the largest read that some service's limits ask for.
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
    // Boxed, because most connections keep nothing: 8 bytes instead of 40.
    kept: Option<Box<Kept>>,
}

/// The connection's own buffer; lent out while the handler looks at it.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    /// The front that has been taken; dropped with the next append, so that taking many small
    /// pieces does not move the rest each time.
    taken: usize,
    /// It holds no LF.
    searched: bool,
    /// The handler has seen all of it and needs more.
    hungry: bool,
    /// When it began.
    since: Nanos,
}

impl Kept {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }
}

/// Where the bytes to offer to the handler lie.
pub(crate) enum Offer {
    /// In the scratch buffer; what is not taken must be kept.
    Scratch(Range<usize>),
    /// In the connection's own buffer.
    Kept(Box<Kept>),
}

impl Offer {
    pub(crate) fn bytes<'a>(&'a self, scratch: &'a Scratch) -> &'a [u8] {
        match self {
            Offer::Scratch(range) => &scratch.buffer[range.clone()],
            Offer::Kept(kept) => kept.rest(),
        }
    }
}

impl Input {
    /// How many bytes at the front of the next offer hold no LF.
    pub(crate) fn known(&self) -> usize {
        self.kept.as_ref().filter(|kept| kept.searched).map_or(0, |kept| kept.rest().len())
    }

    /// Something is kept that the handler has not been offered yet, or not refused.
    pub(crate) fn has_work(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| !kept.hungry)
    }

    /// Since when the handler has been waiting for the rest of what it has not taken.
    pub(crate) fn unfinished_since(&self) -> Option<Nanos> {
        self.kept.as_ref().filter(|kept| kept.hungry).map(|kept| kept.since)
    }

    /// It is only from now on that the handler waits.
    pub(crate) fn wait_from(&mut self, now: Nanos) {
        if let Some(kept) = &mut self.kept {
            kept.since = now;
        }
    }

    /// Offers again what the handler has refused: nothing more will come.
    pub(crate) fn offer_again(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.hungry = false;
        }
    }

    /// Lends out what is kept.
    pub(crate) fn lend(&mut self) -> Option<Offer> {
        self.kept.take().map(Offer::Kept)
    }

    /// One read of at most `want` bytes, EINTR retried. Gives how many came, 0 at the end of the
    /// input, and an offer of them together with what was kept.
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
                kept.bytes.extend_from_slice(&scratch.buffer[fresh]);
                Offer::Kept(kept)
            }
        };
        Ok((count, Some(offer)))
    }

    /// Takes an offer back, of which the handler took the first `taken` bytes, and keeps the
    /// rest: `hungry` if the handler needs more to go on, `searched` if it holds no LF,
    /// `since` when it began.
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
            Offer::Kept(mut kept) if rest.len() > HEADROOM => {
                kept.taken += taken;
                (kept.searched, kept.hungry, kept.since) = (searched, hungry, since);
                Some(kept)
            }
            // A short rest gets a buffer of just its size: an idle connection holds no more.
            _ => Some(Box::new(Kept { bytes: rest.to_vec(), taken: 0, searched, hungry, since })),
        };
    }

    /// Throws all of it away.
    pub(crate) fn discard(&mut self) {
        *self = Input::default();
    }
}

/// Reads and throws away, at most `budget` bytes, EINTR retried. Gives how many there were, and
/// whether that was the end.
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
