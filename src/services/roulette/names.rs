//! A long list of names that is cheap to append to another, to read while it grows and to throw away.
//!
//! Half a million names in as many `String`s would be half a million allocations to make, and to
//! free in one turn when somebody says CLEAR. So the names lie in chunks of about a thousand: their
//! text in a row, and where each ends. A list only ever grows at its end, so whoever remembers how
//! long it was reads it as it was: nothing is copied for that, neither names nor the table of chunks.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

/// Bytes that the names of one chunk take at the most, unless a single name takes more. One piece of
/// a LIST is made of so much.
const CHUNK: usize = 32 * 1024;
/// Bytes that a name takes besides its text: where it ends.
const END: usize = size_of::<u32>();

/// There is no room for so many students; see [`Roulette::new`](super::Roulette::new).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for so many students")]
pub struct Full;

/// Names in their order. A list and all that are made of it by [`empty`](Self::empty) have one bound
/// of memory together.
pub(super) struct Names {
    /// With each chunk the number of names up to its end.
    chunks: Vec<(usize, Chunk)>,
    /// The weight of all its names.
    weight: usize,
    /// The bound, in bytes.
    memory: usize,
    /// The weight of all lists under the bound.
    used: Rc<Cell<usize>>,
}

impl Names {
    /// An empty list with room for `memory` bytes of names.
    pub(super) fn new(memory: usize) -> Names {
        Names { chunks: Vec::new(), weight: 0, memory, used: Rc::default() }
    }

    /// An empty list under the same bound.
    pub(super) fn empty(&self) -> Names {
        let used = Rc::clone(&self.used);
        Names { chunks: Vec::new(), weight: 0, memory: self.memory, used }
    }

    /// The bound of memory, in bytes.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |(upto, _)| *upto)
    }

    pub(super) fn get(&self, index: usize) -> Option<&str> {
        let (before, chunk) = self.chunk_of(index)?;
        chunk.get(index - before)
    }

    /// The first of these names, some thousand at the most: so that not all is done at once.
    pub(super) fn piece(&self, of: Range<usize>) -> impl Iterator<Item = &str> {
        let found = self.chunk_of(of.start).into_iter();
        found.flat_map(move |(before, chunk)| {
            let end = chunk.ends.len().min(of.end - before);
            (of.start - before..end).filter_map(move |index| chunk.get(index))
        })
    }

    /// The chunk with this name, and how many names there are before the chunk.
    fn chunk_of(&self, index: usize) -> Option<(usize, &Chunk)> {
        let number = self.chunks.partition_point(|(upto, _)| *upto <= index);
        let (upto, chunk) = self.chunks.get(number)?;
        Some((upto - chunk.ends.len(), chunk))
    }

    pub(super) fn push(&mut self, name: &str) -> Result<(), Full> {
        let left = self.memory.saturating_sub(self.used.get());
        if weight(name) > left || u32::try_from(name.len()).is_err() {
            return Err(Full);
        }
        self.used.set(self.used.get() + weight(name));
        self.weight += weight(name);
        self.add(name);
        Ok(())
    }

    /// Appends another list under the same bound. It costs a step for each chunk, not for each name.
    pub(super) fn append(&mut self, mut more: Names) {
        self.weight += std::mem::take(&mut more.weight);
        for (_, chunk) in std::mem::take(&mut more.chunks) {
            match self.chunks.last() {
                // Many short lists must not become many small chunks.
                Some((_, last)) if last.weight() + chunk.weight() <= CHUNK => {
                    chunk.names().for_each(|name| self.add(name));
                }
                _ => self.add_chunk(chunk),
            }
        }
    }

    /// Appends a name whose weight is counted.
    fn add(&mut self, name: &str) {
        match self.chunks.last() {
            Some((_, last)) if last.weight() + weight(name) <= CHUNK => {}
            _ => self.add_chunk(Chunk::default()),
        }
        if let Some((upto, last)) = self.chunks.last_mut() {
            *upto += 1;
            last.add(name);
        }
    }

    /// Appends a chunk. The one before it grows no more, so it keeps no capacity for that.
    fn add_chunk(&mut self, chunk: Chunk) {
        if let Some((_, full)) = self.chunks.last_mut() {
            full.text.shrink_to_fit();
            full.ends.shrink_to_fit();
        }
        self.chunks.push((self.len() + chunk.ends.len(), chunk));
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.used.set(self.used.get() - self.weight);
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The bytes of memory that a name takes.
fn weight(name: &str) -> usize {
    name.len() + END
}

#[derive(Default)]
struct Chunk {
    /// The names, with nothing in between.
    text: String,
    /// Where each ends.
    ends: Vec<u32>,
}

impl Chunk {
    fn weight(&self) -> usize {
        self.text.len() + self.ends.len() * END
    }

    fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.text[start as usize..end as usize])
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).filter_map(|index| self.get(index))
    }

    /// Appends a name, which must fit: see [`CHUNK`].
    fn add(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(self.text.len() as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &Names) -> Vec<String> {
        first(of, of.len())
    }

    /// The first `count` names, piece by piece.
    fn first(of: &Names, count: usize) -> Vec<String> {
        let mut names = Vec::new();
        while names.len() < count {
            names.extend(of.piece(names.len()..count).map(str::to_owned));
        }
        names
    }

    fn numbered(store: &Names, range: std::ops::Range<usize>) -> Names {
        let mut list = store.empty();
        range.for_each(|n| list.push(&format!("student {n}")).unwrap());
        list
    }

    #[test]
    fn every_name_is_found_by_its_number_whatever_the_lists_it_came_in() {
        let mut store = Names::new(usize::MAX);
        let mut wanted = Vec::new();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..300 {
            let mut list = store.empty();
            for _ in 0..random.usize(..3000) {
                // Now and then one that is a chunk by itself, often an empty one.
                let length = if random.u32(..5000) == 0 { 2 * CHUNK } else { random.usize(..20) };
                let name = "é".repeat(length / 2);
                list.push(&name).unwrap();
                wanted.push(name);
            }
            store.append(list);
        }
        assert_eq!(store.len(), wanted.len());
        assert!(names(&store) == wanted);
        let found = (0..wanted.len()).map(|index| store.get(index).unwrap());
        assert!(found.eq(&wanted));
        assert_eq!((store.get(wanted.len()), store.get(usize::MAX)), (None, None));
        assert_eq!(Names::new(0).get(0), None);
        assert_eq!(Names::new(0).piece(0..0).count(), 0);
    }

    #[test]
    fn a_long_list_is_appended_as_it_lies() {
        let mut store = Names::new(usize::MAX);
        store.append(numbered(&store, 0..10_000));
        let list = numbered(&store, 0..100_000);
        let place = |chunk: &(usize, Chunk)| chunk.1.text.as_ptr();
        let lay: Vec<_> = list.chunks.iter().map(place).collect();
        store.append(list);
        let lies = store.chunks.iter().map(place);
        assert!(lies.skip(store.chunks.len() - lay.len()).eq(lay));
    }

    #[test]
    fn many_short_lists_fill_the_chunks() {
        let mut store = Names::new(usize::MAX);
        for n in 0..10_000 {
            store.append(numbered(&store, n..n + 1));
        }
        assert_eq!(store.chunks.len(), numbered(&store, 0..10_000).chunks.len());
        assert_eq!(names(&store), names(&numbered(&store, 0..10_000)));
    }

    #[test]
    fn what_it_was_can_be_read_while_it_grows() {
        let mut store = Names::new(usize::MAX);
        store.append(numbered(&store, 0..3));
        let was = store.len();
        store.append(numbered(&store, 3..5000));
        assert_eq!(names(&store), names(&numbered(&store, 0..5000)));
        assert_eq!(first(&store, was), ["student 0", "student 1", "student 2"]);
        assert_eq!(store.piece(1..was).collect::<Vec<_>>(), ["student 1", "student 2"]);
    }

    #[test]
    fn all_lists_together_keep_within_the_memory() {
        let mut store = Names::new(100 * (END + 4));
        let fill = |list: &mut Names| {
            let mut count = 0;
            while list.push("four").is_ok() {
                count += 1;
            }
            count
        };
        let mut one = store.empty();
        assert_eq!(fill(&mut one), 100);
        let mut two = store.empty();
        assert_eq!(two.push("four"), Err(Full));
        one = two.empty();
        assert_eq!(fill(&mut two), 100);
        store.append(two);
        // What is cleared takes its room until nobody reads it any more.
        let cleared = std::mem::replace(&mut store, one);
        assert_eq!(store.push(""), Err(Full));
        drop(cleared);
        assert_eq!(fill(&mut store), 100);
        assert_eq!(store.used.get(), store.memory());
        store = store.empty();
        assert_eq!(store.used.get(), 0);
    }

    #[test]
    fn a_full_chunk_has_no_capacity_to_spare() {
        let mut store = numbered(&Names::new(usize::MAX), 0..10_000);
        let full = store.chunks.len() - 1;
        // Each of these is more than half a chunk, so the next begins another.
        for _ in 0..5 {
            let mut list = store.empty();
            (0..5).for_each(|_| list.push(&"x".repeat(CHUNK / 8)).unwrap());
            store.append(list);
        }
        for (number, (_, chunk)) in store.chunks.iter().enumerate().rev().skip(1) {
            assert_eq!(chunk.text.capacity() + chunk.ends.capacity() * END, chunk.weight());
            assert!(number >= full || chunk.weight() > CHUNK - 20 && chunk.weight() <= CHUNK);
        }
    }
}
