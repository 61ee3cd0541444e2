//! Output: gathered in one arena that all connections share, and written straight from it at the end
//! of the turn. What the kernel refuses is copied into a backlog of the connection's own.
//!
//! A broadcast lies in the arena once, however many receive it. Several broadcasts in a row are one
//! run of bytes, so each receiver is still served by one write.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};

use super::encoding::{Decoder, Encoder, Unreadable};

/// An arena that a burst has grown past this is given back.
const ARENA_KEPT: usize = 4 * 1024 * 1024;

/// A backlog of less capacity than this is not worth shrinking.
const BACKLOG_KEPT: usize = 64 * 1024;

/// The capacity that an arena begins with.
const ARENA_FIRST: usize = 4 * 1024;

/// How many bytes change their case at once.
const BLOCK: usize = 16;

/// The output of one turn. It is cleared once all that is due has been flushed.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    /// What earlier turns have left in it is written over, so that to make room costs no more than a
    /// comparison.
    buffer: Vec<u8>,
    /// How much of the buffer is in use.
    len: usize,
}

/// A run of bytes in the arena.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Segment {
    start: u32,
    end: u32,
}

impl Segment {
    fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

impl Arena {
    /// Appends, and says where the bytes are; none if an offset does not fit into a segment.
    #[inline]
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Option<Segment> {
        let start = self.len;
        self.put(bytes);
        self.since(start)
    }

    /// Appends.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.put_by(<[u8]>::copy_from_slice, bytes);
    }

    /// Appends with the ASCII letters in upper case.
    #[inline]
    pub(crate) fn put_ascii_uppercase(&mut self, bytes: &[u8]) {
        self.put_by(copy_ascii_uppercase, bytes);
    }

    /// Appends by `copy`, which must fill all the room that it is given: what was there before is
    /// what somebody else was sent.
    #[inline]
    fn put_by(&mut self, copy: impl Fn(&mut [u8], &[u8]), bytes: &[u8]) {
        match self.buffer[self.len..].get_mut(..bytes.len()) {
            Some(room) => {
                copy(room, bytes);
                self.len += bytes.len();
            }
            None => self.grow_and_put(copy, bytes),
        }
    }

    #[cold]
    fn grow_and_put(&mut self, copy: impl Fn(&mut [u8], &[u8]), bytes: &[u8]) {
        let start = self.len;
        self.len += bytes.len();
        let twice = 2 * self.buffer.len();
        self.buffer.resize(self.len.max(twice).max(ARENA_FIRST), 0);
        copy(&mut self.buffer[start..self.len], bytes);
    }

    /// What was appended since the arena was `start` bytes long; none if an offset does not fit into
    /// a segment.
    #[inline]
    pub(crate) fn since(&self, start: usize) -> Option<Segment> {
        let end = u32::try_from(self.len).ok()?;
        Some(Segment { start: start as u32, end })
    }

    /// Takes back what was appended since the arena was `len` bytes long.
    #[inline]
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The bytes that were appended since the arena was `start` bytes long.
    pub(crate) fn from(&self, start: usize) -> &[u8] {
        &self.buffer[start..self.len]
    }

    /// As [`from`](Self::from), to be changed in place.
    pub(crate) fn tail_mut(&mut self, start: usize) -> &mut [u8] {
        &mut self.buffer[start..self.len]
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn bytes(&self, segment: Segment) -> &[u8] {
        &self.buffer[segment.start as usize..segment.end as usize]
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
        if self.buffer.len() > ARENA_KEPT {
            self.buffer = Vec::new();
        }
    }
}

/// Copies block by block; both slices have the same length. The compiler keeps a block in one
/// register. For a loop of any length it makes code that costs a short line more than the copy.
#[inline]
fn copy_ascii_uppercase(to: &mut [u8], from: &[u8]) {
    let Some(last) = from.last_chunk::<BLOCK>() else {
        to.copy_from_slice(from);
        return to.make_ascii_uppercase();
    };
    let (blocks, rest) = from.as_chunks();
    for (to, block) in to.as_chunks_mut().0.iter_mut().zip(blocks) {
        *to = ascii_uppercase(block);
    }
    // The end is a block too, which overlaps the one before it.
    if !rest.is_empty()
        && let Some(to) = to.last_chunk_mut()
    {
        *to = ascii_uppercase(last);
    }
}

#[inline]
fn ascii_uppercase(block: &[u8; BLOCK]) -> [u8; BLOCK] {
    block.map(|byte| byte.to_ascii_uppercase())
}

/// How a flush ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Nothing is left.
    All,
    /// The kernel takes no more for now; an event will tell when it does.
    Blocked,
    /// The turn's budget is used up; no event will come.
    Budget,
}

/// Bytes that the kernel refused. It is boxed where it is used, since it would cost every idle
/// connection 32 bytes instead of 8.
type Backlog = VecDeque<u8>;

/// The unsent bytes of one connection: either a segment of the arena or a backlog, never both. A
/// connection without output owns no memory here.
#[derive(Debug, Default)]
pub(crate) struct Output {
    segment: Segment,
    backlog: Option<Box<Backlog>>,
}

impl Output {
    /// How many bytes are unsent.
    pub(crate) fn len(&self) -> usize {
        self.segment.len() + self.backlog()
    }

    /// How many of the unsent bytes are in the backlog.
    #[inline]
    pub(crate) fn backlog(&self) -> usize {
        self.backlog.as_ref().map_or(0, |backlog| backlog.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds what was appended to the arena since it was `start` bytes long. Gives by how much the
    /// backlog has grown.
    #[inline]
    pub(crate) fn push_since(&mut self, arena: &Arena, start: usize) -> usize {
        if self.claim(arena.since(start)) { 0 } else { self.copy(arena, arena.from(start)) }
    }

    /// Adds these bytes, which lie in the arena at `segment` if there is one. Gives by how much the
    /// backlog has grown.
    #[inline]
    pub(crate) fn push(&mut self, arena: &Arena, bytes: &[u8], segment: Option<Segment>) -> usize {
        if self.claim(segment) { 0 } else { self.copy(arena, bytes) }
    }

    #[cold]
    fn copy(&mut self, arena: &Arena, bytes: &[u8]) -> usize {
        let before = self.backlog();
        let backlog = self.spill(arena);
        backlog.extend(bytes);
        backlog.len() - before
    }

    /// Extends the segment by this one. False if that cannot be: there is a backlog, or something
    /// for others lies in between.
    #[inline]
    fn claim(&mut self, new: Option<Segment>) -> bool {
        let Some(new) = new.filter(|_| self.backlog.is_none()) else { return false };
        if self.segment.end == new.start {
            self.segment.end = new.end;
        } else if self.segment.len() == 0 {
            self.segment = new;
        } else {
            return false;
        }
        true
    }

    /// Moves the segment into the backlog, since the arena is about to be cleared.
    pub(crate) fn keep(&mut self, arena: &Arena) {
        if self.segment.len() > 0 {
            self.spill(arena);
        }
    }

    /// Moves the segment, if there is one, into the backlog.
    #[cold]
    fn spill(&mut self, arena: &Arena) -> &mut Backlog {
        let backlog = self.backlog.get_or_insert_default();
        backlog.extend(arena.bytes(self.segment));
        self.segment = Segment::default();
        backlog
    }

    /// Writes as much as the other side takes, at most `budget` bytes. Adds what it took to `written`.
    ///
    /// A short write is followed by another: only after WouldBlock is an event sure to come.
    pub(crate) fn flush(
        &mut self,
        to: &mut impl Write,
        arena: &Arena,
        budget: usize,
        written: &mut usize,
    ) -> io::Result<Flushed> {
        loop {
            let unsent = match &self.backlog {
                Some(backlog) => backlog.as_slices().0,
                None => arena.bytes(self.segment),
            };
            let some_left = !unsent.is_empty();
            let outcome = match unsent {
                // The stream may hold some that it has taken.
                [] => match to.flush() {
                    Ok(()) => Some(Flushed::All),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Some(Flushed::Blocked),
                    Err(error) => return Err(error),
                },
                _ if *written >= budget => Some(Flushed::Budget),
                _ => match to.write(&unsent[..unsent.len().min(budget - *written)]) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        *written += count;
                        self.sent(count);
                        None
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Some(Flushed::Blocked),
                    Err(error) if error.kind() == ErrorKind::Interrupted => None,
                    Err(error) => return Err(error),
                },
            };
            if let Some(outcome) = outcome {
                if some_left {
                    // The arena is about to be cleared.
                    self.spill(arena);
                }
                return Ok(outcome);
            }
        }
    }

    /// Drops the first `count` bytes, which were written.
    #[inline]
    fn sent(&mut self, count: usize) {
        match &mut self.backlog {
            // An offset into the arena must not outlive the turn.
            None if self.segment.len() == count => self.segment = Segment::default(),
            None => self.segment.start += count as u32,
            Some(backlog) if backlog.len() == count => self.backlog = None,
            Some(backlog) => {
                backlog.drain(..count);
                // A connection that is never quite empty must not keep the capacity of a burst.
                if backlog.capacity() > BACKLOG_KEPT && backlog.len() < backlog.capacity() / 4 {
                    backlog.shrink_to(backlog.len() * 2);
                }
            }
        }
    }

    /// Writes down what is unsent.
    pub(super) fn save(&self, arena: &Arena, to: &mut Encoder) {
        let Output { segment, backlog } = self;
        match backlog {
            None => to.put_bytes(arena.bytes(*segment)),
            Some(backlog) => {
                let (front, back) = backlog.as_slices();
                to.put_bytes(&[front, back].concat());
            }
        }
    }

    /// Reads what [`save`](Self::save) has written.
    pub(super) fn restore(from: &mut Decoder<'_>) -> Result<Output, Unreadable> {
        let unsent = from.bytes()?;
        let backlog = (!unsent.is_empty()).then(|| Box::new(unsent.to_vec().into()));
        Ok(Output { segment: Segment::default(), backlog })
    }

    /// Throws away what is unsent.
    pub(crate) fn discard(&mut self) {
        *self = Output::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: usize = 256 * 1024;

    /// Takes `room` bytes at the most, in pieces of `piece`; counts the calls.
    struct Pipe {
        taken: Vec<u8>,
        room: usize,
        piece: usize,
        calls: usize,
    }

    impl Write for Pipe {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            let count = buf.len().min(self.piece).min(self.room - self.taken.len());
            self.taken.extend(&buf[..count]);
            if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn pipe(room: usize, piece: usize) -> Pipe {
        Pipe { taken: Vec::new(), room, piece, calls: 0 }
    }

    fn send(output: &mut Output, arena: &mut Arena, bytes: &[u8]) {
        let segment = arena.add(bytes);
        output.push(arena, bytes, segment);
    }

    #[test]
    fn upper_case_is_that_of_the_standard_library_at_any_length() {
        let bytes: Vec<u8> = (0..=255).cycle().take(600).collect();
        for (start, len) in (0..256).flat_map(|start| (0..70).map(move |len| (start, len))) {
            let mut arena = Arena::default();
            arena.put(b"> ");
            arena.put_ascii_uppercase(&bytes[start..start + len]);
            let wanted = bytes[start..start + len].to_ascii_uppercase();
            assert_eq!(arena.from(0), [b"> ", &wanted[..]].concat());
        }
    }

    #[test]
    fn an_arena_that_was_cleared_holds_nothing_of_before() {
        let mut arena = Arena::default();
        arena.put(&[b'x'; 3 * ARENA_FIRST]);
        arena.truncate(3);
        assert_eq!(arena.from(0), b"xxx");
        arena.clear();
        assert_eq!((arena.len(), arena.from(0)), (0, &b""[..]));
        arena.put(b"y");
        assert_eq!(arena.from(0), b"y");
    }

    #[test]
    fn what_is_sent_in_a_row_goes_out_in_one_write_and_owns_no_memory() {
        let (mut arena, mut output, mut to) = (Arena::default(), Output::default(), pipe(99, 99));
        send(&mut output, &mut arena, b"one ");
        send(&mut output, &mut arena, b"two");
        assert_eq!((output.len(), output.backlog.is_none()), (7, true));
        assert_eq!(output.flush(&mut to, &arena, BUDGET, &mut 0).unwrap(), Flushed::All);
        assert_eq!((to.taken.as_slice(), to.calls), (&b"one two"[..], 1));
        assert!(output.is_empty() && output.backlog.is_none());
    }

    #[test]
    fn what_others_send_in_between_keeps_its_place() {
        let (mut arena, mut to) = (Arena::default(), pipe(99, 99));
        let (mut alice, mut bob) = (Output::default(), Output::default());
        send(&mut alice, &mut arena, b"a1 ");
        send(&mut bob, &mut arena, b"b1 ");
        send(&mut alice, &mut arena, b"a2");
        assert_eq!(alice.flush(&mut to, &arena, BUDGET, &mut 0).unwrap(), Flushed::All);
        assert_eq!(to.taken, b"a1 a2");
    }

    #[test]
    fn what_the_kernel_refuses_survives_the_arena_and_is_given_back_once_sent() {
        let (mut arena, mut output, mut to) = (Arena::default(), Output::default(), pipe(3, 2));
        send(&mut output, &mut arena, b"abcdef");
        assert_eq!(output.flush(&mut to, &arena, BUDGET, &mut 0).unwrap(), Flushed::Blocked);
        arena.clear();
        send(&mut output, &mut arena, b"gh");
        assert_eq!(output.len(), 5);
        to.room = 99;
        assert_eq!(output.flush(&mut to, &arena, BUDGET, &mut 0).unwrap(), Flushed::All);
        assert_eq!(to.taken, b"abcdefgh");
        assert!(output.backlog.is_none());
    }

    /// Takes all and sends none of it, as encryption over a full socket does.
    struct Holding;

    impl Write for Holding {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(ErrorKind::WouldBlock.into())
        }
    }

    #[test]
    fn what_was_taken_and_is_not_out_waits_for_an_event_and_owns_no_memory() {
        let (mut arena, mut output, mut written) = (Arena::default(), Output::default(), 0);
        send(&mut output, &mut arena, b"abc");
        assert_eq!(
            output.flush(&mut Holding, &arena, BUDGET, &mut written).unwrap(),
            Flushed::Blocked
        );
        assert_eq!((written, output.backlog.is_none()), (3, true));
    }

    #[test]
    fn one_turn_writes_no_more_than_its_budget() {
        let (mut arena, mut output) = (Arena::default(), Output::default());
        let mut to = pipe(usize::MAX, 64 * 1024);
        send(&mut output, &mut arena, &vec![b'x'; 2 * BUDGET]);
        let mut written = 0;
        assert_eq!(output.flush(&mut to, &arena, BUDGET, &mut written).unwrap(), Flushed::Budget);
        assert_eq!((written, output.len()), (BUDGET, BUDGET));
    }
}
